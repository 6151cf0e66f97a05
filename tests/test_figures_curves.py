"""Calibration, ROC by cohort, and the labels of a nomogram's axis: what is drawn are the numbers that were given."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import one_study as made
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Rectangle

from mtdlr.estimate import Estimate
from mtdlr.report.figures import calibration_figure, decision_figure, roc_figure
from mtdlr.report.figures.curves import _loss_name, _period
from mtdlr.report.figures.labels import GAP, Label, level_labels, number_labels, ranked_labels
from mtdlr.report.figures.page import line_height, text_width
from mtdlr.stats.calibration import Calibration, SmoothCalibration
from mtdlr.stats.decision import DecisionCurve
from mtdlr.stats.goodness_of_fit import CalibrationGroups
from mtdlr.stats.inference import Test as Tested


def calibration(month: float = 12.0, **changes: object) -> Calibration:
    """Two groups of risk 0.2 and 0.6, of which 0.25 and 0.5 had the event, and a curve of three points."""
    groups = CalibrationGroups(np.array([0.2, 0.6]), np.array([0.25, 0.5]), np.array([0.1, 0.4]), np.array([0.4, 0.7]),
                               np.array([0.05, 0.05]), np.array([20, 20]), np.array([5, 10]))
    smooth = SmoothCalibration(np.array([0.1, 0.4, 0.8]), np.array([0.15, 0.35, 0.7]), np.array([0.1, 0.3, 0.6]),
                               np.array([0.2, 0.45, 0.85]))
    return replace(made.calibration(month), groups=groups, smooth=smooth, **changes)  # type: ignore[arg-type]


def bars(axes: Axes) -> list[ErrorbarContainer]:
    """The groups of a panel."""
    return [one for one in axes.containers if isinstance(one, ErrorbarContainer)]


def words(axes: Axes) -> str:
    """Everything written in a panel."""
    return "\n".join(text.get_text() for text in axes.texts)


# ---- calibration -----------------------------------------------------------------------------------------------------

def test_groups_stand_at_predicted_and_observed_survival() -> None:
    """A group's mark is one less its risks, and its whiskers run from one less the upper to one less the lower
    limit."""
    (axes,) = calibration_figure({12.0: calibration()}).axes
    (own,) = bars(axes)
    marks, _, (whiskers,) = own
    np.testing.assert_allclose(marks.get_xydata(), [[0.8, 0.75], [0.4, 0.5]])
    ends = np.sort([segment[:, 1] for segment in whiskers.get_segments()])
    np.testing.assert_allclose(ends, [[0.6, 0.9], [0.3, 0.6]])


def test_the_smooth_curve_and_its_band_are_drawn_as_survival() -> None:
    """The line has one less predicted and observed risk; the band lies between one less the limits."""
    (axes,) = calibration_figure({12.0: calibration()}).axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 3)
    np.testing.assert_allclose(curve.get_xydata(), [[0.9, 0.85], [0.6, 0.65], [0.2, 0.3]])
    edges = np.concatenate([path.vertices for band in axes.collections for path in band.get_paths()])
    at = np.isclose(edges[:, 0], 0.6)
    assert set(np.round(edges[at, 1], 3)) >= {0.7, 0.55}


def test_the_ideal_is_the_diagonal() -> None:
    """A dashed line runs from 0 to 1; both axes do too, with a tick at every fifth."""
    (axes,) = calibration_figure({12.0: calibration()}).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[0, 0], [1, 1]])
    assert axes.get_xlim() == axes.get_ylim() == (0.0, 1.0)
    np.testing.assert_allclose(axes.get_xticks(), np.arange(6) / 5)


def test_the_figures_of_a_panel_are_written_above_it() -> None:
    """Slope and O/E with their intervals, P of GND, patients and events; one event is in the singular."""
    (axes,) = calibration_figure({12.0: calibration()}).axes
    assert words(axes) == ("Slope 0.90 (0.60\N{EN DASH}1.20)\nO/E 1.10 (0.90\N{EN DASH}1.30)\nGND P = 0.57\n"
                           "n = 40, 12 events")
    one = calibration(events=1, oe=Estimate(nan), gnd=Tested(nan, nan, nan))
    (axes,) = calibration_figure({12.0: one}).axes
    assert words(axes).splitlines()[1:] == ["O/E not available", "GND P not available", "n = 40, 1 event"]


def test_axes_are_named_by_period_and_endpoint() -> None:
    """Whole years are years, other months are months; each horizon has its panel, in order."""
    figure = calibration_figure({18.0: calibration(18.0), 60.0: calibration(60.0)}, endpoint="OS")
    assert [axes.get_xlabel() for axes in figure.axes] == ["Predicted 18-month OS", "Predicted 5-year OS"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["Observed 18-month OS", "Observed 5-year OS"]
    assert (_period(12, noun=True), _period(24, noun=True), _period(1, noun=True), _period(30)) == (
        "1 year", "2 years", "1 month", "30-month")


def test_predictions_are_counted_at_the_foot() -> None:
    """The bars are counts in fiftieths of a probability, the highest a tenth of the panel; a horizon without
    predictions has none."""
    predicted = {12.0: [0.11, 0.11, 0.11, 0.11, 0.51, 0.97]}
    first, second = calibration_figure({12.0: calibration(), 24.0: calibration(24.0)}, predicted=predicted).axes
    bins = [bar for bar in first.patches if isinstance(bar, Rectangle) and bar.get_height()]
    heights = {round(bar.get_x() + bar.get_width() / 2, 3): bar.get_height() for bar in bins}
    assert heights == pytest.approx({0.11: 0.1, 0.51: 0.025, 0.97: 0.025}) and not second.patches


def test_several_cohorts_share_a_panel() -> None:
    """Each cohort has its curve, its mark and its line in the key; there is no band and no note above."""
    other = calibration(slope=Estimate(0.5, 0.2, 0.8), gnd=Tested(9.0, 2.0, 0.0004))
    (axes,) = calibration_figure({12.0: {"Training": calibration(), "External": other}}).axes
    key = [text.get_text() for text in axes.get_legend().get_texts()]
    assert key == ["Training: slope 0.90, GND P = 0.57", "External: slope 0.50, GND P < 0.001"]
    markers = [one[0].get_marker() for one in bars(axes)]
    assert len(set(markers)) == 2 and words(axes) == "" and axes.get_legend().get_frame_on() is False


def test_a_calibration_without_groups_has_its_note_alone() -> None:
    """Beyond follow-up there is no mark; the panel is there, with its axes and the figures that are known."""
    (axes,) = calibration_figure({12.0: made.calibration(12.0)}).axes
    assert bars(axes) == [] and "n = 40, 12 events" in words(axes)


# ---- ROC and decisions -----------------------------------------------------------------------------------------------

def test_roc_panels_have_their_own_key() -> None:
    """A panel a cohort with its name; the key has each area with its interval, and says what is not available."""
    curves = {"MTDLR": made.area(Estimate(0.75, 0.65, 0.85)), "Stage": made.area(Estimate(nan))}
    figure = roc_figure({"Training": curves, "External": {"MTDLR": made.area(Estimate(0.7))}}, emphasised=["MTDLR"],
                        width="double")
    assert [words(axes) for axes in figure.axes] == ["Training", "External"]
    keys = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert keys[0] == ["MTDLR: 0.750 (0.650\N{EN DASH}0.850)", "Stage: not available"] and keys[1] == ["MTDLR: 0.700"]
    drawn = figure.axes[0].lines[1]
    np.testing.assert_allclose(drawn.get_xydata(), [[0.0, 0.0], [0.5, 0.75], [1.0, 1.0]])


def test_one_cohort_has_no_name_above_it() -> None:
    """Curves without cohorts are one panel without a title."""
    (axes,) = roc_figure({"MTDLR": made.area(Estimate(0.75, 0.65, 0.85))}).axes
    assert words(axes) == "" and axes.get_xlabel() == "1 \N{MINUS SIGN} specificity"
    assert axes.get_ylabel() == "Sensitivity"


def test_net_benefit_names_its_horizon() -> None:
    """The curve is the net benefit by threshold, with treating all and none; the axis names the event's period."""
    grid = np.array([0.1, 0.2, 0.3])
    curve = DecisionCurve(24.0, grid, np.array([0.3, 0.2, nan]), np.array([0.2, 0.1, 0.0]), grid, grid, grid)
    (axes,) = decision_figure({"MTDLR": curve}).axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_array_equal(lines["MTDLR"], [0.3, 0.2, nan])
    np.testing.assert_array_equal(lines["Treat all"], [0.2, 0.1, 0.0])
    assert axes.get_xlabel().endswith("within 2 years") and axes.get_ylim() == pytest.approx((-0.075, 0.33))
    assert not np.any(lines["Treat none"]) and axes.get_xlim()[1] == pytest.approx(0.3)


@pytest.mark.parametrize(("name", "printed"), [
    ("dice_loss", "Dice loss"), ("val_c_index", "C-index"), ("val_survival_loss", "Survival loss, validation"),
    ("val_dice", "Dice")])
def test_a_column_of_a_log_is_called_as_people_call_it(name: str, printed: str) -> None:
    """Losses of the inner validation are told apart from those of training."""
    assert _loss_name(name) == printed


# ---- labels beside an axis -------------------------------------------------------------------------------------------

def touching(labels: list[Label]) -> list[tuple[str, str]]:
    """Labels of one side and lane nearer to each other than the gap."""
    return [(a.text, b.text) for i, a in enumerate(labels) for b in labels[i + 1:] if (a.side, a.lane) == (
        b.side, b.lane) and a.left < b.right + GAP - 1e-9 and b.left < a.right + GAP - 1e-9]


def test_a_label_is_as_wide_as_its_text() -> None:
    """Left, middle or right edge is where its lines are aligned; two lines are twice as high."""
    width = text_width("IVa")
    for align, share in (("left", 0.0), ("center", 0.5), ("right", 1.0)):
        assert Label(10.0, 5.0, "IVa", -1, 0, align).anchor == pytest.approx(5.0 + share * width)
    two = Label(10.0, 5.0, "IVa\nx", 1, 0)
    assert two.right == pytest.approx(5.0 + width) and two.height == pytest.approx(2 * line_height())


def test_levels_that_fit_stand_below_the_axis() -> None:
    """Far apart every level is centred under its tick, in the order of the page."""
    labels = level_labels([20.0, 60.0, 100.0], ["I", "II", "III"], 0.0, 120.0)
    assert [(one.text, one.side, one.lane, one.tick) for one in labels] == [
        ("I", -1, 0, 20.0), ("II", -1, 0, 60.0), ("III", -1, 0, 100.0)]
    assert all(one.left + text_width(one.text) / 2 == pytest.approx(one.tick) for one in labels)


def test_levels_on_one_tick_are_one_label() -> None:
    """Two levels with the same points share a label; they come from left to right whatever their order was."""
    labels = level_labels([50.0, 10.0, 50.1], ["b", "a", "c"], 0.0, 100.0)
    assert [one.text for one in labels] == ["a", "b, c"]


def test_crowded_levels_touch_nobody_and_stay_on_the_page() -> None:
    """However near one another the ticks, every level is there, within the limits, and no two of a lane touch."""
    texts = [f"level number {k}" for k in range(8)]
    for step in (0.5, 2.0, 6.0):
        for start in (5.0, 60.0):
            labels = level_labels([start + step * k for k in range(8)], texts, 0.0, 120.0)
            assert sorted(one.text.replace("\n", " ") for one in labels) == texts and touching(labels) == []
            assert all(one.left >= -1e-9 and one.right <= 120.0 + 1e-9 for one in labels)


def test_a_chosen_side_is_kept() -> None:
    """Where only one side is free, no label stands on the other."""
    labels = level_labels([10.0, 12.0, 14.0], ["first", "second", "third"], 0.0, 60.0, sides=(1,))
    assert {one.side for one in labels} == {1} and touching(labels) == []


def test_numbers_are_thinned_evenly_from_nought() -> None:
    """All numbers where there is room; else every second or fifth, with 0 among them; at the least the two ends."""
    texts = [str(10 * k) for k in range(-2, 9)]
    wide = number_labels([10.0 * k for k in range(11)], texts, -5.0, 110.0)
    assert [one.text for one in wide] == texts
    narrow = number_labels([3.0 * k for k in range(11)], texts, -5.0, 40.0)
    kept = [int(one.text) for one in narrow]
    assert 0 in kept and len(set(np.diff(kept))) == 1 and len(kept) < 11 and touching(narrow) == []
    ends = number_labels([0.0, 0.2, 0.4], ["100", "200", "300"], -20.0, 20.0, side=1)
    assert {one.text for one in ends} == {"100", "300"} and {one.side for one in ends} == {1}


def test_ranked_numbers_keep_the_important_ones() -> None:
    """Where two numbers would touch the first of the order stays; an axis that turns back has labels on both sides."""
    labels = ranked_labels([10.0, 10.5, 40.0], ["111", "222", "333"], [1, 0, 2], 0.0, 60.0)
    assert [one.text for one in labels] == ["222", "333"]
    turned = ranked_labels([10.0, 30.0, 50.0, 30.0, 10.0], list("abcde"), [0, 2, 4, 1, 3], 0.0, 60.0)
    assert {one.side for one in turned} == {-1, 1} and touching(turned) == []
