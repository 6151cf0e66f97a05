"""Signatures: Lasso-Cox scores fitted on the training cohort alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError
from mtdlr.signature import Signature, cross_fit_signature, fit_signature
from mtdlr.stats.concordance import concordance
from mtdlr.study import SignatureSettings
from mtdlr.survival import Survival

SETTINGS = SignatureSettings(lambdas=30, folds=5, repeats=2)


def _data(n: int = 150, p: int = 40, seed: int = 0) -> tuple[pd.DataFrame, Survival]:
    """Features of which the first two drive the hazard."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.1, 100, p) + rng.normal(size=p)
    z = (x - x.mean(0)) / x.std(0)
    time = rng.exponential(np.exp(-(z[:, 0] - z[:, 1])))
    censor = rng.exponential(2.0, n)
    table = pd.DataFrame(x, columns=[f"f{j}" for j in range(p)], index=[f"P{k}" for k in range(n)])
    return table, Survival(np.minimum(time, censor) + 1e-3, time <= censor)


def test_a_signature_finds_what_drives_the_hazard() -> None:
    """The two true features are selected with the right signs and most often; the score is centred in training."""
    table, surv = _data()
    signature = fit_signature(table, surv, SETTINGS)
    coef = dict(zip(signature.features, signature.coef, strict=True))
    assert coef["f0"] > 0.3 and coef["f1"] < -0.3
    assert max(abs(v) for k, v in coef.items() if k not in ("f0", "f1")) < 0.3
    often = dict(zip(signature.features, signature.selected_in, strict=True))
    assert often["f0"] == often["f1"] == 1.0
    assert signature.score(table).mean() == pytest.approx(0.0, abs=1e-10)
    assert concordance(signature.score(table).to_numpy(), surv).c.value > 0.7


@pytest.mark.parametrize("events", [1, 2, 4])
def test_few_events_leave_finite_scores(events: int) -> None:
    """With fewer events than folds every score is finite: 0 with W-NOSIGNATURE where nothing can be fitted."""
    table, _ = _data(n=40, p=6)
    few = Survival(np.arange(1.0, 41.0), np.arange(40) < events)
    signature, scores = cross_fit_signature(table, few, np.arange(40) % 3, SETTINGS)
    assert np.isfinite(scores).all() and np.isfinite(signature.score(table)).all()
    if events == 1:
        assert "W-NOSIGNATURE" in {problem.code for problem in signature.problems}


def test_scores_do_not_depend_on_units_or_column_order() -> None:
    """Scaling a feature or shuffling the columns leaves the scores as they are."""
    table, surv = _data()
    scaled = (table * 1000.0)[sorted(table.columns, reverse=True)]
    settings = SETTINGS.model_copy(update={"max_correlation": None})
    np.testing.assert_allclose(fit_signature(table, surv, settings).score(table),
                               fit_signature(scaled, surv, settings).score(scaled), atol=1e-5)


def test_features_that_change_under_perturbation_take_no_part() -> None:
    """With perturbed tables only robust features are candidates; each fold judges by its own patients alone."""
    table, surv = _data(n=120, p=10)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=table.shape) * table.std().to_numpy() * np.where(np.arange(10) % 2, 1.0, 0.02)
    perturbed = [table + noise, table - noise]
    signature = fit_signature(table, surv, SETTINGS, perturbed)
    assert signature.n_candidates == 5 and {"f1", "f3"}.isdisjoint(signature.features) and "f0" in signature.features
    assert fit_signature(table, surv, SETTINGS).n_candidates == 10
    folds = np.arange(120) % 3
    _, before = cross_fit_signature(table, surv, folds, SETTINGS, perturbed)
    perturbed[0].loc[folds == 1, "f8"] = 1e6 * rng.normal(size=40)
    _, after = cross_fit_signature(table, surv, folds, SETTINGS, perturbed)
    pd.testing.assert_series_equal(before[folds == 1], after[folds == 1])


def test_a_cross_fitted_score_never_saw_its_patient() -> None:
    """Changing a patient's outcome or features leaves the patient's own out-of-fold coefficients as they were."""
    table, surv = _data()
    folds = np.arange(len(table)) % 3
    _, before = cross_fit_signature(table, surv, folds, SETTINGS)
    event = surv.event.copy()
    event[folds == 1] = ~event[folds == 1]
    _, after = cross_fit_signature(table, Survival(surv.time_months, event), folds, SETTINGS)
    assert before[folds == 1].tolist() == after[folds == 1].tolist()
    assert before[folds == 0].tolist() != after[folds == 0].tolist()


@pytest.mark.slow
def test_noise_gives_less_out_of_fold_than_in_sample() -> None:
    """On pure noise the in-sample score looks good and the out-of-fold score does not: that is why it is used."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(120, 200)), columns=[f"f{j}" for j in range(200)])
    surv = Survival(rng.exponential(size=120) + 1e-3, rng.random(120) < 0.5)
    settings = SETTINGS.model_copy(update={"choose": "min", "max_correlation": None})
    signature, out_of_fold = cross_fit_signature(table, surv, np.arange(120) % 4, settings)
    inside = concordance(signature.score(table).to_numpy(), surv).c.value
    assert not signature.features or inside > concordance(out_of_fold.to_numpy(), surv).c.value


def test_what_cannot_be_used_is_dropped() -> None:
    """FAULTS 47: constant, incomplete and repeated columns take no part; a row without features takes no part."""
    table, surv = _data(p=6)
    holes = np.where(np.arange(150) < 5, np.nan, table["f2"])
    table = table.assign(constant=1.0, copy=table["f0"] * 2 + 1, holes=holes)
    table.iloc[7] = np.nan
    signature = fit_signature(table.drop(columns="holes"), surv, SETTINGS)
    assert signature.n == 149 and signature.n_candidates == 6
    assert not {"constant", "copy"} & set(signature.features)
    assert np.isnan(signature.score(table)["P7"])
    assert fit_signature(table, surv, SETTINGS).n_candidates == 6


def test_nothing_to_fit() -> None:
    """No events and no varying feature are typed errors; a missing column is named."""
    table, surv = _data(p=3)
    with pytest.raises(FitError, match="E-NOEVENTS"):
        fit_signature(table, Survival(surv.time_months, np.zeros(150, bool)), SETTINGS)
    with pytest.raises(FitError, match="E-NOFEATURES"):
        fit_signature(table * 0.0, surv, SETTINGS)
    with pytest.raises(FitError, match="E-FEATURE.*f0"):
        fit_signature(table, surv, SETTINGS).score(table.drop(columns="f0"))


def test_a_signature_survives_the_disk(tmp_path: Path) -> None:
    """What is saved is read back equal to the last bit."""
    table, surv = _data(n=60, p=80)
    signature = fit_signature(table, surv, SETTINGS)
    assert [p.code for p in signature.problems][-1] == "W-MANYFEATURES"
    signature.save(tmp_path / "s.json")
    assert Signature.load(tmp_path / "s.json") == signature


@pytest.mark.slow
def test_scores_of_every_fold_have_one_scale() -> None:
    """The score of each fold's signature has SD 1 in the patients it was fitted on, and so has the signature of all:
    out-of-fold scores can stand side by side."""
    table, surv = _data()
    for rows in (np.arange(150), np.arange(0, 150, 2), np.arange(1, 150, 2)):
        signature = fit_signature(table.iloc[rows], surv.take(rows), SETTINGS)
        assert signature.score(table.iloc[rows]).std(ddof=0) == pytest.approx(1.0)


def test_a_fold_whose_signature_keeps_nothing_is_said() -> None:
    """W-EMPTYFOLD names the fold and how many patients score the mean."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(60, 4)), columns=list("abcd"))
    surv = Survival(rng.exponential(size=60) + 0.1, rng.random(60) < 0.4)
    signature, scores = cross_fit_signature(table, surv, np.arange(60) % 3, SETTINGS)
    empty = [problem for problem in signature.problems if problem.code == "W-EMPTYFOLD"]
    silent = [fold for fold in range(3) if (scores[np.arange(60) % 3 == fold] == 0).all()]
    assert empty and [problem.where for problem in empty] == [f"signature, subfold {fold}" for fold in silent]


def test_the_elastic_net_keeps_more_than_the_lasso() -> None:
    """With alpha near 0 (ridge) most features take part, with 1 (the lasso) few."""
    table, surv = _data()
    few, many = (len(fit_signature(table, surv, SETTINGS.model_copy(update={"alpha": alpha})).features)
                 for alpha in (1.0, 0.05))
    assert many > 1.5 * few


@pytest.mark.slow
def test_a_fold_without_usable_features_does_not_end_the_study() -> None:
    """Where the features of all other folds are undefined (masks of air), the fold scores 0, with a warning."""
    table, surv = _data()
    folds = np.arange(len(table)) % 2
    table.loc[folds == 0] = np.nan
    signature, scores = cross_fit_signature(table, surv, folds, SETTINGS)
    assert (scores[folds == 1] == 0).all() and signature.features
    assert any(p.code == "W-EMPTYFOLD" for p in signature.problems)
    nothing, scores = cross_fit_signature(table * np.nan, surv, folds, SETTINGS)
    assert not nothing.features and any(p.code == "W-NOSIGNATURE" for p in nothing.problems)
