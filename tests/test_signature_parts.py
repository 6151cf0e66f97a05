"""A signature as a value: its arithmetic by hand, what a file must hold to be one, and which features may enter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import BundleError, FitError, Problem
from mtdlr.signature import Signature, fit_or_empty, fit_signature, fit_with_scores
from mtdlr.stats.lasso import Penalties, cross_validate_lasso, stratified_folds
from mtdlr.study import SignatureSettings
from mtdlr.survival import Survival

SETTINGS = SignatureSettings(lambdas=15, folds=3, repeats=2)
MADE = Signature(("volume", "entropy"), (10.0, 4.0), (2.0, 0.5), (0.3, -0.8), 0.05, (1.0, 0.25), 100, 40, 7,
                 (Problem("W-MANYFEATURES", "more features than patients", where="signature"),), spread=0.5)


def _data(n: int = 70, p: int = 5, seed: int = 3) -> tuple[pd.DataFrame, Survival]:
    """Features of which the first drives the hazard."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    table = pd.DataFrame(x, columns=[f"f{j}" for j in range(p)], index=[f"P{k}" for k in range(n)])
    return table, Survival(rng.exponential(np.exp(-1.5 * x[:, 0])) + 0.01, rng.random(n) < 0.8)


def test_a_score_is_the_weighted_sum_of_standardised_features_over_the_spread() -> None:
    """((12 - 10) / 2 x .3 - (3 - 4) / .5 x .8) / .5 = 3.8; the training mean scores 0; other columns do not matter."""
    rows = pd.DataFrame({"entropy": [3.0, 4.0, np.nan], "other": [9.0, 9.0, 9.0], "volume": [12.0, 10.0, 10.0]},
                        index=["a", "b", "c"])
    score = MADE.score(rows)
    assert list(score.index) == ["a", "b", "c"]
    np.testing.assert_allclose(score, [(0.3 + 1.6) / 0.5, 0.0, np.nan])
    assert list(MADE.measured(rows).columns) == ["volume", "entropy"]


def test_a_patients_score_does_not_depend_on_who_is_beside() -> None:
    """The score in a table of many is that of the patient alone, to the last bit."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"volume": rng.normal(10, 2, 37), "entropy": rng.normal(4, 1, 37)})
    alone = [MADE.score(rows.iloc[[k]]).iloc[0] for k in range(37)]
    assert MADE.score(rows).tolist() == alone


def test_an_absent_feature_is_named() -> None:
    """E-FEATURE lists the selected features that the table lacks, and no others."""
    with pytest.raises(FitError) as caught:
        MADE.score(pd.DataFrame({"volume": [1.0], "x": [2.0]}))
    assert (caught.value.code, caught.value.problems[0].found) == ("E-FEATURE", "entropy")


def test_the_text_has_the_largest_coefficient_first_and_the_problems_last() -> None:
    """One line a feature with its coefficient and how often it is kept; the repr is one line."""
    lines = str(MADE).splitlines()
    assert lines[0] == repr(MADE) == "Signature(2 of 7 features, 100 patients, 40 events, penalty 0.05)"
    assert lines[1].split() == ["entropy", "-0.8000", "in", "25%", "of", "the", "repeats"]
    assert lines[2].split() == ["volume", "+0.3000", "in", "100%", "of", "the", "repeats"]
    assert lines[3].startswith("W-MANYFEATURES signature: more features than patients")
    frame = MADE.to_frame()
    assert list(frame.index) == ["entropy", "volume"] and frame.loc["entropy", "center"] == 4.0
    assert list(frame.columns) == ["coef", "center", "scale", "selected_in"]


def test_the_identity_holds_every_number_unrounded() -> None:
    """A change in the last bit of a coefficient, or of the spread, is another identity."""
    for change in ({"coef": (np.nextafter(0.3, 1.0).item(), -0.8)}, {"spread": np.nextafter(0.5, 1.0).item()},
                   {"penalty": 0.06}, {"features": ("volume", "energy")}):
        assert replace(MADE, **change).identity != MADE.identity
    assert "harmonisation" not in MADE.identity and replace(MADE).identity == MADE.identity


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Tuples, problems and a penalty that was never chosen (null in the file) come back."""
    MADE.save(tmp_path / "s.json")
    assert Signature.load(tmp_path / "s.json") == MADE
    empty = Signature((), (), (), (), float("nan"), (), 9, 1, 0)
    empty.save(tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["penalty"] is None
    again = Signature.load(tmp_path / "e.json")
    assert np.isnan(again.penalty) and replace(again, penalty=0.0) == replace(empty, penalty=0.0)


@pytest.mark.parametrize("change", [
    {"scale": [2.0, 0.0]}, {"scale": [2.0, -0.5]}, {"center": [10.0]}, {"coef": [0.3, 1e400]}, {"coef": [0.3, "x"]},
    {"selected_in": [1.0, 0.2, 0.3]}, {"spread": 0.0}, {"spread": -1.0}, {"features": ["volume"]},
    {"problems": [{"code": "W-X"}]}, {"more": 1}, {"penalty": "large"}, {"problems": 3},
])
def test_a_file_with_numbers_that_no_fit_gives_is_refused(change: dict, tmp_path: Path) -> None:
    """A scale or spread that is not above 0, rows of another length, infinite numbers and other keys are E-SIGNATURE,
    with the file's name alone."""
    MADE.save(tmp_path / "auto.json")
    values = json.loads((tmp_path / "auto.json").read_text()) | change
    (tmp_path / "auto.json").write_text(json.dumps(values))
    with pytest.raises(BundleError) as caught:
        Signature.load(tmp_path / "auto.json")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-SIGNATURE", "auto.json")
    assert problem.remedy == "Ask the sender for the whole folder again"


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"problems": []}', "\x00"])
def test_a_file_that_is_no_signature_is_refused(text: str, tmp_path: Path) -> None:
    """Empty, cut or other JSON, and a file that is not there, are E-SIGNATURE."""
    path = tmp_path / "auto.json"
    path.write_text(text)
    with pytest.raises(BundleError, match="E-SIGNATURE auto.json: this is not a signature"):
        Signature.load(path)
    with pytest.raises(BundleError, match="E-SIGNATURE gone.json"):
        Signature.load(tmp_path / "gone.json")


def test_a_fitted_signature_is_the_lasso_at_the_median_penalty() -> None:
    """Centre, SD and coefficient per SD are those of the lasso of the repeats' middle penalty (the lower of two), and
    the share is that of the repeats whose own penalty keeps the feature."""
    table, surv = _data(seed=7)
    found = fit_signature(table, surv, SETTINGS)
    x = table.to_numpy()
    fits = [cross_validate_lasso(x, surv, folds=stratified_folds(surv.event, 3, SETTINGS.seed + k),
                                 penalties=Penalties(alpha=SETTINGS.alpha, n=15)) for k in range(2)]
    chosen = [fit.lambda_1se if SETTINGS.choose == "1se" else fit.lambda_min for fit in fits]
    assert found.penalty == min(chosen) < max(chosen)
    coef = fits[0].path.coef_at(found.penalty)[0] * x.std(axis=0)
    kept = np.flatnonzero(coef)
    assert found.features == tuple(table.columns[kept]) and "f0" in found.features
    np.testing.assert_allclose(found.coef, coef[kept])
    np.testing.assert_allclose(found.center, x.mean(axis=0)[kept])
    np.testing.assert_allclose(found.scale, x.std(axis=0)[kept])
    often = np.mean([fit.path.coef_at(at)[0] != 0 for fit, at in zip(fits, chosen, strict=True)], axis=0)
    np.testing.assert_allclose(found.selected_in, often[kept])
    assert float(found.score(table).std(ddof=0)) == pytest.approx(1.0)
    assert (found.n, found.n_events, found.n_candidates) == (70, surv.n_events, 5)


def test_the_first_of_two_correlated_features_is_the_candidate() -> None:
    """A later feature whose ranks follow an earlier one, in either direction, takes no part; without a limit all do."""
    table, surv = _data()
    table["again"], table["turned"] = np.exp(table["f0"]), -(table["f1"] ** 3)
    limited = SETTINGS.model_copy(update={"max_correlation": 0.95})
    assert fit_signature(table, surv, limited).n_candidates == 5
    assert fit_signature(table, surv, SETTINGS.model_copy(update={"max_correlation": None})).n_candidates == 7


def test_more_features_than_patients_are_told() -> None:
    """W-MANYFEATURES counts features, patients and events; a row that is mostly missing is no patient."""
    table, surv = _data(12, 20)
    table.iloc[3, :15] = np.nan
    found = fit_signature(table, surv, SETTINGS.model_copy(update={"max_correlation": None}))
    told = {problem.code: problem for problem in found.problems}["W-MANYFEATURES"]
    inside = surv.take(np.arange(12) != 3)
    assert told.found == f"20 features, 11 patients, {inside.n_events} events"


def test_without_a_fit_every_score_is_0_and_the_reason_is_told() -> None:
    """No event: an empty signature with W-NOSIGNATURE and the code of its cause; its scores are 0."""
    table, surv = _data()
    found = fit_or_empty(table, Survival(surv.time_months, np.zeros(70, bool)), SETTINGS, ())
    assert found.features == () and [p.code for p in found.problems] == ["W-NOSIGNATURE"]
    assert found.problems[0].found.startswith("E-NOEVENTS no event among the patients with features")
    assert (found.score(table) == 0).all() and (found.n, found.n_events, found.spread) == (70, 0, 1.0)


def test_one_fold_scores_in_sample_and_two_score_out_of_fold() -> None:
    """With one fold the score is the signature's own; with more that of the folds that lack the patient."""
    table, surv = _data()
    training = pd.DataFrame({"time_months": surv.time_months, "event": surv.event, "center": "A"}, index=table.index)
    whole, inside = fit_with_scores(table, training, pd.Series(0, index=table.index), SETTINGS)
    pd.testing.assert_series_equal(inside, whole.score(table))
    folds = pd.Series(np.arange(70) % 2, index=table.index)
    again, outside = fit_with_scores(table, training, folds, SETTINGS)
    assert again.features == whole.features and again.coef == whole.coef
    for k in (0, 1):
        own, rest = table[folds == k], (folds != k).to_numpy()
        pd.testing.assert_series_equal(outside[folds == k], fit_signature(table[rest], surv.take(rest), SETTINGS)
                                       .score(own), check_names=False)
