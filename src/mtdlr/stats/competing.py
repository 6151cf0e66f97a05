"""Competing risks: the probability of one cause of failure when other causes can come first."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import aligned, groups_of, months_of, need_events, whole
from mtdlr.stats.inference import chi_square_test, normal_quantile
from mtdlr.survival import Survival, numbers

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CumulativeIncidence:
    """Aalen-Johansen estimate of having failed from one cause.

    Args:
        time: (m,), distinct follow-up times in months, ascending.
        incidence: (m,), probability of a failure from the cause by each time, rising.
        low, high: (m,), log-log interval; nan while the incidence is 0.
        se: (m,), standard error.
        at_risk: (m,), patients under observation just before each time.
        events: (m,), failures from the cause at each time.
        competing: (m,), failures from other causes.
        cause: the code of the cause.
    """

    time: Vector
    incidence: Vector
    low: Vector
    high: Vector
    se: Vector
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    competing: NDArray[np.int64]
    cause: int

    def at(self, months: ArrayLike) -> tuple[Estimate, ...]:
        """The incidence with its interval at each month; nan after the last follow-up."""
        return tuple(self._at(month) for month in months_of(months))

    def _at(self, month: float) -> Estimate:
        # After the last time nobody is left unless everyone has failed, and then the curve stays where it is.
        last_left = self.at_risk[-1] - self.events[-1] - self.competing[-1]
        if month > self.time[-1] and last_left > 0:
            return Estimate(nan)
        last = int(np.searchsorted(self.time, month, side="right")) - 1
        if last < 0 or self.incidence[last] == 0:
            return Estimate(0.0)
        return Estimate(float(self.incidence[last]), float(self.low[last]), float(self.high[last]))


@dataclass(frozen=True, eq=False)
class GrayTest:
    """Gray's test that k groups have one cumulative incidence of a cause.

    Args:
        statistic: chi-square.
        df: k - 1.
        p: upper tail.
        score: (k,), observed less expected failures from the cause.
        variance: (k, k), covariance of the scores.
        levels: (k,), the groups in sorted order.
    """

    statistic: float
    df: int
    p: float
    score: Vector
    variance: Matrix
    levels: tuple[str | int | float | bool, ...]


def cumulative_incidence(
    time_months: ArrayLike, cause: ArrayLike, *, of: int = 1, level: float = 0.95
) -> CumulativeIncidence:
    """The Aalen-Johansen cumulative incidence of one cause.

    One minus the Kaplan-Meier curve of that cause, with the other causes censored, is larger than this and is the
    probability of nothing that happens to patients.

    Args:
        time_months: (n,), months to the first failure or the last contact, > 0.
        cause: (n,), 0 for censored, 1, 2, ... for the cause of failure.
        of: the cause wanted.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-TIME, E-CAUSE for codes that are not whole numbers >= 0.

    References:
        Aalen & Johansen 1978; Marubini & Valsecchi 1995, p. 341 (variance); survfit and cmprsk::cuminc in R.

    >>> cumulative_incidence([1.0, 2.0, 3.0, 4.0], [1, 2, 1, 0]).incidence.tolist()
    [0.25, 0.25, 0.5, 0.5]
    """
    codes = _codes(cause)
    surv, of = Survival(numbers(time_months, "time_months"), codes > 0), whole(of, "the cause wanted", 1)
    if not len(surv):
        raise FitError(Problem("E-EMPTYGROUP", "a cumulative incidence needs at least one patient"))
    time, which = np.unique(surv.time_months, return_inverse=True)
    leaving = np.bincount(which, minlength=time.size)
    at_risk = leaving[::-1].cumsum()[::-1]
    failures = np.bincount(which[codes > 0], minlength=time.size)
    events = np.bincount(which[codes == of], minlength=time.size)
    before = np.concatenate(([1.0], np.cumprod(1.0 - failures / at_risk)[:-1]))
    incidence = np.cumsum(before * events / at_risk)
    se = np.sqrt(np.maximum(_variance(incidence, before, at_risk, events, failures), 0.0))
    low, high = _limits(incidence, se, normal_quantile(level))
    return CumulativeIncidence(time, incidence, low, high, se, at_risk, events, failures - events, of)


def gray_test(group: ArrayLike, time_months: ArrayLike, cause: ArrayLike, *, of: int = 1) -> GrayTest:
    """Gray's test of the cumulative incidence of one cause over k groups.

    Args:
        group: (n,), labels of at least two groups.
        time_months: (n,), months to the first failure or the last contact, > 0.
        cause: (n,), 0 for censored, 1, 2, ... for the cause of failure.
        of: the cause tested.

    Raises:
        TableError: E-LENGTH, E-TIME, E-CAUSE.
        FitError: E-ONEGROUP, E-NOEVENTS.

    References:
        Gray, Ann Stat 1988, eq. 2.2-2.6 with rho = 0; cmprsk::cuminc in R.
    """
    codes = _codes(cause)
    surv, of = Survival(numbers(time_months, "time_months"), codes > 0), whole(of, "the cause tested", 1)
    levels, member = groups_of(aligned(group, surv), len(surv))
    k = len(levels)
    if k < 2:
        raise FitError(Problem("E-ONEGROUP", "a comparison needs at least two groups", found=f"{k} group"))
    need_events(int((codes == of).sum()), "Gray's test")
    tables = _tables(member, surv, codes, of, k)
    score, variance = _gray(*tables)
    part = variance[1:, 1:]
    singular = np.linalg.matrix_rank(part) < part.shape[0]
    statistic = nan if singular else float(score[1:] @ np.linalg.solve(part, score[1:]))
    test = chi_square_test(statistic, k - 1)
    return GrayTest(test.statistic, k - 1, test.p, score, variance, levels)


def _codes(cause: ArrayLike) -> NDArray[np.int64]:
    """Cause codes as whole numbers."""
    array = np.asarray(cause)
    if array.ndim != 1 or not np.isin(array, np.arange(100)).all():
        raise TableError(Problem("E-CAUSE", "the cause of failure must be 0 (censored), 1, 2, ...",
                                 expected="whole numbers from 0 to 99"))
    return array.astype(np.int64)


def _variance(
    incidence: Vector, before: Vector, at_risk: Counts, events: Counts, failures: Counts
) -> Vector:
    """Delta-method variance at every time; Greenwood's when there is no other cause.

    sum_j (F(t) - F_j)^2 d_j / (n_j (n_j - d_j)) + S_j-^2 d1_j (n_j - d1_j) / n_j^3 - 2 (F(t) - F_j) S_j- d1_j / n_j^2,
    expanded in powers of F(t) so that one pass of sums is enough.
    """
    n, staying = at_risk.astype(np.float64), (at_risk - failures).astype(np.float64)
    whole = np.divide(failures, n * staying, out=np.zeros(n.size), where=staying > 0)
    own = before**2 * events * (n - events) / n**3
    mixed = before * events / n**2
    quadratic = np.cumsum(whole)
    linear = np.cumsum(whole * incidence + mixed)
    constant = np.cumsum(whole * incidence**2 + own + 2.0 * incidence * mixed)
    return np.asarray(incidence**2 * quadratic - 2.0 * incidence * linear + constant, dtype=np.float64)


def _limits(incidence: Vector, se: Vector, z: float) -> tuple[Vector, Vector]:
    """Interval symmetric on the log(-log) scale of the incidence."""
    inner = (incidence > 0) & (incidence < 1) & (se > 0)
    low, high = np.full((2, incidence.size), nan)
    f = incidence[inner]
    shift = np.exp(z * se[inner] / (f * np.log(f)))  # below 1
    low[inner], high[inner] = f ** (1.0 / shift), f**shift
    return low, high


def _tables(
    member: NDArray[np.int64], surv: Survival, codes: NDArray[np.int64], of: int, k: int
) -> tuple[Matrix, Matrix, Matrix]:
    """(m, k) at risk, failures from the cause and from others, at the times where anybody failed."""
    time, which = np.unique(surv.time_months, return_inverse=True)
    cell = which * k + member
    leaving, own, other = (np.bincount(cell[rows], minlength=time.size * k).reshape(-1, k).astype(np.float64)
                           for rows in (np.full(codes.size, True), codes == of, (codes > 0) & (codes != of)))
    at_risk = leaving[::-1].cumsum(axis=0)[::-1]
    used = (own + other).sum(axis=1) > 0
    return at_risk[used], own[used], other[used]


def _gray(at_risk: Matrix, own: Matrix, other: Matrix) -> tuple[Vector, Matrix]:
    """Scores of the groups and their covariance under one common incidence F of the cause.

    With h = Y / S(t-) in each group (Y at risk, S free of any failure), D_ij = h_i (1{i=j} - h_j / sum h) and
    C = integral of D dF / (1 - F-), the score of group i is, to first order, a sum over the groups j of
    integral (1/h_j) (D_ij + (C(end) - C) (1 - (1 - F) / S_j)) dM1_j - integral (1/h_j) (C(end) - C) (1 - F) / S_j dM2_j
    with M1, M2 the martingales of the cause and of the others; their variances are dF / h_j and d2_j / h_j^2, shrunk
    for ties as in the hypergeometric distribution.
    """
    free: Matrix = np.asarray(np.cumprod(1.0 - _divided(own + other, at_risk), axis=0), dtype=np.float64)
    free_before = _before(free, 1.0)
    incidence = np.cumsum(free_before * _divided(own, at_risk), axis=0)
    h = _divided(at_risk, free_before)
    subdistribution = h * (1.0 - _before(incidence, 0.0))
    events, total = own.sum(axis=1), h.sum(axis=1)
    expected = events[:, None] * subdistribution / subdistribution.sum(axis=1, keepdims=True)

    common = np.cumsum(events / total)
    hazard = events / (total * (1.0 - np.concatenate(([0.0], common[:-1]))))
    d = h[:, :, None] * (np.eye(h.shape[1]) - (h / total[:, None])[:, None, :])
    c = np.cumsum(d * hazard[:, None, None], axis=0)
    ratio = _divided((1.0 - common)[:, None], free)[:, None, :]
    first, second = d + (c[-1] - c) * (1.0 - ratio), (c[-1] - c) * ratio
    own_weight = (events / total)[:, None] * _tied(events[:, None], total[:, None] * free_before)
    other_weight = _divided(other, h) * _tied(other, at_risk) * (free > 0)
    variance = sum(np.einsum("tij,tkj,tj->ik", part, part, _divided(weight, h))
                   for part, weight in ((first, own_weight), (second, other_weight)))
    return (own - expected).sum(axis=0), np.asarray(variance)


def _divided(part: Matrix, whole: Matrix) -> Matrix:
    """part / whole, 0 where whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _before(curve: Matrix, start: float) -> Matrix:
    """Values just before each time."""
    return np.vstack([np.full((1, curve.shape[1]), start), curve[:-1]])


def _tied(events: Matrix, at_risk: Matrix) -> Matrix:
    """Shrinkage of the variance of several events at one time among those at risk; 1 for a single event."""
    return np.where(events > 1, 1.0 - (events - 1) / np.maximum(at_risk - 1.0, 1.0), 1.0)
