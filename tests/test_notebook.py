"""In a notebook: a result is one short line, a table as HTML, text that fits a screen, and a frame to compute with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.evaluate.findings import Evaluation, Findings, RiskGroups
from mtdlr.nomogram import Nomogram
from mtdlr.pipeline import Run
from mtdlr.signature import Signature
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.stats.log_rank import group_hazard_ratio, log_rank
from mtdlr.stats.time_roc import auc_at
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.workers.planning import Stored

LONGEST = 250  # letters of a repr


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two hundred patients with a stage, a score and follow-up; ids as index."""
    random = np.random.default_rng(3)
    score, stage = random.normal(size=200), np.where(random.random(200) < 0.5, "III", "IVa")
    time = random.exponential(40 * np.exp(-0.7 * score - 0.5 * (stage == "IVa"))) + 0.1
    return pd.DataFrame({"tnm_stage": stage, "score": score, "time_months": np.minimum(time, 80.0),
                         "event": time < 80.0}, index=[f"P{n:03d}" for n in range(200)])


def _surv(table: pd.DataFrame) -> Survival:
    return Survival(table["time_months"].to_numpy(), table["event"].to_numpy(bool))


@pytest.fixture(scope="module")
def nomogram(table: pd.DataFrame) -> Nomogram:
    return Nomogram.fit(table, _surv(table), ["tnm_stage", "score"], [36.0, 60.0], endpoint="PFS")


@pytest.fixture(scope="module")
def evaluation(table: pd.DataFrame, nomogram: Nomogram) -> Evaluation:
    surv, risk = _surv(table), nomogram.log_hazard(table)
    high = risk >= np.median(risk)
    groups = RiskGroups(0.0, {"high": kaplan_meier(surv.take(high)), "low": kaplan_meier(surv.take(~high))},
                        log_rank(high, surv), group_hazard_ratio(high, surv))
    predicted = nomogram.survival(table).value
    return Evaluation("mtdlr", "training", 200, surv.n_events, concordance(risk, surv), None,
                      {36.0: auc_at(risk, surv, 36.0)}, {},
                      {36.0: calibrate(predicted[:, 0], surv, 36.0)}, groups)


SIGNATURE = Signature(("a_glcm", "b_shape", "c_first"), (0.0, 1.0, 2.0), (1.0, 2.0, 3.0), (0.1, -0.6, 0.3), 0.05,
                      (0.9, 1.0, 0.4), 200, 60, 1456)


def test_a_cox_fit(table: pd.DataFrame) -> None:
    """One row a column, by the names of the table's columns, with the numbers of hazard_ratios."""
    fit: CoxFit = fit_cox(table[["score"]], _surv(table))
    frame = fit.to_frame()
    assert list(frame.index) == ["score"] and list(frame) == ["coef", "se", "hr", "low", "high", "p"]
    assert frame.loc["score", "hr"] == fit.hazard_ratios()["score"].value == pytest.approx(np.exp(fit.coef[0]))
    assert frame.loc["score", "se"] == fit.se[0] and fit.to_frame(0.5).loc["score", "low"] > frame.loc["score", "low"]


def test_an_evaluation(evaluation: Evaluation) -> None:
    """Its frame holds C, AUC, slope, O/E and hazard ratio with interval and p; its summary a line for each."""
    frame = evaluation.to_frame()
    assert list(frame.index) == ["C", "AUC, 36 months", "calibration slope, 36 months", "O/E, 36 months",
                                 "hazard ratio, high against low"]
    assert frame.loc["C"].tolist() == [evaluation.c.value, evaluation.c.low, evaluation.c.high, evaluation.c.p]
    assert frame.loc["calibration slope, 36 months", "value"] == pytest.approx(1.0, abs=0.05)  # its own patients
    assert frame.loc["O/E, 36 months", "value"] == evaluation.calibration[36.0].oe.value
    assert len(evaluation.summary().splitlines()) == 6 and "200 patients" in str(evaluation)


def test_a_cohort_without_events() -> None:
    """An evaluation without a C prints as one, with nan."""
    empty = Evaluation("mtdlr", "external", 9, 0, None, None, {}, {}, {}, None)
    assert "C nan" in repr(empty) and empty.to_frame().loc["C"].isna().all() and len(empty.summary().splitlines()) == 2


def test_all_evaluations_together(evaluation: Evaluation) -> None:
    """The frame of all findings is indexed by model, cohort and number."""
    found = Findings(pd.DataFrame(index=range(200)), {}, {("mtdlr", "training"): evaluation}, {}, {}, ())
    assert found.to_frame().loc[("mtdlr", "training", "C"), "value"] == evaluation.c.value
    assert len(repr(found)) < LONGEST and "<table" in found._repr_html_()
    assert found.summary() == evaluation.summary()


def test_a_nomogram(nomogram: Nomogram, table: pd.DataFrame) -> None:
    """Its frame holds every tick's points, which are those of `points`; its points have the table's index."""
    frame = nomogram.to_frame()
    assert frame.index.names == ["axis", "value"]
    assert set(frame.index.get_level_values("axis")) == {"tnm_stage", "score", "PFS at 36 months", "PFS at 60 months"}
    stages = frame.loc["tnm_stage", "points"]
    patients = nomogram.points(pd.DataFrame({"tnm_stage": ["III", "IVa"], "score": [0.0, 0.0]}, index=["a", "b"]))
    assert list(patients.index) == ["a", "b"] and patients["tnm_stage"].tolist() == stages[["III", "IVa"]].tolist()
    assert list(nomogram.points(table).index) == list(table.index)
    assert "PFS at 36, 60 months" in repr(nomogram) and "score" in nomogram.summary()


def test_a_signature() -> None:
    """Its frame holds the selected features, the largest first; its score has the table's index in any column order."""
    assert list(SIGNATURE.to_frame().index) == ["b_shape", "c_first", "a_glcm"]
    assert "3 of 1456 features" in repr(SIGNATURE) and len(str(SIGNATURE).splitlines()) == 4
    features = pd.DataFrame({"c_first": [2.0, 5.0], "a_glcm": [0.0, 1.0], "b_shape": [1.0, 1.0]}, index=["x", "y"])
    assert SIGNATURE.score(features).to_dict() == pytest.approx({"x": 0.0, "y": 0.4})
    nothing = Signature((), (), (), (), float("nan"), (), 9, 3, 5)
    assert len(nothing.to_frame()) == 0 and "0 of 5" in nothing.summary()


def test_each_fits_a_line_and_a_cell(nomogram: Nomogram, evaluation: Evaluation) -> None:
    """Every repr is one line, every HTML a table of a few kilobytes that escapes what it shows."""
    for one in (nomogram, nomogram.cox, evaluation, SIGNATURE):
        assert len(repr(one)) < LONGEST and "\n" not in repr(one)
        html = one._repr_html_()
        assert html.count("<table") == 1 and len(html) < 6000
        assert all(len(line) < 130 for line in one.summary().splitlines())
    evil = Evaluation("<script>", "x", 1, 0, None, None, {}, {}, {}, None)
    assert "<script>" not in evil._repr_html_()


def test_a_run_says_what_is_done(tmp_path: Path) -> None:
    """The repr of a run starts nothing and names the stages that this object has computed."""
    run = Run(Study(), tmp_path / "run")
    assert "nothing done here yet" in repr(run) and not (tmp_path / "run").exists()
    run.__dict__ |= {"cohort": None, "prepared": None}
    assert "done here: cohort, prepare;" in repr(run)


def test_a_run_in_a_cell(tmp_path: Path, evaluation: Evaluation) -> None:
    """A cell shows every stage with its patients and, where it is computed, C by model and cohort; it starts nothing.
    `to_frame` is that of all findings."""
    run = Run(Study(), tmp_path / "<run>")
    assert run._repr_html_().count("<tr") == 10 and "done here</td>" not in run._repr_html_()
    assert "<run>" not in run._repr_html_() and not run.folder.exists()
    run.__dict__ |= {"cohort": None, "prepared": Stored({"a": tmp_path, "b": tmp_path}, {}), "findings": Findings(
        pd.DataFrame(index=range(200)), {}, {("mtdlr", "training"): evaluation}, {}, {}, ())}
    html = run._repr_html_()
    assert html.count("done here</td>") == 2 and html.count("<table") == 2 and f"{evaluation.c.value:.4g}" in html
    assert run.to_frame().equals(run.findings.to_frame())
