"""The figures of the paper and of the report, in journal widths, colour-blind safe, byte-stable."""

from mtdlr.report.figures.curves import (
    calibration_figure,
    decision_figure,
    roc_figure,
    training_figure,
)
from mtdlr.report.figures.forest import forest_figure
from mtdlr.report.figures.nomogram import nomogram_figure
from mtdlr.report.figures.one_patient import standing_figure, survival_curve_figure
from mtdlr.report.figures.page import embedded, percent, save
from mtdlr.report.figures.precision import precision_figure
from mtdlr.report.figures.scans import attribution_figure, quality_figure, scan_figure
from mtdlr.report.figures.survival_curves import (
    Panel,
    incidence_panels,
    kaplan_meier_figure,
    kaplan_meier_panels,
)

__all__ = [
    "Panel",
    "attribution_figure",
    "calibration_figure",
    "decision_figure",
    "embedded",
    "forest_figure",
    "incidence_panels",
    "kaplan_meier_figure",
    "kaplan_meier_panels",
    "nomogram_figure",
    "percent",
    "precision_figure",
    "quality_figure",
    "roc_figure",
    "save",
    "scan_figure",
    "standing_figure",
    "survival_curve_figure",
    "training_figure",
]
