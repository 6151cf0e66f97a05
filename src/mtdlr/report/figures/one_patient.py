"""One patient's numbers as figures: survival over time, and the risk among those of the training patients."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtdlr.nomogram import Nomogram
from mtdlr.report.figures.page import (
    BLUE,
    GREY,
    NORMAL,
    PALE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH_MM,
    drawn,
    page,
    panel,
    percent,
)
from mtdlr.shift import TrainingRisks

_STEPS = 240
_HEIGHT, _LEFT, _RIGHT, _BOTTOM = 50.0, 12.0, 8.0, 10.0  # mm
_BINS = 16


@drawn
def survival_curve_figure(nomogram: Nomogram, patient: Mapping[str, Any]) -> Figure:
    """The survival of one patient over time with its 95 % interval, and its values at the horizons.

    Args:
        nomogram: fitted; of a published one only the horizons are known, and they alone are drawn.
        patient: a value of every variable.
    """
    figure = page("single", _HEIGHT + _BOTTOM + 3.0)
    axes = panel(figure, _LEFT, _BOTTOM, WIDTH_MM["single"] - _LEFT - _RIGHT, _HEIGHT)
    last = max(nomogram.months)
    if not nomogram.published:
        last = max(last, float(nomogram.cox.baseline.last_month[0]))
        times = np.linspace(0.0, float(nomogram.cox.baseline.last_month[0]), _STEPS)[1:]
        curve = nomogram.survival(patient, times)
        value, low, high = (np.append(1.0, part[0]) for part in (curve.value, curve.low, curve.high))
        times = np.append(0.0, times)
        axes.fill_between(times, low, high, color=BLUE, alpha=0.18, lw=0, label="95 % interval")
        axes.plot(times, value, color=BLUE, lw=1.6)
    for month in nomogram.months:
        _mark_horizon(axes, nomogram, patient, month)
    axes.set(xlim=(0.0, last * 1.04), ylim=(0.0, 1.05), xlabel="Months", ylabel=f"{nomogram.endpoint}, %")
    axes.set_xticks(_month_ticks(last))
    axes.set_yticks([i / 5 for i in range(6)], [f"{20 * i}" for i in range(6)])
    if not nomogram.published:
        axes.legend(loc="lower left", borderaxespad=0.6)
    return figure


def _mark_horizon(axes: Axes, nomogram: Nomogram, patient: Mapping[str, Any], month: float) -> None:
    """A dot and its percentage at one horizon."""
    value = nomogram.survival(patient).estimate(0, month).value
    if not isfinite(value):
        return
    axes.plot([month, month], [0.0, value], color=GREY, lw=0.5, ls=(0, (2, 2)), zorder=1)
    axes.plot([month], [value], marker="o", ms=4.5, color=VERMILLION, mec="white", mew=0.6, zorder=5)
    axes.annotate(percent(value), (month, value), (3.5, 3.5), textcoords="offset points", ha="left", va="bottom",
                  fontsize=NORMAL, weight="bold", color=VERMILLION, zorder=6, annotation_clip=False,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})


def _month_ticks(last: float) -> NDArray[np.float64]:
    """Whole years where there are a few of them, else a round step."""
    step = next(step for step in (1, 3, 6, 12, 24, 36, 60, 120, 240, 480, 960) if last / step <= 7)
    return np.arange(0.0, last + 1e-9, step)


@drawn
def standing_figure(training: TrainingRisks, risk: float, cutoff: float) -> Figure:
    """Where one risk lies among those of the training patients; every dot is the mean of five or more of them.

    Args:
        training: the groups.
        risk: log hazard of the patient.
        cutoff: log hazard from which a patient is at high risk; nan for none.
    """
    means = np.array(training.means)
    known = np.array([*means, risk, *([cutoff] if isfinite(cutoff) else [])])
    room = max(float(np.ptp(known)), 1e-6) * 0.06
    low, high = float(known.min()) - room, float(known.max()) + room
    edges = np.linspace(low, high, _BINS + 1)
    places = np.clip(np.digitize(means, edges) - 1, 0, _BINS - 1)
    heights = np.array([int((places[:i] == place).sum()) for i, place in enumerate(places)]) + 1
    top = float(heights.max()) + 1.0
    figure = page("single", 30.0)
    axes = panel(figure, 4.0, 9.0, WIDTH_MM["single"] - 8.0, 15.5)
    if isfinite(cutoff):
        axes.axvspan(cutoff, high, color=PALE, alpha=0.6, lw=0, zorder=0)
        axes.plot([cutoff] * 2, [0.0, top], color=GREY, lw=0.8, ls=(0, (3, 2)), zorder=1)
    middles = (edges[:-1] + edges[1:]) / 2.0
    axes.plot(middles[places], heights - 0.4, ls="none", marker="o", ms=3.4, color=SKY, mec="white", mew=0.3)
    axes.plot([risk] * 2, [0.0, top], color=VERMILLION, lw=1.6, zorder=4)
    axes.set(xlim=(low, high), ylim=(0.0, top), xlabel="Risk (log hazard); to the right is worse")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _head(axes, risk, "this patient", VERMILLION, 0)
    if isfinite(cutoff):
        _head(axes, cutoff, "cut-off", GREY, 1)
    return figure


def _head(axes: Axes, at: float, text: str, color: str, lane: int) -> None:
    """The name of a line above it, turned inwards near the edges."""
    low, high = axes.get_xlim()
    share = (at - low) / (high - low)
    side = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    axes.annotate(text, (at, axes.get_ylim()[1]), (0.0, 1.5 + 7.5 * lane), textcoords="offset points", ha=side,
                  va="bottom", fontsize=SMALL, color=color, weight="normal" if lane else "bold", annotation_clip=False)
