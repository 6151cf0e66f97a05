"""Kaplan-Meier curves and cumulative incidences with numbers at risk: one comparison, or many on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtdlr.estimate import Estimate
from mtdlr.report.figures.page import (
    BOLD,
    CYCLE,
    DASHES,
    GREY,
    NORMAL,
    SMALL,
    WIDTH_MM,
    Lettering,
    Width,
    drawn,
    line_height,
    p_text,
    page,
    panel,
    ratio_text,
    sheet,
    text_width,
    wrap,
    write,
)
from mtdlr.stats.competing import CumulativeIncidence
from mtdlr.stats.kaplan_meier import KaplanMeier

_LEFT, _BOTTOM, _RIGHT = 12.0, 10.5, 2.5  # mm around a panel for its labels
_ROW = line_height() * 1.1  # mm of a line in the table of numbers at risk
_FEWEST = 5  # patients at risk below which a curve is not drawn any more: its steps are single patients
_PANEL_HEIGHT = 27.5
Course = KaplanMeier | CumulativeIncidence


@dataclass(frozen=True, eq=False)
class Panel:
    """One comparison on a page of many: curves by label, P of a test and hazard ratio; without curves, why."""

    groups: Mapping[str, Course]
    p: float | None = None
    hazard_ratio: Estimate | None = None
    test: str = "Log-rank"
    why: str = "The cut-off does not split this cohort."


@drawn
def kaplan_meier_figure(
    groups: Mapping[str, KaplanMeier], *, p: float | None = None, hazard_ratio: Estimate | None = None,
    endpoint: str = "survival", width: Width = "single",
) -> Figure:
    """Kaplan-Meier curves with their intervals and censoring marks; the numbers at risk stand beneath.

    A curve ends where fewer than five patients are at risk (half of them in groups under ten).

    Args:
        groups: by label, in the order of the key.
        p: of the log-rank test, printed in the figure.
        hazard_ratio: of the groups, printed in the figure.
        endpoint: what survival means, such as "PFS".
        width: "single" (84 mm) or "double" (174 mm).
    """
    last = max(float(curve.time[-1]) for curve in groups.values())
    months = _ticks(last, 11)
    names = {label: wrap(label, 0.25 * WIDTH_MM[width]) for label in groups}
    left = max(_LEFT, max(text_width(name) for name in names.values()) + 5.0)
    table = _ROW * (1 + sum(1 + name.count("\n") for name in names.values())) + 2.0
    height = 52.0 if width == "single" else 75.0
    figure = page(width, _RIGHT + height + _BOTTOM + table)
    axes = panel(figure, left, _BOTTOM + table, WIDTH_MM[width] - left - _RIGHT - 1.5, height)
    for i, (label, curve) in enumerate(groups.items()):
        _draw_course(axes, curve, label, i)
    axes.set(xlim=(0, last * 1.01), ylim=(0, 1.02), xlabel="Months", ylabel=_axis_name(endpoint))
    axes.set_xticks(months)
    axes.set_yticks([i / 5 for i in range(6)])
    low = min(float(np.interp(last / 3.0, curve.time, curve.survival)) for curve in groups.values())
    facts = "\n".join(_facts(p, hazard_ratio)) or None
    key = axes.legend(loc="lower left" if low > 0.42 else "upper right", title=facts, borderaxespad=0.6,
                      alignment="left", title_fontsize=SMALL)
    key.set_zorder(6)
    _numbers_at_risk(figure, axes, {names[label]: curve for label, curve in groups.items()}, months)
    return figure


@drawn
def kaplan_meier_panels(
    panels: Mapping[str, Mapping[str, Panel]], *, endpoint: str = "survival", width: Width = "double"
) -> Figure:
    """Kaplan-Meier curves of models (rows) in cohorts (columns) on one page, as the paper's Figure 4.

    Args:
        panels: by model, then by cohort; a panel without curves holds a sentence instead.
        endpoint: what survival means, such as "PFS".
        width: "single" (one cohort a row) or "double".
    """
    return _many(panels, _axis_name(endpoint), 1.02, width)


@drawn
def incidence_panels(panels: Mapping[str, Mapping[str, Panel]], *, width: Width = "double") -> Figure:
    """Cumulative incidence of causes of failure (rows) in cohorts (columns) on one page; one scale for all panels.

    Args:
        panels: by cause, then by cohort.
        width: "single" (one cohort a row) or "double".
    """
    curves = [c for row in panels.values() for each in row.values() for c in each.groups.values()]
    highest = max((float(np.nanmax(_values(c)[:, 1:][:, _drawn(c)], initial=0.1)) for c in curves), default=0.1)
    return _many(panels, "Cumulative incidence", min(1.0, np.ceil(12.0 * highest) / 10.0) + 0.02, width)


def _many(panels: Mapping[str, Mapping[str, Panel]], axis_name: str, top: float, width: Width) -> Figure:
    """Rows by columns of comparisons, lettered."""
    cohorts = list(dict.fromkeys(name for row in panels.values() for name in row))
    last = max((float(c.time[_drawn(c)].max(initial=0.0)) for row in panels.values() for each in row.values()
                for c in each.groups.values()), default=60.0) or 60.0
    labels = {label for row in panels.values() for each in row.values() for label in each.groups} or {""}
    left = max(_LEFT, max(text_width(label) for label in labels) + 3.5)
    table = _ROW * (1 + max(len(each.groups) for row in panels.values() for each in row.values())) + 1.0
    pitch = WIDTH_MM[width] / len(cohorts)
    titles = {(name, cohort): wrap(f"{name}, {_place(cohort)}", pitch - left - _RIGHT) for name in panels
              for cohort in cohorts}
    above = 2.5 + line_height() * max(1 + title.count("\n") for title in titles.values())
    high = above + _PANEL_HEIGHT + _BOTTOM + table + 2.0
    figure = page(width, high * len(panels))
    months = _ticks(last, 6)
    for row, (name, by_cohort) in enumerate(panels.items()):
        foot = (len(panels) - 1 - row) * high + _BOTTOM + table + 2.0
        for column, cohort in enumerate(cohorts):
            axes = panel(figure, column * pitch + left, foot, pitch - left - _RIGHT, _PANEL_HEIGHT)
            letter = "abcdefghijklmnopqrstuvwxyz"[(row * len(cohorts) + column) % 26]
            _title(axes, letter, titles[name, cohort], pitch - left - _RIGHT, left)
            axes.set(xlim=(0, last * 1.01), ylim=(0, top), xlabel="Months")
            axes.set_xticks(months)
            axes.set_yticks(np.arange(0.0, top, 0.2 if top > 0.5 else 0.1))
            _draw_panel(figure, axes, by_cohort.get(cohort, Panel({})), months, pitch - left - _RIGHT)
            if column == 0:
                axes.set_ylabel(axis_name)
    return figure


def _draw_panel(figure: Figure, axes: Axes, shown: Panel, months: NDArray[np.float64], across: float) -> None:
    """One comparison of a page, with its facts in the corner that its curves leave free and its numbers beneath."""
    if not shown.groups:
        axes.text(0.5, 0.5, wrap(shown.why, 0.8 * across), transform=axes.transAxes, ha="center", va="center",
                  fontsize=SMALL, color=GREY)
        return
    for i, (label, curve) in enumerate(shown.groups.items()):
        _draw_course(axes, curve, label, i)
    falls = all(isinstance(curve, KaplanMeier) for curve in shown.groups.values())
    axes.text(0.03, 0.04 if falls else 0.97, "\n".join(_facts(shown.p, shown.hazard_ratio, shown.test)),
              transform=axes.transAxes, va="bottom" if falls else "top", fontsize=SMALL, zorder=6,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
    _numbers_at_risk(figure, axes, shown.groups, months)


def _title(axes: Axes, letter: str, title: str, across: float, left: float) -> None:
    """The letter of a panel at its upper left, and what it shows."""
    up = 1.0 + 1.5 / _PANEL_HEIGHT
    axes.text(-(left - 1.5) / across, up, letter, transform=axes.transAxes, weight="bold", fontsize=NORMAL + 1.0)
    axes.text(0.0, up, title, transform=axes.transAxes, fontsize=SMALL)


def _place(cohort: str) -> str:
    """A cohort as the end of a title.

    >>> _place("External validation cohort")
    'external validation'
    """
    return cohort.lower().removesuffix(" cohort")


def _drawn(curve: Course) -> NDArray[np.bool_]:
    """The times up to which a curve is drawn: later ones have too few patients at risk."""
    return np.asarray(curve.at_risk >= min(_FEWEST, (int(curve.at_risk[0]) + 1) // 2))


def _facts(p: float | None, hazard_ratio: Estimate | None, test: str = "Log-rank") -> list[str]:
    """Hazard ratio and P of the test, as far as they are known."""
    facts = [f"HR {ratio_text(hazard_ratio)}"] if hazard_ratio else []
    return facts + ([f"{test} {p_text(p)}"] if p is not None else [])


def _ticks(last: float, most: int) -> NDArray[np.float64]:
    """Months from 0 to the last at a round step, `most` steps at most."""
    step = next(step for step in (1, 3, 6, 12, 24, 36, 60, 120, 240, 480) if last / step <= most)
    return np.arange(0.0, last + 1e-9, step)


def _axis_name(endpoint: str) -> str:
    return f"{endpoint[0].upper()}{endpoint[1:]} probability"


def _values(curve: Course) -> NDArray[np.float64]:
    """(3, m + 1): the curve, its lower and its upper limit, from time 0 on."""
    start, middle = (1.0, curve.survival) if isinstance(curve, KaplanMeier) else (0.0, curve.incidence)
    return np.array([np.append(start, values) for values in (middle, curve.low, curve.high)])


def _draw_course(axes: Axes, curve: Course, label: str, i: int) -> None:
    """One curve with its band; censoring marks on Kaplan-Meier."""
    shown = _drawn(curve)
    time = np.append(0.0, curve.time[shown])
    middle, low, high = _values(curve)[:, np.append(True, shown)]
    axes.fill_between(time, low, high, step="post", color=_color(i), alpha=0.16, lw=0, zorder=1)
    axes.plot(time, middle, drawstyle="steps-post", color=_color(i), ls=_dash(i), label=label, zorder=3)
    if isinstance(curve, KaplanMeier):
        leaving = curve.at_risk - np.append(curve.at_risk[1:], 0) - curve.events
        marked = shown & (leaving > 0)
        axes.plot(curve.time[marked], curve.survival[marked], ls="none", marker="|", ms=3.2, mew=0.5,
                  color=_color(i), zorder=3)


def _numbers_at_risk(
    figure: Figure, axes: Axes, groups: Mapping[str, Course], months: NDArray[np.float64]
) -> None:
    """The table beneath the curves; its columns stand under the ticks."""
    page_width, page_height = (float(inches) * 25.4 for inches in figure.get_size_inches())
    box = axes.get_position()
    left, right = box.x0 * page_width, box.x1 * page_width
    y = box.y0 * page_height - _BOTTOM - _ROW / 2.0
    paper = sheet(figure)
    edge = left - max(text_width(label) for label in groups) - 3.0 if len(figure.axes) > 1 else 1.5
    write(paper, edge, y, "Number at risk", BOLD)
    last = axes.get_xlim()[1]
    y -= _ROW / 2.0
    for i, (label, curve) in enumerate(groups.items()):
        height = _ROW * (1 + label.count("\n"))
        y -= height
        write(paper, edge, y + height / 2.0, label, Lettering(color=_color(i)))
        for month, count in zip(months, _at_risk(curve, months), strict=True):
            write(paper, left + (right - left) * month / last, y + height / 2.0, str(count), ha="center")


def _at_risk(curve: Course, months: NDArray[np.float64]) -> NDArray[np.int64]:
    """Patients under observation just before each month."""
    return np.append(curve.at_risk, 0)[np.searchsorted(curve.time, months, side="left")]


def _color(i: int) -> str:
    return CYCLE[i % len(CYCLE)]


def _dash(i: int) -> object:
    return DASHES[(i + i // len(CYCLE)) % len(DASHES)]
