"""Scores on a common scale, the nomograms on top, and what is frozen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError
from mtdlr.evaluate import evaluate, training_cutoff
from mtdlr.model import combine_scores, fit_models, fit_nomogram
from mtdlr.signature import fit_signature
from mtdlr.study import Study
from mtdlr.survival import Survival

STUDY = Study.of({
    "cohort": {"stage": "tnm", "factors": {"tnm": ("III", "IVa")}}, "nomogram": {"months": (12, 24)},
    "signature": {"lambdas": 20, "folds": 4, "repeats": 1}})


def _raw(risks: dict[str, list[float]]) -> dict[str, dict[str, dict[str, list[float]]]]:
    return {i: {"risks": {"deepmts": r, "csn-only": [2 * v for v in r]}} for i, r in risks.items()}


def _study_data(seed: int = 0, n: int = 160) -> tuple[pd.DataFrame, pd.Series, dict, dict]:
    """A made-up study: table, folds, raw risks of three networks, features."""
    rng = np.random.default_rng(seed)
    latent, ids = rng.normal(size=n), [f"P{k}" for k in range(n)]
    time = 30 * rng.exponential(np.exp(-latent))
    table = pd.DataFrame({
        "time_months": np.minimum(time, 40) + 0.1, "event": time < 40, "center": "A",
        "split": np.where(np.arange(n) < 100, "training", "external"),
        "tnm": np.where(latent + rng.normal(size=n) > 0.7, "IVa", "III")}, index=ids)
    folds = pd.Series(np.arange(100) % 3, index=ids[:100])
    raw = _raw({i: [v + 0.3 * rng.normal() + 10 * k for k in range(3)] for i, v in zip(ids, latent, strict=True)})
    features = pd.DataFrame(latent[:, None] + rng.normal(size=(n, 5)), index=ids, columns=list("abcde"))
    return table, folds, raw, {"auto": features, "manual": features + 0.1}


def _models(table: pd.DataFrame, folds: pd.Series, raw: dict, features: dict):
    training = table[table["split"] == "training"]
    surv = Survival(training["time_months"].to_numpy(), training["event"].to_numpy())
    signatures = {}
    for source, values in features.items():
        signature = fit_signature(values.loc[training.index], surv, STUDY.signature)
        signatures[source] = signature, signature.score(values.loc[training.index])
    return fit_models(table, combine_scores(raw, folds, "csn-only"), features, signatures, STUDY)


def test_each_network_is_scaled_by_its_own_held_out_fold() -> None:
    """A training patient is scored by its fold's network alone; others by the mean of all, on the common scale."""
    raw = _raw({"a": [1.0, 9.0], "b": [3.0, 9.0], "c": [7.0, 10.0], "d": [7.0, 14.0], "new": [2.0, 12.0]})
    folds = pd.Series([0, 0, 1, 1], index=list("abcd"))
    scores = combine_scores(raw, folds, "csn-only")
    sd0, sd1 = np.sqrt(2.0), np.sqrt(8.0)
    assert [(s.mean, s.sd) for s in scores.scales["deepmts"]] == [(2.0, sd0), (12.0, sd1)]
    table = scores.table
    assert table.loc["a", "deepmts"] == pytest.approx((1 - 2) / sd0)
    assert table.loc["a", "deepmts_in_sample"] == pytest.approx((9 - 12) / sd1)
    assert table.loc["new", "deepmts"] == pytest.approx(0.0)
    assert np.isnan(table.loc["new", "deepmts_in_sample"]) and np.isnan(table.loc["a", "deepmts_sd"])
    again = combine_scores({"new": raw["new"]}, pd.Series(dtype=int), "csn-only", scores.scales)
    assert again.table.loc["new", "deepmts"] == table.loc["new", "deepmts"]


def test_one_network_that_saw_everybody_gives_the_raw_risk() -> None:
    """In-sample mode (the paper): the score is the network's own output."""
    scores = combine_scores(_raw({"a": [1.5], "b": [2.5]}), pd.Series([0], index=["a"]), "csn-only")
    assert scores.table["deepmts"].tolist() == [1.5, 2.5]
    assert scores.table.loc["a", "deepmts_in_sample"] == 1.5


def test_other_cohorts_change_nothing_that_is_frozen() -> None:
    """FAULTS 56: permuting another cohort's outcomes and features leaves every frozen number as it is."""
    table, folds, raw, features = _study_data()
    before = _models(table, folds, raw, features)
    rng, external = np.random.default_rng(5), table.index[table["split"] == "external"]
    mixed = table.copy()
    shuffled = rng.permutation(external)
    mixed.loc[external, ["time_months", "event"]] = table.loc[shuffled, ["time_months", "event"]].to_numpy()
    mixed["event"] = mixed["event"].astype(bool)
    mixed["time_months"] = mixed["time_months"].astype(float)
    other = {k: v.copy() for k, v in features.items()}
    for values in other.values():
        values.loc[external] = values.loc[shuffled].to_numpy()
    after = _models(mixed, folds, raw, other)
    assert before.frozen_digest == after.frozen_digest and before.digest != after.digest
    cut = {m: e.groups.cutoff for (m, s), e in before.evaluations.items() if s == "training" and e.groups}
    assert cut == {m: e.groups.cutoff for (m, s), e in after.evaluations.items() if s == "training" and e.groups}


def test_a_study_evaluates_every_model_in_every_cohort() -> None:
    """Each model has its C-index, AUCs and, for nomograms, calibration, in each cohort; better scores rank better."""
    models = _models(*_study_data())
    assert {split for _, split in models.evaluations} == {"training", "external"}
    mtdlr, stage = models.evaluations["mtdlr", "external"], models.evaluations["stage", "external"]
    assert mtdlr.c.value > stage.c.value and mtdlr.concordance_vs_stage.value > 0
    assert stage.concordance_vs_stage is None and set(mtdlr.auc) == {12.0, 24.0} == set(mtdlr.calibration)
    assert set(models.nomograms) == {"mtdlr", "manual_radio_stage", "single_task_stage", "mtdlr_in_sample"}


def test_a_missing_score_leaves_the_patient_out_and_says_so() -> None:
    """FAULTS 28: without features the AutoRadio score is NA, the others stay, and the evaluation counts who is lost."""
    table, folds, raw, features = _study_data()
    features["auto"].loc["P120"] = np.nan
    models = _models(table, folds, raw, features)
    assert np.isnan(models.risks.at["P120", "mtdlr"]) and np.isfinite(models.risks.at["P120", "deepmts"])
    assert models.evaluations["mtdlr", "external"].n == 59
    assert any(p.code == "W-NOSCORE" for p in models.problems)


def test_the_cut_off_comes_from_the_training_cohort() -> None:
    """FAULTS 50, 55: the cut-off ignores every other cohort, and where all scores are equal there is none."""
    table, *_ = _study_data()
    risk = pd.Series(np.arange(160.0), index=table.index)
    cut = training_cutoff(risk, table)
    table.loc[table["split"] == "external", "event"] = True
    assert training_cutoff(risk, table) == cut
    assert np.isnan(training_cutoff(risk * 0, table))
    found = evaluate(pd.DataFrame({"stage": risk * 0}), {}, table, (12.0,), STUDY.evaluate)
    flat = found["stage", "training"]
    assert flat.c.value == 0.5 and flat.groups is None
    assert any(p.code == "W-NOGROUPS" for p in flat.problems)


def test_horizons_nobody_reached_are_not_estimated() -> None:
    """FAULTS 51-52: an AUC before the first event or beyond the last follow-up is NA, never extrapolated."""
    table, *_ = _study_data()
    risk = pd.DataFrame({"stage": np.arange(160.0)}, index=table.index)
    found = evaluate(risk, {}, table, (0.05, 500.0), STUDY.evaluate)["stage", "training"]
    assert all(np.isnan(auc.auc.value) for auc in found.auc.values())


def test_calibration_cautions_are_said() -> None:
    """Too few events to judge a calibration is a warning that names the model, the cohort and the horizon."""
    said = [p for p in _models(*_study_data()).problems if p.code == "W-CALIBRATIONEVENTS"]
    assert any(p.where == "MTDLR in the external cohort, 12 months" for p in said)
    assert len({p.where for p in said}) == len(said)


@pytest.mark.parametrize("test", ["gnd", "hl_binary"])
def test_the_bias_of_hosmer_lemeshow_is_said_where_it_is_printed(test: str) -> None:
    """W-HLBINARY is a warning exactly where evaluate.calibration_test chooses that test."""
    table, *_ = _study_data()
    predicted = pd.DataFrame({12.0: np.linspace(0.2, 0.9, len(table))}, index=table.index)
    risks = pd.DataFrame({"stage": (table["tnm"] == "IVa").astype(float), "mtdlr": 1.0 - predicted[12.0]})
    table = table.assign(event=table["event"] & (np.arange(len(table)) % 3 > 0))
    found = evaluate(risks, {"mtdlr": predicted}, table, (12.0,),
                     STUDY.evaluate.model_copy(update={"calibration_test": test}))["mtdlr", "training"]
    assert ("W-HLBINARY" in {p.code for p in found.problems}) == (test == "hl_binary")


def test_the_comparison_takes_as_many_resamples_as_it_is_told() -> None:
    """evaluate.bootstrap is the number of resamples behind a bootstrap comparison, and the seed makes it repeatable."""
    table, *_ = _study_data()
    rng = np.random.default_rng(0)
    risks = pd.DataFrame({"stage": (table["tnm"] == "IVa").astype(float), "mtdlr": rng.normal(size=len(table))})
    few, again, many = (evaluate(risks, {}, table, (12.0,), STUDY.evaluate.model_copy(update={
        "comparison": "bootstrap", "bootstrap": n}))["mtdlr", "training"].concordance_vs_stage for n in (50, 50, 400))
    assert few == again != many


def test_a_level_without_patients_and_scores_that_do_not_vary() -> None:
    """A stage level that training lacks is left out of the nomogram; a constant score too; nothing left is an error."""
    table, *_ = _study_data()
    rows = table.assign(auto_radio=0.0, deepmts=np.random.default_rng(0).normal(size=160))
    rows.loc[rows["split"] == "training", "tnm"] = "III"
    assert fit_nomogram(rows, ("auto_radio", "deepmts"), STUDY).design.columns == ("deepmts",)
    with pytest.raises(FitError, match="E-NOMODEL"):
        fit_nomogram(rows, ("auto_radio",), STUDY)


def test_separation_is_fitted_by_firth_and_said() -> None:
    """FAULTS 46: where a score separates the events the nomogram stays finite, by Firth's method, with a warning."""
    table, *_ = _study_data()
    noise = np.random.default_rng(0).normal(size=160)
    rows = table.assign(deepmts=np.where(table["event"], 1.0, 0.0), auto_radio=noise)
    nomogram = fit_nomogram(rows, ("auto_radio", "deepmts"), STUDY)
    assert np.isfinite(nomogram.cox.coef).all() and nomogram.cox.hazard_ratios()["deepmts"].value > 10
    assert any(p.code == "W-FIRTH" and "deepmts" in p.where for p in nomogram.cox.problems)
