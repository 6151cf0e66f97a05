"""The folds of the cross-fitting: random ones, one centre each, or none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort.check import few_steps
from mtdlr.cohort.folds import given_to, too_few_centers, training_folds, training_subfolds
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


def test_a_subfold_is_a_part_of_one_fold() -> None:
    """Subfold s lies in fold s modulo the folds, which stay what they were; parts of a fold are equal in size and in
    events, to one; with one part a fold is whole."""
    table, settings = _table(["a", "b"] * 30), ScoreSettings(folds=3)
    folds = training_folds(table, settings)
    subfolds = training_subfolds(table, folds, settings)
    assert (subfolds % 3 == folds).all() and sorted(set(subfolds)) == list(range(9))
    assert np.ptp(np.bincount(subfolds)) <= 1 and np.ptp(np.bincount(subfolds[table["event"]])) <= 1
    assert training_subfolds(table, folds, settings.model_copy(update={"subfolds": 1})).equals(folds)


@pytest.mark.parametrize(("events", "parts"), [(24, 3), (18, 3), (17, 2), (12, 2), (11, 1), (2, 1)])
def test_few_events_make_few_subfolds(events: int, parts: int) -> None:
    """A part of a fold holds two events or more in the mean; with fewer the fold stays whole."""
    table = _table(["a"] * 48).assign(event=[k < events for k in range(48)])
    folds = training_folds(table, ScoreSettings(folds=3))
    assert training_subfolds(table, folds, ScoreSettings(folds=3)).nunique() == 3 * parts


def test_a_centre_that_is_left_out_has_no_subfolds() -> None:
    """With folds = "center" nobody of a patient's centre enters a fit that scores the patient; nor are there parts of
    the one fold of in-sample scores."""
    table = _table(["x", "y", "z"] * 20)
    for settings in (ScoreSettings(folds="center"), ScoreSettings(training="in_sample")):
        folds = training_folds(table, settings)
        assert training_subfolds(table, folds, settings).equals(folds)


def test_who_a_network_is_given() -> None:
    """Where the risk is solved a network is given everybody and told who is held out; one that learns risks by steps is
    never given its fold; with one fold nobody is held out."""
    table = _table(["a"] * 8)
    subfolds = pd.Series([0, 1, 2, 3, 0, 1, 2, 3], index=table.index)
    seen, held = given_to(1, table, subfolds, 2, solved=True)
    assert seen is table and held == {"P1": 1, "P3": 3, "P5": 1, "P7": 3}
    seen, held = given_to(1, table, subfolds, 2, solved=False)
    assert list(seen.index) == ["P0", "P2", "P4", "P6"] and held == {}
    seen, held = given_to(0, table, subfolds * 0, 1, solved=True)
    assert seen is table and held == {}
