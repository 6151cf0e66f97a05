"""Rivals: cross-fitted, named, and told of when they are ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError, TableError
from mtdlr.evaluate.rivals import (
    RIVALS,
    Rivals,
    clinical_matrix,
    coarse_pet,
    cross_fitted,
    fit_equal_weights,
    fit_ridge,
    fit_rivals,
    read_embedding,
    rivals_ahead,
)
from mtdlr.evaluate.simple import study_rivals
from mtdlr.prepared import PatientScore
from mtdlr.stats.concordance import concordance
from mtdlr.store import Store
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.volume import Volume
from mtdlr.workers.planning import Stored

FACTORS = {"tnm_stage": ("III", "IVa"), "n_stage": ("N0", "N1", "N2", "N3")}


def _study(n: int = 180, seed: int = 0) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame]:
    """(table, folds, vectors): the first vector column and the stage drive the hazard."""
    rng = np.random.default_rng(seed)
    ids = [f"P{k:03d}" for k in range(n)]
    vectors = pd.DataFrame(rng.standard_normal((n, 12)), index=ids)
    stage = rng.choice(["III", "IVa"], n)
    rate = np.exp(1.2 * vectors[0].to_numpy() + 0.8 * (stage == "IVa"))
    time = rng.exponential(size=n) / rate * 60 + 0.1
    table = pd.DataFrame({
        "split": ["training"] * (n - 60) + ["external"] * 60, "time_months": np.minimum(time, 50.0),
        "event": (time < 50.0).astype(int), "tnm_stage": stage, "n_stage": rng.choice(list(FACTORS["n_stage"]), n),
        "age": rng.normal(50, 9, n)}, index=ids)
    return table, pd.Series(np.arange(n - 60) % 3, index=ids[: n - 60]), vectors


def _fit(table: pd.DataFrame, folds: pd.Series, **inputs: pd.DataFrame) -> Rivals:
    return fit_rivals(table, folds, stage="tnm_stage", factors=FACTORS, continuous=["age"], inputs=inputs)


def _external_c(risk: pd.Series, table: pd.DataFrame) -> float:
    rows = table["split"] == "external"
    surv = Survival(table.loc[rows, "time_months"].to_numpy(), table.loc[rows, "event"].to_numpy())
    return concordance(risk[rows].to_numpy(), surv).c.value


@pytest.mark.slow
def test_every_rival_finds_what_it_can_see() -> None:
    """Vectors that drive the hazard are found by the ridge models and by equal weights, the stage by the clinical
    ones; every patient has a risk of each."""
    table, folds, vectors = _study()
    volume = pd.DataFrame({"ml": np.exp(vectors[0])})
    rivals = _fit(table, folds, volume=volume, image=vectors, radiomics=vectors, embedding=vectors)
    assert list(rivals.risks) == list(RIVALS)
    assert rivals.risks.notna().all(axis=None)
    assert not rivals.problems
    c = {name: _external_c(rivals.risks[name], table) for name in rivals.risks}
    assert c["volume_stage"] > 0.75
    assert c["embedding"] == c["image_pca"] > 0.68
    assert c["equal_weights"] > 0.6
    assert c["clinical_ridge"] > 0.53


@pytest.mark.slow
def test_a_patients_own_follow_up_moves_no_own_risk() -> None:
    """The risk of a training patient, and of an external one, does not depend on the follow-up of its own fold."""
    table, folds, vectors = _study()
    changed = table.copy()
    mine = [*folds.index[folds == 1], *table.index[table["split"] == "external"]]
    changed.loc[mine, "event"] = 1 - changed.loc[mine, "event"]
    first, second = (cross_fitted(vectors, one, folds, fit_ridge) for one in (table, changed))
    pd.testing.assert_series_equal(first[folds.index[folds == 1]], second[folds.index[folds == 1]])
    assert not np.allclose(first[folds.index[folds == 0]], second[folds.index[folds == 0]])


def test_equal_weights_know_no_units() -> None:
    """Equal weights are those of a table whose columns are scaled otherwise, and signs follow the association."""
    table, _, vectors = _study()
    surv = Survival(table["time_months"].to_numpy(), table["event"].to_numpy())
    x = vectors[[0, 1]].to_numpy()
    other = x * [1000.0, 0.1] + 5.0
    ours, scaled = fit_equal_weights(x, surv)(x), fit_equal_weights(other, surv)(other)
    np.testing.assert_allclose(ours, scaled, atol=1e-9)
    assert np.corrcoef(ours, x[:, 0])[0, 1] > 0.5


@pytest.mark.slow
def test_a_missing_vector_costs_its_patient_alone() -> None:
    """A patient without a row, or with NaN or infinity in it, has no risk by the embedding; everybody else has."""
    table, folds, vectors = _study()
    holed = vectors.drop(index="P000")
    holed.loc["P001", 3] = np.nan
    rivals = _fit(table, folds, embedding=holed)
    missing = rivals.risks["embedding"].isna()
    assert missing[missing].index.tolist() == ["P000", "P001"]


def test_few_events_leave_a_rival_out_by_name() -> None:
    """With nine events no rival is fitted, and each says so (W-NORIVAL)."""
    table, folds, vectors = _study()
    table["event"] = 0
    table.loc[table.index[:9], "event"] = 1
    rivals = _fit(table, folds, embedding=vectors)
    assert rivals.risks.empty
    assert {problem.code for problem in rivals.problems} == {"W-NORIVAL"}
    with pytest.raises(FitError, match="E-FEWEVENTS"):
        cross_fitted(vectors, table, folds, fit_ridge)


def test_constant_clinical_columns_do_no_harm() -> None:
    """One level of a factor and a constant age leave the other columns their say."""
    table, folds, _ = _study()
    table["n_stage"], table["age"] = "N2", 50.0
    assert _external_c(_fit(table, folds).risks["clinical_ridge"], table) > 0.5


def test_a_missing_clinical_value_is_the_training_mean() -> None:
    """An unknown level or a missing age takes the mean of the training cohort, not of everybody."""
    table, _, _ = _study()
    table.loc["P000", "age"] = np.nan
    found = clinical_matrix(table, FACTORS, ["age"])
    assert found.loc["P000", "age"] == pytest.approx(table.loc[table["split"] == "training", "age"].mean())


def test_the_rival_that_is_ahead_is_named() -> None:
    """W-RIVAL names every rival ahead of a model out of fold, the best first, and nobody who is behind."""
    table, _, vectors = _study()
    risks = pd.DataFrame({"deepmts": vectors[1], "mtdlr": vectors[0], "image_pca": vectors[0] + 0.5 * vectors[2],
                          "clinical_ridge": -vectors[0]})
    found = rivals_ahead(risks, table)
    assert [problem.code for problem in found] == ["W-RIVAL"]
    assert "DeepMTS" in found[0].what and "Image-PCA" in found[0].found and "Clinical" not in found[0].found


def test_a_rival_with_fewer_patients_is_compared_on_its_own() -> None:
    """A rival that lacks patients moves no other comparison; both C-indices of its own are those of its patients."""
    table, _, vectors = _study()
    risks = pd.DataFrame({"mtdlr": vectors[1], "image_pca": vectors[0], "embedding": vectors[0]})
    whole = rivals_ahead(risks.drop(columns="embedding"), table)[0].found
    risks.loc[risks.index[:30], "embedding"] = np.nan
    part = risks["embedding"].notna()
    alone = rivals_ahead(risks[part].drop(columns="image_pca"), table[part])[0].found
    found = rivals_ahead(risks, table, "in sample")[0]
    assert whole.removeprefix("C-index: ") in found.found and alone.removeprefix("C-index: ") in found.found
    assert found.what.endswith("MTDLR in sample")


def test_without_events_nobody_is_ahead() -> None:
    """A training cohort without an event names no rival."""
    table, _, vectors = _study()
    assert rivals_ahead(pd.DataFrame({"mtdlr": vectors[1], "image_pca": vectors[0]}), table.assign(event=0)) == ()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[pd.DataFrame, pd.Series, dict[str, Stored]]:
    """A made-up study of 60 patients whose PET and predicted mask lie on disk."""
    table, folds, _ = _study()
    table = table[(np.arange(180) % 3 == 0)]
    rng = np.random.default_rng(1)
    for i in table.index:
        folder = tmp_path / "stored" / str(i)
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", rng.standard_normal((2, 8, 8, 8)).astype(np.float32))
        mask = np.zeros((8, 8, 8), bool)
        mask[: 2 + int(rng.integers(5)), 2:5, 2:5] = True
        PatientScore({}, Volume(mask, np.diag([4.0, 4.0, 4.0, 1.0])), {}, ()).save(folder)
    kept = Stored({str(i): tmp_path / "stored" / str(i) for i in table.index}, {str(i): f"k{i}" for i in table.index})
    return table, folds[folds.index.isin(table.index)], {"prepared": kept, "scored": kept, "radiomics": kept}


def _rivals(store: Store, stored: tuple[pd.DataFrame, pd.Series, dict[str, Stored]], study: Study) -> Rivals:
    table, folds, kept = stored
    rng = np.random.default_rng(2)
    features = pd.DataFrame(rng.standard_normal((len(table), 6)), index=table.index)
    return study_rivals(store, study, table, folds, stored=kept, radiomics=features)


def _settings(**evaluate: object) -> Study:
    return Study.of({"cohort": {"stage": "tnm_stage", "factors": {k: list(v) for k, v in FACTORS.items()},
                                "continuous": ["age"]}, "evaluate": evaluate})


@pytest.mark.slow
def test_rivals_are_fitted_once(tmp_path: Path, stored: tuple[pd.DataFrame, pd.Series, dict[str, Stored]]) -> None:
    """A second call reads what the first stored, to the last bit; another follow-up is another result."""
    store, study = Store(tmp_path / "run"), _settings()
    first = _rivals(store, stored, study)
    assert set(first.risks) == {"volume_stage", "clinical_ridge", "image_pca", "equal_weights"}
    folders = list((tmp_path / "run" / "objects" / "rivals").iterdir())
    made = [file.stat().st_mtime_ns for folder in folders for file in folder.iterdir()]
    pd.testing.assert_frame_equal(_rivals(store, stored, study).risks, first.risks, check_exact=True)
    assert made == [file.stat().st_mtime_ns for folder in folders for file in folder.iterdir()]
    table, folds, kept = stored
    other = table.assign(time_months=table["time_months"] + 1.0)
    _rivals(store, (other, folds, kept), study)
    assert len(list((tmp_path / "run" / "objects" / "rivals").iterdir())) == 2


@pytest.mark.slow
def test_vectors_from_elsewhere_stand_among_the_rivals(
    tmp_path: Path, stored: tuple[pd.DataFrame, pd.Series, dict[str, Stored]]
) -> None:
    """`evaluate.embedding` names a CSV; its patients get a cross-fitted risk, others none; a changed file counts."""
    table, _, _ = stored
    path, rng = tmp_path / "vectors.csv", np.random.default_rng(3)
    vectors = pd.DataFrame(rng.standard_normal((len(table), 4)), table.index, list("abcd")).iloc[1:]
    vectors.to_csv(path, index_label="patient_id")
    store, study = Store(tmp_path / "run"), _settings(embedding=str(path))
    risks = _rivals(store, stored, study).risks["embedding"]
    assert np.isnan(risks.iloc[0]) and risks.iloc[1:].notna().all()
    vectors.assign(a=0.0).to_csv(path, index_label="patient_id")
    assert not np.allclose(_rivals(store, stored, study).risks["embedding"].iloc[1:], risks.iloc[1:])


def test_coarse_cells_are_means() -> None:
    """Each cell is the mean of its voxels, also where the cells do not divide the grid."""
    image = np.random.default_rng(0).random((2, 10, 9, 8)).astype(np.float32)
    found = coarse_pet(image, 4).reshape(4, 4, 4)
    assert found[0, 0, 0] == pytest.approx(float(image[0, :2, :2, :2].mean()), rel=1e-6)
    assert found[3, 3, 3] == pytest.approx(float(image[0, 7:, 6:, 6:].mean()), rel=1e-6)


@pytest.mark.parametrize("text", ["id,a\nP000,1\n", "patient_id,a\nP000,1\nP000,2\n", "patient_id,a\nP000,x\n",
                                  "patient_id\nP000\n", "patient_id,a\nQ1,1\n"])
def test_a_bad_table_of_embeddings_is_refused(tmp_path: Path, text: str) -> None:
    """No patient_id, a patient twice, words for numbers, no column, or nobody of the study: E-EMBEDDING."""
    path = tmp_path / "vectors.csv"
    path.write_text(text)
    with pytest.raises(TableError, match="E-EMBEDDING"):
        read_embedding(path, ["P000", "P001"])


def test_embeddings_are_read_by_id(tmp_path: Path) -> None:
    """Rows come in the study's order; a patient without one is NaN."""
    path = tmp_path / "vectors.csv"
    path.write_text("patient_id,a,b\nP001,1,inf\nP000,3,4\n")
    found = read_embedding(path, ["P000", "P001", "P002"])
    assert found["a"].tolist()[:2] == [3.0, 1.0]
    assert found["b"].isna().tolist() == [False, True, True]


def test_an_embedding_is_read_as_any_table(tmp_path: Path) -> None:
    """Semicolons and decimal commas, as a German spreadsheet saves them, give the numbers of the plain CSV."""
    (tmp_path / "plain.csv").write_text("patient_id,a,b\nP1,0.5,-2\nP2,,1e3\n")
    (tmp_path / "german.csv").write_bytes("\ufeffpatient_id;a;b\r\nP1;0,5;-2\r\nP2;k.A.;1e3\r\n".encode("utf-8"))
    plain, german = (read_embedding(tmp_path / f"{name}.csv", ["P2", "P1"]) for name in ("plain", "german"))
    pd.testing.assert_frame_equal(plain, german)
    assert german.at["P1", "a"] == 0.5 and np.isnan(german.at["P2", "a"])
    with pytest.raises(TableError, match="E-NOTABLE"):
        read_embedding(tmp_path / "absent.csv", ["P1"])
