"""Follow-up and estimates: what is taken, what is refused by row and value, what is known of a patient at a month."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import TableError
from mtdlr.estimate import Estimate
from mtdlr.survival import Survival, is_missing, numbers


@pytest.mark.parametrize(("time", "row", "found"), [
    ([3.0, 0.0, 5.0], "row 1", "0"), ([3.0, 4.0, -2.5], "row 2", "-2.5"), ([np.inf, 4.0, 5.0], "row 0", "inf"),
    ([3.0, np.nan, 5.0], "row 1", "nan"), ([3.0, None, 5.0], "row 1", "nan"),
])
def test_a_time_that_is_no_positive_month_is_named(time: list, row: str, found: str) -> None:
    """Zero, negative, infinite and missing times are E-TIME with the first such row and its value."""
    with pytest.raises(TableError) as caught:
        Survival(time, [1, 0, 1])
    (problem,) = caught.value.problems
    assert (problem.code, problem.where, problem.found, problem.expected) == ("E-TIME", row, found, "> 0")


@pytest.mark.parametrize(("event", "row", "found"), [
    ([0, 2, 1], "row 1", "2"), ([0, 1, -1], "row 2", "-1"), ([0.5, 1, 0], "row 0", "0.5"),
    ([1.0, np.nan, 0], "row 1", "nan"), ([0, None, 1], "row 1", "None"), ([0, pd.NA, 1], "row 1", "<NA>"),
    (["0", "1", "1"], "row 0", "0"),
])
def test_a_status_that_is_not_0_or_1_is_named(event: list, row: str, found: str) -> None:
    """Other codes, fractions, missing values and text are E-EVENT with the first such row and its value."""
    with pytest.raises(TableError) as caught:
        Survival([1.0, 2.0, 3.0], event)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where, problem.found) == ("E-EVENT", row, found)
    assert problem.expected == "0 (censored) or 1 (event)"


@pytest.mark.parametrize("event", [
    [True, False, True], [1, 0, 1], [1.0, 0.0, 1.0], np.array([1, 0, 1], dtype=np.uint8),
    np.array([1, False, 1.0], dtype=object),
])
def test_every_spelling_of_0_and_1_is_taken(event: object) -> None:
    """Booleans, whole numbers, 1.0 and mixed objects give the same events, as booleans."""
    surv = Survival([1.0, 2.0, 3.0], event)
    assert surv.event.dtype == np.bool_ and surv.event.tolist() == [True, False, True] and surv.n_events == 2


@pytest.mark.parametrize(("time", "event"), [
    ([1.0, 2.0], [1]), ([[1.0, 2.0]], [[1, 0]]), (3.0, 1), ([], [1]),
])
def test_vectors_of_one_length_are_needed(time: object, event: object) -> None:
    """Another length, a table and a single number are E-LENGTH, with both shapes."""
    with pytest.raises(TableError) as caught:
        Survival(time, event)
    assert caught.value.code == "E-LENGTH"
    assert caught.value.problems[0].found == f"shapes {np.shape(time)} and {np.shape(event)}"


def test_follow_up_is_a_copy_that_nobody_can_change() -> None:
    """The caller's arrays may change later; those of the follow-up cannot."""
    time, event = np.array([1.0, 2.0]), np.array([True, False])
    surv = Survival(time, event)
    time[0], event[1] = 99.0, True
    assert surv.time_months.tolist() == [1.0, 2.0] and surv.event.tolist() == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        surv.time_months[0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        surv.event[0] = False


def test_labels_come_from_pandas_and_row_numbers_are_none() -> None:
    """The index of a series is kept; row numbers say nothing about patients and are left out."""
    names = ["b", "a", "c"]
    time, event = pd.Series([1.0, 2.0, 3.0], index=names), pd.Series([1, 0, 1], index=names)
    assert list(Survival(time, event).index) == names
    assert list(Survival(time, [1, 0, 1]).index) == names
    assert list(Survival([1.0, 2.0, 3.0], event).index) == names
    assert Survival(time.reset_index(drop=True), [1, 0, 1]).index is None


def test_time_and_event_of_different_patients_are_refused() -> None:
    """Series whose labels differ, or stand in another order, are E-INDEX."""
    time = pd.Series([1.0, 2.0], index=["a", "b"])
    for index in (["a", "c"], ["b", "a"]):
        with pytest.raises(TableError, match="E-INDEX .*another order"):
            Survival(time, pd.Series([1, 0], index=index))


def test_taking_rows_keeps_their_order_and_labels() -> None:
    """Rows by number come in the asked order, twice if asked twice; a mask keeps the order of the patients."""
    names = pd.Index(["a", "b", "c", "d"])
    surv = Survival([1.0, 2.0, 3.0, 4.0], [1, 0, 0, 1], index=names)
    drawn = surv.take([3, 0, 3])
    assert drawn.time_months.tolist() == [4.0, 1.0, 4.0] and drawn.event.tolist() == [True, True, True]
    assert list(drawn.index) == ["d", "a", "d"]
    masked = surv.take(np.array([False, True, True, False]))
    assert masked.time_months.tolist() == [2.0, 3.0] and masked.n_events == 0 and list(masked.index) == ["b", "c"]
    assert len(surv.take(np.zeros(0, dtype=int))) == 0


def test_the_status_at_a_month_is_known_to_the_day() -> None:
    """An event at the month has happened; who is censored at the month is free of it; who left before is unknown."""
    surv = Survival([5.0, 6.0, 7.0, 5.0, 6.0, 7.0], [1, 1, 1, 0, 0, 0])
    event, known = surv.status_at(6.0)
    assert event.tolist() == [True, True, False, False, False, False]
    assert known.tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize(("time", "event", "orderable"), [
    ([1, 2], [1, 0], True), ([2, 1], [1, 0], False), ([1, 1], [1, 0], True), ([1, 1], [1, 1], False),
    ([1, 2], [0, 0], False), ([3, 3, 2], [1, 1, 0], False), ([3, 3, 4], [1, 1, 0], True),
])
def test_patients_can_be_ordered_when_one_outlives_an_event(time: list, event: list, orderable: bool) -> None:
    """There is a pair when somebody is seen after the first event, or is censored on its day."""
    assert Survival(time, event).orderable is orderable


@pytest.mark.parametrize("values", [
    [timedelta(days=3)], np.array(["2020-01-01"], dtype="datetime64[D]"), np.array([3], dtype="timedelta64[D]"),
    pd.Series([pd.Timestamp("2020-01-01")]),
])
def test_dates_and_durations_are_no_numbers(values: object) -> None:
    """Days are not taken for months: E-NUMBER."""
    with pytest.raises(TableError) as caught:
        numbers(values, "follow-up time")
    assert caught.value.code == "E-NUMBER" and "follow-up time" in str(caught.value)


def test_days_are_refused_with_the_conversion() -> None:
    """The message of durations says how many days a month has."""
    with pytest.raises(TableError, match=r"months = days / 30\.4375"):
        Survival(np.array([30, 60], dtype="timedelta64[D]"), [1, 0])


@pytest.mark.parametrize("word", ["12", b"12", 3 + 4j])
def test_text_that_looks_like_a_number_is_refused_with_its_row(word: object) -> None:
    """Text, bytes and complex numbers are E-NUMBER with the row and the value."""
    with pytest.raises(TableError) as caught:
        numbers(np.array([1.0, None, word], dtype=object), "age")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where, problem.found) == ("E-NUMBER", "row 2", repr(word))


def test_numbers_keep_their_shape_and_missing_ones_are_nan() -> None:
    """A table stays a table, None and pandas' NA become nan, booleans 0 and 1; ragged rows are E-LENGTH."""
    table = numbers([[1, None], [True, pd.NA]], "x")
    assert table.shape == (2, 2) and table.dtype == np.float64
    np.testing.assert_array_equal(table, [[1.0, np.nan], [1.0, np.nan]])
    assert numbers(7, "x").shape == ()
    same = np.array([1.0, 2.0])
    assert numbers(same, "x") is same
    with pytest.raises(TableError, match="E-LENGTH x: the rows have different lengths"):
        numbers([[1.0], [1.0, 2.0]], "x")


@pytest.mark.parametrize(("value", "missing"), [
    (None, True), (float("nan"), True), (pd.NA, True), (pd.NaT, True), (np.float32("nan"), True),
    (0, False), ("", False), ("nan", False), (np.array([1.0, 2.0]), True),
])
def test_what_counts_as_missing(value: object, missing: bool) -> None:
    """None, nan, NaT and NA are missing; 0 and empty text are values; what has no truth value is no value."""
    assert is_missing(value) is missing


def test_an_estimate_prints_three_digits_and_is_unknown_beyond_its_value() -> None:
    """Interval and p are nan unless given; the text has value and limits in this order."""
    assert str(Estimate(0.75)) == "0.750 (nan-nan)"
    assert str(Estimate(1.23456, 0.5, 2.0004, 0.04)) == "1.235 (0.500-2.000)"
    alone = Estimate(2.0)
    assert np.isnan([alone.low, alone.high, alone.p]).all()
    assert Estimate(1.0, 0.5, 2.0, 0.1) == Estimate(value=1.0, low=0.5, high=2.0, p=0.1)
