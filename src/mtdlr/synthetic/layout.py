"""Where a disease lies and how it looks: side, position, directions, shape and uptake, beside how much of it there is.

The truth of `truth.BURDEN` leaves all of this to chance. The other truths draw it, and put the hazard on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.synthetic.canvas import Point

# Ways out of the primary, as (x, y, z): clivus, parapharyngeal and retrostyloid space, pterygopalatine fossa, nose.
BREAKOUTS: tuple[Point, ...] = ((0.1, 0.6, 0.8), (0.95, 0.1, -0.2), (0.75, 0.6, 0.0), (0.75, -0.6, 0.2),
                                (0.25, -0.95, 0.1))
DANGER = (1.5, 0.0, 0.5, -0.5, -1.5)
"""What the way out adds to the part `direction`: backwards and up is worse than forwards."""
# Neck levels on the left; the right side mirrors them.
LEVELS: dict[str, Point] = {
    "RP": (17, 16, -16), "IIa": (38, 10, -44), "IIb": (45, 28, -36), "III": (34, 6, -66), "IV": (31, 8, -86),
    "Va": (47, 42, -60),
}
SPREAD: dict[str, tuple[tuple[tuple[str, int, float], ...], ...]] = {  # (level, side, share of the nodal volume)
    "N0": ((),),
    "N1": ((("IIa", 1, 1.0),), (("IIb", 1, 0.6), ("IIa", 1, 0.4)), (("IIa", 1, 0.8), ("RP", 1, 0.2))),
    "N2": ((("IIa", 1, 0.6), ("IIa", -1, 0.4)), (("IIa", 1, 0.5), ("IIb", -1, 0.3), ("III", 1, 0.2)),
           (("IIb", 1, 0.45), ("IIa", -1, 0.25), ("Va", 1, 0.15), ("RP", -1, 0.15))),
    "N3": ((("IIa", 1, 0.6), ("III", 1, 0.2), ("IV", 1, 0.1), ("IIa", -1, 0.1)),
           (("IIb", 1, 0.45), ("IIa", -1, 0.25), ("III", -1, 0.15), ("IV", 1, 0.15))),
}
PATTERNS = 6  # any number of patterns above divides it


@dataclass(frozen=True)
class Layout:
    """What of one patient's disease is set and not left to the image seed.

    Args:
        side: of the primary and of most nodes; 1 is left, -1 right.
        height_mm: shift of the primary towards the head.
        breakout: which of `BREAKOUTS` the extension takes.
        breakout_side: its side.
        pattern: which of the stage's `SPREAD` the nodes follow, modulo their number.
        elongation, flatness: primary stretched along the body, and from left to right; standard normal.
        lobulation: how bumpy the primary's surface is; standard normal.
        reach: the extension stretched along its way; standard normal.
        slope: uptake of the primary rises towards the head; standard normal.
        rim: uptake of its shell over its middle; standard normal.
        node_uptake: of the nodes over the primary's; standard normal.
        marrow: uptake of the neck's vertebrae; standard normal.
    """

    side: int
    height_mm: float
    breakout: int
    breakout_side: int
    pattern: int
    elongation: float
    flatness: float
    lobulation: float
    reach: float
    slope: float
    rim: float
    node_uptake: float
    marrow: float


COLUMNS = tuple(field.name for field in fields(Layout))
HEIGHT_MM = 5.0


def draw_layouts(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """The layouts of patients, one row each, one column for each field.

    Args:
        n: number of patients.
        rng: source of randomness.
    """
    drawn: dict[str, Any] = {
        "side": rng.choice((-1, 1), n), "height_mm": HEIGHT_MM * np.clip(rng.standard_normal(n), -2, 2),
        "breakout": rng.integers(len(BREAKOUTS), size=n), "breakout_side": rng.choice((-1, 1), n),
        "pattern": rng.integers(PATTERNS, size=n)}
    for name in COLUMNS[5:]:
        drawn[name] = np.clip(rng.standard_normal(n), -2.2, 2.2)
    return pd.DataFrame(drawn)


def layout_of(row: Mapping[str, Any]) -> Layout | None:
    """The layout of one row of a truth table; None where the truth has none."""
    if COLUMNS[0] not in row:
        return None
    whole = {name: int(row[name]) for name in ("side", "breakout", "breakout_side", "pattern")}
    return Layout(**{name: whole.get(name, float(row[name])) for name in COLUMNS})  # type: ignore[arg-type]


def nodes_of(n_stage: str, pattern: int) -> tuple[tuple[str, int, float], ...]:
    """The nodes of a patient: for each its level, side (1 the primary's, -1 the other) and share of the nodal volume.

    Args:
        n_stage: N stage of the clinical table.
        pattern: number of the pattern; it is taken modulo the patterns of the stage.
    """
    patterns = SPREAD[n_stage]
    return patterns[pattern % len(patterns)]


def raw_parts(layouts: pd.DataFrame, n_stage: pd.Series) -> pd.DataFrame:
    """What the hazard may depend on, in its own units: each part of the truths `places`, `shapes` and `uptake`.

    Args:
        layouts: of `draw_layouts`, n rows.
        n_stage: (n,) N stages of the same patients.

    Returns:
        n rows, one column for each part.
    """
    nodes = [nodes_of(stage, pattern) for stage, pattern in zip(n_stage, layouts["pattern"], strict=True)]
    parts = layouts[[*COLUMNS[5:]]].copy()
    parts["side"] = layouts["side"].astype(float)
    parts["height"] = layouts["height_mm"] / HEIGHT_MM
    parts["direction"] = np.array(DANGER)[layouts["breakout"].to_numpy()]
    parts["crossing"] = [sum(share for _, side, share in patient if side < 0) for patient in nodes]
    parts["level"] = [max((-LEVELS[level][2] for level, _, _ in patient), default=0.0) for patient in nodes]
    return parts
