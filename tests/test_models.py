"""Scores on a common scale, the nomograms on top, and what is frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError, Problem, StudyError, TableError
from mtdlr.evaluate import Findings, Judged, evaluate, judge
from mtdlr.model import FrozenModel, fit_model, study_scores, training_cutoff
from mtdlr.nomogram.fit import fit_nomogram
from mtdlr.nomogram.scores import combine_scores, shared_variance
from mtdlr.signature import fit_signature
from mtdlr.study import Study, models_of
from mtdlr.survival import Survival

STUDY = Study.of({
    "cohort": {"stage": "tnm", "factors": {"tnm": ("III", "IVa")}},
    "nomogram": {"months": (12, 24), "select": "off"},
    "signature": {"lambdas": 20, "folds": 4, "repeats": 1}})


MTDLR = next(model for model in models_of(STUDY) if model.name == "mtdlr")


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


@dataclass(frozen=True)
class Fitted:
    """A made-up study after its networks."""

    model: FrozenModel
    scores: pd.DataFrame
    findings: Findings

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Warnings of the fits and of the evaluation."""
        return self.model.problems + self.findings.problems


def fitted(table: pd.DataFrame, folds: pd.Series, raw: dict, features: dict, study: Study = STUDY) -> Fitted:
    """Everything that follows the networks, on made-up scores and features."""
    training = table[table["split"] == "training"]
    surv = Survival(training["time_months"].to_numpy(), training["event"].to_numpy())
    signatures = {}
    for source, values in features.items():
        signature = fit_signature(values.loc[training.index], surv, study.signature)
        signatures[source] = signature, signature.score(values.loc[training.index])
    deep = combine_scores(raw, folds, "csn-only")
    scores = study_scores(table, deep, features, signatures)
    model = fit_model(table, scores, deep, {name: pair[0] for name, pair in signatures.items()}, study,
                      networks={}, mean_image=Path())
    return Fitted(model, scores, judge(model, table, scores, study.evaluate))


def test_each_network_is_scaled_by_its_own_held_out_fold() -> None:
    """A training patient is scored by its fold's network alone; others by the mean of all, on the common scale."""
    raw = _raw({"a": [1.0, 9.0], "b": [3.0, 9.0], "c": [7.0, 10.0], "d": [7.0, 14.0], "new": [2.0, 12.0]})
    folds = pd.Series([0, 0, 1, 1], index=list("abcd"))
    scores = combine_scores(raw, folds, "csn-only")
    sd0, sd1 = np.sqrt(2.0), np.sqrt(8.0)
    assert [(s.mean, s.sd) for s in scores.held_out["deepmts"]] == [(2.0, sd0), (12.0, sd1)]
    assert scores.deep_scales("a") == scores.held_out["deepmts"]
    table = scores.table
    assert table.loc["a", "deepmts"] == pytest.approx((1 - 2) / sd0)
    # the two networks share nothing (covariance 0 in each fold), so their mean has half the variance of one
    assert [s.sd for s in scores.deep_scales("new")] == pytest.approx([sd0 / 2, sd1 / 2])
    assert table.loc["a", "deepmts_in_sample"] == pytest.approx((9 - 12) / sd1 * 2)
    assert table.loc["new", "deepmts"] == pytest.approx(0.0)
    assert np.isnan(table.loc["new", "deepmts_in_sample"]) and np.isnan(table.loc["a", "deepmts_sd"])
    again = combine_scores({"new": raw["new"]}, pd.Series(dtype=int), "csn-only", scores.scales)
    assert again.table.loc["new", "deepmts"] == table.loc["new", "deepmts"]


def _ensemble(n: int, n_networks: int, shared: float, own: float, rng: np.random.Generator
              ) -> tuple[dict, pd.Series, np.ndarray]:
    """(raw risks, folds, signal): every network's risk is signal + its own noise; what it learned by heart (`own`)
    shows in the risks of the patients it was trained on."""
    signal, folds = rng.normal(size=n), np.arange(n) % n_networks
    noise = rng.normal(size=(n, n_networks)) * np.sqrt(1 / shared - 1)
    noise += own * rng.normal(size=(n, n_networks)) * (folds[:, None] != np.arange(n_networks))
    ids = [f"P{k:05d}" for k in range(n)]
    raw = {i: {"risks": {"deepmts": row.tolist(), "csn-only": row.tolist()}}
           for i, row in zip(ids, (signal[:, None] + noise) * (1 + np.arange(n_networks)), strict=True)}
    return raw, pd.Series(folds, index=ids), signal


@pytest.mark.slow
@pytest.mark.parametrize(("n_networks", "shared", "own"), [(3, 0.8, 0.0), (3, 0.5, 0.0), (3, 0.5, 1.0), (5, 0.6, 2.0)])
def test_the_shared_variance_of_networks_is_that_of_new_patients(n_networks: int, shared: float, own: float) -> None:
    """v is the variance of the mean of K networks over that of one, without outcomes and whatever the networks learned
    by heart of the patients they were trained on: r + (1 - r) / K at the known r."""
    raw, folds, _ = _ensemble(6000, n_networks, shared, own, np.random.default_rng(3))
    scores = combine_scores(raw, folds, "csn-only")
    ratio = scores.scales["deepmts"][1].sd / scores.held_out["deepmts"][1].sd
    assert ratio == pytest.approx(shared + (1 - shared) / n_networks, abs=0.02)


@pytest.mark.slow
def test_a_nomogram_of_one_networks_risks_fits_the_mean_of_several() -> None:
    """The regression of the truth on the score has one slope in training (one network a patient) and in new patients
    (the mean of three); without the division by v it was 1.5 times as steep in new patients (r = .5)."""
    raw, folds, signal = _ensemble(8000, 3, 0.5, 0.5, np.random.default_rng(4))
    training = folds.iloc[:4000]
    inside = combine_scores({i: raw[i] for i in training.index}, training, "csn-only")
    rng = np.random.default_rng(5)
    new, _, hidden = _ensemble(8000, 3, 0.5, 0.0, rng)
    outside = combine_scores(new, pd.Series(dtype=int), "csn-only", inside.scales)
    slopes = [np.polyfit(score, truth, 1)[0] for score, truth in (
        (inside.table["deepmts"], signal[:4000]), (outside.table["deepmts"], hidden))]
    assert slopes[1] / slopes[0] == pytest.approx(1.0, abs=0.05)
    assert outside.table["deepmts"].var() > 1.3
    expected = inside.spread_as_new(inside.table, "csn-only")  # else `shift` would call a tenth of them unusual
    for column in ("deepmts", "single_task"):
        assert expected[column].std() == pytest.approx(outside.table[column].std(), rel=0.03)


def test_networks_that_agree_and_single_networks_are_not_rescaled() -> None:
    """v is 1 where every network gives the same risk, and where there is one network."""
    raw, folds, _ = _ensemble(60, 3, 1.0, 0.0, np.random.default_rng(6))
    scores = combine_scores(raw, folds, "csn-only")
    own = [scale.sd for scale in scores.held_out["deepmts"]]
    assert [scale.sd for scale in scores.scales["deepmts"]] == pytest.approx(own, rel=0.1)
    assert shared_variance(pd.DataFrame({0: [1.0, 2.0]}), pd.Series([0, 0])) == 1.0


def test_one_network_that_saw_everybody_gives_the_raw_risk() -> None:
    """In-sample mode (the paper): the score is the network's own output."""
    scores = combine_scores(_raw({"a": [1.5], "b": [2.5]}), pd.Series([0], index=["a"]), "csn-only")
    assert scores.table["deepmts"].tolist() == [1.5, 2.5]
    assert scores.table.loc["a", "deepmts_in_sample"] == 1.5


def test_the_fit_without_measures_stands_beside() -> None:
    """DeepMTS without its measures is scaled by its own held-out folds, and is no score of a new patient."""
    raw = _raw({"a": [1.0, 9.0], "b": [3.0, 9.0], "c": [7.0, 10.0], "d": [7.0, 14.0]})
    for values in raw.values():
        values["risks"]["deepmts_plain"] = [2 * risk + 5 for risk in values["risks"]["deepmts"]]
    folds = pd.Series([0, 0, 1, 1], index=list("abcd"))
    scores = combine_scores(raw, folds, "csn-only")
    assert scores.table["deepmts_plain"].tolist() == pytest.approx(scores.table["deepmts"].tolist())
    assert set(scores.scales) == {"deepmts", "csn-only"}
    again = combine_scores({"new": raw["a"]}, pd.Series(dtype=int), "csn-only", scores.scales)
    assert "deepmts_plain" not in again.table


@pytest.mark.slow
def test_other_cohorts_change_nothing_that_is_frozen() -> None:
    """FAULTS 56: permuting another cohort's outcomes and features leaves every frozen number as it is."""
    table, folds, raw, features = _study_data()
    before = fitted(table, folds, raw, features)
    rng, external = np.random.default_rng(5), table.index[table["split"] == "external"]
    mixed = table.copy()
    shuffled = rng.permutation(external)
    mixed.loc[external, ["time_months", "event"]] = table.loc[shuffled, ["time_months", "event"]].to_numpy()
    mixed["event"] = mixed["event"].astype(bool)
    mixed["time_months"] = mixed["time_months"].astype(float)
    other = {k: v.copy() for k, v in features.items()}
    for values in other.values():
        values.loc[external] = values.loc[shuffled].to_numpy()
    after = fitted(mixed, folds, raw, other)
    assert before.model.digest == after.model.digest and not before.scores.equals(after.scores)
    assert before.model.cutoffs == after.model.cutoffs and set(before.model.cutoffs) == set(before.findings.risks)


@pytest.mark.slow
def test_a_study_evaluates_every_model_in_every_cohort() -> None:
    """Each model has its C-index, AUCs and, for nomograms, calibration, in each cohort; better scores rank better."""
    models = fitted(*_study_data())
    assert {split for _, split in models.findings.evaluations} == {"training", "external"}
    mtdlr, stage = models.findings.evaluations["mtdlr", "external"], models.findings.evaluations["stage", "external"]
    assert mtdlr.c.value > stage.c.value and mtdlr.concordance_vs_stage.value > 0
    assert stage.concordance_vs_stage is None and set(mtdlr.auc) == {12.0, 24.0} == set(mtdlr.calibration)
    assert set(models.model.nomograms) == {"mtdlr", "manual_radio_stage", "single_task_stage", "mtdlr_in_sample"}


@pytest.mark.slow
def test_a_missing_score_leaves_the_patient_out_and_says_so() -> None:
    """FAULTS 28: without features the AutoRadio score is NA, the others stay, and the evaluation counts who is lost."""
    table, folds, raw, features = _study_data()
    features["auto"].loc["P120"] = np.nan
    models = fitted(table, folds, raw, features)
    risks = models.findings.risks
    assert np.isnan(risks.at["P120", "mtdlr"]) and np.isfinite(risks.at["P120", "deepmts"])
    assert models.findings.evaluations["mtdlr", "external"].n == 59
    assert any(p.code == "W-NOSCORE" for p in models.problems)


def test_the_cut_off_comes_from_the_training_cohort() -> None:
    """FAULTS 50, 55: the cut-off ignores every other cohort, and where all scores are equal there is none."""
    table, *_ = _study_data()
    risk = pd.Series(np.arange(160.0), index=table.index)
    cut = training_cutoff(risk, table)
    table.loc[table["split"] == "external", "event"] = True
    assert training_cutoff(risk, table) == cut
    assert np.isnan(training_cutoff(risk * 0, table))
    found = evaluate(Judged(pd.DataFrame({"stage": risk * 0}), {}, {}), table, (12.0,), STUDY.evaluate)
    flat = found["stage", "training"]
    assert flat.c.value == 0.5 and flat.groups is None
    assert any(p.code == "W-NOGROUPS" for p in flat.problems)


def test_horizons_nobody_reached_are_not_estimated() -> None:
    """FAULTS 51-52: an AUC before the first event or beyond the last follow-up is NA, never extrapolated."""
    table, *_ = _study_data()
    risk = pd.DataFrame({"stage": np.arange(160.0)}, index=table.index)
    found = evaluate(Judged(risk, {}, {}), table, (0.05, 500.0), STUDY.evaluate)["stage", "training"]
    assert all(np.isnan(auc.auc.value) for auc in found.auc.values())


@pytest.mark.slow
def test_calibration_cautions_are_said() -> None:
    """Too few events to judge a calibration is a warning that names the model, the cohort and the horizon."""
    said = [p for p in fitted(*_study_data()).problems if p.code == "W-CALIBRATIONEVENTS"]
    assert any(p.where == "MTDLR in the external cohort, 12 months" for p in said)
    assert len({p.where for p in said}) == len(said)


@pytest.mark.parametrize("test", ["gnd", "hl_binary"])
def test_the_bias_of_hosmer_lemeshow_is_said_where_it_is_printed(test: str) -> None:
    """W-HLBINARY is a warning exactly where evaluate.calibration_test chooses that test."""
    table, *_ = _study_data()
    predicted = pd.DataFrame({12.0: np.linspace(0.2, 0.9, len(table))}, index=table.index)
    risks = pd.DataFrame({"stage": (table["tnm"] == "IVa").astype(float), "mtdlr": 1.0 - predicted[12.0]})
    table = table.assign(event=table["event"] & (np.arange(len(table)) % 3 > 0))
    found = evaluate(Judged(risks, {"mtdlr": predicted}, {}), table, (12.0,),
                     STUDY.evaluate.model_copy(update={"calibration_test": test}))["mtdlr", "training"]
    assert ("W-HLBINARY" in {p.code for p in found.problems}) == (test == "hl_binary")


def test_the_comparison_takes_as_many_resamples_as_it_is_told() -> None:
    """evaluate.bootstrap is the number of resamples behind a bootstrap comparison, and the seed makes it repeatable."""
    table, *_ = _study_data()
    rng = np.random.default_rng(0)
    risks = pd.DataFrame({"stage": (table["tnm"] == "IVa").astype(float), "mtdlr": rng.normal(size=len(table))})
    few, again, many = (evaluate(Judged(risks, {}, {}), table, (12.0,), STUDY.evaluate.model_copy(update={
        "comparison": "bootstrap", "bootstrap": n}))["mtdlr", "training"].concordance_vs_stage for n in (50, 50, 400))
    assert few == again != many


def test_a_level_without_patients_and_scores_that_do_not_vary() -> None:
    """A stage level that training lacks is left out of the nomogram; a constant score too; nothing left is an error."""
    table, *_ = _study_data()
    rows = table.assign(auto_radio=0.0, deepmts=np.random.default_rng(0).normal(size=160))
    rows.loc[rows["split"] == "training", "tnm"] = "III"
    assert fit_nomogram(rows, MTDLR, STUDY).design.columns == ("deepmts",)
    with pytest.raises(FitError, match="E-NOMODEL"):
        fit_nomogram(rows, replace(MTDLR, scores=("auto_radio",)), STUDY)


@pytest.mark.slow
def test_a_score_with_a_negative_weight_is_said() -> None:
    """A score, of which higher is worse, that enters with a negative weight gets W-NEGATIVEWEIGHT in the fit."""
    table, folds, raw, features = _study_data()
    turned = {i: {"risks": {name: [-v for v in values] for name, values in of["risks"].items()}}
              for i, of in raw.items()}
    model = fitted(table, folds, turned, features).model
    said = {p.where for p in model.problems if p.code == "W-NEGATIVEWEIGHT"}
    assert "column deepmts" in said and "column auto_radio" not in said
    assert not [p for p in fitted(table, folds, raw, features).model.problems if p.where == "column deepmts"]


def test_separation_is_fitted_by_firth_and_said() -> None:
    """FAULTS 46: where a score separates the events the nomogram stays finite, by Firth's method, with a warning."""
    table, *_ = _study_data()
    noise = np.random.default_rng(0).normal(size=160)
    rows = table.assign(deepmts=np.where(table["event"], 1.0, 0.0), auto_radio=noise)
    nomogram = fit_nomogram(rows, MTDLR, STUDY)
    assert np.isfinite(nomogram.cox.coef).all() and nomogram.cox.hazard_ratios()["deepmts"].value > 10
    assert any(p.code == "W-FIRTH" and "deepmts" in p.where for p in nomogram.cox.problems)


def _with_age(seed: int = 0) -> tuple[pd.DataFrame, pd.Series, dict, dict]:
    """The made-up study with an age that carries risk, missing for one training and one external patient."""
    table, folds, raw, features = _study_data(seed)
    rng = np.random.default_rng(seed)
    table = table.assign(age=50 - 8 * np.log(table["time_months"]) + rng.normal(0, 8, len(table)),
                         noise=rng.normal(size=len(table)))
    table.loc[["P3", "P130"], "age"] = np.nan
    return table, folds, raw, features


def _study(**nomogram: object) -> Study:
    return Study.of({
        "cohort": {"stage": "tnm", "factors": {"tnm": ("III", "IVa")}, "continuous": ("age", "noise")},
        "nomogram": {"months": (12, 24), "covariates": ("tnm", "age", "noise"), "select": "off"} | nomogram,
        "signature": {"lambdas": 20, "folds": 4, "repeats": 1}})


@pytest.mark.slow
def test_a_nomogram_takes_clinical_covariates() -> None:
    """nomogram.covariates enter every nomogram, with splines where wanted; a missing value takes the training median,
    of the training cohort alone, and is said."""
    table, *rest = _with_age()
    found = fitted(table, *rest, study=_study(splines={"age": 3}))
    nomogram = found.model.nomograms["mtdlr"]
    assert nomogram.design.columns == ("tnm=IVa", "age", "age'", "noise", "auto_radio", "deepmts")
    training = table[table["split"] == "training"]
    assert found.model.imputed["age"] == training["age"].median()
    assert found.findings.risks["mtdlr"].notna().all()
    assert any(p.code == "W-IMPUTED" and "P130" in p.found for p in found.problems)


@pytest.mark.slow
def test_a_prediction_asks_for_the_covariates_of_the_nomogram() -> None:
    """Each covariate is asked for by name; a decimal comma is understood; a missing, unknown or unused one is said."""
    model = fitted(*_with_age(), study=_study()).model
    assert model.clinical({"tnm": "iva", "age": "51,5", "noise": 0}) == {"tnm": "IVa", "age": 51.5, "noise": 0.0}
    with pytest.raises(TableError) as caught:
        model.clinical({"tnm": "V", "aeg": 51})
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and all(line.startswith("E-CLINICAL") for line in lines)
    assert any("aeg" in line and "does not use" in line for line in lines)


@pytest.mark.slow
def test_a_prediction_offers_only_levels_that_the_nomogram_saw() -> None:
    """A level that only other cohorts have is refused and not offered."""
    table, *rest = _study_data()
    table.loc[table.index[-5:], "tnm"] = "IVb"
    study = Study.of({"cohort": {"stage": "tnm", "factors": {"tnm": ("III", "IVa", "IVb")}},
                      "nomogram": {"months": (12, 24)}, "signature": {"lambdas": 20, "folds": 4, "repeats": 1}})
    with pytest.raises(TableError, match=r"E-CLINICAL tnm: .*found 'IVb'; expected III or IVa\."):
        fitted(table, *rest, study=study).model.clinical({"tnm": "IVb"})


@pytest.mark.slow
def test_selection_by_p_is_done_again_without_each_fold() -> None:
    """nomogram.select = 'p' keeps what has P < 0.05 alone and together; the training cohort's risks come from nomograms
    that were selected and fitted without the patient's fold."""
    table, folds, raw, features = _with_age()
    study = _study(select="p")
    found = fitted(table, folds, raw, features, study=study)
    assert "noise" not in found.model.nomograms["mtdlr"].design.columns
    held_out = judge(found.model, table, found.scores, study.evaluate, folds).risks["mtdlr"]
    other = table.index[table["split"] == "external"]
    assert held_out[other].equals(found.findings.risks["mtdlr"][other])
    assert not np.allclose(held_out[folds.index], found.findings.risks.loc[folds.index, "mtdlr"])
    changed = table.copy()
    fold = folds.index[folds == 0]
    changed.loc[fold, "event"] = ~changed.loc[fold, "event"]
    again = judge(found.model, changed, found.scores, study.evaluate, folds).risks["mtdlr"]
    assert again[fold].equals(held_out[fold]) and not again[folds.index].equals(held_out[folds.index])


@pytest.mark.slow
def test_a_cohort_without_events_is_judged_as_far_as_it_goes() -> None:
    """FAULTS 92: no event in a validation cohort leaves its numbers NA, with a warning, and the others whole."""
    table, folds, raw, features = _study_data()
    table.loc[table["split"] == "external", "event"] = False
    found = fitted(table, folds, raw, features)
    external = found.findings.evaluations["mtdlr", "external"]
    assert np.isnan(external.c.value) and external.n == 60 and external.groups is None
    assert any(p.code == "W-NOEVENTS" and "external" in p.where for p in found.problems)
    assert found.findings.evaluations["mtdlr", "training"].c.value > 0.5


@pytest.mark.parametrize(("nomogram", "said"), [
    ({"covariates": ("age",)}, "neither in cohort.factors nor in cohort.continuous"),
    ({"splines": {"age": 3}}, "not a continuous column of nomogram.covariates"), ({"splines": {"age": 2}}, "3 to 7")])
def test_covariates_are_columns_of_the_cohort(nomogram: dict, said: str) -> None:
    """A covariate that the cohort does not describe, or a spline of something else, is a mistake of the study file."""
    with pytest.raises(StudyError, match=said):
        Study.of({"nomogram": nomogram})


def _gaining() -> Study:
    return STUDY.model_copy(update={"nomogram": STUDY.nomogram.model_copy(update={"select": "gain"})})


def test_a_useless_score_gets_no_weight_and_is_named() -> None:
    """With select = "gain", noise and a reversed score stay out of the nomogram (W-NOGAIN); a useful one enters; where
    nothing adds anything the stage is left alone."""
    table, _, _, features = _study_data()
    rng = np.random.default_rng(3)
    good = features["auto"].mean(axis=1)
    for auto, deep, kept in ((rng.normal(size=160), good, ["deepmts"]), (-good, good, ["deepmts"]),
                             (rng.normal(size=160), rng.normal(size=160), [])):
        rows = table.assign(auto_radio=np.asarray(auto), deepmts=np.asarray(deep))
        nomogram = fit_nomogram(rows, MTDLR, _gaining())
        assert [term.name for term in nomogram.design.terms] == ["tnm", *kept]  # type: ignore[union-attr]
        found = [problem for problem in nomogram.cox.problems if problem.code == "W-NOGAIN"]
        assert len(found) == 2 - len(kept) and {problem.where for problem in found} == {"nomogram MTDLR"}


@pytest.mark.slow
def test_nomograms_without_a_fold_do_without_unscored_patients() -> None:
    """A training patient who could not be scored is in no row: the others' risks are those of a study without the
    patient."""
    table, folds, raw, features = _study_data()
    found = fitted(table, folds, raw, features, study=_gaining())
    lost = folds.index[3]
    rows, scores = table.drop(index=lost), found.scores.drop(index=lost)
    risks = judge(found.model, rows, scores, STUDY.evaluate, folds).risks["mtdlr"]
    known = judge(found.model, rows, scores, STUDY.evaluate, folds.drop(lost)).risks["mtdlr"]
    pd.testing.assert_series_equal(risks, known)
    assert lost not in risks.index and risks.notna().all()


def test_without_a_stage_the_best_score_is_taken() -> None:
    """A cohort of one stage whose scores add nothing still has a nomogram, of the better score."""
    table, *_ = _study_data()
    rng = np.random.default_rng(3)
    rows = table.assign(tnm="III", auto_radio=rng.normal(size=160), deepmts=rng.normal(size=160))
    assert len(fit_nomogram(rows, MTDLR, _gaining()).design.terms) == 1
