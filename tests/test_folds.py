"""The folds of the cross-fitting: random ones, one centre each, or none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort.check import few_steps
from mtdlr.cohort.folds import too_few_centers, training_folds
from mtdlr.errors import CohortError
from mtdlr.study import ScoreSettings, Study

CENTERS = ["Lyon", "Aachen", "Lyon", "Gent", "Aachen", "Lyon", "Gent", "Gent"]


def _table(centers: list[str]) -> pd.DataFrame:
    ids = [f"P{k}" for k in range(len(centers))]
    return pd.DataFrame({"center": centers, "event": [k % 2 == 0 for k in range(len(ids))]}, index=ids)


def test_a_fold_is_a_centre() -> None:
    """With folds = "center" nobody of a patient's own centre is outside the patient's fold, and each centre is one."""
    table = _table(CENTERS)
    folds = training_folds(table, ScoreSettings(folds="center"))
    assert list(folds.index) == list(table.index)
    pairs = {(c, f) for c, f in zip(table["center"], folds, strict=True)}
    assert pairs == {("Aachen", 0), ("Gent", 1), ("Lyon", 2)}


def test_the_order_of_the_table_moves_nobody() -> None:
    """A shuffled table gives every patient the same fold of centres."""
    table = _table(CENTERS)
    other = table.sample(frac=1.0, random_state=3)
    settings = ScoreSettings(folds="center")
    assert training_folds(table, settings).to_dict() == training_folds(other, settings).to_dict()


def test_two_centres_are_too_few() -> None:
    """E-CENTERFOLDS names the centres there are, in the run and in check, and says what to set."""
    table, settings = _table(["Lyon", "Gent"] * 4), ScoreSettings(folds="center")
    with pytest.raises(CohortError, match=r"E-CENTERFOLDS score.folds: .*found Gent, Lyon.*3 or more.*cohort.center"):
        training_folds(table, settings)
    assert [p.code for p in too_few_centers(table, settings)] == ["E-CENTERFOLDS"]
    assert not too_few_centers(_table(CENTERS), settings)


def test_other_folds_ask_for_no_centre() -> None:
    """Random folds spread events evenly whatever the centres; in-sample scores have one fold and one network."""
    table = _table(["one"] * 12)
    folds = training_folds(table, ScoreSettings(folds=3))
    assert np.bincount(folds[table["event"]]).tolist() == [2, 2, 2]
    assert set(training_folds(table, ScoreSettings(training="in_sample", folds="center"))) == {0}
    assert not too_few_centers(table, ScoreSettings(folds=3))


@pytest.mark.parametrize(("settings", "networks"), [
    ({}, 5), ({"folds": "center"}, 4), ({"folds": 7}, 7), ({"training": "in_sample", "folds": "center"}, 1)])
def test_how_many_networks_are_trained(settings: dict[str, object], networks: int) -> None:
    """A network of each kind for every fold; with four centres, four."""
    assert ScoreSettings.model_validate(settings).n_folds(4) == networks


def test_steps_are_counted_with_the_folds_of_the_centres() -> None:
    """W-FEWSTEPS reckons with the share of patients that a left-out centre takes away."""
    study = Study.of({"preset": "quick", "score": {"folds": "center"}})
    assert few_steps(study, _table(["a", "b", "c"] * 10)) and not few_steps(study, _table(["a", "b", "c"] * 60))


@pytest.mark.parametrize("folds", [1, 21, "centre", 2.5, None])
def test_other_values_are_refused(folds: object) -> None:
    """Folds are 2 to 20, or the word center."""
    with pytest.raises(ValueError, match="folds"):
        ScoreSettings.model_validate({"folds": folds})
