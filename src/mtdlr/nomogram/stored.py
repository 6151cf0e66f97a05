"""What the JSON text of a nomogram holds: a closed, versioned list of keys, and None for nan."""

from __future__ import annotations

import json
from typing import Any

SCHEMA = 3  # 3: a coarse baseline on a log scale, from which no patient's row can be read
KEYS = frozenset({"schema", "design", "cox", "limits", "months", "log_hazard_range", "labels", "endpoint"})
COX_KEYS = frozenset({"names", "coef", "covariance", "loglik_null", "loglik", "score_statistic", "ties", "n",
                      "n_events", "means", "converged", "robust", "dropped", "monotone", "baseline", "problems"})
BASELINE_KEYS = frozenset({"strata", "last_month", "stratum", "time_months", "log_hazard", "log_variance", "mean",
                           "events", "at_risk", "interpolated"})
_LARGEST = 1e30  # products of three such numbers are still finite


def written(values: dict[str, Any]) -> str:
    """JSON text of plain values under this schema."""
    return json.dumps(nan_to_none({"schema": SCHEMA, **values}), allow_nan=False)


def read(text: str) -> dict[str, Any]:
    """The values that `written` wrote; None is nan again.

    Raises:
        ValueError: for another schema, a key too many or too few, or a number beyond 1e30.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ValueError(f"schema {values.get('schema') if isinstance(values, dict) else 'missing'}")
    for part, keys in ((values, KEYS), (values["cox"], COX_KEYS), (values["cox"]["baseline"], BASELINE_KEYS)):
        if set(part) != keys:
            raise ValueError(f"keys {', '.join(sorted(set(part) ^ keys))}")
    _within_limits(values)
    back: dict[str, Any] = none_to_nan(values)
    return back


def _within_limits(value: Any) -> None:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _within_limits(part)
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        raise ValueError(f"a number beyond {_LARGEST:g}")


def nan_to_none(value: Any) -> Any:
    """Nested plain values with None for nan, which JSON does not know."""
    if isinstance(value, dict):
        return {key: nan_to_none(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(each) for each in value]
    return None if isinstance(value, float) and value != value else value


def none_to_nan(value: Any) -> Any:
    """The inverse of `nan_to_none`."""
    if isinstance(value, dict):
        return {key: none_to_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [none_to_nan(each) for each in value]
    return float("nan") if value is None else value
