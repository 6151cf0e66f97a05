"""Follow-up: when each patient was last seen, and whether the event had happened. Checked once, trusted below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem, TableError


@dataclass(frozen=True, eq=False)
class Survival:
    """Follow-up of n patients.

    Args:
        time_months: (n,), months to the event or to the last contact, finite and > 0.
        event: (n,), True where the event was seen, False where the patient is censored.

    Raises:
        TableError: E-TIME for a time that is missing, not finite or not positive, E-EVENT for a status other
            than 0/1, E-LENGTH for arrays that do not match.

    >>> surv = Survival([5.0, 12.0, 7.5], [1, 0, 1])
    >>> len(surv), surv.n_events
    (3, 2)
    """

    time_months: NDArray[np.float64]
    event: NDArray[np.bool_]

    def __post_init__(self) -> None:
        time, event = np.array(self.time_months, dtype=np.float64), np.asarray(self.event)
        if time.ndim != 1 or time.shape != event.shape:
            raise TableError(Problem("E-LENGTH", "time and event must be vectors of one length",
                                     found=f"shapes {time.shape} and {event.shape}"))
        bad = np.flatnonzero(~(np.isfinite(time) & (time > 0)))
        if bad.size:
            raise TableError(Problem("E-TIME", "follow-up time must be a positive number of months",
                                     where=f"row {bad[0]}", found=f"{time[bad[0]]:g}", expected="> 0"))
        if event.dtype != np.bool_:
            wrong = np.flatnonzero(~np.isin(event, (0, 1)))
            if wrong.size:
                raise TableError(Problem("E-EVENT", "event status must be 0 or 1", where=f"row {wrong[0]}",
                                         found=str(event[wrong[0]]), expected="0 (censored) or 1 (event)"))
            event = event.astype(np.bool_)
        time.flags.writeable = False
        event = event.copy()
        event.flags.writeable = False
        object.__setattr__(self, "time_months", time)
        object.__setattr__(self, "event", event)

    def __len__(self) -> int:
        return int(self.time_months.size)

    @property
    def n_events(self) -> int:
        """How many events were seen."""
        return int(self.event.sum())

    def take(self, rows: ArrayLike) -> Survival:
        """Follow-up of the given rows (indices or a mask), in that order."""
        return Survival(self.time_months[np.asarray(rows)], self.event[np.asarray(rows)])

    def status_at(self, month: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(event by `month`, status known at `month`): unknown for those censored before it."""
        by_then = self.event & (self.time_months <= month)
        return by_then, by_then | (self.time_months >= month)
