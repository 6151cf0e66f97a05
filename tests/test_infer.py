"""From a checkpoint to risk and mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from mtdlr.errors import ScanError
from mtdlr.infer import Checkpoint, fold_scores, mask_agreement, score, tumour_mask
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import NoMask, SingletaskConfig
from mtdlr.nets.weights import build


def _checkpoint(seed: int, config=DeepmtsConfig(width=0.25)) -> Checkpoint:  # noqa: B008
    """A network whose running statistics fit random images."""
    torch.manual_seed(seed)
    model = build(config)
    for _ in range(3):
        model.train()(torch.rand(4, 2, 32, 32, 32))
    return Checkpoint(model.eval(), {}, str(seed))


IMAGE = np.random.default_rng(0).random((2, 32, 32, 32), dtype=np.float32)


@pytest.mark.slow
def test_a_score_is_the_networks_risk_and_probability():
    """Risk and map equal the network's own, and repeat to the bit."""
    checkpoint = _checkpoint(0)
    found, again = score(checkpoint, IMAGE), score(checkpoint, IMAGE)
    with torch.inference_mode():
        output = checkpoint.model(torch.from_numpy(IMAGE)[None])
    assert found.risk == pytest.approx(output.risk.item(), abs=1e-4) and found.risk == again.risk
    np.testing.assert_allclose(found.probability, output.probability[0].numpy(), atol=1e-4)
    assert found.probability is not None and found.probability.dtype == np.float32


def test_a_single_task_score_has_no_map():
    """csn-only gives a risk alone."""
    assert score(_checkpoint(0, SingletaskConfig(width=0.25)), IMAGE).probability is None


def test_networks_that_differ_in_their_heads_read_the_image_once(monkeypatch: pytest.MonkeyPatch):
    """no-mask has no weights but its head's: three folds give the bits that each alone gives, from one reading; with
    another reach each reads for itself, as do networks of another kind."""
    folds = [_checkpoint(k, SingletaskConfig("no-mask", width=0.25)) for k in range(3)]
    for one in folds:
        torch.nn.init.normal_(one.model.head.weight)
    alone, read = [score(one, IMAGE).risk for one in folds], []
    embed = NoMask.embed
    monkeypatch.setattr(NoMask, "embed", lambda self, image: read.append(1) or embed(self, image))
    assert [one.risk for one in fold_scores(folds, IMAGE)] == alone and len(read) == 1 and len(set(alone)) == 3
    other = Checkpoint(build(SingletaskConfig("no-mask", width=0.25, near_voxels=2)).eval(), {}, "")
    assert len(fold_scores([*folds, other], IMAGE)) == 4 and len(read) == 5
    with pytest.raises(ScanError, match="E-IMAGE"):
        fold_scores(folds, IMAGE[:1])


@pytest.mark.slow
def test_a_read_only_map_from_disk_can_be_scored(tmp_path):
    """Prepared images are memory-mapped; scoring does not need to write to them."""
    np.save(tmp_path / "image.npy", IMAGE)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert score(_checkpoint(0), mapped).risk == score(_checkpoint(0), IMAGE).risk


@pytest.mark.slow
@pytest.mark.parametrize("image", [
    np.zeros((1, 32, 32, 32)), np.zeros((2, 32, 32)), np.zeros((2, 32, 32, 16)), np.full((2, 32, 32, 32), np.nan)])
def test_images_a_network_cannot_read_are_refused(image: np.ndarray):
    """Channels, axes, size, NaN: E-IMAGE."""
    with pytest.raises(ScanError) as caught:
        score(_checkpoint(0), image.astype(np.float32))
    assert caught.value.code == "E-IMAGE"


def _ball(middle: tuple[int, int, int], radius: float, size: int = 24) -> np.ndarray:
    grid = np.stack(np.mgrid[:size, :size, :size])
    return ((grid - np.array(middle)[:, None, None, None]) ** 2).sum(0) < radius**2


def test_specks_are_dropped_and_tumours_kept():
    """Components under a millilitre go, whatever their number; larger ones all stay."""
    probability = np.zeros((24, 24, 24), np.float32)
    probability[_ball((6, 6, 6), 3) | _ball((17, 17, 17), 3)] = 0.9
    probability[0, 0, 0] = probability[23, 0, 0] = 0.99
    mask, problems = tumour_mask(probability, voxel_ml=0.064, min_component_ml=1.0)
    assert np.array_equal(mask, _ball((6, 6, 6), 3) | _ball((17, 17, 17), 3)) and problems == ()


def test_when_nothing_is_found_the_nearest_uptake_stands_in_and_says_so():
    """SUV 2.5 or more nearest the middle, of at least a millilitre; W-EMPTYMASK tells."""
    suv = np.zeros((24, 24, 24), np.float32)
    suv[_ball((12, 12, 8), 3)] = 4.0
    suv[_ball((3, 3, 3), 3)] = 20.0
    suv[12, 12, 12] = 30.0
    mask, problems = tumour_mask(np.full((24, 24, 24), 0.2, np.float32), voxel_ml=0.064, pet_suv=suv)
    assert np.array_equal(mask, _ball((12, 12, 8), 3))
    assert [p.code for p in problems] == ["W-EMPTYMASK"] and "0.20" in problems[0].found


@pytest.mark.parametrize("suv", [None, np.ones((24, 24, 24), np.float32)])
def test_when_nothing_stands_in_the_mask_stays_empty_and_says_so(suv):
    """No PET, or no uptake: an empty mask with W-NOMASK, never an invented one."""
    mask, problems = tumour_mask(np.zeros((24, 24, 24), np.float32), voxel_ml=0.064, pet_suv=suv)
    assert not mask.any() and [p.code for p in problems] == ["W-NOMASK"]


def test_agreement_of_shifted_cubes_by_hand():
    """Two cubes of 4 shifted by 2 voxels of 3 mm: Dice one half, distance 6 mm, volumes equal."""
    a = np.zeros((12, 12, 12), bool)
    a[4:8, 4:8, 4:8] = True
    found = mask_agreement(a, np.roll(a, 2, 0), (3.0, 1.0, 1.0))
    assert found.dice == pytest.approx(0.5) and found.hausdorff95_mm == pytest.approx(6.0)
    assert found.volume_ml == pytest.approx(0.192) and found.reference_ml == pytest.approx(0.192)


def test_the_distance_counts_millimetres_along_each_axis():
    """The same shift along an axis of twice the spacing is twice as far."""
    a = np.zeros((12, 12, 12), bool)
    a[4:8, 4:8, 4:8] = True
    far = [mask_agreement(a, np.roll(a, 2, axis), (1.0, 2.0, 4.0)).hausdorff95_mm for axis in range(3)]
    assert far == [2.0, 4.0, 8.0]


def test_agreement_with_an_empty_mask_has_no_distance():
    """Dice is 0 and the distance nan when one is empty; both are nan when both are."""
    a, none = _ball((12, 12, 12), 4), np.zeros((24, 24, 24), bool)
    one, both = mask_agreement(none, a, (1, 1, 1)), mask_agreement(none, none, (1, 1, 1))
    assert one.dice == 0.0 and np.isnan(one.hausdorff95_mm) and one.volume_ml < one.reference_ml
    assert np.isnan(both.dice) and np.isnan(both.hausdorff95_mm)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(arrays(bool, (5, 6, 7)), arrays(bool, (5, 6, 7)))
def test_agreement_is_symmetric_and_perfect_with_itself(a: np.ndarray, b: np.ndarray):
    """Dice and distance do not care which mask is the reference; with itself they are 1 and 0."""
    one, other = mask_agreement(a, b, (2.0, 1.0, 1.0)), mask_agreement(b, a, (2.0, 1.0, 1.0))
    np.testing.assert_equal([one.dice, one.hausdorff95_mm], [other.dice, other.hausdorff95_mm])
    if a.any():
        same = mask_agreement(a, a, (2.0, 1.0, 1.0))
        assert same.dice == 1.0 and same.hausdorff95_mm == 0.0
