"""Limit cases of the statistics that no reference data set reaches: wrong values, single features, frozen baselines."""

from __future__ import annotations

import numpy as np
import pytest

from mtdlr.errors import FitError, TableError
from mtdlr.stats.checks import follow_up, groups_of, within
from mtdlr.stats.combat import _shrunk
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.cox_baseline import frozen_baseline
from mtdlr.stats.sample_size import LABELS, ValidationSize, development_size
from mtdlr.stats.time_roc import auc_at
from mtdlr.survival import Survival


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5], object(), float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    """Text, a truth value, a list, nothing or nan is no number, and the message names the option."""
    with pytest.raises(FitError, match="E-OPTION level must be a number"):
        within(value, "level", 0.0, 1.0)


def test_a_number_within_its_limits_is_given_back() -> None:
    """Both limits are allowed; numbers of numpy are numbers; beyond the limits the message has both."""
    assert [within(np.float32(x), "level", 0.0, 1.0) for x in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    with pytest.raises(FitError, match="found 1.5; expected 0 to 1"):
        within(1.5, "level", 0.0, 1.0)


def test_arguments_in_rs_order_are_refused() -> None:
    """A follow-up that is none, or a follow-up where groups belong, says which order is meant."""
    with pytest.raises(TableError, match="E-ORDER"):
        follow_up(np.array([1.0, 2.0]))
    with pytest.raises(TableError, match="E-ORDER"):
        groups_of(Survival([1.0], [True]), 1)  # type: ignore[arg-type]


def test_labels_of_two_kinds_have_no_order() -> None:
    """Numbers and texts cannot be sorted together; the message names both kinds."""
    with pytest.raises(TableError, match="E-LEVEL.*int, str"):
        groups_of(np.array([1, "a"], dtype=object), 2)
    with pytest.raises(TableError, match="E-LENGTH"):
        groups_of(["a"], 2)


def test_one_feature_has_nothing_to_borrow_from() -> None:
    """With a single feature that varies, ComBat takes its own mean and variance; a flat one is left as it is."""
    z = np.column_stack([np.array([0.0, 1.0, 5.0]), np.zeros(3)])
    batch = _shrunk(z, np.array([True, False]))
    np.testing.assert_allclose(batch.shift, [2.0, 0.0])
    np.testing.assert_allclose(batch.ratio, [7.0, 1.0])
    assert batch.n == 3


def cohort(n: int = 120) -> tuple[np.ndarray, Survival]:
    """One covariate and follow-up in half months."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, 1))
    months = np.ceil(2 * rng.exponential(40.0 * np.exp(-0.7 * x[:, 0]))) / 2
    return x, Survival(np.minimum(months, 60.0), months < 60.0)


def test_a_frozen_baseline_keeps_its_horizons_and_hides_its_events() -> None:
    """At the horizons the hazard is that of the fit to the last bit; between any two steps lie five events or more,
    but for the horizons; between steps it runs straight and never falls."""
    x, surv = cohort()
    baseline = fit_cox(x, surv).baseline
    frozen = frozen_baseline(baseline, [24, 36])
    asked = np.array([24.0, 36.0])
    np.testing.assert_array_equal(frozen._at(asked, None)[:, 0], baseline._at(asked, None)[:, 0])
    counts = dict(zip(frozen.time_months, frozen.events, strict=True))
    assert all(count >= 5 for month, count in counts.items() if month not in asked)
    assert len(frozen.time_months) < len(baseline.time_months) / 2 and (frozen.time_months % 1 == 0).all()
    fine = np.exp(frozen._at(np.linspace(0.0, 36.0, 400), None)[:, 0])
    assert (np.diff(fine) >= -1e-12).all() and fine[0] == 0.0
    assert np.isnan(frozen._at(np.array([200.0]), None)).all()


def test_five_events_between_horizons_or_no_new_variance() -> None:
    """A horizon a month after another, with fewer than five events between, has the hazard of its own and the variance
    of the earlier one."""
    x, surv = cohort()
    baseline = fit_cox(x, surv).baseline
    frozen = frozen_baseline(baseline, [24, 24.5])
    first, second = frozen._at(np.array([24.0, 24.5]), None)
    events = int((surv.event & (surv.time_months > 24.0) & (surv.time_months <= 24.5)).sum())
    assert events < 5
    np.testing.assert_array_equal(first[1:], second[1:])
    assert second[0] == baseline._at(np.array([24.5]), None)[0, 0]


def test_sample_sizes_are_told_criterion_by_criterion() -> None:
    """The text has a line a criterion with its number, and the sum; the largest criterion decides."""
    size = development_size(25, rate=0.065, horizon=2, mean_follow_up=2.07, r2=0.051)
    text = str(size)
    assert size.n == max(size.by_shrinkage, size.by_optimism, size.by_risk)
    for number in (size.by_shrinkage, size.by_optimism, size.by_risk, size.n):
        assert f"{number:,} patients" in text


def test_a_risk_near_one_needs_nobody() -> None:
    """Where nearly everybody has the event, an upper limit above 1 needs one patient alone."""
    assert development_size(2, rate=3.0, horizon=5.0, mean_follow_up=0.3, r2=0.1).by_risk == 1


def test_a_target_that_is_not_reached_is_said_to_be_beyond() -> None:
    """Where even the largest size does not reach a target, the table says so, and the number for all is infinite."""
    names = list(LABELS)
    needed = dict.fromkeys(names, 150.0) | {names[0]: float("inf")}
    fields = {"sizes": (100, 200), "events": (30.0, 60.0), "needed": needed,
              "widths": {name: (0.4, 0.3) for name in names}}
    size = object.__new__(ValidationSize)
    for key, value in fields.items():
        object.__setattr__(size, key, value)
    assert size.n == float("inf") and "> 200" in str(size) and "0.400" in str(size)


def test_an_auc_beyond_follow_up_is_not_known() -> None:
    """A horizon that nobody reaches has no AUC, and a warning says so."""
    found = auc_at([1.0, 2.0, 3.0], Survival([5.0, 6.0, 7.0], [True, True, False]), 60.0)
    assert np.isnan(found.auc.value) and found.warnings
