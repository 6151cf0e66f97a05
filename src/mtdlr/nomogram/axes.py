"""The axes of a nomogram: which values stand on them, and how many points each is worth.

Points are rms's: over each axis X beta runs from its smallest value (0 points) upwards, and one scale serves all axes,
such that the longest of them is 100 points long. Variables that interact share one scale of points and get an axis per
level of the others. Reference: Harrell, Regression Modeling Strategies (2015), section 5.6; rms::nomogram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, floor, log10, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.stats.terms import Continuous, Design, Factor, Interaction, Spline

Value = str | float
Vector = NDArray[np.float64]
MAXIMUM_POINTS = 100.0
N_INTERVALS = 10
N_DISTINCT = 10  # a numeric variable with at most so many different values is ticked at each of them


@dataclass(frozen=True)
class Limits:
    """What a nomogram must know of a variable to draw it; no patient's row.

    Args:
        values: every value there is, for a factor or a number with few different values; empty when continuous.
        low: smallest value of a continuous variable (nan for a factor).
        high: largest value.
        typical: median, or most frequent level.
        steps: where the axes of an interacting variable are drawn: `values`, or the 10th, 50th and 90th percentile.
    """

    values: tuple[Value, ...]
    low: float
    high: float
    typical: Value
    steps: tuple[Value, ...]

    @property
    def ticks(self) -> tuple[Value, ...]:
        """The values that stand on the axis."""
        return self.values or tuple(pretty(self.low, self.high).tolist())

    def beyond(self, values: NDArray) -> NDArray[np.bool_]:
        """(n,) whether each value lies outside [low, high]; never so for a factor."""
        if self.low != self.low:
            return np.zeros(len(values), dtype=bool)
        numbers = np.asarray(values, dtype=np.float64)
        result: NDArray[np.bool_] = (numbers < self.low) | (numbers > self.high)
        return result

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"values": list(self.values), "low": self.low, "high": self.high, "typical": self.typical,
                "steps": list(self.steps)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Limits:
        """The limits that `as_dict` wrote."""
        return cls(tuple(values["values"]), values["low"], values["high"], values["typical"], tuple(values["steps"]))


@dataclass(frozen=True)
class Axis:
    """One line of a nomogram.

    Args:
        variable: the column that runs along it.
        given: (column, value) of the interacting variables for which the line holds.
        values: the ticks, in the units of the column.
        log_hazard: X beta of the terms of its group at each tick.
        points: points of each tick.
    """

    variable: str
    given: tuple[tuple[str, Value], ...]
    values: tuple[Value, ...]
    log_hazard: tuple[float, ...]
    points: tuple[float, ...]

    @property
    def name(self) -> str:
        """The variable, with the values of the others where there are any: `score (tnm_stage=IVa)`."""
        given = " ".join(f"{name}={tick_text(value)}" for name, value in self.given)
        return f"{self.variable} ({given})" if given else self.variable


@dataclass(frozen=True)
class Ruler:
    """A line that is read from the total points: its ticks and the total points at which they stand."""

    values: tuple[float, ...]
    points: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class AxisGroup:
    """Variables that share one scale of points: one of them, or several that interact.

    Args:
        variables: the first runs along the axes.
        columns: (p,) True for the columns of the design that belong to the group.
        low: X beta that is worth 0 points.
        axes: one, or one per combination of the other variables.
    """

    variables: tuple[str, ...]
    columns: NDArray[np.bool_]
    low: float
    axes: tuple[Axis, ...]

    @property
    def name(self) -> str:
        """The variables, joined by asterisks."""
        return " * ".join(self.variables)


def pretty(low: float, high: float, n: int = N_INTERVALS) -> Vector:
    """About n + 1 round numbers at equal steps that cover [low, high]: R's pretty().

    The step is 1, 2, 5 or 10 times a power of ten, leaning to the larger one (R's high.u.bias 1.5, u5.bias 2.75).

    Args:
        low: smallest value to cover.
        high: largest value to cover, >= low.
        n: number of intervals aimed at.

    >>> pretty(39, 82).tolist()
    [35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0]
    >>> pretty(0.0, 0.0).tolist()
    [-0.4, -0.2, 0.0, 0.2]
    """
    bias, bias5, slack, min_n = 1.5, 2.75, 1e-10, n // 3
    size = max(abs(low), abs(high))
    small = high - low < size * (1.0 + 1.0 / (1.0 + bias)) * n * np.finfo(float).eps * 3.0 or size == 0.0
    cell = (high - low) / n
    if small:
        cell = 0.75 * (9.0 + size / 10.0 if size > 10.0 else size or 1.0) / min_n
    base = 10.0 ** floor(log10(cell))
    unit = base
    for factor, lean in ((2.0, bias), (5.0, bias5), (10.0, bias)):
        if not factor * base - cell < lean * (cell - unit):
            break
        unit = factor * base
    first, last = floor(low / unit + slack), ceil(high / unit - slack)
    missing = min_n - (last - first)
    if missing > 0:
        before = 0 if low == first == 0 and high != 0 else missing if high == last == 0 and low != 0 else None
        if before is None:
            before = missing // 2 + (missing % 2 if first >= 0 else 0)
        first, last = first - before, last + missing - before
    return np.arange(first, last + 1, dtype=np.float64) * unit


def main_terms(design: Design) -> dict[str, Continuous | Factor | Spline]:
    """The term through which each variable enters the design."""
    return {part.name: part for term in design.terms
            for part in ((term.a, term.b) if isinstance(term, Interaction) else (term,))}


def limits_of(term: Continuous | Factor | Spline, values: ArrayLike) -> Limits:
    """The limits of a variable in the training table.

    Args:
        term: how the variable enters the model.
        values: (n,), none missing.

    Raises:
        FitError: E-CONSTANT for a number that is the same in every row, or has no row.
    """
    if isinstance(term, Factor):
        text = [str(value) for value in np.asarray(values, dtype=object)]
        return factor_limits(term.levels, max(term.levels, key=text.count))
    x = np.asarray(values, dtype=np.float64)
    distinct = np.unique(x)
    if distinct.size < 2:
        raise FitError(Problem("E-CONSTANT", "a variable with one value only has no place in a nomogram",
                               where=f"column {term.name}",
                               found=f"{distinct[0]:g} in every row" if distinct.size else "no row"))
    few = tuple(distinct.tolist()) if distinct.size <= N_DISTINCT else ()
    steps = few or tuple(np.quantile(x, (0.1, 0.5, 0.9)).tolist())
    return Limits(few, float(distinct[0]), float(distinct[-1]), float(np.median(x)), steps)


def factor_limits(levels: tuple[str, ...], typical: str) -> Limits:
    """The limits of a factor.

    Args:
        levels: all of them, in order.
        typical: the level that an average patient has.
    """
    return Limits(levels, nan, nan, typical, levels)


def groups(design: Design, coef: ArrayLike, limits: Mapping[str, Limits]) -> tuple[tuple[AxisGroup, ...], float]:
    """The groups of axes from top to bottom, and the points of one unit of log hazard.

    With interactions the continuous variables come first, as in rms.

    Args:
        design: the terms.
        coef: (p,) log hazard ratios.
        limits: of every variable of the design.

    Raises:
        FitError: E-FLAT when no coefficient differs from 0.
    """
    beta = np.asarray(coef, dtype=np.float64)
    members = _members(design, limits)
    drawn = [(names, columns, _lines(design, beta, limits, names, columns))
             for names in members for columns in [_columns_of(design, names)]]
    lows = [min(min(line.log_hazard) for line in lines) for _, _, lines in drawn]
    highs = [max(max(line.log_hazard) for line in lines) for _, _, lines in drawn]
    longest = max(high - low for low, high in zip(lows, highs, strict=True))
    if not longest > 0.0:
        raise FitError(Problem("E-FLAT", "no variable of the nomogram changes the hazard",
                               expected="a coefficient other than 0"))
    scale = MAXIMUM_POINTS / longest
    return tuple(AxisGroup(names, columns, low, tuple(_with_points(line, low, scale) for line in lines))
                 for (names, columns, lines), low in zip(drawn, lows, strict=True)), scale


def tick_text(value: Value) -> str:
    """A tick as text: levels as they are, numbers without needless digits."""
    return value if isinstance(value, str) else f"{value + 0.0:.6g}"


def by_importance(values: Sequence[Value], points: Sequence[float]) -> list[int]:
    """The ticks in the order in which to label them where not all labels fit: the ends, where the axis turns back,
    then every fifth from 0, every second, and the others.

    Args:
        values: (n,) values of the ticks.
        points: (n,) points of the ticks.

    Returns:
        Positions 0 to n - 1, the most important first.

    >>> by_importance([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 4.0, 7.0, 9.0, 10.0, 10.5, 10.8])
    [0, 6, 5, 2, 4, 1, 3]
    """
    n, rises = len(values), np.sign(np.diff(points))
    turns = (np.flatnonzero(rises[1:] * rises[:-1] < 0) + 1).tolist()
    zero = next((i for i, value in enumerate(values) if value == 0.0), 0)
    strides = [i for stride in (5, 2, 1) for i in range(n) if (i - zero) % stride == 0]
    return list(dict.fromkeys([0, n - 1, *turns, *strides]))


def is_even(points: Sequence[float]) -> bool:
    """Whether the ticks stand at equal distances."""
    steps = np.diff(points)
    return bool(np.ptp(steps) <= 1e-6 * np.abs(steps).max())


def is_folded(points: Sequence[float]) -> bool:
    """Whether an axis turns back on itself."""
    steps = np.diff(points)
    return bool((steps > 1e-9).any() and (steps < -1e-9).any())


def runs_back(points: Sequence[float]) -> list[bool]:
    """Of each tick of a folded axis, whether the axis comes to it from the right; never so of another axis."""
    if not is_folded(points):
        return [False] * len(points)
    falls = [bool(step < 0) for step in np.diff(points)]
    return [falls[0], *falls]


def _members(design: Design, limits: Mapping[str, Limits]) -> list[tuple[str, ...]]:
    """Variables bound together by interactions, in the order of the axes."""
    pairs = [(term.a.name, term.b.name) for term in design.terms if isinstance(term, Interaction)]
    order = sorted(design.variables, key=lambda name: bool(limits[name].values)) if pairs else design.variables
    found: dict[str, set[str]] = {name: {name} for name in order}
    for a, b in pairs:
        joined = found[a] | found[b]
        found.update((name, joined) for name in joined)
    return list(dict.fromkeys(tuple(name for name in order if name in found[each]) for each in order))


def _columns_of(design: Design, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """(p,) True for the columns whose variables all belong to `names`."""
    columns = np.zeros(len(design.columns), dtype=bool)
    for term, where in zip(design.terms, design.slices.values(), strict=True):
        first = term.a.name if isinstance(term, Interaction) else term.name
        columns[where] = first in names
    return columns


def _lines(design: Design, beta: Vector, limits: Mapping[str, Limits], names: tuple[str, ...],
           columns: NDArray[np.bool_]) -> list[Axis]:
    """The axes of one group, without points."""
    along, others = names[0], names[1:]
    ticks = limits[along].ticks
    lines = []
    for setting in product(*(limits[name].steps for name in reversed(others))):
        given = dict(zip(reversed(others), setting, strict=True))
        rows = {name: [given.get(name, limits[name].typical)] * len(ticks) for name in design.variables}
        log_hazard = design.matrix({**rows, along: list(ticks)})[:, columns] @ beta[columns]
        lines.append(Axis(along, tuple((name, given[name]) for name in others), ticks, tuple(log_hazard.tolist()), ()))
    return lines


def _with_points(line: Axis, low: float, scale: float) -> Axis:
    points = tuple((value - low) * scale for value in line.log_hazard)
    return Axis(line.variable, line.given, line.values, line.log_hazard, points)
