"""Predicted masks: cut to where both scans are, doubted by volume and air, and brought to a scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from mtdlr.imaging import grid
from mtdlr.imaging.plausible import air_share, mask_doubts
from mtdlr.infer import NetworkScore, score_patient
from mtdlr.prepared import Prepared
from mtdlr.radiomics.extract import patient_features
from mtdlr.study import RadiomicsSettings, ScoreSettings
from mtdlr.volume import Volume

REGION = grid.cube((0.0, 0.0, 0.0), size=32, spacing_mm=6.0)  # 192 mm


def patient(half_mm: float = 50.0) -> Prepared:
    """A cylinder of soft tissue in air; the PET reaches 60 mm to either side, the CT 96."""
    pet = Volume.on_grid(np.ones((30, 30, 30), np.float32), (4.0,) * 3, (-58.0,) * 3)
    _, y, x = np.indices((64, 64, 64)) * 3.0 - 94.5
    ct = np.where(y**2 + x**2 < half_mm**2, 40, -1000).astype(np.int16)
    return Prepared("P", np.zeros((2, 32, 32, 32), np.float32), REGION.affine, None, pet,
                    Volume.on_grid(ct, (3.0,) * 3, (-94.5,) * 3), None, {})


@dataclass(frozen=True)
class Everything:
    """A network that sees tumour in a part of the cube."""

    part: tuple[slice, ...] = (slice(None),) * 3
    config: dict = field(default_factory=dict)
    model: object = None


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Everything:
    def fake(checkpoint: Everything, image: np.ndarray) -> NetworkScore:
        probability = np.zeros(image.shape[1:], np.float32)
        probability[checkpoint.part] = 0.9
        return NetworkScore(1.0, probability)

    monkeypatch.setattr("mtdlr.infer.score", fake)
    return Everything()


def test_mask_of_everything_is_cut_and_doubted(network: Everything) -> None:
    """A network that calls the whole cube tumour gets a mask inside both scans, W-MASKVOLUME and W-MASKAIR."""
    found = score_patient(patient(), {"deepmts": [network]}, None, ScoreSettings())
    points = found.mask.points_mm(np.argwhere(found.mask.array))
    assert np.abs(points).max() <= 60.0 and np.count_nonzero(found.mask.array) == 20**3
    assert {p.code for p in found.problems} == {"W-MASKVOLUME", "W-MASKAIR"}


def test_mask_of_a_tumour_is_left_alone(network: Everything) -> None:
    """A mask of 14 ml inside the body is neither cut nor doubted."""
    small = Everything((slice(14, 18),) * 3)
    found = score_patient(patient(), {"deepmts": [small]}, None, ScoreSettings())
    assert np.count_nonzero(found.mask.array) == 64 and not found.problems


def test_mask_outside_the_scans_is_no_mask(network: Everything) -> None:
    """What is predicted where no scan is does not count, not even for choosing the largest part."""
    beyond = Everything((slice(0, 4), slice(None), slice(None)))
    found = score_patient(patient(), {"deepmts": [beyond]}, None, ScoreSettings())
    assert not found.mask.array.any() and {p.code for p in found.problems} == {"W-NOMASK"}


def test_share_of_air() -> None:
    """Air inside the mask and mask beyond the CT count as air; an empty mask holds none."""
    ct = Volume.on_grid(np.where(np.arange(10)[:, None, None] < 5, -1000, 40) * np.ones((10, 10, 10), int), (1.0,) * 3)
    half = Volume.on_grid(np.ones((10, 10, 10), bool), (1.0,) * 3)
    beyond = Volume.on_grid(np.ones((20, 10, 10), bool), (1.0,) * 3)
    assert air_share(half, ct) == 0.5 and air_share(beyond, ct) == 0.75
    assert air_share(half.with_array(np.zeros((10, 10, 10), bool)), ct) == 0.0
    assert {p.code for p in mask_doubts(half, ct)} == {"W-MASKAIR", "W-MASKVOLUME"}


def test_features_of_air_are_marked() -> None:
    """Features of a mask that is mostly air come with W-MASKAIR; those of one inside the body do not."""
    one = patient()
    settings = RadiomicsSettings(spacing_mm=4.0)
    air = np.zeros(REGION.shape, bool)
    air[8:24, 6:9, 8:24] = True
    features, told = patient_features(one, Volume(air, REGION.affine), settings)
    assert len(features) == 1456 and "W-MASKAIR" in {p.code for p in told}
    body = np.zeros(REGION.shape, bool)
    body[12:20, 12:20, 12:20] = True
    features, told = patient_features(one, Volume(body, REGION.affine), settings)
    assert features["shape_MeshVolume"] > 0 and "W-MASKAIR" not in {p.code for p in told}


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (5.0, 4.0, 4.0)])
def test_mask_on_the_scans_grid(spacing: tuple[float, float, float]) -> None:
    """A mask goes to a finer or coarser grid with its place and, to a few per cent, its volume."""
    z, y, x = np.indices(REGION.shape) - 15.5
    ball = Volume((z**2 + y**2 + x**2) < 36, REGION.affine)
    shape = tuple(int(192 / s) for s in spacing)
    scan = Volume.on_grid(np.zeros(shape), spacing, (-90.0, -90.0, -90.0))
    moved = grid.mask_onto(ball, scan)
    assert moved.same_grid(scan) and moved.array.dtype == bool
    assert grid.mask_volume_ml(moved) == pytest.approx(grid.mask_volume_ml(ball), rel=0.05)
    np.testing.assert_allclose(moved.points_mm(np.argwhere(moved.array).mean(axis=0)), 0.0, atol=1.0)
