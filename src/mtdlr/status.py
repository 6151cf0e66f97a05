"""How far a run is, read from its folder: nothing is computed, and a running one is not disturbed."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

STORED = ("prepare", "train", "score", "radiomics", "signature", "picture", "report", "bundle")


def run_status(folder: Path) -> dict[str, str]:
    """Stage -> what is there, for people.

    Args:
        folder: a run folder, there or not.
    """
    if not (folder / "objects").is_dir():
        return {"run": f"not started ({folder})"}
    rows = {"run": ("working" if _is_held(folder / "lock") else "not running now") + f" ({folder})"}
    for stage in STORED:
        done = len(list((folder / "objects" / stage).glob("*/manifest.json")))
        under_way = len(list((folder / "scratch").glob(f"{stage}-*")))
        rows[stage] = f"{done} stored" + (f", {under_way} under way" if under_way else "")
    rows["problems"] = _count_problems(folder / "problems.json")
    return rows | {"report": str(folder / "report.html") if (folder / "report.html").exists() else "not yet"}


def _is_held(lock: Path) -> bool:
    """Whether a process holds the run folder."""
    try:
        with lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _count_problems(path: Path) -> str:
    if not path.exists():
        return "not yet known"
    codes = [problem["code"] for problem in json.loads(path.read_text())]
    return f"{sum(c.startswith('E-') for c in codes)} errors, {sum(c.startswith('W-') for c in codes)} warnings"
