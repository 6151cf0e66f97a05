"""Which figures a run has, under which letters, with which captions and numbers; what is not drawn says why."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import one_study as made
import pytest
from PIL import Image

from mtdlr.estimate import Estimate
from mtdlr.report import pictures as module
from mtdlr.report.figures.page import page, sheet
from mtdlr.report.pictures import (
    make_figures,
    page_name,
    survival_panels,
    undrawn,
    write_figures,
    write_patients,
    write_training,
)
from mtdlr.report.results import Results


class Drawn:
    """What was handed to the drawing functions, which draw nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        for name in ("nomogram_figure", "calibration_figure", "roc_figure", "kaplan_meier_figure", "training_figure"):
            monkeypatch.setattr(module, name, self._recorder(name))

    def _recorder(self, name: str) -> Any:
        def record(*args: Any, **kwargs: Any) -> str:
            self.calls.append((name, args, kwargs))
            return f"{name} {len(self.calls)}"
        return record

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Arguments of each call of one function."""
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The drawing functions, recorded."""
    return Drawn(monkeypatch)


def judged(results: Results, key: tuple[str, str], **changes: Any) -> Results:
    """The same study with another evaluation of one model in one cohort."""
    known = {**results.findings.evaluations, key: made.evaluation(*key, **changes)}
    return replace(results, findings=replace(results.findings, evaluations=known))


# ---- letters and captions --------------------------------------------------------------------------------------------

def test_figures_have_the_papers_letters(drawn: Drawn) -> None:
    """2a the nomogram, 2b on calibration by cohort, 3a on ROC by horizon, 4a on the groups of four models by cohort."""
    figures = make_figures(made.results())
    assert list(figures) == ["2a", "2b", "2c", "3a", "3b", *(f"4{letter}" for letter in "abcdefgh")]
    assert figures["2b"][0] == "Calibration of the MTDLR nomogram, training cohort."
    assert figures["2c"][0] == "Calibration of the MTDLR nomogram, external validation cohort."
    assert figures["3b"][0] == "ROC curves of the event by 12 months."
    assert figures["4a"][0] == "Risk groups of MTDLR, training cohort."
    assert figures["4d"][0] == "Risk groups of ManualRadio + stage, external validation cohort."
    assert figures["4h"][0] == "Risk groups of Stage, external validation cohort."
    assert all(caption.endswith(".") for caption, _ in figures.values())


def test_a_negative_weight_is_told_under_the_nomogram(drawn: Drawn) -> None:
    """A score whose axis runs backwards is named in the caption; a stage is not, nor a score with a positive weight."""
    caption = make_figures(made.results())["2a"][0]
    assert caption == "The MTDLR nomogram. The axis of DeepMTS-Score runs backwards: its weight is negative " \
                      "(W-NEGATIVEWEIGHT)."
    nomograms = {"mtdlr": type("N", (), {"cox": made.cox(coef=(-0.5, 0.7, 0.2))})}
    assert make_figures(made.results(model=made.model(nomograms=nomograms)))["2a"][0] == "The MTDLR nomogram."


def test_competing_events_are_told_under_the_nomogram(drawn: Drawn) -> None:
    """Where competing events are named the caption says that a probability is cause-specific."""
    plain = make_figures(made.results())["2a"][0]
    found = make_figures(made.results({"cohort": {"competing": ["2"]}}))["2a"][0]
    assert found.startswith(plain) and found.endswith("(W-COMPETING).") and "W-COMPETING" not in plain


def test_calibration_has_the_cohorts_own_predictions(drawn: Drawn) -> None:
    """Each panel gets the horizons that are known and the predictions of that cohort's patients who have one; the
    endpoint is the study's."""
    own = made.results({"cohort": {"endpoint": "OS"}})
    predicted = own.findings.predicted["mtdlr"].copy()
    predicted.loc["X2"] = nan
    own = judged(replace(own, findings=replace(own.findings, predicted={"mtdlr": predicted})), ("mtdlr", "external"),
                 calibration={6.0: made.calibration(6.0, Estimate(nan)), 12.0: made.calibration(12.0)})
    make_figures(own)
    first, second = drawn.of("calibration_figure")
    assert list(first[0][0]) == [6.0, 12.0] and list(second[0][0]) == [12.0] and second[1]["endpoint"] == "OS"
    assert first[1]["predicted"][6.0].tolist() == predicted.loc[[f"P{k}" for k in range(1, 7)], 6.0].tolist()
    assert second[1]["predicted"][12.0].tolist() == predicted.loc[["X1", "X3", "X4"], 12.0].tolist()


def test_roc_panels_have_every_model_by_its_name(drawn: Drawn) -> None:
    """A panel a cohort with a curve for each model, MTDLR emphasised; a model without that horizon has no curve."""
    own = judged(made.results(), ("deepmts", "training"), auc={12.0: made.area(Estimate(0.7))})
    make_figures(own)
    (first, options), _ = drawn.of("roc_figure")
    assert list(first[0]) == ["Training cohort", "External validation cohort"] and options["emphasised"] == ["MTDLR"]
    assert list(first[0]["External validation cohort"]) == [
        "Stage", "ManualRadio", "ManualRadio + stage", "SingleTask", "SingleTask + stage", "DeepMTS", "AutoRadio",
        "MTDLR"]
    assert "DeepMTS" not in first[0]["Training cohort"] and len(first[0]["Training cohort"]) == 7


def test_a_roc_of_one_cohort_names_it(drawn: Drawn) -> None:
    """Where one cohort alone has areas, its name stands in the caption; where none has, there is no figure."""
    blind = {key: replace(one, auc={month: made.area(Estimate(nan)) for month in (6.0, 12.0)})
             if key[1] == "external" else one for key, one in made.results().findings.evaluations.items()}
    own = made.results()
    figures = make_figures(replace(own, findings=replace(own.findings, evaluations=blind)))
    assert figures["3a"][0] == "ROC curves of the event by 6 months, training cohort."
    none = {key: replace(one, auc={6.0: made.area(Estimate(nan))}) for key, one in blind.items()}
    assert "3a" not in make_figures(replace(own, findings=replace(own.findings, evaluations=none)))


def test_the_papers_roc_is_of_the_event_status(drawn: Drawn) -> None:
    """Under 0 the curve is of the event, whenever it came."""
    own = made.results()
    status = {key: replace(one, auc={0.0: made.area(Estimate(0.8))}) for key, one in own.findings.evaluations.items()}
    figures = make_figures(replace(own, findings=replace(own.findings, evaluations=status)))
    assert figures["3a"][0] == "ROC curves of the event status." and "3b" not in figures


def test_groups_are_drawn_with_their_test(drawn: Drawn) -> None:
    """Each figure has the P and the hazard ratio of its own groups; a cohort that is not split has none, and keeps its
    letter free."""
    own = judged(made.results(), ("mtdlr", "training"), groups=None)
    own = judged(own, ("mtdlr", "external"), groups=made.groups(Estimate(9.0, 2.0, 40.0), p=0.0007))
    figures = make_figures(own)
    assert "4a" not in figures and "4b" in figures
    (groups,), options = drawn.of("kaplan_meier_figure")[0]
    assert list(groups) == ["Low risk", "High risk"] and options["p"] == 0.0007 and options["endpoint"] == "PFS"
    assert options["hazard_ratio"] == Estimate(9.0, 2.0, 40.0)


# ---- risk groups -----------------------------------------------------------------------------------------------------

def test_the_groups_of_the_stage_are_its_stages() -> None:
    """Nothing is predicted by a stage: its groups are called by the stages at and above the cut-off, and below it."""
    panels = survival_panels(made.results())
    assert list(panels) == ["MTDLR", "ManualRadio + stage", "SingleTask + stage", "Stage"]
    assert list(panels["Stage"]["Training cohort"].groups) == ["III", "IVa"]
    assert list(panels["MTDLR"]["Training cohort"].groups) == ["Low risk", "High risk"]
    assert panels["MTDLR"]["External validation cohort"].p == 0.013


def test_several_stages_stand_in_one_group() -> None:
    """II and III below the cut-off are one group in the order of the study; a stage that nobody has is not named."""
    rows = made.table().assign(tnm=["II", "III", "IVa", "III", "IVa", "II", "IVa", "IVa", "III", None])
    own = made.results({"cohort": {"factors": {"tnm": ["II", "III", "IVa", "IVb"]}}}, rows=rows)
    assert list(survival_panels(own)["Stage"]["Training cohort"].groups) == ["II, III", "IVa"]


def test_a_stage_on_both_sides_of_the_cut_off_names_no_group() -> None:
    """A level of which one patient is above and one below stands for neither group, which keeps its own name."""
    own = made.results()
    risks = own.findings.risks.copy()
    risks.loc["P2", "stage"] = 1.0
    own = replace(own, findings=replace(own.findings, risks=risks))
    assert list(survival_panels(own)["Stage"]["Training cohort"].groups) == ["Low risk", "IVa"]


@pytest.mark.parametrize(("changes", "why"), [
    ({"c": None, "n_events": 0}, "No event."), ({"c": None, "n": 0, "n_events": 0}, "No patient has a score."),
    ({"c": None, "n_events": 3}, "No patient was followed for longer than another with an event."),
    ({}, "The cut-off does not split this cohort.")])
def test_a_panel_without_groups_says_why(changes: dict[str, Any], why: str) -> None:
    """No event, no score, no order, or a cut-off that splits nobody: the panel says which."""
    own = judged(made.results(), ("mtdlr", "external"), groups=None, **changes)
    panel = survival_panels(own)["MTDLR"]["External validation cohort"]
    assert not panel.groups and panel.why == why


def test_what_is_not_drawn_is_named_with_its_reason() -> None:
    """Every cohort and horizon without calibration or ROC is named, with the reason; where all is drawn nothing is."""
    assert undrawn(made.results()) == {"2": [], "3": []}
    own = judged(made.results(), ("mtdlr", "external"), c=None, n_events=0, auc={}, calibration={}, groups=None)
    own = replace(own, findings=replace(own.findings, evaluations={
        key: replace(one, auc={}) if key[1] == "external" else one for key, one in own.findings.evaluations.items()}))
    assert undrawn(own)["2"] == [f"No calibration at {month} months in the external validation cohort: no event."
                                 for month in (6, 12)]
    assert undrawn(own)["3"] == [f"No ROC curve at {month} months in the external validation cohort: no event."
                                 for month in (6, 12)]
    late = judged(made.results(), ("mtdlr", "training"), calibration={6.0: made.calibration(6.0)})
    assert undrawn(late)["2"] == ["No calibration at 12 months in the training cohort: no event before the horizon, or "
                                  "nobody followed beyond it."]


# ---- files -----------------------------------------------------------------------------------------------------------

def test_figures_are_files_in_every_format(tmp_path: Path) -> None:
    """SVG, PDF and PNG under the figure's name; on request a TIFF of 600 dpi, packed without loss, as large as the
    page."""
    figure = page("single", 12.0)
    sheet(figure).plot([10.0, 70.0], [3.0, 9.0], color="black", lw=6.0)
    write_figures({"2a": ("A caption.", figure)}, tmp_path / "new", tiff=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "figure2a.pdf", "figure2a.png", "figure2a.svg", "figure2a.tiff"]
    width, height = figure.get_size_inches()
    with Image.open(tmp_path / "new" / "figure2a.tiff") as tiff, Image.open(tmp_path / "new" / "figure2a.png") as png:
        assert tiff.info["compression"] == "tiff_lzw" and tuple(map(round, tiff.info["dpi"])) == (600, 600)
        assert tiff.size == pytest.approx((600 * width, 600 * height), abs=1.0) and width == pytest.approx(84 / 25.4)
        assert png.size == pytest.approx((300 * width, 300 * height), abs=1.0)
        same = np.asarray(tiff.convert("L")).mean(), np.asarray(png.convert("L")).mean()
        assert same[0] == pytest.approx(same[1], abs=0.5) and 200.0 < same[0] < 254.0, "one picture, and no empty one"


def test_the_course_of_each_network_is_that_of_its_first_fold(
    tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fold's log without its learning rate and empty cells; a network that was not trained by steps has
    none."""
    monkeypatch.setattr(module, "save", lambda figure, path: path)
    head = "epoch,dice_loss,val_c_index,learning_rate\n"
    for name, text in (("a", f"{head}1,0.5,,0.001\n2,0.25,0.7,0.002\n"), ("b", f"{head}1,0.9,,0.1\n"), ("c", head)):
        made.write_json(tmp_path / name, "log.csv", text)
    networks = {"deepmts": (tmp_path / "a", tmp_path / "b"), "no-mask": (tmp_path / "c",)}
    written = write_training(made.results(model=made.model(networks=networks)), tmp_path)
    assert written == [("deepmts", tmp_path / "training_deepmts.svg")]
    (((rows,), _),) = drawn.of("training_figure")
    assert rows == [{"epoch": 1.0, "dice_loss": 0.5}, {"epoch": 2.0, "dice_loss": 0.25, "val_c_index": 0.7}]


@pytest.mark.parametrize(("patient", "begins"), [
    ("P 1", "P_1-"), ("../etc/passwd", "_etc_passwd-"), (".hidden", "hidden-"), ("病人7", "病人7"),
    ("x" * 60, "x" * 48 + "-"),
    ("a\\b:c", "a_b_c-")])
def test_a_name_of_a_page_is_a_file_in_the_folder(patient: str, begins: str) -> None:
    """No separator, no leading dot, short enough for every file system; letters of other scripts stay."""
    found = page_name(patient)
    assert found.startswith(begins) and Path(found).name == found and len(found.encode()) < 200
    assert page_name(patient) == found != page_name(f"{patient} ")


def test_pictures_lie_beside_the_pages(tmp_path: Path) -> None:
    """Each patient's picture has the page's name, and the map of the risk of those explained ends with -risk."""
    for name in ("picture.jpg", "attribution.jpg"):
        made.write_json(tmp_path / "one", name, name)
    own = made.results(pictures={"P1": tmp_path / "one", "a/b": tmp_path / "one"}, explained={"P1": tmp_path / "one"})
    write_patients(own, tmp_path / "patients")
    assert {path.name: path.read_text() for path in (tmp_path / "patients").iterdir()} == {
        "P1.jpg": "picture.jpg", f"{page_name('a/b')}.jpg": "picture.jpg", "P1-risk.jpg": "attribution.jpg"}
