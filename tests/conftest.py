"""Numbers from R that several test files compare with, and the record of how closely we agree with them.

`pytest --agreement docs/statistics.md` writes that record between the two agreement marks of the file; without the
option a comparison that no longer is what the page says fails.
"""

from __future__ import annotations

import csv
import gc
import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import radiomics_conformance
from numpy.typing import ArrayLike

from mtdlr.survival import Survival

# Both workers and some eighty processes of tests import the same files, and pytest rewrites each test file: kept as
# bytecode, all begin in half the time. A shell that forbids bytecode means its own work.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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


AGREEMENT_PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
_NOISE = 1e-9  # differences below it are rounding, and others on another machine


def read_agreement(page: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """(what, R) -> (largest difference, allowed) as printed between the marks of the page."""
    table = page.read_text().split("<!-- agreement -->\n")[1].split("<!-- /agreement -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {(what, r): (float(largest), float(within)) for what, r, largest, within, _ in rows}


def check_row(
    rows: dict[tuple[str, str], tuple[float, float]], key: tuple[str, str], largest: float, within: float
) -> None:
    """Assert that the page says what was measured: the printed difference has one digit, so half as much again."""
    assert key in rows, f"{key} is not in {AGREEMENT_PAGE.name}: make it again with pytest --agreement"
    said, allowed = rows[key]
    stale = within > 1.001 * allowed or largest > max(1.5 * said, _NOISE)
    assert not stale, f"{key}: {largest:.1e} of {within:.0e}, the page says {said:.0e} of {allowed:.0e}: make it again"


@pytest.fixture(scope="session")
def agrees(request: pytest.FixtureRequest) -> Agrees:
    """Assert that our numbers are R's within a tolerance, and that docs/statistics.md says no less; keep the largest
    difference for it.

    A number that is missing in R must be nan here.
    """
    rows = None if request.config.getoption("--agreement") else read_agreement(AGREEMENT_PAGE)

    def check(what: str, r_function: str, ours: ArrayLike, theirs: ArrayLike, *, within: float = 1e-8) -> None:
        a, b = np.ravel(np.asarray(ours, dtype=float)), np.ravel(np.array(theirs, dtype=object)).astype(float)
        assert a.shape == b.shape, (what, a.shape, b.shape)
        assert np.array_equal(np.isnan(a), np.isnan(b)), (what, a, b)
        known = ~np.isnan(a)
        largest = float(np.abs(a[known] - b[known]).max(initial=0.0))
        before = _RECORD.get((what, r_function), (0.0, within, 0))
        _RECORD[what, r_function] = max(before[0], largest), max(before[1], within), before[2] + int(known.sum())
        assert largest <= within, f"{what}: {largest:.2e} from {r_function}, more than {within:.0e}"
        if rows is not None:
            check_row(rows, (what, r_function), largest, within)

    return check


@pytest.fixture
def conforms(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Count one case of a row of docs/radiomics.md: (row, values that agree, values compared)."""
    return lambda label, agreeing, compared: radiomics_conformance.count(
        label, agreeing, compared, test=request.path.stem, writing=request.config.getoption("--conformance"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that write what the tests found into pages."""
    parser.addoption("--conformance", action="store_true", help="write the conformance table of docs/radiomics.md")
    parser.addoption("--weight-seed", type=int, default=0, help="seed of the networks of the whole study's tests")
    parser.addoption("--agreement", metavar="PAGE", help="write the agreement with R between the marks of this page")


FIRST = ("test_pipeline", "test_texture_matrices", "test_texture_edges", "test_stats_lasso", "test_stats_groups",
         "test_stats_extremes", "test_stats_concordance", "test_stats_cox_firth", "test_cluster", "test_train",
         "test_validate_run", "test_imaging_locate", "test_bundle", "test_your_data")
"""One worker runs the longest file. The other meanwhile compiles the loops that the first will need, which takes two
minutes on an empty cache and would else be done by both; then come the files that take longest, so that both workers
end together."""


def pytest_collection() -> None:
    """What is collected stays: looking for garbage meanwhile costs a sixth of the collection and finds none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """The libraries and the tests are no garbage either: left out of each later look, which a test pays for, and which
    comes after ten thousand new objects in place of 700."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of `FIRST`, then that of the names."""
    place = {name: k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count and name what was skipped, with the reason: a test that did not run proves nothing."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} tests were skipped")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            terminalreporter.line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the record when it was asked for."""
    if session.config.getoption("--conformance"):
        radiomics_conformance.write()
    page = session.config.getoption("--agreement")
    if page:
        path, start, end = Path(page), "<!-- agreement -->\n", "<!-- /agreement -->"
        head, rest = path.read_text().split(start)
        rows = "".join(f"| {what} | {r} | {largest:.0e} | {within:.0e} | {n:,} |\n"
                       for (what, r), (largest, within, n) in sorted(_RECORD.items()))
        table = "| statistic | R | largest difference | allowed | numbers |\n|---|---|---|---|---|\n" + rows
        path.write_text(head + start + table + end + rest.split(end)[1])
