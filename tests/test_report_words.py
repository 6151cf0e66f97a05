"""What the report says of one patient's files and masks, in words and numbers: audit, geometry, shares, agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.report.acquisition import (
    Confounding,
    confounding_numbers,
    confounding_table,
    rank_correlation,
    scanner_name,
)
from mtdlr.report.audit import choice_of, suv_candidates, suv_line, suv_stated, suv_used
from mtdlr.report.documents import to_csv, to_html, to_latex
from mtdlr.report.explained import PLACES, share_rows
from mtdlr.report.masks import (
    MANUAL,
    PREDICTED,
    SUV_LABELS,
    parameter_rows,
    patient_rows,
    quartiles,
    relative_difference,
)
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.patients import geometry_of
from mtdlr.report.pictures import page_name
from mtdlr.report.tables import Table, estimate_text, p_text
from mtdlr.report.write import follow_up_text, group_problems

NAN = float("nan")
SUV = {"units": "BQML", "suv_type": None, "decay_correction": "START", "corrected_image": ["DECY", "ATTN"],
       "weight_as_stated": 72.0, "dose_as_stated": 324e6, "units_used": "BQML", "method": "body weight",
       "dose_bq": 324e6, "half_life_s": 6586.2, "weight_kg": 72.0, "uptake_min": 56.25, "factor": 0.000123456789,
       "injection_from": "RadiopharmaceuticalStartTime", "reference_from": "series time"}


# ---- what the files said ---------------------------------------------------------------------------------------------

def test_a_header_is_told_tag_by_tag() -> None:
    """Each tag stands with its value, lists as DICOM writes them, and one that is not there as absent."""
    rows = dict(suv_stated(SUV))
    assert rows["Units (0054,1001)"] == "BQML" and rows["SUVType (0054,1006)"] == "absent"
    assert rows["CorrectedImage (0028,0051)"] == "DECY\\ATTN"
    assert rows["RadionuclideTotalDose (0018,1074)"] == "324000000" and rows["PatientWeight (0010,1030)"] == "72"


def test_without_a_header_nothing_is_stated() -> None:
    """NIfTI files have no tags: no row, not a row of absent ones."""
    assert suv_stated({"units": "SUV"}) == [] == suv_used({})


def test_what_suv_was_computed_from_has_units() -> None:
    """Activity in MBq and half-life in minutes, from the becquerel and seconds that were read."""
    rows = dict(suv_used(SUV))
    assert rows == {
        "units": "BQML", "method": "body weight", "weight": "72 kg", "injected activity": "324 MBq",
        "half-life": "109.77 min", "injection time from": "RadiopharmaceuticalStartTime",
        "decay reference time from": "series time", "uptake time": "56.2 min",
        "SUV of one stored unit after rescaling": "0.000123457"}


@pytest.mark.parametrize(("suv", "line"), [
    (SUV, "BQML; body weight; injected 324 MBq, 56 min before the scan, 72 kg"), ({}, "not recorded"),
    ({"units_used": "GML"}, "GML"), ({"uptake_min": 0.0}, "0 min before the scan"),
    ({"units_used": "CNTS", "weight_kg": 60.5}, "CNTS; 60.5 kg")])
def test_suv_in_one_line(suv: dict[str, Any], line: str) -> None:
    """The line names what is known and nothing else; an uptake time of 0 is known."""
    assert suv_line(suv) == line


def test_other_reference_times_are_told_with_their_effect() -> None:
    """Each time that decay may refer to stands with its distance in seconds and what it would change, with signs."""
    found = suv_candidates({"reference_candidates": [
        {"source": "series time", "seconds": 0.0, "suv_change_percent": 0.0},
        {"source": "acquisition time", "seconds": -90.4, "suv_change_percent": -0.944}]})
    assert found == [("series time", "+0 s", "+0.00 %"), ("acquisition time", "-90 s", "-0.94 %")]
    assert suv_candidates({}) == []


@pytest.mark.parametrize(("audit", "said"), [
    ({"choice": "newest; corrected for attenuation"}, ("newest", "corrected for attenuation")),
    ({"layout": "files"}, ("the files that were named were read",)),
    ({"layout": "bids"}, ("layout bids: the files it names were read",)), ({}, ())])
def test_why_these_files_were_read(audit: dict[str, Any], said: tuple[str, ...]) -> None:
    """A reason each, or the layout that names the files; nothing where nothing was recorded."""
    assert choice_of(audit) == said


@pytest.mark.parametrize(("audit", "name"), [
    ({"pet": {"scanner": {"vendor": "GE", "model": "Discovery 690"}}}, "GE Discovery 690"),
    ({"pet": {"scanner": {"vendor": None, "model": "X"}}}, "X"), ({"pet": {}}, ""), ({"pet": None}, ""), ({}, "")])
def test_a_scanner_is_vendor_and_model(audit: dict[str, Any], name: str) -> None:
    """What the header lacks is left out."""
    assert scanner_name(audit) == name


# ---- geometry --------------------------------------------------------------------------------------------------------

def test_geometry_tells_what_was_measured() -> None:
    """Grids in z, y, x, the shift in x, y, z with signs, shares in percent."""
    facts: dict[str, Any] = {
        "pet_size_zyx": "47 x 128 x 128", "pet_voxel_z_mm": 3.27, "pet_voxel_y_mm": 2.734375,
        "pet_voxel_x_mm": 2.734375,
        "alignment": "checked", "misalignment_mm": 6.21, "misalignment_x_mm": -1.0, "misalignment_y_mm": 0.0,
        "misalignment_z_mm": 6.13, "misalignment_sd_mm": 0.42, "misalignment_seen_in": "skull",
        "misalignment_confidence": 0.987, "body_without_ct": 0.0123, "roi_how": "brain and chin", "roi_confidence": 0.8,
        "roi_x_mm": 1.4, "roi_y_mm": -20.0, "roi_z_mm": 5.0, "roi_without_pet": 0.0, "roi_without_ct": 0.25,
        "suv_max": 12.345, "mask_in_roi": 1.0}
    rows = {title: dict(group) for title, group in geometry_of(facts)}
    assert list(rows) == ["Grids", "PET against CT", "Region of the networks", "Uptake and manual mask"]
    assert rows["Grids"] == {"PET": "47 x 128 x 128 voxels of 3.27 x 2.734 x 2.734 mm (z, y, x)"}
    assert rows["PET against CT"]["PET and CT lie apart"] == "6.2 mm: (-1.0, +0.0, +6.1) in x, y, z"
    assert rows["PET against CT"]["body without CT"] == "1.2%"
    assert rows["Region of the networks"]["outside PET, outside CT"] == "0.0%, 25.0%"
    assert rows["Uptake and manual mask"] == {"largest SUV around the region": "12.35",
                                              "share of it in the region": "100.0%"}


def test_facts_that_are_missing_leave_no_heading() -> None:
    """A group without a fact is not there."""
    assert geometry_of({}) == [] and [title for title, _ in geometry_of({"alignment": "off"})] == ["PET against CT"]


# ---- masks -----------------------------------------------------------------------------------------------------------

def masks() -> pd.DataFrame:
    """Three patients of one cohort, the last without a manual mask; the first parameter is a quarter too large."""
    name = next(iter(SUV_LABELS))
    columns = {f"{kind}{one}": [1.0, 1.0, 1.0] for kind in (PREDICTED, MANUAL) for one in SUV_LABELS}
    table = pd.DataFrame({"cohort": ["external"] * 3, **columns, f"{PREDICTED}ml": [10.0, 22.0, 5.0],
                          f"{MANUAL}ml": [8.0, 20.0, NAN]}, index=["P1", "P2", "P3"])
    table[PREDICTED + name], table[MANUAL + name] = [5.0, 10.0, 2.0], [4.0, 8.0, NAN]
    return table


def test_a_patients_masks_are_compared_line_by_line() -> None:
    """Volume and SUV in both masks, with the difference in percent; a dash where one mask is missing."""
    name, label = next(iter(SUV_LABELS.items()))
    rows = {row[0]: row[1:] for row in patient_rows(masks(), "P1")}
    assert rows["Volume on the network grid (ml)"] == ("10.00", "8.00", "+25.0")
    assert rows[label] == ("5.00", "4.00", "+25.0")
    assert {row[0]: row[1:] for row in patient_rows(masks(), "P3")}[label] == ("2.00", "-", "-")
    assert name in SUV_LABELS


def test_a_parameter_is_compared_where_both_masks_are() -> None:
    """Of three patients two have both masks: both a quarter too large."""
    label = next(iter(SUV_LABELS.values()))
    (row,) = [row for row in parameter_rows(masks(), ["external", "training"]) if row[0] == label]
    assert row[2] == "2" and row[3] == "+25.0 (+25.0 to +25.0)"


def test_a_difference_from_nothing_is_not_known() -> None:
    """Nothing is a percentage of 0."""
    found = relative_difference(pd.Series([3.0, 1.0, 0.0]), pd.Series([2.0, 0.0, 4.0]))
    np.testing.assert_array_equal(found, [50.0, NAN, -100.0])


@pytest.mark.parametrize(("values", "text"), [
    ([1.0, 2.0, 3.0, 4.0, 5.0], "3.0 (2.0 to 4.0)"), ([NAN, 7.0], "7.0 (7.0 to 7.0)"), ([NAN], "-"), ([], "-")])
def test_quartiles_leave_out_what_is_missing(values: list[float], text: str) -> None:
    """Median and quartiles of the values that there are; a dash for none."""
    assert quartiles(pd.Series(values, dtype=float), ".1f") == text


def test_shares_are_told_by_place() -> None:
    """PET and CT by place: shares in percent, additions with their sign, in the order of the places."""
    share = {"pet tumour": 0.5, "ct tumour": 0.1, "pet near": 0.2, "ct near": 0.0, "pet elsewhere": 0.15,
             "ct elsewhere": 0.05}
    rows = share_rows(share, {key: value - 0.1 for key, value in share.items()})
    assert rows[0] == ("in the predicted tumour", "50.0%", "10.0%", "+0.40", "+0.00")
    assert [row[0] for row in rows] == list(PLACES.values()) and rows[2][3:] == ("+0.05", "-0.05")


# ---- scores against volume -------------------------------------------------------------------------------------------

def test_rank_correlation_is_scipys_with_fishers_interval() -> None:
    """Value and P are Spearman's; the interval lies around it and shrinks with four times the patients."""
    rng = np.random.default_rng(3)
    x = pd.Series(rng.normal(size=160))
    y = x + rng.normal(size=160)
    few, many = rank_correlation(x[:40], y[:40]), rank_correlation(x, y)
    expected = spearmanr(x[:40], y[:40])
    assert (few.value, few.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert few.low < few.value < few.high <= 1.0
    assert (many.high - many.low) == pytest.approx((few.high - few.low) / 2, rel=0.35)
    assert rank_correlation(x, -y).value == pytest.approx(-many.value)


@pytest.mark.parametrize("y", [[1.0] * 20, [NAN] * 12 + list(range(8))])
def test_a_correlation_needs_ten_pairs_that_vary(y: list[float]) -> None:
    """Below ten pairs, or where one side is constant, nothing is claimed."""
    found = rank_correlation(pd.Series(np.arange(20.0)), pd.Series(y, dtype=float))
    assert np.isnan([found.value, found.low, found.high]).all()


def test_a_cohort_without_any_figure_has_no_row() -> None:
    """Table 13 has a row where volume or centre could be compared; JSON holds None for what could not be."""
    known = Confounding("DeepMTS-Score", "training", 40, Estimate(0.5, 0.2, 0.7, 0.001), NAN, 0.04)
    unknown = Confounding("DeepMTS-Score", "external", 3, Estimate(NAN, NAN, NAN, NAN), NAN, NAN)
    (row,) = confounding_table([known, unknown]).rows
    assert row[:3] == ("DeepMTS-Score", "Training", "40") and row[3].startswith("0.500 (0.200")
    numbers = confounding_numbers(unknown)
    assert numbers["centre_p"] is None and numbers["volume_correlation"]["value"] is None
    assert confounding_numbers(known)["scanner_p"] == 0.04


# ---- tables as documents ---------------------------------------------------------------------------------------------

TABLE = Table(5, "C & <b>", ("Model", "C (95% CI)"), (("MTDLR_1", "0.800 (0.750-0.850)"), ("  level {a}", "=1+1")),
              ("50 % of #1",))


def test_latex_escapes_what_latex_would_read() -> None:
    """Every special character is escaped, an indented level is a quad, and a row ends as LaTeX wants it."""
    text = to_latex(TABLE)
    assert r"\caption{C \& $<$b$>$}" in text and r"MTDLR\_1 & 0.800 (0.750-0.850) \\" in text
    assert r"\quad level \{a\} & =1+1 \\" in text and r"50 \% of \#1" in text and r"\begin{tabular}{lr}" in text


def test_html_escapes_and_keeps_intervals_on_a_line() -> None:
    """Markup of a cell is text; an estimate with its interval cannot be broken; a level is marked as one."""
    text = to_html(TABLE)
    assert "Table 5. C &amp; &lt;b&gt;" in text and "<b>" not in text
    assert "<span class='n'>0.800 (0.750-0.850)</span>" in text and "<td class='level'>level {a}</td>" in text
    assert "<caption>C &amp;" in to_html(Table(0, "C &", ("a",), (("b",),)))


def test_csv_runs_no_formula() -> None:
    """A cell that a spreadsheet would run begins with an apostrophe; others are as they are."""
    assert to_csv(TABLE).splitlines() == ["Model,C (95% CI)", "MTDLR_1,0.800 (0.750-0.850)", "  level {a},'=1+1"]


# ---- small words -----------------------------------------------------------------------------------------------------

def test_estimates_in_json_have_no_nan() -> None:
    """JSON knows neither nan nor infinity: they are None."""
    found = estimate_numbers(Estimate(1.5, 0.5, float("inf"), NAN))
    assert found == {"value": 1.5, "low": 0.5, "high": None, "p": None}


@pytest.mark.parametrize(("p", "text"), [(0.0004, "<0.001"), (0.0312, "0.031"), (NAN, "-")])
def test_p_values_of_tables(p: float, text: str) -> None:
    """Three decimals, and no P of 0."""
    assert p_text(p) == text


def test_an_estimate_stands_with_its_interval() -> None:
    """Value and limits with three decimals; a value without limits alone."""
    assert estimate_text(Estimate(0.8184, 0.785, 0.851)).startswith("0.818 (0.785")
    assert "0.818" in estimate_text(Estimate(0.8184))


@pytest.mark.parametrize(("patient", "name"), [("P001", "P001"), ("a/b", "a")])
def test_a_page_has_a_name_that_is_a_file(patient: str, name: str) -> None:
    """An id with characters that no file name has gets another name, which no other id has."""
    found = page_name(patient)
    assert "/" not in found and found.startswith(name) and page_name(patient) != page_name(f"{patient}_")


def test_follow_up_that_was_not_reached_is_said() -> None:
    """A median in whole months, or why there is none."""
    assert follow_up_text(Estimate(41.6)) == "median follow-up 42 months"
    assert "not reached" in follow_up_text(Estimate(NAN))


def test_problems_are_grouped_errors_first() -> None:
    """Each code once with all its lines, errors above warnings, without the code in front of every line."""
    groups = group_problems([Problem("W-EPV", "few events"), Problem("E-WEIGHT", "no weight", patients=("P1",)),
                             Problem("W-EPV", "fewer events"), Problem("E-WEIGHT", "no weight", patients=("P2",))])
    assert [(g.code, g.is_error, len(g.lines)) for g in groups] == [("E-WEIGHT", True, 2), ("W-EPV", False, 2)]
    assert groups[0].lines[0].startswith("patient P1") and not groups[1].lines[0].startswith("W-")
