"""Competing risks by risk group: cumulative incidence and Gray's test beside Kaplan-Meier and the log-rank test.

The Cox models of a study with competing events are cause-specific: a competing event ends the follow-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import FitError
from mtdlr.estimate import Estimate
from mtdlr.stats.competing import CumulativeIncidence, cumulative_incidence, gray_test

CAUSE = "cause"
"""Column of the cohort's table: 0 censored, 1 the event, 2, 3, ... competing events."""
GROUPS = ("Low risk", "High risk")


@dataclass(frozen=True, eq=False)
class CompetingRisks:
    """The risk groups of one model in one cohort.

    Args:
        model, split: which, where.
        n, events, competing: patients, events and competing events.
        curves: cumulative incidence of the event by group; everybody under "All".
        incidence: at each horizon in months, by group; nan after the last follow-up.
        gray_p: P of Gray's test of the groups; nan without two groups or without an event.
    """

    model: str
    split: str
    n: int
    events: int
    competing: int
    curves: Mapping[str, CumulativeIncidence]
    incidence: Mapping[str, Mapping[float, Estimate]]
    gray_p: float


def competing_risks(
    risk: pd.Series, cutoff: float, table: pd.DataFrame, months: Sequence[float],
) -> tuple[CompetingRisks, ...]:
    """Cumulative incidence by risk group in each cohort; nothing where the table has no causes.

    Args:
        risk: (patients,) log-hazards named by the model; NaN where a score is missing.
        cutoff: of the risk groups; `nan` gives everybody alone.
        table: (patients,) split, time_months and cause.
        months: the horizons.

    References:
        Aalen & Johansen 1978; Gray, Ann Stat 1988.
    """
    if CAUSE not in table:
        return ()
    found = []
    for split in dict.fromkeys(map(str, table["split"])):
        rows = (table["split"] == split) & risk.notna()
        if rows.any():
            time, cause = table.loc[rows, "time_months"].to_numpy(float), table.loc[rows, CAUSE].to_numpy(int)
            found.append(_in_cohort((str(risk.name), split), risk[rows].to_numpy(float) >= cutoff, time, cause, months))
    return tuple(found)


def _in_cohort(
    names: tuple[str, str], high: NDArray[np.bool_], time: NDArray[np.float64], cause: NDArray[np.int64],
    months: Sequence[float],
) -> CompetingRisks:
    parts = {"All": np.ones(len(time), dtype=bool)}
    if high.any() and not high.all():
        parts |= dict(zip(GROUPS, (~high, high), strict=True))
    curves = {name: cumulative_incidence(time[rows], cause[rows]) for name, rows in parts.items()}
    try:
        p = gray_test(high, time, cause).p
    except FitError:  # one group, or no event
        p = float("nan")
    return CompetingRisks(*names, len(time), int((cause == 1).sum()), int((cause > 1).sum()), curves,
                          {name: dict(zip(months, curve.at(months), strict=True)) for name, curve in curves.items()}, p)
