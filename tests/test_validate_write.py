"""What a validation writes, from numbers made up by hand: tables, sentences, scores, JSON; marks for what is
missing."""

from __future__ import annotations

import json
from dataclasses import replace
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import one_study as made
import pandas as pd
import pytest

from mtdlr.cohort import Cohort
from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.shift import Shift
from mtdlr.stats.concordance import concordance
from mtdlr.stats.decision import Brier, DecisionCurve
from mtdlr.stats.inference import Test as Tested
from mtdlr.stats.pooling import Pooled
from mtdlr.stats.time_roc import TimeAuc
from mtdlr.stats.updating import Performance
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.validate import numbers, update_numbers
from mtdlr.validate import write as module
from mtdlr.validate.performance import AtMonth, CenterResult, TableValidation
from mtdlr.validate.write import (
    DONE,
    calibration_table,
    center_table,
    clear_results,
    evaluation,
    harmonisation,
    performance_figures,
    render,
    score_rows,
    summary,
    update_table,
    validation_tables,
)

IDS = [f"X{k}" for k in range(1, 5)]


def at_month(month: float, auc: Estimate = Estimate(0.75, 0.6, 0.9, 0.01)) -> AtMonth:  # noqa: B008
    """Everything at one horizon."""
    curve = TimeAuc(month, auc, nan, np.zeros(2), np.array([0.0, 1.0]), np.array([1.0, 0.0]), 7, 3)
    grid = np.array([0.1, 0.2])
    decision = DecisionCurve(month, grid, np.array([nan, nan]), grid, grid, grid, np.array([3, 2]))
    return AtMonth(month, curve, Estimate(0.7, 0.6, 0.8), made.calibration(month),
                   Brier(month, Estimate(0.15, 0.1, 0.2), 0.2, 0.25, 0.02), decision)


def main(**changes: Any) -> TableValidation:
    """Four patients judged at two horizons."""
    known: dict[str, Any] = {
        "n": 4, "n_events": 2, "left_out": ("X9",), "risk": pd.Series([0.5, 0.2, -0.1, -0.4], index=IDS),
        "survival": pd.DataFrame({6.0: [0.5] * 4, 12.0: [0.4] * 4}, index=IDS), "c": Estimate(0.72, 0.6, 0.84),
        "months": {6.0: at_month(6.0), 12.0: at_month(12.0)}, "groups_hr": Estimate(2.0, 1.0, 4.0),
        "high": np.array([True, False, False, False])} | changes
    return TableValidation(**known)


def frozen(**changes: Any) -> SimpleNamespace:
    """The frozen model, as far as a validation's report reads it."""
    risks = pd.DataFrame({"stage": [1.0, 1.0, 0.0, 0.0], "mtdlr": [0.5, 0.25, -0.1, nan]}, index=IDS)
    predicted = pd.DataFrame({6.0: [0.5, 0.6, 0.7, nan], 12.0: [0.3, 0.4, 0.5, nan]}, index=IDS)
    return SimpleNamespace(**{
        "digest": "feedfeedfeedfeed", "facts": {"n": 100}, "aggregates": None, "cutoffs": {"mtdlr": 0.25},
        "study": SimpleNamespace(nomogram=SimpleNamespace(months=(6.0, 12.0))),
        "models": (SimpleNamespace(name="stage", label="Stage"), SimpleNamespace(name="mtdlr", label="MTDLR")),
        "risks": lambda rows: risks, "predicted": lambda rows: {"mtdlr": predicted}} | changes)


def validation(**changes: Any) -> Any:
    """A validation on the four external patients; what is given replaces its parts."""
    rows = made.table().loc[IDS]
    own, scores = frozen(), pd.DataFrame({"deepmts": [1.0, 0.5, 0.0, nan]}, index=IDS)
    findings = SimpleNamespace(evaluations={("stage", "external"): made.evaluation("stage"),
                                            ("mtdlr", "external"): made.evaluation()}, risks=own.risks(rows))
    known = {"model": own, "study": Study.of(made.SETTINGS), "cohort": Cohort(rows, {}), "followed": True,
             "shifts": {"X1": Shift({"uptake": 0.4}), "X2": Shift({"uptake": 0.9995}, (Problem("E-SHIFT", "far"),))},
             "scores": scores, "bounds": pd.Series([12.0, 9.0, nan, 3.0], index=IDS), "findings": findings,
             "main": main(), "update": None, "problems": (), "harmonised": {}, "risks": own.risks(rows),
             "predicted": own.predicted(rows)["mtdlr"]} | changes
    return SimpleNamespace(**known)


def update() -> Any:
    """An update of the slope, judged before and after."""
    poor, good = Performance(0.7, 0.8, 1.5, 0.1), Performance(0.7, 0.98, 1.02, 0.155)
    return SimpleNamespace(
        update=SimpleNamespace(method="slope", n=200, n_events=60, slope=1.25, shrinkage=nan), month=12.0,
        received=poor,
        cross_validated={"baseline": replace(good, ipa=nan), "slope": good, "refit": good},
        optimism=SimpleNamespace(apparent=good, corrected=replace(good, c=0.69), resamples=50, failed=1),
        test=SimpleNamespace(chosen="baseline", against_none=Tested(9.0, 2.0, 0.0111),
                             against_baseline=Tested(1.0, 1.0, 0.32), against_slope=Tested(nan, 1.0, nan)),
        effective_n=(nan, 87.4),
        problems=(Problem("W-UPDATEWORSE", "a smaller one does as well"), Problem("W-OTHER", "not here")))


# ---- tables ----------------------------------------------------------------------------------------------------------

def test_models_are_told_as_they_were_received() -> None:
    """Each model with patients and events, C, Uno's C of its own risks, the AUC of each month and the ratio of its
    groups."""
    table = validation_tables(validation())[2]
    assert table.header == ("Model", "n / events", "C-index (95% CI)", "Uno's C", "AUC at 6 months", "AUC at 12 months",
                            "HR of the risk groups")
    known = Survival([3.0, 6.0, 9.0], [True, True, False])
    uno = concordance(np.array([0.5, 0.25, -0.1]), known, weighting="uno", tau=12.0).c
    assert table.rows[1][:3] == ("MTDLR", "120 / 110", "0.720 (0.660-0.780)") and f"{uno.value:.3f}" in table.rows[1][3]
    assert table.rows[1][4:] == ("0.750 (0.650-0.850)", "0.700 (0.600-0.800)", "3.000 (1.200-7.500)")


def test_a_model_that_cannot_be_judged_has_dashes() -> None:
    """No C, no area and no groups are dashes under their own heads; the row is as long as the header."""
    blind = made.evaluation(c=None, auc={}, auc_vs_stage={}, groups=None)
    own = validation()
    own.findings.evaluations["mtdlr", "external"] = blind
    table = validation_tables(own)[2]
    assert len(table.rows[1]) == len(table.header) and table.rows[1][4:] == ("-", "-", "-")
    assert table.rows[1][2] == "-"


def test_calibration_stands_by_month() -> None:
    """O/E, slope, distances, P of GND, AUC, Uno's C, Brier and IPA, and Harrell's C below; without it a dash."""
    table = calibration_table(main())
    assert table.rows[0] == ("6", "1.100 (0.900-1.300)", "0.900 (0.600-1.200)", "0.041", "0.030", "0.080", "0.570",
                             "0.750 (0.600-0.900)", "0.700 (0.600-0.800)", "0.150 (0.100-0.200)", "0.250")
    assert table.footnotes[0].startswith("Harrell's C 0.720 (0.600-0.840). ")
    assert calibration_table(main(c=None)).footnotes[0].startswith("Harrell's C -. ")


def test_centres_stand_above_what_is_pooled() -> None:
    """Each centre, then the pooled numbers and how much the centres differ; a measure that was not pooled is a dash;
    with too few centres nothing is pooled."""
    one = CenterResult("B", 30, 12, Estimate(0.7, 0.6, 0.8), made.OE, Estimate(nan))
    pooled = Pooled(3, Estimate(0.69, 0.6, 0.77), (0.5, 0.8), 0.01, 0.456, Tested(3.1, 2.0, 0.21))
    rows = center_table(main(centers=(one,), pooled={"c": pooled})).rows
    assert rows == (("B", "30 / 12", "0.700 (0.600-0.800)", "1.100 (0.900-1.300)", "not estimable"),
                    ("Pooled", "", "0.690 (0.600-0.770)", "-", "-"), ("Between centres, I2", "", "46%", "-", "-"))
    assert len(center_table(main(centers=(one,))).rows) == 1


def test_an_update_is_judged_on_patients_left_out_of_it() -> None:
    """As received, each method on left-out patients, and the chosen one after the bootstrap; the closed test, sizes and
    the warning below, and no other warning."""
    table = update_table(update())
    assert table.rows == (("as received", "0.700", "0.800", "1.500", "0.100"),
                          ("baseline, left-out patients", "0.700", "0.980", "1.020", "-"),
                          ("slope, left-out patients", "0.700", "0.980", "1.020", "0.155"),
                          ("refit, left-out patients", "0.700", "0.980", "1.020", "0.155"),
                          ("slope, bootstrap-corrected", "0.690", "0.980", "1.020", "0.155"))
    assert table.footnotes[0] == ("Made: slope, from 200 patients with 60 events. Closed test: baseline (P against "
                                  "none "
                                  "0.011, baseline 0.320, slope -).")
    assert table.footnotes[1].endswith("not known as received and 87 updated.")
    assert len(table.footnotes) == 3 and "W-UPDATEWORSE" in table.footnotes[2]


def test_tables_come_as_there_is_something_to_tell() -> None:
    """Without follow-up there are two tables; with it four; centres and an update add one each."""
    def titles(**changes: Any) -> list[str]:
        return [table.title for table in validation_tables(validation(**changes))]

    assert len(titles(main=None, findings=None)) == 2 and len(titles()) == 4
    one = CenterResult("B", 30, 12, *[Estimate(nan)] * 3)
    assert titles(main=main(centers=(one,)), update=update())[4:] == ["By centre", "Update of the nomogram at 12 "
                                                                                   "months"]


def test_harmonisation_names_its_policy() -> None:
    """What was done with the features of each mask and centre, with its patients; a model that harmonises none says
    so."""
    policies = (SimpleNamespace(center="B", policy="stored", n=3), SimpleNamespace(center="C", policy="none", n=1))
    rows = harmonisation(validation(harmonised={"auto": policies}))
    assert rows[2:4] == [("Features of the predicted mask, centre B", "stored", DONE["stored"], "3"),
                         ("Features of the predicted mask, centre C", "none", DONE["none"], "1")]
    assert len(rows) == 5 and {row[3] for row in rows[:2]} == {"4"}
    assert harmonisation(validation())[2][:2] == ("Radiomics features", "none")


# ---- sentences, scores, JSON -----------------------------------------------------------------------------------------

def test_the_summary_begins_with_who_was_judged_and_refused() -> None:
    """Patients, refusals in words, events, C, and a line a horizon."""
    lines = summary(validation())
    assert lines[0].startswith("4 patients were judged. 1 of those who came in was refused")
    assert lines[1:3] == ["2 events.", "C-index of the nomogram as received: 0.720 (0.600-0.840)."]
    assert lines[3] == ("At 6 months: O/E 1.100 (0.900-1.300), slope 0.900 (0.600-1.200), AUC 0.750 (0.600-0.900).")
    none = summary(validation(shifts={}))[0]
    assert "None of those who came in was refused" in none
    far = Shift({}, (Problem("E-SHIFT", "far"),))
    assert "2 of those who came in were refused" in summary(validation(shifts={"a": far, "b": far}))[0]


def test_the_summary_says_what_cannot_be_told() -> None:
    """Without follow-up there is no performance; an area without an interval is told by its cases and controls; without
    an event there is no C."""
    assert summary(validation(main=None))[1:] == ["The table has no follow-up: there are scores, no performance."]
    few = main(months={6.0: at_month(6.0, Estimate(0.9))})
    assert summary(validation(main=few))[3].endswith("AUC not told: 7 with the event, 3 followed longer.")
    assert summary(validation(main=main(c=None, n_events=0)))[1:] == ["0 events."]


def test_scores_have_group_bound_and_percentile() -> None:
    """At the cut-off a patient is at high risk; one without a risk has no group; survival is named by its month."""
    rows = score_rows(validation())
    assert list(rows.columns) == ["deepmts", "stage", "mtdlr", "survival_6", "survival_12", "risk_group",
                                  "lower_bound_months", "shift_percentile"]
    assert rows["risk_group"].tolist()[:3] == ["high", "high", "low"] and pd.isna(rows.loc["X4", "risk_group"])
    assert rows.loc["X1", "shift_percentile"] == 0.4 and pd.isna(rows.loc["X3", "shift_percentile"])
    none = score_rows(validation(model=frozen(cutoffs={})))
    assert none["risk_group"].isna().all()


def test_evaluation_json_is_plain() -> None:
    """Refused patients, numbers of every model and of the update; null for what there is not, and no nan."""
    found = json.loads(json.dumps(evaluation(validation(update=update())), allow_nan=False))
    assert found["model"] == "feedfeedfeedfeed" and found["patients"] == 4 and found["refused"] == ["X2"]
    assert found["accepted_out_of_distribution"] == [] and found["models"][1]["c"]["low"] == 0.66
    assert found["models"][1]["groups"]["hazard_ratio"]["high"] == 7.5 and found["models"][1]["oe"]["6"]["value"] == 1.1
    assert found["harmonisation"][0]["quantity"] == "SUV and CT numbers"
    assert found["update"]["shrinkage"] is None and found["update"]["effective_n"] == [None, 87.4]
    bare = evaluation(validation(main=None, findings=None))
    assert bare["main"] is None and bare["models"] == [] and bare["update"] is None


def test_accepted_scans_are_named() -> None:
    """A refusal that was accepted on request is told as such; a plain warning is not."""
    accepted = Shift({"uptake": 0.9999}, (Problem("E-SHIFT", "far", remedy="x"),)).accepted()
    warned = Shift({"uptake": 0.98}, (Problem("W-SHIFT", "at the edge", remedy="Look"),))
    found = evaluation(validation(shifts={"X1": accepted, "X2": warned}))
    assert found["accepted_out_of_distribution"] == ["X1"] and found["refused"] == []


def test_numbers_of_a_table_are_plain() -> None:
    """Months are keys, centres and pooled numbers stand by name, and what is unknown is null."""
    one = CenterResult("B", 30, 12, Estimate(0.7, 0.6, 0.8), Estimate(nan), made.OE)
    pooled = {"oe": Pooled(2, made.OE, (nan, nan), 0.02, 0.3, Tested(1.5, 1.0, 0.22))}
    found = json.loads(json.dumps(numbers(main(centers=(one,), pooled=pooled, groups_hr=None)), allow_nan=False))
    assert found["left_out"] == 1 and found["groups_hazard_ratio"] is None and found["months"]["12"]["ipa"] == 0.25
    assert found["centers"][0]["oe"]["value"] is None and found["pooled"]["oe"]["prediction"] == [None, None]
    assert found["pooled"]["oe"]["q"] == 1.5 and found["months"]["6"]["auc"]["p"] == 0.01
    own = update_numbers(update())
    assert own["closed_test"] == {"chosen": "baseline", "against_none": 0.0111, "against_baseline": 0.32,
                                  "against_slope": None}
    assert own["left_out"]["baseline"]["ipa"] is None and own["as_received"]["oe"] == 1.5
    assert own["optimism"]["failed"] == 1 and own["optimism"]["corrected"]["c"] == 0.69


# ---- files -----------------------------------------------------------------------------------------------------------

def test_only_figures_that_say_something_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration without groups, an area or a net benefit that is not known gives no figure; the others are files
    and data addresses."""
    drawn = []
    for name in ("calibration_figure", "roc_figure", "decision_figure"):
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: drawn.append((name, args, kwargs)) or name)
    monkeypatch.setattr(module, "save", lambda figure, path: path.write_text(str(figure)))
    shown = performance_figures(main(), tmp_path / "new", "OS")
    assert [name for name, *_ in drawn] == ["roc_figure"] and list(drawn[0][1][0]) == ["6 months", "12 months"]
    assert shown == {"ROC of the nomogram": "data:image/svg+xml;base64,cm9jX2ZpZ3VyZQ=="}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["roc.svg"]
    nothing = main(months={6.0: at_month(6.0, Estimate(nan))})
    assert all(performance_figures(one, tmp_path, "OS") == {} for one in (nothing, main(months={})))
    assert list(performance_figures(nothing, tmp_path, "OS", "groups")) == [  # type: ignore[arg-type]
        "Risk groups at the frozen cut-off"]


def test_an_earlier_report_leaves_no_table_behind(tmp_path: Path) -> None:
    """Tables and figures go, everything else stays."""
    for name in ("tables/table9.csv", "figures/old.svg", "updated-model/bundle.json"):
        made.write_json((tmp_path / name).parent, Path(name).name, "old")
    clear_results(tmp_path)
    clear_results(tmp_path / "not" / "yet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not", "updated-model"]


def test_the_page_escapes_what_a_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are numbered as they come, warnings are grouped, and markup of a title or a cell is text."""
    monkeypatch.setattr(module, "write_table", lambda table, folder: None)
    tables = validation_tables(validation())
    evil = replace(tables[1], rows=(("<script>x</script>", "a", "b", "c"),))
    page = render(tmp_path, [evil, tables[0]], {}, title="A <b>study</b>", summary=["One line."],
                  problems=[Problem("W-SHIFT", "far")], parent="feed")
    assert "Table 1. Harmonisation of this cohort" in page and "Table 2. Patients of this cohort" in page
    assert "<script>x" not in page and "<b>study" not in page and "W-SHIFT" in page and "One line." in page
