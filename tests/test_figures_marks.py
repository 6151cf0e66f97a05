"""What the figures of the paper draw, against numbers that were worked out by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.report.figures import (
    Panel,
    decision_figure,
    forest_figure,
    kaplan_meier_figure,
    kaplan_meier_panels,
    nomogram_figure,
    roc_figure,
)
from mtdlr.report.figures.page import BLUE, CYCLE, GREY, VERMILLION, WINE, text_width
from mtdlr.report.figures.survival_curves import incidence_panels
from mtdlr.stats.competing import cumulative_incidence
from mtdlr.stats.decision import decision_curve
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.roc import roc
from mtdlr.survival import Survival

NAN, INF = float("nan"), float("inf")
# Eight patients: events at 2, 4, 8, 12, 14 months, so that S is 7/8, then times 6/7, 4/5, 2/3, 1/2.
EIGHT = Survival(np.arange(2.0, 18.0, 2.0), [True, True, False, True, False, True, True, False])
# Ten patients of whom every second has the event: S is 9/10, then times 7/8, 5/6, ...
TEN = Survival(np.arange(1.0, 11.0), [True, False] * 5)


def labelled(axes: Axes, label: str) -> Line2D:
    """The only line with a label."""
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


def at(line: Line2D, month: float) -> float:
    """The height of a curve of steps at a month: its last value up to then."""
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    return float(y[np.searchsorted(x, month, side="right") - 1])


def written(figure: Figure, text: str) -> list[tuple[float, float]]:
    """Where on a page in mm a text is anchored."""
    return [each.get_position() for axes in figure.axes for each in axes.texts if each.get_text() == text]


@pytest.mark.parametrize(("month", "height"), [
    (0.0, 1.0), (1.9, 1.0), (2.0, 7 / 8), (3.9, 7 / 8), (4.0, 3 / 4), (7.9, 3 / 4), (8.0, 3 / 5), (10.0, 3 / 5)])
def test_the_curve_is_kaplan_meiers(month: float, height: float) -> None:
    """At each month the curve has the height of the product of (n - d) / n, worked out by hand."""
    axes = kaplan_meier_figure({"All": kaplan_meier(EIGHT)}).axes[0]
    curve = labelled(axes, "All")
    assert curve.get_drawstyle() == "steps-post" and at(curve, month) == pytest.approx(height)


def test_censored_patients_are_marked_on_the_curve() -> None:
    """A small mark stands where a patient leaves without the event, at the height of the curve, nowhere else."""
    axes = kaplan_meier_figure({"All": kaplan_meier(EIGHT)}).axes[0]
    (marks,) = [line for line in axes.lines if line.get_marker() == "|"]
    assert np.asarray(marks.get_xdata()).tolist() == [6.0, 10.0]
    assert np.asarray(marks.get_ydata()) == pytest.approx([3 / 4, 3 / 5])


def test_the_band_is_the_interval() -> None:
    """The band runs from the lower to the upper limit of the estimate, from 1 at the start."""
    curve = kaplan_meier(EIGHT)
    axes = kaplan_meier_figure({"All": curve}).axes[0]
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert band[:, 1].max() == 1.0 and band[:, 1].min() == pytest.approx(curve.low[curve.at_risk >= 4].min())
    assert band[:, 0].max() == 10.0


def test_patients_at_risk_are_counted_just_before_each_month() -> None:
    """Of eight patients 8, 7, 6, 4, 3 and 1 are left before months 0, 3, 6, 9, 12 and 15, from left to right."""
    figure = kaplan_meier_figure({"All": kaplan_meier(EIGHT)})
    assert figure.axes[0].get_xticks().tolist() == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
    row = [text for text in figure.axes[1].texts if text.get_text().isdigit()]
    assert [text.get_text() for text in row] == ["8", "7", "6", "4", "3", "1"]
    places = [text.get_position()[0] for text in row]
    assert np.diff(places) == pytest.approx(np.full(5, places[1] - places[0])) and places[1] > places[0]


def test_each_row_at_risk_has_the_colour_and_name_of_its_curve() -> None:
    """The names beneath the panel are printed in the colours of the curves, in the order of the key."""
    figure = kaplan_meier_figure({"Low": kaplan_meier(EIGHT), "High": kaplan_meier(TEN)})
    colors = {line.get_label(): to_hex(line.get_color()) for line in figure.axes[0].lines}  # type: ignore[arg-type]
    rows = {text.get_text(): text for text in figure.axes[1].texts}
    assert all(to_hex(rows[name].get_color()) == colors[name] for name in ("Low", "High"))
    assert rows["Low"].get_position()[1] > rows["High"].get_position()[1]
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["Low", "High"]


def test_test_and_ratio_head_the_key() -> None:
    """Hazard ratio and P of the log-rank test stand above the key; what is not known is not printed."""
    groups = {"Low": kaplan_meier(EIGHT), "High": kaplan_meier(TEN)}
    key = kaplan_meier_figure(groups, p=0.0312, hazard_ratio=Estimate(2.5, 1.25, 5.0)).axes[0].get_legend()
    assert key is not None and key.get_title().get_text() == "HR 2.50 (1.25–5.00)\nLog-rank P = 0.031"
    bare = kaplan_meier_figure(groups).axes[0].get_legend()
    assert bare is not None and bare.get_title().get_text() in ("", "None")


def test_the_axis_is_named_after_the_endpoint() -> None:
    """The vertical axis is the probability of the study's endpoint, from 0 to 1."""
    axes = kaplan_meier_figure({"All": kaplan_meier(EIGHT)}, endpoint="overall survival").axes[0]
    assert axes.get_ylabel() == "Overall survival probability" and axes.get_xlabel() == "Months"
    assert axes.get_ylim()[0] == 0.0 and 1.0 <= axes.get_ylim()[1] < 1.05


@cache
def panels() -> Figure:
    curves = {"Low risk": kaplan_meier(EIGHT), "High risk": kaplan_meier(TEN)}
    return kaplan_meier_panels({
        "MTDLR": {"Training cohort": Panel(curves, 0.0004, Estimate(3.2, 1.9, 5.4)), "External cohort": Panel(curves)},
        "Stage": {"Training cohort": Panel(curves, 0.2), "External cohort": Panel({}, why="All are of one stage.")}})


def test_panels_are_lettered_row_by_row() -> None:
    """a and b are the first model's cohorts, c and d the second's, each titled with model and cohort."""
    shown = [axes for axes in panels().axes if axes.get_xlabel() == "Months"]
    heads = [[text.get_text() for text in axes.texts][:2] for axes in shown]
    assert heads == [["a", "MTDLR, training"], ["b", "MTDLR, external"], ["c", "Stage, training"],
                     ["d", "Stage, external"]]
    boxes = [axes.get_position() for axes in shown]
    assert boxes[0].y0 == boxes[1].y0 > boxes[2].y0 and boxes[0].x0 == boxes[2].x0 < boxes[1].x0


def test_a_panel_without_curves_holds_its_reason() -> None:
    """Where there is nothing to compare, the reason that was given stands in the panel, and no line."""
    empty = next(axes for axes in panels().axes if any(text.get_text() == "d" for text in axes.texts))
    assert not empty.lines and any(text.get_text().replace("\n", " ") == "All are of one stage."
                                   for text in empty.texts)


def test_all_panels_end_at_the_last_month_that_any_draws() -> None:
    """The panels share their months, up to the last at which a curve still has half of its patients at risk."""
    (limits,) = {axes.get_xlim() for axes in panels().axes if axes.get_xlabel() == "Months"}
    assert limits == pytest.approx((0.0, 10.0 * 1.01))


def test_incidence_is_aalen_johansens() -> None:
    """Cumulative incidence rises by S times the failures over those at risk: 1/8 at 1, and 3/4 of 1/5 more at 4."""
    curve = cumulative_incidence(np.arange(1.0, 9.0), [1, 2, 0, 1, 2, 1, 0, 0])
    figure = incidence_panels({"Relapse": {"Training cohort": Panel({"All": curve}, 0.03, test="Gray")}})
    line = labelled(figure.axes[0], "All")
    heights = [at(line, month) for month in (0.0, 1.0, 3.0, 4.0, 5.0)]
    assert heights == pytest.approx([0.0, 1 / 8, 1 / 8, 0.275, 0.275])
    assert any("Gray P = 0.030" in text.get_text() for text in figure.axes[0].texts)
    assert not [each for each in figure.axes[0].lines if each.get_marker() == "|"]


def test_incidence_panels_share_the_scale_of_the_highest() -> None:
    """All panels have one vertical scale, which holds every upper limit that is drawn."""
    often = cumulative_incidence(np.arange(1.0, 9.0), [1, 2, 0, 1, 2, 1, 0, 0])
    seldom = cumulative_incidence(np.arange(1.0, 9.0), [0, 2, 0, 1, 2, 0, 0, 0])
    figure = incidence_panels({"Relapse": {"Training cohort": Panel({"All": often})},
                               "Death": {"Training cohort": Panel({"All": seldom})}})
    (limits,) = {axes.get_ylim() for axes in figure.axes if axes.get_xlabel() == "Months"}
    assert limits[0] == 0.0 and limits[1] >= np.nanmax(often.high[often.at_risk >= 4])


RATIOS = {"TNM stage": Estimate(NAN), "III": Estimate(1.0), "IVa": Estimate(2.0, 1.0, 4.0, 0.049),
          "Score": Estimate(0.5, 0.25, 1.0, 0.0004), "Age": Estimate(1.1, 0.0, INF, 0.9)}


def marks(figure: Figure) -> dict[float, Line2D]:
    """The squares of a forest plot by their height."""
    return {float(np.asarray(line.get_ydata())[0]): line for line in figure.axes[0].lines if line.get_marker() == "s"}


def test_squares_stand_at_their_ratios_from_top_to_bottom() -> None:
    """Each ratio has a square at its value, in the order of the list; a heading has none, a reference an open one."""
    squares = [square for _, square in sorted(marks(forest_figure(RATIOS)).items(), reverse=True)]
    assert [float(np.asarray(square.get_xdata())[0]) for square in squares] == [1.0, 2.0, 0.5, 1.1]
    assert [to_hex(square.get_color()) for square in squares] == ["#ffffff", *[BLUE.lower()] * 3]  # type: ignore[arg-type]


def test_whiskers_are_the_intervals() -> None:
    """A line runs from the lower to the upper limit at the height of its square; a reference has none."""
    figure = forest_figure(RATIOS)
    heights = sorted(marks(figure), reverse=True)
    whiskers = {float(np.asarray(line.get_ydata())[0]): np.asarray(line.get_xdata()).tolist()
                for line in figure.axes[0].lines if line.get_marker() != "s" and len(set(line.get_ydata())) == 1}
    assert heights[0] not in whiskers
    assert whiskers[heights[1]] == [1.0, 4.0] and whiskers[heights[2]] == [0.25, 1.0]


def test_the_ratio_axis_is_logarithmic_and_holds_what_is_finite() -> None:
    """Half and double are as far from 1; the ticks are round numbers within the limits, 1 among them."""
    axes = forest_figure(RATIOS).axes[0]
    low, high = axes.get_xlim()
    assert axes.get_xscale() == "log" and low < 0.25 and 4.0 < high <= 200.0
    ticks = axes.get_xticks().tolist()
    assert 1.0 in ticks and all(low <= tick <= high for tick in ticks)
    to_pixels = axes.transData.transform
    assert to_pixels((2.0, 0))[0] - to_pixels((1.0, 0))[0] == pytest.approx(
        to_pixels((1.0, 0))[0] - to_pixels((0.5, 0))[0])


def test_numbers_of_a_row_stand_beside_its_square() -> None:
    """Ratio, interval and P of a row are printed at the height of its square, on the page in mm."""
    figure = forest_figure(RATIOS)
    paper = next(axes for axes in figure.axes if axes.texts)
    bottom = figure.axes[0].get_position().y0 * paper.get_ylim()[1]
    rows = [bottom + height for height in sorted(marks(figure), reverse=True)]
    for text, row in (("2.00 (1.00–4.00)", rows[1]), ("0.049", rows[1]), ("< 0.001", rows[2]), ("Reference", rows[0])):
        ((_, y),) = written(figure, text)
        assert y == pytest.approx(row, abs=1.5)


def test_headings_are_bold() -> None:
    """A heading and the names of the columns are bold; the rows are not."""
    weights = {text.get_text(): text.get_fontweight() for axes in forest_figure(RATIOS).axes for text in axes.texts}
    assert {weights[name] for name in ("TNM stage", "HR (95% CI)", "P")} == {"bold"}
    assert {weights[name] for name in ("IVa", "Score", "0.049")} == {"normal"}


def test_the_area_under_the_drawn_roc_is_the_concordance() -> None:
    """Of four pairs of a patient with and one without the event three are in order: the area is 3/4, as in the key."""
    axes = roc_figure({"Score": roc([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])}).axes[0]
    x, y = (np.asarray(values, dtype=float) for values in axes.lines[1].get_data())
    order = np.lexsort((y, x))
    assert np.trapezoid(y[order], x[order]) == pytest.approx(0.75)
    key = axes.get_legend()
    assert key is not None and key.get_texts()[0].get_text().startswith("Score: 0.750 (")
    assert np.asarray(axes.lines[0].get_data()).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("threshold", "benefit", "all_treated"), [(0.2, 7 / 16, 3 / 8), (0.5, 0.0, 0.0)])
def test_net_benefit_is_worked_out_by_hand(threshold: float, benefit: float, all_treated: float) -> None:
    """True positives less false positives weighed by the odds of the threshold, a patient, and the same for all."""
    surv = Survival([10.0, 70.0, 20.0, 70.0], [True, False, True, False])
    curve = decision_curve([0.1, 0.4, 0.6, 0.9], surv, 60, thresholds=[0.2, 0.5])
    axes = decision_figure({"MTDLR": curve}).axes[0]
    for label, value in (("MTDLR", benefit), ("Treat all", all_treated)):
        x, y = labelled(axes, label).get_data()
        assert float(np.interp(threshold, x, y)) == pytest.approx(value)
    assert np.asarray(labelled(axes, "Treat none").get_ydata()).tolist() == [0, 0]
    assert axes.get_xlabel().endswith("within 5 years")
    low, high = axes.get_ylim()
    assert low < 0.0 and high > 7 / 16


# 60 years of age span 1.2 and stage IV 0.6 of the log hazard: 100 and 50 points. The baseline patient has 1.0.
PUBLISHED = Nomogram.from_coefficients(
    {"age": 0.02, "stage=IV": 0.6}, baseline_survival={36: 0.8}, ranges={"age": (20.0, 80.0)},
    levels={"stage": ("III", "IV")}, baseline_log_hazard=1.0, endpoint="PFS")
PATIENT = {"age": 50, "stage": "IV"}


def heights(figure: Figure) -> dict[str, float]:
    """mm of the axis of each row, by its title: where its horizontal line lies nearest to the title."""
    (axes,) = figure.axes
    flat = [float(line.get_ydata()[0]) for line in axes.lines  # type: ignore[index]
            if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    titles = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_position()[0] < 2.0}
    return {title: min(flat, key=lambda y: abs(y - place)) for title, place in titles.items()}


def scale(figure: Figure, row: str, low: str, high: str) -> tuple[float, float]:
    """mm along the page of two numbers of a row."""
    y = heights(figure)[row]
    near = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts
            if abs(text.get_position()[1] - y) < 5.0 and to_hex(text.get_color()) == "#000000"}
    return near[low], near[high]


def mark(figure: Figure, row: str) -> tuple[float, str]:
    """mm along the page of the patient's mark in a row, and its shape."""
    y = heights(figure)[row]
    (found,) = [line for line in figure.axes[0].lines if line.get_marker() in "o<>" and line.get_ydata()[0] == y]  # type: ignore[index]
    return float(found.get_xdata()[0]), str(found.get_marker())  # type: ignore[index]


@pytest.mark.parametrize(("row", "points"), [("age", 50.0), ("stage", 50.0)])
def test_a_value_stands_under_its_points(row: str, points: float) -> None:
    """50 years are half of the span of age, and stage IV half of its effect: both marks stand under 50 points."""
    figure = nomogram_figure(PUBLISHED, patient=PATIENT)
    zero, hundred = scale(figure, "Points", "0", "100")
    place, shape = mark(figure, row)
    assert (place - zero) / (hundred - zero) * 100.0 == pytest.approx(points, abs=0.1) and shape == "o"


def test_total_points_read_off_the_survival() -> None:
    """100 points in total stand over a survival of 0.8 to the power of exp(0.02 * 50 + 0.6 - 1.0): 67 %."""
    figure = nomogram_figure(PUBLISHED, patient=PATIENT)
    zero, hundred = scale(figure, "Total points", "0", "100")
    total, below = mark(figure, "Total points")[0], mark(figure, "3-year PFS probability")[0]
    assert total == below == pytest.approx(hundred, abs=0.1) and zero < hundred
    assert written(figure, f"{100 * 0.8 ** np.exp(0.6):.0f}%")


def test_survival_stands_at_the_points_that_give_it() -> None:
    """0.6 on the survival axis lies under the total points whose log hazard is 1 + log(log 0.6 / log 0.8)."""
    figure = nomogram_figure(PUBLISHED)
    zero, hundred = scale(figure, "Total points", "0", "100")
    row = "3-year PFS probability"
    (place, _) = scale(figure, row, "0.6", "0.7")
    log_hazard = 1.0 + np.log(np.log(0.6) / np.log(0.8))
    expected = (log_hazard - 0.02 * 20.0) / 1.2 * 100.0
    assert (place - zero) / (hundred - zero) * 100.0 == pytest.approx(expected, abs=0.2)


def test_the_last_column_adds_up() -> None:
    """The points of the variables are printed beside their axes, and their sum beside the total points."""
    figure = nomogram_figure(PUBLISHED, patient=PATIENT)
    noted = {title: [text.get_text() for text in figure.axes[0].texts if to_hex(text.get_color()) == VERMILLION.lower()
                     and abs(text.get_position()[1] - y) < 1.5] for title, y in heights(figure).items()}
    assert noted["age"] == noted["stage"] == ["50"] and noted["Total points"] == ["100"]
    assert noted["Points"] == ["Patient"]


def test_a_patient_beyond_the_axis_is_an_arrow_at_its_end() -> None:
    """A value above the range is marked at the right end with an arrow that points outwards."""
    figure = nomogram_figure(PUBLISHED, patient={"age": 95, "stage": "III"})
    place, shape = mark(figure, "age")
    assert shape == ">" and place == pytest.approx(scale(figure, "Points", "0", "100")[1], abs=0.1)


def test_the_distribution_counts_the_cohorts_patients() -> None:
    """Of three patients in stage III and one in IV the bars are three to one, and stand over their levels."""
    table = pd.DataFrame({"age": [20.0, 50.0, 50.0, 80.0], "stage": ["III", "III", "III", "IV"]})
    figure = nomogram_figure(PUBLISHED, cohort=table)
    y = heights(figure)["stage"]
    bars = sorted((bar.get_x() + bar.get_width() / 2.0, bar.get_height()) for bar in figure.axes[0].patches
                  if isinstance(bar, Rectangle) and bar.get_y() == pytest.approx(y))
    zero, hundred = scale(figure, "Points", "0", "100")
    assert [height for _, height in bars] == pytest.approx([3.2, 3.2 / 3])
    assert [place for place, _ in bars] == pytest.approx([zero, (zero + hundred) / 2.0], abs=0.1)


# How colours are seen without the cones for long, middle or short waves (Machado 2009, complete).
SIGHTS = {
    "all cones": np.eye(3),
    "no long": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                         [-0.003882, -0.048116, 1.051998]]),
    "no middle": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                           [-0.011820, 0.042940, 0.968881]]),
    "no short": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                          [0.004733, 0.691367, 0.303900]]),
}


def linear(color: str) -> np.ndarray:
    """Red, green and blue as light, from 0 to 1."""
    shares = np.array([int(color[i:i + 2], 16) / 255.0 for i in (1, 3, 5)])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_colours_look_the_same(sight: str) -> None:
    """Any two of the colours of the curves differ to every kind of sight, not neighbours alone."""
    seen = np.array([SIGHTS[sight] @ linear(color) for color in CYCLE])
    distances = np.linalg.norm(seen[:, None] - seen[None, :], axis=-1)
    assert distances[np.triu_indices(len(CYCLE), 1)].min() > 0.08


@pytest.mark.parametrize("color", [GREY, VERMILLION, BLUE, WINE])
def test_small_print_is_dark_enough(color: str) -> None:
    """Coloured text has at least three times the contrast of the page (WCAG 2, graphics and large print)."""
    luminance = float(linear(color) @ [0.2126, 0.7152, 0.0722])
    assert 1.05 / (luminance + 0.05) >= 3.0


def test_labels_of_a_patients_row_stay_on_the_page() -> None:
    """The longest note of the last column ends before the edge of the page."""
    figure = nomogram_figure(PUBLISHED, patient=PATIENT, width="single")
    (axes,) = figure.axes
    notes = [text for text in axes.texts if to_hex(text.get_color()) == VERMILLION.lower()]
    assert notes and all(text.get_position()[0] + text_width(text.get_text(), bold=True) <= axes.get_xlim()[1]
                         for text in notes)
