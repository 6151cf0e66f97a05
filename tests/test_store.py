"""The store: whole or absent, found again, made again when damaged, one process at a time."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mtdlr.errors import StoreError
from mtdlr.store import Recipe, open_store, write_atomic

RECIPE = Recipe("stage", {"a": 1}, {"scan": "00"})


def _write(text: str, calls: list[str]):
    def build(folder: Path) -> None:
        calls.append(text)
        (folder / "result.txt").write_text(text)

    return build


def test_a_result_is_made_once(tmp_path: Path) -> None:
    """A recipe that is there is not built again, in this process or another."""
    calls: list[str] = []
    for _ in range(2):
        with open_store(tmp_path) as store:
            assert not calls or store.has(RECIPE)
            assert (store.make(RECIPE, _write("x", calls)) / "result.txt").read_text() == "x"
    assert calls == ["x"]


@pytest.mark.parametrize("other", [
    Recipe("stage", {"a": 2}, {"scan": "00"}), Recipe("stage", {"a": 1}, {"scan": "01"}),
    Recipe("stage", {"a": 1}, {"scan": "00"}, version=2), Recipe("other", {"a": 1}, {"scan": "00"}),
])
def test_a_changed_recipe_has_another_key(other: Recipe) -> None:
    """Settings, inputs, version and stage each change the key."""
    assert other.key != RECIPE.key


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: str) -> None:
    """FAULTS 12: a bit flip, a cut file or a missing file is found by its hash and the result recomputed."""
    calls: list[str] = []
    with open_store(tmp_path) as store:
        path = store.make(RECIPE, _write("hello", calls)) / "result.txt"
        if damage == "remove":
            path.unlink()
        else:
            path.write_text("jello" if damage == "flip" else "hel")
        assert (store.make(RECIPE, _write("hello", calls)) / "result.txt").read_text() == "hello"
    assert len(calls) == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """A build that raises leaves no result behind."""
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError

    with open_store(tmp_path) as store:
        with pytest.raises(RuntimeError):
            store.make(RECIPE, build)
        assert not store.has(RECIPE)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """FAULTS 6: no space left is E-DISKFULL with the bytes that are free, and the old file stays whole."""
    def build(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(tmp_path) as store, pytest.raises(StoreError, match=r"E-DISKFULL.*\d+ bytes free"):
        store.make(RECIPE, build)


def test_leftovers_are_cleared_but_trainings_stay(tmp_path: Path) -> None:
    """FAULTS 5: what a dead process left half-made is removed at start; a resumable build keeps its folder."""
    (tmp_path / "scratch" / "prepare-aaaa-123").mkdir(parents=True)
    (tmp_path / "scratch" / "train-bbbb").mkdir()
    with open_store(tmp_path):
        assert [p.name for p in (tmp_path / "scratch").iterdir()] == ["train-bbbb"]


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    """FAULTS 8: the second process in a run folder is refused while the first one works."""
    with open_store(tmp_path), pytest.raises(StoreError, match="E-LOCKED"), open_store(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """FAULTS 9: after kill -9 of its holder the run folder can be opened at once."""
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from mtdlr.store import open_store
        with open_store(Path({str(tmp_path)!r})):
            print("held", flush=True); time.sleep(60)
    """)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGKILL)
    with open_store(tmp_path) as store:
        assert not store.has(RECIPE)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """FAULTS 7: a run folder that cannot be written is E-READONLY before any work."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoreError, match="E-READONLY"), open_store(tmp_path / "run"):
        pass


def test_write_atomic_replaces_whole(tmp_path: Path) -> None:
    """A text file is replaced in one step and no temporary file stays."""
    write_atomic(tmp_path / "a.json", "old")
    write_atomic(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "new"
