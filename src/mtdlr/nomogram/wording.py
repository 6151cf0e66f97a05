"""What is printed beside the numbers of a nomogram, as its makers take it by keyword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class Wording(TypedDict, total=False):
    """Keywords of `Nomogram.fit` and `Nomogram.from_coefficients`: those of `words`."""

    labels: Mapping[str, str] | None
    endpoint: str


def words(*, labels: Mapping[str, str] | None = None, endpoint: str = "survival") -> tuple[dict[str, str], str]:
    """Labels and endpoint, the last two fields of a nomogram.

    Args:
        labels: what to print for a column, or for a level as `column=level`.
        endpoint: what survival means, such as "PFS".
    """
    return dict(labels or {}), endpoint
