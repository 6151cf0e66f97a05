"""One measure over several centres: random-effects pooling and how much the centres differ."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.inference import Test, chi_square_test

Vector = NDArray[np.float64]
Scale = Literal["identity", "log", "logit"]
_SCALES = ("identity", "log", "logit")
_TOLERANCE = 1e-12
_MAX_ITERATIONS = 500


@dataclass(frozen=True, eq=False)
class Pooled:
    """A measure pooled over k centres.

    Args:
        centers: how many centres entered.
        value: the pooled measure with its Hartung-Knapp interval, and p against `null` of `pool`.
        prediction: (low, high) where the measure of a new centre is expected; nan below three centres.
        tau2: variance between the centres, on the scale that was pooled.
        i2: share of the variance that is between the centres, 0 to 1.
        heterogeneity: Cochran's Q.
        problems: W-POOLFEW where the centres are too few for the spread between them.
    """

    centers: int
    value: Estimate
    prediction: tuple[float, float]
    tau2: float
    i2: float
    heterogeneity: Test
    problems: tuple[Problem, ...] = ()


def pool(
    values: ArrayLike, standard_errors: ArrayLike, *, scale: Scale = "identity", null: float = nan,
    level: float = 0.95,
) -> Pooled:
    """The random-effects mean of a measure over centres: REML, with the Hartung-Knapp interval.

    The measure is pooled on `scale` (O/E: log, C-index: logit, slope: identity), its standard errors are carried
    there by the delta method, and what is returned is on the measure's own scale.

    Args:
        values: (k,) the measure of each centre.
        standard_errors: (k,) of the values, on their own scale, > 0.
        scale: where the values are averaged.
        null: value under the null hypothesis, on the measure's own scale; nan gives no p value.
        level: coverage of both intervals.

    Raises:
        FitError: E-POOL when no centre has a finite value and a standard error above 0; E-OPTION for another scale.

    References:
        Viechtbauer, J Educ Behav Stat 2005 (REML); Hartung & Knapp, Stat Med 2001; Higgins et al., JRSS A 2009
        (prediction interval); Debray et al., BMJ 2017 (scales for C and O/E).

    >>> pooled = pool([0.78, 0.70, 0.74], [0.03, 0.04, 0.03], scale="logit")
    >>> print(f"{pooled.value.value:.3f}", pooled.centers)
    0.743 3
    """
    y, v = _carried(np.asarray(values, dtype=np.float64), np.asarray(standard_errors, dtype=np.float64), scale)
    k = y.size
    tau2 = _reml(y, v) if k > 1 else 0.0
    weight = 1.0 / (v + tau2)
    mean = float((weight * y).sum() / weight.sum())
    se, df = _hartung_knapp(y, weight, mean)
    half = float(stdtrit(df, 0.5 + level / 2.0)) * se if k > 1 else _normal_half(float(v[0]), level)
    null_there = float(_forward(np.array([null]), scale)[0])
    p = float(2.0 * stdtr(df, -abs((mean - null_there) / se))) if k > 1 and se > 0 else nan
    value = Estimate(_back(mean, scale), _back(mean - half, scale), _back(mean + half, scale), p)
    wide = float(stdtrit(k - 1, 0.5 + level / 2.0)) * float(np.sqrt(tau2 + se**2)) if k > 2 else nan
    return Pooled(k, value, (float(_back(mean - wide, scale)), float(_back(mean + wide, scale))), tau2,
                  _i2(v, tau2), _cochran(y, v), _few(k))


def _carried(values: Vector, errors: Vector, scale: str) -> tuple[Vector, Vector]:
    """(values, variances) of the usable centres on the pooling scale."""
    if scale not in _SCALES:
        raise FitError(Problem("E-OPTION", "unknown scale", found=repr(scale), expected=" or ".join(_SCALES)))
    inside = {"identity": np.isfinite(values), "log": values > 0, "logit": (values > 0) & (values < 1)}[scale]
    with np.errstate(invalid="ignore"):
        use = inside & np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    if not use.any():
        raise FitError(Problem("E-POOL", "no centre has a value with a standard error", expected="at least one"))
    y, se = values[use], errors[use]
    return _forward(y, scale), (se * _slope(y, scale)) ** 2


def _slope(values: Vector, scale: str) -> Vector:
    """Derivative of the scale at values that lie inside it."""
    if scale == "log":
        return np.asarray(1.0 / values)
    return np.asarray(1.0 / (values * (1.0 - values))) if scale == "logit" else np.ones(values.size)


def _forward(values: Vector, scale: str) -> Vector:
    if scale == "log":
        return np.asarray(np.log(values))
    return np.asarray(np.log(values / (1.0 - values))) if scale == "logit" else values


def _back(value: float, scale: str) -> float:
    with np.errstate(over="ignore"):  # with two centres an interval can reach the end of the scale
        if scale == "log":
            return float(np.exp(value))
        return float(1.0 / (1.0 + np.exp(-value))) if scale == "logit" else value


def _reml(y: Vector, v: Vector) -> float:
    """Between-centre variance by Fisher scoring of the restricted likelihood (Viechtbauer 2005, eq. 20)."""
    tau2 = max(0.0, float(y.var(ddof=1) - v.mean()))
    for _ in range(_MAX_ITERATIONS):
        weight = 1.0 / (v + tau2)
        total = weight.sum()
        mean = (weight * y).sum() / total
        squares, cubes = (weight**2).sum(), (weight**3).sum()
        score = (weight**2 * (y - mean) ** 2).sum() - total + squares / total
        information = squares - 2.0 * cubes / total + (squares / total) ** 2
        step = float(score / information)
        new = max(0.0, tau2 + step)
        if abs(new - tau2) <= _TOLERANCE * (1.0 + tau2):
            return new
        tau2 = new
    return tau2


def _hartung_knapp(y: Vector, weight: Vector, mean: float) -> tuple[float, int]:
    """(standard error, degrees of freedom) of the pooled mean."""
    if y.size < 2:
        return float(1.0 / np.sqrt(weight.sum())), 0
    spread = float((weight * (y - mean) ** 2).sum()) / (y.size - 1)
    return float(np.sqrt(spread / weight.sum())), y.size - 1


def _normal_half(variance: float, level: float) -> float:
    """Half-width of one centre's own interval."""
    return float(stdtrit(np.inf, 0.5 + level / 2.0) * np.sqrt(variance))


def _cochran(y: Vector, v: Vector) -> Test:
    """Cochran's Q with inverse-variance weights."""
    weight = 1.0 / v
    mean = (weight * y).sum() / weight.sum()
    return chi_square_test(float((weight * (y - mean) ** 2).sum()), y.size - 1)


def _i2(v: Vector, tau2: float) -> float:
    """tau2 over tau2 plus the typical variance within a centre (Higgins & Thompson 2002); 0 for one centre."""
    weight = 1.0 / v
    if v.size < 2:
        return 0.0
    typical = (v.size - 1) * weight.sum() / (weight.sum() ** 2 - (weight**2).sum())
    return float(tau2 / (tau2 + typical))


def _few(centers: int) -> tuple[Problem, ...]:
    """W-POOLFEW below five centres."""
    if centers >= 5:
        return ()
    return (Problem("W-POOLFEW", "the spread between so few centres is hardly known",
                    found=f"{centers} centre{'s' if centers > 1 else ''}", expected="at least 5",
                    remedy="Read the centres one by one"),)
