"""Work beside a run's own: files that are printed while the page is written, loops compiled before they are needed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mtdlr.errors import MtdlrError, Problem
from mtdlr.workers import aside, beside


def _note(path: Path, text: str) -> None:
    with path.open("a") as handle:
        handle.write(f"{text} {os.getpid()}\n")


def _note_or_die(path: Path, parent: int) -> None:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text("done here")


def _refuse() -> None:
    raise MtdlrError(Problem("E-DISKFULL", "the disk is full"))


def _wait_for_the_end() -> None:
    Path("pipe").write_text(str(os.getpid()))
    signal.pause()


def _fail() -> None:
    raise ValueError


def test_with_two_workers_what_is_handed_over_is_done_in_one_other_process_and_in_order(tmp_path):
    """The block ends when everything that it handed over is done: in its order, by one process that is not this one."""
    with aside(2) as hand_over:
        for word in ("first", "second", "third"):
            hand_over(_note, tmp_path / "notes", word)
    words, processes = zip(*(line.split() for line in (tmp_path / "notes").read_text().splitlines()), strict=True)
    assert words == ("first", "second", "third")
    assert len(set(processes)) == 1 and int(processes[0]) != os.getpid()


def test_with_one_worker_it_is_done_here_and_at_once(tmp_path):
    """A run of one process starts no second one."""
    with aside(1) as hand_over:
        hand_over(_note, tmp_path / "notes", "now")
        assert (tmp_path / "notes").read_text() == f"now {os.getpid()}\n"


def test_where_the_other_process_dies_its_work_is_done_here(tmp_path):
    """A worker that the system ends, for want of memory, costs time and nothing else."""
    with aside(2) as hand_over:
        hand_over(_note_or_die, tmp_path / "file", os.getpid())
    assert (tmp_path / "file").read_text() == "done here"


def test_what_is_handed_over_after_the_other_process_died_is_done_here_too(tmp_path):
    """A process that died over the first work takes nothing that comes later with it."""
    with aside(2) as hand_over:
        hand_over(_note_or_die, tmp_path / "file", os.getpid())
        for process in multiprocessing.active_children():
            process.join()
        while not (tmp_path / "notes").exists():  # until the pool has noticed; each try is done somewhere
            hand_over(_note, tmp_path / "notes", "later")
    assert (tmp_path / "file").read_text() == "done here"
    assert {line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()} == {"later"}


def test_an_error_of_the_other_process_is_raised_by_the_block():
    """What could not be written is not passed over."""
    with pytest.raises(MtdlrError, match="E-DISKFULL"), aside(2) as hand_over:
        hand_over(_refuse)


def test_work_beside_a_block_ends_with_it(tmp_path, monkeypatch):
    """A process that works beside a block is gone when the block is left, though its work is not done."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with beside(_wait_for_the_end):
        process = int(Path("pipe").read_text())  # waits until the other end is opened
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_error_of_work_beside_a_block_stops_nothing():
    """Loops that could not be compiled ahead are compiled when they are needed."""
    with beside(_fail):
        done = True
    assert done
