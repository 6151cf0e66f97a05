"""Frozen risks x follow-up -> Evaluation: discrimination, calibration and risk groups by model and cohort (METHOD 7).

Nothing is fitted here: risks, survival and cut-offs come from a frozen model, the follow-up from any cohort.
Association (Tables 2 and 3 refit a Cox model inside each cohort) is in `associate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.cohort import impute
from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.evaluate.rivals import BESIDE, Rivals, rivals_ahead
from mtdlr.model import FrozenModel, cross_fitted, read_known_risk, training_cutoff
from mtdlr.nomogram.scores import DEEP_PLAIN, IN_SAMPLE
from mtdlr.spreadsheet import notebook_table
from mtdlr.stats.calibration import Calibration, calibrate
from mtdlr.stats.concordance import Concordance, compare_concordance, concordance
from mtdlr.stats.kaplan_meier import KaplanMeier, kaplan_meier
from mtdlr.stats.log_rank import LogRank, group_hazard_ratio, log_rank
from mtdlr.stats.roc import Roc, delong, roc
from mtdlr.stats.time_roc import TimeAuc, auc_at, compare_auc_at
from mtdlr.study import KNOWN, MAIN, REFERENCE, TRUTH, EvaluateSettings
from mtdlr.survival import Survival

HrMethod = Literal["cox", "logrank_oe", "peto"]
@dataclass(frozen=True)
class RiskGroups:
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
        concordance: Harrell's C; its p value is against 0.5. None where no two patients can be ordered.
        concordance_vs_stage: C minus the reference model's C, paired; None for the reference itself.
        auc: by horizon in months, or under 0 for the event status (the paper's ROC).
        auc_vs_stage: AUC minus the reference model's, paired, by the same keys.
        calibration: by horizon; nomograms only.
        groups: None where no cut-off can separate anybody.
        problems: what could not be computed, and why.
    """

    model: str
    split: str
    n: int
    n_events: int
    concordance: Concordance | None
    concordance_vs_stage: Estimate | None
    auc: Mapping[float, Roc | TimeAuc]
    auc_vs_stage: Mapping[float, Estimate]
    calibration: Mapping[float, Calibration]
    groups: RiskGroups | None
    problems: tuple[Problem, ...] = field(default=())

    @property
    def c(self) -> Estimate:
        """Harrell's C with its interval and p value against 0.5."""
        return Estimate(float("nan")) if self.concordance is None else self.concordance.c

    def __repr__(self) -> str:
        return (f"Evaluation({self.model}, {self.split}: {self.n} patients, {self.n_events} events, C {self.c}; "
                ".to_frame() for every number)")

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Every number with its interval and p value as text, and what could not be computed."""
        lines = [f"{self.model}, {self.split}: {self.n} patients, {self.n_events} events"]
        lines += [f"{name:<28} {Estimate(*row)!s:>22}  p {row[3]:.3g}"
                  for name, row in zip(self.to_frame().index, self.to_frame().to_numpy(float).tolist(), strict=True)]
        return "\n".join([*lines, *map(str, self.problems)])

    def to_frame(self) -> pd.DataFrame:
        """One row a number: value, low, high, p."""
        found = {"C": self.c}
        found |= {"C minus stage": self.concordance_vs_stage} if self.concordance_vs_stage else {}
        for month, curve in self.auc.items():
            at = f"{month:g} months" if month else "event status"
            found[f"AUC, {at}"] = curve.auc
            found |= {f"AUC minus stage, {at}": self.auc_vs_stage[month]} if month in self.auc_vs_stage else {}
        for month, one in self.calibration.items():
            found |= {f"calibration slope, {month:g} months": one.slope, f"O/E, {month:g} months": one.oe}
        found |= {"hazard ratio, high against low": self.groups.hazard_ratio} if self.groups else {}
        return pd.DataFrame([(e.value, e.low, e.high, e.p) for e in found.values()], index=list(found),
                            columns=["value", "low", "high", "p"])

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), self.to_frame())


@dataclass(frozen=True, eq=False)
class Findings:
    """How a frozen model does, in every cohort.

    Args:
        risks: (patients, models) log-hazards, NaN where a score is missing.
        predicted: of each nomogram, (patients, months) survival probabilities.
        evaluations: by (model, cohort).
        optimism: C-index of each score in sample and by cohort.
        calibrations: of the main nomogram, by the kind of training scores, then by (cohort, month).
        problems: what was imputed, and what could not be computed.
    """

    risks: pd.DataFrame
    predicted: Mapping[str, pd.DataFrame]
    evaluations: Mapping[tuple[str, str], Evaluation]
    optimism: Mapping[str, Mapping[str, Estimate]]
    calibrations: Mapping[str, Mapping[tuple[str, float], Calibration]]
    problems: tuple[Problem, ...]

    def __repr__(self) -> str:
        return f"Findings({len(self.evaluations)} evaluations of {len(self.risks)} patients; .to_frame() for all)"

    def summary(self) -> str:
        """The lines of every evaluation."""
        return "\n".join(one.summary() for one in self.evaluations.values())

    def to_frame(self) -> pd.DataFrame:
        """One row a (model, cohort, number): value, low, high, p."""
        return pd.concat({key: one.to_frame() for key, one in self.evaluations.items()},
                         names=["model", "cohort", "number"])

    def _repr_html_(self) -> str:
        every = self.to_frame()
        return notebook_table(repr(self), every[every.index.get_level_values("number") == "C"])

    def concordance_of(self, model: str) -> dict[str, list[float | None]]:
        """C of one model with its interval, by cohort, as plain values for JSON; cohorts without a C are left out."""
        found = {split: e.c for (name, split), e in self.evaluations.items() if name == model}
        return {split: [c.value, *(end if np.isfinite(end) else None for end in (c.low, c.high))]
                for split, c in found.items() if np.isfinite(c.value)}


def judge(
    model: FrozenModel, table: pd.DataFrame, scores: pd.DataFrame, settings: EvaluateSettings,
    folds: pd.Series | None = None, *, rivals: Rivals | None = None,
) -> Findings:
    """How a frozen model does on any patients, in the cohorts of their `split` column.

    Args:
        model: the frozen model; nothing of it is fitted again.
        table: split, time_months, event and the clinical covariates.
        scores: (patients, scores) of the same patients.
        settings: how models are judged; `known_risk` adds the true risk of simulated patients.
        folds: the fold of each training patient, where the training cohort is to be judged by nomograms that were
            selected and fitted without each fold (`cross_fitted`).
        rivals: simple models of the same patients; they are judged like the study's own, and W-RIVAL names those that
            are ahead.
    """
    table, imputed = impute(table, model.imputed)
    problems = tuple(imputed)
    rows, months = table.join(scores), model.study.nomogram.months
    risks, predicted, cutoffs = model.risks(rows), model.predicted(rows), dict(model.cutoffs)
    if folds is not None:
        held_out, survival = cross_fitted(rows, folds, model.study)
        risks.update(held_out)
        for name, part in survival.items():
            predicted[name].loc[part.index] = part
    if settings.known_risk is not None:
        risks[TRUTH] = read_known_risk(settings.known_risk).reindex(risks.index)
        cutoffs[TRUTH] = training_cutoff(risks[TRUTH], table)
    labels = {one.name: one.label for one in (*model.models, *KNOWN)} | BESIDE
    if rivals is not None:
        risks = risks.join(rivals.risks).join(scores[[name for name in (DEEP_PLAIN,) if name in scores]])
        how = {"out_of_fold": "out of fold", "in_sample": "in sample"}[model.study.score.training]
        cutoffs |= {str(name): training_cutoff(risks[name], table) for name in risks if name not in cutoffs}
        problems = (*problems, *rivals.problems, *rivals_ahead(risks, table, how))
    found = evaluate(Judged(risks, predicted, cutoffs, labels), table, months, settings)
    kinds = {"out-of-fold scores": MAIN, "in-sample scores": MAIN + IN_SAMPLE}
    return Findings(
        risks, predicted, found, optimism(scores, table),
        {kind: calibrations(predicted[name], table, months, settings) for kind, name in kinds.items()
         if name in predicted},
        tuple(dict.fromkeys([*problems, *(p for one in found.values() for p in one.problems)])))


@dataclass(frozen=True, eq=False)
class Judged:
    """What is judged: the risks of some models in some cohorts, and how they were frozen.

    Args:
        risks: (patients, models) log-hazards; NaN where a patient has no score.
        predicted: of each nomogram, (patients, months) survival probabilities.
        cutoffs: the frozen risk-group cut-off of each model, a log-hazard.
        labels: the name of each model as printed.
        reference: the model that every other is compared with; one of `risks`.
    """

    risks: pd.DataFrame
    predicted: Mapping[str, pd.DataFrame]
    cutoffs: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    reference: str = REFERENCE


def evaluate(
    judged: Judged, table: pd.DataFrame, months: tuple[float, ...], settings: EvaluateSettings,
) -> dict[tuple[str, str], Evaluation]:
    """The evaluation of every model in every cohort, by (model, cohort). Nothing is fitted.

    Args:
        judged: risks, survival and cut-offs of frozen models.
        table: split, time_months and event of the same patients; any cohorts, the training cohort may be absent.
        months: the horizons.
        settings: how models are judged.
    """
    return {(model, split): _evaluate_one(model, split, judged, table, months, settings)
            for split in dict.fromkeys(map(str, table["split"])) for model in map(str, judged.risks.columns)}


def risk_groups(risk: NDArray[np.float64], cutoff: float, surv: Survival, hr_method: HrMethod) -> RiskGroups | None:
    """High (risk at or above the cut-off) against low; None where one of them is empty.

    Args:
        risk: (n,), higher is worse.
        cutoff: in the units of the risk; nan gives None.
        surv: follow-up of the same n patients, in months.
        hr_method: how the hazard ratio of the two groups is estimated.
    """
    high = risk >= cutoff
    if not np.isfinite(cutoff) or high.all() or not high.any():
        return None
    curves = {"Low risk": kaplan_meier(surv.take(~high)), "High risk": kaplan_meier(surv.take(high))}
    return RiskGroups(cutoff, curves, log_rank(high, surv), group_hazard_ratio(high, surv, method=hr_method))


def _evaluate_one(
    model: str, split: str, judged: Judged, table: pd.DataFrame, months: tuple[float, ...], settings: EvaluateSettings,
) -> Evaluation:
    pair = judged.risks[[model, judged.reference]]
    rows = ((table["split"] == split) & pair.notna().all(axis=1)).to_numpy()
    lost = int((table["split"] == split).sum() - rows.sum())
    surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
    where = f"{judged.labels.get(model, model)} in the {split} cohort"
    if not surv.orderable:
        why = (("W-NOPAIRS", "no patient was followed for longer than another with an event") if surv.n_events else
               ("W-NOEVENTS", "no event"))
        problems = [Problem(why[0], f"{why[1]}: discrimination and calibration cannot be estimated", where=where)]
        return Evaluation(model, split, int(rows.sum()), surv.n_events, None, None, {}, {}, {}, None,
                          (*_without_score(lost, where), *(problems if len(surv) else ())))
    risk, other = judged.risks[model].to_numpy(float)[rows], judged.risks[judged.reference].to_numpy(float)[rows]
    is_reference = model == judged.reference
    auc, versus = _discriminate(risk, None if is_reference else other, surv, months, settings)
    compared = None if is_reference else compare_concordance(
        risk, other, surv, method=settings.comparison, resamples=settings.bootstrap, seed=settings.seed).difference
    predicted = judged.predicted.get(model)
    calibration = {} if predicted is None else _calibrate(predicted[rows], surv, months, settings, split == "training")
    groups = risk_groups(risk, judged.cutoffs.get(model, np.nan), surv, settings.group_hr)
    return Evaluation(model, split, int(rows.sum()), surv.n_events, concordance(risk, surv), compared, auc, versus,
                      calibration, groups, tuple(_notes(where, lost, groups, calibration, settings)))


def _discriminate(
    risk: NDArray, other: NDArray | None, surv: Survival, months: tuple[float, ...], settings: EvaluateSettings
) -> tuple[dict[float, Roc | TimeAuc], dict[float, Estimate]]:
    """ROC by horizon (or of the event status), and each AUC against that of another model."""
    versus: dict[float, Estimate] = {}
    if settings.roc == "status":
        curves: dict[float, Roc | TimeAuc] = {0.0: roc(risk, surv.event)}
        if other is not None:
            versus = {0.0: delong(risk, other, surv.event).difference}
    else:
        curves = {month: auc_at(risk, surv, month) for month in months}
        if other is not None:
            versus = {month: compare_auc_at(risk, other, surv, month).difference for month in months}
    return curves, versus


def _calibrate(
    predicted: pd.DataFrame, surv: Survival, months: tuple[float, ...], settings: EvaluateSettings, development: bool
) -> dict[float, Calibration]:
    return {month: calibrate(predicted[month].to_numpy(float), surv, month, groups=settings.calibration_groups,
                             development=development) for month in months}


def _notes(
    where: str, lost: int, groups: RiskGroups | None, calibration: Mapping[float, Calibration],
    settings: EvaluateSettings,
) -> list[Problem]:
    notes = _without_score(lost, where)
    if groups is None:
        notes.append(Problem("W-NOGROUPS", "the training cut-off does not split this cohort", where=where))
    for month, judged in calibration.items():
        notes += [problem.at(f"{where}, {month:g} months") for problem in judged.warnings
                  if problem.code != "W-HLBINARY" or settings.calibration_test == "hl_binary"]
    return notes


def _without_score(lost: int, where: str) -> list[Problem]:
    """W-NOSCORE for patients that cannot be judged."""
    return [Problem("W-NOSCORE", f"{lost} patients without a score are left out", where=where)] if lost else []


def optimism(scores: pd.DataFrame, table: pd.DataFrame) -> dict[str, dict[str, Estimate]]:
    """C-index of each score in sample (under "in_sample") and, by cohort, as it is judged (out of fold in training).

    Args:
        scores: (patients, scores), with their in-sample versions.
        table: split, time_months and event of the same patients.
    """
    splits = list(dict.fromkeys(map(str, table["split"])))
    names = [str(name) for name in scores if f"{name}{IN_SAMPLE}" in scores]
    return {name: {"in_sample": c_of(scores[f"{name}{IN_SAMPLE}"], table, "training"),
                   **{split: c_of(scores[name], table, split) for split in splits}} for name in names}


def c_of(risk: pd.Series, table: pd.DataFrame, split: str) -> Estimate:
    """Harrell's C of a risk in one cohort; nan where no two patients with a risk can be ordered.

    Args:
        risk: (n,), higher is worse; nan leaves a patient out.
        table: the same n patients, with `split`, `time_months` and `event`.
        split: name of the cohort.
    """
    rows = ((table["split"] == split) & risk.notna()).to_numpy()
    surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
    return concordance(risk.to_numpy(float)[rows], surv).c if surv.orderable else Estimate(float("nan"))


def calibrations(
    predicted: pd.DataFrame, table: pd.DataFrame, months: tuple[float, ...], settings: EvaluateSettings
) -> dict[tuple[str, float], Calibration]:
    """The calibration of one nomogram by (cohort, month), in cohorts whose patients can be ordered.

    Args:
        predicted: (patients, months) survival probabilities; NaN where a score is missing.
        table: split, time_months and event of the same patients.
        months: the horizons.
        settings: number of groups of the curve.
    """
    found = {}
    for split in dict.fromkeys(map(str, table["split"])):
        rows = ((table["split"] == split) & predicted.notna().all(axis=1)).to_numpy()
        surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
        if surv.orderable:
            judged = _calibrate(predicted[rows], surv, months, settings, split == "training")
            found.update({(split, month): one for month, one in judged.items()})
    return found
