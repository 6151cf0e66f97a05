"""Features as stored results, and the table of a cohort read from them."""

from __future__ import annotations

from pathlib import Path

from mtdlr.radiomics.stored import save_features, table_of


def _stored(root: Path, patient: str, features: dict[str, float]) -> Path:
    folder = root / patient
    folder.mkdir()
    save_features(folder, features, [features], {"suv_max": 7.0})
    return folder


def test_a_table_holds_what_was_stored_in_the_order_asked(tmp_path: Path) -> None:
    """Features come back bit for bit, one row a patient in the given order, NaN for a patient without a result."""
    folders = {i: _stored(tmp_path, i, {"a": value, "b": float("nan")}) for i, value in (("P2", 0.1), ("P1", 1 / 3))}
    table = table_of(folders, "features", ["P1", "P2", "P3"])
    assert list(table.index) == ["P1", "P2", "P3"] and list(table.columns) == ["a", "b"]
    assert table["a"].tolist()[:2] == [1 / 3, 0.1]
    assert table["a"].isna().tolist() == [False, False, True] and table["b"].isna().all()
    assert table_of(folders, "pet_parameters", ["P1"])["suv_max"].tolist() == [7.0]


def test_patients_with_different_features_share_a_table(tmp_path: Path) -> None:
    """A feature that one patient lacks is NaN in its row."""
    folders = {"P1": _stored(tmp_path, "P1", {"a": 1.0}), "P2": _stored(tmp_path, "P2", {"a": 2.0, "b": 3.0})}
    table = table_of(folders, "features", ["P1", "P2"])
    assert table["a"].tolist() == [1.0, 2.0]
    assert table["b"].isna().tolist() == [True, False] and table["b"].tolist()[1] == 3.0
