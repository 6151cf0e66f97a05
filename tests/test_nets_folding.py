"""What the spatial embedding promises of every scan: mirrored, moved, rescaled, doubled, alone or in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mtdlr.nets import augment
from mtdlr.nets.embedding import NAMES, LinearHead, central_uptake, drawn_in, spatial_embedding
from mtdlr.nets.regions import dilated, n_region_statistics, padded, region_statistics, surroundings
from mtdlr.nets.surroundings import mean_around

SHAPE = (20, 16, 18)
OTHER_SIDE = {
    "place: x", "place: side", "shape: tilt zx", "shape: tilt yx", "shape: skew x", "uptake: slope x",
    "uptake: curvature zx", "uptake: curvature yx", "spread: middle x"}
"""Numbers that say left or right, but for the sectors' own `left-right`."""


def scan(seed: int = 0) -> tuple[Tensor, Tensor]:
    """(images (2, 2, z, y, x), probabilities (2, z, y, x)): smooth noise with a tumour off the middle."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    images, masks = [], []
    for k in range(2):
        away = ((z - 9 - k)**2 / 9 + (y - 8)**2 / 6 + (x - 6 - 5 * k + 0.2 * z)**2 / 8)
        node = (z - 4)**2 + (y - 6)**2 + (x - 13 + 6 * k)**2 < 5
        pet = 0.4 * np.exp(-away) * (1 + 0.1 * x) + 0.3 * node + 0.05 * random.random(SHAPE)
        images.append(np.stack([pet, 0.1 * random.standard_normal(SHAPE)]))
        masks.append(1 / (1 + np.exp(4 * (away - 1))))
    return torch.from_numpy(np.stack(images)).double(), torch.from_numpy(np.stack(masks)).double()


def embedding(image: Tensor, probability: Tensor) -> Tensor:
    return spatial_embedding(image, probability, 3)


@pytest.fixture(scope="module")
def original() -> Tensor:
    return embedding(*scan())


def test_every_number_has_a_name_of_its_own(original: Tensor) -> None:
    """As many numbers as names, no name twice, all finite, none the same for both patients."""
    assert original.shape == (2, len(NAMES)) and len(set(NAMES)) == len(NAMES)
    assert torch.isfinite(original).all()
    assert not [name for name, a, b in zip(NAMES, *original.tolist(), strict=True) if a == b]


def test_left_and_right_are_folded(original: Tensor) -> None:
    """A mirrored head changes the sign of what says left or right, and nothing else: folding is exact."""
    image, probability = scan()
    mirrored = embedding(image.flip(4), probability.flip(3))
    for k, name in enumerate(NAMES):
        sign = -1 if name in OTHER_SIDE or name.endswith(" left-right") else 1
        torch.testing.assert_close(mirrored[:, k], sign * original[:, k], rtol=1e-6, atol=1e-7, msg=name)
    turned = [k for k, name in enumerate(NAMES) if name in OTHER_SIDE]
    assert len(turned) == len(OTHER_SIDE) and (original[:, turned].abs() > 1e-4).all(), "each says something here"


def test_upside_down_is_another_head(original: Tensor) -> None:
    """A head turned upside down or back to front has other numbers: height and depth are not folded."""
    image, probability = scan()
    for axis, name in ((2, "place: z"), (3, "place: y")):
        turned = embedding(image.flip(axis), probability.flip(axis - 1))
        k = NAMES.index(name)
        torch.testing.assert_close(turned[:, k], -original[:, k], rtol=1e-6, atol=1e-7)
        assert (turned - original).abs().max() > 0.1


def test_a_patient_alone_is_the_patient_in_a_batch(original: Tensor) -> None:
    """No number of a patient depends on who else is in the batch."""
    image, probability = scan()
    alone = torch.cat([embedding(image[k:k + 1], probability[k:k + 1]) for k in (0, 1)])
    torch.testing.assert_close(alone, original)


def test_a_level_of_uptake_does_not_matter(original: Tensor) -> None:
    """Uptake counts from air: the same constant on every voxel of the PET changes no number."""
    image, probability = scan()
    image[:, 0] += 0.25
    torch.testing.assert_close(embedding(image, probability), original, rtol=1e-5, atol=1e-6)


def test_a_moved_head_moves_its_place_alone() -> None:
    """A tumour in flat tissue, moved by two voxels, moves `place` by 2 / reach and leaves shape and uptake."""
    z, y, x = np.indices((24, 24, 24))
    found = []
    for shift in (0, 2):
        tumour = ((z - 11 - shift)**2 / 12 + (y - 11)**2 / 6 + (x - 11)**2 / 6 < 1).astype(float)
        image = np.stack([0.05 + 0.4 * tumour * (1 + 0.05 * (z - shift)), np.zeros_like(tumour)])
        image[0, 0, 0, 0] = 0.0
        found.append(spatial_embedding(torch.from_numpy(image)[None], torch.from_numpy(tumour)[None], 3)[0])
    for k, name in enumerate(NAMES):
        if name == "place: z":
            assert float(found[1][k] - found[0][k]) == pytest.approx(2 / 3, abs=1e-3)
        elif name.startswith(("shape", "uptake", "place")):
            assert float(found[1][k]) == pytest.approx(float(found[0][k]), abs=1e-3), name


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Every number is smooth: the gradient of their sum at a few voxels is the difference quotient."""
    image, probability = scan(1)
    image = image.requires_grad_()
    weights = torch.linspace(-1, 1, len(NAMES), dtype=torch.float64)
    slope = torch.autograd.grad((embedding(image, probability) * weights).sum(), image)[0]
    with torch.no_grad():
        for place in ((0, 0, 9, 8, 7), (1, 0, 10, 7, 11), (0, 1, 9, 8, 6)):
            ends = []
            for h in (1e-6, -1e-6):
                moved = image.detach().clone()
                moved[place] += h
                ends.append(float((embedding(moved, probability) * weights).sum()))
            assert float(slope[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5), place


def measured(place: tuple[int, int, int] | None, *, ct: float = 0.0, uptake: float = 0.1) -> dict[str, float]:
    """The embedding of a ball of tumour on the left in quiet soft tissue, with a lump of 4 mm radius at a place."""
    z, y, x = np.indices((28, 24, 24))
    tumour = ((z - 14)**2 + (y - 12)**2 + (x - 15)**2 < 10).astype(float)
    image = np.stack([0.1 + 0.4 * tumour, np.full_like(tumour, 0.04)])
    if place is not None:
        lump = sum((i - p)**2 for i, p in zip((z, y, x), place, strict=True)) < 7
        image[:, lump] = np.array([uptake, ct])[:, None]
    image[0, 0, 0, 0] = 0.0
    found = spatial_embedding(torch.from_numpy(image)[None], torch.from_numpy(tumour)[None], 2)[0]
    return dict(zip(NAMES, found.tolist(), strict=True))


@pytest.mark.parametrize(("height", "band"), [(24, "above"), (14, "level"), (3, "below")])
def test_bone_counts_in_the_band_where_it_lies(height: int, band: str) -> None:
    """A lump of bone adds to the volume of bone at its own height, most of all bands."""
    before, after = measured(None), measured((height, 4, 6), ct=0.6)
    added = {b: after[f"tissue: bone volume {b}"] - before[f"tissue: bone volume {b}"]
             for b in ("above", "level", "below")}
    assert max(added, key=lambda b: added[b]) == band and added[band] > 0.3


@pytest.mark.parametrize(("x", "side", "other"), [(19, "same", "other"), (3, "other", "same")])
def test_a_hot_node_counts_on_its_side_of_the_head(x: int, side: str, other: str) -> None:
    """A hot node far below the tumour raises how low its own side's lumps lie, and how much they stand out, more than
    those across; the tumour's side is the first of the difference."""
    before, after = measured(None), measured((4, 12, x), uptake=0.9)
    for what in ("lowest", "mean"):
        own, across = (after[f"nodes: lumps {what} {s} side"] - before[f"nodes: lumps {what} {s} side"]
                       for s in (side, other))
        assert own > across + 0.1, (what, own, across)
    assert (after["nodes: lumps towards tumour"] > 0.5) == (side == "same")
    assert after["nodes: lumps asymmetry"] == pytest.approx(abs(after["nodes: lumps towards tumour"]), abs=1e-6)


def test_a_lump_is_what_stands_out_and_not_what_is_broad() -> None:
    """A node of a few voxels counts; the same uptake all over the slices below, in which no voxel stands out from its
    neighbours, adds to the volume and hardly to the lumps."""
    z, y, x = np.indices((28, 24, 24))
    tumour = ((z - 14)**2 + (y - 12)**2 + (x - 15)**2 < 10).astype(float)

    def numbers(there: np.ndarray) -> dict[str, float]:
        image = np.stack([np.where(there, 0.4, 0.05 + 0.45 * tumour), np.full_like(tumour, 0.04)])
        image[0, -1] = 0.0
        found = spatial_embedding(torch.from_numpy(image)[None], torch.from_numpy(tumour)[None], 2)[0]
        return dict(zip(NAMES, found.tolist(), strict=True))

    nothing, node, broad = (numbers(there) for there in (
        z < -1, (z - 4)**2 + (y - 12)**2 + (x - 12)**2 < 7, (z < 7) & (y > 3) & (y < 20) & (x > 3) & (x < 20)))
    assert broad["nodes: lumps volume"] > node["nodes: lumps volume"] + 2.0
    assert node["nodes: lumps highest"] > broad["nodes: lumps highest"] + 0.1
    assert node["nodes: lumps depth"] > 3.0 > nothing["nodes: lumps depth"]


def test_drawn_in_by_hand() -> None:
    """The tumour is the prediction grown by some voxels times sigmoid((uptake / highest - 0.45) / 0.05), where the
    highest is the mean of uptake weighted by its fifth power."""
    image, probability = scan()
    pet, p = image[0, 0].numpy() - image[0, 0].min().item(), probability[0].numpy()
    highest = (pet**6 * p).sum() / (pet**5 * p).sum()
    grown = np.max([np.pad(p, 1)[a:a + SHAPE[0], b:b + SHAPE[1], c:c + SHAPE[2]]
                    for a in range(3) for b in range(3) for c in range(3)], axis=0)
    expected = grown / (1 + np.exp(-(pet / highest - 0.45) / 0.05))
    np.testing.assert_allclose(drawn_in(image, probability, 1)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("reading", "level", "width"), [(1, 0.5, 0.1), (2, 0.41, 0.05), (3, 0.41, 0.05)])
def test_central_uptake_by_hand(reading: int, level: float, width: float) -> None:
    """Uptake times a Gaussian of three reaches about the grid's middle, over its highest, through a step at 41 % (at a
    half for older models)."""
    image, _ = scan()
    pet = image[0, 0].numpy() - image[0, 0].min().item()
    z, y, x = (i - (n - 1) / 2 for i, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    likely = pet * np.exp(-(z**2 + y**2 + x**2) / (2 * 9.0**2))
    expected = 1 / (1 + np.exp(-(likely / likely.max() - level) / width))
    np.testing.assert_allclose(central_uptake(image, 3, reading)[0], expected, rtol=1e-5)


def test_the_parts_of_a_head_add_up() -> None:
    """Tumour, what is near it, and the rest above and below its middle fill the grid exactly once."""
    tumour = (torch.arange(12.0).reshape(1, 1, 12, 1, 1) // 2 == 3) * torch.ones(1, 1, 12, 6, 6)
    near, above, below = surroundings(tumour, tumour / tumour.sum(), 2)
    torch.testing.assert_close(tumour + near + above + below, torch.ones_like(tumour))
    assert near.sum() == 4 * 36 and above[0, 0, 11].min() > 0.99 and below[0, 0, 0].min() > 0.99
    assert above[0, 0, 0].max() < 0.01 and not near[0, 0, 11].any()


def test_region_statistics_of_several_channels() -> None:
    """One volume, three numbers a channel and three volumes, in this order, for any number of channels."""
    image = torch.rand(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probability = torch.zeros(2, 8, 8, 8, dtype=torch.float64)
    probability[:, 2:6, 2:6, 3:5] = 1.0
    found = region_statistics(image, probability, 1)
    assert found.shape == (2, n_region_statistics(3)) == (2, 13)
    assert found[0, 0].item() == pytest.approx(np.log(33))
    for c in range(3):
        inside = (image[0, c] - image[0, c].min())[probability[0] > 0].numpy()
        mean, sd = inside.mean(), inside.std()
        assert found[0, 1 + c].item() == pytest.approx(np.log(mean), abs=5e-3)
        assert found[0, 4 + c].item() == pytest.approx(np.log(sd), abs=5e-3)
        assert found[0, 7 + c].item() == pytest.approx(((inside - mean)**3).mean() / sd**3, abs=0.02)


def test_padding_along_one_axis() -> None:
    """Only the asked axis grows, at both ends, by the asked value."""
    x = torch.ones(1, 1, 2, 3, 4)
    for axis in (2, 3, 4):
        found = padded(x, axis, 2, -7.0)
        expected = [n + 4 * (k + 2 == axis) for k, n in enumerate((2, 3, 4))]
        assert list(found.shape[2:]) == expected and found.sum() == 24 - 7 * (found.numel() - 24)


def test_no_reach_changes_nothing() -> None:
    """A cube of no voxels each way holds the voxel itself, for the greatest value and for the mean."""
    x = torch.rand(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dilated(x, 0), x) and torch.equal(mean_around(x, 0), x)


@pytest.mark.parametrize("reading", [1, 2, 3])
def test_a_linear_head(reading: int) -> None:
    """Risk = sum of weights times limited (x - centre) / scale: cut at four SD by older models, 2 tanh(z / 2) by those
    of one day, now 3 tanh(z / 3); `without_measures` takes the other weights."""
    head = LinearHead(3, reading)
    assert not head(torch.ones(2, 3)).any()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    head.center.copy_(torch.tensor([1.0, 0.0, 2.0]))
    head.scale.copy_(torch.tensor([2.0, 1.0, 0.1]))
    head.plain.copy_(torch.tensor([0.0, 1.0, 1.0]))
    x = torch.tensor([[3.0, 0.5, 2.2], [1.0, -9.0, 90.0]])
    z = np.array([[1.0, 0.5, 2.0], [0.0, -9.0, 880.0]])
    limited = np.clip(z, -4, 4) if reading == 1 else reading * np.tanh(z / reading)
    assert head(x).tolist() == pytest.approx(limited @ [1.0, -2.0, 0.5])
    assert head.without_measures(x).tolist() == pytest.approx(limited @ [0.0, 1.0, 1.0], abs=1e-6)
    assert head.l2().item() == pytest.approx(1 + 4 + 0.25)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotation_is_orthonormal_and_leaves_its_axis(axis: int) -> None:
    """Rotations keep lengths and handedness, leave their own axis (x, y, z) alone, and undo one another."""
    angle = torch.tensor([0.3, -0.3])
    turned = augment._rotation(angle, axis)
    torch.testing.assert_close(turned @ turned.transpose(1, 2), torch.eye(3).expand(2, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(2))
    torch.testing.assert_close(turned[0] @ turned[1], torch.eye(3))
    torch.testing.assert_close(turned[:, axis], torch.eye(3)[axis].expand(2, 3))


def test_a_quarter_turn_about_z_is_torchs() -> None:
    """Sampling under a rotation of 90 degrees about z turns each slice by a quarter, whatever its other axis holds."""
    x = torch.rand(1, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    grid = augment._grid(augment._rotation(torch.tensor([np.pi / 2]), 2), torch.zeros(1, 3), x.shape[2:], x.device)
    torch.testing.assert_close(augment._sample(x, grid), torch.rot90(x, 1, (3, 4)), rtol=1e-4, atol=1e-4)


def test_a_rotation_counts_voxels_and_not_halves_of_the_grid() -> None:
    """On a grid that is longer along y, a quarter turn about z keeps the middle square in place: no stretching."""
    x = torch.rand(1, 1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    grid = augment._grid(augment._rotation(torch.tensor([np.pi / 2]), 2), torch.zeros(1, 3), x.shape[2:], x.device)
    found, square = augment._sample(x, grid)[:, :, :, 2:6], x[:, :, :, 2:6]
    torch.testing.assert_close(found, torch.rot90(square, 1, (3, 4)), rtol=1e-4, atol=1e-4)


def test_a_shift_is_a_share_of_half_the_grid() -> None:
    """A shift of 2 k / n along x, y or z reads k voxels on: the image moves back by k, and zeros come in."""
    x = torch.rand(1, 1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    for place, (axis, n) in enumerate(((4, 8), (3, 6), (2, 4))):
        shift = torch.zeros(1, 3)
        shift[0, place] = 2.0 / n
        found = augment._sample(x, augment._grid(torch.eye(3)[None], shift, x.shape[2:], x.device))
        torch.testing.assert_close(found.narrow(axis, 0, n - 1), x.narrow(axis, 1, n - 1), rtol=1e-4, atol=1e-5)
        assert found.narrow(axis, n - 1, 1).abs().max() < 1e-4
