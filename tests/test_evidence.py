"""docs/evidence.md: the numbers of the studies that are kept, and no others."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    """The names of bench_paper.py."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        return runpy.run_path(str(ROOT / "bench" / "bench_paper.py"), run_name="bench_paper")
    finally:
        sys.path.remove(str(ROOT / "bench"))


def test_the_page_is_made_of_what_is_kept(bench: dict[str, Any]) -> None:
    """The page is what the script writes of bench/paper, to the letter, and its figures are there."""
    studies = bench["kept"]()
    assert studies and bench["PAGE"].read_text(encoding="utf-8") == bench["page"](studies, bench["SHOWN"])
    assert all((bench["PICTURES"] / f"figure{name}.png").is_file() for name in bench["SHOWN"])


def test_every_kept_study_has_the_papers_size_and_events(bench: dict[str, Any]) -> None:
    """522, 130 and 234 patients, 48 voxels along an axis or more, and every C-index between chance's ends."""
    for one in bench["kept"]():
        assert one["sizes"] == [522, 130, 234] and one["grid"] >= 48
        found = [cohort["c"] for model in one["performance"].values() for cohort in model.values()]
        assert len(found) >= 3 * 9 and all(0.3 < c < 0.95 for c in found)


def test_making_the_patients_is_no_cost_of_a_study(bench: dict[str, Any]) -> None:
    """CPU hours are from scans to report, also where the making of the patients was timed."""
    hours = bench["page"].__globals__["_cpu_hours"]
    assert hours({"cpu_s": {"patients": 999.0, "prepare": 1800.0, "train": 1800.0}}) == 1.0


def test_p_of_claims_is_the_paired_t_test_over_seeds(bench: dict[str, Any]) -> None:
    """Differences of .1, .2 and .3 have P .037 (t = 3.464 with 2 degrees of freedom); fewer than three studies have
    none."""
    p = bench["page"].__globals__["p_over_seeds"]
    assert p([0.1, 0.2, 0.3]) == "0.037" and p([0.1, 0.2]) == "-" == p([]) and p([0.1, 0.1001, 0.0999]) == "<0.001"


def test_numbers_of_a_run_become_what_is_kept(bench: dict[str, Any]) -> None:
    """A ratio is of the last level; a model without risk groups keeps none; calibration is of out-of-fold scores."""
    rows = [{"variable": "tnm_stage", "cohort": "training",
             "hazard_ratios": {"IVa": {"value": 1.54, "low": 1.0, "high": 2.0, "p": 0.03}}}]
    assert bench["hazard_ratios"](rows) == {"stage": {"training": 1.54}}
    told = {"model": "mtdlr", "cohort": "training", "n": 5, "events": 2, "c": {"value": 0.71234}, "groups": None}
    assert bench["performance"]([told]) == {"mtdlr": {"training": {"n": 5, "events": 2, "c": 0.7123, "groups": None}}}
    fit = {"cohort": "external", "months": 60.0, "slope": {"value": 0.9}, "oe": {"value": 1.1}, "gnd_p": 0.2}
    found = bench["calibration"]([fit | {"scores": "in-sample scores", "slope": {"value": np.nan}},
                                  fit | {"scores": "out-of-fold scores"}])
    assert found == {"external": {"60": {"slope": 0.9, "oe": 1.1, "gnd_p": 0.2}}}


def test_what_a_score_knows_of_the_true_risk(bench: dict[str, Any], tmp_path: Path) -> None:
    """The correlation is of the model's own risk column in each cohort, and a Cox model of the true risk, fitted to the
    training patients, is calibrated in them."""
    rng = np.random.default_rng(0)
    split, truth = np.repeat(["training", "internal", "external"], [400, 100, 100]), rng.normal(size=600)
    time = rng.exponential(80.0 * np.exp(-truth)) + 0.1
    ids = [f"P{k:03d}" for k in range(600)]
    noisy = truth + rng.normal(size=600)
    pd.DataFrame({"patient_id": ids, "truth": truth, "mtdlr": -truth, "deepmts": 0.0, "deepmts_risk": noisy}).to_csv(
        tmp_path / "scores.csv", index=False)
    pd.DataFrame({"patient_id": ids, "split": split, "time_months": np.minimum(time, 90.0), "event": time < 90.0}
                 ).to_csv(tmp_path / "cohort.csv", index=False)
    found = bench["of_truth"](tmp_path, ["mtdlr", "deepmts"])
    assert found["correlation"]["mtdlr"] == {"training": -1.0, "internal": -1.0, "external": -1.0}
    outside = split == "external"
    assert found["correlation"]["deepmts"]["external"] == pytest.approx(
        np.corrcoef(noisy[outside], truth[outside])[0, 1], abs=1e-4)
    assert found["calibration"]["training"] == pytest.approx({"slope": 1.0, "oe": 1.0}, abs=0.1)
