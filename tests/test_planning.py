"""Which jobs of a stage are left to do, and which files have to be read again."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtdlr.errors import MtdlrError, Problem, ScanError
from mtdlr.imaging.layout import ScanSet, given_files
from mtdlr.jobs import hash_scan
from mtdlr.store import Recipe, Store, open_store
from mtdlr.study import Study
from mtdlr.workers import Workers
from mtdlr.workers.planning import Desk, Stored, require_machine, where_shown

READ: list[str] = []


def _counted(scan: ScanSet) -> tuple[str, str, str]:
    READ.append(scan.patient_id)
    return hash_scan(scan)


def _scans(folder: Path, ids: str) -> dict[str, ScanSet]:
    for id_ in ids:
        for role in ("pet", "ct"):
            (folder / f"{id_}_{role}.nii").write_text(f"{role} of {id_}")
    return {id_: given_files(id_, folder / f"{id_}_pet.nii", folder / f"{id_}_ct.nii") for id_ in ids}


def test_a_scan_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    """A second run reads only files whose size or time of change differs, and finds the same hashes."""
    scans = _scans(tmp_path, "ab")
    with open_store(tmp_path / "store") as store:
        desk = Desk(store, Workers(1))
        READ.clear()
        first = desk.hashes(scans, _counted)
        assert READ == ["a", "b"]
        assert desk.hashes(scans, _counted) == first and READ == ["a", "b"]
        (tmp_path / "b_ct.nii").write_text("another scan of b")
        os.utime(tmp_path / "b_ct.nii", ns=(1, 1))
        again = desk.hashes(scans, _counted)
    assert READ == ["a", "b", "b"] and again["a"] == first["a"] and again["b"][2] != first["b"][2]


def test_what_is_remembered_names_no_file(tmp_path: Path) -> None:
    """The memory of earlier readings holds hashes, no path: names of files may be names of patients."""
    with open_store(tmp_path / "store") as store:
        Desk(store, Workers(1)).hashes(_scans(tmp_path, "a"), _counted)
    kept = [path.read_text() for path in (tmp_path / "store" / "scans").rglob("*") if path.is_file()]
    assert kept and not any("a_pet" in text or str(tmp_path) in text for text in kept)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_result_is_said_in_the_run(tmp_path: Path, damage: str) -> None:
    """Whatever damaged a stored result, the run's problems, and with them the report, say W-CORRUPT with the stage."""
    jobs = [_Kept(Recipe("prepare", {"n": n}, {})) for n in range(3)]
    with open_store(tmp_path) as store:
        places = [store.make(job.recipe, lambda folder: (folder / "a").write_text("hello") and None) for job in jobs]
        Desk(store, Workers(1)).outcomes(_stored, jobs, "prepare")
        assert Desk(store, Workers(1)).store_problems() == []
    for place in places[:2]:
        (place / "a").unlink()
        if damage != "remove":
            (place / "a").write_text("jello" if damage == "flip" else "he")
    with open_store(tmp_path) as store:
        desk = Desk(store, Workers(1))
        desk.outcomes(_stored, jobs, "prepare")
        (problem,) = desk.store_problems()
    assert (problem.code, problem.where, problem.found) == ("W-CORRUPT", "stage prepare", "2 results")


def test_nothing_trains_without_patients_that_the_machine_lost() -> None:
    """E-UNPREPARED after the machine's own faults in preparation; a patient's damaged files do not stop a run."""
    lost = Problem("E-MEMORY", "no memory", patients=("a",))
    with pytest.raises(MtdlrError, match="E-UNPREPARED") as caught:
        require_machine(Stored({}, {}, (lost,), ("a",)))
    assert caught.value.problems[0] == lost
    require_machine(Stored({}, {}, (Problem("E-TRUNCATED", "cut", patients=("a",)),), ("a",)))


@dataclass(frozen=True)
class _Kept:
    recipe: Recipe


def _stored(job: _Kept) -> Path:
    """A job that only says where its result would be."""
    return Path(job.recipe.name)


def _unreadable(scan: ScanSet) -> tuple[str, str, str]:
    raise ScanError(Problem("E-CRC" if scan.patient_id == "a" else "E-IO", "cannot be read"))


def test_a_broken_file_is_left_out_and_a_broken_disk_stops(tmp_path: Path) -> None:
    """A patient whose files are damaged is left out and named by preparation; a fault of the machine ends the run."""
    scans = _scans(tmp_path, "ab")
    with open_store(tmp_path / "store") as store:
        desk = Desk(store, Workers(1))
        assert desk.hashes({"a": scans["a"]}, _unreadable) == {}
        with pytest.raises(MtdlrError, match="E-IO"):
            desk.hashes({"b": scans["b"]}, _unreadable)


def test_a_try_does_not_replace_the_report(tmp_path: Path) -> None:
    """Results of settings other than the study file's are shown in a folder of their own under tries/; how the work is
    run (processes, threads) is no such setting."""
    study = Study()
    other, busy = Study.of({"deepmts": {"epochs": 3}}), Study.of({"run": {"workers": 7}})
    assert where_shown(tmp_path, study, study) == where_shown(tmp_path, busy, study) == tmp_path
    shown = where_shown(tmp_path, other, study)
    assert shown.parent == tmp_path / "tries" and shown == where_shown(tmp_path, other, study)
    assert shown != where_shown(tmp_path, Study.of({"deepmts": {"epochs": 4}}), study)


@dataclass(frozen=True)
class _Job:
    store: Store
    recipe: Recipe


def _make(job: _Job) -> Path:
    return job.store.make(job.recipe, lambda folder: (folder / "done").touch())


class _Loses(ThreadPoolExecutor):
    """A cluster that loses every worker which takes patient b."""

    lost = 0

    def submit(self, function, /, *arguments, **more):  # type: ignore[no-untyped-def]
        if arguments[1].recipe.inputs["scan"] == "b":
            self.lost += 1
            future: Future = Future()
            future.set_exception(RuntimeError("KilledWorker"))
            return future
        return super().submit(function, *arguments, **more)


def _refused(job: object) -> Path:
    raise ScanError(Problem("E-SUV", "no weight"))


def test_a_run_that_can_score_nobody_says_so(tmp_path: Path) -> None:
    """Where every patient fails in scoring the run ends with each one's problem and E-NOTSCORED; a picture that fails
    ends nothing."""
    with open_store(tmp_path) as store:
        work = {i: _Job(store, Recipe("score", {}, {"scan": i})) for i in "ab"}
        with pytest.raises(MtdlrError) as error:
            Desk(store, Workers(1)).patients(_refused, work, "score", None)
        assert [p.code for p in error.value.problems] == ["E-SUV", "E-SUV", "E-NOTSCORED"]
        assert Desk(store, Workers(1)).patients(_refused, work, "pictures", None).failed == ("a", "b")


def test_a_patient_whose_worker_is_lost_twice_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """The others are stored, E-WORKERDIED names the patient, and nothing is held against its data: a shard beside sees
    it as not done yet, and the next run tries it again."""
    with open_store(tmp_path) as store, _Loses(2) as executor:
        work = {i: _Job(store, Recipe("prepare", {}, {"scan": i})) for i in "abc"}
        found = Desk(store, Workers(executor=executor)).patients(_make, work, "prepare", None)
        assert executor.lost == 2 and found.failed == ("b",) and list(found.folders) == ["a", "c"]
        assert [(p.code, p.patients) for p in found.problems] == [("E-WORKERDIED", ("b",))]
        beside = Desk(store, Workers(), mine=frozenset("a")).patients(_make, work, "prepare", None)
        assert beside.absent == ("b",) and beside.failed == ()
        again = Desk(store, Workers()).patients(_make, work, "prepare", None)
        assert list(again.folders) == ["a", "b", "c"] and not again.problems
