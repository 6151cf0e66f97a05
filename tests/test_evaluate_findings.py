"""An evaluation holds the numbers of its own statistics, and shows each of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from mtdlr.evaluate.findings import Evaluation, Findings, Judged, evaluate
from mtdlr.evaluate.integrated import integrated_error
from mtdlr.nomogram import Nomogram
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import compare_concordance, concordance
from mtdlr.stats.decision import integrated_brier
from mtdlr.stats.roc import delong, roc
from mtdlr.stats.time_roc import auc_at, compare_auc_at
from mtdlr.study.sections import EvaluateSettings
from mtdlr.survival import Survival

MONTHS = (12.0, 24.0)


@cache
def cohort() -> tuple[pd.DataFrame, Nomogram]:
    """120 training patients and 60 external ones, and a nomogram of their score fitted in training."""
    rng = np.random.default_rng(2)
    score = rng.normal(size=180)
    time = 25.0 * rng.exponential(np.exp(-score))
    table = pd.DataFrame({
        "time_months": np.minimum(time, 40.0) + 0.1, "event": time < 40.0, "score": score,
        "stage": (score + rng.normal(size=180) > 0.5).astype(float),
        "split": np.where(np.arange(180) < 120, "training", "external")}, index=[f"P{k}" for k in range(180)])
    training = table[table["split"] == "training"]
    return table, Nomogram.fit(training, follow_up(training), ["score"], MONTHS)


def follow_up(rows: pd.DataFrame) -> Survival:
    return Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))


@cache
def judged(roc_of: str = "cumulative") -> dict[tuple[str, str], Evaluation]:
    """Stage and nomogram in both cohorts; the last patient has no risk."""
    table, nomogram = cohort()
    risks = pd.DataFrame({"stage": table["stage"], "mtdlr": nomogram.log_hazard(table)}, index=table.index)
    risks.loc["P179", "mtdlr"] = np.nan
    predicted = pd.DataFrame(nomogram.survival(table).value, index=table.index, columns=list(MONTHS))
    what = Judged(risks, {"mtdlr": predicted}, {"stage": 0.5, "mtdlr": 0.0}, {"mtdlr": "MTDLR"}, "stage")
    return evaluate(what, table, MONTHS, EvaluateSettings(roc=roc_of))


def external() -> tuple[np.ndarray, np.ndarray, Survival]:
    """Risk, stage and follow-up of the external patients with a risk."""
    table, nomogram = cohort()
    rows = table[table["split"] == "external"].iloc[:-1]
    return nomogram.log_hazard(rows), rows["stage"].to_numpy(float), follow_up(rows)


def test_c_and_its_difference_are_those_of_the_patients_with_a_risk() -> None:
    """C is that of 59 of 60 patients, and its difference from the stage is the paired one of the same patients."""
    risk, stage, surv = external()
    one = judged()["mtdlr", "external"]
    assert (one.n, one.n_events) == (59, surv.n_events)
    assert one.c == concordance(risk, surv).c
    assert one.concordance_vs_stage == compare_concordance(risk, stage, surv).difference


def test_the_reference_is_compared_with_nothing() -> None:
    """The stage has no difference from itself, and predicts no survival that could be calibrated."""
    one = judged()["stage", "external"]
    assert one.concordance_vs_stage is None and one.auc_vs_stage == {} and one.calibration == {}


@pytest.mark.parametrize("month", MONTHS)
def test_areas_at_a_month_are_cumulative_ones(month: float) -> None:
    """The AUC at a horizon counts the censored by weights, and so does its difference from the stage."""
    risk, stage, surv = external()
    one = judged()["mtdlr", "external"]
    assert one.auc[month].auc == auc_at(risk, surv, month).auc
    assert one.auc_vs_stage[month] == compare_auc_at(risk, stage, surv, month).difference


def test_the_papers_area_is_of_the_event_status() -> None:
    """With `evaluate.roc = "status"` there is one ROC, of the event whenever it came, with DeLong's difference."""
    risk, stage, surv = external()
    one = judged("status")["mtdlr", "external"]
    assert list(one.auc) == [0.0] and one.auc[0.0].auc == roc(risk, surv.event).auc
    assert one.auc_vs_stage == {0.0: delong(risk, stage, surv.event).difference}


@pytest.mark.parametrize("month", MONTHS)
def test_calibration_is_of_the_predicted_survival(month: float) -> None:
    """Slope and O/E at a month are those of the nomogram's survival at that month."""
    table, nomogram = cohort()
    rows = table[table["split"] == "external"].iloc[:-1]
    expected = calibrate(nomogram.survival(rows).value[:, MONTHS.index(month)], follow_up(rows), month)
    found = judged()["mtdlr", "external"].calibration[month]
    assert found.slope.value == pytest.approx(expected.slope.value)
    assert found.oe.value == pytest.approx(expected.oe.value)


def test_groups_are_cut_at_the_frozen_cut_off() -> None:
    """The cut-off of training splits the external patients, whatever their own median is."""
    risk, _, _ = external()
    groups = judged()["mtdlr", "external"].groups
    assert groups is not None and groups.hazard_ratio.value > 1.0
    sizes = {int(curve.at_risk[0]) for curve in groups.curves.values()}
    assert groups.cutoff == 0.0 and sizes == {int((risk >= 0.0).sum()), int((risk < 0.0).sum())}


def test_a_missing_risk_is_counted() -> None:
    """One external patient without a score is said to be left out; in training, and for the stage, nobody is."""
    lost = {key: [p.what for p in one.problems if p.code == "W-NOSCORE"] for key, one in judged().items()}
    assert lost["mtdlr", "external"] == ["1 patients without a score are left out"]
    assert not lost["mtdlr", "training"] and not lost["stage", "external"]


def test_the_frame_holds_every_number_with_its_interval() -> None:
    """A row a number: C, its difference, areas and theirs, slopes, O/E and the hazard ratio, with limits and P."""
    one = judged()["mtdlr", "external"]
    frame = one.to_frame()
    assert list(frame.columns) == ["value", "low", "high", "p"]
    assert list(frame.index) == [
        "C", "C minus stage", "AUC, 12 months", "AUC minus stage, 12 months", "AUC, 24 months",
        "AUC minus stage, 24 months", "calibration slope, 12 months", "O/E, 12 months", "calibration slope, 24 months",
        "O/E, 24 months", "hazard ratio, high against low"]
    assert frame.loc["C", "value"] == one.c.value and frame.loc["O/E, 24 months", "low"] == one.calibration[24.0].oe.low
    slopes = [frame.loc[f"calibration slope, {month:g} months", "value"] for month in MONTHS]
    assert slopes == [one.calibration[month].slope.value for month in MONTHS]
    assert "AUC, event status" in judged("status")["mtdlr", "external"].to_frame().index


def test_the_text_of_an_evaluation_has_a_line_a_number() -> None:
    """Printed, an evaluation begins with model, cohort and counts; its repr is one line."""
    one = judged()["mtdlr", "external"]
    lines = str(one).splitlines()
    assert lines[0] == f"mtdlr, external: 59 patients, {one.n_events} events"
    assert len(lines) == 1 + len(one.to_frame()) + len(one.problems)
    assert "\n" not in repr(one) and "59 patients" in repr(one) and "<table" in one._repr_html_()


@cache
def findings() -> Findings:
    return Findings(pd.DataFrame(index=cohort()[0].index), {}, judged(), {}, {}, ())


def test_findings_show_every_evaluation() -> None:
    """The frame of all has each model's numbers in each cohort; the page shows C alone."""
    every = findings().to_frame()
    assert set(zip(every.index.get_level_values("model"), every.index.get_level_values("cohort"), strict=True)) == set(
        judged())
    assert every.loc[("mtdlr", "external", "C"), "value"] == judged()["mtdlr", "external"].c.value
    page = findings()._repr_html_()
    assert "external" in page and "O/E" not in page
    assert findings().summary().count("patients,") == 4 and "4 evaluations of 180 patients" in repr(findings())


def test_a_models_c_by_cohort_is_plain() -> None:
    """C of a model is a list of value and limits by cohort, and a model that was not judged has none."""
    found = findings().concordance_of("mtdlr")
    c = judged()["mtdlr", "external"].c
    assert list(found) == ["training", "external"] and found["external"] == [c.value, c.low, c.high]
    assert findings().concordance_of("nobody") == {}


def test_a_cohort_without_events_has_counts_alone() -> None:
    """Where nobody has the event there is no C, no curve, no group: nan and nothing, with a reason."""
    table, nomogram = cohort()
    quiet = table.assign(event=table["event"] & (table["split"] == "training"))
    risks = pd.DataFrame({"stage": table["stage"], "mtdlr": nomogram.log_hazard(table)}, index=table.index)
    one = evaluate(Judged(risks, {}, {}, {}, "stage"), quiet, MONTHS, EvaluateSettings())["mtdlr", "external"]
    assert np.isnan(one.c.value) and one.auc == {} and one.groups is None and one.n_events == 0 and one.problems
    assert list(one.to_frame().index) == ["C"]


def test_the_integrated_error_is_of_whole_months() -> None:
    """The Brier score is integrated over each month up to the horizon, by cohort with an event."""
    table, nomogram = cohort()
    rows = table[table["split"] == "external"]
    months = np.arange(1.0, 25.0)
    expected = integrated_brier(nomogram.survival(rows, months).value, follow_up(rows), months)
    found = integrated_error(nomogram, table, 24.0)
    assert list(found) == ["training", "external"]
    assert found["external"].scores == pytest.approx(expected.scores)
    quiet = integrated_error(nomogram, table.assign(event=table["event"] & (table["split"] == "external")), 24.0)
    assert list(quiet) == ["external"]
