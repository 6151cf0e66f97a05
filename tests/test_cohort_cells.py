"""What a cell of a clinical table means: a date, a number or an event in a hospital's own way, and nothing where it is
not clear."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.cohort.cells import (
    _MONTHS,
    EVENT_WORDS,
    MISSING,
    date_in,
    event_in,
    is_missing,
    is_two_dates,
    looks_like_a_date,
    number_in,
    order_of,
    plain,
)

days = st.dates(date(1951, 1, 1), date(2050, 12, 31))


@pytest.mark.parametrize("text", [
    "2020-03-14", "2020/03/14", "2020.3.14", "20200314", "2020年3月14日", "14.03.2020", "14.3.20", "14. 3. 2020",
    "14/03/2020", "14-03-2020", "14 Mar 2020", "14-Mar-2020", "14. März 2020", "14 mars 2020", "14 de marzo de 2020",
    "14 marzo 2020", "March 14, 2020", "Mar 14th, 2020", "2020-03-14 00:00:00", "2020-03-14T10:30:00+01:00",
    "14.03.2020 12:00"])
def test_a_day_is_the_same_in_every_spelling(text: str) -> None:
    """14 March 2020 in figures and names, with a time of day or without, where the day can only be the day."""
    assert date_in(text, "dmy") == date(2020, 3, 14)


@pytest.mark.parametrize(("name", "month"), [
    ("Januar", 1), ("enero", 1), ("gennaio", 1), ("février", 2), ("Februar", 2), ("März", 3), ("Maerz", 3), ("mars", 3),
    ("avril", 4), ("abril", 4), ("Mai", 5), ("maggio", 5), ("mayo", 5), ("juin", 6), ("giugno", 6), ("junio", 6),
    ("juillet", 7), ("luglio", 7), ("julio", 7), ("août", 8), ("agosto", 8), ("settembre", 9), ("Sept", 9),
    ("Oktober", 10), ("ottobre", 10), ("novembre", 11), ("Dezember", 12), ("décembre", 12), ("diciembre", 12)])
def test_months_have_names_in_five_languages(name: str, month: int) -> None:
    """Names of months are read by their beginnings: June is not July in French, and no beginning begins another."""
    assert not [(a, b) for a in _MONTHS for b in _MONTHS if a != b and b.startswith(a)]
    assert date_in(f"5 {name} 2021") == date(2021, month, 5)


@pytest.mark.parametrize(("text", "dmy", "mdy"), [
    ("03/04/2020", date(2020, 4, 3), date(2020, 3, 4)), ("3-4-20", date(2020, 4, 3), date(2020, 3, 4)),
    ("25/12/2019", date(2019, 12, 25), None), ("12/25/2019", None, date(2019, 12, 25))])
def test_figures_with_slashes_need_an_order(text: str, dmy: date | None, mdy: date | None) -> None:
    """Without an order such a date is nothing; with one it is read in that one only."""
    assert date_in(text) is None
    assert (date_in(text, "dmy"), date_in(text, "mdy")) == (dmy, mdy)


@pytest.mark.parametrize("text", ["04/04/2020", "4-4-20"])
def test_a_day_that_equals_its_month_needs_no_order(text: str) -> None:
    """4 April is 4 April in either order."""
    assert date_in(text) == date(2020, 4, 4)


@pytest.mark.parametrize("text", ["31.02.2019", "2019-02-30", "00.03.2020", "2020-13-01", "32 Mar 2020", "5 Foo 2020",
                                  "yesterday", "", "2020", "12.5", "3/2020"])
def test_what_is_no_day_is_nothing(text: str) -> None:
    """A day that the calendar lacks, a name that is no month, a year alone: None, never another day."""
    assert date_in(text, "dmy") is None


@pytest.mark.parametrize(("text", "year"), [("01.02.50", 2050), ("01.02.51", 1951), ("01.02.00", 2000),
                                            ("01.02.99", 1999)])
def test_years_of_two_figures_lie_around_2000(text: str, year: int) -> None:
    """51 to 99 are of the last century, 00 to 50 of this."""
    assert date_in(text) == date(year, 2, 1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(days)
def test_a_day_comes_back_from_what_a_hospital_writes(day: date) -> None:
    """Written in ISO, German and either American or British order, a day is read as itself."""
    assert date_in(day.isoformat()) == date_in(f"{day:%d.%m.%Y}") == date_in(f"{day:%d.%m.%y}") == day
    assert date_in(f"{day:%m/%d/%Y}", "mdy") == date_in(f"{day:%d/%m/%Y}", "dmy") == day


@settings(deadline=None, derandomize=True, max_examples=60)
@given(days, st.integers(0, 4000))
def test_follow_up_between_two_dates_keeps_its_days(day: date, later: int) -> None:
    """The days between two dates that are read are those between the days that were written."""
    end = day + timedelta(days=later)
    first, last = date_in(f"{day:%d.%m.%Y}"), date_in(end.isoformat())
    assert first is not None and last is not None and (last - first).days == later


@pytest.mark.parametrize(("cells", "order"), [
    (["3/4/2020", "25/4/2020"], "dmy"), (["3/4/2020", "4/25/2020"], "mdy"), (["3/4/2020", "5/6/2020"], None),
    (["25/4/2020", "4/25/2020"], None), (["25.4.2020"], None), ([], None), (["13/1/20 10:00"], "dmy")])
def test_one_clear_date_settles_the_others(cells: list[str], order: str | None) -> None:
    """A day above 12 shows the order of the table; two tables in one, or no clear date, show none."""
    assert order_of(cells) == order


@pytest.mark.parametrize(("text", "two"), [("3/4/2020", True), ("3/3/2020", False), ("13/4/2020", False),
                                           ("3.4.2020", False), ("3-4-20", True), ("x", False)])
def test_dates_that_may_be_swapped_are_known(text: str, two: bool) -> None:
    """A date is two dates where day and month could change places and would give another day."""
    assert is_two_dates(text) is two


@pytest.mark.parametrize(("text", "number"), [
    ("12", 12.0), ("-1.5", -1.5), (".5", 0.5), ("1e-3", 1e-3), ("60,5", 60.5), ("1.234,5", 1234.5), ("1,234.5", 1234.5),
    ("1 234", 1234.0), ("1 234,5", 1234.5), ("1,500", None), ("6o,5", None), ("", None), ("1,2,3", None),
    ("12 months", None), ("nan", None), ("inf", None)])
def test_numbers_with_points_and_commas(text: str, number: float | None) -> None:
    """A comma before one, two or four figures is a decimal comma; before three it could be either, and is nothing."""
    assert number_in(text) == number


def test_a_decimal_comma_settles_three_figures() -> None:
    """In a table with decimal commas 1,500 is one and a half."""
    assert number_in("1,500", decimal_comma=True) == 1.5 and number_in("-2,250", decimal_comma=True) == -2.25


@pytest.mark.parametrize(("text", "event"), [
    ("1", 1), ("0", 0), ("1.0", 1), ("Yes", 1), ("NO", 0), ("Rezidiv", 1), ("verstorben", 1), ("lebt", 0),
    ("am Leben", 0), ("kein Ereignis", 0), ("décédée", 1), ("en vie", 0), ("fallecido", 1), ("sin evento", 0),
    ("deceduta", 1), ("óbito", 1), ("死亡", 1), ("存活", 0), ("event-free?", None), ("2", None), ("none", None),
    ("kein", None), ("Leben", None), ("", None)])
def test_events_in_six_languages(text: str, event: int | None) -> None:
    """The words of a status are an event or none; half a phrase, another number and a missing cell are neither."""
    assert event_in(text) == event


def test_no_word_is_an_event_and_missing() -> None:
    """What says that nothing is known is never read as a status."""
    assert not {word for word in EVENT_WORDS if word in MISSING}


@pytest.mark.parametrize(("text", "missing"), [("NA", True), ("N/A", True), (" - ", True), ("Unbekannt", True),
                                               ("#NV", True), ("0", False), ("no", False), ("III", False)])
def test_what_is_missing_in_any_spelling(text: str, missing: bool) -> None:
    """A cell that states that nothing is known is missing whatever its case; a zero and a no are not."""
    assert is_missing(text) is missing


@pytest.mark.parametrize(("text", "looks"), [("3/4/2020", True), ("3-Apr", True), ("14.03.2020", True),
                                             ("T3", False), ("12.5", False), ("3-4", False)])
def test_stages_that_a_spreadsheet_made_dates_look_like_dates(text: str, looks: bool) -> None:
    """A spreadsheet writes 3-Apr for what was 3-4: it looks like a date though it has no year."""
    assert looks_like_a_date(text) is looks


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=12))
def test_plain_words_are_plain_already(text: str) -> None:
    """Once case, accents and doubled blanks are gone, there is nothing more to take away."""
    assert plain(plain(text)) == plain(text)
