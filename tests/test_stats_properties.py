"""Any cohort, any prediction: statistics are finite, missing by a written rule, or a typed error, and never warn."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import MtdlrError
from mtdlr.stats import (
    auc_at,
    brier_score,
    calibrate,
    compare_brier,
    concordance,
    decision_curve,
    fit_cox,
    fit_lower_bound,
    group_hazard_ratio,
    hosmer_lemeshow,
    integrated_brier,
    kaplan_meier,
    log_rank,
    net_benefit,
    restricted_mean_difference,
)
from mtdlr.survival import Survival

MONTHS = (12.0, -1.0, 0.0, float("nan"), 1e9)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Survival, np.ndarray, np.ndarray, float]:
    """(follow-up, risks up to 1000, survival with exact 0 and 1, month): tied times, one event, separated risks."""
    n = draw(st.integers(2, 30))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    time = random.choice([1.0, 6.0, 12.0, 30.0], n) if draw(st.booleans()) else random.exponential(20.0, n) + 0.01
    event = random.random(n) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    if draw(st.booleans()):
        event = np.arange(n) == 0
    risk = draw(st.sampled_from([1e-3, 1.0, 1e3])) * random.uniform(-1.0, 1.0, n)
    if draw(st.booleans()):
        risk = -time
    survival = random.choice([0.0, 1.0, 0.3, 0.999999], n) if draw(st.booleans()) else random.random(n)
    if draw(st.integers(0, 9)) == 0:
        risk[0] = survival[0] = np.nan
    return Survival(time, event), risk, survival, draw(st.sampled_from(MONTHS))


def _infinite(value: Any) -> bool:
    """Whether a result holds an infinite number; a ROC curve begins at the threshold -inf."""
    if is_dataclass(value) and not isinstance(value, type):
        return any(_infinite(getattr(value, field.name)) for field in fields(value) if field.name != "thresholds")
    if isinstance(value, dict):
        return any(map(_infinite, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_infinite, value))
    return isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f" and bool(np.isinf(value).any())


CALLS = {
    "concordance": lambda surv, risk, survival, month: concordance(risk, surv),
    "uno": lambda surv, risk, survival, month: concordance(risk, surv, weighting="uno"),
    "auc_at": lambda surv, risk, survival, month: auc_at(risk, surv, month),
    "brier_score": lambda surv, risk, survival, month: brier_score(survival, surv, month),
    "compare_brier": lambda surv, risk, survival, month: compare_brier(survival, survival[::-1], surv, month),
    "integrated_brier": lambda surv, risk, survival, month: integrated_brier(
        np.column_stack([survival, survival / 2]), surv, [3.0, 12.0]),
    "calibrate": lambda surv, risk, survival, month: calibrate(survival, surv, month),
    "decision_curve": lambda surv, risk, survival, month: decision_curve(survival, surv, month),
    "net_benefit": lambda surv, risk, survival, month: net_benefit(survival, surv, month, 0.2),
    "hosmer_lemeshow": lambda surv, risk, survival, month: hosmer_lemeshow(survival, surv.event),
    "lower_bound": lambda surv, risk, survival, month: fit_lower_bound(survival, surv),
    "kaplan_meier": lambda surv, risk, survival, month: kaplan_meier(surv),
    "log_rank": lambda surv, risk, survival, month: log_rank(survival > 0.5, surv),
    "group_hr": lambda surv, risk, survival, month: group_hazard_ratio(survival > 0.5, surv),
    "rmst": lambda surv, risk, survival, month: restricted_mean_difference(survival > 0.5, surv, month),
    "fit_cox": lambda surv, risk, survival, month: fit_cox(risk, surv),
}
HAS_INFINITE = {"fit_cox", "group_hr"}
"""Limits of a separated fit, and of a ratio without events in a group, are infinite by a written rule."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cohort=cohorts())
def test_every_statistic_is_a_number_missing_or_a_typed_error(name: str, cohort: tuple) -> None:
    """No statistic warns, is infinite without a rule, or raises anything but a typed error, whatever comes in."""
    try:
        result = CALLS[name](*cohort)
    except MtdlrError:
        return
    assert name in HAS_INFINITE or not _infinite(result), result
