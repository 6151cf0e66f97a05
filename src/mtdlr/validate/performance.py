"""A frozen nomogram judged on other patients' table: every number of an external validation, by centre and pooled.

Nothing is fitted here. The model may come from a bundle or from its publication (`Nomogram.from_coefficients`); the
table needs the nomogram's columns and no images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import CohortError, FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.stats.calibration import Calibration, calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.stats.decision import Brier, DecisionCurve, brier_score, decision_curve
from mtdlr.stats.log_rank import group_hazard_ratio
from mtdlr.stats.pooling import Pooled, pool
from mtdlr.stats.terms import Factor
from mtdlr.stats.time_roc import TimeAuc, auc_at
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
LONG_MONTHS = 300.0
"""A median follow-up above this is taken for days."""
CENTER_EVENTS = 5
"""Events below which a centre is shown but not pooled."""


@dataclass(frozen=True, eq=False)
class AtMonth:
    """A model's performance at one horizon; nan inside where the follow-up does not reach it.

    Args:
        auc: cumulative/dynamic AUC with censoring weights.
        uno: Uno's C up to the month.
        calibration: O/E, slope, smooth curve, ICI, E50, E90.
        brier: Brier score and its scaled form, the IPA.
        decision: net benefit.
    """

    month: float
    auc: TimeAuc
    uno: Estimate
    calibration: Calibration
    brier: Brier
    decision: DecisionCurve


@dataclass(frozen=True)
class CenterResult:
    """One centre: patients, events, Harrell's C, O/E and slope at the last horizon; nan where there are no events."""

    center: str
    n: int
    n_events: int
    c: Estimate
    oe: Estimate
    slope: Estimate


@dataclass(frozen=True, eq=False)
class TableValidation:
    """An external validation of one nomogram.

    Args:
        n, n_events: patients who could be judged, and their events.
        left_out: rows without a value, or with a level that the model has not seen.
        risk: (n,) log hazard; survival (n, m) at the horizons; index as the judged rows of the table.
        c: Harrell's C; None without events.
        months: by horizon.
        groups_hr: hazard ratio of risks at or above the frozen cut-off against those below; None where there is no
            cut-off or one group only.
        high: (n,) at or above the frozen cut-off; None without one.
        centers: each centre, where there are several.
        pooled: "c", "oe" and "slope" over the centres; empty where fewer than two have enough events.
        problems: what could not be said, and why.
    """

    n: int
    n_events: int
    left_out: tuple[str, ...]
    risk: pd.Series
    survival: pd.DataFrame
    c: Estimate | None
    months: Mapping[float, AtMonth]
    groups_hr: Estimate | None
    high: NDArray[np.bool_] | None
    centers: tuple[CenterResult, ...] = ()
    pooled: Mapping[str, Pooled] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def validate_table(
    nomogram: Nomogram, table: pd.DataFrame, surv: Survival, *, months: Sequence[float] | None = None,
    centers: Sequence[str] | None = None, cutoff: float = nan,
) -> TableValidation:
    """Every number of an external validation of a frozen nomogram.

    Args:
        nomogram: as received, fitted or typed in.
        table: n rows with the nomogram's columns.
        surv: follow-up of the same rows, months.
        months: horizons; by default the nomogram's.
        centers: (n,) centre of each row.
        cutoff: frozen log hazard that parts low and high risk.

    Raises:
        FitError: E-COLUMN for a covariate that the table lacks, E-HORIZON for a month that a published model lacks.
        CohortError: E-NOPATIENTS when no row can be judged.

    >>> model = Nomogram.from_coefficients({"score": 1.0}, baseline_survival={36: 0.8}, ranges={"score": (-2, 2)})
    >>> table = pd.DataFrame({"score": [1.0, 0.5, 0.0, -1.0, 0.2, -0.4]})
    >>> found = validate_table(model, table, Survival([10, 30, 50, 60, 20, 44], [1, 1, 0, 0, 0, 0]))
    >>> round(found.c.value, 3), round(found.months[36].calibration.oe.value, 2)
    (1.0, 1.59)
    """
    rows, problems = judged_rows(nomogram, table)
    if not rows.any():
        raise CohortError([Problem("E-NOPATIENTS", "no patient can be judged: a covariate is missing in every row",
                                   found=f"{len(table)} rows"), *problems])
    kept, followed = table[rows], surv.take(rows)
    risk = pd.Series(nomogram.log_hazard(kept), index=kept.index)
    horizons = tuple(nomogram.months if months is None else months)
    survival = pd.DataFrame(nomogram.survival(kept, horizons).value, index=kept.index, columns=list(horizons))
    problems += [*_time_unit(followed), *_no_events(followed)]
    values = np.asarray(risk, dtype=np.float64)
    high = values >= cutoff if np.isfinite(cutoff) else None
    some = followed.n_events > 0
    found = {month: _at_month(values, survival[month].to_numpy(), followed, month) for month in horizons} \
        if some else {}
    problems += [p.at(f"{month:g} months") for month, one in found.items()
                 for p in (*one.auc.warnings, *one.calibration.warnings) if p.code != "W-HLBINARY"]
    by_center = _by_center(values, survival[horizons[-1]].to_numpy(), followed, horizons[-1],
                           None if centers is None else np.asarray(centers).astype(str)[rows])
    pooled = _pooled(by_center)
    problems += [p for one in pooled.values() for p in one.problems]
    return TableValidation(
        len(followed), followed.n_events, tuple(map(str, table.index[~rows])), risk, survival,
        _c_index(values, followed) if some else None, found, _groups(high, followed), high, by_center, pooled,
        tuple(dict.fromkeys(problems)))


def judged_rows(nomogram: Nomogram, table: pd.DataFrame) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Rows with a known value of every variable, and why the others are not judged.

    Args:
        nomogram: the frozen nomogram.
        table: n patients.

    Returns:
        (n,) bool, and W-NEWLEVEL and W-NOCOVARIATE.

    Raises:
        FitError: E-COLUMN.
    """
    known, problems = np.ones(len(table), dtype=bool), []
    levels = {term.name: term.levels for term in nomogram.design.terms if isinstance(term, Factor)}
    for name in nomogram.design.variables:
        if name not in table:
            raise FitError(Problem("E-COLUMN", "the model needs a column that is not in the table",
                                   where=f"column {name}", found=", ".join(map(str, list(table)[:20]))))
        column = table[name]
        here = column.notna().to_numpy()
        strange = here & ~column.isin(levels[name]).to_numpy() if name in levels else np.zeros(len(table), dtype=bool)
        if strange.any():
            problems.append(Problem(
                "W-NEWLEVEL", "the model has not seen this level: the patients are not judged", where=f"column {name}",
                found=", ".join(sorted({str(v) for v in column[strange]})), expected=" or ".join(levels[name])))
        if not here.all():
            problems.append(Problem("W-NOCOVARIATE", f"{int((~here).sum())} patients lack a covariate of the model and "
                                    "are not judged", where=f"column {name}"))
        known &= here & ~strange
    return known, problems


def numbers(found: TableValidation) -> dict[str, Any]:
    """Every number as plain values for JSON; None where there is none."""
    return {
        "n": found.n, "events": found.n_events, "left_out": len(found.left_out),
        "c": None if found.c is None else _plain(found.c),
        "months": {f"{month:g}": {
            "auc": _plain(one.auc.auc), "uno_c": _plain(one.uno), "oe": _plain(one.calibration.oe),
            "slope": _plain(one.calibration.slope), "intercept": _plain(one.calibration.intercept),
            "ici": _finite(one.calibration.ici), "e50": _finite(one.calibration.e50),
            "e90": _finite(one.calibration.e90), "gnd_p": _finite(one.calibration.gnd.p),
            "brier": _plain(one.brier.score), "ipa": _finite(one.brier.ipa)} for month, one in found.months.items()},
        "groups_hazard_ratio": None if found.groups_hr is None else _plain(found.groups_hr),
        "centers": [{"center": c.center, "n": c.n, "events": c.n_events, "c": _plain(c.c), "oe": _plain(c.oe),
                     "slope": _plain(c.slope)} for c in found.centers],
        "pooled": {name: {"value": _plain(p.value), "prediction": [_finite(end) for end in p.prediction],
                          "centers": p.centers, "tau2": _finite(p.tau2), "i2": _finite(p.i2),
                          "q": _finite(p.heterogeneity.statistic), "q_p": _finite(p.heterogeneity.p)}
                   for name, p in found.pooled.items()},
    }


def _at_month(risk: Vector, survival: Vector, surv: Survival, month: float) -> AtMonth:
    """Everything at one horizon."""
    return AtMonth(month, auc_at(risk, surv, month), _c_index(risk, surv, month),
                   calibrate(survival, surv, month), brier_score(survival, surv, month),
                   decision_curve(survival, surv, month))


def _c_index(risk: Vector, surv: Survival, month: float | None = None) -> Estimate:
    """Harrell's C, or Uno's up to a month; nan where no two patients can be ordered."""
    try:
        if month is None:
            return concordance(risk, surv).c
        return concordance(risk, surv, weighting="uno", tau=month).c
    except FitError:
        return Estimate(nan)


def _groups(high: NDArray[np.bool_] | None, surv: Survival) -> Estimate | None:
    """The hazard ratio of the patients at or above the cut-off against those below."""
    if high is None or high.all() or not high.any() or not surv.n_events:
        return None
    return group_hazard_ratio(high, surv, method="cox")


def _by_center(
    risk: Vector, survival: Vector, surv: Survival, month: float, centers: NDArray | None
) -> tuple[CenterResult, ...]:
    """Each centre's C, O/E and slope, where there are several centres."""
    if centers is None or np.unique(centers).size < 2:
        return ()
    found = []
    for center in np.unique(centers):
        mine = centers == center
        followed, none = surv.take(mine), Estimate(nan)
        if not followed.n_events:
            found.append(CenterResult(str(center), int(mine.sum()), 0, none, none, none))
            continue
        judged = calibrate(survival[mine], followed, month)
        found.append(CenterResult(str(center), int(mine.sum()), followed.n_events,
                                  _c_index(risk[mine], followed), judged.oe, judged.slope))
    return tuple(found)


def _pooled(centers: Sequence[CenterResult]) -> dict[str, Pooled]:
    """C, O/E and slope over the centres with enough events."""
    use = [center for center in centers if center.n_events >= CENTER_EVENTS]
    pooled = {}
    for name, scale, null in (("c", "logit", 0.5), ("oe", "log", 1.0), ("slope", "identity", 1.0)):
        estimates = [getattr(center, name) for center in use]
        values = np.array([estimate.value for estimate in estimates])
        errors = np.array([_standard_error(estimate, scale) for estimate in estimates])
        if (np.isfinite(values) & (errors > 0)).sum() >= 2:
            pooled[name] = pool(values, errors, scale=scale, null=null)  # type: ignore[arg-type]
    return pooled


def _standard_error(estimate: Estimate, scale: str) -> float:
    """From a 95 % interval, which is symmetric on the log scale for a ratio."""
    half = 2.0 * 1.959963984540054
    if scale == "log":
        return float(estimate.value * np.log(estimate.high / estimate.low) / half) if estimate.low > 0 else nan
    return (estimate.high - estimate.low) / half


def _time_unit(surv: Survival) -> list[Problem]:
    """W-TIMEUNIT for follow-up that looks like days."""
    middle = float(np.median(surv.time_months))
    if middle <= LONG_MONTHS:
        return []
    return [Problem("W-TIMEUNIT", "the follow-up looks like days, not months", where="follow-up time",
                    found=f"median {middle:.0f} months", expected=f"at most {LONG_MONTHS:.0f}",
                    remedy="Set cohort.time_unit = 'days'")]


def _no_events(surv: Survival) -> list[Problem]:
    """W-NOEVENTS for a cohort that nothing can be judged on."""
    if surv.n_events:
        return []
    return [Problem("W-NOEVENTS", "no event was seen: there are scores, and no performance",
                    found=f"0 events in {len(surv)} patients", remedy="Wait for longer follow-up")]


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: _finite(getattr(estimate, name)) for name in ("value", "low", "high", "p")}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

