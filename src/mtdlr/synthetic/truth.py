"""The truth: what drives the hazard, in parts that a stage, a mask, or only the whole image can show.

log-hazard = sum of weight x standardised part. `TRUTHS` holds several by name; docs/synthetic.md has their shares.
Parts of `burden`, the first, and who can see them:

| part | what it is | where it shows | share of the variance | its C-index alone |
|---|---|---|---|---|
| stage | IVa or not | the clinical table | .01 | .58 |
| volume | log volume of the primary tumour | inside the mask | .14 | .61 |
| heterogeneity | texture and necrotic core of the primary | inside the mask | .42 | .71 |
| invasion | log volume of the extension into skull base and neighbours | outside the mask only | .29 | .67 |
| nodes | log(1 + volume) of the neck nodes | outside the mask only | .14 | .61 |

(The shares sum to 1 with the covariances: T4 is large, N3 is IVa.) What a model could know at best, as C-index in a
large training cohort under the study's own censoring: the mask .74 (with stage .75), what lies outside it .71, the
whole image .825, everything .83; about .01 more in the other two cohorts, which have fewer events. Radiomics of the
mask, a single-task and a multi-task network are to be read against these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.synthetic.clinic import TABLE_1, clinical_table
from mtdlr.synthetic.layout import COLUMNS, Layout, draw_layouts, layout_of, raw_parts

WEIGHTS = {"stage": 0.172, "volume": 0.604, "heterogeneity": 1.035, "invasion": 0.862, "nodes": 0.604}
BURDEN, CHANCE = "burden", "chance"
TRUTHS: dict[str, dict[str, float]] = {
    BURDEN: WEIGHTS,
    "places": {"side": 0.80, "height": 0.80, "direction": 0.85, "crossing": 0.80, "level": 0.60},
    "shapes": {"elongation": 1.00, "flatness": 0.85, "lobulation": 0.90, "reach": 0.75},
    "uptake": {"slope": 0.95, "rim": 0.85, "node_uptake": 0.90, "marrow": 0.80},
    "mixed": {"volume": 0.60, "heterogeneity": 0.60, "side": 0.70, "direction": 0.70, "elongation": 0.70,
              "node_uptake": 0.70, "level": 0.50},
    "noise": {CHANCE: 1.75},
}
"""Weight of each standardised part, by the truth's name. Nothing anywhere shows `chance`."""

# Mean and standard deviation of each raw part in the training cohort's population.
STANDARDS = {
    "stage": (0.203, 0.402), "volume": (3.159, 0.764), "heterogeneity": (0.0, 1.0), "invasion": (0.0, 1.0),
    "nodes": (2.014, 0.843), "direction": (0.0, 1.0), "crossing": (0.241, 0.175), "level": (53.8, 19.0),
}
VOLUME_ML = {"T1": 10.0, "T2": 16.0, "T3": 32.0, "T4": 60.0}
VOLUME_LIMITS_ML = (3.0, 200.0)
NODE_ML = {"N0": (0.0, 0.0), "N1": (3.5, 0.7), "N2": (8.0, 0.7), "N3": (18.0, 0.6)}
INVASION_ML, INVASION_SIGMA = 5.0, 0.9
UPTAKE_SUV, UPTAKE_SIGMA = 7.0, 0.28

PART = "_part"  # behind a part's name where a column of the disease has that name

HAZARD_SHAPE = 1.2
FIRST_EVENT_MONTHS = 2.0
FOLLOW_UP_MONTHS = {"training": (44.0, 120.0), "internal": (44.0, 120.0), "external": (44.0, 97.0)}
MEDIAN_FOLLOW_UP_MONTHS = {"training": 50.0, "internal": 50.0, "external": 49.0}
FOLLOW_UP_SHAPE = 0.8


@dataclass(frozen=True)
class Disease:
    """What is drawn into one patient's scans.

    Args:
        volume_ml: volume of the primary tumour.
        heterogeneity: latent strength of texture and necrosis, standard normal in the population.
        invasion_ml: volume of the extension outside the contoured primary.
        node_ml: total volume of the neck nodes, 0 for none.
        n_stage: N0 to N3; says on which sides and levels the nodes lie.
        uptake_suv: mean SUV of the primary tumour before the centre's scale; no part of the risk.
        layout: where it lies and how it looks; None leaves that to the image seed.
    """

    volume_ml: float = 30.0
    heterogeneity: float = 0.0
    invasion_ml: float = 4.0
    node_ml: float = 9.0
    n_stage: str = "N2"
    uptake_suv: float = 7.0
    layout: Layout | None = None


def simulate_cohort(
    split: str, n: int, rng: np.random.Generator, truth: str = BURDEN
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(clinical table with follow-up, truth table) of one cohort, row by row the same patients.

    The truth holds the disease (`Disease` fields), each part's contribution to the log-hazard (the parts of
    `TRUTHS[truth]`), and their sum `log_hazard`. All truths but `burden` give the same patients another follow-up.
    Hazards are proportional (Weibull, shape 1.2, from month 2 on); their scale is set so that exactly the paper's share
    of the cohort has the event before its administrative censoring.

    Args:
        split: name of the cohort in `TABLE_1`, whose margins it has.
        n: number of patients.
        rng: source of randomness.
        truth: name of a truth in `TRUTHS`.
    """
    clinical = clinical_table(split, n, rng)
    hidden = _draw_disease(clinical, rng)
    if truth != BURDEN:
        hidden = hidden.join(draw_layouts(n, rng))
    weights = TRUTHS[truth]
    parts = _standardised(clinical, hidden, rng)[list(weights)] * pd.Series(weights)
    contributions = {f"{name}{PART}" if name in hidden else name: parts[name] for name in weights}
    hidden = hidden.assign(**contributions, log_hazard=parts.sum(axis=1))
    margins = TABLE_1[split]
    months, event = _follow_up(hidden["log_hazard"].to_numpy(), split, round(n * margins.events / margins.n), rng)
    return clinical.assign(time_months=months, event=event.astype(int)), hidden


def disease_of(row: Mapping[str, Any]) -> Disease:
    """The disease of one row of the truth table."""
    return Disease(float(row["volume_ml"]), float(row["heterogeneity_latent"]), float(row["invasion_ml"]),
                   float(row["node_ml"]), str(row["n_stage"]), float(row["uptake_suv"]), layout_of(row))


def _draw_disease(clinical: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Tumour, extension, nodes and uptake of every patient."""
    n = len(clinical)
    volume = clinical["t_stage"].map(VOLUME_ML).to_numpy() * np.exp(0.5 * rng.standard_normal(n))
    node = np.array([NODE_ML[stage] for stage in clinical["n_stage"]]).reshape(n, 2)
    return pd.DataFrame({
        "n_stage": clinical["n_stage"],
        "volume_ml": np.clip(volume, *VOLUME_LIMITS_ML),
        "heterogeneity_latent": rng.standard_normal(n),
        "invasion_ml": INVASION_ML * np.exp(INVASION_SIGMA * np.clip(rng.standard_normal(n), -2.5, 2.5)),
        "node_ml": node[:, 0] * np.exp(node[:, 1] * np.clip(rng.standard_normal(n), -2.0, 2.0)),
        "uptake_suv": UPTAKE_SUV * np.exp(UPTAKE_SIGMA * np.clip(rng.standard_normal(n), -1.3, 2.2)),
    })


def _standardised(clinical: pd.DataFrame, hidden: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Each part with mean 0 and standard deviation 1 in the training population."""
    raw = pd.DataFrame({
        "stage": (clinical["tnm_stage"] == "IVa").astype(float),
        "volume": np.log(hidden["volume_ml"]),
        "heterogeneity": hidden["heterogeneity_latent"],
        "invasion": np.log(hidden["invasion_ml"] / INVASION_ML) / INVASION_SIGMA,
        "nodes": np.log1p(hidden["node_ml"]),
    })
    if set(COLUMNS) <= set(hidden):
        raw = raw.join(raw_parts(hidden[list(COLUMNS)], hidden["n_stage"]))
        raw[CHANCE] = rng.standard_normal(len(raw))
    means, sds = np.array([STANDARDS.get(str(part), (0.0, 1.0)) for part in raw]).T
    return (raw - means) / sds


def _follow_up(
    log_hazard: NDArray[np.float64], split: str, events: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Months and status, with exactly `events` events.

    Patient i has the event before its last contact c_i exactly when the baseline rate exceeds
    E_i exp(-log_hazard_i) / (c_i - start)^shape (E_i exponential), so the rate that gives `events` events lies between
    two order statistics.
    """
    contact = _last_contact(split, log_hazard.size, rng)
    exponent = rng.exponential(size=log_hazard.size) * np.exp(-log_hazard)
    needed = np.sort(exponent / (contact - FIRST_EVENT_MONTHS) ** HAZARD_SHAPE)
    edges = np.concatenate([[needed[0] / 2], needed, [needed[-1] * 2]])
    rate = np.sqrt(edges[events] * edges[events + 1])
    onset = FIRST_EVENT_MONTHS + (exponent / rate) ** (1 / HAZARD_SHAPE)
    event = onset <= contact
    return np.maximum(np.where(event, onset, contact).round(2), 0.01), event


def _last_contact(split: str, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Months to administrative censoring: a skewed (Weibull) tail above the shortest, with the paper's median."""
    low, high = FOLLOW_UP_MONTHS[split]
    scale = (MEDIAN_FOLLOW_UP_MONTHS[split] - low) / np.log(2) ** (1 / FOLLOW_UP_SHAPE)
    reach = -np.expm1(-(((high - low) / scale) ** FOLLOW_UP_SHAPE))
    return low + scale * (-np.log1p(-reach * rng.random(n))) ** (1 / FOLLOW_UP_SHAPE)
