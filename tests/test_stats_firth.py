"""Firth's Cox model and profile intervals: the penalised likelihood by definition, with weights, strata and ties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar

from mtdlr.errors import FitError
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_firth import firth_cox, profile_interval
from mtdlr.stats.cox_rows import Cases
from mtdlr.survival import Survival

HALF = 3.841458820694124 / 2.0


def _cohort(n: int = 24, seed: int = 1) -> tuple[np.ndarray, Survival, np.ndarray, np.ndarray]:
    """Two columns, tied follow-up, case weights and two strata."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n)]).astype(float)
    surv = Survival(np.ceil(rng.exponential(6.0, n) * np.exp(-0.5 * x[:, 0])).clip(1, 9), rng.random(n) < 0.6)
    return x, surv, rng.integers(1, 4, n).astype(float), rng.integers(0, 2, n)


def _penalised(beta: np.ndarray, x: np.ndarray, surv: Survival, *, ties: str = "efron", firth: bool = True,
               weights: np.ndarray | None = None, strata: np.ndarray | None = None,
               offset: np.ndarray | None = None) -> float:
    """l(b) + log det I(b) / 2, summed term by term over the tied deaths of each stratum."""
    n = len(surv)
    w, s = np.ones(n) if weights is None else weights, np.zeros(n) if strata is None else strata
    eta = x @ beta + (0.0 if offset is None else offset)
    r, value, info = w * np.exp(eta), 0.0, np.zeros((x.shape[1], x.shape[1]))
    for label in np.unique(s):
        for t in np.unique(surv.time_months[surv.event & (s == label)]):
            at_risk, dead = (s == label) & (surv.time_months >= t), (s == label) & surv.event & (surv.time_months == t)
            d = int(dead.sum()) if ties == "efron" else 1
            value += (w * eta)[dead].sum()
            for j in range(d):
                part = r * at_risk * np.where(dead & (ties == "efron"), 1.0 - j / d, 1.0)
                share = w[dead].sum() / d
                value -= share * np.log(part.sum())
                p = part / part.sum()
                info += share * ((x * p[:, None]).T @ x - np.outer(p @ x, p @ x))
    return float(value + (0.5 * np.linalg.slogdet(info)[1] if firth else 0.0))


@pytest.mark.parametrize(("ties", "with_weights", "with_strata", "with_offset"), [
    ("efron", True, False, False), ("breslow", True, True, False), ("efron", False, True, True),
    ("breslow", False, False, True),
])
def test_the_maximum_is_that_of_the_penalised_likelihood(ties: str, with_weights: bool, with_strata: bool,
                                                         with_offset: bool) -> None:
    """With case weights, strata, offsets and either treatment of ties a general optimiser finds the same maximum, and
    the value at it and at 0 are the fit's log likelihoods."""
    x, surv, w, s = _cohort()
    known = {"weights": w if with_weights else None, "strata": s if with_strata else None,
             "offset": 0.4 * x[:, 1] if with_offset else None}
    fit = firth_cox(x, surv, ties=ties, cases=Cases(**known))
    found = minimize(lambda b: -_penalised(b, x, surv, ties=ties, **known), np.zeros(2), tol=1e-12)
    np.testing.assert_allclose(fit.coef, found.x, atol=1e-5)
    assert fit.loglik == pytest.approx(-found.fun, abs=1e-8)
    assert fit.loglik_null == pytest.approx(_penalised(np.zeros(2), x, surv, ties=ties, **known), abs=1e-8)


def test_units_change_the_coefficient_and_nothing_else() -> None:
    """In another unit the coefficient is divided; the likelihood ratio, z and the hazard ratio per SD stay."""
    x, surv, _, _ = _cohort()
    fit, other = firth_cox(x, surv), firth_cox(x * [100.0, 1.0] + [7.0, 3.0], surv)
    np.testing.assert_allclose(other.coef * [100.0, 1.0], fit.coef, rtol=1e-7)
    np.testing.assert_allclose(other.se * [100.0, 1.0], fit.se, rtol=1e-7)
    assert other.likelihood_ratio.statistic == pytest.approx(fit.likelihood_ratio.statistic, abs=1e-8)
    assert other.loglik - fit.loglik == pytest.approx(np.log(100.0))


def test_a_fit_of_one_group_by_hand() -> None:
    """Two deaths, one patient a group: l = b - 2 log(e^b + 1 ...): solved by hand for a two-patient cohort.

    Patients: exposed dies first, unexposed second. The likelihood is e^b / (e^b + 1), the information p (1 - p), so the
    penalised maximum has log p + (log p + log(1 - p)) / 2 greatest: p = 3/4 and b = log 3.
    """
    fit = firth_cox([1.0, 0.0], Survival([1.0, 2.0], [1, 1]))
    assert fit.coef[0] == pytest.approx(np.log(3.0), abs=1e-5)
    assert fit.se[0] ** 2 == pytest.approx(16.0 / 3.0, rel=1e-5)
    assert fit.loglik == pytest.approx(np.log(0.75) + 0.5 * np.log(3.0 / 16.0))
    assert fit.monotone == () and fit.converged


def test_a_column_that_says_nothing_is_dropped_from_the_penalised_fit() -> None:
    """A constant column has coefficient 0 and W-CONSTANT; the others are as without it."""
    x, surv, _, _ = _cohort()
    fit = firth_cox(np.column_stack([x[:, 0], np.ones(24), x[:, 1]]), surv, names=["a", "flat", "b"])
    np.testing.assert_allclose(fit.coef, np.insert(firth_cox(x, surv).coef, 1, 0.0), atol=1e-9)
    assert fit.dropped == ("flat",) and [p.code for p in fit.problems] == ["W-CONSTANT"]
    assert fit.problems[0].where == "column flat" and fit.df == 2


@pytest.mark.parametrize("firth", [True, False])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_both_ends_lie_where_the_profile_has_fallen(firth: bool, level: float) -> None:
    """At each end the profile, maximised over the other column, is half a chi-square quantile below the top."""
    x, surv, w, s = _cohort()
    known = {"weights": w, "strata": s}
    found = profile_interval(x, surv, 0, firth=firth, level=level, cases=Cases(**known))

    def profile(value: float) -> float:
        return -float(minimize_scalar(lambda b: -_penalised(np.array([value, b]), x, surv, firth=firth, **known),
                                      bracket=(-1.0, 1.0), tol=1e-10).fun)

    top = profile(np.log(found.value))
    fall = {0.8: 1.6423744151498175, 0.95: 2.0 * HALF}[level] / 2.0
    for end in (found.low, found.high):
        assert top - profile(np.log(end)) == pytest.approx(fall, abs=1e-5)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_number_that_orders_all_events_has_a_finite_interval(ties: str, sign: float) -> None:
    """A score that orders all events: Firth's ratio lies on its side of 1, within limits where the penalised likelihood
    has fallen by 1.92, however far from the estimate these are."""
    time = np.arange(1.0, 31.0)
    surv = Survival(time, time % 3 > 0)
    score = sign * time
    found = profile_interval(score, surv, 0, firth=True, ties=ties)
    fit = firth_cox(score, surv, ties=ties)
    assert np.log(found.value) == pytest.approx(fit.coef[0], rel=1e-6)
    assert (found.value < 1) == (sign > 0)

    def fallen(b: float) -> float:
        return fit.loglik - _penalised(np.array([b]), score[:, None], surv, ties=ties) - HALF

    ends = sorted(brentq(fallen, *pair) for pair in ((0.1 * fit.coef[0], fit.coef[0]), (fit.coef[0], 4 * fit.coef[0])))
    np.testing.assert_allclose(np.log([found.low, found.high]), ends, rtol=1e-5)


def test_a_wide_gap_puts_the_maximum_far_away_and_it_is_found() -> None:
    """Sixty patients in perfect order whose hazards lie far apart: the maximum, hundreds of standard deviations away,
    is that of a search over one number; a limit too large for a number is infinite and ends in no overflow."""
    time = np.arange(1.0, 61.0)
    surv, x = Survival(time, time <= 30), np.where(time <= 30, 3.0, 0.0) - time / 100.0
    fit = firth_cox(x, surv)

    def value(b: float) -> float:
        eta = b * x - b * x[0]
        r = np.exp(eta)
        total = np.cumsum(r[::-1])[::-1][:30]
        mean = np.cumsum((r * (x - x[0]))[::-1])[::-1][:30] / total
        spread = np.array([(r[k:] * (x[k:] - x[0] - mean[k]) ** 2).sum() / total[k] for k in range(30)])
        return float((eta[:30] - np.log(total)).sum() + 0.5 * np.log(spread.sum()))

    found = minimize_scalar(lambda b: -value(b), bounds=(100.0, 2000.0), method="bounded", options={"xatol": 1e-9})
    assert fit.coef[0] * x.std() > 200 and fit.coef[0] == pytest.approx(found.x, rel=1e-4)
    assert profile_interval(x, surv, 0, firth=True).high == np.inf


def test_a_level_without_events_has_the_penalised_estimate_between_its_ends() -> None:
    """The ordinary likelihood gives 0 with an upper end; the penalised one a ratio above 0 within its interval."""
    surv = Survival(np.arange(1.0, 13.0), [1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 0, 0])
    level = np.isin(np.arange(12), (2, 5, 7)).astype(float)
    plain, firth = profile_interval(level, surv, 0), profile_interval(level, surv, 0, firth=True)
    assert plain.value == plain.low == 0.0 and 0 < plain.high < np.inf
    assert 0.0 < firth.low < firth.value < firth.high < np.inf and firth.value < 1
    turned = profile_interval(1.0 - level, surv, "x1")
    assert turned.value == turned.high == np.inf and turned.low == pytest.approx(1.0 / plain.high)


def test_the_p_value_is_that_of_the_likelihood_ratio() -> None:
    """Twice the fall of the penalised profile to a ratio of 1, on one degree of freedom."""
    x, surv, _, _ = _cohort()
    found = profile_interval(x[:, 0], surv, 0, firth=True)
    fit = firth_cox(x[:, 0], surv)
    statistic = 2.0 * (fit.loglik - _penalised(np.zeros(1), x[:, :1], surv))
    assert statistic == pytest.approx(fit.likelihood_ratio.statistic, abs=1e-8)
    assert found.p == pytest.approx(fit.likelihood_ratio.p, abs=1e-9)


def test_far_relative_hazards_do_not_vanish_in_the_gradient() -> None:
    """Offsets hundreds apart between early and late patients: each risk set has its own scale, so the coefficient is
    that of the late patients alone, who never meet the early ones."""
    surv = Survival([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1, 1, 1, 1, 1, 1, 0])
    x = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    offset = np.array([2000.0, 1000.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    late = surv.time_months > 2
    ours = firth_cox(x, surv, cases=Cases(offset=offset))
    assert ours.coef[0] == pytest.approx(firth_cox(x[late], surv.take(late)).coef[0], abs=1e-8)


def test_columns_are_named_or_counted_from_0() -> None:
    """A column by place and by name is the same; one beyond the last, or one that was dropped, is E-COLUMN."""
    x, surv, _, _ = _cohort()
    assert profile_interval(x, surv, 1) == profile_interval(x, surv, "x2")
    for wide, column in ((x, 2), (np.column_stack([x, np.ones(24)]), "x3")):
        with pytest.raises(FitError) as caught:
            profile_interval(wide, surv, column)
        assert caught.value.code == "E-COLUMN" and caught.value.problems[0].expected == "x1 or x2"


def test_without_few_events_the_penalty_hardly_matters() -> None:
    """On 400 patients with two columns Firth's coefficients and their errors are near those of the ordinary fit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    surv = Survival(rng.exponential(np.exp(-x[:, 0])) + 0.01, rng.random(400) < 0.8)
    plain, firth = fit_cox(x, surv), firth_cox(x, surv)
    np.testing.assert_allclose(firth.coef, plain.coef, atol=0.02)
    np.testing.assert_allclose(firth.se, plain.se, rtol=0.01)


def test_an_end_that_is_not_bounded_leaves_the_penalised_estimate() -> None:
    """Two columns that say nearly the same of three patients: an end is not found, and the ratio is still Firth's."""
    x = np.array([[-0.20417992, -0.35834742], [-1.25083495, -1.42187135], [-2.31610292, -2.5990925]])
    surv = Survival([0.50788385, 11.49913809, 40.1], [True, True, False])
    found = profile_interval(x, surv, 1, firth=True)
    assert found.low == 0.0 or found.high == np.inf
    assert np.log(found.value) == pytest.approx(firth_cox(x, surv).coef[1], rel=1e-6)
