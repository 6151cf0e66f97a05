"""Figures of a review and of one patient: what is drawn are the numbers that were given."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.report.figures import precision_figure, standing_figure, survival_curve_figure, training_figure
from mtdlr.report.figures.judged import auc_figure, benefit_figure, concordance_figure, trend_figure
from mtdlr.report.figures.one_patient import _month_ticks
from mtdlr.report.figures.page import FORMATS, VERMILLION
from mtdlr.report.figures.precision import write_precision
from mtdlr.stats.sample_size import LABELS, TARGETS
from mtdlr.survival import Survival

NAN = float("nan")


def texts(figure: Figure) -> list[str]:
    """Every text of a figure."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def line(axes: Axes, label: str) -> np.ndarray:
    """(2, n) the points of the line with a label."""
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return np.array(found.get_data(), dtype=float)


C = {"Training": {"MTDLR": Estimate(0.80, 0.74, 0.86), "Stage": Estimate(0.61, 0.55, 0.67)},
     "External": {"MTDLR": Estimate(0.72, 0.6, 0.83), "Stage": Estimate(NAN)}}


def test_c_stands_at_its_value_with_its_interval() -> None:
    """Each model has a mark at its C and a bar over its interval, and both are printed; a missing one is a dash."""
    figure = concordance_figure(C, emphasised="MTDLR")
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "C-index"]
    assert len(panels) == 2
    marks = [[tuple(np.ravel(one.get_data())) for one in axes.lines if len(one.get_xdata()) == 1] for axes in panels]
    assert marks == [[(0.80, 1.0), (0.61, 0.0)], [(0.72, 1.0)]]
    bars = [tuple(one.get_xdata()) for one in panels[0].lines if len(one.get_xdata()) == 2][1:]
    assert bars == [(0.74, 0.86), (0.55, 0.67)]
    assert {"0.80 (0.74\N{EN DASH}0.86)", "-", "MTDLR", "Stage"} <= set(texts(figure))


def test_all_panels_have_the_limits_of_the_widest() -> None:
    """The axes are the same in every cohort, in tenths, and hold every interval and 0.5."""
    limits = {axes.get_xlim() for axes in concordance_figure(C).axes if axes.get_xlabel()}
    (low, high), = limits
    assert low <= 0.45 and high >= 0.86 and (10 * low) % 1 == pytest.approx(0.0) == pytest.approx((10 * high) % 1)


def test_one_column_puts_the_cohorts_below_one_another() -> None:
    """In a single column the panels share their left edge, and the page is as many times as high."""
    narrow, wide = concordance_figure(C, width="single"), concordance_figure(C)
    assert narrow.get_size_inches()[1] == pytest.approx(2 * wide.get_size_inches()[1])
    assert len({round(axes.get_position().x0, 6) for axes in narrow.axes if axes.get_xlabel()}) == 1


def curve(rise: float) -> Any:
    months = np.array([6.0, 12.0, 24.0])
    auc = np.array([0.6, 0.65, 0.7]) + rise
    return SimpleNamespace(months=months, auc=auc, low=auc - 0.1, high=auc + 0.1)


def test_auc_over_time_is_drawn_as_it_is() -> None:
    """Each model's AUC at each month; the band belongs to the emphasised model alone."""
    figure = auc_figure({"External": {"MTDLR": curve(0.1), "Stage": curve(0.0)}}, emphasised="MTDLR")
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "MTDLR"), [[6, 12, 24], [0.7, 0.75, 0.8]])
    np.testing.assert_allclose(line(axes, "Stage")[1], [0.6, 0.65, 0.7])
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(0.6)
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(0.9)
    assert [text.get_text() for text in figure.legends[0].texts] == ["MTDLR", "Stage"]


def benefit(values: list[float]) -> Any:
    value = np.array(values)
    return SimpleNamespace(thresholds=np.linspace(0.1, 0.4, len(values)), value=value, low=value - 0.02,
                           high=value + 0.02)


def test_net_benefit_ends_where_it_cannot_be_estimated() -> None:
    """After the first threshold without an estimate a curve is not drawn, even where later ones have one."""
    figure = benefit_figure({"MTDLR": benefit([0.2, 0.15, NAN, 0.4])},
                            {"Less treat all": benefit([0.0, 0.01, 0.02, 0.03])})
    first, second = figure.axes
    np.testing.assert_allclose(line(first, "MTDLR"), [[0.1, 0.2], [0.2, 0.15]])
    np.testing.assert_allclose(line(second, "Less treat all")[1], [0.0, 0.01, 0.02, 0.03])
    assert len(second.collections) == 1 and not first.collections
    assert [text for text in texts(figure) if text in "ab"] == ["a", "b"]


def test_nothing_to_compare_with_is_an_empty_panel() -> None:
    """Without a difference, panel b is there with its axes and no curve."""
    figure = benefit_figure({"MTDLR": benefit([0.2, 0.1])}, {}, width="single")
    assert len(figure.axes) == 2
    assert [one.get_label() for one in figure.axes[1].lines if one.get_label()[0] != "_"] == []


def test_a_trend_shows_residuals_curve_and_coefficient() -> None:
    """The dashed line is the coefficient, the curve the smooth effect, the points the scaled residuals."""
    time, grid = np.array([3.0, 8.0, 20.0]), np.linspace(3, 20, 5)
    trend: Any = SimpleNamespace(coef=0.7, time=time, residual=np.array([0.5, 1.0, 0.2]), grid=grid,
                                 smooth=np.full(5, 0.6), low=np.full(5, 0.1), high=np.full(5, 1.4))
    figure = trend_figure({"Stage IVa": trend})
    axes = figure.axes[0]
    level, points, smooth = axes.lines
    assert set(level.get_ydata()) == {0.7}
    np.testing.assert_array_equal(points.get_xdata(), time)
    np.testing.assert_array_equal(smooth.get_ydata(), trend.smooth)
    low, high = axes.get_ylim()
    assert low <= 0.0 and high >= 1.4 and axes.get_title(loc="left") == "Stage IVa"


SIZE: Any = SimpleNamespace(
    sizes=(100, 200, 400), events=(30.0, 60.0, 120.0), needed={name: 250.0 for name in TARGETS},
    widths={name: (0.4, 0.28, 0.2) for name in TARGETS})


@pytest.mark.slow
def test_the_precision_is_written_as_table_and_figure(tmp_path: Path) -> None:
    """The table has a row a size with the width of every measure; the figure is there in every format."""
    write_precision(SIZE, tmp_path)
    with (tmp_path / "validation_size.csv").open() as handle:
        header, *rows = csv.reader(handle)
    assert header == ["patients", "events", *(f"{name}_width" for name in TARGETS)]
    assert [row[:3] for row in rows] == [
        ["100", "30.0", "0.4000"], ["200", "60.0", "0.2800"], ["400", "120.0", "0.2000"]]
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", *FORMATS}


def test_a_mark_stands_where_a_target_is_reached() -> None:
    """Each measure has its curve, and a mark at the number of patients that reaches its target."""
    (axes,) = precision_figure(SIZE).axes
    for name, label in LABELS.items():
        np.testing.assert_allclose(line(axes, label), [SIZE.sizes, SIZE.widths[name]])
    marks = [np.ravel(one.get_data()).tolist() for one in axes.lines if len(one.get_xdata()) == 1]
    assert marks == [[250.0, TARGETS[name]] for name in LABELS]


@pytest.fixture(scope="module")
def nomogram() -> Nomogram:
    """A nomogram of one score in 80 patients."""
    rng = np.random.default_rng(1)
    score = rng.normal(size=80)
    surv = Survival(np.ceil(rng.exponential(40.0 * np.exp(-0.8 * score))) + 1.0, rng.random(80) < 0.7)
    return Nomogram.fit({"score": score}, surv, ["score"], [12, 24])


def test_a_patients_curve_starts_at_one_and_passes_its_horizons(nomogram: Nomogram) -> None:
    """The curve begins at 100 %, never rises, and each horizon has a dot at the survival that the nomogram gives."""
    patient = {"score": 0.4}
    (axes,) = survival_curve_figure(nomogram, patient).axes
    curve_ = np.array(axes.lines[0].get_data())
    assert curve_[:, 0].tolist() == [0.0, 1.0] and (np.diff(curve_[1]) <= 1e-12).all()
    dots = [np.ravel(one.get_data()) for one in axes.lines if one.get_marker() == "o"]
    expected = [(month, nomogram.survival(patient).estimate(0, month).value) for month in (12, 24)]
    np.testing.assert_allclose(dots, expected)
    for month, value in expected:
        assert np.interp(month, *curve_) == pytest.approx(value, abs=0.02)
    assert [f"{100 * value:.0f} %" for _, value in expected] == [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("last", "step"), [(5.0, 1), (20.0, 3), (36.0, 6), (60.0, 12), (100.0, 24), (250.0, 36)])
def test_months_are_ticked_in_whole_years_where_there_are_years(last: float, step: float) -> None:
    """At most eight ticks from 0, in a step that a reader counts in."""
    ticks = _month_ticks(last)
    assert ticks[0] == 0.0 and ticks[-1] <= last + 1e-9 and set(np.diff(ticks)) == {step} and len(ticks) <= 8


@pytest.mark.parametrize("cutoff", [0.4, NAN])
def test_a_risk_stands_among_those_of_training(cutoff: float) -> None:
    """A line at the patient's risk, one at the cut-off where there is one, and a dot for each group of training."""
    training: Any = SimpleNamespace(means=(-1.0, -0.2, 0.1, 0.1, 0.9))
    (axes,) = standing_figure(training, 0.7, cutoff).axes
    at = [one.get_xdata()[0] for one in axes.lines if len(set(one.get_xdata())) == 1 and len(one.get_xdata()) == 2]
    assert at == ([0.7] if np.isnan(cutoff) else [0.4, 0.7])
    (dots,) = [one for one in axes.lines if one.get_marker() == "o"]
    assert len(dots.get_xdata()) == 5 and dots.get_ydata().min() == pytest.approx(0.6)
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["this patient"] + ([] if np.isnan(cutoff) else ["cut-off"])
    assert axes.texts[0].get_color() == VERMILLION


def test_equal_risks_still_have_a_width() -> None:
    """Where all groups and the patient have one risk, the axis has a width and the dots lie above one another."""
    training: Any = SimpleNamespace(means=(0.5, 0.5, 0.5))
    (axes,) = standing_figure(training, 0.5, NAN).axes
    assert axes.get_xlim()[0] < 0.5 < axes.get_xlim()[1]
    (dots,) = [one for one in axes.lines if one.get_marker() == "o"]
    assert sorted(dots.get_ydata()) == pytest.approx([0.6, 1.6, 2.6])


def test_the_course_of_a_training_is_its_log() -> None:
    """Each column of the log is a line over its epochs; survival is drawn once it is learned, after the first epoch."""
    log = [{"epoch": float(k), "joint": float(k > 0), "dice_loss": 0.9 - 0.1 * k, "survival_loss": 1.0 + 0.1 * k,
            "val_dice": 0.2 + 0.1 * k, "val_c_index": 0.5 + 0.05 * k} for k in range(4)]
    drawn = [[tuple(np.round(np.asarray(one.get_ydata(), float), 6)) for one in axes.lines]
             for axes in training_figure(log).axes]
    for part, columns in zip(drawn, (("dice_loss", "survival_loss"), ("val_dice", "val_c_index")), strict=True):
        for column, rows in zip(columns, (log, log[1:]), strict=True):
            assert tuple(np.round([row[column] for row in rows], 6)) in part, column


def test_a_training_of_one_epoch_is_a_point() -> None:
    """One epoch is drawn as a mark, which a line through one point is not; several epochs have no marks."""
    for epochs, marker in ((1, "o"), (2, "")):
        log = [{"epoch": float(k), "dice_loss": -0.1, "val_dice": 0.2} for k in range(epochs)]
        assert {line.get_marker() for axes in training_figure(log).axes for line in axes.lines} == {marker}


def test_labels_of_thresholds_stay_apart() -> None:
    """However few thresholds can be estimated, the axis has at most seven labels."""
    thresholds = np.arange(0.05, 0.4, 0.05)
    value = 0.2 - thresholds
    curve: Any = SimpleNamespace(thresholds=thresholds, value=value, low=value - 0.1, high=value + 0.1)
    figure = benefit_figure({"MTDLR": curve}, {"Less treat all": curve})
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert sum(low <= tick <= high for tick in axes.get_xticks()) <= 7
