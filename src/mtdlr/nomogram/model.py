"""A nomogram: a Cox model as points, total points and survival at the horizons, that can be carried and trusted.

`Nomogram.fit` fits one, `Nomogram.from_coefficients` builds one from a published table. Axes, ticks and points are
those of R's rms::nomogram; points, log hazard and survival are exact functions of each other.
Reference: Iasonos et al., J Clin Oncol 2008;26:1364; Harrell, Regression Modeling Strategies (2015), section 20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import BundleError, FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram.axes import (
    MAXIMUM_POINTS,
    Axis,
    AxisGroup,
    Limits,
    Ruler,
    groups,
    limits_of,
    main_terms,
    pretty,
    tick_text,
)
from mtdlr.nomogram.columns import Table, column_of, columns_of, term_of, unusable
from mtdlr.nomogram.curve import Curve
from mtdlr.nomogram.published import published_cox, published_design, published_limits
from mtdlr.nomogram.stored import SCHEMA, read, written
from mtdlr.nomogram.wording import Wording, words
from mtdlr.spreadsheet import notebook_table
from mtdlr.stats.cox import CoxFit, Ties, fit_cox
from mtdlr.stats.cox_baseline import frozen_baseline, survival_of
from mtdlr.stats.cox_firth import firth_cox
from mtdlr.stats.terms import Design, Term
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
SURVIVAL_TICKS = (*(percent / 100 for percent in range(5, 100, 5)), 0.98, 0.99)


@dataclass(frozen=True, eq=False)
class Nomogram:
    """A Cox model with what is needed to draw it and to read a patient off it.

    Args:
        design: how the columns of a table become the terms of the model.
        cox: coefficients, covariance, baseline hazard; of a published model only what was published.
        limits: of each variable, by column name.
        months: the horizons.
        log_hazard_range: smallest and largest log hazard of the training patients, 0 at the column means.
        labels: what to print for a column or a level (`column=level`); the name itself where there is none.
        endpoint: what survival means here, such as `PFS`.

    >>> nomogram = Nomogram.from_coefficients(
    ...     {"tnm_stage=IVa": 0.381, "score": 1.433}, baseline_survival={36: 0.86, 60: 0.80},
    ...     levels={"tnm_stage": ("III", "IVa")}, ranges={"score": (-2.0, 2.0)})
    >>> patient = {"tnm_stage": "IVa", "score": 0.5}
    >>> nomogram.points(patient).round(1).to_dict("records")
    [{'tnm_stage': 6.6, 'score': 62.5, 'total': 69.1}]
    >>> round(nomogram.survival(patient).estimate(0, 60).value, 3)
    0.512
    """

    design: Design
    cox: CoxFit
    limits: Mapping[str, Limits]
    months: tuple[float, ...]
    log_hazard_range: tuple[float, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = "survival"

    def __post_init__(self) -> None:
        months = np.array(self.months, dtype=np.float64)
        if not months.size or not (np.isfinite(months) & (months > 0)).all() or np.unique(months).size != months.size:
            raise FitError(Problem("E-HORIZON", "a nomogram needs one or more different horizons",
                                   found=", ".join(map(str, self.months)) or "none", expected="months > 0"))
        object.__setattr__(self, "months", tuple(sorted(months.tolist())))

    @classmethod
    def fit(
        cls, table: Table, surv: Survival, variables: Sequence[str | Term], months: Sequence[float], *,
        ties: Ties = "efron", firth: bool = False, **wording: Unpack[Wording],
    ) -> Nomogram:
        """The nomogram of a Cox model fitted to a table.

        Args:
            table: n rows, no value of the variables missing.
            surv: follow-up of the same n patients.
            variables: columns (see `term_of`), or terms with splines and interactions.
            months: the horizons.
            ties: "efron" or "breslow", for the coefficients and for the baseline.
            firth: by Firth's penalised likelihood, which stays finite where a level has no events.
            labels: what to print for a column, or for a level as `column=level`; its name by default.
            endpoint: what survival means, such as "PFS"; "survival" by default.

        Raises:
            FitError: the codes of `Design.matrix` and `fit_cox`; E-CONSTANT, E-FLAT, E-HORIZON; E-SEPARATION when a
                coefficient is infinite, for its axis would be too.
        """
        said = words(**wording)
        terms = tuple(term_of(each, column_of(table, each)) if isinstance(each, str) else each for each in variables)
        design = Design(terms)
        columns = columns_of(design, table)
        x = design.matrix(columns)
        limits = {name: limits_of(term, columns[name]) for name, term in main_terms(design).items()}
        cox = (firth_cox if firth else fit_cox)(x, surv, names=design.columns, ties=ties)
        problems = unusable(cox)
        if problems:
            raise FitError(problems)
        centred = cox.log_hazard(x) - cox.center
        return cls(design, cox, limits, tuple(months), (float(centred.min()), float(centred.max())), *said)

    @classmethod
    def from_coefficients(
        cls, coefficients: Mapping[str, float], *, baseline_survival: Mapping[float, float],
        ranges: Mapping[str, tuple[float, float]] | None = None, levels: Mapping[str, Sequence[str]] | None = None,
        knots: Mapping[str, Sequence[float]] | None = None, baseline_log_hazard: float = 0.0,
        **wording: Unpack[Wording],
    ) -> Nomogram:
        """The nomogram of a published model, typed in by hand.

        Args:
            coefficients: log hazard ratios by column: `age`, `stage=IV`, `age'` (spline), `stage=IV * age`.
            baseline_survival: survival of the baseline patient by month.
            ranges: smallest and largest value of each continuous variable.
            levels: all levels of each factor, the reference included (the one without a coefficient).
            knots: of each variable with a restricted cubic spline.
            baseline_log_hazard: X beta of the baseline patient: 0 when all its columns are 0, else the mean that the
                paper subtracts.
            labels: as in `fit`.
            endpoint: as in `fit`.

        Raises:
            FitError: E-RANGE and E-LEVEL for a variable without its range or levels, E-TERMS for coefficients that do
                not make whole terms, E-SURVIVAL for a baseline survival that is not one.
        """
        said = words(**wording)
        design = published_design(coefficients, levels or {}, knots or {})
        limits = published_limits(design, ranges or {})
        coef = np.array([coefficients[name] for name in design.columns], dtype=np.float64)
        cox = published_cox(design.columns, coef, baseline_survival, baseline_log_hazard)
        drawn, scale = groups(design, coef, limits)
        low = sum(group.low for group in drawn)
        high = low + sum(max(max(axis.points) for axis in group.axes) for group in drawn) / scale
        return cls(design, cox, limits, tuple(baseline_survival), (low - cox.center, high - cox.center), *said)

    def __repr__(self) -> str:
        axes = ", ".join(axis.name for axis in self.axes)
        months = ", ".join(f"{month:g}" for month in self.months)
        return (f"Nomogram({axes}; {self.endpoint} at {months} months, {self.cox.n} patients, {self.cox.n_events} "
                "events)")

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The axes with their points as text, and the Cox model below them."""
        return "\n".join([repr(self), self.to_frame().to_string(float_format="{:.1f}".format), self.cox.summary()])

    def to_frame(self) -> pd.DataFrame:
        """The points of every tick, by axis and value as they are printed: `points_table` with an index."""
        return self.points_table().set_index(["axis", "value"])

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), self.to_frame())

    @property
    def published(self) -> bool:
        """Whether the coefficients were typed in: no intervals, and survival at the horizons only."""
        return self.cox.n == 0

    @cached_property
    def _drawn(self) -> tuple[tuple[AxisGroup, ...], float]:
        return groups(self.design, self.cox.coef, self.limits)

    @property
    def groups(self) -> tuple[AxisGroup, ...]:
        """The groups of axes from top to bottom: one variable each, or the variables of an interaction."""
        return self._drawn[0]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Every axis from top to bottom."""
        return tuple(axis for group in self.groups for axis in group.axes)

    @property
    def points_per_log_hazard(self) -> float:
        """Points of one unit of log hazard."""
        return self._drawn[1]

    @property
    def log_hazard_at_zero(self) -> float:
        """Log hazard (X beta) of 0 total points."""
        return float(sum(group.low for group in self.groups))

    @property
    def total_points_axis(self) -> Ruler:
        """The total points, up to those of the training patient at the highest risk."""
        highest = 0.0
        if len(self.groups) > 1:
            highest = float(self._total(pretty(*self.log_hazard_range)[-1] + self.cox.center))
        ticks = tuple(pretty(0.0, max(MAXIMUM_POINTS, highest)).tolist())
        return Ruler(ticks, ticks)

    def survival_axis(self, month: float) -> Ruler:
        """Survival at a month: round ticks within the range of the training patients, at their total points."""
        ends = pretty(*self.log_hazard_range)[[0, -1]] + self.cox.center
        highest, lowest = self.survival_of(self._total(ends), month)
        ticks = tuple(tick for tick in SURVIVAL_TICKS if lowest <= tick <= highest)
        return Ruler(ticks, tuple(self.points_for(ticks, month).tolist()))

    def points(self, table: Table) -> pd.DataFrame:
        """The points of each patient: a column per variable (or group of interacting ones) and `total`.

        Args:
            table: a table, or a mapping from column to a value (one patient) or to n values.
        """
        x, beta, scale = self._matrix(table), self.cox.coef, self.points_per_log_hazard
        parts = {group.name: (x[:, group.columns] @ beta[group.columns] - group.low) * scale for group in self.groups}
        return pd.DataFrame({**parts, "total": self._total(self.cox.log_hazard(x))},
                            index=table.index if isinstance(table, pd.DataFrame) else None)

    def log_hazard(self, table: Table) -> Vector:
        """(n,) X beta of each patient: the risk."""
        return self.cox.log_hazard(self._matrix(table))

    def survival(self, table: Table, months: ArrayLike | None = None, *, level: float = 0.95) -> Curve:
        """Survival of each patient at the horizons (or at other months) with log-log intervals.

        nan beyond the last follow-up; intervals are nan where the model was typed in.

        Args:
            table: n patients with the nomogram's variables.
            months: (m,) horizons; None takes the nomogram's own.
            level: coverage of the intervals.

        Raises:
            FitError: E-HORIZON when a published model is asked for a month it was not published for.
        """
        x = self._matrix(table)
        at = np.atleast_1d(np.asarray(self.months if months is None else months, dtype=np.float64))
        if self.published and not np.isin(at, self.months).all():
            raise FitError(Problem("E-HORIZON", "survival was published for other months only",
                                   found=", ".join(f"{month:g}" for month in at),
                                   expected=", ".join(f"{month:g}" for month in self.months)))
        value = self.cox.survival(x, at)
        return Curve(at, value, *self.cox.survival_interval(x, at, level=level))

    def median_survival(self, table: Table, *, level: float = 0.95) -> tuple[Estimate, ...]:
        """Months until survival falls to one half, per patient, with the months at which its limits do; nan where it
        stays above within follow-up, or where the model was typed in.

        Args:
            table: patients with the nomogram's variables.
            level: coverage of the intervals.
        """
        if self.published:
            return (Estimate(np.nan),) * len(self._matrix(table))
        baseline = self.cox.baseline
        times = np.arange(0.1, baseline.last_month[0], 0.1) if baseline.interpolated else baseline.time_months
        curve = self.survival(table, times, level=level)
        months = [_first_below(part, times) for part in (curve.value, curve.low, curve.high)]
        return tuple(Estimate(*each) for each in zip(*months, strict=True))

    def log_hazard_of(self, points: ArrayLike) -> Vector:
        """X beta of total points."""
        result: Vector = np.asarray(points, dtype=np.float64) / self.points_per_log_hazard + self.log_hazard_at_zero
        return result

    def survival_of(self, points: ArrayLike, month: float) -> Vector:
        """Survival probability at a month of total points.

        Args:
            points: total points, of any shape.
            month: horizon in months.
        """
        return survival_of(self._log_baseline(month) + self.log_hazard_of(points) - self.cox.center)

    def points_for(self, survival: ArrayLike, month: float) -> Vector:
        """Total points of a survival at a month: the inverse of `survival_of`; infinite at 0 and at 1.

        Args:
            survival: probabilities, of any shape.
            month: horizon in months.
        """
        with np.errstate(divide="ignore"):
            log_hazard = np.log(-np.log(np.asarray(survival, dtype=np.float64)))
        return self._total(log_hazard - self._log_baseline(month) + self.cox.center)

    def baseline_hazard(self, month: float) -> float:
        """Cumulative hazard at a month of the patient with the mean log hazard; nan beyond the last follow-up."""
        return float(np.exp(self._log_baseline(month)))

    def _log_baseline(self, month: float) -> float:
        return float(self.cox.baseline.log_cumulative_hazard([month])[0])

    def outside(self, table: Table) -> tuple[Problem, ...]:
        """W-RANGE for each value beyond those the model was built on: its points are an extrapolation."""
        self._matrix(table)
        problems = []
        for name, values in columns_of(self.design, table).items():
            limits = self.limits[name]
            for row in np.flatnonzero(limits.beyond(values)):
                problems.append(Problem(
                    "W-RANGE", "a value lies outside the range the model was built on",
                    where=f"row {row}, column {name}", found=f"{float(values[row]):g}",
                    expected=f"{limits.low:g} to {limits.high:g}", remedy="Read the prediction as an extrapolation"))
        return tuple(problems)

    def label(self, name: str, level: str | None = None) -> str:
        """What to print for a column, or for one of its levels.

        Args:
            name: name of the column.
            level: one of its levels; None for the column.
        """
        key, plain = (name, name.replace("_", " ")) if level is None else (f"{name}={level}", level)
        return self.labels.get(key, plain)

    def points_table(self) -> pd.DataFrame:
        """Every tick of every axis (axis, value, points), the survival axes with the total points of their ticks."""
        rulers = {f"{self.endpoint} at {month:g} months": self.survival_axis(month) for month in self.months}
        lines: list[tuple[str, Axis | Ruler]] = [*((axis.name, axis) for axis in self.axes), *rulers.items()]
        rows = [(name, tick_text(value), points) for name, line in lines
                for value, points in zip(line.values, line.points, strict=True)]
        return pd.DataFrame(rows, columns=["axis", "value", "points"])

    def frozen(self) -> Nomogram:
        """The nomogram as it is given away: the baseline at the horizons and on a grid of five events a step.

        Survival and intervals at the horizons are unchanged; between the steps the cumulative hazard runs straight.
        """
        if self.published or self.cox.baseline.interpolated:
            return self
        return replace(self, cox=replace(self.cox, baseline=frozen_baseline(self.cox.baseline, self.months)))

    def negative_weights(self, scores: Sequence[str]) -> tuple[Problem, ...]:
        """W-NEGATIVEWEIGHT for each of these scores (higher is worse) whose coefficient is below 0."""
        terms = [(name, float(beta)) for name, beta in zip(self.cox.names, self.cox.coef, strict=True)
                 if name in scores]
        return tuple(Problem("W-NEGATIVEWEIGHT", "a score enters with a negative weight: its axis runs backwards",
                             where=f"column {name}", found=f"log hazard ratio {beta:.3g}",
                             expected="> 0, for a higher score is worse",
                             remedy="Its information is in another score; leave one of them out")
                     for name, beta in terms if beta < 0)

    def to_json(self) -> str:
        """The nomogram as JSON text with a coarse baseline (`frozen`), from which no patient's row can be read."""
        return written({
            "design": self.design.as_dict(), "cox": self.frozen().cox.as_dict(),
            "limits": {name: limits.as_dict() for name, limits in self.limits.items()}, "months": list(self.months),
            "log_hazard_range": list(self.log_hazard_range), "labels": dict(self.labels), "endpoint": self.endpoint,
        })

    @classmethod
    def from_json(cls, text: str) -> Nomogram:
        """The nomogram that `to_json` wrote: `frozen`, equal to the last bit.

        Raises:
            BundleError: E-NOMOGRAM when the text is not such a nomogram.
        """
        try:
            values = read(text)
            limits = {name: Limits.from_dict(each) for name, each in values["limits"].items()}
            return cls(Design.from_dict(values["design"]), CoxFit.from_dict(values["cox"]), limits,
                       tuple(values["months"]), tuple(values["log_hazard_range"]), values["labels"], values["endpoint"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError,
                FitError) as error:
            found = f"{type(error).__name__}: {error}"[:120]
            raise BundleError(Problem("E-NOMOGRAM", "this is not a nomogram written by this version", found=found,
                                      expected=f"schema {SCHEMA}")) from error

    def _matrix(self, table: Table) -> Vector:
        return self.design.matrix(columns_of(self.design, table))

    def _total(self, log_hazard: ArrayLike) -> Vector:
        """Total points of X beta."""
        result: Vector = (np.asarray(log_hazard) - self.log_hazard_at_zero) * self.points_per_log_hazard
        return result


def _first_below(curves: Vector, months: Vector) -> list[float]:
    """The first of m months at which each of the curves (n, m) is at most 1/2; nan where none is."""
    reached = np.column_stack([curves <= 0.5, np.ones(len(curves), dtype=bool)])
    return [float(month) for month in np.append(months, np.nan)[reached.argmax(axis=1)]]


