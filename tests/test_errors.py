"""Problems and errors: one line each, patients in front, and nothing lost on the way to another process."""

from __future__ import annotations

import json
import pickle

import pytest

from mtdlr import errors
from mtdlr.errors import BundleError, FitError, MtdlrError, PacsError, Problem, ScanError, TableError

WHOLE = Problem("E-WEIGHT", "no patient weight", where="PET", found="0 kg", expected="above 0 kg",
                remedy="Add (0010,1030)", patients=("P1",))


def test_a_line_has_every_part_in_its_order() -> None:
    """Code, place, what, found, expected, a full stop, and what to do, on one line."""
    assert str(WHOLE) == ("E-WEIGHT patient P1: PET: no patient weight; found 0 kg; expected above 0 kg. "
                          "Add (0010,1030).")
    assert str(Problem("W-ROI", "the region is unsure")) == "W-ROI the region is unsure."


@pytest.mark.parametrize(("remedy", "end"), [("Look", " Look."), ("Look.", " Look."), ("Is it one?", " Is it one?"),
                                             ("", "x.")])
def test_a_remedy_ends_with_one_stop(remedy: str, end: str) -> None:
    """A remedy that ends with a stop or a question mark keeps it."""
    assert str(Problem("W-X", "x", remedy=remedy)).endswith(end) and ".." not in str(Problem("W-X", "x", remedy=remedy))


def test_line_ends_of_a_file_do_not_break_the_line() -> None:
    """Whatever was found, with line ends and tabs in it, the problem is one line."""
    assert str(Problem("E-X", "a\nb", found="c\r\n\td  e")) == "E-X a b; found c d e."


@pytest.mark.parametrize(("n", "who"), [
    (1, "patient P0"), (2, "patients P0, P1"), (8, "patients P0, P1, P2, P3, P4, P5, P6, P7"),
    (9, "patients P0, P1, P2, P3, P4, P5, P6, P7 and 1 more"), (20, "P7 and 12 more")])
def test_eight_patients_are_named(n: int, who: str) -> None:
    """One is in the singular, more are in the plural, and beyond eight they are counted."""
    problem = Problem("E-X", "x", where="table", patients=tuple(f"P{k}" for k in range(n)))
    assert problem.where.endswith(f"{who}: table") and problem.place == "table" and len(problem.patients) == n


def test_patients_stand_once_in_the_place() -> None:
    """Made again from its own values, a problem is the same: its place does not grow."""
    again = Problem(**json.loads(json.dumps(WHOLE.as_dict())))
    assert again == WHOLE and again.where == "patient P1: PET" and isinstance(again.patients, tuple)
    alone = Problem("E-X", "x", patients=("P1",))
    assert alone.where == "patient P1" and alone.place == "" and Problem(**alone.as_dict()) == alone


def test_a_patient_whose_name_begins_another_is_not_taken_for_it() -> None:
    """Patient P1 of a place that begins with patient P10 is still put in front."""
    problem = Problem("E-X", "x", where="patient P10: PET", patients=("P1",))
    assert problem.where == "patient P1: patient P10: PET" and problem.place == "patient P10: PET"


def test_a_place_is_put_in_front_behind_the_patient() -> None:
    """`at` puts line 3 before PET and behind the patient; without a place it is the place."""
    assert WHOLE.at("line 3").where == "patient P1: line 3: PET" and WHOLE.at("line 3").place == "line 3: PET"
    assert Problem("E-X", "x").at("line 3").where == "line 3"
    assert WHOLE.at("a").found == WHOLE.found and WHOLE.at("a").remedy == WHOLE.remedy


def test_a_problem_is_given_to_a_patient_once() -> None:
    """One without patients gets the patient; one that names its own keeps them."""
    assert Problem("W-X", "x", where="CT").of_patient("P7").where == "patient P7: CT"
    assert WHOLE.of_patient("P7") == WHOLE


def test_plain_values_have_patients_only_where_there_are_any() -> None:
    """JSON of a problem of nobody has no list of patients; everything else is always there."""
    assert Problem("W-X", "x").as_dict() == {"code": "W-X", "what": "x", "where": "", "found": "", "expected": "",
                                             "remedy": ""}
    assert WHOLE.as_dict()["patients"] == ("P1",)


def test_a_code_is_an_error_or_a_warning() -> None:
    """E stops what it names, W is carried along, and another code cannot be made."""
    assert WHOLE.is_error and not Problem("W-X", "x").is_error
    with pytest.raises(AssertionError, match="N-X"):
        Problem("N-X", "x")


def test_an_error_holds_every_problem() -> None:
    """A line a problem, the code of the first, from one problem or from several of any kind of list."""
    other = Problem("W-ROI", "unsure")
    error = TableError(p for p in (WHOLE, other))
    assert error.problems == (WHOLE, other) and error.code == "E-WEIGHT" and str(error).splitlines()[1] == str(other)
    assert TableError(WHOLE).problems == (WHOLE,)


def test_an_error_keeps_its_kind_and_problems_between_processes() -> None:
    """Pickled by a worker, read by its parent: the same kind with the same problems."""
    for kind in (MtdlrError, FitError, ScanError, PacsError, BundleError):
        back = pickle.loads(pickle.dumps(kind([WHOLE, Problem("W-X", "x")])))
        assert type(back) is kind and back.problems == (WHOLE, Problem("W-X", "x")) and str(back).startswith("E-WEIGHT")


def test_an_error_is_moved_and_given_as_a_whole() -> None:
    """`at` and `of_patient` reach every problem and keep the kind of the error."""
    error = ScanError([Problem("E-A", "a", where="PET"), Problem("E-B", "b", patients=("P9",))])
    moved = error.at("series 2")
    assert type(moved) is ScanError and [p.where for p in moved.problems] == ["series 2: PET", "patient P9: series 2"]
    assert [p.patients for p in error.of_patient("P1").problems] == [("P1",), ("P9",)]


def test_every_error_is_one_of_ours() -> None:
    """Each kind that the module names is an MtdlrError, which the command line turns into a line and exit code 2."""
    kinds = [one for name, one in vars(errors).items() if name.endswith("Error")]
    assert len(kinds) == 9 and all(issubclass(kind, MtdlrError) and kind.__doc__ for kind in kinds)
