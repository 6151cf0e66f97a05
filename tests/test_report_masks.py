"""Masks and explanations by cohort: what the report's tables say of patients made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mtdlr.cohort import Cohort
from mtdlr.report.explained import explained_rows, patient_shares
from mtdlr.report.masks import SUV_LABELS, mask_table, overlap_problems, overlap_rows, parameter_rows, patient_rows
from mtdlr.report.results import Results

IDS = ["A", "B", "C", "D", "E"]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Four training patients, the last without a manual mask, and one external; D's predicted mask is empty."""
    for i, dice in zip(IDS, (0.9, 0.8, 0.7, None, 0.6), strict=True):
        agreement = {"dice": dice, "hausdorff95_mm": 5.0, "volume_ml": 11.0, "reference_ml": 10.0}
        (tmp_path / i).mkdir()
        (tmp_path / i / "score.json").write_text(json.dumps({"agreement": {} if dice is None else agreement}))
        tumour = 0.0 if i == "D" else 0.1 * (1 + IDS.index(i))
        share = {f"{c} {p}": 0.0 for c in ("pet", "ct") for p in ("tumour", "near", "elsewhere")}
        (tmp_path / i / "attribution.json").write_text(json.dumps({
            "share": share | {"pet tumour": tumour, "ct elsewhere": 1.0 - tumour}, "outside": 1.0 - tumour,
            "adds": share | {"pet tumour": -0.25}, "tumour_volume": 0.02}))
    manual = pd.DataFrame({name: [4.0, 8.0, 16.0, np.nan, 5.0] for name in SUV_LABELS}, index=IDS)
    predicted = (manual * 1.1).assign(suv_max=manual["suv_max"])
    table = pd.DataFrame({"split": ["training"] * 4 + ["external"]}, index=IDS)
    folders = {i: tmp_path / i for i in IDS}
    return SimpleNamespace(cohort=Cohort(table, {}), scored=folders,  # type: ignore[return-value]
                           explained={i: folders[i] for i in IDS[:4]},
                           pet_parameters={"manual": manual, "auto": predicted})


def test_every_patient_has_a_line(results: Results) -> None:
    """masks.csv: who, how well the masks overlap, both volumes, every parameter of both; nan where a mask lacks."""
    masks = mask_table(results)
    assert list(masks.index) == IDS and masks.index.name == "patient_id"
    assert list(masks.columns) == ["cohort", "dice", "hausdorff95_mm", "predicted_ml", "manual_ml",
                                   *(f"{who}_{name}" for who in ("predicted", "manual") for name in SUV_LABELS)]
    assert masks.loc["D"].drop("cohort").isna().all() and masks.loc["B", "predicted_tlg_g_2_5"] == pytest.approx(8.8)


def test_a_poor_mask_is_a_warning() -> None:
    """W-OVERLAP names a Dice of .45 and a volume of more than twice the manual one; a missing manual mask is none."""
    masks = pd.DataFrame({"dice": [0.45, 0.8, 0.55, np.nan], "predicted_ml": [10.0, 10.0, 35.0, 9.0],
                          "manual_ml": [10.0, 10.0, 10.0, np.nan]}, index=["A", "B", "C", "D"])
    found = overlap_problems(masks)
    assert set(found) == {"A", "C"} and {p.code for p in found.values()} == {"W-OVERLAP"}
    assert "0.45" in found["A"].found and "35.0 ml against 10.0 ml" in found["C"].found


def test_parameters_agree_as_counted_by_hand(results: Results) -> None:
    """Equal SUVmax: no difference and ICC 1. Ten percent more SUVmean: a median of +10, and an ICC below 1."""
    rows = {(row[0], row[1]): row[2:] for row in parameter_rows(mask_table(results), results.cohort.splits)}
    assert rows["SUVmax (g/ml)", "Training cohort"] == ("3", "+0.0 (+0.0 to +0.0)", "1.000 (1.000 to 1.000)")
    n, difference, icc = rows["SUVmean (g/ml)", "Training cohort"]
    assert (n, difference) == ("3", "+10.0 (+10.0 to +10.0)") and 0.9 < float(icc.split()[0]) < 1.0
    external = next(row for (label, cohort), row in rows.items() if cohort.startswith("External"))
    assert external[0] == "1" and external[2] == "-", "one patient has no correlation"


def test_overlap_is_told_of_patients_with_a_manual_mask(results: Results) -> None:
    """Three of the four training patients; their mean and quartiles."""
    row = overlap_rows(mask_table(results), results.cohort.splits)[0]
    assert row == ("Training cohort", "3", "0.800", "0.800 (0.750 to 0.850)", "5.0 (5.0 to 5.0)", "+1.0 (+1.0 to +1.0)")


def test_a_patients_own_rows(results: Results) -> None:
    """Volume and parameters side by side; nothing of a patient without masks."""
    masks = mask_table(results)
    assert patient_rows(masks, "A")[:2] == [("Volume on the network grid (ml)", "11.00", "10.00", "+10.0"),
                                            ("SUVmax (g/ml)", "4.00", "4.00", "+0.0")]
    assert patient_rows(masks, "D") == []


def test_shares_are_means_over_patients_with_a_tumour(results: Results) -> None:
    """10, 20 and 30 % in the PET's tumour are 20 %; a patient without a predicted tumour takes no part."""
    ((cohort, patients, *shares),) = explained_rows(results)
    assert (cohort, patients) == ("Training cohort", "3 of 4")
    assert shares == ["20.0%", "0.0%", "0.0%", "0.0%", "0.0%", "80.0%", "80.0%", "2.0%"]
    assert patient_shares(results, "A")[0] == ("in the predicted tumour", "10.0%", "0.0%", "-0.25", "+0.00")
    assert patient_shares(results, "E") == []
