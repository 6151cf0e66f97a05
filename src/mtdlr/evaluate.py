"""risk x follow-up -> Evaluation: discrimination, calibration and risk groups of each model in each cohort (METHOD 7).

Nothing here is fitted but the cut-off, and that comes from the training cohort alone. Association (Tables 2 and 3 refit
a Cox model inside each cohort) is in `tables`; this file judges frozen models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.calibration import Calibration, calibrate
from mtdlr.stats.concordance import Concordance, compare_concordance, concordance
from mtdlr.stats.kaplan_meier import KaplanMeier, kaplan_meier
from mtdlr.stats.log_rank import LogRank, group_hazard_ratio, log_rank
from mtdlr.stats.roc import Roc, delong, roc, youden
from mtdlr.stats.time_roc import TimeAuc, auc_at, compare_auc_at
from mtdlr.study import EvaluateSettings
from mtdlr.survival import Survival

HrMethod = Literal["cox", "logrank_oe", "peto"]
STAGE = "stage"
MODELS = {
    STAGE: "Stage", "manual_radio": "ManualRadio", "manual_radio_stage": "ManualRadio + stage",
    "single_task": "SingleTask", "single_task_stage": "SingleTask + stage", "deepmts": "DeepMTS",
    "auto_radio": "AutoRadio", "mtdlr": "MTDLR", "truth": "True risk (simulated)",
}
"""Every model, in the order of the paper's Table 4, and the name it is printed with."""
NOMOGRAMS = {
    "mtdlr": ("auto_radio", "deepmts"), "manual_radio_stage": ("manual_radio",), "single_task_stage": ("single_task",),
}
"""The scores that each nomogram combines with the stage."""


@dataclass(frozen=True)
class Groups:
    """High and low risk at the frozen cut-off, and how their follow-up differs."""

    cutoff: float
    curves: Mapping[str, KaplanMeier]
    log_rank: LogRank
    hazard_ratio: Estimate


@dataclass(frozen=True)
class Evaluation:
    """How one model does in one cohort.

    Args:
        model, split: which, where.
        n, n_events: patients with a score, and their events.
        concordance: Harrell's C; its p value is against 0.5.
        concordance_vs_stage: C minus the stage's C, paired; None for the stage itself.
        auc: by horizon in months, or under 0 for the event status (the paper's ROC).
        auc_vs_stage: AUC minus the stage's, paired, by the same keys.
        calibration: by horizon; nomograms only.
        groups: None where no cut-off can separate anybody.
        problems: what could not be computed, and why.
    """

    model: str
    split: str
    n: int
    n_events: int
    concordance: Concordance
    concordance_vs_stage: Estimate | None
    auc: Mapping[float, Roc | TimeAuc]
    auc_vs_stage: Mapping[float, Estimate]
    calibration: Mapping[float, Calibration]
    groups: Groups | None
    problems: tuple[Problem, ...] = field(default=())

    @property
    def c(self) -> Estimate:
        """Harrell's C with its interval and p value against 0.5."""
        return self.concordance.c


def evaluate(
    risks: pd.DataFrame,
    predicted: Mapping[str, pd.DataFrame],
    table: pd.DataFrame,
    months: tuple[float, ...],
    settings: EvaluateSettings,
) -> dict[tuple[str, str], Evaluation]:
    """The evaluation of every model in every cohort.

    Args:
        risks: (patients, models), log-hazards; NaN where a patient has no score.
        predicted: of each nomogram, (patients, months) survival probabilities.
        table: split, time_months and event of the same patients.
        months: the horizons.
    """
    cutoffs = {str(model): training_cutoff(risks[model], table) for model in risks}
    return {
        (model, split): _evaluate_one(
            model, split, risks, predicted.get(model), table, cutoffs[model], months, settings)
        for split in dict.fromkeys(map(str, table["split"])) for model in map(str, risks.columns)
    }


def training_cutoff(risk: pd.Series, table: pd.DataFrame) -> float:
    """The Youden cut-off of the event-status ROC in the training cohort; NaN where no score separates anybody."""
    rows = ((table["split"] == "training") & risk.notna()).to_numpy()
    values, status = risk.to_numpy(float)[rows], table["event"].to_numpy(bool)[rows]
    if np.unique(values).size < 2 or status.all() or not status.any():
        return float("nan")
    return youden(roc(values, status)).threshold


def risk_groups(risk: NDArray[np.float64], cutoff: float, surv: Survival, hr_method: HrMethod) -> Groups | None:
    """High (risk at or above the cut-off) against low; None where one of them is empty."""
    high = risk >= cutoff
    if not np.isfinite(cutoff) or high.all() or not high.any():
        return None
    curves = {"Low risk": kaplan_meier(surv.take(~high)), "High risk": kaplan_meier(surv.take(high))}
    return Groups(cutoff, curves, log_rank(high, surv), group_hazard_ratio(high, surv, method=hr_method))


def _evaluate_one(
    model: str, split: str, risks: pd.DataFrame, predicted: pd.DataFrame | None, table: pd.DataFrame,
    cutoff: float, months: tuple[float, ...], settings: EvaluateSettings,
) -> Evaluation:
    rows = ((table["split"] == split) & risks[[model, STAGE]].notna().all(axis=1)).to_numpy()
    lost = int((table["split"] == split).sum() - rows.sum())
    surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
    risk, stage = risks[model].to_numpy(float)[rows], risks[STAGE].to_numpy(float)[rows]
    auc, versus = _discriminate(model, risk, stage, surv, months, settings)
    compared = None if model == STAGE else compare_concordance(
        risk, stage, surv, method=settings.comparison, resamples=settings.bootstrap, seed=settings.seed).difference
    calibration = {} if predicted is None else _calibrate(predicted[rows], surv, months, settings, split == "training")
    groups = risk_groups(risk, cutoff, surv, settings.group_hr)
    return Evaluation(model, split, int(rows.sum()), surv.n_events, concordance(risk, surv), compared, auc, versus,
                      calibration, groups, tuple(_notes(model, split, lost, groups, calibration, settings)))


def _discriminate(
    model: str, risk: NDArray, stage: NDArray, surv: Survival, months: tuple[float, ...], settings: EvaluateSettings
) -> tuple[dict[float, Roc | TimeAuc], dict[float, Estimate]]:
    """ROC by horizon (or of the event status), and each AUC against the stage's."""
    if settings.roc == "status":
        curves: dict[float, Roc | TimeAuc] = {0.0: roc(risk, surv.event)}
        versus = {0.0: delong(risk, stage, surv.event).difference}
    else:
        curves = {month: auc_at(risk, surv, month) for month in months}
        versus = {month: compare_auc_at(risk, stage, surv, month).difference for month in months}
    return curves, {} if model == STAGE else versus


def _calibrate(
    predicted: pd.DataFrame, surv: Survival, months: tuple[float, ...], settings: EvaluateSettings, development: bool
) -> dict[float, Calibration]:
    return {month: calibrate(predicted[month].to_numpy(float), surv, month, groups=settings.calibration_groups,
                             development=development) for month in months}


def _notes(
    model: str, split: str, lost: int, groups: Groups | None, calibration: Mapping[float, Calibration],
    settings: EvaluateSettings,
) -> list[Problem]:
    where = f"{MODELS.get(model, model)} in the {split} cohort"
    notes = []
    if lost:
        notes.append(Problem("W-NOSCORE", f"{lost} patients without a score are left out", where=where))
    if groups is None:
        notes.append(Problem("W-NOGROUPS", "the training cut-off does not split this cohort", where=where))
    for month, judged in calibration.items():
        notes += [problem.at(f"{where}, {month:g} months") for problem in judged.warnings
                  if problem.code != "W-HLBINARY" or settings.calibration_test == "hl_binary"]
    return notes
