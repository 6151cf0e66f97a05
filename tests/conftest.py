"""Numbers from R that several test files compare with, and the record of how closely we agree with them.

`pytest --agreement docs/statistics.md` writes that record between the two agreement marks of the file.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from mtdlr.survival import Survival

FOLDER = Path(__file__).parent / "reference"
DATASETS = ("lung", "gbsg", "pbc", "npc_train", "npc_val", "npc_ext")


@dataclass(frozen=True, eq=False)
class Reference:
    """One data set, and what R says about it."""

    name: str
    surv: Survival
    columns: dict[str, list[str]]
    scores: dict[str, np.ndarray]
    predicted_risk: dict[str, np.ndarray]

    def numbers(self, part: str) -> dict[str, Any]:
        """The JSON file of one part, such as `km`."""
        return json.loads(_text(f"{self.name}__{part}.json"))


def _text(name: str) -> str:
    packed = FOLDER / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else (FOLDER / name).read_text()


def _table(name: str) -> dict[str, list[str]]:
    rows = list(csv.DictReader(_text(name).splitlines()))
    return {key: [row[key] for row in rows] for key in rows[0]}


@cache
def _reference(name: str) -> Reference:
    columns = _table(f"{name}.csv")
    time = columns["time" if "time" in columns else "time_months"]
    surv = Survival([float(t) for t in time], [int(e) for e in columns["event"]])
    scores, predicted = (
        {key: np.array(values, dtype=float) for key, values in _table(f"{name}__{part}.csv").items()}
        for part in ("scores", "pred_risk")
    )
    return Reference(name, surv, columns, scores, predicted)


@pytest.fixture(params=DATASETS)
def reference(request: pytest.FixtureRequest) -> Reference:
    """Each reference data set in turn."""
    return _reference(request.param)


@pytest.fixture(scope="session")
def reference_of() -> Callable[[str], Reference]:
    """A reference data set by name."""
    return _reference


@pytest.fixture(scope="session")
def reference_json() -> Callable[[str], dict[str, Any]]:
    """A reference JSON file that belongs to no data set."""
    return lambda name: json.loads(_text(name))


@pytest.fixture(scope="session")
def reference_table() -> Callable[[str], dict[str, list[str]]]:
    """A reference CSV file as columns of text."""
    return _table


Agrees = Callable[..., None]
_RECORD: dict[tuple[str, str], tuple[float, float, int]] = {}  # (what, R) -> largest difference, tolerance, numbers


@pytest.fixture(scope="session")
def agrees() -> Agrees:
    """Assert that our numbers are R's within a tolerance, and keep the largest difference for the docs.

    A number that is missing in R must be nan here.
    """

    def check(what: str, r_function: str, ours: ArrayLike, theirs: ArrayLike, *, within: float = 1e-8) -> None:
        a, b = np.ravel(np.asarray(ours, dtype=float)), np.ravel(np.array(theirs, dtype=object)).astype(float)
        assert a.shape == b.shape, (what, a.shape, b.shape)
        assert np.array_equal(np.isnan(a), np.isnan(b)), (what, a, b)
        known = ~np.isnan(a)
        largest = float(np.abs(a[known] - b[known]).max(initial=0.0))
        before = _RECORD.get((what, r_function), (0.0, within, 0))
        _RECORD[what, r_function] = max(before[0], largest), max(before[1], within), before[2] + int(known.sum())
        assert largest <= within, f"{what}: {largest:.2e} from {r_function}, more than {within:.0e}"

    return check


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that writes the record of agreement into a page."""
    parser.addoption("--agreement", metavar="PAGE", help="write the agreement with R between the marks of this page")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the record when it was asked for."""
    page = session.config.getoption("--agreement")
    if page:
        path, start, end = Path(page), "<!-- agreement -->\n", "<!-- /agreement -->"
        head, rest = path.read_text().split(start)
        rows = "".join(f"| {what} | {r} | {largest:.0e} | {within:.0e} | {n:,} |\n"
                       for (what, r), (largest, within, n) in sorted(_RECORD.items()))
        table = "| statistic | R | largest difference | allowed | numbers |\n|---|---|---|---|---|\n" + rows
        path.write_text(head + start + table + end + rest.split(end)[1])
