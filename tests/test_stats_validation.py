"""Bootstrap validation and calibration against R's rms, resample for resample, and against their definitions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mtdlr.errors import FitError
from mtdlr.stats import (
    Cases,
    Continuous,
    Design,
    Factor,
    calibrate_bootstrap,
    concordance,
    fit_cox,
    kaplan_meier,
    validate_bootstrap,
)
from mtdlr.stats.optimism import RefittedModel
from mtdlr.survival import Survival

REFERENCE = Path(__file__).parent / "reference"


def _r_resamples(seed, n, count):
    """The rows R draws after set.seed(seed) with `count` calls of sample(n, replace = TRUE), from 0.

    R scrambles the seed with a linear congruence, fills the Mersenne Twister, and takes whole numbers by rejection from
    as many bits as n needs (R >= 3.6).
    """
    state = seed
    for _ in range(50):
        state = (69069 * state + 1) % 2**32
    words = []
    for _ in range(625):
        state = (69069 * state + 1) % 2**32
        words.append(state)
    twister = np.random.MT19937()
    values = twister.state
    values["state"] = {"key": np.array(words[1:], dtype=np.uint32), "pos": 624}
    twister.state = values
    bits = int(np.ceil(np.log2(n)))

    def whole():
        while True:
            drawn = 0
            for _ in range(0, bits + 1, 16):
                drawn = 65536 * drawn + int(twister.random_raw() * 2.3283064365386963e-10 * 65536)
            if drawn % 2**bits < n:
                return drawn % 2**bits

    return np.array([[whole() for _ in range(n)] for _ in range(count)])


def _model(reference):
    numbers, levels = reference.numbers("validation"), reference.numbers("cox")["levels"]
    design = Design(tuple(Factor(n, tuple(levels[n]), levels[n][0]) if n in levels else Continuous(n)
                          for n in numbers["terms"]))
    return numbers, design.matrix(reference.columns)


def _columns(table):
    return np.column_stack([table.apparent, table.training, table.test, table.optimism, table.corrected])


def test_rs_random_numbers():
    """set.seed(42); sample(10, replace = TRUE) is 1 5 1 9 10 4 2 10 1 8 in every R since 3.6."""
    assert (_r_resamples(42, 10, 1)[0] + 1).tolist() == [1, 5, 1, 9, 10, 4, 2, 10, 1, 8]


def test_c_with_fixed_resamples(reference, agrees):
    """The C-index of each resample's model, its optimism and the corrected C are R's on the same resamples."""
    numbers, x = _model(reference)
    packed = REFERENCE / f"{reference.name}__bootidx_main.csv.gz"
    rows = np.loadtxt(gzip.decompress(packed.read_bytes()).decode().splitlines(), delimiter=",").astype(int) - 1
    c, fixed = validate_bootstrap(x, reference.surv, indices=rows).row("c"), numbers["fixed"]
    agrees("bootstrap C, fixed resamples", "coxph, concordance",
           [c["apparent"], c["training"], c["test"], c["optimism"], c["corrected"]],
           [fixed["c_apparent"], np.mean(fixed["c_boot"]), np.mean(fixed["c_orig"]), fixed["optimism"],
            fixed["c_corrected"]], within=1e-10)


@pytest.mark.slow
def test_validate_is_rms(reference, agrees):
    """All seven measures, on the very resamples R drew from its seed, are rms::validate's; cph stops its fits early
    (eps = 1e-4), which is the difference."""
    numbers, x = _model(reference)
    r = numbers["validate"]
    ours = validate_bootstrap(x, reference.surv, indices=_r_resamples(r["seed"], len(reference.surv), r["B"]))
    assert ours.failed == 0
    agrees("validate, apparent", "rms::validate", ours.table.apparent, np.array(r["table"])[:, 0])
    agrees("validate, R's resamples", "rms::validate", _columns(ours.table), r["table"], within=2e-4)
    assert ours.c.value == pytest.approx(r["optimism_corrected_C"], abs=2e-4)
    assert ours.c.low < ours.c.value < ours.c.high


@pytest.mark.slow
def test_validate_with_our_own_resamples_is_close_to_rms(reference, agrees):
    """With our random numbers and ten times the resamples, the corrected measures are within chance of R's."""
    numbers, x = _model(reference)
    ours = validate_bootstrap(x, reference.surv, n_resamples=1000, seed=1).table.corrected
    theirs = np.array(numbers["validate"]["table"])[:, 4]
    agrees("validate, our resamples: dxy, r2, d, u, q", "rms::validate", ours[[0, 1, 3, 4, 5]], theirs[[0, 1, 3, 4, 5]],
           within=0.01)


@pytest.mark.slow
def test_calibrate_is_rms(reference, agrees):
    """By groups of predicted survival, on R's resamples, rms::calibrate(cmethod = "KM") gives our numbers.

    A patient whose prediction is the cut itself goes to the upper group here; in R rounding decides, which moves one
    patient in gbsg (tied predictions) and npc_ext, so those are compared on the optimism only.
    """
    numbers, x = _model(reference)
    for horizon, r in numbers["calibrate"].items():
        table = np.array([[np.nan if v is None else v for v in row] for row in r["KM"]["table"]], dtype=float)
        resamples = _r_resamples(r["seed"], len(reference.surv), r["B"])
        ours = calibrate_bootstrap(x, reference.surv, float(horizon[1:]), indices=resamples,
                                   n_groups=len(reference.surv) // r["m"])
        groups = ours.groups
        agrees("calibrate, optimism by group", "rms::calibrate",
               np.column_stack([groups.training, groups.test, groups.optimism]), table[:, 1:4], within=2e-3)
        if reference.name not in ("gbsg", "npc_ext"):
            agrees("calibrate, apparent by group", "rms::calibrate", np.column_stack(
                [groups.apparent, ours.group_predicted, ours.group_observed, ours.group_se]),
                table[:, [0, 6, 7, 9]], within=2e-6)
            agrees("calibrate, corrected by group", "rms::calibrate", np.column_stack(
                [groups.corrected, ours.group_corrected]), table[:, [4, 8]], within=2e-3)


def _cohort(seed=0, n=120):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 2))
    return x, Survival(np.ceil(random.exponential(np.exp(-x[:, 0])) * 20), random.random(n) < 0.7)


def test_measures_of_one_resample_by_definition():
    """One resample: refit on its rows, judge there and on everyone, with the public functions."""
    x, surv = _cohort(1)
    rows = np.random.default_rng(5).integers(0, 120, (1, 120))
    table = validate_bootstrap(x, surv, indices=rows).table
    fit = fit_cox(x[rows[0]], surv.take(rows[0]))
    eta = x @ fit.coef
    test = fit_cox(eta, surv)
    frozen = fit_cox(np.zeros((120, 0)), surv, cases=Cases(offset=eta)).loglik
    dxy = 2 * concordance(eta, surv).c.value - 1
    null = -2 * test.loglik_null
    d = (test.likelihood_ratio.statistic - 1) / null
    u = 2 * (test.loglik - frozen) / null
    r2 = (1 - np.exp(-test.likelihood_ratio.statistic / 120)) / (1 - np.exp(-null / 120))
    slope = test.coef[0]
    gini = np.abs(eta[:, None] - eta).sum() / (120 * 119) * slope
    assert table.test == pytest.approx([dxy, r2, slope, d, u, d - u, gini], abs=1e-8)
    trained = 2 * concordance(eta[rows[0]], surv.take(rows[0])).c.value - 1
    assert table.training[0] == pytest.approx(trained, abs=1e-10)
    assert table.training[2] == 1 and table.corrected == pytest.approx(table.apparent - table.training + table.test)


def test_groups_by_definition():
    """Mean prediction, Kaplan-Meier and its standard error of each group are those of its own patients."""
    x, surv = _cohort(2)
    ours = calibrate_bootstrap(x, surv, 12.0, n_groups=4, n_resamples=3)
    predicted = fit_cox(x, surv).survival(x, [12.0])[:, 0]
    cuts = np.quantile(np.append(predicted, [0, 1]), [0.25, 0.5, 0.75])
    group = np.searchsorted(cuts, predicted, side="right")
    for g in range(4):
        curve = kaplan_meier(surv.take(group == g))
        observed = np.append(1.0, curve.survival)[np.searchsorted(curve.time, 12.0, side="right")]
        assert ours.group_n[g] == (group == g).sum()
        assert ours.group_predicted[g] == pytest.approx(predicted[group == g].mean())
        assert ours.group_observed[g] == pytest.approx(observed, abs=1e-12)
    assert ours.groups.apparent == pytest.approx(ours.group_observed - ours.group_predicted)


def test_those_censored_between_events_join_the_earlier_event():
    """The groups of a resample are the event times and no more, and predictions are those of `fit_cox` all the same."""
    x, surv = _cohort(2)
    model = RefittedModel.checked(x, surv, "efron")
    assert model.rows.fresh.size <= np.unique(surv.time_months[surv.event]).size + 1 < np.unique(surv.time_months).size
    for month in (3.0, 12.0):
        survival = fit_cox(x, surv).survival(x, [month])[model.order, 0]
        assert np.exp(-np.exp(model.scale_at(np.ones(len(surv)), month))) == pytest.approx(survival, abs=1e-10)


def test_curve_of_a_true_model_is_near_the_diagonal():
    """Where the model is right and patients are many, curve and groups leave the diagonal by little, and the optimism
    of a two-column model is small."""
    x, surv = _cohort(3, n=2000)
    ours = calibrate_bootstrap(x, surv, 12.0, n_resamples=20)
    assert ours.mean_absolute_error < 0.03 and np.abs(ours.curve.optimism).max() < 0.02
    assert np.abs(ours.groups.corrected).max() < 0.07
    assert ours.observed == pytest.approx(ours.predicted + ours.curve.apparent)
    assert ours.corrected == pytest.approx(ours.observed - ours.curve.optimism)


def test_noise_has_optimism():
    """Ten columns of noise look predictive on their own patients and are not once corrected."""
    random = np.random.default_rng(4)
    surv = Survival(random.exponential(size=80) + 0.01, random.random(80) < 0.7)
    ours = validate_bootstrap(random.normal(size=(80, 10)), surv, n_resamples=200)
    c = ours.row("c")
    assert c["apparent"] > 0.6 and abs(c["corrected"] - 0.5) < 0.08 and ours.row("slope")["corrected"] < 0.6


def test_seed_decides():
    """The same seed gives the same numbers, another seed others."""
    x, surv = _cohort(5)
    one, same, other = (validate_bootstrap(x, surv, n_resamples=20, seed=s).table.corrected for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_resamples_without_a_fit_are_counted():
    """A resample in which a column has no finite coefficient is left out and counted."""
    x, surv = _cohort(6, n=40)
    rare = np.zeros(40)
    rare[np.flatnonzero(surv.event)[:1]] = 1
    rare[np.flatnonzero(~surv.event)[:1]] = 1
    ours = validate_bootstrap(np.column_stack([x, rare]), surv, n_resamples=50)
    assert 5 < ours.failed < 45 and ours.resamples == 50 and np.isfinite(ours.table.corrected).all()
    (problem,) = ours.problems
    assert problem.code == "W-RESAMPLES" and problem.found == f"{ours.failed} of 50 ({2 * ours.failed} %)"
    assert "Firth" in problem.remedy
    assert validate_bootstrap(x, surv, n_resamples=5).problems == ()
    month = float(np.median(surv.time_months))
    assert calibrate_bootstrap(np.column_stack([x, rare]), surv, month, n_resamples=20).problems


GOOD = _cohort(7, n=30)


@pytest.mark.parametrize(("call", "code"), [
    (lambda: validate_bootstrap(GOOD[0], Survival(GOOD[1].time_months, np.zeros(30))), "E-NOEVENTS"),
    (lambda: validate_bootstrap(*GOOD, n_resamples=0), "E-RESAMPLES"),
    (lambda: validate_bootstrap(*GOOD, indices=[[31] * 30]), "E-RESAMPLES"),
    (lambda: calibrate_bootstrap(*GOOD, 1e4), "E-FOLLOWUP"),  # type: ignore[call-arg]
    (lambda: calibrate_bootstrap(*GOOD, 1e-4), "E-FOLLOWUP"),  # type: ignore[call-arg]
])
def test_wrong_input_has_a_code(call, code):
    """Each mistake of the caller is a FitError with its code."""
    with pytest.raises(FitError, match=code):
        call()
