"""Follow-up: when each patient was last seen, and whether the event had happened. Checked once, trusted below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem, TableError


@dataclass(frozen=True, eq=False)
class Survival:
    """Follow-up of n patients.

    Args:
        time_months: (n,), months to the event or to the last contact, finite and > 0.
        event: (n,), True where the event was seen, False where the patient is censored.

        index: (n,), patient labels of a pandas time and event; None for arrays and row numbers. A table with labels is
            put into this order wherever it meets the follow-up.

    Raises:
        TableError: E-TIME for a time that is missing, not finite or not positive, E-EVENT for a status other
            than 0/1, E-LENGTH for arrays that do not match, E-NUMBER for text and durations, E-INDEX for a time and an
            event of different patients.

    >>> surv = Survival([5.0, 12.0, 7.5], [1, 0, 1])
    >>> len(surv), surv.n_events
    (3, 2)
    """

    time_months: NDArray[np.float64]
    event: NDArray[np.bool_]
    index: Any = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", self.index if self.index is not None else self._labels())
        time, event = numbers(self.time_months, "follow-up time").copy(), np.asarray(self.event)
        if time.ndim != 1 or time.shape != event.shape:
            raise TableError(Problem("E-LENGTH", "time and event must be vectors of one length",
                                     found=f"shapes {time.shape} and {event.shape}"))
        bad = np.flatnonzero(~(np.isfinite(time) & (time > 0)))
        if bad.size:
            raise TableError(Problem("E-TIME", "follow-up time must be a positive number of months",
                                     where=f"row {bad[0]}", found=f"{time[bad[0]]:g}", expected="> 0"))
        if event.dtype != np.bool_:
            plain = event.dtype.kind in "iuf"
            wrong = np.flatnonzero(~np.isin(event, (0, 1)) if plain else [_not_a_status(value) for value in event])
            if wrong.size:
                raise TableError(Problem("E-EVENT", "event status must be 0 or 1", where=f"row {wrong[0]}",
                                         found=str(event[wrong[0]])[:40], expected="0 (censored) or 1 (event)"))
            event = event.astype(np.bool_)
        time.flags.writeable = False
        event = event.copy()
        event.flags.writeable = False
        object.__setattr__(self, "time_months", time)
        object.__setattr__(self, "event", event)

    def _labels(self) -> Any:
        """The common index of time and event, where both have one of labels."""
        given: tuple[Any, Any] = (self.time_months, self.event)
        both = [each.index for each in given if hasattr(each, "iloc") and type(each.index).__name__ != "RangeIndex"]
        if len(both) == 2 and not both[0].equals(both[1]):
            raise TableError(Problem("E-INDEX", "time and event belong to different patients or have another order",
                                     remedy="Take both from one table"))
        return both[0] if both else None

    def __len__(self) -> int:
        return int(self.time_months.size)

    @property
    def n_events(self) -> int:
        """How many events were seen."""
        return int(self.event.sum())

    @property
    def orderable(self) -> bool:
        """Whether any two patients can be ordered: an event with somebody followed for longer, or censored that day."""
        if not self.n_events:
            return False
        first = self.time_months[self.event].min()
        return bool(((self.time_months > first) | ((self.time_months == first) & ~self.event)).any())

    def take(self, rows: ArrayLike) -> Survival:
        """Follow-up of the given rows (indices or a mask), in that order."""
        where = np.asarray(rows)
        return Survival(self.time_months[where], self.event[where],
                        index=None if self.index is None else self.index[where])

    def status_at(self, month: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(event by `month`, status known at `month`): unknown for those censored before it."""
        by_then = self.event & (self.time_months <= month)
        return by_then, by_then | (self.time_months >= month)


def numbers(values: Any, what: str) -> NDArray[np.float64]:
    """Values as float64, of their own shape; a missing one (None, pandas NA) becomes nan.

    Args:
        values: numbers, an array or a pandas object of them.
        what: how to call them in an error.

    Raises:
        TableError: E-NUMBER for text, dates and durations, E-LENGTH for rows of different lengths.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TableError(Problem("E-LENGTH", f"{what}: the rows have different lengths")) from error
    if array.dtype.kind in "mM":
        raise TableError(Problem("E-NUMBER", f"{what} must be numbers", found="dates or durations",
                                 remedy="Convert them first: months = days / 30.4375"))
    if array.dtype.kind in "fiub":
        return array.astype(np.float64, copy=False)
    out = np.full(array.shape, np.nan)
    for at, value in np.ndenumerate(array):
        if is_missing(value):
            continue
        try:
            out[at] = _real(value)
        except (TypeError, ValueError) as error:
            raise TableError(Problem("E-NUMBER", f"{what} must be numbers", found=repr(value)[:40],
                                     where=f"row {at[0]}" if at else "")) from error
    return out


def _not_a_status(value: Any) -> bool:
    return is_missing(value) or value not in (0, 1)


def _real(value: Any) -> float:
    if isinstance(value, str | bytes | complex) or hasattr(value, "total_seconds") or hasattr(value, "year"):
        raise ValueError(value)
    return float(value)


def is_missing(value: Any) -> bool:
    """Whether a value is None, nan, NaT or pandas' NA.

    >>> [is_missing(value) for value in (None, float("nan"), 0, "", "NA")]
    [True, True, False, False, False]
    """
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # NA has no truth value
        return True
