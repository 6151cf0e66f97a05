"""How columns of a table become a design matrix: the terms of a regression model, in the words of the textbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem

Columns = Mapping[str, ArrayLike]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Continuous:
    """One column as it is; its coefficient is the log hazard ratio of one unit."""

    name: str


@dataclass(frozen=True)
class Factor:
    """Indicator columns `name=level` of every level but the reference.

    Args:
        name: the column.
        levels: every level there is, in the order of the table; values are compared as text.
        reference: the level the others are compared with.

    Raises:
        FitError: E-LEVEL when there are fewer than two levels, two are the same, or the reference is not one of them.
    """

    name: str
    levels: tuple[str, ...]
    reference: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(_text(level) for level in self.levels))
        object.__setattr__(self, "reference", _text(self.reference))
        if len(set(self.levels)) != len(self.levels) or len(self.levels) < 2 or self.reference not in self.levels:
            raise FitError(Problem("E-LEVEL", "a factor needs two or more different levels, one of them the reference",
                                   where=f"column {self.name}",
                                   found=f"levels {', '.join(self.levels)}; reference {self.reference}"))

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The levels that get a column, in order."""
        return tuple(level for level in self.levels if level != self.reference)


@dataclass(frozen=True)
class Spline:
    """A restricted cubic spline: linear beyond the outer knots, k - 1 columns `name`, `name'`, `name''`, ...

    Harrell, Regression Modeling Strategies (2015), equation 2.25, scaled by the squared knot range (`norm = 2` of
    Hmisc::rcspline.eval). `harrell_knots` gives the usual places.

    Args:
        name: the column.
        knots: three or more rising positions, in the units of the column.

    Raises:
        FitError: E-KNOTS when there are fewer than three knots or they do not rise.
    """

    name: str
    knots: tuple[float, ...]

    def __post_init__(self) -> None:
        knots = tuple(float(knot) for knot in self.knots)
        object.__setattr__(self, "knots", knots)
        if len(knots) < 3 or not (np.isfinite(knots).all() and (np.diff(knots) > 0).all()):
            raise FitError(Problem("E-KNOTS", "a restricted cubic spline needs three or more rising knots",
                                   where=f"column {self.name}", found=", ".join(f"{knot:g}" for knot in knots)))


@dataclass(frozen=True)
class Interaction:
    """The products of the columns of two terms, `a * b`; the two terms themselves are listed beside it."""

    a: Continuous | Factor | Spline
    b: Continuous | Factor | Spline


Term = Continuous | Factor | Spline | Interaction
_KINDS: dict[str, type] = {"continuous": Continuous, "factor": Factor, "spline": Spline, "interaction": Interaction}
_HARRELL_QUANTILES = {
    3: (0.1, 0.5, 0.9),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.5, 0.725, 0.95),
    6: (0.05, 0.23, 0.41, 0.59, 0.77, 0.95),
    7: (0.025, 0.1833, 0.3417, 0.5, 0.6583, 0.8167, 0.975),
}


@dataclass(frozen=True)
class Design:
    """The columns of a model, term by term.

    Args:
        terms: the terms, in the order of the printed table.

    Raises:
        FitError: E-TERMS when there is no term or two terms make a column of the same name.

    >>> design = Design((Factor("tnm_stage", ("III", "IVa"), "III"), Continuous("score")))
    >>> design.columns, design.slices["score"]
    (('tnm_stage=IVa', 'score'), slice(1, 2, None))
    >>> design.matrix({"tnm_stage": ["IVa", "III"], "score": [0.5, 2.0]})
    array([[1. , 0.5],
           [0. , 2. ]])
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms or len(set(self.columns)) != len(self.columns):
            raise FitError(Problem("E-TERMS", "a model needs one or more terms with different columns",
                                   found=", ".join(self.columns) or "no term"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the matrix, such as `tnm_stage=IVa`."""
        return tuple(name for term in self.terms for name in _column_names(term))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the table columns that are read, each once, in order of first use."""
        return tuple(dict.fromkeys(name for term in self.terms for name in _variables(term)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each term: its variable, or `a * b`."""
        return tuple(_label(term) for term in self.terms)

    @property
    def slices(self) -> dict[str, slice]:
        """Where the columns of each term lie in the matrix, by label."""
        stops = np.cumsum([len(_column_names(term)) for term in self.terms]).tolist()
        starts = [0, *stops[:-1]]
        return {label: slice(a, b) for label, a, b in zip(self.labels, starts, stops, strict=True)}

    def matrix(self, columns: Columns) -> Matrix:
        """The design matrix (n, p) of a table given as a mapping from column name to n values.

        Raises:
            FitError: E-COLUMN (a column is not there), E-LENGTH (columns of different lengths), E-MISSING (a value is
                missing), E-NUMBER (a value is not a number), E-LEVEL (a level the model has never seen); all the
                columns at fault at once.
        """
        read, problems = _read(self.terms, columns)
        if problems:
            raise FitError(problems)
        return np.hstack([_block(term, read) for term in self.terms])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"terms": [_term_dict(term) for term in self.terms]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """The design that `as_dict` wrote."""
        return cls(tuple(_term(term) for term in values["terms"]))


def harrell_knots(values: ArrayLike, n_knots: int) -> tuple[float, ...]:
    """Knot positions at Harrell's default quantiles, the outer ones moved inwards to the fifth smallest and largest
    value in samples under 100.

    Args:
        values: (n,) the training values.
        n_knots: 3 to 7.

    Raises:
        FitError: E-KNOTS when the values have too few different quantiles, or for a number outside 3 to 7.

    >>> harrell_knots(range(101), 3)
    (10.0, 50.0, 90.0)
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if n_knots not in _HARRELL_QUANTILES or not np.isfinite(x).all() or x.size < n_knots:
        raise FitError(Problem("E-KNOTS", "knots need 3 to 7 positions and at least as many known values",
                               found=f"{n_knots} knots for {x.size} values"))
    knots = np.quantile(x, _HARRELL_QUANTILES[n_knots])
    if 10 <= x.size < 100:
        knots[0], knots[-1] = x[4], x[-5]
    if (np.diff(knots) <= 0).any():
        raise FitError(Problem("E-KNOTS", f"too few different values for {n_knots} knots",
                               remedy="Use fewer knots or a linear term"))
    return tuple(knots.tolist())


def spline_basis(values: ArrayLike, knots: Sequence[float]) -> Matrix:
    """The restricted cubic spline columns (n, k - 1) of n values; the first is the value itself.

    Args:
        values: (n,) numbers.
        knots: (k,) ascending, k >= 3.

    References:
        Harrell, Regression Modeling Strategies (2015), section 2.4.5; columns after the first are divided by (last -
        first knot)^2.

    >>> spline_basis([0.0, 1.0, 2.0, 3.0], (0.0, 1.0, 2.0)).round(4).tolist()
    [[0.0, 0.0], [1.0, 0.25], [2.0, 1.5], [3.0, 3.0]]
    """
    x, t = np.asarray(values, dtype=np.float64), np.asarray(knots, dtype=np.float64)
    beyond = np.maximum(x[:, None] - t, 0.0)
    cubes = beyond * beyond * beyond / (t[-1] - t[0]) ** 2  # a power takes ten times as long
    gap = t[-1] - t[-2]
    tail = cubes[:, [-2]] * (t[-1] - t[:-2]) / gap - cubes[:, [-1]] * (t[-2] - t[:-2]) / gap
    return np.column_stack([x, cubes[:, :-2] - tail])


def _text(value: object) -> str:
    """A level as text: 1, 1.0 and "1" are the same level."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _label(term: Term) -> str:
    return f"{term.a.name} * {term.b.name}" if isinstance(term, Interaction) else term.name


def _variables(term: Term) -> tuple[str, ...]:
    return (term.a.name, term.b.name) if isinstance(term, Interaction) else (term.name,)


def _column_names(term: Term) -> tuple[str, ...]:
    if isinstance(term, Interaction):
        return tuple(f"{a} * {b}" for a in _column_names(term.a) for b in _column_names(term.b))
    if isinstance(term, Factor):
        return tuple(f"{term.name}={level}" for level in term.contrasts)
    if isinstance(term, Spline):
        return tuple(term.name + "'" * order for order in range(len(term.knots) - 1))
    return (term.name,)


def _read(terms: Sequence[Term], columns: Columns) -> tuple[dict[str, Any], list[Problem]]:
    """Each variable as text or as numbers, and everything that is wrong with them."""
    mains: dict[str, Continuous | Factor | Spline] = {}
    for term in terms:
        for part in (term.a, term.b) if isinstance(term, Interaction) else (term,):
            mains[part.name] = part
    read: dict[str, Any] = {}
    problems = []
    for name, part in mains.items():
        values, problem = _values(part, columns[name]) if name in columns else (None, _absent(name))
        if problem is not None:
            problems.append(problem)
        read[name] = values
    lengths = {name: len(values) for name, values in read.items() if values is not None}
    if len(set(lengths.values())) > 1:
        problems.append(Problem("E-LENGTH", "columns have different lengths",
                                found=", ".join(f"{name} {n}" for name, n in lengths.items())))
    return read, problems


def _absent(name: str) -> Problem:
    return Problem("E-COLUMN", "the model needs a column that is not in the table", where=f"column {name}")


def _values(part: Continuous | Factor | Spline, values: ArrayLike) -> tuple[Any, Problem | None]:
    """The values of one variable and the first thing wrong with them."""
    raw = np.atleast_1d(np.asarray(values, dtype=object)).ravel()
    missing = np.array([value is None or value != value or value == "" for value in raw], dtype=bool)
    if missing.any():
        return None, Problem("E-MISSING", "a value is missing", where=f"column {part.name}, row {missing.argmax()}",
                             found=f"{missing.sum()} of {raw.size} missing",
                             remedy="Fill it in, or impute with values learned from the training cohort only")
    if isinstance(part, Factor):
        return _levels(part, raw)
    try:
        numbers = raw.astype(np.float64)
    except (TypeError, ValueError):
        return None, _not_a_number(part.name, raw)
    return (numbers, None) if np.isfinite(numbers).all() else (None, _not_a_number(part.name, raw))


def _levels(factor: Factor, raw: NDArray) -> tuple[NDArray, Problem | None]:
    text = np.array([_text(value) for value in raw], dtype=object)
    unseen = ~np.isin(text.astype(str), factor.levels)
    if not unseen.any():
        return text, None
    row = int(unseen.argmax())
    return text, Problem("E-LEVEL", "a level the model has never seen", where=f"column {factor.name}, row {row}",
                         found=str(text[row]), expected=" or ".join(factor.levels))


def _not_a_number(name: str, raw: NDArray) -> Problem:
    """The problem with the first value that is not a finite number."""
    for row, value in enumerate(raw):
        try:
            good = bool(np.isfinite(float(value)))
        except (TypeError, ValueError):
            good = False
        if not good:
            return Problem("E-NUMBER", "a value is not a finite number", where=f"column {name}, row {row}",
                           found=str(value)[:40])
    raise AssertionError(name)


def _block(term: Term, read: Mapping[str, Any]) -> Matrix:
    """The columns of one term."""
    if isinstance(term, Interaction):
        a, b = _block(term.a, read), _block(term.b, read)
        return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
    if isinstance(term, Factor):
        return np.column_stack([read[term.name] == level for level in term.contrasts]).astype(np.float64)
    if isinstance(term, Spline):
        return spline_basis(read[term.name], term.knots)
    column: Matrix = read[term.name][:, None]
    return column


def _term_dict(term: Term) -> dict[str, Any]:
    kind = type(term).__name__.lower()
    if isinstance(term, Interaction):
        return {"kind": kind, "a": _term_dict(term.a), "b": _term_dict(term.b)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(term).items()}
    return {"kind": kind, **plain}


def _term(values: Mapping[str, Any]) -> Term:
    """The term that `_term_dict` wrote."""
    fields = {key: value for key, value in values.items() if key != "kind"}
    if values["kind"] == "interaction":
        fields = {key: _term(value) for key, value in fields.items()}
    term: Term = _KINDS[values["kind"]](**fields)
    return term
