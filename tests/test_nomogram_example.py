"""The example on real patients."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "head_neck_nomogram.py"
TABLE = ROOT.parent / "shared" / "data" / "head_neck" / "clinical.csv"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", str(EXAMPLE), *arguments], capture_output=True, text=True,
                          env={"PYTHONPATH": str(ROOT / "src")})


def test_the_example_is_short() -> None:
    """The nomogram and its external validation take fewer than thirty lines."""
    assert len(EXAMPLE.read_text().splitlines()) < 30


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="the head and neck table is not on this machine")
def test_the_example_runs(tmp_path: Path) -> None:
    """On the real table it writes three figures and prints the external C-index with its interval."""
    done = run(str(TABLE), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"nomogram.pdf", "calibration.pdf", "roc.pdf"}
    value, low, high = map(float, re.findall(r"0\.\d+", done.stdout))
    assert 0.5 < low < value < high < 0.9


@pytest.mark.slow
def test_without_the_table_it_says_so(tmp_path: Path) -> None:
    """Without the data it names the path and stops, without a traceback."""
    done = run(str(tmp_path / "absent.csv"), str(tmp_path))
    assert done.returncode == 1 and "absent.csv" in done.stderr and "Traceback" not in done.stderr
