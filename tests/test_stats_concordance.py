"""Harrell's and Uno's C, their errors, and paired comparisons."""

from __future__ import annotations

from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, TableError
from mtdlr.stats.concordance import compare_concordance, concordance
from mtdlr.stats.concordance_pairs import sign_product
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=30)
patients = st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.integers(-4, 4), st.integers(-4, 4)),
                    min_size=2, max_size=40).filter(lambda rows: _comparable(rows) > 0)


def _split(rows):
    time, event, a, b = (np.array(column) for column in zip(*rows, strict=True))
    return a.astype(float), b.astype(float), Survival(time, event)


def _pairs(rows):
    """Every pair that can be ordered, by the definition: (first to fail, the other)."""
    for t, e, *first in rows:
        for u, f, *second in rows:
            if e and (t < u or (t == u and not f)):
                yield first, second


def _comparable(rows):
    return sum(1 for _ in _pairs(rows))


@steady
@given(patients)
def test_counts_are_those_of_the_definition(rows):
    """The merge sort counts exactly the concordant, discordant and tied pairs of the definition."""
    result = concordance(*_split(rows)[::2])
    signs = [np.sign(x[0] - y[0]) for x, y in _pairs(rows)]
    assert (result.concordant, result.discordant, result.tied_risk) == (
        signs.count(1), signs.count(-1), signs.count(0))


@steady
@given(patients)
def test_agreement_of_two_risks_is_that_of_the_definition(rows):
    """The sum of sign(a_i - a_j) sign(b_i - b_j) over comparable pairs, which compareC needs, is the counted one."""
    a, b, surv = _split(rows)
    order = np.lexsort((~surv.event, surv.time_months))
    ours = sign_product(a[order], np.unique(b[order], return_inverse=True)[1], surv.time_months[order],
                        surv.event[order])
    assert ours == sum(np.sign(x[0] - y[0]) * np.sign(x[1] - y[1]) for x, y in _pairs(rows))


@steady
@given(patients)
def test_time_ties_are_counted_apart(rows):
    """Pairs of events at one time are left out and counted by whether their risks differ."""
    events = [(t, a) for t, e, a, _ in rows if e]
    same = [(x, y) for i, x in enumerate(events) for y in events[:i] if x[0] == y[0]]
    result = concordance(*_split(rows)[::2])
    assert (result.tied_time, result.tied_both) == (sum(x[1] != y[1] for x, y in same),
                                                    sum(x[1] == y[1] for x, y in same))


@steady
@given(patients)
def test_turning_the_risk_round_turns_c_round(rows):
    """C(-risk) = 1 - C(risk), with the same standard error, for both weightings."""
    a, _, surv = _split(rows)
    for weighting in ("harrell", "uno"):
        one, other = concordance(a, surv, weighting=weighting), concordance(-a, surv, weighting=weighting)
        assert other.c.value == pytest.approx(1 - one.c.value, abs=1e-12)
        assert other.se == pytest.approx(one.se, abs=1e-12)


@steady
@given(patients, st.randoms(use_true_random=False))
def test_only_the_order_of_risks_matters(rows, random):
    """Neither a monotone map of the risk nor the order of the rows changes C, its error or a comparison."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    (a, b, surv), (a2, b2, surv2) = _split(rows), _split(shuffled)
    one, other = concordance(a, surv), concordance(np.exp(a2 / 2) + 3, surv2)
    assert (other.c.value, other.se) == pytest.approx((one.c.value, one.se), abs=1e-12)
    first = compare_concordance(a, b, surv, method="jackknife").difference.value
    assert compare_concordance(a2**3, b2, surv2, method="jackknife").difference.value == pytest.approx(first, abs=1e-12)


@steady
@given(patients)
def test_swapping_the_risks_of_a_comparison_changes_its_sign(rows):
    """The difference changes sign and keeps its p when the two risks change places."""
    a, b, surv = _split(rows)
    for method in ("compareC", "jackknife"):
        one, other = (compare_concordance(x, y, surv, method=method) for x, y in ((a, b), (b, a)))
        assert other.difference.value == pytest.approx(-one.difference.value, abs=1e-12)
        if np.isfinite(one.z) and one.z:
            assert other.difference.p == pytest.approx(one.difference.p, rel=1e-6)


def test_error_is_the_infinitesimal_jackknife():
    """The standard error is that of n leave-one-out values, up to terms of order 1/n."""
    generator = np.random.default_rng(1)
    n = 400
    risk = generator.normal(size=n)
    time, censor = generator.exponential(np.exp(-risk)), generator.exponential(1.0, n)
    surv = Survival(np.minimum(time, censor), time <= censor)
    whole = concordance(risk, surv)
    left_out = np.array([concordance(np.delete(risk, i), surv.take(np.arange(n) != i)).c.value for i in range(n)])
    assert whole.se == pytest.approx(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)), rel=0.01)


@pytest.mark.slow
def test_interval_covers_the_truth():
    """About 95 % of intervals contain the C of the population the patients come from."""
    gap = np.linspace(0, 12, 200_001)  # of two standard normal risks: C = E[1 / (1 + exp(-|gap|))]
    weight = np.exp(-gap**2 / 4)
    truth = (weight / (1 + np.exp(-gap))).sum() / weight.sum()
    covered = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        risk = generator.normal(size=120)
        surv = Survival(generator.exponential(np.exp(-risk)), np.ones(120, bool))
        c = concordance(risk, surv).c
        covered += c.low < truth < c.high
    assert 0.91 < covered / 300 < 0.985


def test_unos_c_undoes_the_censoring():
    """Under heavy early censoring Uno's C stays at the uncensored value while Harrell's does not."""
    generator = np.random.default_rng(4)
    n = 20_000
    risk = generator.integers(0, 2, n) * 1.0
    time = np.where(risk == 1, generator.uniform(0, 1, n), generator.weibull(3.0, n))
    truth = concordance(risk, Survival(time + 1e-9, np.ones(n, bool)), tau=0.8).c.value
    censor = generator.exponential(0.4, n)
    surv = Survival(np.minimum(time, censor) + 1e-9, time <= censor)
    assert concordance(risk, surv, weighting="uno", tau=0.8).c.value == pytest.approx(truth, abs=0.01)
    assert abs(concordance(risk, surv, tau=0.8).c.value - truth) > 0.03


@pytest.mark.parametrize(("risk", "time", "event", "c", "counts"), [
    ([3, 2, 1], [1, 2, 3], [1, 1, 1], 1.0, (3, 0, 0)),
    ([1, 2, 3], [1, 2, 3], [1, 1, 1], 0.0, (0, 3, 0)),
    ([2, 2, 1], [1, 2, 3], [1, 1, 0], 5 / 6, (2, 0, 1)),
    ([2, 1, 3], [1, 1, 1], [1, 0, 0], 0.5, (1, 1, 0)),  # censored at the time of an event outlives it
    ([2, 1, 3], [1, 2, 2], [0, 1, 0], 0.0, (0, 1, 0)),  # censored before everybody: in no pair
])
def test_hand_counted_cases(risk, time, event, c, counts):
    """Small cases give the pairs and the C counted by hand."""
    result = concordance(risk, Survival(time, event))
    assert result.c.value == pytest.approx(c)
    assert (result.concordant, result.discordant, result.tied_risk) == counts


def test_equal_risks_give_one_half_and_a_warning():
    """When every risk is the same C is 0.5, without interval or p, and says why."""
    result = concordance([1.0] * 4, Survival([1.0, 2, 3, 4], [1, 0, 1, 1]))
    assert result.c.value == 0.5 and np.isnan(result.c.p) and result.warnings[0].code == "W-ALLTIED"


@pytest.mark.parametrize(("time", "event", "code"), [
    ([1, 2, 3], [0, 0, 0], "E-NOEVENTS"),
    ([1, 2, 3], [0, 0, 1], "E-NOPAIRS"),
    ([2, 2, 2], [1, 1, 1], "E-NOPAIRS"),
])
def test_without_a_pair_there_is_no_c(time, event, code):
    """No event, or no pair to order, is a typed error."""
    with pytest.raises(FitError) as caught:
        concordance([1.0, 2.0, 3.0], Survival(time, event))
    assert caught.value.code == code


@pytest.mark.parametrize(("risk", "code"), [([1, 2], "E-LENGTH"), ([1, np.nan, 3], "E-MISSING")])
def test_bad_risk_is_refused(risk, code):
    """A risk of another length or with a missing value is refused with its row."""
    with pytest.raises(TableError) as caught:
        concordance(risk, Survival([1, 2, 3], [1, 1, 1]))
    assert caught.value.code == code


def test_one_event_is_no_evidence_of_a_difference():
    """With a single event the unbiased variance is 0 but for rounding: no interval and no p, not p = 0."""
    surv = Survival(np.array([55.0, 52, 35, 56, 45, 51, 48, 46]), np.arange(8) == 2)
    stage = np.array([0.0, 0, 0, 0, 0, 1, 0, 1])
    found = compare_concordance(np.zeros(8), stage, surv)
    assert found.difference.value == pytest.approx(1 / 7) and np.isnan([found.difference.p, found.difference.low]).all()
    same = compare_concordance(stage, stage, surv).difference
    assert same.value == 0.0 and np.isnan(same.p)


def test_bootstrap_repeats_and_agrees():
    """The bootstrap comparison repeats with its seed and comes close to the jackknife's interval."""
    generator = np.random.default_rng(2)
    a = generator.normal(size=200)
    b = a + generator.normal(size=200)
    surv = Survival(generator.exponential(np.exp(-a)), generator.random(200) < 0.7)
    one, two = (compare_concordance(a, b, surv, method="bootstrap", resamples=200, seed=3) for _ in range(2))
    jackknife = compare_concordance(a, b, surv, method="jackknife").difference
    assert one == two and one.method == "bootstrap"
    assert (one.difference.low, one.difference.high) == pytest.approx((jackknife.low, jackknife.high), abs=0.03)
    assert compare_concordance(a, b, surv, method="bootstrap", resamples=200, seed=4) != one


def test_agrees_with_r(reference, agrees):
    """Harrell's and Uno's C, their errors, counts and p values are those of survival::concordance."""
    for name, theirs in reference.numbers("concordance")["single"].items():
        ours = concordance(reference.scores[name], reference.surv)
        agrees("Harrell's C, SE, p", "survival::concordance", [ours.c.value, ours.se, ours.c.p],
               [theirs["c"], theirs["se"], theirs["p_vs_0.5"]])
        agrees("concordance interval", "survival::concordance", [ours.c.low, ours.c.high], theirs["ci_normal"])
        assert [ours.concordant, ours.discordant, ours.tied_risk, ours.tied_time, ours.tied_both] == [
            theirs["counts"][k] for k in ("concordant", "discordant", "tied.x", "tied.y", "tied.xy")]
        uno = concordance(reference.scores[name], reference.surv, weighting="uno")
        other = theirs["uno_and_other_timewt"]["n/G2"]
        agrees("Uno's C, SE", 'survival::concordance(timewt = "n/G2")', [uno.c.value, uno.se],
               [other["c"], other["se"]])
        cut = concordance(reference.scores[name], reference.surv, tau=theirs["ymax"]["tau"])
        agrees("C up to a month, SE", "survival::concordance(ymax =)", [cut.c.value, cut.se],
               [theirs["ymax"]["c"], theirs["ymax"]["se"]])


def test_comparisons_agree_with_r(reference, agrees):
    """The paired differences, z and p are those of compareC and of survival::concordance."""
    for pair in reference.numbers("concordance")["pairs"]:
        a, b = reference.scores[pair["a"]], reference.scores[pair["b"]]
        one = compare_concordance(a, b, reference.surv)
        agrees("C difference, z, p (one-shot)", "compareC::compareC", [one.difference.value, one.z, one.difference.p],
               [pair["compareC"][k] for k in ("diff", "z", "p")])
        two = compare_concordance(a, b, reference.surv, method="jackknife")
        agrees("C difference, z, p (jackknife)", "survival::concordance(fit1, fit2)",
               [two.difference.value, two.z, two.difference.p],
               [pair["survival_concordance"][k] for k in ("diff", "z", "p")])


@pytest.mark.slow
def test_a_million_patients_take_a_second():
    """Harrell's C with its error for 10^6 patients takes under a second of a core (two allowed, for slow machines)."""
    generator = np.random.default_rng(0)
    risk = generator.normal(size=10**6)
    surv = Survival(generator.exponential(np.exp(-risk)) + 1e-12, generator.random(10**6) < 0.4)
    concordance(risk[:1000], surv.take(np.arange(1000)))
    started = process_time()
    concordance(risk, surv)
    assert process_time() - started < 2.0
