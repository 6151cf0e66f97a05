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
EVENT = "Event"
"""The cause that the study is about."""


@dataclass(frozen=True, eq=False)
class CompetingRisks:
    """One cause of failure in the risk groups of one model in one cohort.

    Args:
        model, split, cause: which, where, of what; `EVENT` or the name of a competing event.
        n, events, competing: patients, failures from the cause and from all others.
        curves: cumulative incidence of the cause by group; everybody under "All".
        incidence: at each horizon in months, by group; nan after the last follow-up.
        gray_p: P of Gray's test of the groups; nan without two groups or without a failure from the cause.
    """

    model: str
    split: str
    cause: str
    n: int
    events: int
    competing: int
    curves: Mapping[str, CumulativeIncidence]
    incidence: Mapping[str, Mapping[float, Estimate]]
    gray_p: float


def competing_risks(
    risk: pd.Series, cutoff: float, table: pd.DataFrame, months: Sequence[float], *, competing: Sequence[str] = (),
) -> tuple[CompetingRisks, ...]:
    """Cumulative incidence by risk group in each cohort, of the event and then of each competing event.

    Args:
        risk: (patients,) log-hazards named by the model; NaN where a score is missing.
        cutoff: of the risk groups; `nan` gives everybody alone.
        table: (patients,) split, time_months and cause; without causes there is nothing to return.
        months: the horizons.
        competing: names of the causes 2, 3, ...

    References:
        Aalen & Johansen 1978; Gray, Ann Stat 1988.
    """
    if CAUSE not in table:
        return ()
    found = []
    for split in dict.fromkeys(map(str, table["split"])):
        rows = (table["split"] == split) & risk.notna()
        for code, name in enumerate((EVENT, *map(cause_label, competing)), start=1):
            if rows.any():
                time, cause = table.loc[rows, "time_months"].to_numpy(float), table.loc[rows, CAUSE].to_numpy(int)
                found.append(_in_cohort((str(risk.name), split, name), risk[rows].to_numpy(float) >= cutoff,
                                        (time, cause, code), months))
    return tuple(found)


def cause_label(value: str) -> str:
    """A value of the event column as the name of a competing event.

    >>> cause_label("2"), cause_label("other death")
    ('Competing event 2', 'Other death')
    """
    return value[:1].upper() + value[1:] if any(map(str.isalpha, value)) else f"Competing event {value}"


def _in_cohort(
    names: tuple[str, str, str], high: NDArray[np.bool_],
    failures: tuple[NDArray[np.float64], NDArray[np.int64], int], months: Sequence[float],
) -> CompetingRisks:
    time, cause, code = failures
    parts = {"All": np.ones(len(time), dtype=bool)}
    if high.any() and not high.all():
        parts |= dict(zip(GROUPS, (~high, high), strict=True))
    curves = {name: cumulative_incidence(time[rows], cause[rows], of=code) for name, rows in parts.items()}
    try:
        p = gray_test(high, time, cause, of=code).p
    except FitError:  # one group, or no failure from the cause
        p = float("nan")
    own = int((cause == code).sum())
    return CompetingRisks(*names, len(time), own, int((cause > 0).sum()) - own, curves,
                          {name: dict(zip(months, curve.at(months), strict=True)) for name, curve in curves.items()}, p)
