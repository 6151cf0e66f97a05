"""How far a run is, read from its folder: nothing is computed, no lock is taken, a running one is not disturbed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtdlr.store.files import room_on, write_atomic
from mtdlr.store.hold import RUNNING
from mtdlr.store.index import Index
from mtdlr.store.recipe import STAGES, Recipe, source_of
from mtdlr.store.scratch import clock, is_abandoned

PLAN = "plan"
TRAINING = "progress.json"


def write_plan(root: Path, stage: str, recipes: Sequence[Recipe], done: int) -> None:
    """Note which results a stage consists of, and how many of them were there when it began.

    Args:
        root: the run folder.
        stage: name of the stage.
        recipes: one for each result.
        done: how many of them were there.

    Raises:
        StoreError: E-DISKFULL, E-READONLY.
    """
    path = root / PLAN / f"{stage}.json"
    keys = sorted({recipe.name for recipe in recipes})
    if done == len(recipes) and _read(path).get("keys") == keys:
        return
    with room_on(root):
        path.parent.mkdir(exist_ok=True)
    write_atomic(path, json.dumps({"done": done, "keys": keys}))  # it began when this file changed


def run_status(folder: Path) -> dict[str, Any]:
    """How far a run is, for people and as numbers.

    Args:
        folder: a run folder, there or not.

    Returns:
        `run`: whether a process works there; one row for each stage that was begun, in order: done, total, seconds
        left (None where that is not known), results made by other code, and the same in words; `problems`, `report`.
    """
    if not (folder / "objects").is_dir():
        return {"run": f"not started ({folder})"}
    now = _now(folder)
    working = _working(folder, now)
    rows: dict[str, Any] = {"run": f"{f'working ({working})' if working else 'not running now'} ({folder})"}
    index = Index(folder / "index", join=False)
    for path in sorted((folder / PLAN).glob("*.json"), key=_order):
        rows[path.stem] = _stage(folder, path, index, now, working=bool(working))
    rows["problems"] = _count_problems(folder / "problems.json")
    return rows | {"report": str(folder / "report.html") if (folder / "report.html").exists() else "not yet"}


def _stage(folder: Path, path: Path, index: Index, now: float, *, working: bool) -> str:
    """One stage in words."""
    plan = _read(path)
    keys = [str(name) for name in plan.get("keys", [])]
    there = {f"{stage}/{key}" for stage in {name.partition("/")[0] for name in keys}
             for key in _listed(folder / "objects" / stage)}
    done = sum(name in there for name in keys)
    words = f"{done} of {len(keys)}"
    shares, told = _trainings(folder, now) if any(name.startswith("train/") for name in keys) else (0.0, [])
    since = done + shares - float(plan.get("done", 0))
    if working and done < len(keys) and since > 0:
        left = (now - path.stat().st_mtime) / since * (len(keys) - done - shares)
        words += f", about {duration(max(left, 0.0))} left"
    words += "".join(f"; {one}" for one in told)
    other = _made_by_other_code(index, [name for name in keys if name in there])
    return words + (f"; {other} made by other code" if other else "")


def _trainings(folder: Path, now: float) -> tuple[float, list[str]]:
    """(how many trainings their finished parts add up to, each that is under way in words)."""
    shares, told = 0.0, []
    for path in sorted((folder / "scratch").glob(f"train-*/{TRAINING}")):
        found = _read(path)
        if found and not is_abandoned(path.parent, now):
            shares += float(found.get("share", 0.0))
            told.append(str(found.get("words", "")))
    return shares, told


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(42), duration(600), duration(86400 * 1.5)
    ('42 s', '10 min', '36 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _made_by_other_code(index: Index, names: Sequence[str]) -> int:
    """How many of some results were made by other source files than those of today."""
    return sum(index.source(name) not in ("", source_of(name.partition("/")[0])) for name in names)


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which all machines share, seconds. Where this process may not write, it
    is when a process that works there last gave a sign."""
    with suppress(OSError):
        return clock(folder / RUNNING)
    signs = [0.0]
    for mark in (folder / RUNNING).glob("run@*"):
        with suppress(OSError):
            signs.append(mark.stat().st_mtime)
    return max(signs)


def _working(folder: Path, now: float) -> str:
    """How many processes work in the folder, in words; "" for none."""
    marks = list((folder / RUNNING).glob("run@*"))
    count = sum(not is_abandoned(mark, now) for mark in marks)
    return f"{count} process{'es' * (count > 1)}" if count else ""


def _order(path: Path) -> int:
    stages = list(STAGES)
    return next((k for k, stage in enumerate(stages) if path.stem.startswith(stage)), len(stages))


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _count_problems(path: Path) -> str:
    if not path.exists():
        return "not yet known"
    try:
        codes = [str(problem["code"]) for problem in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return "problems.json cannot be read; the next run writes it again"
    return f"{sum(c.startswith('E-') for c in codes)} errors, {sum(c.startswith('W-') for c in codes)} warnings"
