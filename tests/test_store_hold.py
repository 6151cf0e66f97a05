"""Holding a run folder, and what is told while work goes on: refusals are one line, a lost log ends nothing."""

from __future__ import annotations

import errno
import json
import os
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtdlr.errors import MtdlrError, StoreError, StudyError
from mtdlr.estimate import Estimate
from mtdlr.store import hold
from mtdlr.store.hold import RUNNING, open_store, take_lock
from mtdlr.store.status import _count_problems, _now, _order, _read, _working
from mtdlr.workers.parts import Shard, of_fold, require_all, require_part
from mtdlr.workers.progress import Teller, headline, summary


def test_a_second_run_is_refused_while_the_first_holds(tmp_path: Path) -> None:
    """One whole run at a time: the other is E-LOCKED, and free again once the first has ended."""
    with open_store(tmp_path), pytest.raises(StoreError, match="E-LOCKED"), open_store(tmp_path):
        pass
    with open_store(tmp_path) as store:
        assert store.root == tmp_path


def test_shards_hold_beside_one_another_but_not_beside_a_run(tmp_path: Path) -> None:
    """Shards share the folder; a whole run waits for them."""
    with open_store(tmp_path, shared=True), open_store(tmp_path, shared=True):
        with pytest.raises(StoreError, match="E-LOCKED"), open_store(tmp_path):
            pass


def test_a_run_leaves_no_mark(tmp_path: Path) -> None:
    """While a run works its mark stands in `running`; afterwards, also after an error, the folder is empty."""
    with pytest.raises(KeyError), open_store(tmp_path):
        assert len(list((tmp_path / RUNNING).iterdir())) == 1
        raise KeyError
    assert not list((tmp_path / RUNNING).iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file in the place of the run folder is E-READONLY with the system's reason."""
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match="E-READONLY"), open_store(tmp_path / "run"):
        pass


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folders cannot be made for want of room, the error is E-DISKFULL and not that of a locked folder."""
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no room")
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StoreError, match="E-DISKFULL"), open_store(tmp_path / "run"):
        pass


@pytest.mark.parametrize(("number", "got"), [(errno.EACCES, False), (errno.EAGAIN, False), (errno.EDEADLK, False),
                                             (errno.ENOLCK, True), (errno.ENOTSUP, True)])
def test_a_file_system_without_locks_lets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int,
                                               got: bool) -> None:
    """A lock that another process has is not got; one that the file system does not know is."""
    class Refusing:
        LOCK_SH = LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: Any) -> None:
            raise OSError(number, "no")
    monkeypatch.setattr(hold, "fcntl", Refusing)
    with (tmp_path / "lock").open("a+") as handle:
        assert take_lock(handle) is got


@pytest.mark.parametrize("shared", [False, True])
def test_windows_locks_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Without fcntl a whole run takes msvcrt's lock of the first byte; a shard takes none."""
    asked: list[tuple[int, int]] = []
    windows = SimpleNamespace(LK_NBLCK=2, locking=lambda number, mode, count: asked.append((mode, count)))
    monkeypatch.setattr(hold, "fcntl", None)
    monkeypatch.setattr(hold, "msvcrt", windows)
    with (tmp_path / "lock").open("a+") as handle:
        assert take_lock(handle, shared=shared)
    assert asked == ([] if shared else [(2, 1)])


def test_a_bar_shows_the_time_left_and_goes() -> None:
    """On a terminal there is a bar a stage; after `close` nothing more is drawn, and closing twice is no harm."""
    out, now = StringIO(), [0.0]
    teller = Teller(True, None, out, clock=lambda: now[0])
    teller("prepare", 0, 4)
    now[0] = 10.0
    teller("prepare", 2, 4)
    teller("train", 0, 3)
    teller.close()
    teller.close()
    text = out.getvalue()
    assert "prepare" in text and "train" in text and "2/4" in text


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """A file in the place of the log's folder: the work goes on, and the log is given up."""
    (tmp_path / "logs").write_text("")
    out = StringIO()
    teller = Teller(False, tmp_path / "logs" / "a.log", out)
    teller("prepare", 1, 2)
    assert teller.log is None and "prepare: 1/2" in out.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(59.0, 1), (61.0, 2)])
def test_lines_come_once_a_minute(seconds: float, lines: int) -> None:
    """Elsewhere than on a terminal a stage has a line at its start and then one a minute."""
    out, now = StringIO(), [0.0]
    teller = Teller(False, None, out, clock=lambda: now[0])
    teller("score", 1, 100)
    now[0] = seconds
    teller("score", 2, 100)
    assert len(out.getvalue().splitlines()) == lines


def _found(c: float) -> Any:
    last = SimpleNamespace(month=60.0, slope=Estimate(0.9, 0.7, 1.1), oe=Estimate(1.05, 0.9, 1.2))
    return SimpleNamespace(c=Estimate(c, c - 0.05, c + 0.05), calibration={36.0: None, 60.0: last})


def test_the_headline_is_of_the_main_model_at_its_last_horizon() -> None:
    """A line a cohort: C, and slope and O/E at the last horizon, of the MTDLR nomogram alone."""
    lines = headline({("stage", "external"): _found(0.6), ("mtdlr", "external"): _found(0.72)})
    assert lines == ["MTDLR, external: C 0.72 (0.67-0.77); at 60 months slope 0.90 (0.70-1.10), O/E 1.05 (0.90-1.20)"]
    bare = SimpleNamespace(c=Estimate(0.7, 0.6, 0.8), calibration={})
    assert headline({("mtdlr", "internal"): bare}) == ["MTDLR, internal: C 0.70 (0.60-0.80)"]


def test_a_runs_summary_counts_who_was_left_out(tmp_path: Path) -> None:
    """Errors are printed whole, warnings are counted, patients left out are named with the stage that lost them."""
    problem = SimpleNamespace(is_error=True, as_dict=lambda: {"code": "E-X"}, __str__=lambda self: "E-X")
    notice = SimpleNamespace(is_error=False, as_dict=lambda: {"code": "W-Y"})
    work = SimpleNamespace(failed={"P7": "prepare"}, problems=[problem, notice, notice], output=tmp_path)
    told, lines = summary(work)
    assert lines[1] == "2 warnings, 1 patients left out; P7 in prepare" and len(lines) == 2
    assert told["excluded"] == ["P7"] and [one["code"] for one in told["problems"]] == ["E-X", "W-Y", "W-Y"]
    assert told["report"] == str(tmp_path / "report.html")


@pytest.mark.parametrize(("shard", "stage", "code"), [
    (None, "nowhere", "E-STAGENAME"), (Shard(1, 2), "train", "E-SHARD"), (Shard(fold=0), "score", "E-SHARD"),
    (Shard(1, 2), "report", "E-SHARD")])
def test_a_stage_that_cannot_be_shared_is_refused(shard: Shard | None, stage: str, code: str) -> None:
    """Patients are shared in prepare, score and radiomics, folds in train; nothing else is."""
    with pytest.raises(StudyError, match=code):
        require_part(shard, stage)


@pytest.mark.parametrize(("shard", "stage"), [(None, "report"), (Shard(1, 2), "score"), (Shard(fold=1), "train")])
def test_a_stage_that_can_be_shared_is_itself(shard: Shard | None, stage: str) -> None:
    """What can be done in these parts comes back as it was asked for."""
    assert require_part(shard, stage) == stage


def test_a_model_with_a_patients_scan_cannot_leave() -> None:
    """A study whose region is placed by a template patient has no bundle: E-TEMPLATE says how to go on."""
    study: Any = SimpleNamespace(prepare=SimpleNamespace(roi="template"))
    with pytest.raises(StudyError, match="E-TEMPLATE.*report"):
        require_part(None, "bundle", study)
    assert require_part(None, "report", study) == "report"


def test_a_fold_has_its_own_trainings() -> None:
    """The trainings of one fold, in order; a fold that is not there is E-FOLD with those that are."""
    work = [SimpleNamespace(fold=k % 2, name=k) for k in range(4)]
    assert [job.name for job in of_fold(work, 1)] == [1, 3]
    with pytest.raises(StudyError, match="E-FOLD.*found 5.*0 to 1"):
        of_fold(work, 5)


@pytest.mark.parametrize(("missing", "text"), [(["a"], "found a;|found a."), (list("abcdefg"), "and 2 more")])
def test_what_other_shards_owe_is_named(missing: list[str], text: str) -> None:
    """Five patients are named, the others counted, and the stage to run is given."""
    with pytest.raises(MtdlrError, match=text) as caught:
        require_all(missing, "score")
    assert "--until score" in str(caught.value)
    require_all([], "score")


@pytest.mark.parametrize(("text", "words"), [
    ('[{"code": "E-A"}, {"code": "W-B"}, {"code": "W-C"}]', "1 errors, 2 warnings"), ("[]", "0 errors, 0 warnings"),
    ("{not json", "problems.json cannot be read; the next run writes it again"),
    ('[{"kode": 1}]', "problems.json cannot be read; the next run writes it again")])
def test_status_counts_problems_and_bears_damage(tmp_path: Path, text: str, words: str) -> None:
    """Errors and warnings are counted by code; a damaged file is said to be damaged."""
    assert _count_problems(tmp_path / "problems.json") == "not yet known"
    (tmp_path / "problems.json").write_text(text)
    assert _count_problems(tmp_path / "problems.json") == words


def test_a_file_of_progress_is_read_or_empty(tmp_path: Path) -> None:
    """What is no JSON, no object or not there is empty, so that status never ends in an error."""
    path = tmp_path / "training.json"
    assert _read(path) == {}
    for text, value in (("[1]", {}), ("{", {}), (json.dumps({"share": 0.5}), {"share": 0.5})):
        path.write_text(text)
        assert _read(path) == value


def test_processes_at_work_are_counted(tmp_path: Path) -> None:
    """A mark that was touched lately is a process at work; an old one of a dead process is not."""
    (tmp_path / RUNNING).mkdir()
    assert _working(tmp_path, 1000.0) == ""
    for name, age in (("run@there.1.aa", 0.0), ("run@there.2.bb", 0.0), ("run@there.3.cc", 1e6)):
        mark = tmp_path / RUNNING / name
        mark.touch()
        os.utime(mark, (1e9 - age, 1e9 - age))
    assert _working(tmp_path, 1e9) == "2 processes"


def test_the_time_is_the_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written the time is that of the latest sign of life, not this machine's clock."""
    (tmp_path / RUNNING).mkdir()
    (tmp_path / RUNNING / "run@there-1").touch()
    os.utime(tmp_path / RUNNING / "run@there-1", (5e8, 5e8))

    def refused(_: Path) -> float:
        raise OSError(errno.EROFS, "read-only")
    monkeypatch.setattr("mtdlr.store.status.clock", refused)
    assert _now(tmp_path) == 5e8


def test_stages_are_listed_in_their_order() -> None:
    """Results are listed as they are made: preparation before training before the report; strangers come last."""
    names = ["report", "unknown", "train", "prepare"]
    assert sorted(names, key=lambda name: _order(Path(name))) == ["prepare", "train", "report", "unknown"]
