"""Hazard ratios as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtdlr.estimate import Estimate
from mtdlr.report.figures.page import (
    BLUE,
    BOLD,
    GREY,
    PLAIN,
    SMALL,
    WIDTH_MM,
    Width,
    drawn,
    line_height,
    number,
    p_text,
    page,
    panel,
    ratio_text,
    sheet,
    spaced,
    text_width,
    wrap,
    write,
)

_MARGIN, _GAP = 1.5, 3.0
_ROW = 4.6  # mm of a row of one line
_WIDEST = 200.0  # limits are cut beyond this multiple or fraction of 1
_ROUND = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@drawn
def forest_figure(hazard_ratios: Mapping[str, Estimate], *, width: Width = "double") -> Figure:
    """Hazard ratios with their intervals on a logarithmic axis, and as numbers beside it.

    Args:
        hazard_ratios: by label, from top to bottom. An Estimate(1.0) without an interval is a reference level; one
            whose value is nan is a heading, or a ratio that could not be estimated when it has a p value.
        width: "single" (84 mm) or "double" (174 mm).
    """
    rows = list(hazard_ratios.items())
    texts = [_row_text(estimate) for _, estimate in rows]
    tests = [p_text(estimate.p).removeprefix("P ").removeprefix("= ") if isfinite(estimate.p) else ""
             for _, estimate in rows]
    full = WIDTH_MM[width]
    labels = [wrap(label, 0.3 * full, SMALL, bold=True) for label, _ in rows]
    p_column = full - _MARGIN - max(text_width(text) for text in [*tests, "P"])
    ratio_column = p_column - _GAP - max(text_width(text, bold=True) for text in [*texts, "HR (95% CI)"])
    left = _MARGIN + max(text_width(label, bold=True) for label in labels) + _GAP + 1.0
    heights = [_ROW + line_height() * label.count("\n") for label in labels]
    bottom, top = 9.5, 6.0
    figure = page(width, bottom + sum(heights) + top)
    axes = panel(figure, left, bottom, ratio_column - _GAP - left, sum(heights))
    paper = sheet(figure)
    y = bottom + sum(heights)
    for (_, estimate), label, height, text, test in zip(rows, labels, heights, texts, tests, strict=True):
        y -= height
        write(paper, _MARGIN, y + height / 2.0, label, BOLD if _is_heading(estimate) else PLAIN)
        write(paper, ratio_column, y + height / 2.0, text)
        write(paper, p_column, y + height / 2.0, test)
        if isfinite(estimate.value) and estimate.value > 0:
            _draw_ratio(axes, estimate, y + height / 2.0 - bottom)
    head = bottom + sum(heights) + 2.5
    write(paper, ratio_column, head, "HR (95% CI)", BOLD)
    write(paper, p_column, head, "P", BOLD)
    _log_axis(axes, [estimate for _, estimate in rows], sum(heights), ratio_column - _GAP - left)
    return figure


def _draw_ratio(axes: Axes, estimate: Estimate, y: float) -> None:
    """A square with its whiskers; a reference level is an open one."""
    reference = _is_reference(estimate)
    if estimate.low == estimate.low:
        ends = [max(estimate.low, 1e-12), min(estimate.high, 1e12)]
        axes.plot(ends, [y, y], color=BLUE, lw=0.9, solid_capstyle="butt", zorder=3)
    axes.plot([estimate.value], [y], marker="s", ms=3.6, ls="none", zorder=4, mec=BLUE, mew=0.7,
              color="white" if reference else BLUE)


def _log_axis(axes: Axes, estimates: list[Estimate], height: float, width_mm: float) -> None:
    """A logarithmic axis that holds every interval, with round ticks as far as their labels fit."""
    ends = [value for each in estimates for value in (each.low, each.high, each.value) if isfinite(value) and value > 0]
    low = max(min([*ends, 0.8]) / 1.15, 1.0 / _WIDEST)
    high = min(max([*ends, 1.25]) * 1.15, _WIDEST)
    axes.set(xscale="log", xlim=(low, high), ylim=(0.0, height), xlabel="Hazard ratio (log scale)")
    axes.axvline(1.0, color=GREY, lw=0.6, ls=(0, (4, 3)), zorder=1)
    inside = [tick for tick in _ROUND if low <= tick <= high]
    places = [float(np.log(tick / low) / np.log(high / low)) * width_mm for tick in inside]
    order = sorted(range(len(inside)), key=lambda i: (inside[i] != 1.0, abs(np.log10(inside[i])) % 1 > 1e-9))
    kept = spaced(places, [text_width(number(tick)) for tick in inside], order, 1.5)
    axes.set_xticks([inside[i] for i in kept], [number(inside[i]) for i in kept])
    axes.minorticks_off()
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _is_reference(estimate: Estimate) -> bool:
    return estimate.value == 1.0 and not isfinite(estimate.low)


def _is_heading(estimate: Estimate) -> bool:
    return not isfinite(estimate.value) and not isfinite(estimate.p)


def _row_text(estimate: Estimate) -> str:
    return "" if _is_heading(estimate) else "Reference" if _is_reference(estimate) else ratio_text(estimate)
