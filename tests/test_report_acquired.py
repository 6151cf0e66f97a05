"""What headers state, by centre, from headers made up by hand: medians, ranges, the commonest words, dashes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import one_study as made
import pandas as pd
import pytest
from scipy.stats import kruskal, spearmanr

from mtdlr.report.acquisition import (
    acquired,
    acquisition_table,
    audits_of,
    confounding,
    confounding_table,
    rank_correlation,
)
from mtdlr.report.checklist import fill_checklists
from mtdlr.report.facts import facts_of
from mtdlr.report.results import Results


def audit(**changes: Any) -> dict[str, Any]:
    """One patient's PET and CT from DICOM; `changes` replace facts of the PET."""
    pet = {"source": "DICOM", "spacing_zyx_mm": [3.27, 2.5, 2.73],
           "scanner": {"vendor": "GE", "model": "690", "reconstruction": "OSEM", "year": 2015},
           "suv": {"dose_bq": 300e6, "weight_kg": 60.0, "uptake_min": 61.6}} | changes
    return {"pet": pet, "ct": {"spacing_zyx_mm": [3.0, 0.98, 0.98],
                               "scanner": {"vendor": "GE", "model": "690", "kernel": "STANDARD"}}}


def stored(folder: Path, audits: dict[str, dict[str, Any]], rows: pd.DataFrame | None = None) -> Results:
    """The study with prepared patients whose headers said this."""
    prepared = {i: made.write_json(folder / i, "facts.json", json.dumps({"facts": {}, "audit": one, "problems": []}))
                for i, one in audits.items()}
    return made.results(rows=rows, prepared=prepared)


def test_one_patients_header_is_told_without_ranges() -> None:
    """Every fact of one patient stands alone: activity in MBq and by weight, uptake in minutes, voxels as slice
    distance by in-plane."""
    assert acquired([audit()]) == {
        "Patients": "1", "Source": "DICOM", "PET scanner": "GE 690", "PET reconstruction": "OSEM",
        "PET voxel (mm)": "3.27 x 2.73", "CT scanner": "GE 690", "CT kernel": "STANDARD", "CT voxel (mm)": "3 x 0.98",
        "Uptake time (min)": "62", "Injected activity (MBq)": "300", "Activity by weight (MBq/kg)": "5.0",
        "Years": "2015"}


def test_several_patients_have_median_and_range() -> None:
    """60, 61 and 90 minutes are 61 (60-90); what one header lacks does not count; an uptake time of 0 does."""
    suv = {"dose_bq": 300e6, "weight_kg": 60.0}
    found = acquired([audit(suv=suv | {"uptake_min": minutes}) for minutes in (90.0, 60.0, 61.0)])
    assert found["Uptake time (min)"] == "61 (60-90)" and found["Injected activity (MBq)"] == "300"
    assert acquired([audit(suv={"uptake_min": 0.0}), audit(suv={})])["Uptake time (min)"] == "0"
    heavy = audit(suv={"dose_bq": 400e6, "weight_kg": 50.0})
    assert acquired([audit(), heavy])["Activity by weight (MBq/kg)"] == "6.5 (5.0-8.0)"
    assert acquired([audit(suv={"dose_bq": 400e6})])["Activity by weight (MBq/kg)"] == "-"


def test_words_are_the_commonest_with_their_patients() -> None:
    """One word that all have stands alone; else each has its number of patients, the commonest first, and beyond four
    there are others."""
    def told(names: list[str]) -> str:
        headers = [audit(scanner={"reconstruction": name} if name else {}) for name in names]
        return acquired(headers)["PET reconstruction"]

    assert told(["OSEM", "OSEM"]) == "OSEM" and told(["OSEM", ""]) == "OSEM (1)" and told(["", ""]) == "-"
    assert told(["BLOB", "OSEM", "OSEM"]) == "OSEM (2), BLOB (1)"
    assert told(["a", "a", "b", "b", "c", "d", "e"]) == "a (2), b (2), c (1), d (1), others"
    assert told(["a", "b", "c", "d"]).count("others") == 0


def test_years_are_the_first_and_the_last() -> None:
    """2015 to 2019 is a range, one year stands alone, and none is a dash."""
    years = [audit(scanner={"year": year}) for year in (2017, 2019, 2015)]
    assert acquired(years)["Years"] == "2015-2019" and acquired(years[:1])["Years"] == "2017"
    assert acquired([audit(scanner={"year": ""}), audit(scanner={})])["Years"] == "-"


def test_what_no_header_states_is_a_dash() -> None:
    """NIfTI has no tags, and a file may lack PET facts altogether."""
    for one in ({"pet": {"source": "NIfTI"}, "ct": None}, {}):
        found = acquired([one])
        assert {name for name, value in found.items() if value != "-"} <= {"Patients", "Source"}
    assert acquired([{}])["Source"] == "-" and acquired([])["Patients"] == "0"


def test_table_12_has_a_column_a_centre(tmp_path: Path) -> None:
    """Centres in the order of their names; a centre without prepared scans has no column; no scans, no table."""
    found = acquisition_table(stored(tmp_path, {"X1": audit(), "P1": audit(source="NIfTI", scanner={}, suv={}),
                                                "P2": audit(source="NIfTI", scanner={}, suv={})}))
    assert found.header == ("", "A", "B") and found.rows[0] == ("Patients", "2", "1")
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["Source"] == ("NIfTI", "DICOM") and rows["Injected activity (MBq)"] == ("-", "300")
    assert acquisition_table(stored(tmp_path / "b", {"X1": audit()})).header == ("", "B")
    assert acquisition_table(made.results()).rows == ()


def test_centres_may_be_numbers(tmp_path: Path) -> None:
    """Centres called 2 and 10 have their columns, by their text."""
    rows = made.table().assign(center=[2] * 6 + [10] * 4)
    assert acquisition_table(stored(tmp_path, {"X1": audit(), "P1": audit()}, rows)).header == ("", "10", "2")


def test_audits_are_those_that_were_stored(tmp_path: Path) -> None:
    """A folder without facts is left out, and facts without an audit are empty."""
    made.write_json(tmp_path / "P2", "facts.json", json.dumps({"facts": {}}))
    found = stored(tmp_path, {"P1": audit()})
    found = replace(found, prepared={**found.prepared, "P2": tmp_path / "P2", "P3": tmp_path / "gone"})
    assert audits_of(found) == {"P1": audit(), "P2": {}}


def test_acquisition_and_dates_are_facts_of_dicom_alone(tmp_path: Path) -> None:
    """Scanners and years by centre are facts; without DICOM there is no acquisition, without years no dates, and the
    item on accrual stays the authors'."""
    facts = facts_of(stored(tmp_path, {"P1": audit(), "X1": audit(scanner={"vendor": "Siemens"})}))
    assert facts["acquisition"].value.startswith("A: Patients 1, Source DICOM, PET scanner GE 690")
    assert "; B: " in facts["acquisition"].value and "PET scanner Siemens" in facts["acquisition"].value
    assert facts["scan_dates"].value == "examinations by centre: A 2015"
    other = facts_of(stored(tmp_path / "n", {"P1": audit(source="NIfTI", scanner={})}))
    assert other["acquisition"].value == other["scan_dates"].value == ""
    items = {(i.checklist, i.number): i.status for i in fill_checklists(other, {})}
    assert items["TRIPOD+AI", "5b"] == "yours"


def test_the_interval_of_a_rank_correlation_is_fiellers() -> None:
    """Fisher's z with a variance of 1.06 / (n - 3): of 30 pairs, worked out from SciPy's rho."""
    x = pd.Series(range(30), dtype=float)
    y = pd.Series([(7 * k) % 30 + k / 2 for k in range(30)])
    found, rho = rank_correlation(x, y), spearmanr(x, y).statistic
    reach = 1.959963984540054 * math.sqrt(1.06 / 27)
    assert (found.low, found.value, found.high) == pytest.approx(
        (math.tanh(math.atanh(rho) - reach), rho, math.tanh(math.atanh(rho) + reach)))


# ---- Table 13 --------------------------------------------------------------------------------------------------------

def test_scores_are_compared_with_centre_and_scanner(tmp_path: Path) -> None:
    """P between centres and between scanners are SciPy's Kruskal-Wallis of the score's values there; a scanner that no
    header states is no group."""
    rows = made.table().assign(center=list("AABBCC") + ["D"] * 4)
    scanners = dict(zip([f"P{k}" for k in range(1, 7)], ["x", "y", "x", "y", "", "x"], strict=True))
    own = stored(tmp_path, {i: audit(scanner={"vendor": name}) for i, name in scanners.items()}, rows)
    scores = own.scores.copy()
    scores.loc[list(scanners), "deepmts"] = [0.3, 0.1, 0.7, 0.2, 0.9, 0.6]
    found = {(one.score, one.split): one for one in confounding(replace(own, scores=scores))}
    deep = found["DeepMTS-Score", "training"]
    assert deep.centre_p == pytest.approx(kruskal([0.3, 0.1], [0.7, 0.2], [0.9, 0.6]).pvalue)
    assert deep.scanner_p == pytest.approx(kruskal([0.3, 0.7, 0.6], [0.1, 0.2]).pvalue)
    outside = found["DeepMTS-Score", "external"]
    assert pd.isna(outside.centre_p) and pd.isna(outside.scanner_p) and (deep.n, outside.n) == (6, 4)
    assert ("MTDLR risk", "training") in found and ("AutoRadio-Score", "external") in found


def test_a_constant_score_differs_from_nothing() -> None:
    """Neither volume nor centre can be compared with a constant; a missing score takes no part."""
    own = made.results(rows=made.table().assign(split="training"))
    constant = {one.score: one for one in confounding(replace(own, scores=own.scores.assign(deepmts=1.0)))}
    assert pd.isna(constant["DeepMTS-Score"].volume.value) and pd.isna(constant["DeepMTS-Score"].centre_p)
    lost = own.scores.copy()
    lost.iloc[:3, 0] = nan
    assert {one.score: one.n for one in confounding(replace(own, scores=lost))}["DeepMTS-Score"] == 7
    assert "DeepMTS-Score" not in {row[0] for row in confounding_table(constant.values()).rows}


def test_the_volume_is_the_manual_one() -> None:
    """A score that falls with the manual volume has a correlation of -1; without manual volumes there is none."""
    own = made.results(rows=made.table().assign(split="training"))
    found = {one.score: one for one in confounding(own)}
    assert found["AutoRadio-Score"].volume.value == pytest.approx(-1.0)
    assert found["DeepMTS-Score"].volume.value == pytest.approx(1.0)
    bare = replace(own, pet_parameters={})
    assert all(pd.isna(one.volume.value) and one.n == 0 for one in confounding(bare))
