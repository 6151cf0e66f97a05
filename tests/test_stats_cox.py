"""Cox's model: what theory says, ties, strata, weights, limit cases, and the paper's factor rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, MtdlrError
from mtdlr.stats import Cases, CoxFit, fit_cox
from mtdlr.survival import Survival

steady = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 10_000)
ties_of = pytest.mark.parametrize("ties", ("efron", "breslow"))


def _cohort(seed, n=60, p=2, tied=True):
    """Patients with two covariates that matter; whole months when tied."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p))
    x[:, 0] = x[:, 0] > 0
    time = random.exponential(np.exp(-x @ np.full(p, 0.5))) * 10 + 0.5
    time = np.ceil(time) if tied else time
    return x, Survival(time, (random.random(n) < 0.7) | (np.arange(n) < 4))


def _naive_log_likelihood(beta, x, surv, ties):
    """The partial likelihood, term by term, as the textbook writes it."""
    time, event, total = surv.time_months, surv.event, 0.0
    relative = np.exp(x @ beta)
    for t in np.unique(time[event]):
        died = event & (time == t)
        d, at_risk, tied = int(died.sum()), relative[time >= t].sum(), relative[died].sum()
        total += (x[died] @ beta).sum()
        for j in range(d):
            total -= np.log(at_risk - (j / d * tied if ties == "efron" else 0.0))
    return total


@ties_of
@steady
@given(seeds)
def test_log_likelihood_is_the_textbook_sum(ties, seed):
    """The fitted value is the double sum over times and tied deaths, and every neighbour is lower."""
    x, surv = _cohort(seed)
    fit = fit_cox(x, surv, ties=ties)
    at = _naive_log_likelihood(fit.coef, x, surv, ties)
    assert fit.loglik == pytest.approx(at, abs=1e-9)
    assert fit.loglik_null == pytest.approx(_naive_log_likelihood(0 * fit.coef, x, surv, ties), abs=1e-9)
    for step in (1e-3, -1e-3):
        for j in range(2):
            nearby = fit.coef + step * np.eye(2)[j]
            assert _naive_log_likelihood(nearby, x, surv, ties) < at


@ties_of
@steady
@given(seeds, st.floats(-1e3, 1e3), st.floats(0.01, 100.0))
def test_shift_and_scale_of_a_column(ties, seed, shift, scale):
    """A shifted column changes nothing but the baseline at 0; a scaled one divides its coefficient; order of rows is
    nothing."""
    x, surv = _cohort(seed)
    moved = x.copy()
    moved[:, 1] = (x[:, 1] + shift) * scale
    order = np.random.default_rng(seed).permutation(len(surv))
    one, other = fit_cox(x, surv, ties=ties), fit_cox(moved[order], surv.take(order), ties=ties)
    assert other.coef * [1.0, scale] == pytest.approx(one.coef, abs=1e-7)
    assert other.loglik == pytest.approx(one.loglik, abs=1e-7)
    assert other.survival(moved, [5.0]) == pytest.approx(one.survival(x, [5.0]), abs=1e-7)


@steady
@given(seeds)
def test_weights_are_repeats(seed):
    """With Breslow ties a whole weight is the patient written so often: coefficients, variance and baseline."""
    x, surv = _cohort(seed)
    weights = np.random.default_rng(seed).integers(1, 4, len(surv))
    rows = np.repeat(np.arange(len(surv)), weights)
    once = fit_cox(x, surv, ties="breslow", cases=Cases(weights=weights))
    often = fit_cox(x[rows], surv.take(rows), ties="breslow")
    assert once.coef == pytest.approx(often.coef, abs=1e-9)
    assert once.covariance == pytest.approx(often.covariance, abs=1e-9)
    assert once.cumulative_hazard == pytest.approx(often.cumulative_hazard, abs=1e-9)


@ties_of
def test_weight_zero_leaves_a_patient_out(ties):
    """Weight 0 is as if the row were not there."""
    x, surv = _cohort(5)
    weights = np.ones(len(surv))
    weights[::7] = 0
    kept = weights > 0
    assert fit_cox(x, surv, ties=ties, cases=Cases(weights=weights)).coef == pytest.approx(
        fit_cox(x[kept], surv.take(kept), ties=ties).coef, abs=1e-9)


@ties_of
def test_ties_do_not_matter_where_there_are_none(ties):
    """Without tied events Efron and Breslow are one."""
    x, surv = _cohort(3, tied=False)
    assert fit_cox(x, surv, ties=ties).coef == pytest.approx(fit_cox(x, surv).coef, abs=1e-10)


@ties_of
def test_strata_add_up(ties):
    """The stratified likelihood is the sum over the strata; each stratum has the baseline of its own patients."""
    x, surv = _cohort(8, n=80)
    label = np.where(np.arange(80) % 2, "B", "A")
    fit = fit_cox(x, surv, ties=ties, cases=Cases(strata=label))
    parts = [_naive_log_likelihood(fit.coef, x[label == s], surv.take(label == s), ties) for s in "AB"]
    assert fit.loglik == pytest.approx(sum(parts), abs=1e-9)
    known = Cases(offset=x[label == "A"] @ fit.coef)
    alone = fit_cox(np.zeros((40, 0)), surv.take(label == "A"), ties=ties, cases=known)
    ours = fit.cumulative_hazard[fit.baseline.stratum == 0]
    assert ours == pytest.approx(alone.cumulative_hazard, rel=1e-9)
    assert fit.survival(x[:1], [5.0], stratum="A") != pytest.approx(fit.survival(x[:1], [5.0], stratum="B"))
    with pytest.raises(FitError, match="E-STRATUM"):
        fit.survival(x[:1], [5.0])


def test_offset_holds_a_coefficient():
    """An offset of the fitted first column leaves the second where it was, and a full offset leaves nothing."""
    x, surv = _cohort(9)
    fit = fit_cox(x, surv)
    known = Cases(offset=x[:, 0] * fit.coef[0])
    assert fit_cox(x[:, 1], surv, cases=known).coef == pytest.approx(fit.coef[1:], abs=1e-7)
    assert fit_cox(x, surv, cases=Cases(offset=x @ fit.coef)).coef == pytest.approx(0.0, abs=1e-7)


def test_robust_variance_is_the_sum_of_squared_influence():
    """The influence of a patient is the derivative of the coefficients by the weight; the robust variance is the sum
    of its squares over clusters, and two copies of everyone in one cluster give it again."""
    x, surv = _cohort(11, n=40)
    n = len(surv)
    moved = []
    for i in range(n):
        up, down = (np.ones(n) + step * np.eye(n)[i] for step in (1e-4, -1e-4))
        ends = [fit_cox(x, surv, ties="breslow", cases=Cases(weights=weights)).coef for weights in (up, down)]
        moved.append((ends[0] - ends[1]) / 2e-4)
    influence = np.array(moved)
    robust = fit_cox(x, surv, ties="breslow", cases=Cases(clusters=np.arange(n)))
    assert robust.robust and robust.covariance == pytest.approx(influence.T @ influence, rel=1e-5)
    pairs = np.arange(n) // 2
    sums = influence[::2] + influence[1::2]
    clustered = fit_cox(x, surv, ties="breslow", cases=Cases(clusters=pairs))
    assert clustered.covariance == pytest.approx(sums.T @ sums, rel=1e-5)
    twice = np.repeat(np.arange(n), 2)
    again = fit_cox(x[twice], surv.take(twice), ties="breslow", cases=Cases(clusters=twice))
    assert again.covariance == pytest.approx(robust.covariance, rel=1e-8)


@ties_of
def test_survival_interval_is_the_delta_method(ties):
    """The standard error of log(-log S) has the derivative of the log hazard by the coefficients, found by fitting the
    baseline again at shifted ones, and the Nelson-Aalen variance of a null model."""
    x, surv = _cohort(13, n=100)
    fit, month, row = fit_cox(x, surv, ties=ties), 6.0, x[3:4]
    low, high = fit.survival_interval(row, [month])
    assert low < fit.survival(row, [month]) < high
    slopes = []
    for j in range(2):
        values = []
        for step in (1e-5, -1e-5):
            beta = fit.coef + step * np.eye(2)[j]
            null = fit_cox(np.zeros((100, 0)), surv, ties=ties, cases=Cases(offset=x @ beta))
            hazard = -np.log(null.survival(np.zeros((1, 0)), [month]))[0, 0]
            values.append(np.log(hazard) + row[0] @ beta)
        slopes.append((values[0] - values[1]) / 2e-5)
    null = fit_cox(np.zeros((100, 0)), surv, ties=ties, cases=Cases(offset=x @ fit.coef))
    last = np.searchsorted(null.baseline.time_months, month, side="right") - 1
    fixed = null.baseline.log_variance[last]
    se = np.sqrt(fixed + np.array(slopes) @ fit.covariance @ slopes)
    ours = np.log(np.log(low) / np.log(high))[0, 0] / (2 * 1.959963984540054)
    assert ours == pytest.approx(se, rel=1e-6)


def test_nothing_is_said_beyond_the_follow_up():
    """Survival is 1 before the first event and nan after the last follow-up, never extrapolated."""
    x, surv = _cohort(2)
    fit = fit_cox(x, surv)
    assert fit.survival(x[:2], [0.01]).tolist() == [[1.0], [1.0]]
    assert np.isfinite(fit.survival(x[:2], [surv.time_months.max()])).all()
    assert np.isnan(fit.survival(x[:2], [surv.time_months.max() + 0.1])).all()


def test_json_round_trip():
    """A fit written to JSON and read again predicts the same to the last bit."""
    x, surv = _cohort(4)
    fit = fit_cox(x, surv, names=["a", "b"], cases=Cases(strata=np.arange(60) % 2))
    again = CoxFit.from_dict(json.loads(json.dumps(fit.as_dict())))
    for one, other in zip(fit.survival_interval(x, [3.0, 7.0], stratum="1"),
                          again.survival_interval(x, [3.0, 7.0], stratum="1"), strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    assert again.hazard_ratios() == fit.hazard_ratios() and again.problems == fit.problems


def _codes(fit):
    return {problem.code for problem in fit.problems}


def test_level_without_events_is_said():
    """A level nobody died in has no hazard ratio (never 0.000), is named, and keeps its degree of freedom."""
    x, surv = _cohort(21)
    none = (np.arange(60) % 5 == 0).astype(float)
    surv = Survival(surv.time_months, surv.event & (none == 0))
    fit = fit_cox(np.column_stack([x[:, 1], none]), surv, names=["score", "rare"])
    assert fit.monotone == ("rare",) and "W-NOEVENTLEVEL" in _codes(fit) and fit.converged
    assert np.isnan(fit.hazard_ratios()["rare"].value) and np.isfinite(fit.hazard_ratios()["score"].value)
    assert fit.wald().df == 2 and fit.wald(["rare"]).p > 0.9


def test_separation_is_said():
    """A column that orders the deaths perfectly is W-SEPARATION."""
    time = np.arange(1.0, 21.0)
    fit = fit_cox(-time, Survival(time, np.ones(20)), names=["perfect"])
    assert "W-SEPARATION" in _codes(fit) and fit.monotone == ("perfect",)
    assert not _codes(fit_cox(*_cohort(1))) & {"W-SEPARATION", "W-NOEVENTLEVEL", "W-NOTCONVERGED"}


def test_constant_and_repeated_columns_are_dropped():
    """Columns that say nothing are named and dropped; the others and the likelihood are as without them."""
    x, surv = _cohort(6)
    more = np.column_stack([x[:, 0], np.full(60, 7.0), x[:, 1], x[:, 0] - 2 * x[:, 1]])
    fit, plain = fit_cox(more, surv, names=["a", "same", "b", "sum"]), fit_cox(x, surv)
    assert fit.dropped == ("same", "sum") and fit.df == 2
    assert fit.coef[[0, 2]] == pytest.approx(plain.coef, abs=1e-9) and fit.loglik == pytest.approx(plain.loglik)
    assert [p.where for p in fit.problems if p.code == "W-CONSTANT"] == ["column same", "column sum"]
    assert np.isnan(fit.hazard_ratios()["same"].value) and fit.wald().df == 2


def test_few_events_per_column_are_said():
    """Fewer than ten events per column is W-EPV; enough is silence."""
    x, surv = _cohort(7, n=400)
    assert not fit_cox(x, surv).problems
    assert _codes(fit_cox(x[:20], surv.take(np.arange(20)))) == {"W-EPV"}


def test_all_at_one_time():
    """Everyone dying at one time still has a likelihood: d log n for Breslow, log n! for Efron."""
    surv = Survival(np.full(6, 3.0), np.ones(6))
    x = np.array([0.0, 1, 0, 1, 1, 0])
    assert fit_cox(x, surv, ties="breslow").loglik_null == pytest.approx(-6 * np.log(6))
    assert fit_cox(x, surv).loglik_null == pytest.approx(-np.log(720))


@pytest.mark.parametrize(("change", "code"), [
    ({"surv": Survival([1.0, 2, 3, 4], np.zeros(4))}, "E-NOEVENTS"),
    ({"surv": Survival([1.0, 2, 3, 4], [1, 0, 0, 0])}, "E-FEWEVENTS"),
    ({"x": [1.0, 2.0]}, "E-LENGTH"),
    ({"x": [1.0, np.nan, 2, 3]}, "E-MISSING"),
    ({"names": ["a", "b"]}, "E-LENGTH"),
    ({"cases": Cases(weights=[1.0, -1, 1, 1])}, "E-CASEWEIGHTS"),
    ({"cases": Cases(weights=[1.0, 1])}, "E-LENGTH"),
    ({"cases": Cases(offset=[1.0, np.inf, 1, 1])}, "E-MISSING"),
    ({"cases": Cases(strata=["a"])}, "E-LENGTH"),
])
def test_wrong_input_has_a_code(change, code):
    """Each mistake of the caller is a typed error with its code."""
    good = {"x": [1.0, 0.0, 2.0, 1.0], "surv": Survival([1.0, 2, 3, 4], [1, 1, 1, 0])}
    with pytest.raises(MtdlrError, match=code):
        fit_cox(**(good | change))


def test_prediction_needs_the_columns_of_the_fit():
    """A matrix with other columns is E-LENGTH, not a silent product."""
    fit = fit_cox(*_cohort(1))
    with pytest.raises(FitError, match="E-LENGTH"):
        fit.log_hazard(np.ones((3, 5)))


def test_hazard_ratio_level():
    """The Wald interval is exp(b -+ z se) at the level asked for."""
    fit = replace(fit_cox(*_cohort(1)), coef=np.array([1.0, 0.0]), covariance=np.diag([0.25, 1.0]))
    estimate = fit.hazard_ratios(level=0.9)["x1"]
    wanted = np.exp([1.0, 1 - 1.6448536 / 2, 1 + 1.6448536 / 2])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(wanted)
    assert estimate.p == pytest.approx(0.0455003)


# The paper's cohorts: patients and events by level (Table 1; the events are implied by the standard errors of Table 2);
# which level has no event. The reference level comes first.
FACTORS = {
    ("training", "tnm_stage"): ([416, 106], [93, 34], None),
    ("internal", "tnm_stage"): ([97, 33], [16, 8], None),
    ("external", "tnm_stage"): ([189, 45], [32, 13], None),
    ("training", "ebv"): ([92, 346, 84], [28, 76, 23], None),
    ("training", "t_stage"): ([133, 52, 289, 48], [36, 11, 67, 13], None),
    ("internal", "histology"): ([114, 2, 14], [21, 0, 3], 1),
    ("external", "histology"): ([226, 2, 6], [44, 0, 1], 1),
    ("external", "t_stage"): ([68, 29, 128, 9], [10, 4, 31, 0], 3),
}


def _constant_hazards(sizes, events, end=60.0):
    """Exponential quantiles in each level, everyone else followed to the end."""
    time, event, level = [], [], []
    for code, (n, d) in enumerate(zip(sizes, events, strict=True)):
        share = (np.arange(1, d + 1) - 0.5) / n
        rate = -np.log(1 - d / n) / end if d else 1.0
        time += [*(-np.log(1 - share) / rate), *np.full(n - d, end)]
        event += [1] * d + [0] * (n - d)
        level += [code] * n
    indicator = (np.array(level)[:, None] == np.arange(1, len(sizes))).astype(float)
    return indicator, Survival(time, event)


@pytest.mark.parametrize(("cohort", "factor"), list(FACTORS))
def test_factor_rows_of_table_2(cohort, factor):
    """A cohort with Table 1's sizes and event counts gives Table 2's row: the standard error sqrt(1/d + 1/d_ref) of
    each level, k - 1 degrees of freedom with eventless levels counted, and a word instead of HR 0.000."""
    sizes, events, empty = FACTORS[cohort, factor]
    fit = fit_cox(*_constant_hazards(sizes, events), ties="breslow")
    assert fit.wald().df == len(sizes) - 1
    for j, d in enumerate(events[1:]):
        if d:
            assert fit.se[j] == pytest.approx(np.sqrt(1 / d + 1 / events[0]), rel=0.02)
        else:
            assert fit.names[j] in fit.monotone and j + 1 == empty
    if factor == "tnm_stage":
        printed = {"training": (1.541, 1.041, 2.283), "internal": (1.457, 0.624, 3.405),
                   "external": (1.839, 0.965, 3.505)}
        ours = fit.hazard_ratios()["x1"]
        wanted = printed[cohort]
        assert ours.high / ours.low == pytest.approx(wanted[2] / wanted[1], rel=0.03)
        assert ours.value == pytest.approx(wanted[0], rel=0.08)


# Table 2 of the paper: events of the reference level (implied by the standard errors), the ratios with their intervals
# that it prints for the other levels (None: no event there), and the overall P of its header row.
OVERALL: dict[tuple[str, str], tuple[int, list[tuple[float, float, float] | None], float]] = {
    ("ebv", "training"): (28, [(0.668, 0.433, 1.030), (0.847, 0.487, 1.472)], 0.161),
    ("ebv", "internal"): (6, [(1.127, 0.437, 2.905), (0.549, 0.136, 2.212)], 0.527),
    ("ebv", "external"): (4, [(2.050, 0.720, 5.832), (3.558, 1.145, 11.051)], 0.068),
    ("histology", "training"): (114, [(2.483, 0.613, 10.052), (0.879, 0.473, 1.632)], 0.399),
    ("histology", "internal"): (21, [None, (1.079, 0.321, 3.627)], 0.992),
    ("histology", "external"): (44, [None, (0.749, 0.103, 5.441)], 0.96),
    ("t_stage", "training"): (36, [(0.770, 0.392, 1.513), (0.849, 0.566, 1.272), (1.024, 0.543, 1.931)], 0.773),
    ("t_stage", "internal"): (4, [(1.596, 0.357, 7.133), (2.122, 0.698, 6.452), (1.953, 0.437, 8.734)], 0.61),
    ("t_stage", "external"): (10, [(0.911, 0.286, 2.906), (1.726, 0.846, 3.520), None], 0.364),
    ("n_stage", "training"): (21, [(0.552, 0.223, 1.369), (0.512, 0.287, 0.915), (0.691, 0.426, 1.121)], 0.145),
    ("n_stage", "internal"): (5, [None, (1.075, 0.352, 3.289), (0.564, 0.196, 1.624)], 0.515),
    ("n_stage", "external"): (13, [(0.396, 0.052, 3.027), (0.585, 0.267, 1.282), (0.347, 0.172, 0.704)], 0.032),
}


@pytest.mark.parametrize(("factor", "cohort"), list(OVERALL))
def test_overall_p_of_the_factors_of_table_2(factor, cohort):
    """The overall P that the paper prints is our Wald test of the printed ratios with k - 1 degrees of freedom,
    eventless levels counted: variances from the printed intervals, covariance 1/d of the reference level."""
    reference, ratios, printed = OVERALL[factor, cohort]
    coef = np.array([np.log(row[0]) if row else -10.0 for row in ratios])
    variance = [(np.log(row[2] / row[1]) / 3.92) ** 2 if row else 1e6 for row in ratios]
    covariance = np.full((len(ratios), len(ratios)), 1 / reference)
    np.fill_diagonal(covariance, variance)
    some_fit = fit_cox(*_constant_hazards([9] * (len(ratios) + 1), [5] * (len(ratios) + 1)))
    test = replace(some_fit, coef=coef, covariance=covariance).wald()
    assert test.df == len(ratios)
    assert test.p == pytest.approx(printed, abs=0.003)
