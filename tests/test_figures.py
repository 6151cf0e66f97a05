"""The figures as printed: nothing overlaps, nothing is cut off, the same figure is the same bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mtdlr.errors import StudyError
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.axes import by_importance
from mtdlr.report.figures import (
    Panel,
    calibration_figure,
    decision_figure,
    forest_figure,
    kaplan_meier_figure,
    kaplan_meier_panels,
    nomogram_figure,
    roc_figure,
    save,
    scan_figure,
    training_figure,
)
from mtdlr.report.figures.labels import level_labels, number_labels, ranked_labels
from mtdlr.report.figures.page import CYCLE, WIDTH_MM, Width, model_colors, number, text_width, wrap
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.decision import decision_curve
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.roc import roc
from mtdlr.stats.terms import Continuous, Factor, Interaction, Spline
from mtdlr.stats.time_roc import auc_at
from mtdlr.survival import Survival
from mtdlr.volume import Volume

HISTOLOGY = ("Undifferentiated carcinoma", "Well differentiated squamous cell carcinoma", "Adenoid cystic",
             "Mucoepidermoid carcinoma, low grade", "Mucoepidermoid carcinoma, high grade", "Lymphoepithelial",
             "Basaloid squamous", "Spindle cell", "Sarcomatoid", "Other or not otherwise specified", "Unknown",
             "Small cell")
LONG = "A very long name that nobody would print (natural logarithm of the plasma EBV DNA load in copies per ml)"
both_widths = pytest.mark.parametrize("width", ["single", "double"])


@cache
def cohort() -> tuple[pd.DataFrame, Survival]:
    rng = np.random.default_rng(3)
    n = 240
    table = pd.DataFrame({"stage": rng.choice(["III", "IVa"], n, p=[0.8, 0.2]), "score": rng.normal(size=n),
                          "age": rng.integers(18, 84, n), "ecog": rng.integers(0, 3, n)})
    time = rng.exponential(70.0 / np.exp(0.6 * (table.stage == "IVa") + 0.9 * table.score))
    censored = rng.uniform(30.0, 110.0, n)
    return table, Survival(np.minimum(time, censored) + 0.1, time <= censored)


@cache
def simple() -> Nomogram:
    table, surv = cohort()
    return Nomogram.fit(table, surv, ["stage", "age", "ecog", "score"], [36, 60], endpoint="PFS",
                        labels={"stage": "TNM stage", "score": "DeepMTS-Score", "ecog": "ECOG status"})


@cache
def bent() -> Nomogram:
    """A spline that turns back, and an interaction."""
    table, surv = cohort()
    stage, score = Factor("stage", ("III", "IVa"), "III"), Continuous("score")
    return Nomogram.fit(table, surv, [Spline("age", (25.0, 50.0, 75.0)), stage, score, Interaction(stage, score)],
                        [18, 60])


def crowded() -> Nomogram:
    """Twelve long levels within a few points of one another, long names, short axes."""
    effects = np.random.default_rng(0).normal(0.0, 0.15, len(HISTOLOGY) - 1)
    coefficients = dict(zip((f"histology={level}" for level in HISTOLOGY[1:]), effects.tolist(), strict=True))
    return Nomogram.from_coefficients(
        {**coefficients, LONG: 0.4, "age": 0.002, "suv": 0.05, "suv'": -0.1}, baseline_survival={36: 0.86, 60: 0.8},
        levels={"histology": HISTOLOGY}, ranges={LONG: (0.0, 7.5), "age": (14.0, 83.0), "suv": (1.0, 30.0)},
        knots={"suv": (4.0, 10.0, 20.0)}, endpoint="locoregional progression-free survival")


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is printed, with its box in pixels."""
    figure.draw_without_rendering()
    legends = [part for legend in figure.findobj(Legend) for part in (legend.get_title(), *legend.get_texts())]
    found = {id(each): each for each in [*figure.findobj(Text), *legends]}
    ticks = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
             for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) for label in (tick.label1, tick.label2)}
    shown = {id(tick.label1) for axes in figure.axes if axes.axison
             for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
             for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    return [(each.get_text(), Text.get_window_extent(each)) for key, each in found.items()
            if each.get_text().strip() and each.get_visible() and (key not in ticks or key in shown)
            and not any(each in (axes.xaxis.label, axes.yaxis.label) and not axes.axison for axes in figure.axes)]


def assert_printable(figure: Figure) -> None:
    """No text touches another, and all lie on the page."""
    page = figure.bbox
    found = texts(figure)
    assert found
    for text, box in found:
        inside = box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text!r} is cut off: {box}"
    for (first, a), (second, b) in combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, up) < 1.0, f"{first!r} touches {second!r} by {across:.0f} x {up:.0f} pixels"


PATIENT = {"stage": "IVa", "age": 61, "ecog": 2, "score": 0.7}


class TestNomogram:
    """The nomogram."""

    @pytest.mark.slow
    @both_widths
    @pytest.mark.parametrize("make", [simple, bent, crowded])
    def test_no_text_overlaps(self, make: Callable[[], Nomogram], width: Width) -> None:
        """Long names, many levels, folded and short axes: at either width no text touches another or the edge."""
        assert_printable(nomogram_figure(make(), width=width))

    @pytest.mark.slow
    @both_widths
    @pytest.mark.parametrize("make", [simple, bent])
    def test_patient_and_cohort_fit_in(self, make: Callable[[], Nomogram], width: Width) -> None:
        """With a patient's values and the cohort's distribution drawn in, still nothing overlaps."""
        table, _ = cohort()
        assert_printable(nomogram_figure(make(), patient=PATIENT, cohort=table, width=width))

    @pytest.mark.slow
    @settings(deadline=None, derandomize=True, max_examples=15)
    @given(st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=9), st.sampled_from(["single", "double"]), st.data())
    def test_any_factor_is_legible(self, effects: list[float], width: Width, data: st.DataObject) -> None:
        """Whatever a factor's effects and however long its levels, every level is printed and none touches another."""
        words = st.text("abcdefgh ", min_size=1, max_size=30).map(str.strip)
        names = [f"{i} {data.draw(words)}".strip() for i in range(len(effects) + 1)]
        nomogram = Nomogram.from_coefficients(
            {**{f"type={name}": b for name, b in zip(names[1:], effects, strict=True)}, "x": 1.0},
            baseline_survival={36: 0.8}, levels={"type": names}, ranges={"x": (0.0, 5.0)})
        figure = nomogram_figure(nomogram, width=width)
        assert_printable(figure)
        printed = " ".join(text for text, _ in texts(figure)).replace(",", "").split()
        assert all(str(i) in printed for i in range(len(names)))

    def test_the_figure_has_the_journal_width(self) -> None:
        """Single and double are 84 and 174 mm wide, the columns of Springer journals."""
        for width in ("single", "double"):
            inches = nomogram_figure(simple(), width=width).get_size_inches()[0]  # type: ignore[arg-type]
            assert inches * 25.4 == pytest.approx(WIDTH_MM[width])

    def test_the_patient_reads_as_the_model_says(self) -> None:
        """The last column lists the patient's points and survival as the nomogram computes them."""
        nomogram = simple()
        printed = [text for text, _ in texts(nomogram_figure(nomogram, patient=PATIENT))]
        points, survival = nomogram.points(PATIENT).iloc[0], nomogram.survival(PATIENT).estimate(0, 60)
        assert all(number(round(float(value), 1), 4) in printed for value in points)
        assert f"{100 * survival.value:.0f}% ({100 * survival.low:.0f}–{100 * survival.high:.0f})" in printed

    def test_ticks_stand_at_their_points(self) -> None:
        """A level's tick lies under its points on the points axis."""
        nomogram = simple()
        figure = nomogram_figure(nomogram)
        boxes = {text: (box.x0 + box.x1) / 2.0 for text, box in texts(figure)}
        zero, hundred = boxes["0"], boxes["100"]
        points = dict(zip(nomogram.axes[0].values, nomogram.axes[0].points, strict=True))["IVa"]
        lines = [line for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1]
        places = {round(float(line.get_xdata()[0]) / WIDTH_MM["double"] * figure.bbox.width) for line in lines}
        assert any(abs(place - (zero + (hundred - zero) * points / 100.0)) <= 6 for place in places)


class TestLabels:
    """The placing of labels beside an axis."""

    @settings(deadline=None, derandomize=True, max_examples=50)
    @given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=12), st.integers(1, 40))
    def test_levels_never_touch(self, ticks: list[float], letters: int) -> None:
        """No two labels of one lane touch and each holds every level it was given."""
        names = [f"{i}" + "x" * letters for i in range(len(ticks))]
        labels = level_labels(ticks, names, 0.0, 100.0)
        for a, b in combinations(labels, 2):
            assert (a.side, a.lane) != (b.side, b.lane) or a.right < b.left or b.right < a.left
        printed = "".join(label.text.replace("\n", "") for label in labels)
        assert all(name in printed for name in names)

    def test_numbers_keep_an_even_spacing(self) -> None:
        """When every number does not fit, every second, fifth or tenth is printed, from 0 on."""
        ticks = np.linspace(0.0, 20.0, 21)
        labels = number_labels(ticks.tolist(), [str(i - 10) for i in range(21)], -5.0, 25.0)
        values = [int(label.text) for label in labels]
        assert 0 in values and len(set(np.diff(values))) == 1 and len(values) < 21

    def test_a_folded_axis_has_a_side_for_each_direction(self) -> None:
        """Values that run to the right stand below, those that run back above; both ends and the turn are named."""
        ticks = [0.0, 10.0, 20.0, 30.0, 22.0, 12.0, 2.0]
        order = by_importance(list(range(7)), ticks)
        assert order[:3] == [0, 6, 3]
        sides = {label.text: label.side for label in ranked_labels(ticks, list("0123456"), order, -5.0, 35.0)}
        assert sides["0"] == sides["3"] == -1 and sides["6"] == sides["5"] == 1

    def test_a_curved_axis_keeps_its_ends(self) -> None:
        """Where ticks crowd towards one end, the ends are labelled and as many others as fit, all below."""
        ticks = [0.0, 14.0, 20.0, 22.0, 23.0, 23.6, 24.0]
        labels = ranked_labels(ticks, list("0123456"), by_importance(list(range(7)), ticks), -5.0, 30.0)
        assert {"0", "6", "1"} <= {label.text for label in labels} and {label.side for label in labels} == {-1}

    def test_wrapped_text_fits(self) -> None:
        """Wrapping keeps every letter and no line is wider than it may be."""
        wrapped = wrap(LONG + " " + "x" * 60, 20.0)
        assert wrapped.replace("\n", "").replace(" ", "") == (LONG + "x" * 60).replace(" ", "")
        assert text_width(wrapped) <= 20.0


@cache
def curves() -> dict[str, Callable[[Width], Figure]]:
    """Every other figure, by name."""
    table, surv = cohort()
    nomogram = simple()
    risk, predicted = nomogram.log_hazard(table), nomogram.survival(table).value
    high = risk > np.median(risk)
    calibrations = {month: calibrate(predicted[:, i], surv, month) for i, month in enumerate(nomogram.months)}
    ratios = nomogram.cox.hazard_ratios()
    rows = {"TNM stage": Estimate(nan), "III": Estimate(1.0), "IVa": ratios["stage=IVa"],
            "WHO type I, without events": Estimate(nan, nan, nan, 0.98), LONG: Estimate(0.4, 0.01, 3.0, 0.031),
            "Score": ratios["score"]}
    rocs = {"MTDLR nomogram": roc(risk, surv.event), "Score": roc(table.score, surv.event),
            "At 36 months": auc_at(risk, surv, 36)}
    log = [{"epoch": float(i), "joint": float(i > 9), "dice_loss": -0.5 - i / 50, "val_c_index": 0.5 + i / 100,
            "val_dice": i / 30, "val_survival_loss": 2.0, "seconds": 1.0, "memory_mb": 9.0} for i in range(20)]
    thresholds = np.arange(0.05, 0.6, 0.05)
    groups = {"Low risk": kaplan_meier(surv.take(~high)),
              "A group with a very long name that wraps": kaplan_meier(surv.take(high))}
    return {
        "roc": lambda width: roc_figure(rocs, width=width),
        "roc by cohort": lambda width: roc_figure({"Training": rocs, "Internal": rocs, "External": rocs}, width=width),
        "kaplan-meier": lambda width: kaplan_meier_figure(groups, p=0.0004, hazard_ratio=Estimate(3.2, 1.9, 5.4),
                                                          endpoint="PFS", width=width),
        "calibration": lambda width: calibration_figure(
            calibrations, predicted={36.0: predicted[:, 0], 60.0: predicted[:, 1]}, endpoint="PFS", width=width),
        "calibration of cohorts": lambda width: calibration_figure(
            {36: {"Training": calibrations[36.0], "External": calibrations[36.0]}}, width=width),
        "decision": lambda width: decision_figure(
            {"MTDLR": decision_curve(predicted[:, 1], surv, 60, thresholds=thresholds)}, width=width),
        "training": lambda width: training_figure(log, width=width),
        "forest": lambda width: forest_figure(rows, width=width),
        "scan": lambda width: scan_figure(*scan(), width=width),
    }


def scan() -> tuple[Volume, Volume, dict[str, Volume]]:
    """PET and CT on different grids with a hot ball at LPS (40, 30, 60) mm, and its mask."""
    ct = Volume.on_grid(np.full((40, 50, 60), 40.0), (3.0, 2.0, 2.0))
    pet = Volume.on_grid(np.ones((30, 30, 30)), (4.0, 4.0, 4.0))
    points = pet.points_mm(np.stack(np.indices(pet.shape), axis=-1))
    ball = np.linalg.norm(points - [40.0, 30.0, 60.0], axis=-1) < 12.0
    mask = pet.with_array(ball)
    return pet.with_array(np.where(ball, 12.0, 1.0)), ct, {"manual": mask, "predicted": pet.with_array(~ball & False)}


NAMES = ("roc", "roc by cohort", "kaplan-meier", "calibration", "calibration of cohorts", "decision", "training",
         "forest", "scan")


class TestFigures:
    """Every figure of the paper and of the report."""

    @pytest.mark.slow
    @both_widths
    @pytest.mark.parametrize("name", NAMES)
    def test_no_text_overlaps(self, name: str, width: Width) -> None:
        """At either width no text touches another or the edge."""
        assert_printable(curves()[name](width))

    @pytest.mark.parametrize(("name", "suffix"), [
        pytest.param("kaplan-meier", "pdf", marks=pytest.mark.slow), ("calibration", "svg"),
        pytest.param("scan", "png", marks=pytest.mark.slow)])
    def test_same_figure_same_bytes(self, name: str, suffix: str, tmp_path: Path) -> None:
        """Drawn twice, a figure is the same file byte for byte, and holds no date."""
        first, second = (save(curves()[name]("single"), tmp_path / f"{i}.{suffix}").read_bytes() for i in "ab")
        assert first == second
        assert b"20" + b"26-" not in first and b"CreationDate" not in first

    @pytest.mark.slow
    def test_saved_nomogram_is_the_same_in_another_process(self, tmp_path: Path) -> None:
        """Another process, with another hash seed, writes the same bytes."""
        code = ("import sys; sys.path.insert(0, sys.argv[2]); import test_figures as t; "
                "t.save(t.nomogram_figure(t.crowded()), sys.argv[1])")
        files = []
        for seed in ("1", "2"):
            target = tmp_path / f"{seed}.svg"
            subprocess.run([sys.executable, "-c", code, str(target), str(Path(__file__).parent)], check=True,
                           env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1] / "src")})
            files.append(target.read_bytes())
        assert files[0] == files[1]

    def test_other_formats_are_refused(self, tmp_path: Path) -> None:
        """A suffix that is not SVG, PDF, PNG, JPEG or TIFF is E-FIGUREFORMAT."""
        with pytest.raises(StudyError) as error:
            save(curves()["roc"]("single"), tmp_path / "roc.bmp")
        assert error.value.code == "E-FIGUREFORMAT"

    @pytest.mark.slow
    def test_no_global_state(self) -> None:
        """Drawing leaves matplotlib's settings as they were and never imports pyplot."""
        code = ("import sys, matplotlib as m; now = lambda: {k: m.rcParams[k] for k in m.rcParams if k != 'backend'}; "
                "before = now(); from mtdlr.report import figures; from mtdlr.estimate import Estimate; "
                "figures.forest_figure({'x': Estimate(2.0, 1.0, 4.0, 0.05)}); "
                "assert before == now(); assert 'matplotlib.pyplot' not in sys.modules")
        subprocess.run([sys.executable, "-c", code], check=True,
                       env={"PYTHONPATH": str(Path(__file__).parents[1] / "src")})

    def test_colours_are_told_apart(self) -> None:
        """Neighbouring colours of the cycle differ for normal sight and for red-green blindness (simulated)."""
        deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
        colours = np.array([[int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)] for c in CYCLE])
        for matrix in (np.eye(3), deuteranopia):
            seen = colours @ matrix.T
            assert min(np.linalg.norm(a - b) for a, b in pairwise(seen)) > 0.2


class TestContent:
    """What the figures show is what the numbers say."""

    def test_numbers_at_risk_stand_under_their_months(self) -> None:
        """Each count stands under the tick of its month, and is the curve's own."""
        _, surv = cohort()
        curve = kaplan_meier(surv)
        figure = kaplan_meier_figure({"All": curve})
        found = texts(figure)
        axes = figure.axes[0]
        months = axes.get_xticks()
        for month, count in zip(months, curve.number_at_risk(months), strict=True):
            x = axes.transData.transform((month, 0.0))[0]
            below = axes.bbox.y0
            assert any(text == str(count) and abs((box.x0 + box.x1) / 2.0 - x) < 2.0 and box.y1 < below
                       for text, box in found)

    def test_calibration_is_in_survival(self) -> None:
        """The groups are drawn as survival: one minus the risks of the calibration."""
        table, surv = cohort()
        result = calibrate(simple().survival(table).value[:, 0], surv, 36)
        assert result.groups is not None
        axes = calibration_figure({36: result}, width="single").axes[0]
        drawn = next(line for line in axes.lines if line.get_marker() == "o")
        np.testing.assert_allclose(drawn.get_xdata(), 1.0 - result.groups.predicted)
        np.testing.assert_allclose(drawn.get_ydata(), 1.0 - result.groups.observed)

    def test_a_calibration_that_could_not_be_made_is_still_a_panel(self) -> None:
        """Beyond follow-up there is no group and no curve; the panel says so instead of failing."""
        _, surv = cohort()
        result = calibrate(np.linspace(0.1, 0.9, len(surv)), surv, 500)
        figure = calibration_figure({500: result}, width="single")
        assert any("not available" in text for text, _ in texts(figure))

    def test_contours_lie_on_the_tumour(self) -> None:
        """In every plane the contour of the mask surrounds the hot ball, also when the PET is stored flipped."""
        pet, ct, contours = scan()
        flip = np.diag([-1.0, -1.0, -1.0, 1.0])
        flip[:3, 3] = np.array(pet.shape) - 1

        def stored_backwards(volume: Volume) -> Volume:
            return Volume(np.asarray(volume.array)[::-1, ::-1, ::-1], volume.affine @ flip)

        plain = scan_figure(pet, ct, contours)
        turned = scan_figure(stored_backwards(pet), ct, {k: stored_backwards(v) for k, v in contours.items()})
        for one, other in zip(plain.axes, turned.axes, strict=True):
            np.testing.assert_allclose(one.images[-1].get_array(), other.images[-1].get_array(), atol=1e-4)
            (outline,) = [line for line in one.lines if np.isnan(line.get_xdata()).any()]
            x, y = np.nanmean(outline.get_xdata()), np.nanmean(outline.get_ydata())
            hot = np.argwhere(np.asarray(one.images[-1].get_array()) > 6.0).mean(axis=0)
            assert abs(x - hot[1]) < 1.5 and abs(y - hot[0]) < 1.5

    @pytest.mark.slow
    def test_an_empty_mask_is_named(self) -> None:
        """A mask without a voxel is called empty in the key, and without any mask the hottest voxel is shown."""
        pet, ct, contours = scan()
        assert any("predicted (empty)" in text for text, _ in texts(scan_figure(pet, ct, contours)))
        assert_printable(scan_figure(pet, ct, {}))

    def test_forest_prints_the_ratios(self) -> None:
        """Ratios, references and what could not be estimated are printed as such."""
        found = [text for text, _ in texts(curves()["forest"]("double"))]
        assert "Reference" in found and "not estimable" in found and "0.40 (0.01–3.00)" in found

    def test_infinite_limits_stay_on_the_page(self) -> None:
        """An interval that runs to infinity or 0 is cut at the edge of the axis."""
        row = Estimate(2.0, 0.0, np.inf, 0.9)
        assert_printable(forest_figure({"x": row, "y": replace(row, low=1.0, high=1e12)}))

    def test_an_auc_beyond_follow_up_is_said_to_be_missing(self) -> None:
        """A ROC curve that the follow-up does not reach is named in the key as not available."""
        table, surv = cohort()
        figure = roc_figure({"At 500 months": auc_at(table.score, surv, 500), "Status": roc(table.score, surv.event)})
        assert "At 500 months: not available" in [text for text, _ in texts(figure)]

    def test_many_curves_stay_apart(self) -> None:
        """No two of fourteen curves have the same colour and dashes."""
        curve = roc([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])
        figure = roc_figure({f"Model {i}": curve for i in range(14)})
        lines = figure.axes[0].lines[1:]
        assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 14  # type: ignore[attr-defined]
        assert_printable(figure)

    @pytest.mark.slow
    def test_limit_cases_are_drawn(self) -> None:
        """One patient, a group without events, a decision curve beyond follow-up: drawn, without a warning."""
        _, surv = cohort()
        nobody = Survival(surv.time_months, np.zeros(len(surv), dtype=bool))
        groups = {"One": kaplan_meier(surv.take([0])), "None": kaplan_meier(nobody)}
        assert_printable(kaplan_meier_figure(groups, p=nan))
        beyond = decision_curve(np.linspace(0.1, 0.9, len(surv)), surv, 500, thresholds=[0.1, 0.2])
        assert_printable(decision_figure({"Model": beyond}))
        assert_printable(training_figure([{"epoch": 0.0, "dice_loss": -0.1}]))
        assert_printable(scan_figure(*scan()[:2], {}))

    def test_dollar_signs_are_not_mathematics(self) -> None:
        """A name with dollar signs is printed as it is."""
        table, surv = cohort()
        nomogram = Nomogram.fit(table, surv, ["stage", "score"], [36], labels={"score": "cost $1 to $2_x"})
        assert "cost $1 to $2_x" in " ".join(text for text, _ in texts(nomogram_figure(nomogram)))

    def test_a_ratio_without_an_estimate_is_not_printed_as_zero(self) -> None:
        """A group without events has no hazard ratio: it is called not estimable, never 0.00."""
        _, surv = cohort()
        figure = kaplan_meier_figure({"All": kaplan_meier(surv)}, hazard_ratio=Estimate(0.0))
        printed = " ".join(text for text, _ in texts(figure))
        assert "HR not estimable" in printed and "0.00" not in printed
        forest = forest_figure({"No events": Estimate(0.0, nan, nan, 0.98), "x": Estimate(2.0, 1.5, 2.7, 0.01)})
        assert "not estimable" in [text for text, _ in texts(forest)]


class TestSurvivalPanels:
    """Kaplan-Meier curves of models by cohorts."""

    def _panels(self) -> dict[str, dict[str, Panel]]:
        table, surv = cohort()
        high = table.score.to_numpy() > 0.5
        curves = {"Low risk": kaplan_meier(surv.take(~high)), "High risk": kaplan_meier(surv.take(high))}
        full = Panel(curves, 1e-9, Estimate(3.21, 2.1, 4.9))
        return {model: {"Training cohort": full, "Internal validation cohort": full,
                        "External validation cohort": Panel({}) if model == "Stage" else full}
                for model in ("MTDLR", "ManualRadio + stage", "SingleTask + stage", "Stage")}

    @pytest.mark.slow
    def test_twelve_panels_fit_a_page(self) -> None:
        """Four models in three cohorts fit a journal page, no text touches another, an empty panel says why."""
        figure = kaplan_meier_panels(self._panels(), endpoint="PFS")
        assert figure.get_size_inches()[1] * 25.4 <= 234.0
        assert_printable(figure)
        assert any("does not" in text for text, _ in texts(figure))

    def test_a_curve_ends_where_few_are_at_risk(self) -> None:
        """The drawn curve ends with five patients at risk: it does not fall to 0 with the last patient's event."""
        surv = Survival(np.arange(1.0, 41.0), np.concatenate((np.zeros(39), [1.0])))
        figure = kaplan_meier_figure({"All": kaplan_meier(surv)})
        drawn = next(line for line in figure.axes[0].lines if line.get_label() == "All")
        assert np.asarray(drawn.get_ydata()).min() == 1.0 and np.asarray(drawn.get_xdata()).max() == 36.0


def test_a_model_has_one_colour_in_every_figure() -> None:
    """The colour of a paper's model does not depend on which others are drawn; no two scores share one."""
    names = ["Stage", "ManualRadio", "SingleTask", "DeepMTS", "AutoRadio", "MTDLR", "True risk (simulated)"]
    colors = dict(zip(names, model_colors(names, ["MTDLR"]), strict=True))
    assert len(set(colors.values())) == len(names)
    for pair in (["MTDLR", "Stage"], ["DeepMTS", "AutoRadio", "MTDLR"]):
        assert model_colors(pair, ["MTDLR"]) == [colors[name] for name in pair]
    assert model_colors(["ManualRadio + stage"]) == [colors["ManualRadio"]]


def test_a_training_without_masks_has_no_dice_line() -> None:
    """A loss that is 0 throughout is not drawn, nor the survival loss of the epochs before survival is trained."""
    log = [{"epoch": float(i), "joint": float(i > 4), "dice_loss": 0.0, "survival_loss": 2.0 if i > 4 else 0.0}
           for i in range(8)]
    lines = {line.get_label(): line for line in training_figure(log).axes[0].lines}
    assert "Dice loss" not in lines
    assert np.asarray(lines["Survival loss"].get_xdata()).tolist() == [5.0, 6.0, 7.0]


def test_the_study_model_stands_out_among_rocs() -> None:
    """An emphasised ROC curve is solid and heavier than the others."""
    table, surv = cohort()
    curves = {name: roc(table.score.to_numpy() * sign, surv.event) for name, sign in (("A", 1), ("B", -1))}
    lines = roc_figure(curves, emphasised=["B"]).axes[0].lines[1:]
    assert [line.get_linewidth() for line in lines] == [0.9, 1.8] and lines[1].get_linestyle() == "-"
