"""What the field of view does to a prediction: nothing where the scan covers the region; else a warning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from one_prediction import nomogram

from mtdlr import predict as stage
from mtdlr.imaging import grid
from mtdlr.infer import Networks, score_patient
from mtdlr.model import FrozenModel
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import Checkpoint, build
from mtdlr.nomogram.scores import Scale
from mtdlr.predict import field_doubt
from mtdlr.prepared import PatientScore, Prepared, narrower
from mtdlr.study import ScoreSettings, Study
from mtdlr.volume import Volume

ROW = pd.DataFrame({"tnm_stage": ["IVa"], "auto_radio": [0.1], "deepmts": [0.0]}, index=["patient"])


def scanned(half_width_mm: float) -> Prepared:
    """A hot ball in a body of 40 HU on a region of 128 mm; the scans reach so far to either side of its middle."""
    region = grid.cube((0.0, 0.0, 0.0), size=32, spacing_mm=4.0)
    z, y, x = np.moveaxis(region.points_mm(np.moveaxis(np.indices(region.shape), 0, -1)), -1, 0)[::-1]
    suv = np.where(z**2 + y**2 + x**2 < 30.0**2, 12.0, 2.0 + 3.0 * (x > 20.0)).astype(np.float32)
    ends = np.array([[-half_width_mm, -64.0, -64.0], [half_width_mm, 64.0, 64.0]])
    pet, ct = (grid.crop(Volume(array, region.affine), ends)
               for array in (suv, np.full(region.shape, 40.0, np.float32)))
    assert pet is not None and ct is not None
    image = np.stack([grid.resample(pet, region, outside=0.0).array / 25.0,
                      grid.resample(ct, region, outside=-1024.0).array / 1024.0]).astype(np.float32)
    return Prepared("patient", image, region.affine, None, pet, ct, None, {})


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Untrained networks; the risk of DeepMTS is a random sum of its embedding."""
    torch.manual_seed(0)
    made = {"deepmts": build(DeepmtsConfig(width=0.25, pooling="spatial")),
            "no-mask": build(SingletaskConfig("no-mask", width=0.25))}
    torch.nn.init.normal_(made["deepmts"].head.weight, std=0.05)
    return {name: (Checkpoint(network.eval(), {}, ""),) for name, network in made.items()}


def model(weight: float) -> FrozenModel:
    """A model whose nomogram knows the DeepMTS-Score on a scale that gives it so much weight."""
    scales = {name: (Scale(0.0, 1.0 / weight),) for name in ("deepmts", "no-mask")}
    study = Study.of({"cohort": {"factors": {"tnm_stage": ["III", "IVa"]}}, "prepare": {"size": 32},
                      "score": {"mask_threshold": 0.01}})
    return FrozenModel(study, {"mtdlr": nomogram()}, {}, {}, scales, {}, None, {})  # type: ignore[arg-type]


def test_what_is_left_of_a_narrower_scan() -> None:
    """The image without the scan's last 15 mm: what lies there is what lies outside, the rest is as it was."""
    patient = scanned(50.0)
    less = narrower(patient, 15.0)
    assert less is not None
    x = patient.region.points_mm([[0, 0, k] for k in range(32)])[:, 0]
    kept, outside = np.abs(x) < 50.0 - 15.0 - 2.0, np.abs(x) > 50.0 - 15.0 + 4.0
    assert np.array_equal(less.image[..., kept], patient.image[..., kept])
    assert (less.image[0][..., outside] == 0.0).all() and (less.image[1][..., outside] == -1.0).all()
    assert narrower(scanned(80.0), 15.0) is None


def test_a_risk_that_depends_on_where_the_scan_ends_is_said(networks: Networks) -> None:
    """W-FIELDRISK with both log hazards where the networks' risk moves; nothing where it hardly does."""
    (problem,) = field_doubt(model(1000.0), networks, scanned(50.0), ROW)
    assert problem.code == "W-FIELDRISK" and "without the scan's last 15 mm" in problem.found
    assert field_doubt(model(1e-6), networks, scanned(50.0), ROW) == ()


def test_another_risk_group_is_said_however_little_moves(networks: Networks) -> None:
    """A cut-off between the two risks makes W-FIELDRISK, which says that the group changes."""
    still = model(1e-3)
    low, high = sorted(float(nomogram().log_hazard(ROW.assign(deepmts=score))[0]) for score in (0.0, -0.01))
    row = ROW.assign(deepmts=0.02)
    cut = replace(still, cutoffs={"mtdlr": (high + float(nomogram().log_hazard(row)[0])) / 2.0})
    assert low < high
    assert field_doubt(still, networks, scanned(50.0), row) == ()
    (problem,) = field_doubt(cut, networks, scanned(50.0), row)
    assert problem.found.endswith("in the other risk group")


def test_a_scan_that_covers_the_region_is_scored_once(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PET and CT cover the region nothing is computed, nor where a score is missing."""
    monkeypatch.setattr("mtdlr.predict.score_patient", lambda *_: pytest.fail("scored again"))
    assert field_doubt(model(1000.0), networks, scanned(80.0), ROW) == ()
    assert field_doubt(model(1000.0), networks, scanned(50.0), ROW.assign(deepmts=np.nan)) == ()


def test_only_networks_behind_the_nomogram_score_again(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second scoring leaves out the single-task network, which the nomogram does not use."""
    asked: list[list[str]] = []

    def spied(patient: Prepared, some: Networks, fold: int | None, settings: ScoreSettings) -> PatientScore:
        asked.append(sorted(some))
        return score_patient(patient, some, fold, settings)
    monkeypatch.setattr(stage, "score_patient", spied)
    (problem,) = field_doubt(model(1000.0), networks, scanned(50.0), ROW)
    assert asked == [["deepmts"]] and problem.code == "W-FIELDRISK"
