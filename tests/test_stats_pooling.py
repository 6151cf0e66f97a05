"""Pooling over centres against metafor's worked example, and what must hold of any pooling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mtdlr.errors import FitError
from mtdlr.stats.pooling import pool

# Colditz et al. 1994 (R: metafor::dat.bcg): (tpos, tneg, cpos, cneg) of 13 trials.
BCG = np.array([
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
    (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825)], float)


def _log_risk_ratios() -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = BCG.T
    return np.log(a / (a + b) / (c / (c + d))), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))


def test_equals_metafor() -> None:
    """metafor: rma(method = "REML", test = "knha") of the BCG trials, to the digits that its manual prints."""
    found = pool(*_log_risk_ratios(), null=0.0)
    assert (round(found.value.value, 4), round(found.tau2, 4)) == (-0.7145, 0.3132)
    assert (round(100 * found.i2, 2), round(found.heterogeneity.statistic, 3)) == (92.22, 152.233)
    assert (found.heterogeneity.df, found.heterogeneity.p < 0.0001) == (12, True)


def test_between_centre_variance_maximises_the_restricted_likelihood() -> None:
    """The scoring ends where a direct search of the REML criterion ends."""
    y, se = _log_risk_ratios()

    def criterion(tau2: float) -> float:
        w = 1 / (se**2 + tau2)
        mean = (w * y).sum() / w.sum()
        return float(-np.log(w).sum() + np.log(w.sum()) + (w * (y - mean) ** 2).sum())

    best = minimize_scalar(criterion, bounds=(0, 2), method="bounded", options={"xatol": 1e-10}).x
    assert pool(y, se).tau2 == pytest.approx(best, abs=1e-7)


def test_interval_is_hartung_knapp() -> None:
    """By hand for centres of equal precision: mean, t quantile of k - 1, spread over the root of k."""
    y = np.array([0.1, 0.5, 0.3, 0.9])
    found = pool(y, np.full(4, 0.05), null=0.0)
    half = 3.182446305 * y.std(ddof=1) / 2
    np.testing.assert_allclose([found.value.value, found.value.low, found.value.high],
                               [0.45, 0.45 - half, 0.45 + half], rtol=1e-8)
    assert found.tau2 == pytest.approx(y.var(ddof=1) - 0.0025)
    assert found.prediction[0] < found.value.low


def test_log_and_logit_scales() -> None:
    """O/E is averaged on the log, C on the logit scale, with errors carried by the delta method."""
    ratio = pool([0.5, 2.0], [0.05, 0.2], scale="log", null=1.0)
    assert ratio.value.value == pytest.approx(1.0)
    c = pool([0.6, 0.6, 0.6], [0.02, 0.03, 0.04], scale="logit")
    assert (c.value.value, c.tau2, c.i2) == (pytest.approx(0.6), 0.0, 0.0)
    assert 0 < c.value.low <= c.value.high < 1


def test_order_of_centres_does_not_matter() -> None:
    """A shuffled list of centres gives the same pooled value."""
    y, se = _log_risk_ratios()
    order = np.random.default_rng(0).permutation(y.size)
    assert pool(y[order], se[order]).value.value == pytest.approx(pool(y, se).value.value, rel=1e-12)


def test_one_centre_keeps_its_own_interval() -> None:
    """One centre is returned as it is, without heterogeneity, and warned of."""
    found = pool([0.7], [0.05])
    assert (found.value.value, found.value.low) == (0.7, pytest.approx(0.602, abs=1e-3))
    assert [p.code for p in found.problems] == ["W-POOLFEW"]


def test_centres_without_a_number_do_not_count() -> None:
    """A centre whose measure could not be computed is left out; none at all is an error."""
    assert pool([0.7, np.nan, 0.8], [0.05, 0.1, 0.0]).centers == 1
    with pytest.raises(FitError, match="E-POOL"):
        pool([np.nan], [0.1])
    with pytest.raises(FitError, match="E-OPTION"):
        pool([0.7], [0.1], scale="probit")  # type: ignore[arg-type]


def test_a_slope_of_one_or_nought_is_a_number_like_others() -> None:
    """On the identity and the log scale 1 is inside, and so is a slope of 0: nothing of the other scales is computed
    there, which would divide by 0."""
    assert pool([1.0, 1.0], [0.2, 0.2]).value.value == pytest.approx(1.0)
    assert pool([0.0, 0.0], [0.2, 0.2]).value.value == pytest.approx(0.0)
    assert pool([1.0, 1.0], [0.2, 0.2], scale="log").value.value == pytest.approx(1.0)
