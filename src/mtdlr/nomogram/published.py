"""A published model typed in by hand: its design from the names of its coefficients, its limits and its baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.nomogram.axes import Limits, factor_limits, main_terms
from mtdlr.stats.cox import CoxFit
from mtdlr.stats.cox_baseline import Baseline
from mtdlr.stats.terms import Continuous, Design, Factor, Interaction, Spline, Term

Main = Continuous | Factor | Spline


def published_design(
    names: Iterable[str], levels: Mapping[str, Sequence[str]], knots: Mapping[str, Sequence[float]]
) -> Design:
    """The design whose columns are the given names: `age`, `stage=IV`, `age'` with knots, `stage=IV * age`.

    Args:
        names: names of the published coefficients.
        levels: the levels of each factor, the reference first.
        knots: the knots of each variable with a spline.

    Raises:
        FitError: E-TERMS when a factor's or a spline's columns are not all there.
    """
    wanted = list(names)
    mains = {name: _main(name, [other for other in wanted if " * " not in other], levels, knots)
             for column in wanted for name in map(_variable, column.split(" * "))}
    pairs = dict.fromkeys(tuple(map(_variable, column.split(" * "))) for column in wanted if " * " in column)
    terms: list[Term] = [mains[name] for name in dict.fromkeys(_variable(c) for c in wanted if " * " not in c)]
    design = Design((*terms, *(Interaction(mains[a], mains[b]) for a, b in pairs)))
    if set(design.columns) != set(wanted):
        raise FitError(Problem("E-TERMS", "the coefficients do not make whole terms", found=", ".join(wanted),
                               expected=", ".join(design.columns),
                               remedy="Give one coefficient per level but the reference, and per knot but the last"))
    return design


def published_limits(design: Design, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Limits]:
    """The limits of every variable of a published design.

    Args:
        design: of `published_design`.
        ranges: (lowest, highest) value of each continuous variable.
    """
    return {name: factor_limits(term.levels, term.reference) if isinstance(term, Factor) else _range(name, ranges)
            for name, term in main_terms(design).items()}


def published_cox(
    names: tuple[str, ...], coef: NDArray[np.float64], survival: Mapping[float, float], baseline_log_hazard: float
) -> CoxFit:
    """The part of a Cox fit that was published: n = 0 patients, everything unknown nan.

    Args:
        names: (p,) columns.
        coef: (p,) log hazard ratios.
        survival: of the baseline patient, by month.
        baseline_log_hazard: X beta of the baseline patient.
    """
    months = np.array(sorted(survival), dtype=np.float64)
    values = np.array([survival[month] for month in sorted(survival)], dtype=np.float64)
    if not ((values > 0) & (values < 1)).all() or (np.diff(values) > 0).any():
        raise FitError(Problem("E-SURVIVAL", "baseline survival must lie in (0, 1) and fall with time",
                               found=", ".join(f"{month:g}: {survival[month]:g}" for month in sorted(survival))))
    m, p = months.size, len(names)
    # Any patient with this X beta can stand for the means; centred there, no exponential is taken of a large number.
    means = coef * (baseline_log_hazard / max(float(coef @ coef), np.finfo(float).tiny))
    log_hazard, unknown = np.log(-np.log(values)), np.full(m, nan)
    baseline = Baseline(("all",), months[-1:], np.zeros(m, dtype=np.int64), months, log_hazard, unknown,
                        np.full((m, p), nan), unknown, unknown)
    return CoxFit(names, coef, np.full((p, p), nan), nan, nan, nan, "efron", 0, 0, means, True, False, (), (), baseline,
                  ())


def _variable(column: str) -> str:
    """The variable of a column of one term."""
    return column.split("=", 1)[0].rstrip("'")


def _main(name: str, columns: Sequence[str], levels: Mapping[str, Sequence[str]],
          knots: Mapping[str, Sequence[float]]) -> Main:
    """The term of one variable."""
    if name in levels:
        missing = [level for level in levels[name] if f"{name}={level}" not in columns]
        return Factor(name, tuple(levels[name]), missing[0] if len(missing) == 1 else "")
    if any(_variable(column) == name and "=" in column for column in columns):
        raise FitError(Problem("E-LEVEL", "a factor needs all its levels, the reference included",
                               where=f"column {name}", remedy=f"Pass levels={{{name!r}: (...)}}"))
    return Spline(name, tuple(knots[name])) if name in knots else Continuous(name)


def _range(name: str, ranges: Mapping[str, tuple[float, float]]) -> Limits:
    """The limits of a continuous variable."""
    low, high = ranges.get(name, (0.0, 0.0))
    if not low < high:
        raise FitError(Problem("E-RANGE", "a continuous variable needs its smallest and largest value",
                               where=f"column {name}", remedy=f"Pass ranges={{{name!r}: (low, high)}}"))
    middle = (low + high) / 2.0
    return Limits((), float(low), float(high), middle, (float(low), middle, float(high)))
