"""AUC(t), coefficients over time, net benefit with intervals: R's tables, scikit-survival and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from mtdlr.errors import TableError
from mtdlr.stats.auc_curve import auc_curve, curve_months
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_residuals import cox_residuals
from mtdlr.stats.decision import decision_curve
from mtdlr.stats.hazard_trend import hazard_trends
from mtdlr.stats.net_benefit import compare_net_benefit, net_benefit
from mtdlr.survival import Survival


def _cohort(n: int, seed: int = 0, censored: float = 0.5) -> tuple[np.ndarray, Survival]:
    """A risk and follow-up in months without ties."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    event_time = rng.exponential(60.0, n) / np.exp(risk)
    leaves = rng.exponential(60.0 / censored, n) if censored else np.full(n, np.inf)
    return risk, Survival(np.minimum(event_time, leaves), event_time <= leaves)


def test_auc_over_time_is_scikit_survivals() -> None:
    """AUC(t) at every month, and their weighted mean, equal scikit-survival's without ties in time."""
    metrics = pytest.importorskip("sksurv.metrics")
    risk, surv = _cohort(300)
    y = np.array(list(zip(surv.event, surv.time_months, strict=True)), dtype=[("e", bool), ("t", float)])
    months = np.linspace(10, 60, 8)
    auc, mean = metrics.cumulative_dynamic_auc(y, y, risk, months)
    found = auc_curve(risk, surv, months)
    assert found.auc == pytest.approx(auc, abs=1e-10)
    assert found.mean == pytest.approx(mean, abs=1e-10)
    assert ((found.low < found.auc) & (found.auc < found.high)).all()


def test_auc_over_time_is_timerocs(reference):  # type: ignore[no-untyped-def]
    """One risk's AUC(t) at several months equals timeROC's in R where the same prediction ranks the patients there."""
    parts = reference.numbers("calibration_td")
    model = "full" if "full" in parts else next(name for name in parts if f"{name}_risk36" in reference.predicted_risk)
    part = parts[model]
    months = sorted(block["horizon"] for key, block in part.items() if key != "terms")
    month = months[1]
    risk = reference.predicted_risk[f"{model}_risk{month}"]
    found = auc_curve(risk, reference.surv, months)
    assert found.auc[1] == pytest.approx(part[f"t{month}"]["timeROC"]["auc"], abs=1e-8)
    assert (found.auc > 0.5).all()


def test_months_of_the_curve_have_events_before_and_patients_after() -> None:
    """The curve begins at the fifth event and ends where five patients are left."""
    _, surv = _cohort(100)
    months = curve_months(surv)
    assert (surv.event & (surv.time_months <= months[0])).sum() == 5
    assert (surv.time_months >= months[-1]).sum() >= 5
    assert curve_months(Survival(np.arange(1.0, 30.0), np.zeros(29))).size == 0


def test_trend_is_the_natural_spline_of_the_residuals() -> None:
    """The curve is the least-squares natural cubic spline, as solved with B-splines whose ends are forced straight."""
    risk, surv = _cohort(250, 2)
    fit = fit_cox(risk, surv, names=["risk"])
    trend = hazard_trends(fit, risk, surv)["risk"]
    residual = cox_residuals(fit, risk, surv).scaled_schoenfeld[:, 0]
    order = np.argsort(surv.time_months)
    before = np.cumprod(1 - surv.event[order] / np.arange(len(surv), 0, -1))
    scale = (1 - np.concatenate(([1.0], before[:-1])))[surv.event[order]]
    points = np.linspace(scale.min(), scale.max(), 40)
    knots = np.quantile(np.concatenate((points, scale)), [0, 1 / 3, 2 / 3, 1])
    full = np.concatenate((np.repeat(knots[0], 3), knots, np.repeat(knots[-1], 3)))

    def design(at: np.ndarray, order: int = 0) -> np.ndarray:
        return np.column_stack([BSpline(full, row, 3)(at, nu=order) for row in np.eye(full.size - 4)])

    a, b, c = design(scale), residual, design(knots[[0, -1]], 2)
    kkt = np.block([[a.T @ a, c.T], [c, np.zeros((2, 2))]])
    coef = np.linalg.solve(kkt, np.concatenate((a.T @ b, [0.0, 0.0])))[: a.shape[1]]
    assert trend.smooth == pytest.approx(design(points) @ coef, abs=1e-6)
    assert trend.grid[0] == pytest.approx(surv.time_months[surv.event].min())


def test_trend_finds_an_effect_that_fades() -> None:
    """An effect of 1 that ends at month 10 has a curve above the constant effect at the start and below later on."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 2, 3000).astype(float)
    early = rng.exponential(40.0, 3000) / np.exp(x)
    time = np.where(early < 10, early, 10 + rng.exponential(20.0, 3000))
    surv = Survival(time, np.ones(3000))
    trend = hazard_trends(fit_cox(x, surv, names=["x"]), x, surv)["x"]
    assert trend.low[0] > trend.coef > trend.high[25]
    assert trend.smooth[:5].mean() == pytest.approx(1.0, abs=0.25)


def test_trend_with_few_events_is_a_line_or_nothing() -> None:
    """Eight events carry a straight line, two nothing."""
    risk, surv = _cohort(40, 5)
    eight = Survival(surv.time_months, surv.event & (np.cumsum(surv.event) <= 8))
    trend = hazard_trends(fit_cox(risk, eight, names=["r"]), risk, eight)["r"]
    assert np.isfinite(trend.smooth).all()
    two = Survival(surv.time_months, surv.event & (np.cumsum(surv.event) <= 2))
    assert hazard_trends(fit_cox(risk, two, names=["r"]), risk, two) == {}


def test_net_benefit_is_the_decision_curves() -> None:
    """The value at each threshold is that of `decision_curve`, which equals dcurves in R."""
    risk, surv = _cohort(300, 6)
    survival = np.exp(-0.3 * np.exp(risk))
    thresholds = [0.1, 0.3, 0.5, 0.9]
    curve = decision_curve(survival, surv, 36, thresholds=thresholds)
    assert net_benefit(survival, surv, 36, thresholds).value == pytest.approx(curve.net_benefit, abs=1e-12)
    everyone = net_benefit(np.zeros(300), surv, 36, thresholds)
    assert everyone.value == pytest.approx(curve.treat_all, abs=1e-12)


def test_net_benefit_without_censoring_is_a_mean() -> None:
    """Without censoring the standard error is that of the mean of (event - odds x non-event) among the treated."""
    risk, surv = _cohort(200, 7, censored=0.0)
    survival = np.exp(-0.3 * np.exp(risk))
    event, treated = surv.time_months <= 36, survival <= 0.7
    each = np.where(treated, np.where(event, 1.0, -0.3 / 0.7), 0.0)
    found = net_benefit(survival, surv, 36, [0.3])
    assert (found.value[0], found.se[0]) == pytest.approx((each.mean(), each.std(ddof=1) / np.sqrt(200)), abs=1e-10)


@pytest.mark.slow
def test_net_benefit_difference_has_the_error_of_a_bootstrap() -> None:
    """With censoring the standard error of a difference agrees with that over 400 resamples of the patients."""
    risk, surv = _cohort(400, 8)
    rng = np.random.default_rng(1)
    a, b = np.exp(-0.3 * np.exp(risk)), np.exp(-0.3 * np.exp(risk + rng.normal(size=400)))
    thresholds = [0.2, 0.4]
    found = compare_net_benefit(a, b, surv, 36, thresholds)
    draws = []
    for rows in rng.integers(0, 400, (400, 400)):
        one, two = (net_benefit(s[rows], surv.take(rows), 36, thresholds).value for s in (a, b))
        draws.append(one - two)
    assert found.se == pytest.approx(np.std(draws, axis=0), rel=0.12)
    assert compare_net_benefit(a, a, surv, 36, thresholds).se == pytest.approx([0.0, 0.0], abs=1e-15)


def test_net_benefit_beyond_follow_up_is_not_known() -> None:
    """Where the positives are not followed to the month, the net benefit is nan; a threshold of 1 is an error."""
    risk, surv = _cohort(50, 9)
    short = Survival(np.minimum(surv.time_months, 20.0), surv.event & (surv.time_months < 20.0))
    assert np.isnan(net_benefit(np.exp(-np.exp(risk)), short, 36, [0.2]).value).all()
    with pytest.raises(TableError):
        net_benefit(np.full(50, 0.5), surv, 36, [1.0])
