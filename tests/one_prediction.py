"""A prediction of one made-up patient, without networks: what pages, DICOM and the server are tested with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.predict import Prediction
from mtdlr.prepared import Prepared
from mtdlr.radiomics.extract import patient_pet_parameters
from mtdlr.report.model_card import ModelCard
from mtdlr.shift import Shift, TrainingRisks
from mtdlr.survival import Survival
from mtdlr.volume import Volume

AUDIT = {
    "patient_id": "patient", "layout": "dicom",
    "choice": "PT series 4d12dcdf (no. 3): attenuation corrected; CT series f119d21f (no. 2): in the PET's frame",
    "pet": {"source": "DICOM", "shape_zyx": [24, 24, 24], "spacing_zyx_mm": [4.0, 4.0, 4.0], "suv": {
        "units_used": "BQML", "method": "decay corrected to the scan", "dose_bq": 268.2e6, "half_life_s": 6586.2,
        "uptake_min": 67.85, "weight_kg": 59.6}},
    "ct": {"source": "DICOM", "shape_zyx": [24, 48, 48], "spacing_zyx_mm": [4.0, 2.0, 2.0]}}
ROW = {"tnm_stage": "IVa", "auto_radio": -0.8, "deepmts": -0.4}


@cache
def nomogram(endpoint: str = "PFS") -> Nomogram:
    """Of 200 made-up patients, as it is after a bundle."""
    rng = np.random.default_rng(7)
    latent = rng.normal(size=200)
    table = pd.DataFrame({"tnm_stage": np.where(rng.random(200) < 0.4, "IVa", "III"), "auto_radio": latent,
                          "deepmts": latent + rng.normal(size=200)})
    time = 90.0 * rng.exponential(np.exp(-0.7 * latent - (table["tnm_stage"] == "IVa")))
    fitted = Nomogram.fit(table, Survival(np.minimum(time, 72.0) + 0.1, time < 72.0), list(table), (36, 60),
                          labels={"tnm_stage": "TNM stage", "deepmts": "DeepMTS-Score"}, endpoint=endpoint)
    return Nomogram.from_json(fitted.to_json())


@cache
def prepared() -> tuple[Prepared, Volume]:
    """A head of water with a hot ball, and the ball's mask on the network grid."""
    zyx = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - 11.5
    inside, ball = np.abs(zyx).max(0) < 10, np.sqrt((zyx**2).sum(0)) < 4
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, :3] = affine[:3, :3][:, ::-1]  # index (z, y, x) -> LPS (x, y, z)
    pet = np.where(ball, 8.0, np.where(inside, 1.0, 0.0)).astype(np.float32)
    ct = np.where(inside, 40, -1000).astype(np.int16)
    facts = {"roi_how": "below the brain", "roi_confidence": 0.9}
    patient = Prepared("patient", np.stack([pet, ct]).astype(np.float32), affine, None, Volume(pet, affine),
                       Volume(ct, affine), None, facts, (), AUDIT)
    return patient, Volume(ball, affine)


@cache
def card() -> ModelCard:
    """Of a model with everything known."""
    risks = nomogram().log_hazard(ROW)[0] + np.linspace(-2.0, 2.0, 120)
    return ModelCard("9ed951e73ab313f7", "0.1.0", 120, 29, True, float(risks[40]),
                     {"training": Estimate(0.74, 0.64, 0.84), "external": Estimate(0.7, 0.6, 0.8)},
                     TrainingRisks.fit(risks))


def prediction(endpoint: str = "PFS", **changes: Any) -> Prediction:
    """A prediction in which nothing was noticed; `changes` replace its fields."""
    model, (patient, mask) = nomogram(endpoint), prepared()
    risk, curve = float(model.log_hazard(ROW)[0]), model.survival(ROW)
    points = {str(name): float(value) for name, value in model.points(ROW).iloc[0].items()}
    whole = Prediction(
        risk, {month: curve.estimate(0, month) for month in model.months}, "high", points,
        {"auto_radio": ROW["auto_radio"], "deepmts": ROW["deepmts"], "deepmts_sd": 0.2}, {"tnm_stage": "IVa"}, mask,
        patient, model, (), shift=Shift({"uptake": 0.41, "together": 0.72}), lower_bound_months=14.0,
        model=card().digest, card=card(), uptake=patient_pet_parameters(patient, mask))
    return replace(whole, **changes)


def outside() -> Prediction:
    """A prediction of a scan that would have been refused, made on request."""
    refusal = Problem("E-SHIFT", "the level of FDG uptake lies outside that of the training patients", where="scan",
                      found="median 8.1", expected="0.5 to 2.2")
    shift = Shift({"uptake": 0.9996}, (refusal,)).accepted()
    return prediction(shift=shift, problems=(*shift.problems, Problem(
        "W-UPTAKE", "the uptake time is unusual", where="PET", found="130 min", expected="45 to 100 min",
        patients=("patient",))))
