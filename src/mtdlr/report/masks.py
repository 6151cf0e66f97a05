"""The predicted masks against the manual ones: overlap, distance, volume and SUV parameters, by patient and cohort."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import Problem
from mtdlr.radiomics.robustness import robustness
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS

SUV_LABELS = {"suv_max": "SUVmax (g/ml)", "suv_mean": "SUVmean (g/ml)", "suv_peak": "SUVpeak (g/ml)",
              "mtv_ml_2_5": "MTV, SUV 2.5 and above (ml)", "tlg_g_2_5": "TLG, SUV 2.5 and above (g)"}
"""The parameters that are compared: of the whole mask, and of its part that is metabolically active."""
LOWEST_DICE, LARGEST_RATIO = 0.5, 2.0
"""Limits of W-OVERLAP."""
PREDICTED, MANUAL = "predicted_", "manual_"
Row = tuple[str, ...]


def mask_table(results: Results) -> pd.DataFrame:
    """(patients, cohort, dice, hausdorff95_mm, volumes, SUV parameters of both masks); nan where a mask is missing."""
    agreement = {i: json.loads((folder / "score.json").read_text())["agreement"]
                 for i, folder in results.scored.items()}
    table = pd.DataFrame.from_dict(agreement, orient="index").reindex(
        results.cohort.ids, columns=["dice", "hausdorff95_mm", "volume_ml", "reference_ml"])
    table = table.rename(columns={"volume_ml": "predicted_ml", "reference_ml": "manual_ml"}).astype(float)
    for prefix, source in ((PREDICTED, "auto"), (MANUAL, "manual")):
        found = results.pet_parameters[source].reindex(table.index, columns=list(SUV_LABELS)).astype(float)
        table = table.join(found.add_prefix(prefix))
    table.insert(0, "cohort", results.cohort.table["split"])
    return table.rename_axis("patient_id")


def overlap_problems(masks: pd.DataFrame) -> dict[str, Problem]:
    """W-OVERLAP for each patient whose predicted and manual mask overlap little or differ much in volume.

    The limits are Dice below 0.5 and a volume below half or above twice the manual one. A missing mask is no problem.
    """
    ratio = masks["predicted_ml"] / masks["manual_ml"].where(masks["manual_ml"] > 0)
    poor = (masks["dice"] < LOWEST_DICE) | (ratio > LARGEST_RATIO) | (ratio < 1.0 / LARGEST_RATIO)
    return {str(i): Problem(
        "W-OVERLAP", "the predicted mask differs much from the manual one", where="mask",
        found=f"Dice {masks.loc[i, 'dice']:.2f}, {masks.loc[i, 'predicted_ml']:.1f} ml against "
              f"{masks.loc[i, 'manual_ml']:.1f} ml", expected=f"Dice of {LOWEST_DICE:g} and above, volume within a "
        f"factor of {LARGEST_RATIO:g}", remedy="Look at both masks", patients=(str(i),)) for i in masks.index[poor]}


def overlap_rows(masks: pd.DataFrame, splits: Sequence[str]) -> list[Row]:
    """Patients, mean Dice, Dice, 95 % Hausdorff distance and volume difference, by cohort.

    Args:
        masks: of `mask_table`.
        splits: names of the cohorts.
    """
    rows: list[Row] = []
    for split in splits:
        known = masks[(masks["cohort"] == split) & masks["manual_ml"].notna()]
        if len(known):
            dice = known["dice"]
            rows.append((SPLIT_LABELS[split], str(len(known)), f"{dice.mean():.3f}", quartiles(dice, ".3f"),
                         quartiles(known["hausdorff95_mm"], ".1f"),
                         quartiles(known["predicted_ml"] - known["manual_ml"], "+.1f")))
    return rows


def parameter_rows(masks: pd.DataFrame, splits: Sequence[str]) -> list[Row]:
    """Of each SUV parameter in each cohort: patients with both masks, relative difference, ICC with its interval.

    Args:
        masks: of `mask_table`.
        splits: names of the cohorts.
    """
    rows: list[Row] = []
    for name, label in SUV_LABELS.items():
        for split in splits:
            pair = masks.loc[masks["cohort"] == split, [PREDICTED + name, MANUAL + name]].dropna()
            if len(pair):
                rows.append((label, SPLIT_LABELS[split], str(len(pair)),
                             quartiles(relative_difference(pair[PREDICTED + name], pair[MANUAL + name]), "+.1f"),
                             _agreement(pair.to_numpy())))
    return rows


def patient_rows(masks: pd.DataFrame, patient: str) -> list[Row]:
    """(parameter, predicted, manual, difference) of one patient; parameters that neither mask has are left out.

    Args:
        masks: of `mask_table`.
        patient: the patient's id.
    """
    columns = {"Volume on the network grid (ml)": (f"{PREDICTED}ml", f"{MANUAL}ml"),
               **{label: (PREDICTED + name, MANUAL + name) for name, label in SUV_LABELS.items()}}
    values = pd.DataFrame({label: masks.loc[patient, list(pair)].to_numpy(float) for label, pair in columns.items()},
                          index=["predicted", "manual"]).T.dropna(how="all")
    difference = relative_difference(values["predicted"], values["manual"])
    return [(str(label), _number(predicted, ".2f"), _number(manual, ".2f"), _number(difference[label], "+.1f"))
            for label, predicted, manual in values.itertuples()]


def relative_difference(predicted: pd.Series, manual: pd.Series) -> pd.Series:
    """Predicted less manual, in percent of manual; nan where that is 0.

    Args:
        predicted: (n,) values in the predicted masks.
        manual: (n,) values in the manual masks.

    >>> relative_difference(pd.Series([3.0, 1.0]), pd.Series([2.0, 0.0])).tolist()
    [50.0, nan]
    """
    return 100.0 * (predicted - manual) / manual.where(manual != 0)


def quartiles(values: pd.Series, form: str) -> str:
    """Median (lower to upper quartile) as text; "-" without a value.

    Args:
        values: (n,) numbers; missing ones do not count.
        form: format of a number: ".1f".
    """
    if not values.notna().any():
        return "-"
    low, middle, high = np.nanpercentile(values, [25, 50, 75]).tolist()
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _agreement(pairs: NDArray[np.float64]) -> str:
    """ICC(1) with its interval, as text; a dash where there are too few patients."""
    icc, low, high = robustness([pd.DataFrame(column) for column in pairs.T]).iloc[0]
    return f"{icc:.3f} ({low:.3f} to {high:.3f})" if np.isfinite(icc) else "-"


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if np.isfinite(value) else "-"
