"""Competing risks by risk group: counts and incidences worked out by hand."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd
import pytest

from mtdlr.evaluate.competing import EVENT, GROUPS, CompetingRisks, cause_label, competing_risks

IDS = list("abcdefgh")


def table(**changes: object) -> pd.DataFrame:
    """Eight patients: events at 1, 3 and 6 months, competing ones at 2 and 5, the others censored."""
    rows = pd.DataFrame({"split": "training", "time_months": np.arange(1.0, 9.0), "cause": [1, 2, 1, 0, 2, 1, 0, 0]},
                        index=IDS)
    return rows.assign(**changes)


def risk(values: list[float]) -> pd.Series:
    """Log hazards of the eight patients."""
    return pd.Series(values, index=IDS, name="mtdlr")


HALF = risk([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def found(rows: pd.DataFrame | None = None, risks: pd.Series = HALF, cutoff: float = 0.5,
          competing: tuple[str, ...] = ("2",)) -> tuple[CompetingRisks, ...]:
    """The competing risks at 3 and 6 months."""
    return competing_risks(risks, cutoff, table() if rows is None else rows, (3.0, 6.0), competing=competing)


def test_each_cause_is_counted_against_the_others() -> None:
    """Three events and two competing ones, seen from either side, in every cohort of the table."""
    event, other = found()
    assert (event.model, event.split, event.cause, event.n, event.events, event.competing) == (
        "mtdlr", "training", EVENT, 8, 3, 2)
    assert (other.cause, other.events, other.competing) == ("Competing event 2", 2, 3)
    both = found(table(split=["training"] * 5 + ["external"] * 3))
    assert [(one.split, one.cause, one.n) for one in both] == [
        ("training", EVENT, 5), ("training", "Competing event 2", 5), ("external", EVENT, 3),
        ("external", "Competing event 2", 3)]


def test_the_incidence_is_aalen_johansens_by_hand() -> None:
    """At 1 month 1/8 has the event, at 3 a sixth of the 6/8 without failure more, and at 6 a third of those left."""
    event, _ = found()
    whole = event.incidence["All"]
    # free of any failure: 7/8 after 1, 6/8 after 2, 5/8 after 3; the one at 4 is censored; 5/8 * 3/4 after 5
    assert whole[3.0].value == pytest.approx(1 / 8 + 6 / 8 * 1 / 6)
    assert whole[6.0].value == pytest.approx(1 / 8 + 1 / 8 + 5 / 8 * 3 / 4 * 1 / 3)


def test_groups_are_parted_at_the_cut_off() -> None:
    """At the cut-off a patient is at high risk; every group has its own curve."""
    at, _ = found(cutoff=1.0)
    assert list(at.curves) == ["All", *GROUPS] and at.incidence["High risk"][3.0].value == pytest.approx(0.5)
    assert at.incidence["Low risk"][3.0].value == 0.0
    assert int(at.curves["High risk"].at_risk[0]) == int(at.curves["Low risk"].at_risk[0]) == 4


@pytest.mark.parametrize("cutoff", [nan, 9.0, -9.0])
def test_without_two_groups_everybody_is_one(cutoff: float) -> None:
    """No cut-off, or one beyond every risk: everybody alone, and no P."""
    event, other = found(cutoff=cutoff)
    assert list(event.curves) == ["All"] and np.isnan(event.gray_p) and np.isnan(other.gray_p)


def test_a_cause_that_nobody_had_has_no_p() -> None:
    """A named cause without a failure is there with its zeros; Gray's test of it is not known."""
    *_, third = found(competing=("2", "other death"))
    assert (third.cause, third.events, third.competing) == ("Other death", 0, 5) and np.isnan(third.gray_p)
    assert third.incidence["All"][6.0].value == 0.0


def test_a_patient_without_a_risk_takes_no_part() -> None:
    """Who has no score is not counted; a cohort of such patients is not there at all."""
    event, _ = found(risks=risk([nan, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    assert (event.n, event.events) == (7, 2)
    assert found(risks=risk([nan] * 8)) == ()


def test_a_table_without_causes_has_no_competing_risks() -> None:
    """Nothing is returned, and a horizon after the last follow-up has no incidence."""
    assert found(table().drop(columns="cause")) == ()
    (only,) = competing_risks(HALF, 0.5, table(), (99.0,))
    assert np.isnan(only.incidence["All"][99.0].value)


@pytest.mark.parametrize(("value", "label"), [
    ("2", "Competing event 2"), ("death", "Death"), ("DM", "DM"), ("é", "É"), ("3.0", "Competing event 3.0"),
    ("cause 2", "Cause 2")])
def test_a_cause_is_called_as_people_call_it(value: str, label: str) -> None:
    """A word begins with a capital and keeps the rest; a number is a competing event."""
    assert cause_label(value) == label


def test_order_of_patients_does_not_matter() -> None:
    """Rows in another order give the same counts, incidence and P."""
    order = [3, 1, 7, 0, 5, 2, 6, 4]
    one, two = found()[0], found(table().iloc[order], HALF.iloc[order])[0]
    assert one.gray_p == pytest.approx(two.gray_p) and one.incidence["All"] == two.incidence["All"]
