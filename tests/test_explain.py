"""Where a risk came from: the maps add up, the shares name the right places, the right networks speak."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mtdlr.errors import ScanError
from mtdlr.explain import attribution, explain_patient, gradients
from mtdlr.infer import Checkpoint, score
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build
from mtdlr.nomogram.scores import Scale
from mtdlr.report.figures import attribution_figure, save
from mtdlr.volume import Volume

IMAGE = np.random.default_rng(0).random((2, 32, 32, 32), dtype=np.float32)
BLOCK = np.zeros((32, 32, 32), bool)
BLOCK[12:20, 12:20, 12:20] = True
MEAN = np.full_like(IMAGE, 0.5)
TUMOUR = Volume.on_grid(BLOCK, (4.0, 4.0, 4.0))
PLAIN = SingletaskConfig(width=0.25)
OPEN, CLOSED = (DeepmtsConfig(width=0.25, detach_probability=closed) for closed in (False, True))


def checkpoint(seed: int, config: SingletaskConfig | DeepmtsConfig = PLAIN) -> Checkpoint:
    """A network whose running statistics fit random images."""
    torch.manual_seed(seed)
    model = build(config)
    for _ in range(3):
        model.train()(torch.rand(4, 2, 32, 32, 32))
    return Checkpoint(model.eval(), {}, str(seed))


@pytest.mark.slow
def test_maps_add_up_to_the_risk_over_where_they_start() -> None:
    """Integrated gradients are complete: their sum is the patient's risk less that of the image they start from."""
    network = checkpoint(0)
    rise = score(network, IMAGE).risk - score(network, MEAN).risk
    maps = gradients(network, IMAGE, MEAN, steps=48)
    assert maps.shape == IMAGE.shape and maps.dtype == np.float32
    assert maps.sum() == pytest.approx(rise, abs=0.02 + 0.05 * abs(rise))
    assert all(p.grad is None for p in network.model.parameters())


@pytest.mark.slow
def test_the_path_through_the_tumour_probability_counts() -> None:
    """A risk depends on the mask it sees, whether training let the gradient through there or not."""
    maps = []
    for config in (CLOSED, OPEN):
        network = checkpoint(0, config)
        with torch.no_grad():
            network.model.backbone.segment.weight.mul_(1e-4)  # neither surely tumour nor surely not
        maps.append(gradients(network, IMAGE, MEAN, steps=2))
    np.testing.assert_array_equal(*maps)


@pytest.mark.slow
def test_explaining_leaves_the_network_as_it_was() -> None:
    """The same score before and after, to the bit, and the setting of training is kept."""
    network = checkpoint(0, CLOSED)
    before = score(network, IMAGE).risk
    gradients(network, IMAGE, MEAN, steps=2)
    assert score(network, IMAGE).risk == before and network.scorer.config == CLOSED


@pytest.mark.slow
def test_steps_one_by_one_give_what_they_give_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a large grid the points on the way go through the network one after another; the map is the same."""
    together = gradients(checkpoint(0), IMAGE, MEAN, steps=5)
    monkeypatch.setattr("mtdlr.explain.TOGETHER", 2 * 32**3)
    np.testing.assert_allclose(gradients(checkpoint(0), IMAGE, MEAN, steps=5), together, atol=1e-6)


def test_images_a_network_cannot_read_are_refused() -> None:
    """E-IMAGE, as in scoring."""
    for pair in ((IMAGE[:1], MEAN), (IMAGE, MEAN[:1])):
        with pytest.raises(ScanError, match="E-IMAGE"):
            gradients(checkpoint(0), *pair)


def test_near_the_tumour_means_within_10_mm() -> None:
    """With voxels of 4 mm two more voxels along an axis are near, the third is not; all shares add up to one."""
    maps = np.random.default_rng(1).normal(size=(2, 32, 32, 32)).astype(np.float32)
    mask = np.zeros((32, 32, 32), bool)
    mask[16, 16, 16] = True
    found = attribution(maps, mask, spacing_mm=(4.0, 4.0, 4.0))
    far = np.sqrt(((np.stack(np.mgrid[:32, :32, :32]) - 16) ** 2).sum(0)) * 4.0
    total = np.abs(maps).sum()
    assert sum(found.adds.values()) == pytest.approx(float(maps.sum()), rel=1e-4)
    assert found.adds["pet tumour"] == pytest.approx(float(maps[0, 16, 16, 16]))
    assert found.share["pet tumour"] == pytest.approx(abs(maps[0, 16, 16, 16]) / total, rel=1e-4)
    assert found.share["ct near"] == pytest.approx(np.abs(maps[1][(far > 0) & (far <= 10)]).sum() / total, rel=1e-4)
    assert sum(found.share.values()) == pytest.approx(1.0) and found.volume == 1 / 32**3
    assert found.outside == pytest.approx(1.0 - found.share["pet tumour"] - found.share["ct tumour"])


def test_without_a_tumour_all_is_elsewhere_and_without_a_gradient_nothing_is_anywhere() -> None:
    """An empty mask has no inside and no neighbourhood; a risk that no voxel moves has shares of 0, outside too."""
    none = np.zeros((32, 32, 32), bool)
    empty = attribution(IMAGE, none, spacing_mm=(4.0, 4.0, 4.0))
    assert empty.share["pet elsewhere"] + empty.share["ct elsewhere"] == pytest.approx(1.0) == empty.outside
    still = attribution(np.zeros_like(IMAGE), BLOCK, spacing_mm=(4.0, 4.0, 4.0))
    assert set(still.share.values()) == {0.0} and still.outside == 0.0
    assert json.loads(json.dumps(still.as_dict()))["tumour_volume"] == BLOCK.mean()


@pytest.mark.slow
def test_a_training_patient_is_explained_by_the_network_that_never_saw_it() -> None:
    """Fold 1: network 1 alone, in units of its scale, and so for its other subfold, 3; nobody's fold: the mean of all,
    each in its own units."""
    networks, scales = [checkpoint(0), checkpoint(1)], [Scale(0.0, 2e3), Scale(5.0, 5e2)]  # few steps are near enough
    own = explain_patient(IMAGE, TUMOUR, networks, scales, MEAN, 1)
    np.testing.assert_allclose(own.maps, gradients(networks[1], IMAGE, MEAN) / 5e2, rtol=1e-6)
    np.testing.assert_array_equal(explain_patient(IMAGE, TUMOUR, networks, scales, MEAN, 3).maps, own.maps)
    everybody = explain_patient(IMAGE, TUMOUR, networks, scales, MEAN)
    by_hand = [gradients(n, IMAGE, MEAN, steps=8) / s.sd for n, s in zip(networks, scales, strict=True)]
    np.testing.assert_allclose(everybody.maps, np.mean(by_hand, axis=0), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("misses", "taken"), [(0.5, [8]), (3.0, [8, 16, 32]), (1e3, [8, 16, 32, 64])])
def test_a_map_takes_the_steps_it_needs_to_add_up(misses: float, taken: list[int],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few steps miss the rise of the risk by more than 0.1 SD, twice as many are taken, 64 at most."""
    network, tried = checkpoint(0), []
    rise = score(network, IMAGE).risk - score(network, MEAN).risk

    def rough(checkpoint: Checkpoint, image: np.ndarray, start: np.ndarray, *, steps: int) -> np.ndarray:
        tried.append(steps)
        return np.full(IMAGE.shape, (rise + 0.1 * 2.0 * misses * 8 / steps) / IMAGE.size, np.float32)

    monkeypatch.setattr("mtdlr.explain.gradients", rough)
    explain_patient(IMAGE, TUMOUR, [network], [Scale(0.0, 2.0)], MEAN)
    assert tried == taken


@pytest.mark.slow
def test_the_picture_shows_what_raises_and_what_lowers(tmp_path: Path) -> None:
    """Colour lies where a map is not zero, warm where it raises the risk, and the same maps are the same file."""
    pet = Volume.on_grid(np.ones((32, 32, 32)), (4.0, 4.0, 4.0))
    up, flat = pet.with_array(np.where(BLOCK, 1.0, 0.0)), pet.with_array(np.zeros((32, 32, 32)))
    figures = [attribution_figure(pet, pet, maps, {"predicted": TUMOUR}) for maps in ((up, flat), (up, flat))]
    first, second = (save(f, tmp_path / f"{k}.png").read_bytes() for k, f in enumerate(figures))
    axial, _, ct, _ = figures[0].axes
    alpha = np.asarray(axial.images[-1].get_alpha())
    share = np.asarray(axial.images[-1].get_array())
    assert first == second and alpha[alpha > 0.1].size and share[alpha > 0.1].min() > 0
    assert not np.asarray(ct.images[-1].get_alpha()).any()
