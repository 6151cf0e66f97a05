"""ROC curve of a status: AUC, DeLong, Youden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, TableError
from mtdlr.stats.roc import at_threshold, delong, roc, youden

steady = settings(deadline=None, derandomize=True, max_examples=30)
patients = st.lists(st.tuples(st.integers(-5, 5), st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(r[1] for r in rows) < len(rows))


def _split(rows):
    a, status, b = (np.array(column) for column in zip(*rows, strict=True))
    return a.astype(float), b.astype(float), status


@steady
@given(patients)
def test_auc_is_mann_whitney(rows):
    """The AUC is U / (m n): the share of pairs in which the patient with the outcome has the higher risk."""
    risk, _, status = _split(rows)
    u = np.sign(risk[status][:, None] - risk[~status]) / 2 + 0.5
    assert roc(risk, status).auc.value == pytest.approx(u.mean())


@steady
@given(patients)
def test_auc_is_the_area_under_its_curve(rows):
    """The trapezoids under the curve give the AUC, and the curve falls from (1, 0) to (0, 1)."""
    curve = roc(*_split(rows)[::2])
    assert np.trapezoid(curve.sensitivity[::-1], 1 - curve.specificity[::-1]) == pytest.approx(curve.auc.value)
    assert (np.diff(curve.sensitivity) <= 1e-12).all() and (np.diff(curve.specificity) >= -1e-12).all()
    assert curve.sensitivity[[0, -1]].tolist() == [1.0, 0.0] and curve.specificity[[0, -1]].tolist() == [0.0, 1.0]


@steady
@given(patients)
def test_auc_turns_with_the_risk_and_ignores_its_scale(rows):
    """AUC(-risk) = 1 - AUC(risk); a monotone map changes neither it nor its variance."""
    risk, _, status = _split(rows)
    one, turned, mapped = roc(risk, status), roc(-risk, status), roc(np.exp(risk), status)
    assert turned.auc.value == pytest.approx(1 - one.auc.value)
    assert (mapped.auc.value, mapped.variance) == pytest.approx((one.auc.value, one.variance), nan_ok=True)


@steady
@given(patients)
def test_variance_is_delongs_by_its_definition(rows):
    """DeLong's variance equals the sum of the two sample variances of the placement values."""
    risk, _, status = _split(rows)
    placed = np.sign(risk[status][:, None] - risk[~status]) / 2 + 0.5
    if min(placed.shape) < 2:
        return
    direct = placed.mean(1).var(ddof=1) / placed.shape[0] + placed.mean(0).var(ddof=1) / placed.shape[1]
    assert roc(risk, status).variance == pytest.approx(direct, abs=1e-15)


@steady
@given(patients)
def test_paired_difference_changes_sign(rows):
    """The paired difference changes sign when the risks change places; a risk with itself differs by 0 without a p."""
    a, b, status = _split(rows)
    one, other, same = delong(a, b, status), delong(b, a, status), delong(a, a, status)
    assert other.difference.value == pytest.approx(-one.difference.value)
    assert same.difference.value == 0 and np.isnan(same.difference.p)


@steady
@given(patients)
def test_youden_is_the_best_threshold(rows):
    """No threshold has a larger sensitivity + specificity than Youden's, and its rates hold on the patients."""
    risk, _, status = _split(rows)
    curve = roc(risk, status)
    cut = youden(curve)
    best = (curve.sensitivity + curve.specificity).max() - 1
    if best <= 1e-12:
        assert np.isnan(cut.threshold) and cut.warnings[0].code == "W-NOCUTOFF"
        return
    assert cut.youden == pytest.approx(best)
    again = at_threshold(risk, status, cut.threshold)
    assert (again.sensitivity, again.specificity, again.accuracy) == pytest.approx(
        (cut.sensitivity, cut.specificity, cut.accuracy))


def test_predictive_values_of_a_small_table():
    """Sensitivity, specificity, predictive values and accuracy are the shares of a table counted by hand."""
    cut = at_threshold([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1], 2.5)
    assert (cut.sensitivity, cut.specificity, cut.ppv, cut.npv) == pytest.approx((1.0, 2 / 3, 3 / 4, 1.0))
    assert cut.accuracy == pytest.approx(5 / 6)
    assert np.isnan(at_threshold([1.0, 2.0], [0, 1], 5.0).ppv)
    assert at_threshold([1.0, 2.0], [0, 1], 2.0).sensitivity == 0  # at the threshold is not above it


def test_equal_risks_have_no_cut_off():
    """When every risk is the same the AUC is 0.5 without interval, and there is no cut-off."""
    curve = roc([2.0] * 5, [0, 1, 0, 1, 1])
    assert curve.auc.value == 0.5 and np.isnan(curve.auc.low)
    assert curve.warnings[0].code == "W-ALLTIED" and youden(curve).warnings[0].code == "W-NOCUTOFF"


def test_perfect_risk_has_no_interval():
    """A risk that separates perfectly has AUC 1; its variance estimate 0 is not sold as certainty."""
    auc = roc([1.0, 2, 3, 4], [0, 0, 1, 1]).auc
    assert auc.value == 1 and np.isnan(auc.low) and np.isnan(auc.p)


@pytest.mark.parametrize(("risk", "status", "kind", "code"), [
    ([1.0, 2.0], [1, 1], FitError, "E-ONECLASS"),
    ([1.0, 2.0], [0, 2], TableError, "E-EVENT"),
    ([1.0, np.inf], [0, 1], TableError, "E-MISSING"),
    ([1.0], [0, 1], TableError, "E-LENGTH"),
    ([[1.0]], [[1]], TableError, "E-LENGTH"),
])
def test_bad_input_is_refused(risk, status, kind, code):
    """One class, codes other than 0/1, missing values and wrong lengths are typed errors."""
    with pytest.raises(kind) as caught:
        roc(risk, status)
    assert caught.value.code == code


@pytest.mark.parametrize(("n", "events", "positive", "positive_events", "printed"), [
    (522, 127, 106, 34, (0.543, 0.500, 0.586)),
    (130, 20, 33, 6, (0.527, 0.417, 0.638)),
    (234, 39, 45, 9, (0.523, 0.451, 0.595)),
])
def test_tnm_rows_of_the_papers_table_4(n, events, positive, positive_events, printed):
    """The 2x2 tables implied by the paper give its printed AUC and interval of the TNM stage."""
    marker, status = np.zeros(n), np.zeros(n, bool)
    marker[:positive] = 1
    status[:positive_events] = True
    status[positive:positive + events - positive_events] = True
    auc = roc(marker, status).auc
    assert tuple(round(v, 3) for v in (auc.value, auc.low, auc.high)) == printed


def test_agrees_with_r(reference, agrees):
    """AUC, DeLong variance and interval, and the Youden cut-off are pROC's."""
    for name, theirs in reference.numbers("roc")["single"].items():
        ours = roc(reference.scores[name], reference.surv.event)
        agrees("AUC, variance, interval", "pROC::ci.auc",
               [ours.auc.value, ours.variance, ours.auc.low, ours.auc.high],
               [theirs["auc"], theirs["delong_var"], *theirs["ci_delong"]])
        assert ours.thresholds.size == theirs["n_thresholds"]
        best = {key: value[0] if isinstance(value, list) else value for key, value in theirs["youden"].items()}
        cut = youden(ours)
        if abs(best["threshold"]) > 1e300:  # pROC offers +-Inf when nothing beats chance
            assert np.isnan(cut.threshold)
        else:
            keys = ("threshold", "sensitivity", "specificity", "accuracy", "ppv", "npv")
            agrees("Youden cut-off, rates", "pROC::coords", [getattr(cut, k) for k in keys], [best[k] for k in keys])


def test_comparisons_agree_with_r(reference, agrees):
    """z, p and interval of the paired difference are those of pROC's roc.test."""
    for pair in reference.numbers("roc")["pairs"]:
        ours = delong(reference.scores[pair["a"]], reference.scores[pair["b"]], reference.surv.event)
        agrees("AUC difference: z, p, interval", "pROC::roc.test",
               [ours.z, ours.difference.p, ours.difference.low, ours.difference.high],
               [pair["z"], pair["p"], *pair["diff_ci"]])
