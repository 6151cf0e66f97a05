"""Features of several centres on one scale: what ComBat does inside a signature, to whom, and what it never does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort.check import unnamed_centers
from mtdlr.errors import BundleError
from mtdlr.model import study_scores
from mtdlr.nomogram.scores import Scores
from mtdlr.radiomics.harmonise import Harmonisation, fit_harmonisation, large_centers
from mtdlr.signature import Signature, cross_fit_signature, harmonised, unharmonised
from mtdlr.study import SignatureSettings, Study
from mtdlr.survival import Survival

OFF = SignatureSettings(lambdas=12, folds=3, repeats=1)
COMBAT = OFF.model_copy(update={"harmonise": "combat", "harmonise_patients": 25})
SHIFT, FACTOR = 2.0, 1.6


def _features(n: int, p: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(n, p)) * np.linspace(0.5, 5.0, p) + np.linspace(0.0, 10.0, p)


def _study(seed: int = 0) -> tuple[pd.DataFrame, Survival, pd.Series]:
    """120 patients of two scanners; B measures every feature 1.6 times and two standard deviations higher."""
    rng = np.random.default_rng(seed)
    x = _features(120, 12, rng)
    z = (x - np.linspace(0.0, 10.0, 12)) / np.linspace(0.5, 5.0, 12)
    time = rng.exponential(np.exp(-(z[:, 0] + z[:, 1])))
    censor = rng.exponential(2.0, 120)
    centers = pd.Series(np.where(np.arange(120) % 5 < 3, "A", "B"), index=[f"P{k:03d}" for k in range(120)])
    x[centers == "B"] = x[centers == "B"] * FACTOR + SHIFT * np.linspace(0.5, 5.0, 12)
    table = pd.DataFrame(x, columns=[f"f{j}" for j in range(12)], index=centers.index)
    return table, Survival(np.minimum(time, censor) + 1e-3, time <= censor), centers


def _new_center(n: int, seed: int = 9) -> pd.DataFrame:
    """Patients of a third scanner, like those of training but for a shift of its own."""
    x = _features(n, 12, np.random.default_rng(seed)) * 0.7 - 1.5 * np.linspace(0.5, 5.0, 12)
    return pd.DataFrame(x, columns=[f"f{j}" for j in range(12)], index=[f"C{k}" for k in range(n)])


def _fit(settings: SignatureSettings, seed: int = 0) -> tuple[Signature, pd.Series, pd.Series]:
    table, surv, centers = _study(seed)
    signature, scores = cross_fit_signature(table, surv, np.arange(120) % 4, settings, centers=centers)
    return signature, scores, centers


@pytest.fixture(scope="module")
def fitted() -> tuple[Signature, pd.Series, pd.Series]:
    """The harmonised signature of two scanners, its out-of-fold scores and the centres."""
    return _fit(COMBAT)


def _distance(scores: pd.Series, centers: pd.Series) -> float:
    """How far two scanners' mean scores lie apart, in SD of the first."""
    first, second = (scores[centers == name] for name in ("A", "B"))
    return abs(float((second.mean() - first.mean()) / first.std()))


def test_the_scanners_scores_come_together(fitted: tuple[Signature, pd.Series, pd.Series]) -> None:
    """A scanner that measures higher and wider moves its patients' scores; harmonised, under a quarter is left."""
    signature, scores, centers = fitted
    plain, plain_scores, _ = _fit(OFF)
    assert plain.harmonisation is None and plain.features and signature.features
    assert _distance(plain_scores, centers) > 0.5
    assert _distance(scores, centers) < 0.25 * _distance(plain_scores, centers)
    assert {one.policy for one in signature.policies(_study()[0], centers)} == {"stored"}


def test_a_new_scanner_with_enough_patients_is_put_on_the_scale_by_its_own_features(
    fitted: tuple[Signature, pd.Series, pd.Series]
) -> None:
    """Transductive, with a code: without outcomes the new centre's scores come to the training mean."""
    signature, _, _ = fitted
    rows, centers = _new_center(40), pd.Series("C", index=_new_center(40).index)
    (policy,) = signature.policies(rows, centers)
    assert (policy.policy, policy.n) == ("transductive", 40)
    assert policy.problem is not None and policy.problem.code == "W-TRANSDUCTIVE"
    assert abs(signature.score(rows, centers).mean()) < 0.3 < abs(signature.score(rows).mean())


@pytest.mark.parametrize("n", [1, 24])
def test_few_patients_keep_their_features(fitted: tuple[Signature, pd.Series, pd.Series], n: int) -> None:
    """A new centre below the number, down to one patient, is scored as measured, and W-NOTHARMONISED says so."""
    signature, _, _ = fitted
    rows, centers = _new_center(n), pd.Series("C", index=_new_center(n).index)
    pd.testing.assert_series_equal(signature.score(rows, centers), signature.score(rows))
    (policy,) = signature.policies(rows, centers)
    assert policy.policy == "none" and policy.problem is not None and policy.problem.code == "W-NOTHARMONISED"


def test_a_patient_of_a_known_scanner_has_its_transform(fitted: tuple[Signature, pd.Series, pd.Series]) -> None:
    """Alone or among others a patient of a training centre scores the same, and nothing is warned of."""
    signature, _, centers = fitted
    table, _, _ = _study()
    row = list(table.index[centers == "B"][:1])
    assert signature.score(table.loc[row], centers[row]).item() == signature.score(table, centers)[row[0]]
    assert [one.problem for one in signature.policies(table.loc[row], centers[row])] == [None]


def test_a_left_out_fold_moves_no_transform() -> None:
    """Where a left-out patient's features change, the other patients of the fold keep their out-of-fold scores."""
    table, surv, centers = _study()
    folds, changed = np.arange(120) % 4, table.copy()
    changed.iloc[4] *= 50.0
    _, before = cross_fit_signature(table, surv, folds, COMBAT, centers=centers)
    _, after = cross_fit_signature(changed, surv, folds, COMBAT, centers=centers)
    others = (folds == folds[4]) & (np.arange(120) != 4)
    pd.testing.assert_series_equal(before[others], after[others])
    assert before.iloc[4] != after.iloc[4]


def test_the_order_of_patients_moves_nothing() -> None:
    """Transform and transformed features of shuffled patients are the same to rounding."""
    table, _, centers = _study()
    order = np.random.default_rng(3).permutation(120)
    kept = [fit_harmonisation(t, c, COMBAT, {"A", "B"}) for t, c in (
        (table, centers), (table.iloc[order], centers.iloc[order]))]
    assert kept[0] is not None and kept[1] is not None
    pd.testing.assert_frame_equal(kept[0].apply(table, centers), kept[1].apply(table.iloc[order], centers.iloc[order])
                                  .loc[table.index], rtol=1e-8)


def test_small_centers_train_as_they_are() -> None:
    """A training centre below the number gets no transform; features that some patients lack take no part."""
    table, _, centers = _study()
    centers[:8] = "D"
    table["f3"] = table["f3"].where(np.arange(120) != 50)
    table.iloc[60] = np.nan  # an empty mask
    found = fit_harmonisation(table, centers, COMBAT, large_centers(centers, COMBAT))
    assert found is not None and set(found.combat.batches) == {"A", "B"} and "f3" not in found.features
    pd.testing.assert_frame_equal(found.apply(table, centers).iloc[:8], table.iloc[:8])
    assert found.apply(table, centers).iloc[60].isna().all()
    pd.testing.assert_series_equal(found.apply(table, centers)["f3"], table["f3"])


def test_the_largest_center_is_the_reference(fitted: tuple[Signature, pd.Series, pd.Series]) -> None:
    """The features of the largest centre stay as they are, and each stored number stands on five patients or more."""
    signature, _, centers = fitted
    table, _, _ = _study()
    assert signature.harmonisation is not None
    moved = signature.harmonisation.apply(table, centers)
    np.testing.assert_allclose(moved[centers == "A"], table[centers == "A"], rtol=1e-12)
    assert min(one.n for one in signature.harmonisation.combat.batches.values()) >= 5
    alone = fit_harmonisation(table.iloc[:6], centers.iloc[:6], COMBAT, {"A", "B"})
    assert alone is None  # four of A and two of B


def test_it_comes_back_as_it_was_saved(fitted: tuple[Signature, pd.Series, pd.Series], tmp_path: Path) -> None:
    """A harmonised signature passes through its file; one that harmonises nothing has a file as before."""
    signature, _, centers = fitted
    table, _, _ = _study()
    signature.save(tmp_path / "signature.json")
    read = Signature.load(tmp_path / "signature.json")
    assert read == signature
    pd.testing.assert_series_equal(read.score(table, centers), signature.score(table, centers))
    _fit(OFF)[0].save(tmp_path / "plain.json")
    assert "harmonisation" not in (tmp_path / "plain.json").read_text()


def _broken(values: dict[str, Any], way: str) -> dict[str, Any]:
    """The stored transform with one thing wrong."""
    batch = values["combat"]["batches"]["B"]
    if way == "no spread":
        batch["ratio"][0] = 0.0
    elif way == "two patients":
        batch["n"] = 2
    elif way == "a row too many":
        values["rows"] = [[1.0]]
    elif way == "another length":
        values["combat"]["mean"].pop()
    elif way == "no number":
        batch["shift"][0] = None
    return values


@pytest.mark.parametrize("way", ["no spread", "two patients", "a row too many", "another length", "no number"])
def test_a_transform_that_no_fit_gives_is_refused(
    fitted: tuple[Signature, pd.Series, pd.Series], tmp_path: Path, way: str
) -> None:
    """A received signature with a broken transform is E-SIGNATURE."""
    fitted[0].save(tmp_path / "signature.json")
    values = json.loads((tmp_path / "signature.json").read_text())
    values["harmonisation"] = _broken(values["harmonisation"], way)
    (tmp_path / "signature.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="E-SIGNATURE"):
        Signature.load(tmp_path / "signature.json")


def test_each_cohort_is_harmonised_apart_and_said(fitted: tuple[Signature, pd.Series, pd.Series]) -> None:
    """Training and internal patients have the stored transforms, an external centre its own; codes say so."""
    signature, out_of_fold, centers = fitted
    table, rows = _study()[0], _new_center(30)
    features = {"auto": pd.concat([table, rows])}
    cohort = pd.DataFrame({"split": ["training"] * 110 + ["internal"] * 10 + ["external"] * 30,
                           "center": [*centers, *["C"] * 30]}, index=features["auto"].index)
    scores = study_scores(cohort, Scores(pd.DataFrame(index=cohort.index), {}), features,
                          {"auto": (signature, out_of_fold[:110])})["auto_radio"]
    expected = pd.concat([out_of_fold[:110], signature.score(table, centers)[110:],
                          signature.score(rows, pd.Series("C", index=rows.index))])
    pd.testing.assert_series_equal(scores, expected, check_names=False)
    problems = unharmonised(cohort, features, {"auto": signature})
    assert [(p.code, p.where) for p in problems] == [("W-TRANSDUCTIVE", "centre C")]
    assert [one.policy for one in harmonised(cohort[110:], features, {"auto": signature})["auto"]] == [
        "stored", "stored", "transductive"]


def test_centers_must_be_named() -> None:
    """Harmonising without a column of the centre is E-NOCENTER; without harmonising none is needed."""
    asked = Study.of({"signature": {"harmonise": "combat"}})
    assert [p.code for p in unnamed_centers(asked)] == ["E-NOCENTER"]
    assert not unnamed_centers(Study()) and not unnamed_centers(Study.of({"signature": {"harmonise": "combat"},
                                                                          "cohort": {"center": "hospital"}}))


def test_equal_transforms_are_equal(fitted: tuple[Signature, pd.Series, pd.Series]) -> None:
    """Two readings of one transform are equal and have one hash; another number of patients is another transform."""
    kept = fitted[0].harmonisation
    assert kept is not None
    twin = Harmonisation.from_dict(json.loads(json.dumps(kept.as_dict())))
    assert twin == kept and hash(twin) == hash(kept) and twin != Harmonisation(kept.features, kept.combat, 99)
