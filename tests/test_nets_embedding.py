"""The spatial embedding keeps what a grid average loses, and its head is a ridge Cox model solved exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn import functional

from mtdlr.errors import BundleError
from mtdlr.infer import fold_scores, held_out
from mtdlr.nets.cases import Case
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig
from mtdlr.nets.embedding import NAMES, READING, LinearHead, central_uptake, drawn_in, spatial_embedding
from mtdlr.nets.refit import embedded, solve_linear
from mtdlr.nets.regions import dilated
from mtdlr.nets.singletask import NoMask, SingletaskConfig
from mtdlr.nets.step import adamw
from mtdlr.nets.surroundings import mean_around
from mtdlr.nets.weights import Checkpoint, weights_of
from mtdlr.stats.concordance import concordance
from mtdlr.stats.ridge import blockwise_ridge
from mtdlr.study import DeepmtsSettings, SingletaskSettings
from mtdlr.survival import Survival
from mtdlr.train import train

GRID = np.stack(np.mgrid[:32, :32, :32]).astype(float) - 15.5
TINY = DeepmtsSettings(width=0.25, epochs=2, batch_size=4, learning_rate=3e-3, near_voxels=2)


def _scan(middle: tuple[float, float, float] = (0.0, 0.0, 2.0), radii: tuple[float, float, float] = (5.0, 5.0, 5.0),
          node: tuple[float, float, float] | None = None, slope: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(image (1, 2, z, y, x), probability) of an ellipsoid of uptake, with a node of the same uptake if asked for."""
    off = GRID - np.reshape(middle, (3, 1, 1, 1))
    tumour = ((off / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) < 1
    pet = 0.02 + 0.4 * tumour * (1 + slope * off[0] / radii[0])
    if node is not None:
        pet = np.maximum(pet, 0.4 * (((GRID - np.reshape(node, (3, 1, 1, 1))) ** 2).sum(0) < 9))
    image = np.stack([pet, np.zeros_like(pet)]).astype(np.float32)[None]
    image[:, :, 0, 0, 0] = 0.0  # air
    return torch.from_numpy(image), torch.from_numpy(tumour.astype(np.float32))[None]


def _embedded(name: str, **changes: object) -> float:
    """One number of the embedding of such a scan."""
    return float(spatial_embedding(*_scan(**changes), 2)[0, NAMES.index(name)])  # type: ignore[arg-type]


def test_position_side_shape_and_slope_survive_pooling() -> None:
    """Height, side, elongation, slope of uptake, and where a node lies each move their own number."""
    assert _embedded("place: z", middle=(3, 0, 2)) - _embedded("place: z") == pytest.approx(1.5, abs=0.01)
    assert _embedded("place: side", middle=(0, 0, -2)) == pytest.approx(-_embedded("place: side"), abs=1e-3)
    assert _embedded("shape: extent z", radii=(8, 4, 4)) > _embedded("shape: extent z") + 0.3
    assert abs(_embedded("shape: size", radii=(8, 3.95, 3.95)) - _embedded("shape: size")) < 0.05
    assert _embedded("uptake: slope z", slope=0.4) > 0.1 > abs(_embedded("uptake: slope z"))
    same, other = _embedded("spread: below 3", node=(-9, 0, 8)), _embedded("spread: below 3", node=(-5, 0, 8))
    assert same > other + 0.5


def test_the_node_on_the_tumours_side_is_told_from_the_other() -> None:
    """A node on the tumour's side and one across differ in the numbers folded towards the tumour, alike for either
    side of the tumour."""
    name = "sectors: far below behind towards tumour"
    near, across = _embedded(name, node=(-9, 4, 8)), _embedded(name, node=(-9, 4, -8))
    assert near > across + 0.5
    assert _embedded(name, middle=(0, 0, -2), node=(-9, 4, -8)) == pytest.approx(near, abs=1e-3)


def test_a_round_prediction_is_drawn_in_to_the_uptake() -> None:
    """A prediction that is a voxel too large all round is cut to the uptake's own edge, and no scale of uptake moves
    it."""
    image, tumour = _scan(radii=(7, 4, 4), node=(-9, 4, 8))
    large = torch.nn.functional.max_pool3d(tumour[:, None], 3, 1, 1)[:, 0]
    found = drawn_in(image, large, 1)
    assert float((found - tumour).abs().sum()) < 0.1 * float((large - tumour).abs().sum())
    torch.testing.assert_close(drawn_in(image * 3.0, large, 1), found)


def test_uptake_of_bone_and_of_a_node_move_their_own_numbers() -> None:
    """Bone with twice the uptake moves its own band and no other number but those that read it with the rest of the
    quiet tissue; a hotter node moves the uptake of what stands out below."""
    image, probability = _scan(node=(-9, 4, 8))
    image[:, 1, 2:8, 26:30, 10:20] = 0.5
    hot = image.clone()
    hot[:, 0, 2:8, 26:30, 10:20] *= 2
    change = dict(zip(NAMES, (spatial_embedding(hot, probability, 2) - spatial_embedding(image, probability, 2))[0],
                      strict=True))
    assert float(change["tissue: bone uptake below"]) > 0.4
    assert all(abs(float(by)) < 0.02 for name, by in change.items() if not name.startswith(("tissue: bone", "spread")))
    warm = image.clone()
    node = ((GRID - np.reshape((-9.0, 4.0, 8.0), (3, 1, 1, 1))) ** 2).sum(0) < 9
    warm[:, 0][torch.from_numpy(node)[None]] *= 1.5
    moved = (spatial_embedding(warm, probability, 2) - spatial_embedding(image, probability, 2))[0]
    change = dict(zip(NAMES, moved.tolist(), strict=True))
    for name in ("hottest", "mean", "highest", "mean same side"):
        assert change[f"nodes: lumps {name}"] > 0.15


def test_a_scale_of_uptake_moves_few_numbers() -> None:
    """Twice the SUV changes the tumour's mean uptake and nothing else but what is measured in absolute units."""
    image, probability = _scan(node=(-9, 4, 8), slope=0.3)
    twice = image.clone()
    twice[:, 0] *= 2
    change = (spatial_embedding(twice, probability, 2) - spatial_embedding(image, probability, 2))[0].abs()
    moved = {name for name, by in zip(NAMES, change, strict=True) if by > 0.02 and not name.startswith("measures")}
    assert moved == {"uptake: mean", "tissue: soft"}


@pytest.mark.parametrize("empty", ["no tumour", "air"])
def test_empty_predictions_stay_finite(empty: str) -> None:
    """No tumour, or an image of air, gives finite numbers and finite gradients."""
    image, probability = _scan()
    image = torch.full_like(image, -1.0) if empty == "air" else image
    image.requires_grad_()
    found = spatial_embedding(image, torch.zeros_like(probability), 2)
    found.sum().backward()
    assert found.shape == (1, len(NAMES)) and torch.isfinite(found).all() and torch.isfinite(image.grad).all()


def test_central_uptake_finds_the_tumour_without_a_mask() -> None:
    """The hottest uptake near the middle is the tumour, also with something hotter at the edge."""
    image, probability = _scan()
    image[:, 0, 28:31, 14:18, 14:18] = 0.8
    found = central_uptake(image, 2)[0] > 0.5
    tumour = probability[0] > 0
    assert float(2 * (found & tumour).sum() / (found.sum() + tumour.sum())) > 0.7


def _cases(n: int = 40) -> list[Case]:
    """Tumours whose height alone drives the hazard."""
    rng = np.random.default_rng(0)
    cases = []
    for k in range(n):
        height = rng.uniform(-4, 4)
        image, mask = _scan(middle=(height, 0, rng.choice((-2.0, 2.0))), radii=tuple(rng.uniform(4, 6, 3)))
        noisy = image[0].numpy() + rng.normal(0, 0.004, image.shape[1:]).astype(np.float32)
        time = rng.exponential(40.0 * np.exp(-0.8 * height))
        cases.append(Case(f"P{k:02d}", noisy, mask[0].numpy() > 0, min(time, 60.0) + 0.1, bool(time < 60)))
    return cases


CASES = _cases()
SURV = Survival([case.time_months for case in CASES], [case.event for case in CASES])


@pytest.mark.slow
def test_the_head_is_the_ridge_model_of_the_embedding() -> None:
    """The risk is the ridge Cox model of the embedding, standardised, limited and standardised again; nothing but the
    head moves; the fit without the measures gives them no weight."""
    model = NoMask(SingletaskConfig(network="no-mask", near_voxels=2, reading=READING))
    facts, _ = solve_linear(model, CASES, blockwise_ridge, batch_size=7)
    assert isinstance(model.head, LinearHead)
    z = model.head.standardised(embedded(model, CASES, 40)).numpy()
    z /= z.std(axis=0)
    of_block = np.array([name.partition(":")[0] for name in NAMES])
    blocks = {str(name): np.flatnonzero(of_block == name) for name in dict.fromkeys(of_block.tolist())}
    coef, found = blockwise_ridge(z, SURV, list(blocks.values()))
    with torch.no_grad():
        risk = model(torch.from_numpy(np.stack([case.image for case in CASES]))).risk.numpy()
    np.testing.assert_allclose(risk, z @ coef, atol=2e-3)
    assert facts["with_measures"]["variances"] == dict(zip(blocks, found["variances"], strict=True))
    assert concordance(risk, SURV).c.value > 0.7 and facts["with_measures"]["left_out_c_index"] > 0.65
    plain = dict(zip(NAMES, model.head.plain.tolist(), strict=True))
    assert all(weight == 0 for name, weight in plain.items() if name.startswith("measures")) and any(plain.values())
    assert set(facts["weights"]) == set(NAMES)


def test_the_risk_without_the_measures_stands_beside() -> None:
    """A network says both risks: with the weights of all numbers, and with those of the fit without the measures."""
    model = DeepMTS(DeepmtsConfig(width=0.25, pooling="spatial", near_voxels=2)).eval()
    assert isinstance(model.head, LinearHead)
    measures = torch.tensor([name.startswith("measures") for name in NAMES])
    weights = torch.linspace(-1.0, 1.0, len(NAMES))
    with torch.no_grad():
        model.head.weight.copy_(weights)
        model.head.plain.copy_(weights.masked_fill(measures, 0.0))
        output = model(_scan()[0])
        vectors = model.embed(_scan()[0])[0]
    assert output.plain is not None
    seen = model.head.standardised(vectors)[:, measures]
    torch.testing.assert_close(output.risk - output.plain, seen @ weights[measures], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["deepmts", "no-mask"])
def test_a_training_with_a_solved_head_repeats_itself(tmp_path: Path, network: str) -> None:
    """Two trainings of one seed end in the same bytes, whatever the order of the patients; nothing is learned by steps
    where there is no mask; model.json says what the risk is made of."""
    settings = TINY if network == "deepmts" else SingletaskSettings(near_voxels=2)
    few = CASES[:16]
    first, again = (train(cases, network, settings, tmp_path / name, seed=0)  # type: ignore[arg-type]
                    for name, cases in (("a", few), ("b", few[::-1])))
    assert first.digest == again.digest
    assert set(first.facts["risk"]) == {"with_measures", "without_measures", "weights"}
    assert (first.facts["epochs_run"] == 0) == (network == "no-mask")
    with torch.no_grad():
        image = torch.from_numpy(CASES[0].image)[None]
        torch.testing.assert_close(first.model(image).risk, first.scorer(image).risk, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_no_event_moves_a_mask(tmp_path: Path) -> None:
    """Patients with another follow-up, and the same scans and masks, give the same mask network to the byte."""
    few = CASES[:16]
    other = [replace(case, time_months=60.0 - k, event=k % 3 == 0) for k, case in enumerate(few)]
    first, second = (train(cases, "deepmts", TINY, tmp_path / name, seed=0).model
                     for name, cases in (("a", few), ("b", other)))
    for name, value in weights_of(first).items():
        if not name.startswith("head"):
            assert torch.equal(value, weights_of(second)[name]), name
    assert not torch.equal(first.head.weight, second.head.weight)


HELD_OUT = [replace(case, held_out=(None, 4, 1)[k % 3]) for k, case in enumerate(CASES[:24])]


@pytest.mark.slow
def test_a_subfold_is_scored_by_a_head_that_never_saw_it(tmp_path: Path) -> None:
    """Who is held out moves no mask by a bit, with another image, mask or outcome; the head of a subfold does not know
    its outcomes, the other heads do; new patients get a head of all patients."""
    first = train(HELD_OUT, "deepmts", TINY, tmp_path / "a", seed=0)
    other = [case if case.held_out != 4 else replace(case, time_months=60.0 - k, event=k % 2 == 0, mask=~case.mask,
                                                     image=case.image * np.float32(0.5))
             for k, case in enumerate(HELD_OUT)]  # type: ignore[operator]
    second = train(other, "deepmts", TINY, tmp_path / "b", seed=0)
    alone = train([case for case in HELD_OUT if case.held_out is None], "deepmts", TINY, tmp_path / "c", seed=0)
    for name, value in weights_of(first.model).items():
        if not name.startswith("head"):
            assert torch.equal(value, weights_of(second.model)[name]) and torch.equal(
                value, weights_of(alone.model)[name]), name
    assert set(first.heads) == {1, 4} and not alone.heads
    for one, same in ((4, True), (1, False)):
        assert torch.equal(first.without(one).model.head.weight, second.without(one).model.head.weight) is same
    assert not torch.equal(first.model.head.weight, second.model.head.weight)
    assert not torch.equal(first.model.head.center, alone.model.head.center)
    seen = [case for case in HELD_OUT if case.held_out != 4]
    whole = solve_linear(first.model, seen, blockwise_ridge, batch_size=64)
    torch.testing.assert_close(F.normalize(first.model.head.weight, dim=0), F.normalize(first.heads[4].weight, dim=0),
                               atol=1e-4, rtol=1e-3)
    assert whole[1].keys() == {1}


@pytest.mark.slow
def test_a_network_scores_a_subfold_with_its_head(tmp_path: Path) -> None:
    """The own subfold's head gives the risk of a held-out patient with the network's masks untouched, also in the form
    that scores; a network of another fold scores the patient by its head of all patients."""
    network = train(HELD_OUT, "deepmts", TINY, tmp_path, seed=0)
    image = torch.from_numpy(HELD_OUT[1].image)[None]
    own = network.without(4)
    assert network.facts["held_out"] == [1, 4]
    with torch.no_grad():
        whole, part = network.scorer(image), own.scorer(image)
        vector = network.model.embed(image)[0]
        torch.testing.assert_close(part.risk, network.heads[4](vector), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(part.plain, network.heads[4].without_measures(vector), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(own.model(image).risk, part.risk, atol=1e-3, rtol=1e-3)
    assert torch.equal(whole.probability, part.probability) and not torch.equal(whole.risk, part.risk)
    scored = [one.risk for one in fold_scores(held_out([network, network], 4), HELD_OUT[1].image)]  # 4 is of fold 0
    assert scored == [pytest.approx(float(part.risk)), pytest.approx(float(whole.risk))]


@pytest.mark.slow
def test_a_head_that_is_missing_is_no_other_head(tmp_path: Path) -> None:
    """Where the heads of held-out subfolds are gone, new patients are scored and training patients are not: the head of
    all patients knows their outcomes. A network that held nobody out of its head has no such heads."""
    train(HELD_OUT, "no-mask", SingletaskSettings(near_voxels=2), tmp_path, seed=0)
    (tmp_path / "held_out.safetensors").unlink()
    network = Checkpoint.load(tmp_path)
    assert len(fold_scores(held_out([network], None), HELD_OUT[1].image)) == 1
    with pytest.raises(BundleError, match="E-WEIGHTS held_out.safetensors: .*subfold 4"):
        held_out([network], 4)
    alone = train([case for case in HELD_OUT if case.held_out is None], "no-mask", SingletaskSettings(near_voxels=2),
                  tmp_path / "alone", seed=0)
    assert alone.without(4) is alone


@pytest.mark.slow
def test_without_a_mask_a_subfold_has_its_head_too(tmp_path: Path) -> None:
    """The single-task model is solved without each subfold as DeepMTS is, and reads an image once for all heads."""
    network = train(HELD_OUT, "no-mask", SingletaskSettings(near_voxels=2), tmp_path, seed=0)
    found = [one.risk for one in fold_scores(held_out([network, network], 1), HELD_OUT[2].image)]
    assert set(network.heads) == {1, 4} and found[1] != found[0] == fold_scores(
        [network], HELD_OUT[2].image)[0].risk


def test_the_mask_layer_learns_faster_where_masks_alone_are_learned() -> None:
    """The layer that makes the tumour probability has ten times the rate in a network with a solved risk, and the rate
    of all others in the published one; each parameter is in one group."""
    for pooling, expected in (("spatial", 10.0), ("average", 1.0)):
        model = DeepMTS(DeepmtsConfig(width=0.25, pooling=pooling))
        groups = adamw(model, 1e-3, head_rate=3.0, weight_decay=0.0).param_groups
        factor = {id(p): group["factor"] for group in groups for p in group["params"]}
        assert len(factor) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
        assert {factor[id(p)] for p in model.backbone.segment.parameters()} == {expected}
        assert {factor[id(p)] for p in model.head.parameters()} == {3.0}
        assert {factor[id(p)] for p in model.backbone.encoder.parameters()} == {1.0}


@pytest.mark.parametrize(("pooling", "augmentation", "times"), [
    ("spatial", "modern", 1), ("spatial", "none", 0), ("spatial", "paper", 0), ("average", "modern", 0)])
def test_masks_alone_are_learned_on_other_scanners(pooling: str, augmentation: str, times: int, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Uptake is scaled and blurred at random where steps learn masks alone, and neither where they learn a risk, which
    that may move, nor by another augmentation."""
    seen: list[int] = []

    def watched(image: torch.Tensor, generator: torch.Generator, reach: int) -> torch.Tensor:
        seen.append(reach)
        return image

    monkeypatch.setattr("mtdlr.train.rescanned", watched)
    few = [replace(case, event=k % 2 == 0) for k, case in enumerate(CASES[:5])]
    train(few, "deepmts", TINY.model_copy(update={"pooling": pooling, "epochs": 1, "augmentation": augmentation}),
          tmp_path, seed=0)
    assert seen == [TINY.near_voxels] * times


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A training with a solved head that is stopped after an epoch, and goes on, ends as one that never stopped."""
    def stop(progress: object) -> None:
        if progress.row is not None:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CASES[:16], "deepmts", TINY, tmp_path / "broken", seed=0, report=stop)
    broken = train(CASES[:16], "deepmts", TINY, tmp_path / "broken", seed=0)
    assert broken.digest == train(CASES[:16], "deepmts", TINY, tmp_path / "whole", seed=0).digest


def test_the_published_network_has_no_embedding() -> None:
    """With average pooling the network is the published one; with spatial pooling it has no survival network."""
    assert not any("plain" in name for name in weights_of(DeepMTS(DeepmtsConfig(width=0.25))))
    spatial = DeepMTS(DeepmtsConfig(width=0.25, pooling="spatial"))
    assert spatial.survival is None and spatial.l2() == 0


@pytest.mark.parametrize("voxels", [0, 1, 2, 3, 5, 8])
def test_windows_are_those_of_pooling(voxels: int) -> None:
    """The greatest value and the mean of a cube equal those of pooling bit by bit, their gradients to 1e-6."""
    random = torch.Generator().manual_seed(1)
    x, weights = (torch.rand(1, 2, 20, 18, 17, generator=random) for _ in range(2))
    for ours, pool in ((dilated, functional.max_pool3d), (mean_around, functional.avg_pool3d)):
        own, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, expected = ours(own, voxels), theirs
        for axis in range(3):
            size = [2 * voxels + 1 if k == axis else 1 for k in range(3)]
            expected = pool(expected, size, 1, [voxels if k == axis else 0 for k in range(3)])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-6, atol=1e-6)
