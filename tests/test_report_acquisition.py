"""Acquisition by centre and confounding: what the headers state, and what the scores follow."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kruskal, spearmanr

from mtdlr.cohort import Cohort
from mtdlr.errors import Problem
from mtdlr.report.acquisition import (
    acquisition_table,
    confounding,
    confounding_numbers,
    confounding_table,
    rank_correlation,
)
from mtdlr.report.facts_data import acquisition
from mtdlr.report.results import Results
from mtdlr.report.write import flow

N = 40


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two centres of one training cohort, the second from NIfTI; AutoRadio follows the volume, DeepMTS the centre."""
    rng = np.random.default_rng(4)
    ids = [f"P{k:02d}" for k in range(N)]
    table = pd.DataFrame({"split": "training", "center": ["A"] * 25 + ["B"] * 15, "time_months": rng.uniform(1, 60, N),
                          "event": rng.random(N) < 0.5}, index=ids)
    for k, i in enumerate(ids):
        (tmp_path / i).mkdir()
        suv = {"dose_bq": (300 + k) * 1e6, "weight_kg": 60.0, "uptake_min": 55.0 + k} if k < 25 else {}
        pet = {"source": "DICOM" if k < 25 else "NIfTI", "spacing_zyx_mm": [3.0 + (k == 0), 4.0, 4.0], "suv": suv}
        ct = {"spacing_zyx_mm": [2.0, 1.0, 1.0]}
        if k < 25:
            told = {"vendor": "Siemens", "model": "Biograph 64" if k % 5 else "Biograph mCT"}
            pet["scanner"] = told | {"reconstruction": "PSF TOF 2i21s", "year": str(2012 + k % 4)}
            ct["scanner"] = told | ({"kernel": "B30f"} if k else {})
        (tmp_path / i / "facts.json").write_text(json.dumps({"audit": {"pet": pet, "ct": ct}}))
    volume = pd.Series(rng.gamma(2, 10, N), index=ids)
    scores = pd.DataFrame({"auto_radio": np.log(volume) + rng.normal(0, 0.1, N), "manual_radio": 1.0,
                           "single_task": rng.normal(size=N),
                           "deepmts": rng.normal(size=N) + 2.0 * (table["center"] == "B")}, index=ids)
    problems = (Problem("E-SUV", "x", patients=("X1",)), Problem("E-SUV", "y", patients=("X2",)),
                Problem("E-TIME", "z", patients=("X2",)), Problem("W-ROI", "w", patients=("P01",)))
    return SimpleNamespace(cohort=Cohort(table, {}), prepared={i: tmp_path / i for i in ids},  # type: ignore[return-value]
                           pet_parameters={"manual": pd.DataFrame({"mtv_ml_2_5": volume})}, scores=scores,
                           findings=SimpleNamespace(risks=scores.rename(columns={"deepmts": "mtdlr"})[["mtdlr"]]),
                           problems=problems)


def test_each_centre_is_described_by_its_headers(results: Results) -> None:
    """Scanner, reconstruction, kernel, years, and ranges of voxel, uptake time and dose by centre; what no header
    states is a dash."""
    table = acquisition_table(results)
    assert table.header == ("", "A", "B")
    scanner = "Siemens Biograph 64 (20), Siemens Biograph mCT (5)"
    assert table.rows == (
        ("Patients", "25", "15"), ("Source", "DICOM", "NIfTI"), ("PET scanner", scanner, "-"),
        ("PET reconstruction", "PSF TOF 2i21s", "-"), ("PET voxel (mm)", "3 (3-4) x 4", "3 x 4"),
        ("CT scanner", scanner, "-"), ("CT kernel", "B30f (24)", "-"), ("CT voxel (mm)", "2 x 1", "2 x 1"),
        ("Uptake time (min)", "67 (55-79)", "-"), ("Injected activity (MBq)", "312 (300-324)", "-"),
        ("Activity by weight (MBq/kg)", "5.2 (5.0-5.4)", "-"), ("Years", "2012-2015", "-"))
    assert acquisition(results).startswith("A: Patients 25, Source DICOM, PET scanner Siemens Biograph 64 (20)")


def test_confounding_is_scipys(results: Results) -> None:
    """Correlation and P are SciPy's, the interval holds the value, and a constant score has none."""
    found = {one.score: one for one in confounding(results)}
    volume, table = results.pet_parameters["manual"]["mtv_ml_2_5"], results.cohort.table
    own, theirs = found["AutoRadio-Score"].volume, spearmanr(results.scores["auto_radio"], volume)
    assert (own.value, own.p) == pytest.approx((theirs.statistic, theirs.pvalue)) and own.low < own.value < own.high
    groups = [results.scores["deepmts"][table["center"] == c] for c in "AB"]
    assert found["DeepMTS-Score"].centre_p == pytest.approx(kruskal(*groups).pvalue)
    assert found["DeepMTS-Score"].centre_p < 0.01 < found["SingleTask-Score"].centre_p
    known = np.arange(N) < 25  # patients whose headers name a scanner
    groups = [results.scores["deepmts"][known & ((np.arange(N) % 5 == 0) == other)] for other in (False, True)]
    assert found["DeepMTS-Score"].scanner_p == pytest.approx(kruskal(*groups).pvalue)
    constant = json.loads(json.dumps(confounding_numbers(found["ManualRadio-Score"]), allow_nan=False))
    assert constant["volume_correlation"]["value"] is None
    assert [row[0] for row in confounding_table(found.values()).rows].count("AutoRadio-Score") == 1


def test_few_pairs_have_no_correlation() -> None:
    """Nine pairs are too few; ten are given, and perfect agreement stays within 1."""
    x = pd.Series(np.arange(10.0))
    assert np.isnan(rank_correlation(x[:9], x[:9]).value)
    assert rank_correlation(x, x).value == pytest.approx(1.0) and rank_correlation(x, x).high <= 1.0


def test_the_flow_counts_patients_by_code(results: Results) -> None:
    """A patient counts once under each of his codes, and once among those left out."""
    found = flow(results)
    assert found["codes"] == [("E-SUV", 2), ("E-TIME", 1)] and len(found["left_out"]) == 2
    assert found["included"] == N
