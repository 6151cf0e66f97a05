"""Figures a reviewer asks for: C of all models, AUC over time, net benefit with its interval, effects over time."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mtdlr.estimate import Estimate
from mtdlr.report.figures.page import (
    BLUE,
    BOLD,
    CYCLE,
    DASHES,
    GREY,
    PLAIN,
    SMALL,
    VERMILLION,
    WIDTH_MM,
    Width,
    drawn,
    interval_text,
    model_colors,
    page,
    panel,
    sheet,
    text_width,
    wrap,
    write,
)
from mtdlr.stats.auc_curve import AucCurve
from mtdlr.stats.hazard_trend import HazardTrend
from mtdlr.stats.net_benefit import NetBenefit

_LEFT, _BOTTOM, _TOP, _RIGHT, _ROW = 12.0, 10.5, 6.0, 2.5, 4.4  # mm


@drawn
def concordance_figure(
    c: Mapping[str, Mapping[str, Estimate]], *, emphasised: str = "", width: Width = "double"
) -> Figure:
    """C-index of each model with its interval, a panel a cohort; the line is chance.

    Args:
        c: by cohort, then by model.
        emphasised: the model that is drawn heavier.
        width: "single" (panels one above the other) or "double" (side by side).
    """
    across = len(c) if width == "double" else 1
    down = -(-len(c) // across)
    models = list(dict.fromkeys(model for by_model in c.values() for model in by_model))
    labels = max(text_width(model, bold=True) for model in models) + 3.0
    height = _ROW * len(models)
    high = _TOP + height + _BOTTOM
    figure = page(width, high * down)
    paper = sheet(figure)
    number = max(text_width(interval_text(Estimate(0.888, 0.888, 0.888), 2)), 10.0) + 2.0
    pitch = (WIDTH_MM[width] - (labels if across > 1 else 0.0)) / across
    for i, (cohort, by_model) in enumerate(c.items()):
        left = labels + (i % across) * pitch
        foot = (down - 1 - i // across) * high + _BOTTOM
        room = pitch - number - 2.0 if across > 1 else pitch - labels - number - 2.0
        axes = panel(figure, left, foot, room, height)
        axes.axvline(0.5, color=GREY, lw=0.6, ls=(0, (4, 3)))
        for k, model in enumerate(models):
            y, estimate = len(models) - 1 - k, by_model.get(model, Estimate(float("nan")))
            heavy = model == emphasised
            color = VERMILLION if heavy else BLUE
            if isfinite(estimate.value):
                axes.plot(estimate.value, y, "s" if heavy else "o", ms=4.5 if heavy else 3.2, color=color)
            if isfinite(estimate.low):
                axes.plot([estimate.low, estimate.high], [y, y], color=color, lw=1.6 if heavy else 0.9)
            at = foot + (y + 0.5) * _ROW
            write(paper, left + room + 1.5, at, interval_text(estimate, 2) if isfinite(estimate.value) else "-")
            if i % across == 0:
                write(paper, 1.5, at, model, BOLD if heavy else PLAIN)
        axes.set(ylim=(-0.5, len(models) - 0.5), xlim=_limits(c), xlabel="C-index", yticks=[])
        axes.spines["left"].set_visible(False)
        write(paper, left, foot + height + 2.5, wrap(cohort, pitch), BOLD)
    return figure


@drawn
def auc_figure(
    curves: Mapping[str, Mapping[str, AucCurve]], *, emphasised: str = "", width: Width = "double"
) -> Figure:
    """AUC(t) over the months, a panel a cohort; the band is the interval of the emphasised model.

    Args:
        curves: by cohort, then by model.
        emphasised: the model that has its band drawn.
        width: "single" (one panel a row) or "double" (all in one).
    """
    across = len(curves) if width == "double" else 1
    pitch, height = WIDTH_MM[width] / across, 42.0
    down = -(-len(curves) // across)
    names = list(dict.fromkeys(name for by_model in curves.values() for name in by_model))
    colors = model_colors(names, [emphasised])
    key = 4.0 * -(-len(names) // (4 if width == "double" else 2)) + 2.0
    figure = page(width, down * (_TOP + height + _BOTTOM) + key)
    for i, (cohort, by_model) in enumerate(curves.items()):
        foot = (down - 1 - i // across) * (_TOP + height + _BOTTOM) + _BOTTOM + key
        axes = panel(figure, (i % across) * pitch + _LEFT, foot, pitch - _LEFT - _RIGHT, height)
        axes.axhline(0.5, color=GREY, lw=0.6, ls=(0, (4, 3)))
        for name, curve in by_model.items():
            k, heavy = names.index(name), name == emphasised
            axes.plot(curve.months, curve.auc, color=colors[k], ls="-" if heavy else DASHES[k % 8],
                      lw=1.8 if heavy else 0.9, zorder=4 if heavy else 3, label=name)
            if heavy:
                axes.fill_between(curve.months, curve.low, curve.high, color=colors[k], alpha=0.15, lw=0)
        axes.set(ylim=(0.2, 1.0), xlabel="Months", ylabel="AUC(t)")
        axes.set_title(wrap(cohort, pitch - _LEFT), loc="left", fontsize=SMALL)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower left", ncols=4 if width == "double" else 2, fontsize=SMALL,
                  bbox_to_anchor=(0.02, 0.005))
    return figure


@drawn
def benefit_figure(
    benefit: Mapping[str, NetBenefit], over: Mapping[str, NetBenefit], *, width: Width = "double"
) -> Figure:
    """a: net benefit by threshold; b: how much more of it one has than treating all patients or the reference model.

    Args:
        benefit: of each strategy, by label.
        over: differences with their 95 % intervals, by what they are against.
        width: "single" (one above the other) or "double" (side by side).
    """
    across = 2 if width == "double" else 1
    pitch, height = WIDTH_MM[width] / across, 48.0
    down = 2 // across
    figure = page(width, down * (_TOP + height + _BOTTOM))
    left = _LEFT + 3.0
    for i, (shown, ylabel) in enumerate(((benefit, "Net benefit"), (over, "Difference in net benefit"))):
        foot = (down - 1 - i // across) * (_TOP + height + _BOTTOM) + _BOTTOM
        axes = panel(figure, (i % across) * pitch + left, foot, pitch - left - _RIGHT, height)
        axes.axhline(0.0, color="black", lw=0.8)
        colors = CYCLE if i else model_colors(list(shown))
        for k, (label, curve) in enumerate(shown.items()):
            known = np.logical_and.accumulate(np.isfinite(curve.value))  # beyond a gap too few are left to estimate it
            axes.plot(curve.thresholds[known], curve.value[known], color=colors[k], ls=DASHES[k], label=label)
            if i:
                axes.fill_between(curve.thresholds, curve.low, curve.high, color=CYCLE[k], alpha=0.15, lw=0)
        values = np.concatenate([curve.value for curve in shown.values()]) if shown else np.zeros(1)
        top = max(float(np.nanmax(values, initial=0.01)), 0.01)
        axes.xaxis.set_major_locator(MaxNLocator(6))  # few, so that they stay apart
        axes.set(xlabel="Threshold probability", ylabel=ylabel, ylim=(-0.35 * top if i == 0 else None, None))
        if shown:
            axes.legend(loc="best", fontsize=SMALL)
        axes.text(-left / (pitch - left - _RIGHT) + 0.02, 1.03, "ab"[i], transform=axes.transAxes, weight="bold")
    return figure


@drawn
def trend_figure(trends: Mapping[str, HazardTrend], *, width: Width = "double") -> Figure:
    """Scaled Schoenfeld residuals with a smooth curve and its band: a level line is a proportional hazard.

    Args:
        trends: by the label of the variable.
        width: "single" (one panel a row) or "double" (three).
    """
    across = 1 if width == "single" else min(max(len(trends), 2), 3)
    pitch, height = WIDTH_MM[width] / across, 40.0
    down = -(-len(trends) // across)
    figure = page(width, down * (_TOP + height + _BOTTOM))
    for i, (label, trend) in enumerate(trends.items()):
        foot = (down - 1 - i // across) * (_TOP + height + _BOTTOM) + _BOTTOM
        left = _LEFT + 1.0
        axes = panel(figure, (i % across) * pitch + left, foot, pitch - left - _RIGHT, height)
        axes.axhline(trend.coef, color=GREY, lw=0.8, ls=(0, (4, 3)))
        axes.plot(trend.time, trend.residual, ".", ms=2.5, color=GREY, alpha=0.7)
        axes.plot(trend.grid, trend.smooth, color=BLUE)
        axes.fill_between(trend.grid, trend.low, trend.high, color=BLUE, alpha=0.15, lw=0)
        spread = np.nanpercentile(trend.residual, [2, 98])
        axes.set(xlabel="Months", ylabel="Log hazard ratio at the time",
                 ylim=(min(spread[0], float(trend.low.min()), 0.0), max(spread[1], float(trend.high.max()), 0.0)))
        axes.set_title(wrap(label, pitch - left), loc="left", fontsize=SMALL)
    return figure


def _limits(c: Mapping[str, Mapping[str, Estimate]]) -> tuple[float, float]:
    """Common limits of all panels, rounded outwards to tenths."""
    values = [each for by_model in c.values() for e in by_model.values() for each in (e.value, e.low, e.high)
              if isfinite(each)]
    return (np.floor(10 * min([0.45, *values])) / 10, np.ceil(10 * max([0.75, *values])) / 10)
