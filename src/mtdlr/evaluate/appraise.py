"""What a statistical reviewer asks of frozen risks beyond `evaluate`: error, usefulness, time, optimism, subgroups.

Everything is a number; the report prints it and evaluation.json holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.stats.auc_curve import AucCurve, auc_curve, curve_months
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import compare_concordance, concordance
from mtdlr.stats.cox_residuals import proportional_hazards_test
from mtdlr.stats.decision import Brier, brier_score
from mtdlr.stats.groups import standardised_difference, standardised_difference_levels
from mtdlr.stats.hazard_trend import HazardTrend, hazard_trends
from mtdlr.stats.inference import Test
from mtdlr.stats.kaplan_meier import median_follow_up, restricted_mean_difference
from mtdlr.stats.net_benefit import NetBenefit, compare_net_benefit, net_benefit
from mtdlr.stats.sample_size import DevelopmentSize, development_size
from mtdlr.stats.validation import Validation, validate_bootstrap
from mtdlr.survival import Survival

THRESHOLDS = tuple(k / 100 for k in range(5, 65, 5))
"""Risks at which net benefit is computed."""
FEWEST_EVENTS = 10
"""Events that a subgroup needs before its figures are given."""
NOT_KNOWN = Estimate(float("nan"))


@dataclass(frozen=True, eq=False)
class Appraisal:
    """One model in one cohort.

    Args:
        model, split: which, where.
        uno: Uno's C up to the last horizon, with its interval.
        versus: C minus that of each other model on the same patients, paired, by name.
        auc: AUC(t) over time; None with fewer than five events.
        brier: by horizon; nomograms only.
        benefit: net benefit by horizon; nomograms only.
        over_all: net benefit less that of treating everybody, by horizon.
        over_reference: net benefit less that of the reference nomogram, by horizon; empty without one.
        restricted_mean: event-free months up to the last horizon, high less low risk; nan without two groups.
    """

    model: str
    split: str
    uno: Estimate
    versus: Mapping[str, Estimate]
    auc: AucCurve | None
    brier: Mapping[float, Brier] = field(default_factory=dict)
    benefit: Mapping[float, NetBenefit] = field(default_factory=dict)
    over_all: Mapping[float, NetBenefit] = field(default_factory=dict)
    over_reference: Mapping[float, NetBenefit] = field(default_factory=dict)
    restricted_mean: Estimate = NOT_KNOWN


@dataclass(frozen=True)
class Subgroup:
    """The main nomogram in a part of a cohort: C, and at the last horizon O/E and slope; nan with few events."""

    split: str
    variable: str
    level: str
    n: int
    n_events: int
    c: Estimate
    oe: Estimate
    slope: Estimate


@dataclass(frozen=True, eq=False)
class Development:
    """What the development of the main nomogram allows.

    Args:
        parameters: of the nomogram. candidates: features that entered the lasso.
        n, n_events: of the training cohort.
        by_parameters, by_candidates: patients that Riley's criteria ask for; None where they cannot be computed.
        corrected: C and slope after bootstrapping the nomogram step; None where no resample could be fitted.
        proportional: test of each variable, and "GLOBAL".
        trends: coefficient over time by column.
        problems: what could not be computed.
    """

    parameters: int
    candidates: int
    n: int
    n_events: int
    by_parameters: DevelopmentSize | None
    by_candidates: DevelopmentSize | None
    corrected: Validation | None
    proportional: Mapping[str, Test]
    trends: Mapping[str, HazardTrend]
    problems: tuple[Problem, ...] = ()


def appraise(
    risks: pd.DataFrame, predicted: Mapping[str, pd.DataFrame], table: pd.DataFrame, months: Sequence[float], *,
    cutoffs: Mapping[str, float], reference: str = "",
) -> dict[tuple[str, str], Appraisal]:
    """Every model in every cohort where two patients can be ordered by their follow-up.

    Args:
        risks: (patients, models) log-hazards, NaN where a score is missing.
        predicted: of each nomogram, (patients, months) survival probabilities.
        table: split, time_months and event of the same patients.
        months: the horizons.
        cutoffs: of the risk groups, by model.
        reference: the nomogram that net benefit is compared with.
    """
    found = {}
    for split in dict.fromkeys(map(str, table["split"])):
        for model in map(str, risks.columns):
            rows = (table["split"] == split) & risks[model].notna()
            if _survival(table[rows]).orderable:
                found[model, split] = _appraise(model, split, risks[rows], predicted, table[rows], months,
                                                (cutoffs.get(model, float("nan")), reference))
    return found


def subgroups(
    risk: pd.Series, predicted: pd.DataFrame, table: pd.DataFrame, columns: Sequence[str], month: float
) -> tuple[Subgroup, ...]:
    """The main nomogram by the levels of some columns in each cohort; continuous columns at their training median.

    Args:
        risk: (patients,) log-hazards.
        predicted: (patients, months) survival probabilities.
        table: split, time_months, event and the columns.
        columns: by which; those that the table lacks take no part.
        month: the horizon of O/E and slope.
    """
    known = risk.notna() & predicted[month].notna()
    found = []
    for column in (name for name in columns if name in table):
        levels = _levels(table, column)
        for split in dict.fromkeys(map(str, table["split"])):
            present = [level for level in dict.fromkeys(levels.dropna())
                       if (known & (table["split"] == split) & (levels == level)).any()]
            if len(present) > 1 or (column == "center" and present):
                found += [_subgroup(split, column, level, risk, predicted[month], table,
                                    known & (table["split"] == split) & (levels == level)) for level in sorted(present)]
    return tuple(found)


def develop(
    nomogram: Nomogram, rows: pd.DataFrame, candidates: int, *, resamples: int = 200, seed: int = 0
) -> Development:
    """Sample size, optimism and proportional hazards of a nomogram on the training patients it was fitted to.

    Args:
        nomogram: fitted, not a published one.
        rows: training patients: time_months, event and the nomogram's columns; incomplete ones take no part.
        candidates: features that entered the lasso.
        resamples: of the bootstrap of the nomogram step.
        seed: of the bootstrap.
    """
    names = [term.name for term in nomogram.design.terms]  # type: ignore[union-attr]
    rows = rows[rows[names].notna().all(axis=1)]
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    cox = nomogram.cox
    problems: list[Problem] = []
    x = nomogram.design.matrix({name: rows[name].to_numpy() for name in names})
    sizes = [_size(p, surv, max(nomogram.months)) for p in (len(cox.names), candidates)]
    corrected: Validation | None = None
    proportional: dict[str, Test] = {}
    trends: dict[str, HazardTrend] = {}
    try:
        corrected = validate_bootstrap(x, surv, n_resamples=resamples, seed=seed, ties=cox.ties)
        problems += corrected.problems
    except FitError as error:
        problems.append(Problem("W-NOOPTIMISM", "the optimism of the nomogram step cannot be estimated: "
                                f"{error.problems[0].what}", where="main nomogram",
                                remedy="Read the figures of other cohorts alone; use fewer variables, or more events"))
    try:
        proportional = proportional_hazards_test(cox, x, surv, terms=nomogram.design.slices)
        trends = hazard_trends(cox, x, surv)
    except (FitError, np.linalg.LinAlgError):
        problems.append(Problem("W-HAZARDS", "proportional hazards could not be tested", where="main nomogram",
                                remedy="More events, or fewer variables"))
    return Development(len(cox.names), candidates, len(surv), surv.n_events, sizes[0], sizes[1], corrected,
                       proportional, trends, tuple(problems))


def differences(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Standardised difference of each column, training against each other cohort (0.1 is often called small).

    Args:
        table: one row a patient, with `split`.
        columns: names of columns; one that the table lacks is left out.

    Returns:
        By cohort and column.
    """
    found: dict[str, dict[str, Estimate]] = {}
    training = table[table["split"] == "training"]
    for split in (s for s in dict.fromkeys(map(str, table["split"])) if s != "training" and len(training)):
        other = table[table["split"] == split]
        found[split] = {name: _difference(training[name].dropna(), other[name].dropna())
                        for name in columns if name in table}
    return found


def follow_up(table: pd.DataFrame) -> dict[str, Estimate]:
    """Median follow-up in months by cohort, reverse Kaplan-Meier."""
    return {split: median_follow_up(_survival(table[table["split"] == split]))
            for split in dict.fromkeys(map(str, table["split"]))}


def _appraise(
    model: str, split: str, risks: pd.DataFrame, predicted: Mapping[str, pd.DataFrame], table: pd.DataFrame,
    months: Sequence[float], rest: tuple[float, str],
) -> Appraisal:
    (cutoff, reference), surv, risk = rest, _survival(table), risks[model].to_numpy(float)
    last = max(months)
    grid = curve_months(surv)
    probabilities = predicted[model].loc[table.index] if model in predicted else None
    extras: dict[str, Any] = {}
    if probabilities is not None and probabilities.notna().all(axis=None):
        extras = _useful(probabilities, predicted.get(reference) if reference != model else None, table, surv, months)
    return Appraisal(model, split, _uno(risk, surv, last), _versus(model, risks, table),
                     auc_curve(risk, surv, grid) if grid.size and np.ptp(risk) > 0 else None,
                     restricted_mean=_restricted(risk >= cutoff, surv, last, cutoff), **extras)


def _useful(
    probabilities: pd.DataFrame, other: pd.DataFrame | None, table: pd.DataFrame, surv: Survival,
    months: Sequence[float],
) -> dict[str, Any]:
    """Brier scores and net benefits of a nomogram, by horizon."""
    everybody = np.zeros(len(surv))
    own = {m: probabilities[m].to_numpy(float) for m in months}
    reference = None if other is None else other.loc[table.index]
    if reference is not None and reference.isna().any(axis=None):
        reference = None
    return {
        "brier": {m: brier_score(own[m], surv, m) for m in months},
        "benefit": {m: net_benefit(own[m], surv, m, THRESHOLDS) for m in months},
        "over_all": {m: compare_net_benefit(own[m], everybody, surv, m, THRESHOLDS) for m in months},
        "over_reference": {} if reference is None else {
            m: compare_net_benefit(own[m], reference[m].to_numpy(float), surv, m, THRESHOLDS) for m in months}}


def _uno(risk: NDArray[np.float64], surv: Survival, last: float) -> Estimate:
    try:
        return concordance(risk, surv, weighting="uno", tau=last).c
    except FitError:
        return NOT_KNOWN


def _versus(model: str, risks: pd.DataFrame, table: pd.DataFrame) -> dict[str, Estimate]:
    """Paired differences of C to every other model, each on the patients that have both."""
    found = {}
    for other in (str(name) for name in risks if name != model):
        rows = risks[other].notna()
        surv = _survival(table[rows])
        try:
            found[other] = compare_concordance(risks.loc[rows, model].to_numpy(float),
                                               risks.loc[rows, other].to_numpy(float), surv).difference
        except FitError:
            found[other] = NOT_KNOWN
    return found


def _restricted(high: NDArray[np.bool_], surv: Survival, month: float, cutoff: float) -> Estimate:
    if not np.isfinite(cutoff) or high.all() or not high.any():
        return NOT_KNOWN
    return restricted_mean_difference(high, surv, month)


def _levels(table: pd.DataFrame, column: str) -> pd.Series:
    """The levels of a column as text; a number is at most, or above, its training median."""
    values = table[column]
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= 2:
        return values.astype(object).where(values.notna()).map(str, na_action="ignore")
    middle = float(values[table["split"] == "training"].median())
    labels = np.where(values <= middle, f"up to {middle:.4g}", f"above {middle:.4g}")
    return pd.Series(labels, index=table.index, dtype=object).where(values.notna())


def _subgroup(
    split: str, column: str, level: str, risk: pd.Series, predicted: pd.Series, table: pd.DataFrame, rows: pd.Series
) -> Subgroup:
    surv = _survival(table[rows])
    if surv.n_events < FEWEST_EVENTS:
        return Subgroup(split, column, level, len(surv), surv.n_events, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN)
    judged = calibrate(predicted[rows].to_numpy(float), surv, float(str(predicted.name)))
    return Subgroup(split, column, level, len(surv), surv.n_events, concordance(risk[rows].to_numpy(float), surv).c,
                    judged.oe, judged.slope)


def _size(parameters: int, surv: Survival, horizon: float) -> DevelopmentSize | None:
    """Riley's criteria at the cohort's own event rate; None without an event or a parameter."""
    if not surv.n_events or not parameters:
        return None
    return development_size(parameters, rate=surv.n_events / float(surv.time_months.sum()), horizon=horizon,
                            mean_follow_up=float(surv.time_months.mean()))


def _difference(first: pd.Series, second: pd.Series) -> Estimate:
    """Standardised difference of two samples, of numbers or of levels; nan where one is empty or nothing varies."""
    if not len(first) or not len(second):
        return NOT_KNOWN
    try:
        if pd.api.types.is_numeric_dtype(first):
            return standardised_difference(first.to_numpy(float), second.to_numpy(float))
        levels = sorted({*first, *second}, key=str)
        return standardised_difference_levels([[int((s == level).sum()) for s in (first, second)] for level in levels])
    except FitError:
        return NOT_KNOWN


def _survival(table: pd.DataFrame) -> Survival:
    return Survival(table["time_months"].to_numpy(float), table["event"].to_numpy(bool))
