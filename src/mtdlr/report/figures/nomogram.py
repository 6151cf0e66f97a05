"""The nomogram as a printed figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.axes import Axis, AxisGroup, Ruler, Value, by_importance, is_even, is_folded
from mtdlr.report.figures.labels import TICK, Label, level_labels, number_labels, ranked_labels
from mtdlr.report.figures.page import (
    BLACK,
    GREY,
    NORMAL,
    PALE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH_MM,
    Lettering,
    Width,
    drawn,
    line_height,
    number,
    page,
    sheet,
    spaced,
    text_width,
    wrap,
    write,
)

_MARGIN = 1.5  # mm around everything
_ROW_GAP = 2.2
_BLOCK_GAP = 3.5
_BARS = 3.2  # mm height of a distribution
_BINS = 40
_NO_BARS: tuple[tuple[float, float], ...] = ()
_BY_IMPORTANCE = (0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4, 0.95, 0.05, 0.99, 0.98)


@dataclass(frozen=True)
class _Row:
    """One axis of the figure.

    Args:
        title: wrapped to the width of the first column.
        ticks: mm along the page.
        labels: beside it.
        counts: (mm, height from 0 to 1) bars of a distribution.
        mark: mm of the patient, or None.
        note: the patient's value, in the last column.
        strong: whether title and note are bold.
    """

    title: str
    ticks: tuple[float, ...]
    labels: tuple[Label, ...]
    counts: tuple[tuple[float, float], ...] = ()
    mark: float | None = None
    note: str = ""
    strong: bool = False

    def depth(self, side: int) -> float:
        """mm that the labels need on one side of the axis."""
        return sum(_lane_heights(self.labels, side), TICK * bool(self.labels))

    @property
    def above(self) -> float:
        """mm needed above the axis."""
        title = line_height(NORMAL) * (self.title.count("\n") + 1) / 2.0
        top = self.depth(1) if any(label.side == 1 for label in self.labels) else TICK
        return max(title, top, _BARS + 0.5 if self.counts else 0.0)

    @property
    def below(self) -> float:
        """mm needed below the axis."""
        title = line_height(NORMAL) * (self.title.count("\n") + 1) / 2.0
        return max(title, self.depth(-1) if any(label.side == -1 for label in self.labels) else 0.0)


@dataclass(frozen=True)
class _Columns:
    """Where titles end, the axes begin and end, and the patient's column begins; mm."""

    left: float
    right: float
    note: float

    @property
    def low(self) -> float:
        """Where labels may begin."""
        return self.left - 2.0

    @property
    def high(self) -> float:
        """Where labels must end."""
        return self.right + 2.2

    def along(self, points: ArrayLike, longest: float) -> tuple[float, ...]:
        """mm along the page of points, `longest` being the right end."""
        values = np.asarray(points, dtype=np.float64)
        return tuple((self.left + (self.right - self.left) * values / longest).tolist())


@drawn
def nomogram_figure(
    nomogram: Nomogram, *, patient: Mapping[str, Any] | None = None, cohort: pd.DataFrame | None = None,
    width: Width = "double",
) -> Figure:
    """The nomogram at a journal's column width.

    Args:
        nomogram: what to draw.
        patient: a row; its values, points and survival are drawn in and listed at the right.
        cohort: a table; the distribution of its patients is drawn over each axis.
        width: "single" (84 mm) or "double" (174 mm).
    """
    columns = _columns(nomogram, width, patient is not None)
    upper = [_points_row(columns, patient is not None),
             *(_variable_row(nomogram, group, axis, columns, patient, cohort)
               for group in nomogram.groups for axis in group.axes)]
    lower = [_total_row(nomogram, columns, patient, cohort),
             *(_survival_row(nomogram, month, columns, patient) for month in nomogram.months)]
    height = 2.0 * _MARGIN + sum(row.above + row.below + _ROW_GAP for row in (*upper, *lower)) - _ROW_GAP + _BLOCK_GAP
    figure = page(width, height)
    axes = sheet(figure)
    end = _draw_block(axes, upper, columns, height - _MARGIN)
    _draw_block(axes, lower, columns, end - _BLOCK_GAP)
    return figure


def _columns(nomogram: Nomogram, width: Width, patient: bool) -> _Columns:
    """Titles get what they need, up to a third of the page."""
    full = WIDTH_MM[width]
    titles = ["Total points", *(_title(nomogram, axis) for axis in nomogram.axes),
              *(_survival_title(nomogram, month) for month in nomogram.months)]
    share = full * (0.27 if width == "double" else 0.29)
    needed = max(text_width(wrap(title, share, NORMAL, bold=True), NORMAL, bold=True) for title in titles)
    note = text_width("100% (100\N{EN DASH}100)", SMALL, bold=True) + 3.0 if patient else 0.0
    return _Columns(_MARGIN + needed + 4.0, full - _MARGIN - note - 2.5, full - _MARGIN - note + 3.0)


def _points_row(columns: _Columns, patient: bool) -> _Row:
    values = list(range(0, 101, 10))
    labels = number_labels(columns.along(values, 100.0), [str(value) for value in values], columns.low, columns.high, 1)
    return _Row("Points", columns.along(range(0, 101, 5), 100.0), tuple(labels), strong=True,
                note="Patient" if patient else "")


def _variable_row(nomogram: Nomogram, group: AxisGroup, axis: Axis, columns: _Columns,
                  patient: Mapping[str, Any] | None, cohort: pd.DataFrame | None) -> _Row:
    ticks = columns.along(axis.points, 100.0)
    texts = [_value_text(nomogram, axis.variable, value) for value in axis.values]
    low, high = columns.low, columns.high
    if isinstance(axis.values[0], str):
        labels = level_labels(ticks, texts, low, high, (-1, 1) if cohort is None else (-1,))
    elif is_even(ticks):
        labels = number_labels(ticks, texts, low, high)
    else:
        labels = ranked_labels(ticks, texts, by_importance(axis.values, axis.points), low, high)
    mark, note = None, ""
    if patient is not None and _matches(axis, group, patient):
        points = float(nomogram.points(patient)[group.name].iloc[0])
        mark, note = columns.along([points], 100.0)[0], number(round(points, 1), 4)
    counts = _distribution(nomogram, group, axis, columns, cohort)
    title = wrap(_title(nomogram, axis), columns.left - _MARGIN - 4.0 + 0.01, NORMAL)
    return _Row(title, ticks, tuple(labels), counts, mark, note)


def _total_row(nomogram: Nomogram, columns: _Columns, patient: Mapping[str, Any] | None,
               cohort: pd.DataFrame | None) -> _Row:
    ruler = nomogram.total_points_axis
    longest = ruler.points[-1]
    ticks = columns.along(ruler.points, longest)
    labels = number_labels(ticks, [number(value) for value in ruler.values], columns.low, columns.high)
    mark, note, counts = None, "", _NO_BARS
    if patient is not None:
        total = float(nomogram.points(patient)["total"].iloc[0])
        mark, note = columns.along([total], longest)[0], number(round(total, 1), 4)
    if cohort is not None:
        counts = _bars(columns.along(nomogram.points(cohort)["total"], longest), columns)
    return _Row("Total points", ticks, tuple(labels), counts, mark, note, strong=True)


def _survival_row(nomogram: Nomogram, month: float, columns: _Columns, patient: Mapping[str, Any] | None) -> _Row:
    ruler, longest = nomogram.survival_axis(month), nomogram.total_points_axis.points[-1]
    shown = [i for i, points in enumerate(ruler.points) if -1e-9 <= points <= longest + 1e-9]
    ruler = Ruler(tuple(ruler.values[i] for i in shown), tuple(ruler.points[i] for i in shown))
    ticks, texts = columns.along(ruler.points, longest), [number(value) for value in ruler.values]
    wanted = dict.fromkeys((*_BY_IMPORTANCE, *ruler.values))
    order = [ruler.values.index(value) for value in wanted if value in ruler.values]
    labels = tuple(Label(ticks[i], ticks[i] - text_width(texts[i]) / 2.0, texts[i], -1, 0)
                   for i in spaced(ticks, [text_width(text) for text in texts], order, 1.1))
    mark, note = None, ""
    if patient is not None:
        total = float(nomogram.points(patient)["total"].iloc[0])
        mark, note = columns.along([total], longest)[0], _percent(nomogram, patient, month)
    title = wrap(_survival_title(nomogram, month), columns.left - _MARGIN - 4.0 + 0.01, NORMAL)
    return _Row(title, ticks, labels, (), mark, note)


def _percent(nomogram: Nomogram, patient: Mapping[str, Any], month: float) -> str:
    """A patient's survival with its interval where there is one."""
    survival = nomogram.survival(patient).estimate(0, month)
    value = "<1%" if survival.value < 0.005 else f"{100 * survival.value:.0f}%"
    if survival.low != survival.low:
        return value
    return f"{value} ({100 * survival.low:.0f}\N{EN DASH}{100 * survival.high:.0f})"


def _title(nomogram: Nomogram, axis: Axis) -> str:
    """The variable, with the levels of the others for which the axis holds."""
    given = [f"{nomogram.label(name)} {_value_text(nomogram, name, value)}" for name, value in axis.given]
    return nomogram.label(axis.variable) + (f" ({', '.join(given)})" if given else "")


def _value_text(nomogram: Nomogram, name: str, value: Value) -> str:
    return nomogram.label(name, value) if isinstance(value, str) else number(value, 4)


def _survival_title(nomogram: Nomogram, month: float) -> str:
    period = f"{month / 12:g}-year" if month % 12 == 0 else f"{month:g}-month"
    return f"{period} {nomogram.endpoint} probability"


def _matches(axis: Axis, group: AxisGroup, patient: Mapping[Any, Any]) -> bool:
    """Whether the patient is read off this axis of the group: the one nearest to the patient's other values."""
    def distance(other: Axis) -> float:
        return sum(0.0 if str(patient[name]) == str(value) else
                   1e9 if isinstance(value, str) else abs(float(patient[name]) - value) for name, value in other.given)
    return axis is min(group.axes, key=distance)


def _distribution(nomogram: Nomogram, group: AxisGroup, axis: Axis, columns: _Columns,
                  cohort: pd.DataFrame | None) -> tuple[tuple[float, float], ...]:
    """The patients of a table along an axis."""
    if cohort is None or (not isinstance(axis.values[0], str) and is_folded(axis.points)):
        return ()
    mine = [_matches(axis, group, row) for row in cohort[list(nomogram.design.variables)].to_dict("records")]
    places = np.array(columns.along(nomogram.points(cohort)[group.name][mine], 100.0))
    if not nomogram.limits[axis.variable].values:
        return _bars(places, columns)
    found, counts = np.unique(places.round(6), return_counts=True)
    return tuple(zip(found.tolist(), (counts / counts.max()).tolist(), strict=True))


def _bars(places: ArrayLike, columns: _Columns) -> tuple[tuple[float, float], ...]:
    """Counts in narrow bins as (mm, height from 0 to 1)."""
    counts, edges = np.histogram(places, bins=_BINS, range=(columns.left, columns.right))
    middles = (edges[1:] + edges[:-1]) / 2.0
    return tuple((float(x), float(n / counts.max())) for x, n in zip(middles, counts, strict=True) if n)


def _lane_heights(labels: Sequence[Label], side: int) -> list[float]:
    """mm of each lane on one side, from the axis outwards."""
    mine = [label for label in labels if label.side == side]
    return [max((label.height for label in mine if label.lane == lane), default=0.0)
            for lane in range(max((label.lane for label in mine), default=-1) + 1)]


def _draw_block(axes: Axes, rows: Sequence[_Row], columns: _Columns, top: float) -> float:
    """Draw rows from the top down; mm of the lower end."""
    heights, y = [], top
    for row in rows:
        heights.append(y - row.above)
        y -= row.above + row.below + _ROW_GAP
    for label in rows[0].labels:
        axes.plot([label.tick] * 2, [heights[0], heights[-1]], color=PALE, lw=0.35, zorder=0)
    for row, height in zip(rows, heights, strict=True):
        _draw_row(axes, row, columns, height)
        if row.mark is not None:  # up to the points, or down from the total points
            axes.plot([_inside(row.mark, columns)] * 2, [heights[0], height], color=VERMILLION, lw=0.6, ls=(0, (3, 2)),
                      zorder=2)
    return y + _ROW_GAP


def _inside(mark: float, columns: _Columns) -> float:
    return min(max(mark, columns.left), columns.right)


def _draw_row(axes: Axes, row: _Row, columns: _Columns, y: float) -> None:
    """Title, distribution, axis, ticks, labels and the patient's mark of one row."""
    write(axes, _MARGIN, y, row.title, Lettering(NORMAL, "bold" if row.strong else "normal"))
    axes.bar([x for x, _ in row.counts], [height * _BARS for _, height in row.counts],
             (columns.right - columns.left) / _BINS * 0.85, y, color=SKY, alpha=0.6, lw=0, zorder=1)
    if row.ticks:
        axes.plot([min(row.ticks), max(row.ticks)], [y, y], color=BLACK, lw=0.8, zorder=3, solid_capstyle="projecting")
    _draw_ticks(axes, row, y)
    for label in row.labels:
        heights = _lane_heights(row.labels, label.side)
        start = TICK + sum(heights[: label.lane])
        middle = y + label.side * (start + heights[label.lane] / 2.0)
        write(axes, label.anchor, middle, label.text, ha=label.align, backed=True)
        if label.lane:
            axes.plot([label.tick] * 2, [y, y + label.side * (start + 0.3)], color=GREY, lw=0.4, zorder=2)
    if row.note:
        write(axes, columns.note, y, row.note, Lettering(weight="bold", color=VERMILLION))
    if row.mark is not None:
        at = _inside(row.mark, columns)
        marker = "o" if abs(at - row.mark) < 1e-6 else ">" if row.mark > at else "<"
        axes.plot([at], [y], marker=marker, ms=4.2, color=VERMILLION, mec="white", mew=0.5, zorder=6, ls="none")


def _draw_ticks(axes: Axes, row: _Row, y: float) -> None:
    """A long tick at each label, a short one elsewhere."""
    labelled: dict[float, int] = {label.tick: label.side for label in row.labels}
    side = row.labels[0].side if row.labels else -1
    for x in row.ticks:
        nearest = min(labelled, key=lambda tick: abs(tick - x), default=None)
        long = nearest is not None and abs(nearest - x) < 1e-6
        direction = labelled[nearest] if long and nearest is not None else side
        axes.plot([x, x], [y, y + direction * (TICK if long else TICK * 0.55)], color=BLACK, lw=0.6, zorder=3)
