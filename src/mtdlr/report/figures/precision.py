"""How the precision of an external validation grows with its patients."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mtdlr.report.figures.page import CYCLE, DASHES, FORMATS, GREY, SMALL, WIDTH_MM, Width, drawn, page, panel, save
from mtdlr.stats.sample_size import LABELS, TARGETS, ValidationSize


def write_precision(size: ValidationSize, folder: Path) -> None:
    """Write validation_size.csv and validation_size.svg, .pdf and .png.

    Args:
        size: expected precision by number of patients.
        folder: where the files go; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "validation_size.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["patients", "events", *(f"{name}_width" for name in TARGETS)])
        for i, (n, events) in enumerate(zip(size.sizes, size.events, strict=True)):
            table.writerow([n, f"{events:.1f}", *(f"{size.widths[name][i]:.4f}" for name in TARGETS)])
    figure = precision_figure(size)
    for suffix in FORMATS:
        save(figure, folder / f"validation_size{suffix}")


@drawn
def precision_figure(size: ValidationSize, *, width: Width = "single") -> Figure:
    """Width of the 95 % interval of C, O/E, slope and standardised net benefit over the number of patients.

    A mark stands where a measure reaches its target; both axes are logarithmic.

    Args:
        size: what `validation_size` found.
        width: "single" (84 mm) or "double" (174 mm).
    """
    full = WIDTH_MM[width]
    figure = page(width, 62.0)
    axes = panel(figure, 12.0, 10.5, full - 15.0, 49.0)
    for i, (name, label) in enumerate(LABELS.items()):
        axes.plot(size.sizes, size.widths[name], color=CYCLE[i], linestyle=DASHES[i], label=label)
        if np.isfinite(size.needed[name]):
            axes.plot(size.needed[name], TARGETS[name], "o", color=CYCLE[i], markersize=4, markeredgecolor="white")
    axes.set(xscale="log", yscale="log", xlabel="Patients in the external cohort", ylabel="Width of the 95% interval")
    axes.set_xticks(size.sizes, [f"{n:,}" for n in size.sizes])
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper right", fontsize=SMALL)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.4)
    return figure
