"""Concordance of a risk with follow-up: Harrell's and Uno's C, their standard errors, and paired comparisons.

A pair of patients can be ordered when the earlier of the two times is an event; a patient censored at the very time of
an event is taken to outlive it. The pair is concordant when the one who failed first had the higher risk, and counts
one half when the risks are equal. Pairs are counted by one merge sort over the patients in order of time, O(n log n),
which also gives every patient's own share; the shares give the infinitesimal-jackknife variance of
`survival::concordance` (Therneau & Watson 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import FitError, Problem
from mtdlr.estimate import Estimate
from mtdlr.stats.checks import coverage, month_of, need_events, one_of, risks, whole
from mtdlr.stats.concordance_pairs import count_pairs, sign_product
from mtdlr.stats.inference import Comparison, all_tied, few_events, few_events_estimate, normal_estimate, perfect
from mtdlr.stats.ipcw import censoring
from mtdlr.survival import Survival

Vector = NDArray[np.float64]
_WEIGHTINGS = ("harrell", "uno")
_METHODS = ("compareC", "jackknife", "bootstrap")


@dataclass(frozen=True)
class Concordance:
    """How well a risk orders the patients.

    Args:
        c: concordance probability with a normal interval within [0, 1] and p against 0.5.
        se: infinitesimal-jackknife standard error (time weights held fixed, as in R).
        concordant, discordant, tied_risk: pair counts that enter c; under "uno" each pair weighs 1 / G(t-)^2.
        tied_time: pairs of events at one time with different risks; left out.
        tied_both: pairs of events at one time with equal risks; left out.
        weighting: "harrell" or "uno".
        warnings: W-ALLTIED when every risk is the same, W-FEWEVENTS below 20 events.
    """

    c: Estimate
    se: float
    concordant: float
    discordant: float
    tied_risk: float
    tied_time: int
    tied_both: int
    weighting: str
    warnings: tuple[Problem, ...] = ()


def concordance(
    risk: ArrayLike,
    surv: Survival,
    *,
    weighting: Literal["harrell", "uno"] = "harrell",
    tau: float | None = None,
    level: float = 0.95,
) -> Concordance:
    """Harrell's or Uno's C of a risk, with its interval.

    Args:
        risk: (n,), higher is worse.
        surv: follow-up of the same n patients.
        weighting: "harrell" counts every pair once; "uno" weighs a pair by 1 / G(t-)^2, the squared probability of
            being uncensored at the event (Uno et al. 2011; timewt "n/G2" in R's survival), so that the result does
            not depend on the censoring pattern.
        tau: events after this month are left out; give it with "uno" when few are followed for long.
        level: coverage of the interval.

    Raises:
        TableError: E-LENGTH, E-MISSING.
        FitError: E-NOEVENTS, E-NOPAIRS when no two patients can be ordered.

    References:
        Harrell et al. JAMA 1982; Uno et al. Stat Med 2011, eq. 2; Therneau & Watson, survival vignette "concordance".

    >>> result = concordance([3.0, 2.0, 1.0, 0.5], Survival([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 1]))
    >>> result.c.value, result.concordant
    (1.0, 5.0)
    """
    one_of(weighting, _WEIGHTINGS, "weighting")
    coverage(level)
    shares = _shares(risks(risk, surv), surv, weighting, None if tau is None else month_of(tau))
    warnings = (all_tied("C is 0.5 by definition"),) if shares.total == shares.tied else ()
    estimate = few_events_estimate(shares.c, shares.se, shares.events, level=level, null=0.5, bounds=(0.0, 1.0))
    return Concordance(
        estimate, shares.se, shares.concordant,
        shares.total - shares.concordant - shares.tied, shares.tied, shares.tied_time, shares.tied_both, weighting,
        (*warnings, *few_events(shares.events, "C")),
    )


def compare_concordance(
    risk_a: ArrayLike,
    risk_b: ArrayLike,
    surv: Survival,
    *,
    method: Literal["compareC", "jackknife", "bootstrap"] = "compareC",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Harrell's C of the first risk minus that of the second, on the same patients, with its interval and p.

    The three methods estimate the same difference and differ in its variance: say which one was used. For nearly
    nested risks the one-shot and the jackknife variance can be far apart, and all of them reject too often when the
    second model contains the first and both were fitted on these patients (Han et al. 2017).

    Args:
        risk_a: (n,), higher is worse.
        risk_b: (n,), higher is worse.
        surv: follow-up of the same n patients.
        method: "compareC" is Kang's one-shot U-statistic variance (unbiased, slightly smaller; R's compareC), which
            may not be positive with a handful of events: then there is no interval and no p;
            "jackknife" is survival::concordance's; "bootstrap" resamples patients (percentile interval, p from the
            share of resamples on the far side of 0).
        level: coverage of the interval.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        TableError: E-LENGTH, E-MISSING.
        FitError: E-NOEVENTS, E-NOPAIRS.

    References:
        Kang et al. Stat Med 2015, eq. 2-6; Han et al. BMC Med Res Methodol 2017.
    """
    one_of(method, _METHODS, "method")
    coverage(level)
    a, b = risks(risk_a, surv, "risk_a"), risks(risk_b, surv, "risk_b")
    first, second = _shares(a, surv), _shares(b, surv)
    difference = first.c - second.c
    if method == "bootstrap":
        whole(resamples, "resamples", 1)
        whole(seed, "seed", 0)
        estimate = _bootstrap_difference(a, b, surv, level=level, resamples=resamples, seed=seed)
        return Comparison(estimate, np.nan, method)
    if method == "jackknife":
        se = float(np.sqrt(np.sum((first.influence - second.influence) ** 2)))
    else:
        se = float(np.sqrt(max(_one_shot_variance(a, b, surv, first, second), 0.0)))
    z = difference / se if se > 0 else np.nan
    if first.events < 2:
        return Comparison(Estimate(difference), np.nan, method, few_events(first.events, "the difference"))
    if told := perfect(first.c, second.c):
        return Comparison(Estimate(difference), np.nan, method, told)
    return Comparison(normal_estimate(difference, se, level=level, null=0.0), z, method)


@dataclass(frozen=True, eq=False)
class _Shares:
    """Pair counts, and each patient's own part in them."""

    concordant: float
    tied: float
    total: float
    tied_time: int
    tied_both: int
    events: int
    influence: Vector  # dC / d(weight of the patient)
    net: Vector  # concordant minus discordant pairs the patient is in, in the order given
    pairs: Vector  # comparable pairs the patient is in

    @property
    def c(self) -> float:
        return (self.concordant + self.tied / 2.0) / self.total

    @property
    def se(self) -> float:
        return float(np.sqrt(np.sum(self.influence**2)))


def _shares(risk: Vector, surv: Survival, weighting: str = "harrell", tau: float | None = None) -> _Shares:
    """Count the pairs and every patient's share of them."""
    event = surv.event if tau is None else surv.event & (surv.time_months <= tau)
    need_events(int(event.sum()), "concordance")
    # Events come before censored patients of the same time; tied events in order of risk (see count_pairs).
    order = _time_order(surv.time_months, event, risk)
    weight = event[order].astype(np.float64)
    if weighting == "uno":
        weight[weight > 0] = censoring(surv).just_before(surv.time_months[order][weight > 0]) ** -2.0
    lower, equal, pairs, tied_time, tied_both = count_pairs(surv.time_months[order], risk[order], weight)
    total, tied, concordant = (float(x.sum()) / 2.0 for x in (pairs, equal, lower))
    if total == 0:
        raise FitError(Problem("E-NOPAIRS", "no two patients can be ordered by their follow-up",
                               remedy="An event with somebody followed for longer is needed"))
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    influence = (lower + equal / 2.0 - (concordant + tied / 2.0) / total * pairs) / total
    net = 2.0 * lower + equal - pairs
    return _Shares(concordant, tied, total, tied_time, tied_both, int(event.sum()), influence[back], net[back],
                   pairs[back])


def _time_order(time: Vector, event: NDArray[np.bool_], risk: Vector) -> NDArray[np.intp]:
    """Patients by time, then events first, then risk; the two last keys are sorted only where times are tied."""
    order = np.argsort(time)
    if np.all(np.diff(time[order]) > 0):
        return order
    return np.lexsort((risk, ~event, time))


def _one_shot_variance(a: Vector, b: Vector, surv: Survival, first: _Shares, second: _Shares) -> float:
    """Variance of C_a - C_b from the unbiased covariances of Kendall-type sums (Kang 2015, eq. 5 and appendix).

    With x = 1 for a comparable pair, y = +-1 (or 0) for a pair that a orders rightly or wrongly and z the same for b,
    C_a = (sum y / sum x + 1) / 2, and the delta method needs the six covariances of the three sums. Kang's last term,
    in the products of the sums, drops out of the delta method: C does not change when all three sums grow together.
    What is left by rounding is 0, as with a single event; an unbiased variance may also be negative.
    """
    n = len(surv)
    if n < 4:
        return np.nan
    strict_a, strict_b = 2.0 * (first.total - first.tied), 2.0 * (second.total - second.tied)
    product = 2.0 * _agreement(a, b, surv)
    rows = np.stack([first.pairs, first.net, second.net])
    squares = np.array([[2.0 * first.total, first.net.sum(), second.net.sum()],
                        [first.net.sum(), strict_a, product],
                        [second.net.sum(), product, strict_b]])
    sums = rows.sum(axis=1)
    pairs = n * (n - 1.0)
    x, y, z = sums / pairs
    gradient = np.array([-(y - z) / x**2, 1.0 / x, -1.0 / x]) / 2.0
    plus, minus = (float(gradient @ part @ gradient) for part in (4.0 * rows @ rows.T, 2.0 * squares))
    return (plus - minus) / (pairs * (n - 2) * (n - 3)) if abs(plus - minus) > 1e-9 * abs(plus) else 0.0


def _agreement(a: Vector, b: Vector, surv: Survival) -> float:
    """Over the comparable pairs, those that a and b order alike minus those they order differently."""
    order = np.lexsort((~surv.event, surv.time_months))
    ranks = np.unique(b[order], return_inverse=True)[1]
    return float(sign_product(a[order], ranks, surv.time_months[order], surv.event[order]))


def _bootstrap_difference(
    a: Vector, b: Vector, surv: Survival, *, level: float, resamples: int, seed: int
) -> Estimate:
    """Percentile interval of C_a - C_b over resampled patients; resamples without a comparable pair are skipped."""
    generator = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        rows = generator.integers(0, len(surv), len(surv))
        drawn = surv.take(rows)
        try:
            differences.append(_shares(a[rows], drawn).c - _shares(b[rows], drawn).c)
        except FitError:
            continue
    spread = np.asarray(differences)
    if not spread.size:
        return Estimate(_shares(a, surv).c - _shares(b, surv).c)
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    tail = (1 + min(int((spread <= 0).sum()), int((spread >= 0).sum()))) / (1 + spread.size)
    return Estimate(_shares(a, surv).c - _shares(b, surv).c, float(low), float(high), min(1.0, 2 * tail))
