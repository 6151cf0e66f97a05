"""The clinical table: what hospitals write, and what each mistake gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort.clinical import read_clinical
from mtdlr.errors import Problem, TableError
from mtdlr.study import CohortSettings

HEADER = "patient_id,time_months,event,age,tnm_stage,ic"


def _read(folder: Path, text: str, **settings: object) -> tuple[pd.DataFrame, list[Problem]]:
    path = folder / "clinical.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    base = {"table": path, "stage": "tnm_stage", "factors": {"tnm_stage": ("III", "IVa")}, "continuous": ("age",),
            "described": ("ic",)}
    return read_clinical(CohortSettings(**(base | settings)))


def _codes(problems: list[Problem]) -> list[str]:
    return [problem.code for problem in problems]


def test_a_clean_table(tmp_path: Path) -> None:
    """A clean table is read without a word."""
    table, problems = _read(tmp_path, f"{HEADER}\nP1,12.5,1,60,III,1\nP2,40,0,51.5,IVa,0\n")
    assert problems == []
    assert table.index.tolist() == ["P1", "P2"]
    assert table["time_months"].tolist() == [12.5, 40.0] and table["event"].tolist() == [1, 0]


@pytest.mark.parametrize(("cells", "code", "says"), [
    ("P1,-3,1,60,III,1", "E-TIME", "'-3'"), ("P1,0,1,60,III,1", "E-TIME", "positive"),
    ("P1,1e-300,1,60,III,1", "E-TIME", "positive"), ("P1,,1,60,III,1", "E-MISSING", "time_months"),
    ("P1,nan,1,60,III,1", "E-MISSING", "time_months"), ("P1,abc,1,60,III,1", "E-NUMBER", "not a number"),
    ("P1,2021-03-05,1,60,III,1", "E-NUMBER", "a date"), ("P1,12,2,60,III,1", "E-EVENT", "'2'"),
    ("P1,12,,60,III,1", "E-EVENT", "1 (event) or 0"), ("P1,12,1,3-May,III,1", "E-NUMBER", "a date"),
    ("P1,12,1,60,V,1", "E-LEVEL", "expected III, IVa"), ("P1,12,1,60,III,2", "E-FLAG", "0 or 1"),
    ("P1,12,1,60,,1", "W-MISSING", "tnm_stage"), ("P1,12,1,,III,1", "W-MISSING", "age"),
    ("P1,12,yes,60,III,1", "W-EVENTWORD", "yes"), (",12,1,60,III,1", "E-NOID", "line 2"),
    ("P1,900,1,60,III,1", "W-UNIT", "days"),
])
def test_each_impossible_cell(tmp_path: Path, cells: str, code: str, says: str) -> None:
    """FAULTS 42-43, 48, 57-58: every impossible cell is named with patient, column, what was found and expected."""
    _, problems = _read(tmp_path, f"{HEADER}\n{cells}\n")
    assert _codes(problems) == [code]
    assert says in str(problems[0]) and "\n" not in str(problems[0])


def test_every_mistake_of_a_table_at_once(tmp_path: Path) -> None:
    """All problems of a table come back together."""
    _, problems = _read(tmp_path, f"{HEADER}\nP1,-1,2,x,V,7\nP1,5,1,60,III,1\n")
    assert sorted(_codes(problems)) == ["E-DUPLICATE", "E-EVENT", "E-FLAG", "E-LEVEL", "E-NUMBER", "E-TIME"]


@pytest.mark.parametrize("text", [
    "﻿patient_id;time_months;event;age;tnm_stage;ic\nP1;12,5;1;60,5;III;1\n",
    "patient_id\ttime_months\tevent\tage\ttnm_stage\tic\r\nP1\t12.5\t1\t60.5\tiii\t1\r\n",
    "patient_id, time_months ,event,age,tnm_stage,ic\n P1 ,12.5,1,60.5,III,1\n,,,,,\n",
])
def test_spreadsheet_dialects_read_the_same(tmp_path: Path, text: str) -> None:
    """FAULTS 58: a BOM, semicolons with decimal commas, tabs, stray blanks and empty rows change nothing."""
    table, problems = _read(tmp_path, text)
    assert problems == []
    assert table.loc["P1", ["time_months", "age", "tnm_stage"]].tolist() == [12.5, 60.5, "III"]


@pytest.mark.parametrize(("text", "code"), [
    ("", "E-NOTABLE"), (HEADER + "\n", "E-NOTABLE"), ("patient_id,event,event\nP1,1,1\n", "E-HEADER"),
    ("patient_id,time_months\nP1,3\n", "E-COLUMN"), (f"{HEADER}\nP1,12\n", "E-ROWLENGTH"),
    (b"PK\x03\x04\xff\xfe\x00", "E-ENCODING"),
])
def test_no_table_to_speak_of(tmp_path: Path, text: str | bytes, code: str) -> None:
    """FAULTS 58: what is no table, or lacks columns, is one typed error."""
    with pytest.raises(TableError, match=code):
        _read(tmp_path, text)  # type: ignore[arg-type]


def test_a_missing_file(tmp_path: Path) -> None:
    """A table that is not there is named."""
    with pytest.raises(TableError, match="E-NOTABLE.*there is no such table"):
        read_clinical(CohortSettings(table=tmp_path / "none.csv", stage="s", factors={"s": ("a", "b")}))


def test_units_become_months(tmp_path: Path) -> None:
    """Days and years are converted with 365.25 days a year."""
    for unit, value in (("days", 365.25), ("years", 1.0), ("months", 12.0)):
        table, _ = _read(tmp_path, f"{HEADER}\nP1,{value},1,60,III,1\n", time_unit=unit)
        assert table["time_months"].iloc[0] == pytest.approx(12.0)


def test_unknown_is_a_level_where_the_factor_has_it(tmp_path: Path) -> None:
    """A blank in a factor with the level Unknown is that level, silently; elsewhere it is missing and listed."""
    text = "patient_id,time_months,event,tnm_stage,ebv\nP1,12,1,III,\nP2,13,0,,Positive\n"
    table, problems = _read(tmp_path, text, continuous=(), described=(), factors={
        "tnm_stage": ("III", "IVa"), "ebv": ("Negative", "Positive", "Unknown")})
    assert table["ebv"].tolist() == ["Unknown", "Positive"]
    assert _codes(problems) == ["W-MISSING"] and "P2" in str(problems[0])


def test_rows_that_contradict_themselves_are_warned_of(tmp_path: Path) -> None:
    """METHOD 1: IVa without T4 or N3, SUVmax below SUVmean, and TLG that is not SUVmean x MTV are warnings."""
    header = "patient_id,time_months,event,tnm_stage,t_stage,n_stage,suv_max,suv_mean,mtv,tlg"
    rows = ["P1,12,1,IVa,T4,N0,9,4,10,40", "P2,12,1,IVa,T2,N1,9,4,10,40", "P3,12,0,III,T1,N3,9,4,10,40",
            "P4,12,0,III,T1,N0,3,4,10,40", "P5,12,0,III,T1,N0,9,4,10,90"]
    _, problems = _read(tmp_path, "\n".join([header, *rows]), described=(), continuous=(
        "suv_max", "suv_mean", "mtv", "tlg"), factors={
        "tnm_stage": ("III", "IVa"), "t_stage": ("T1", "T2", "T4"), "n_stage": ("N0", "N1", "N3")})
    assert [(p.code, p.where) for p in problems] == [
        ("W-STAGE", "patient P2"), ("W-STAGE", "patient P3"), ("W-SUVORDER", "patient P4"), ("W-TLG", "patient P5")]


def test_a_stage_that_is_no_factor(tmp_path: Path) -> None:
    """The stage must have its levels in cohort.factors."""
    with pytest.raises(TableError, match="E-STAGE"):
        _read(tmp_path, f"{HEADER}\nP1,12,1,60,III,1\n", factors={}, continuous=("age",))


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    """A float is read to its last digit."""
    table, _ = _read(tmp_path, f"{HEADER}\nP1,12.345678901234567,1,0.1,III,1\n")
    assert table["time_months"].iloc[0] == np.float64("12.345678901234567")
