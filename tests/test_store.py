"""The store: whole or absent, found again, made again when damaged, one process at a time."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mtdlr
from mtdlr.errors import StoreError
from mtdlr.store import (
    STAGES,
    Recipe,
    open_store,
    publish,
    release,
    run_status,
    source_of,
    verify,
    write_atomic,
    write_plan,
)
from mtdlr.store import recipe as recipe_module
from mtdlr.store import scratch as scratch_module

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
    Recipe("other", {"a": 1}, {"scan": "00"}),
])
def test_a_changed_recipe_has_another_key(other: Recipe) -> None:
    """Settings, inputs and stage each change the key."""
    assert other.key != RECIPE.key


def test_a_raised_version_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 95: when a stage's version is raised in the one table, nothing that was stored before is taken."""
    recipe = Recipe("radiomics", {"a": 1})
    before, stage = recipe.key, STAGES["radiomics"]
    monkeypatch.setitem(recipe_module.STAGES, "radiomics", replace(stage, version=stage.version + 1))  # type: ignore
    assert recipe.key != before


def test_every_stage_names_source_files() -> None:
    """Each stage of the table has source files, so that a change of its code changes its hash; no two are alike."""
    for stage in STAGES.values():
        assert any(path for pattern in stage.sources for path in recipe_module.PACKAGE.glob(pattern))
    assert len({source_of(stage) for stage in STAGES}) == len(STAGES)


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


@pytest.mark.parametrize(("error", "code"), [
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "E-DISKFULL"),
    (OSError("4096 requested and 0 written"), "E-DISKFULL"),
    (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "E-DISKFULL"),
    (OSError(errno.EROFS, "Read-only file system"), "E-READONLY"),
    (shutil.Error([("a", "b", "[Errno 30] Read-only file system: 'b'")]), "E-READONLY")])
def test_however_python_says_it(tmp_path: Path, error: OSError, code: str) -> None:
    """A quota, numpy's and copytree's errors, which have no number of the system, and a disk that became read-only."""
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with open_store(tmp_path) as store, pytest.raises(StoreError, match=code):
        store.make(RECIPE, build)
    assert list((tmp_path / "objects").iterdir()) == list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E-DISKFULL"), (errno.EROFS, "E-READONLY")])
@pytest.mark.parametrize("name", ["clear", "Index"])
def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                                                   number: int, code: str) -> None:
    """Wherever opening first finds that the disk is full or read-only."""
    monkeypatch.setattr(f"mtdlr.store.hold.{name}", _failing(number))
    with pytest.raises(StoreError, match=code), open_store(tmp_path):
        pass


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E-DISKFULL"), (errno.EROFS, "E-READONLY")])
def test_what_is_remembered_finds_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int,
                                              code: str) -> None:
    """A line of the index that cannot be written is an error in words, and so it stays when the store is closed."""
    with pytest.raises(StoreError, match=code), open_store(tmp_path) as store:
        monkeypatch.setattr(Path, "open", _failing(number))
        assert store.index is not None
        store.index._lines.put("prepare/a", 1)


def _failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))
    return fail


def test_status_reads_ages_by_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock may be days off, ahead or behind: what works, and how long it has left, stays the same."""
    jobs = [Recipe("prepare", {"k": k}, {}) for k in range(4)]
    with open_store(tmp_path) as store:
        write_plan(tmp_path, "prepare", jobs, 0)
        os.utime(tmp_path / "plan/prepare.json", (time.time() - 600.0,) * 2)
        store.make(jobs[0], _write("x", []))
        for clock in (0.0, 4e9):
            monkeypatch.setattr("time.time", lambda clock=clock: clock)
            found = run_status(tmp_path)
            assert found["run"].startswith("working (1 process)") and found["prepare"] == "1 of 4, about 30 min left"


def test_status_of_a_folder_that_one_may_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `status` cannot ask the file system for the time, the last sign of a process stands in for it."""
    with open_store(tmp_path):
        monkeypatch.setattr("mtdlr.store.status.clock", _failing(errno.EROFS))
        monkeypatch.setattr("time.time", lambda: 0.0)
        assert run_status(tmp_path)["run"].startswith("working (1 process)")


def test_only_the_store_and_the_server_read_a_clock() -> None:
    """Times of change are compared in `store/scratch.py` and `store/status.py` alone, by the file system's clock; the
    wall clock of a machine is read by the server, for its own jobs, and nowhere else in a comparison."""
    source = Path(mtdlr.__file__).parent
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py")
             if re.search(r"time\.time\(\)|st_mtime\b|getmtime", path.read_text(encoding="utf-8"))}
    assert found == {"store/scratch.py", "store/status.py", "serve/jobs.py"}


def _left(root: Path, name: str, age_s: float = 0.0) -> Path:
    """A scratch folder as another process left it, last touched so long ago."""
    folder = root / "scratch" / name
    folder.mkdir(parents=True)
    (folder / "half").write_text("x")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_leftovers_are_cleared_but_trainings_stay(tmp_path: Path) -> None:
    """FAULTS 5: what a dead process left half-made is removed at start; a training stays for two weeks; what another
    machine is building is left alone until it was not touched for ten minutes."""
    mine = scratch_module.this_host()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name, age in ((f"prepare-aa@{mine}.{dead.pid}.1", 0), ("prepare-bb@other.1.1", 0),
                      ("prepare-cc@other.1.1", 700), (f"train-dd@{mine}.{dead.pid}.1", 0),
                      (f"train-ee@{mine}.{dead.pid}.1", 15 * 86400),
                      (f"prepare-ff@{mine}.{os.getpid()}.1", 0), ("prepare-gg-123", 0)):
        _left(tmp_path, name, age)
    with open_store(tmp_path):
        stay = sorted(p.name.partition("@")[0] for p in (tmp_path / "scratch").iterdir())
    assert stay == ["prepare-bb", "prepare-ff", "train-dd"]


@pytest.mark.parametrize(("name", "age", "goes_on"), [
    ("@other.1.1", 0, False), ("@other.1.1", 700, True), ("@free.0.abc", 0, True), ("", 0, True)])
def test_an_unfinished_training_is_taken_over_once_it_is_abandoned(tmp_path: Path, name: str, age: float,
                                                                   goes_on: bool) -> None:
    """What another machine trains is not touched while it lives; given back or stale, it is gone on with."""
    recipe = Recipe("train", {"a": 1}, resumable=True)
    _left(tmp_path, f"train-{recipe.key}{name}", age)
    found: list[bool] = []

    def build(folder: Path) -> None:
        found.append((folder / "half").exists())
        (folder / "weights").write_text("w")

    with open_store(tmp_path) as store:
        store.make(recipe, build)
    assert found == [goes_on]
    assert len(list((tmp_path / "scratch").iterdir())) == (not goes_on)


def test_abandoned_builds_of_a_finished_training_go(tmp_path: Path) -> None:
    """Of two builds that dead machines left one is gone on with and the other removed once the training is stored."""
    recipe = Recipe("train", {"a": 1}, resumable=True)
    for owner in ("@other.1.1", "@other.2.1"):
        _left(tmp_path, f"train-{recipe.key}{owner}", 700)
    with open_store(tmp_path) as store:
        store.make(recipe, lambda folder: (folder / "weights").write_text("w") and None)
        assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("damage", ["jello", "he", None])
def test_a_worker_refuses_a_damaged_input(tmp_path: Path, damage: str | None) -> None:
    """A stored input that was changed, cut or lost while the run went on is E-CORRUPT where a worker reads it."""
    with open_store(tmp_path) as store:
        place = store.make(RECIPE, _write("hello", []))
    verify(place)
    (place / "result.txt").unlink()
    if damage:
        (place / "result.txt").write_text(damage)
    with pytest.raises(StoreError, match="E-CORRUPT"):
        verify(place)


def test_a_stopped_training_is_given_back(tmp_path: Path) -> None:
    """A training whose process is stopped or raises can be gone on with at once, from any machine."""
    recipe = Recipe("train", {"a": 1}, resumable=True)

    def stopped(folder: Path) -> None:
        (folder / "half").write_text("x")
        release(tmp_path, {os.getpid()})
        raise KeyboardInterrupt

    with open_store(tmp_path) as store:
        with pytest.raises(KeyboardInterrupt):
            store.make(recipe, stopped)
        assert [p.name.partition("@")[2][:6] for p in (tmp_path / "scratch").iterdir()] == ["free.0"]


@pytest.mark.parametrize("manifest", ['{"files": null}', "{}", '{"files": {}}', "[]", '{"files": {"a": 3}}', "x"])
def test_a_manifest_that_lists_nothing_is_not_whole(tmp_path: Path, manifest: str) -> None:
    """A result whose manifest lists no file with size and hash is made again."""
    calls: list[str] = []
    with open_store(tmp_path) as store:
        folder = store.make(RECIPE, _write("x", calls))
        (folder / "manifest.json").write_text(manifest)
        assert not store.has(RECIPE)
        store.make(RECIPE, _write("x", calls))
    assert len(calls) == 2


def test_a_known_result_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that was whole is found by the sizes and times of its files; a changed file is hashed, and found out,
    also when another process looks."""
    calls: list[str] = []
    with open_store(tmp_path) as store:
        store.make(RECIPE, _write("hello", calls))
        store.note(RECIPE)
    with open_store(tmp_path) as store:
        monkeypatch.setattr("mtdlr.store.objects.file_hash", lambda path: pytest.fail("hashed"))
        assert store.find(RECIPE)
        monkeypatch.undo()
        (store.folder(RECIPE) / "result.txt").write_text("jello")
        assert store.find(RECIPE) is None


def test_the_index_of_many_shards_is_joined(tmp_path: Path) -> None:
    """Each shard writes what it knows into a file of its own, a cut line costs itself only, a whole run joins them."""
    with open_store(tmp_path, shared=True) as a, open_store(tmp_path, shared=True) as b:
        for store, stage in ((a, "one"), (b, "two")):
            store.make(Recipe(stage, {}), _write("x", []))
            store.note(Recipe(stage, {}))
    part = next((tmp_path / "index").iterdir())
    part.write_text(part.read_text() + '["cut')
    with open_store(tmp_path) as store:
        assert store.index and {"one", "two"} <= {n.partition("/")[0] for n in store.index._lines.values}
    assert [p.name for p in (tmp_path / "index").iterdir()] == ["whole.jsonl"]


def test_a_result_says_which_code_made_it(tmp_path: Path) -> None:
    """A manifest holds the package's version and a hash of the stage's source; status counts what other code made."""
    recipe = Recipe("signature", {})
    with open_store(tmp_path) as store:
        folder = store.make(recipe, _write("x", []))
        assert json.loads((folder / "manifest.json").read_text())["made_by"]["source"] == source_of("signature")
        write_plan(tmp_path, "signature", [recipe], 1)
        assert store.index
        store.index.add(recipe.name, folder, ["result.txt"], "another")
    assert run_status(tmp_path)["signature"] == "1 of 1; 1 made by other code"


@pytest.mark.parametrize("text", ["[{", "{}x", '[{"found": 1}]', '["E-SUV"]', "7"])
def test_status_bears_damaged_problems(tmp_path: Path, text: str) -> None:
    """A problems.json that is no list of problems costs its own line of the status only."""
    (tmp_path / "objects").mkdir()
    (tmp_path / "problems.json").write_text(text)
    assert run_status(tmp_path)["problems"].startswith("problems.json cannot be read")


def test_status_takes_no_lock(tmp_path: Path) -> None:
    """A run can begin while status looks, and status sees that a process works."""
    with open_store(tmp_path):
        assert run_status(tmp_path)["run"].startswith("working (1 process)")
    assert run_status(tmp_path)["run"].startswith("not running now")


def _result(root: Path, name: str, files: dict[str, str]) -> Path:
    folder = root / "objects" / name
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_publishing_replaces_whole_folders(tmp_path: Path) -> None:
    """FAULTS 94: after a patient is withdrawn no page, picture or figure of the earlier report is left, and files that
    the run did not publish stay."""
    shown = tmp_path / "run"
    publish(_result(tmp_path, "a", {"report.html": "1", "patients/P1.html": "1", "old/f.svg": "1"}), shown, "report")
    publish(_result(tmp_path, "m", {"bundle.json": "1"}), shown / "bundle", "bundle")
    (shown / "notes.txt").write_text("the user's own")
    publish(_result(tmp_path, "b", {"report.html": "2", "patients/P2.html": "2"}), shown, "report")
    assert sorted(p.relative_to(shown).as_posix() for p in shown.rglob("*") if p.is_file()) == [
        "bundle/bundle.json", "bundle/published.json", "notes.txt", "patients/P2.html", "published.json", "report.html"]
    assert (shown / "report.html").read_text() == "2"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_reader_beside_never_sees_a_torn_file(tmp_path: Path, exchange: bool,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """While reports are published one after the other, every file that is read is one of them, whole."""
    if not exchange:
        monkeypatch.setattr("mtdlr.store.files._exchange", lambda a, b: False)
    reports = [_result(tmp_path, str(k), {"report.html": str(k) * 100_000, "tables/t.csv": str(k) * 100_000})
               for k in range(4)]
    shown, seen, ended = tmp_path / "run", set[str](), threading.Event()

    def read() -> None:
        while not ended.is_set():
            for name in ("report.html", "tables/t.csv"):
                with suppress(FileNotFoundError):
                    seen.add((shown / name).read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(20):
        publish(reports[k % 4], shown, "report")
    ended.set()
    reader.join()
    assert seen <= {str(k) * 100_000 for k in range(4)}


def test_publishing_the_same_again_touches_nothing(tmp_path: Path) -> None:
    """A report that is shown already is left alone; one that somebody damaged is shown again."""
    result, shown = _result(tmp_path, "a", {"report.html": "1", "tables/t.csv": "1"}), tmp_path / "run"
    publish(result, shown, "report")
    before = (shown / "report.html").stat().st_mtime_ns, (shown / "tables").stat().st_ino
    publish(result, shown, "report")
    assert ((shown / "report.html").stat().st_mtime_ns, (shown / "tables").stat().st_ino) == before
    (shown / "tables" / "t.csv").unlink()
    publish(result, shown, "report")
    assert (shown / "tables" / "t.csv").read_text() == "1"


def test_a_full_disk_while_publishing_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 6: no room while the new report is copied is E-DISKFULL; the old one stays whole, and nothing else."""
    shown = tmp_path / "run"
    publish(_result(tmp_path, "a", {"report.html": "1"}), shown, "report")
    before = sorted(shown.iterdir())
    monkeypatch.setattr("shutil.copyfile", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(StoreError, match="E-DISKFULL"):
        publish(_result(tmp_path, "b", {"report.html": "2"}), shown, "report")
    assert sorted(shown.iterdir()) == before and (shown / "report.html").read_text() == "1"


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    """FAULTS 8: the second process in a run folder is refused while the first one works."""
    with open_store(tmp_path), pytest.raises(StoreError, match="E-LOCKED"), open_store(tmp_path):
        pass


def test_status_is_read_beside_a_running_run(tmp_path: Path) -> None:
    """`status` takes no lock: it is read while another holds the folder, and holds up nobody."""
    with open_store(tmp_path):
        assert run_status(tmp_path)
        with pytest.raises(StoreError, match="E-LOCKED"), open_store(tmp_path):
            pass
    with open_store(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """FAULTS 9: after kill -9 of its holder the run folder can be opened at once."""
    script = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from mtdlr.store import open_store
        with open_store(Path({str(tmp_path)!r})):
            print("held", flush=True); signal.pause()
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
