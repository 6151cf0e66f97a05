"""A finished study whose every number was made up by hand: what tables, facts, figures and pages are tested with.

No model is fitted here. What a test reads in the report stands as a literal in this file or in the test.
"""

from __future__ import annotations

from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.associate import Association, Associations
from mtdlr.cohort import Cohort
from mtdlr.cohort.characteristics import Characteristic, Range
from mtdlr.estimate import Estimate
from mtdlr.evaluate import Evaluation, Findings
from mtdlr.evaluate.appraise import Appraisal
from mtdlr.evaluate.findings import RiskGroups
from mtdlr.report.results import Results
from mtdlr.stats.calibration import Calibration, SmoothCalibration
from mtdlr.stats.concordance import Concordance
from mtdlr.stats.decision import Brier
from mtdlr.stats.inference import Test
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.log_rank import LogRank
from mtdlr.stats.net_benefit import NetBenefit
from mtdlr.stats.roc import Roc
from mtdlr.study import Study
from mtdlr.survival import Survival

UNKNOWN = Estimate(nan)
OE, RATIO = Estimate(1.1, 0.9, 1.3), Estimate(3.0, 1.2, 7.5, 0.02)
MODELS = ("stage", "manual_radio", "manual_radio_stage", "single_task", "single_task_stage", "deepmts", "auto_radio",
          "mtdlr")
SETTINGS: dict[str, Any] = {
    "cohort": {"stage": "tnm", "continuous": ["age"], "described": ["ic"], "factors": {"tnm": ["III", "IVa"]}},
    "nomogram": {"months": [6, 12]}}


def table() -> pd.DataFrame:
    """Six training patients of centre A and four external ones of centre B; five events."""
    ids = [f"P{k}" for k in range(1, 7)] + [f"X{k}" for k in range(1, 5)]
    return pd.DataFrame({
        "split": ["training"] * 6 + ["external"] * 4, "center": ["A"] * 6 + ["B"] * 4,
        "time_months": [2.0, 4.0, 6.0, 8.0, 10.0, 14.0, 3.0, 6.0, 9.0, 13.0],
        "event": [True, False, True, False, True, False, True, True, False, False],
        "tnm": ["IVa", "III", "IVa", "III", "IVa", "III", "IVa", "IVa", "III", None],
        "age": [40.0, 50.0, 60.0, 45.0, 55.0, 65.0, 70.0, 60.0, np.nan, 50.0],
        "ic": [1.0, 1.0, 0.0, 0.0, 1.0, np.nan, 0.0, 0.0, 1.0, 1.0]}, index=ids)


def concordance(c: Estimate) -> Concordance:
    """A concordance with a C and nothing else."""
    return Concordance(c, nan, nan, nan, nan, 0, 0, "harrell")


def area(value: Estimate) -> Roc:
    """A ROC curve through one point, with an area."""
    thresholds = np.array([np.inf, 0.0, -np.inf])
    return Roc(thresholds, np.array([0.0, 0.75, 1.0]), np.array([1.0, 0.5, 0.0]), value, nan, 4, 4)


def calibration(month: float, oe: Estimate = OE, **changes: Any) -> Calibration:
    """A calibration without groups, of 40 patients with 12 events."""
    test = Test(2.0, 3.0, 0.57)
    known = {"slope": Estimate(0.9, 0.6, 1.2), "intercept": Estimate(0.05, -0.2, 0.3), "ici": 0.041, "e50": 0.03,
             "e90": 0.08, "gnd": test, "nam_dagostino": test, "hl_binary": Test(5.0, 8.0, 0.031)} | changes
    return Calibration(month=month, n=40, events=12, groups=None, smooth=SmoothCalibration(),
                       observed=Estimate(0.6, 0.5, 0.7), predicted=0.63, oe=oe, **known)


def groups(hazard_ratio: Estimate = RATIO, cutoff: float = 0.25, p: float = 0.013) -> RiskGroups:
    """Two groups of four patients each."""
    low, high = (kaplan_meier(Survival(times, [True, False, True, False])) for times in
                 ([6.0, 9.0, 12.0, 15.0], [2.0, 4.0, 6.0, 8.0]))
    test = LogRank(6.2, 1, p, np.array([2.0, 2.0]), np.array([3.0, 1.0]), np.eye(2), (False, True), np.array([4, 4]))
    return RiskGroups(cutoff, {"Low risk": low, "High risk": high}, test, hazard_ratio)


def evaluation(model: str = "mtdlr", split: str = "external", **changes: Any) -> Evaluation:
    """A model that does well: 120 patients, 110 events, C of 0.72; `changes` replace its fields, `c` its C."""
    c = changes.pop("c", Estimate(0.72, 0.66, 0.78, 0.0001))
    known: dict[str, Any] = {
        "n": 120, "n_events": 110, "concordance": None if c is None else concordance(c),
        "concordance_vs_stage": None if model == "stage" else Estimate(0.08, 0.02, 0.14, 0.011),
        "auc": {6.0: area(Estimate(0.75, 0.65, 0.85, 0.002)), 12.0: area(Estimate(0.7, 0.6, 0.8, 0.01))},
        "auc_vs_stage": {} if model == "stage" else {6.0: Estimate(0.1, 0.0, 0.2, 0.049),
                                                     12.0: Estimate(0.05, -0.05, 0.15, 0.33)},
        "calibration": {6.0: calibration(6.0), 12.0: calibration(12.0, Estimate(1.02, 0.95, 1.1))},
        "groups": groups()} | changes
    return Evaluation(model, split, **known)


def benefit(month: float, value: list[float], low: list[float]) -> NetBenefit:
    """Net benefit at thresholds of 10, 20, 30, ... %."""
    n = len(value)
    high = np.array(value) + 0.1
    return NetBenefit(month, np.arange(1, n + 1) / 10, np.array(value), np.array(low), high, np.ones(n))


def appraisal(model: str = "mtdlr", split: str = "external", **changes: Any) -> Appraisal:
    """A model of which everything is known."""
    known: dict[str, Any] = {
        "uno": Estimate(0.71, 0.64, 0.78), "versus": {"stage": Estimate(0.08, 0.02, 0.14, 0.011)}, "auc": None,
        "brier": {12.0: Brier(12.0, Estimate(0.15, 0.1, 0.2), 0.2, 0.25, 0.02)},
        "benefit": {12.0: benefit(12.0, [0.3, 0.2, 0.1], [0.2, 0.1, 0.02])},
        "over_all": {12.0: benefit(12.0, [0.0, 0.1, 0.2], [-0.1, 0.05, 0.1])},
        "restricted_mean": Estimate(-2.5, -4.0, -1.0, 0.001)} | changes
    return Appraisal(model, split, **known)


def signature(features: tuple[str, ...] = ("pet_original_glcm_Contrast", "ct_original_shape_Volume"),
              **changes: Any) -> SimpleNamespace:
    """A signature of two features out of 900."""
    return SimpleNamespace(**{
        "features": features, "coef": (0.2, -0.35), "selected_in": (0.8, 0.55), "penalty": 0.04321, "n_candidates": 900,
        "problems": ()} | changes)


def cox(names: tuple[str, ...] = ("tnm=IVa", "auto_radio", "deepmts"),
        coef: tuple[float, ...] = (0.5, 0.75, -0.25)) -> SimpleNamespace:
    """The Cox model of a nomogram, as far as the report names it."""
    return SimpleNamespace(names=names, coef=coef)


def nomogram(**changes: Any) -> SimpleNamespace:
    """The main nomogram, as far as the report reads it: every candidate is in it."""
    return SimpleNamespace(**{
        "cox": cox(), "design": SimpleNamespace(variables=("tnm", "auto_radio", "deepmts"))} | changes)


def association(name: str, label: str, split: str, **changes: Any) -> Association:
    """A continuous variable with a ratio of 1.5, or a factor where levels are given."""
    known: dict[str, Any] = {
        "levels": (), "reference": "", "ratios": {"": Estimate(1.5, 1.1, 2.045, 0.0104)},
        "per_sd": Estimate(2.25, 1.2, 4.2, 0.0104), "overall_p": nan, "n": 6, "n_events": 3} | changes
    return Association(name, label, split, **known)


def characteristics() -> tuple[Characteristic, ...]:
    """A continuous variable, a factor and a treatment."""
    return (
        Characteristic("age", "Age", 0.0312, {"training": Range(6, 52.5, 40.0, 65.0), "external": Range(3, 60.0, 50.0,
                                                                                                       70.0)}),
        Characteristic("tnm", "TNM", nan, counts={"III": {"training": 3, "external": 1},
                                                  "IVa": {"training": 3, "external": 2}}),
        Characteristic("ic", "IC", 0.00004, counts={"yes": {"training": 3, "external": 2},
                                                    "no": {"training": 2, "external": 2}}, is_flag=True))


def associations() -> Associations:
    """Age in both cohorts; in Table 3 the score and the stage."""
    stage = {"levels": ("III", "IVa"), "reference": "III", "ratios": {"IVa": Estimate(2.0, 0.8, 5.0, 0.1405)},
             "per_sd": None}
    return Associations(
        tuple(association("age", "Age", split) for split in ("training", "external")),
        tuple(association("tnm", "TNM", split, **stage) for split in ("training", "external")))


def findings(rows: pd.DataFrame, **changes: Any) -> Findings:
    """Every model in every cohort; risks grow from the last patient of the table to the first."""
    ids = rows.index
    risks = pd.DataFrame({name: np.linspace(1.0, -1.0, len(ids)) for name in MODELS}, index=ids)
    risks["stage"] = np.where(rows["tnm"] == "IVa", 1.0, 0.0)
    splits = list(dict.fromkeys(rows["split"]))
    predicted = pd.DataFrame({6.0: np.linspace(0.5, 0.9, len(ids)), 12.0: np.linspace(0.3, 0.8, len(ids))}, index=ids)
    known: dict[str, Any] = {
        "risks": risks, "predicted": {"mtdlr": predicted},
        "evaluations": {(model, split): evaluation(model, split) for split in splits for model in MODELS},
        "optimism": {"deepmts": {"in_sample": Estimate(0.95, 0.9, 1.0), "training": Estimate(0.7, 0.6, 0.8),
                                 "external": Estimate(0.65, 0.5, 0.8)}},
        "calibrations": {"out-of-fold scores": {(split, month): calibration(month) for split in splits
                                                for month in (6.0, 12.0)}},
        "problems": ()} | changes
    return Findings(**known)


def model(**changes: Any) -> SimpleNamespace:
    """The frozen model, as far as the report reads it."""
    return SimpleNamespace(**{
        "digest": "0123456789abcdef", "signatures": {"auto": signature(), "manual": signature()}, "networks": {},
        "scales": {"deepmts": (1, 2, 3)}, "cutoffs": {"mtdlr": 0.25, "stage": 0.5}, "imputed": {},
        "nomograms": {"mtdlr": nomogram()}} | changes)


def results(settings: dict[str, Any] | None = None, rows: pd.DataFrame | None = None, **changes: Any) -> Results:
    """The finished study; `settings` are put over its own, section by section, and `changes` replace its fields."""
    rows = table() if rows is None else rows
    merged = {name: {**SETTINGS.get(name, {}), **(settings or {}).get(name, {})} if isinstance(
        (settings or {}).get(name, {}), dict) else (settings or {})[name] for name in {*SETTINGS, *(settings or {})}}
    manual = pd.DataFrame({"suv_max": np.linspace(4.0, 13.0, len(rows)),
                           "mtv_ml_2_5": np.linspace(30.0, 3.0, len(rows))}, index=rows.index)
    features = pd.DataFrame(np.zeros((len(rows), 2)), index=rows.index, columns=list(signature().features))
    scores = pd.DataFrame({"deepmts": np.linspace(1.0, -1.0, len(rows)),
                           "auto_radio": np.linspace(-1.0, 1.0, len(rows))}, index=rows.index)
    known: dict[str, Any] = {
        "model": model(), "scores": scores, "findings": findings(rows), "characteristics": characteristics(),
        "associations": associations(), "features": {"auto": features, "manual": features},
        "pet_parameters": {"manual": manual, "auto": manual}, "prepared": {}, "scored": {}, "problems": ()} | changes
    return Results(Study.of(merged), Cohort(rows, {}), **known)


def write_json(folder: Path, name: str, text: str) -> Path:
    """A file in a folder that is made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder
