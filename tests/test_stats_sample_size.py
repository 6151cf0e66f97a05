"""Sample sizes: R's pmsampsize, the published dial of concordance and spread, and closed forms without censoring."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest

from mtdlr.errors import TableError
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.sample_size import TARGETS, development_size, largest_r2, spread_of, validation_size
from mtdlr.survival import Survival


@pytest.mark.parametrize(("parameters", "r2", "rate", "first", "second", "epp", "epp_second"), [
    (25, 0.051, 0.065, 4286, 866, 23.07, 4.66),
    (25, 0.065, 0.065, 3335, 859, 17.95, 4.62),
    (50, 0.051, 0.065, 8572, 1731, 23.07, 4.66),
    (25, 0.051, 0.1, 4286, 731, 35.49, 6.05),
    (30, 0.051, 0.065, 5143, 1039, 23.07, 4.66),
])
def test_development_sizes_are_pmsampsizes(parameters: int, r2: float, rate: float, first: int, second: int,
                                           epp: float, epp_second: float) -> None:
    """Criteria 1 and 2 and events per parameter equal those that pmsampsize 1.1.3 prints in its tests and its help."""
    size = development_size(parameters, rate=rate, horizon=2, mean_follow_up=2.07, r2=r2)
    assert (size.by_shrinkage, size.by_optimism, size.n) == (first, second, first)
    assert round(size.events_per_parameter, 2) == epp
    assert round(second * rate * 2.07 / parameters, 2) == epp_second


def test_the_risk_at_the_horizon_is_precise_enough() -> None:
    """Criterion 3: with that many patients the upper limit of the overall risk lies 0.05 above it, with one fewer more.

    pmsampsize prints 0.113 to 0.130 around 0.122 for 5,143 patients.
    """
    def above(n: int) -> float:
        wide = 0.065 + 1.96 * sqrt(0.065 / (2.07 * n))
        return float(np.exp(-0.13) - np.exp(-2 * wide))

    n = development_size(30, rate=0.065, horizon=2, mean_follow_up=2.07, r2=0.051).by_risk
    assert above(n) <= 0.05 < above(n - 1)
    assert round(1 - np.exp(-0.13) + above(5143), 3) == 0.130


def test_without_a_value_a_model_explains_the_usual_share() -> None:
    """An unknown R2 is taken as 15 % of the largest possible one, 0.555 in the published example."""
    size = development_size(25, rate=0.065, horizon=2, mean_follow_up=2.07)
    assert round(size.largest_r2, 3) == 0.555
    assert size.r2 == pytest.approx(0.15 * largest_r2(0.065, 2.07))


@pytest.mark.parametrize(("c", "sd"), [(.655, .61), (.695, .82), (.717, .95), (.728, 1.02), (.752, 1.19), (.780, 1.43),
                                       (.818, 1.86)])
def test_concordance_gives_the_spread(c: float, sd: float) -> None:
    """The seven pairs of concordance and standard deviation of the paper's scores are reproduced."""
    assert spread_of(c) == pytest.approx(sd, abs=0.011)


@pytest.fixture(scope="module")
def complete():  # type: ignore[no-untyped-def]
    """Cohorts in which nobody is lost."""
    return validation_size(0.75, 0.3, lost=0.0, sizes=(200, 800), samples=400, seed=1)


@pytest.mark.slow
def test_observed_over_expected_has_the_binomial_error(complete) -> None:  # type: ignore[no-untyped-def]
    """Without censoring the log of O has standard error sqrt((1 - risk) / (n risk)), less what the predictions know.

    The variance of a binomial sum given the risks is the sum of r (1 - r), below n risk (1 - risk), and O/E varies by
    no more than that around the mean predicted risk.
    """
    rng = np.random.default_rng(0)
    lp = rng.normal(0.0, complete.sd, 200_000)
    base = -np.log(0.7)
    for _ in range(60):
        base *= 0.3 / (1 - np.exp(-base * np.exp(lp))).mean()
    risk = 1 - np.exp(-base * np.exp(lp))
    for n, width in zip(complete.sizes, complete.widths["oe"], strict=True):
        error = sqrt((risk * (1 - risk)).mean() / n) / 0.3
        assert width == pytest.approx(np.exp(1.96 * error) - np.exp(-1.96 * error), rel=0.1)


@pytest.mark.slow
def test_net_benefit_has_its_published_error(complete) -> None:  # type: ignore[no-untyped-def]
    """Without censoring the standardised net benefit has the error of a mean of (event - w non-event) per patient."""
    rng = np.random.default_rng(0)
    lp = rng.normal(0.0, complete.sd, 400_000)
    base = -np.log(0.7)
    for _ in range(60):
        base *= 0.3 / (1 - np.exp(-base * np.exp(lp))).mean()
    risk = 1 - np.exp(-base * np.exp(lp))
    event, treated = rng.random(lp.size) < risk, risk >= 0.3
    error = np.where(treated, np.where(event, 1.0, -0.3 / 0.7), 0.0).std() / sqrt(800) / 0.3
    assert complete.widths["net_benefit"][1] == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.slow
def test_concordance_and_slope_have_the_errors_of_one_cohort(complete) -> None:  # type: ignore[no-untyped-def]
    """The simulated widths of C and slope equal those that `concordance` and `fit_cox` give in a single cohort."""
    rng = np.random.default_rng(3)
    widths = []
    for _ in range(20):
        lp = rng.normal(0.0, complete.sd, 800)
        time = rng.exponential(1.0, 800) / (0.3 * np.exp(lp))
        end = np.quantile(time, 0.3)
        surv = Survival(np.minimum(time, end), time <= end)
        c, fit = concordance(lp, surv).c, fit_cox(lp, surv)
        widths.append((c.high - c.low, 2 * 1.96 * fit.se[0]))
    expected = np.mean(widths, axis=0)
    assert (complete.widths["c"][1], complete.widths["slope"][1]) == pytest.approx(expected.tolist(), rel=0.12)


@pytest.mark.slow
def test_four_times_the_patients_halve_the_intervals(complete) -> None:  # type: ignore[no-untyped-def]
    """The widths fall with the root of the number of patients."""
    for widths in complete.widths.values():
        assert widths[0] / widths[1] == pytest.approx(2.0, rel=0.2)


@pytest.mark.slow
def test_needed_patients_reach_the_target() -> None:
    """The number needed lies between the sizes whose widths enclose the target; beyond the largest it is infinite."""
    size = validation_size(0.8, 0.4, sizes=(100, 400), samples=100)
    for name, target in TARGETS.items():
        first, last = size.widths[name]
        if last > target:
            assert size.needed[name] == inf
        elif first > target:
            assert 100 < size.needed[name] <= 400
        else:
            assert size.needed[name] == 100
    assert size.needed["slope"] == inf
    assert size.n == inf


def test_few_patients_without_events_are_no_error() -> None:
    """Cohorts that mostly hold no event give no interval, and say so by nan."""
    size = validation_size(0.7, 0.02, sizes=(10, 20), samples=50)
    assert np.isnan(size.widths["slope"]).all()
    assert size.needed["slope"] == inf


@pytest.mark.parametrize("wrong", [{"c": 0.5}, {"c": 1.0}, {"risk": 0.0}, {"risk": 1.0}, {"lost": 1.0},
                                   {"threshold": 1.5}, {"risk": float("nan")}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """A value that no cohort can have is E-SAMPLESIZE, with the range."""
    with pytest.raises(TableError) as error:
        validation_size(**({"c": 0.7, "risk": 0.3} | wrong), sizes=(50,), samples=2)
    assert error.value.code == "E-SAMPLESIZE"


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"mean_follow_up": -1.0}, {"horizon": float("inf")},
                                   {"parameters": 0}, {"r2": 0.6}, {"r2": 0.0}])
def test_impossible_developments_are_refused(wrong: dict[str, float]) -> None:
    """An R2 above the largest possible, or a rate, horizon or follow-up that is not positive, is E-SAMPLESIZE."""
    values = {"parameters": 25, "rate": 0.065, "horizon": 2.0, "mean_follow_up": 2.07} | wrong
    with pytest.raises(TableError) as error:
        development_size(int(values.pop("parameters")), **values)
    assert error.value.code == "E-SAMPLESIZE"
