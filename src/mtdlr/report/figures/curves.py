"""Curves: ROC, calibration, decision curves, and the course of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mtdlr.estimate import Estimate
from mtdlr.report.figures.page import (
    CYCLE,
    DASHES,
    GREY,
    MM,
    NORMAL,
    SMALL,
    WIDTH_MM,
    Width,
    drawn,
    interval_text,
    line_height,
    model_colors,
    p_text,
    page,
    panel,
    text_width,
    wrap,
)
from mtdlr.stats.calibration import Calibration
from mtdlr.stats.decision import DecisionCurve
from mtdlr.stats.roc import Roc
from mtdlr.stats.time_roc import TimeAuc

_LEFT, _BOTTOM, _TOP, _RIGHT = 12.0, 10.5, 5.0, 2.5  # mm around a panel for its labels
_SURVIVAL = ("survival_loss", "val_survival_loss", "val_c_index")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@drawn
def roc_figure(
    rocs: Mapping[str, Roc | TimeAuc] | Mapping[str, Mapping[str, Roc | TimeAuc]], *,
    emphasised: Sequence[str] = (), width: Width = "single",
) -> Figure:
    """ROC curves in square panels; the key beneath gives each area with its interval.

    Args:
        rocs: curves by label, in the order of the key; or such curves by cohort, a panel each.
        emphasised: labels drawn solid and heavy; the others are thin.
        width: "single" (84 mm, one panel a row) or "double" (174 mm, two or three).
    """
    panels = {name: curves for name, curves in rocs.items() if isinstance(curves, Mapping)}
    panels = panels or {"": {label: curve for label, curve in rocs.items() if not isinstance(curve, Mapping)}}
    across = 1 if width == "single" else min(max(len(panels), 2), 3)
    pitch = WIDTH_MM[width] / across
    side, top = pitch - _LEFT - _RIGHT, _TOP if len(panels) > 1 else _RIGHT
    keys = {name: _auc_key(curves, pitch) for name, curves in panels.items()}
    lines = max(sum(1 + entry.count("\n") for entry in entries) + 1 for entries in keys.values())
    key = line_height() * 1.15 * lines + 2.0
    down = -(-len(panels) // across)
    high = top + side + _BOTTOM + key
    figure = page(width, down * high)
    for i, (name, curves) in enumerate(panels.items()):
        foot = (down - 1 - i // across) * high + _BOTTOM + key
        axes = panel(figure, i % across * pitch + _LEFT, foot, side, side)
        _draw_rocs(axes, curves, keys[name], side, emphasised)
        if len(panels) > 1:
            axes.text(0.0, 1.0 + 1.8 / side, name, transform=axes.transAxes, va="baseline")
    return figure


@drawn
def calibration_figure(
    calibrations: Mapping[float, Calibration | Mapping[str, Calibration]], *,
    predicted: Mapping[float, ArrayLike] | None = None, endpoint: str = "survival", width: Width = "double",
) -> Figure:
    """Predicted against observed survival, a panel per month: groups with their intervals, the smoothed curve, and
    the slope, O/E and GND test above the panel.

    Args:
        calibrations: by month; of one cohort, or of several by label.
        predicted: (n,) predicted survival by month, drawn as a histogram at the foot.
        endpoint: what survival means, such as "PFS".
        width: "single" (one panel a row) or "double" (up to three).
    """
    per_row = 1 if width == "single" else min(max(len(calibrations), 2), 3)
    side = WIDTH_MM[width] / per_row - _LEFT - _RIGHT
    rows = -(-len(calibrations) // per_row)
    noted = any(not isinstance(shown, Mapping) for shown in calibrations.values())
    top = 4.0 * line_height() * 1.15 + 2.5 if noted else _TOP if len(calibrations) > 1 else _RIGHT
    pitch = side + _BOTTOM + top
    figure = page(width, rows * pitch)
    for i, (month, shown) in enumerate(calibrations.items()):
        across, down = i % per_row, i // per_row
        left = across * WIDTH_MM[width] / per_row + _LEFT
        axes = panel(figure, left, (rows - down) * pitch - top - side, side, side)
        cohorts = shown if isinstance(shown, Mapping) else {"": shown}
        if predicted is not None and month in predicted:
            _histogram(axes, np.asarray(predicted[month], dtype=np.float64))
        _draw_calibrations(axes, cohorts)
        title = f"{_period(month)} {endpoint}"
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"Predicted {title}", ylabel=f"Observed {title}")
        _even_ticks(axes)
    return figure


@drawn
def decision_figure(curves: Mapping[str, DecisionCurve], *, width: Width = "single") -> Figure:
    """Net benefit by threshold, with those of treating all and none.

    Args:
        curves: by label, of one month and one cohort.
        width: "single" (84 mm) or "double" (174 mm).
    """
    height = 55.0 if width == "single" else 75.0
    figure = page(width, _RIGHT + height + _BOTTOM)
    axes = panel(figure, _LEFT, _BOTTOM, WIDTH_MM[width] - _LEFT - _RIGHT, height)
    first = next(iter(curves.values()))
    axes.plot(first.thresholds, first.treat_all, color=GREY, lw=0.8, label="Treat all")
    axes.axhline(0.0, color="black", lw=0.8, label="Treat none")
    for i, (label, curve) in enumerate(curves.items()):
        axes.plot(curve.thresholds, curve.net_benefit, color=_color(i), ls=_dash(i), label=label, zorder=3)
    benefit = np.concatenate([first.treat_all, *(curve.net_benefit for curve in curves.values())])
    top = float(benefit[np.isfinite(benefit)].max(initial=0.01))
    axes.set(xlim=(0, float(first.thresholds.max())), ylim=(-0.25 * top, 1.1 * top), ylabel="Net benefit",
             xlabel=f"Threshold probability of the event within {_period(first.month, noun=True)}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper right")
    _make_room(axes, 0.0)
    return figure


@drawn
def training_figure(log: Sequence[Mapping[str, float]], *, width: Width = "double") -> Figure:
    """The course of a training by epoch: a, the losses; b, the inner validation set.

    Args:
        log: a row per epoch: `epoch`, losses by name, `val_...` figures; `joint` is 1 once survival is trained too,
            and before that nothing of survival is drawn; nor is what is 0 throughout (a Dice loss without masks).
        width: "single" (panels one above the other) or "double" (side by side).
    """
    log = [{name: value for name, value in row.items() if row.get("joint", 1.0) or name not in _SURVIVAL}
           for row in log]
    names = [name for name in dict.fromkeys(key for row in log for key in row)
             if name not in ("epoch", "joint", "seconds", "memory_mb", "val_c_se")
             and any(row.get(name, 0.0) != 0.0 for row in log)]
    parts = [[name for name in names if not name.startswith("val_") or name.endswith("loss")],
             [name for name in names if name.startswith("val_") and not name.endswith("loss")]]
    across = 2 if width == "double" else 1
    pitch, height = WIDTH_MM[width] / across, 50.0
    down = 2 // across
    figure = page(width, down * (height + _BOTTOM + _TOP))
    start = next((row["epoch"] for row in log if row.get("joint")), None)
    for i, (part, ylabel) in enumerate(zip(parts, ("Loss", "Validation"), strict=True)):
        foot = (down - 1 - i // across) * (height + _BOTTOM + _TOP) + _BOTTOM
        axes = panel(figure, (i % across) * pitch + _LEFT, foot, pitch - _LEFT - _RIGHT, height)
        for j, name in enumerate(part):
            points = [(row["epoch"], row[name]) for row in log if name in row]
            axes.plot(*zip(*points, strict=True), color=_color(j), ls=_dash(j), label=_loss_name(name),
                      marker="o" if len(points) == 1 else "", markersize=3)  # one epoch is a point, not a line
        if start:
            axes.axvline(start, color=GREY, lw=0.6, ls=(0, (2, 2)))
        axes.set(xlabel="Epoch", ylabel=ylabel)
        axes.margins(x=0.02)
        if part:
            axes.legend(loc="best")
        _make_room(axes, (i % across) * pitch)
        _panel_letter(axes, i, pitch - _LEFT - _RIGHT, height)
    return figure


def _auc_key(curves: Mapping[str, Roc | TimeAuc], pitch: float) -> list[str]:
    """The entries of a key that is no wider than its panel."""
    entries = [(label, interval_text(curve.auc, 3)) for label, curve in curves.items()]
    room = pitch - 13.0  # line and gaps
    return [f"{label}: {area}" if text_width(f"{label}: {area}") <= room else f"{wrap(label, room)}\n{area}"
            for label, area in entries]


def _draw_rocs(
    axes: Axes, curves: Mapping[str, Roc | TimeAuc], entries: Sequence[str], side: float, bold: Sequence[str]
) -> None:
    """The curves of one panel and, below it, its key."""
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls=(0, (4, 3)), zorder=1)
    lines = []
    colors = model_colors(list(curves), bold)
    for i, (label, curve) in enumerate(curves.items()):
        style: Any = {"ls": "-", "lw": 1.8, "zorder": 4} if label in bold else {"ls": _dash(i), "lw": 0.9, "zorder": 3}
        lines += axes.plot(1.0 - curve.specificity, curve.sensitivity, color=colors[i], clip_on=False, **style)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    _even_ticks(axes)
    axes.legend(lines, entries, loc="upper left", bbox_to_anchor=(-8.0 / side, -(_BOTTOM - 1.0) / side),
                alignment="left", title="AUC (95% CI)", title_fontproperties={"size": SMALL, "weight": "bold"})


def _panel_letter(axes: Axes, i: int, across: float, up: float) -> None:
    """a, b, c at the upper left of a panel of `across` x `up` mm."""
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "baseline"}
    axes.text(-(_LEFT - 1.5) / across, 1.0 + 1.8 / up, "abcdefghijkl"[i], weight="bold", fontsize=NORMAL + 1.5, **place)


def _histogram(axes: Axes, predicted: NDArray[np.float64]) -> None:
    """The predictions at the foot of a calibration panel."""
    counts, edges = np.histogram(predicted, bins=50, range=(0.0, 1.0))
    middles = (edges[1:] + edges[:-1]) / 2.0
    axes.bar(middles, 0.1 * counts / counts.max(), 0.017, color=GREY, alpha=0.55, lw=0, zorder=1)


def _draw_calibrations(axes: Axes, cohorts: Mapping[str, Calibration]) -> None:
    """The ideal line, and the groups and curve of each cohort."""
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls=(0, (4, 3)), zorder=1)
    for i, (label, each) in enumerate(cohorts.items()):
        color, smooth = _color(i), each.smooth
        axes.plot(1.0 - smooth.predicted, 1.0 - smooth.observed, color=color, ls=_dash(i), zorder=3,
                  label=_note(label, each))
        if not label:
            axes.fill_between(1.0 - smooth.predicted, 1.0 - smooth.low, 1.0 - smooth.high, color=color, alpha=0.15,
                              lw=0)
        if each.groups is not None:
            groups = each.groups
            observed = 1.0 - groups.observed
            spread = np.abs(np.stack([observed - (1.0 - groups.high), (1.0 - groups.low) - observed]))
            axes.errorbar(1.0 - groups.predicted, observed, yerr=spread, fmt=_MARKERS[i % len(_MARKERS)], ms=3.2,
                          color=color, mec="white", mew=0.3, elinewidth=0.6, capsize=1.2, capthick=0.6, zorder=4,
                          clip_on=False)
    if "" in cohorts:
        note = _note("", cohorts[""])
        axes.text(0.0, 1.0 + 0.02, note, transform=axes.transAxes, va="bottom", fontsize=SMALL, linespacing=1.15)
    else:
        axes.legend(loc="lower right", borderaxespad=0.6)  # curves run from the lower left to the upper right


def _note(label: str, calibration: Calibration) -> str:
    """The figures in the corner: all of them for one cohort, the test for several."""
    test = f"GND {p_text(calibration.gnd.p)}"
    if label:
        return f"{label}: slope {interval_text(Estimate(calibration.slope.value), 2)}, {test}"
    return (f"Slope {interval_text(calibration.slope, 2)}\nO/E {interval_text(calibration.oe, 2)}\n{test}\n"
            f"n = {calibration.n}, {calibration.events} event{'' if calibration.events == 1 else 's'}")


def _color(i: int) -> str:
    return CYCLE[i % len(CYCLE)]


def _dash(i: int) -> object:
    return DASHES[(i + i // len(CYCLE)) % len(DASHES)]  # the second round of colours has other dashes


def _make_room(axes: Axes, left_mm: float) -> None:
    """Narrow a panel from the left until its tick labels and its label, however long, begin at a place."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    extent = axes.yaxis.get_tightbbox()
    assert extent is not None
    missing = ((left_mm + 0.8) * MM * figure.dpi - extent.x0) / figure.bbox.width
    if missing > 0:
        box = axes.get_position()
        axes.set_position((box.x0 + missing, box.y0, box.width - missing, box.height))


def _even_ticks(axes: Axes, *, x: bool = True) -> None:
    """Ticks at every fifth of a probability."""
    ticks = [i / 5 for i in range(6)]
    axes.set_yticks(ticks)
    if x:
        axes.set_xticks(ticks)


def _period(month: float, *, noun: bool = False) -> str:
    count, unit = (f"{month / 12:g}", "year") if month % 12 == 0 else (f"{month:g}", "month")
    return f"{count} {unit}{'' if count == '1' else 's'}" if noun else f"{count}-{unit}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _loss_name(name: str) -> str:
    text = _capital(name.removeprefix("val_").replace("_", " ")).replace("C index", "C-index")
    return f"{text}, validation" if name.startswith("val_") and name.endswith("loss") else text
