"""What every function of this folder asks of its arguments: one check each, one typed error each."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.survival import Survival, is_missing, numbers

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Labels = tuple[str | int | float | bool, ...]


def one_of(value: Any, allowed: tuple[str, ...], what: str) -> None:
    """Raise FitError E-OPTION, with the nearest allowed word, unless `value` is one of them.

    Args:
        value: what the caller gave; anything but one of the words is refused.
        allowed: the words, in the spelling that is expected.
        what: what the words choose, for the message: "method".

    Raises:
        FitError: E-OPTION.
    """
    if isinstance(value, str) and value in allowed:
        return
    near = get_close_matches(str(value).lower(), [word.lower() for word in allowed], 1)
    meant = [word for word in allowed if near and word.lower() == near[0]]
    raise FitError(Problem("E-OPTION", f"there is no such {what}", found=repr(value)[:60],
                           expected=" or ".join(allowed), remedy=f"Did you mean {meant[0]!r}?" if meant else ""))


def coverage(level: Any) -> float:
    """The coverage of an interval as a share in (0, 1).

    Raises:
        FitError: E-OPTION for anything else, such as 95.
    """
    share = _number(level, "level")
    if not 0.0 < share < 1.0:
        raise FitError(Problem("E-OPTION", "the coverage of an interval is a share", found=f"level {share:g}",
                               expected="0 < level < 1",
                               remedy=f"Give {share / 100:g}" if 1.0 < share < 100.0 else "Give 0.95"))
    return share


def month_of(month: Any) -> float:
    """One horizon in months, finite and > 0.

    Raises:
        FitError: E-HORIZON.
    """
    found = months_of(month)
    if np.ndim(month) != 0 or not found[0] > 0:
        raise FitError(Problem("E-HORIZON", "one horizon is needed, in months", found=repr(month)[:60],
                               expected="a number > 0", remedy="Call the function once for each month"))
    return float(found[0])


def months_of(months: ArrayLike) -> Vector:
    """(k,) horizons in months, finite and >= 0; a single one is a vector of one.

    Raises:
        FitError: E-HORIZON.
    """
    try:
        found = np.atleast_1d(numbers(months, "a month"))
    except TableError as error:
        raise FitError(Problem("E-HORIZON", "a horizon must be a number of months",
                               found=error.problems[0].found or repr(months)[:60], expected=">= 0")) from error
    bad = ~(np.isfinite(found) & (found >= 0))
    if found.ndim != 1 or bad.any():
        raise FitError(Problem("E-HORIZON", "a horizon must be a number of months",
                               found=f"{found[bad][0]:g}" if bad.any() else f"shape {found.shape}", expected=">= 0"))
    return found


def whole(value: Any, what: str, low: int, high: float = np.inf, *, code: str = "E-OPTION") -> int:
    """A whole number from `low` to `high`.

    Args:
        value: a number, or what can be read as one.
        what: its name in the message.
        low: smallest value allowed.
        high: largest value allowed; infinite by default.
        code: code of the error.

    Raises:
        FitError: `code` when the value is no number, not whole, or out of range.
    """
    number = _number(value, what, code)
    if number != np.floor(number) or not low <= number <= high:
        upper = "" if high == np.inf else f" and <= {high:g}"
        raise FitError(Problem(code, f"{what} must be a whole number", found=f"{number:g}",
                               expected=f">= {low}{upper}"))
    return int(number)


def within(value: Any, what: str, low: float, high: float, *, code: str = "E-OPTION") -> float:
    """A number from `low` to `high`, both included.

    Args:
        value: a number, or what can be read as one.
        what: its name in the message.
        low: smallest value allowed.
        high: largest value allowed.
        code: code of the error.

    Raises:
        FitError: `code` when the value is no number or out of range.
    """
    number = _number(value, what, code)
    if not low <= number <= high:
        raise FitError(Problem(code, f"{what} is out of range", found=f"{number:g}",
                               expected=f"{low:g} to {high:g}"))
    return number


def _number(value: Any, what: str, code: str = "E-OPTION") -> float:
    if isinstance(value, bool | str) or value is None or np.ndim(value) != 0:
        _no_number(value, what, code)
    try:
        number = float(value)
    except (TypeError, ValueError):
        _no_number(value, what, code)
    if not np.isfinite(number):
        _no_number(value, what, code)
    return number


def _no_number(value: Any, what: str, code: str) -> NoReturn:
    raise FitError(Problem(code, f"{what} must be a number", found=repr(value)[:60]))


def follow_up(surv: Any) -> Survival:
    """The follow-up, if it is one.

    Raises:
        TableError: E-ORDER for anything else, which is what R's order of arguments gives.
    """
    if not isinstance(surv, Survival):
        raise TableError(Problem("E-ORDER", "follow-up must be a Survival and stands second, after risk, groups or "
                                 "table", found=type(surv).__name__, expected="(risk, surv)",
                                 remedy="Give Survival(time_months, event) as the second argument"))
    return surv


def aligned(values: Any, surv: Survival) -> Any:
    """Values with a pandas index, in the order of the patients of `surv`; other values as they are.

    Only labels can be compared: an index of row numbers, on either side, says nothing.

    Args:
        values: (n,) or (n, p) values, with or without a pandas index.
        surv: follow-up of the n patients; its own index, if any, sets the order.

    Raises:
        TableError: E-INDEX when the labels are not those of the follow-up.
    """
    index = label_index(values)
    if isinstance(values, Survival) or surv.index is None or index is None or index.equals(surv.index):
        return values
    if len(index) == len(surv) and index.is_unique and surv.index.is_unique and surv.index.isin(index).all():
        return values.loc[surv.index]
    raise TableError(Problem("E-INDEX", "the table and the follow-up belong to different patients",
                             found=f"{int((~surv.index.isin(index)).sum())} of {len(surv)} patients without a row",
                             remedy="Take both from one table, or drop the index"))


def label_index(values: Any) -> Any:
    """The index of a pandas object if it holds labels; None for row numbers and for anything else."""
    index = getattr(values, "index", None) if hasattr(values, "iloc") else None
    return None if index is None or type(index).__name__ == "RangeIndex" else index


def scores(values: ArrayLike, n: int, name: str = "risk") -> Vector:
    """One finite number per patient, (n,) float64.

    Args:
        values: (n,), one number per patient.
        n: number of patients.
        name: what the numbers are called in a message.

    Raises:
        TableError: E-ORDER for follow-up, E-NUMBER for text, E-LENGTH when there are not n of them, E-MISSING when one
            is missing or not finite.
    """
    if isinstance(values, Survival):
        raise TableError(Problem("E-ORDER", f"{name} stands first and the follow-up second", found="Survival first",
                                 expected=f"({name}, surv)"))
    array = numbers(values, name)
    if array.shape != (n,):
        raise TableError(Problem("E-LENGTH", f"{name} must hold one number per patient", found=f"shape {array.shape}",
                                 expected=f"({n},)"))
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise TableError(Problem("E-MISSING", f"{name} is missing or not finite", where=f"row {bad[0]}",
                                 found=f"{bad.size} such values", remedy="Leave these patients out or impute first"))
    return array


def risks(values: ArrayLike, surv: Survival, name: str = "risk") -> Vector:
    """One finite number for each patient of `surv`, (n,) float64, in the order of `surv`.

    Args:
        values: (n,) numbers; a pandas index is matched to that of `surv`.
        surv: follow-up of the n patients.
        name: what the numbers are called in a message.

    Raises:
        TableError: those of `scores`; E-INDEX.
    """
    if isinstance(values, Survival):
        return scores(values, 0, name)
    return scores(aligned(values, follow_up(surv)), len(surv), name)


def probabilities(values: ArrayLike, surv: Survival, name: str = "predicted_survival") -> Vector:
    """(n,) probabilities within [0, 1], in the order of `surv`.

    Args:
        values: (n,) probabilities; a pandas index is matched to that of `surv`.
        surv: follow-up of the n patients.
        name: what the numbers are called in a message.

    Raises:
        TableError: those of `risks`; E-PROBABILITY for a value outside [0, 1].
    """
    array = risks(values, surv, name)
    bad = np.flatnonzero((array < 0) | (array > 1))
    if bad.size:
        raise TableError(Problem("E-PROBABILITY", f"{name} must be a probability", where=f"row {bad[0]}",
                                 found=f"{array[bad[0]]:g}", expected="0 to 1",
                                 remedy="Give survival probabilities, not risks or percentages"))
    return array


def labels(values: ArrayLike, n: int | None = None, name: str = "status") -> NDArray[np.bool_]:
    """A 0/1 vector as booleans, (n,).

    Args:
        values: (n,) of 0 and 1, or of False and True.
        n: number of patients; None takes any number.
        name: what the vector is called in a message.

    Raises:
        TableError: E-LENGTH for a wrong shape, E-MISSING for a missing value, E-EVENT for anything but 0/1 or
            False/True.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (n is not None and array.size != n):
        raise TableError(Problem("E-LENGTH", f"{name} must hold one 0/1 per patient", found=f"shape {array.shape}"))
    if array.dtype == np.bool_:
        return array
    _none_missing(array, name)
    wrong = np.flatnonzero(~np.isin(array.astype(object), (0, 1)))
    if wrong.size:
        raise TableError(Problem("E-EVENT", f"{name} must be 0 or 1", where=f"row {wrong[0]}",
                                 found=str(array[wrong[0]])[:40]))
    return array.astype(np.bool_)


def groups_of(values: ArrayLike, n: int, what: str = "group") -> tuple[Labels, NDArray[np.int64]]:
    """The different labels of n patients in sorted order, and the place of each patient's label among them.

    Args:
        values: (n,) labels of one kind: texts, or numbers.
        n: number of patients.
        what: what the labels are called in a message.

    Returns:
        (levels, codes): the k different labels, sorted, and (n,) places 0 to k - 1 among them.

    Raises:
        TableError: E-ORDER for follow-up, E-LENGTH, E-MISSING for a missing label, E-LEVEL for labels of kinds that
            cannot be sorted together.
    """
    if isinstance(values, Survival):
        raise TableError(Problem("E-ORDER", f"{what} stands first and the follow-up second", found="Survival first",
                                 expected=f"({what}, surv)"))
    array = np.asarray(values)
    if array.shape != (n,):
        raise TableError(Problem("E-LENGTH", f"{what} must hold one label per patient", found=f"shape {array.shape}",
                                 expected=f"({n},)"))
    _none_missing(array, what)
    try:
        levels, member = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise TableError(Problem("E-LEVEL", f"{what} mixes kinds of labels that cannot be sorted",
                                 found=", ".join(sorted({type(value).__name__ for value in array})),
                                 remedy="Give all labels as text")) from error
    return tuple(levels.tolist()), member.astype(np.int64)


def _none_missing(array: NDArray, what: str) -> None:
    if array.dtype.kind in "biuSU":
        return
    missing = np.array([is_missing(value) for value in array], dtype=bool)
    if missing.any():
        raise TableError(Problem("E-MISSING", f"{what} is missing", where=f"row {missing.argmax()}",
                                 found=f"{missing.sum()} such values", remedy="Leave these patients out"))


def need_events(n_events: int, what: str) -> None:
    """Raise FitError E-NOEVENTS when nobody had the event.

    Args:
        n_events: number of events.
        what: what is to be estimated, for the message: "a Cox model".

    Raises:
        FitError: E-NOEVENTS when `n_events` is 0.
    """
    if n_events == 0:
        raise FitError(Problem("E-NOEVENTS", f"no event was seen, so {what} cannot be estimated", expected=">= 1 event",
                               remedy="Check the event column, or wait for longer follow-up"))
