"""What DICOM headers say is remembered in the run folder: none is read twice, no changed file is taken for known."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import imaging_series as series
import pytest

from mtdlr.cohort import HeaderReader, headers, read_cohort
from mtdlr.errors import CohortError
from mtdlr.imaging.layout import ScanSet, discover
from mtdlr.pipeline import Run
from mtdlr.study import Study
from mtdlr.workers import Workers

Read = Callable[[], list[str]]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two patients, a PET and a CT of twelve slices each."""
    for name, number in (("P1", b"4711"), ("P2", b"4712")):
        for write, part in ((series.write_pet, "pet"), (series.write_ct, "ct")):
            for path in write(tmp_path / "scans" / name / part, 12):
                path.write_bytes(path.read_bytes().replace(b"4711", number))
    return tmp_path / "scans"


@pytest.fixture
def read_now(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Names of the folders whose headers were read since the last call."""
    names: list[str] = []
    reads = headers.read_folder

    def counted(files: tuple[Path, ...]) -> object:
        names.append("/".join(files[0].parts[-3:-1]))
        return reads(files)

    monkeypatch.setattr(headers, "read_folder", counted)
    return lambda: [names.pop(0) for _ in list(names)]


def _find(scans: Path, run: Path, **more: object) -> tuple[ScanSet, ...]:
    return discover(scans, read=HeaderReader(Workers(), run, **more))  # type: ignore[arg-type]


def _memory(run: Path) -> list[Path]:
    return sorted((run / headers.HEADERS).glob("*.jsonl"))


@pytest.mark.parametrize("given", ["folders", "zip", "manifest"])
def test_what_is_remembered_is_what_reading_gives(scans: Path, tmp_path: Path, read_now: Read, given: str) -> None:
    """A second look reads no header and finds the same series, files and problems to the last field."""
    root = scans
    if given == "zip":
        root = scans.with_suffix(".zip")
        with zipfile.ZipFile(root, "w") as packed:
            for path in sorted(p for p in scans.rglob("*") if p.is_file()):
                packed.write(path, path.relative_to(scans))
    elif given == "manifest":
        root = tmp_path / "manifest.csv"
        root.write_text("patient_id,pet,ct\nA,scans/P1/pet,scans/P1/ct\nB,scans/P2,scans/P2\nC,,scans/P2\n")
    plain = discover(root)
    assert _find(root, tmp_path / "run") == plain and read_now()
    assert _find(root, tmp_path / "run") == plain and not read_now()
    assert any(scan.candidates for scan in plain)


def test_a_changed_header_is_seen(scans: Path, tmp_path: Path, read_now: Read) -> None:
    """A header of another content and the same size is read again for its time of change, with its folder alone; so is
    one whose time of change was set back."""
    _find(scans, tmp_path / "run")
    read_now()
    path = scans / "P1" / "pet" / "003-1.dcm"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"4711", b"4799"))
    os.utime(path, ns=(1, 1))
    found = _find(scans, tmp_path / "run")
    assert path.stat().st_size == before.st_size and read_now() == ["P1/pet"]
    assert "E-PATIENTMIX" in {p.code for p in found[0].problems} and found == discover(scans)
    path.write_bytes(path.read_bytes().replace(b"4799", b"4711"))
    os.utime(path, ns=(1, 1))  # as the copy that was read; only the time of status change tells
    assert _find(scans, tmp_path / "run") == discover(scans) and read_now() == ["P1/pet"]


def test_an_added_and_a_removed_file_are_seen(scans: Path, tmp_path: Path, read_now: Read) -> None:
    """A folder with one file more, or one less, is read again; the others are not."""
    _find(scans, tmp_path / "run")
    read_now()
    removed = scans / "P2" / "ct" / "003-2.dcm"
    data = removed.read_bytes()
    removed.unlink()
    found = _find(scans, tmp_path / "run")
    assert read_now() == ["P2/ct"] and len(found[1].ct) == 11  # type: ignore[arg-type]
    (removed.parent / "999.dcm").write_bytes(data)
    found = _find(scans, tmp_path / "run")
    assert read_now() == ["P2/ct"] and len(found[1].ct) == 12 and found == discover(scans)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "noise", "other"])
def test_a_damaged_memory_costs_time_only(scans: Path, tmp_path: Path, read_now: Read, damage: str) -> None:
    """Whatever became of the memory's file, what is damaged is read again and found as before."""
    plain = _find(scans, tmp_path / "run")
    (file,) = _memory(tmp_path / "run")
    lines = file.read_text().splitlines()
    if damage == "flip":
        lines = [line[:60] + ("A" if line[60] != "A" else "B") + line[61:] for line in lines]
    elif damage == "cut":
        lines = [line[: len(line) // 2] for line in lines]
    elif damage == "swap":  # each folder's entry under the next one's name
        lines = [a[:20] + b[20:] for a, b in zip(lines, lines[1:] + lines[:1], strict=True)]
    elif damage == "noise":
        lines = ["\x00\x01", "[]", '["a"]', "{}", '["b", 3]']
    else:
        lines = [f"{line[:20]} {value}]" for line, value in zip(lines, ["3", "null", '"AA"', "[[1]]"], strict=True)]
    file.write_text("\n".join(lines))
    read_now()
    assert _find(scans, tmp_path / "run") == plain and len(read_now()) == 4
    assert _find(scans, tmp_path / "run") == plain and not read_now()


def test_two_processes_may_remember_at_once(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads and writes while another does, and while a third joins what both wrote, loses nothing but time."""
    plain, reads, inside = discover(scans), headers.read_folder, []

    def beside(files: tuple[Path, ...]) -> object:
        if len(inside) < 2:  # between the first's folders the others do all of it
            inside.append(files)
            assert _find(scans, tmp_path / "run", join=len(inside) == 2) == plain
        return reads(files)

    monkeypatch.setattr(headers, "read_folder", beside)
    assert _find(scans, tmp_path / "run") == plain and len(_memory(tmp_path / "run")) > 1
    monkeypatch.setattr(headers, "read_folder", pytest.fail)
    assert _find(scans, tmp_path / "run", join=True) == plain
    assert [path.name for path in _memory(tmp_path / "run")] == ["whole.jsonl"]


def test_the_run_folder_alone_tells_nothing(scans: Path, tmp_path: Path) -> None:
    """What is remembered names no file, and without the scans' own bytes nobody can open it."""
    (scans / "P1" / "pet" / "notes").write_text("a guess")  # a file that is no image gives no key
    _find(scans, tmp_path / "run")
    (file,) = _memory(tmp_path / "run")
    assert str(tmp_path) not in file.read_text() and "pet" not in file.read_text()
    pet = tuple(sorted((scans / "P1" / "pet").iterdir()))
    seal = headers._seal(pet)
    entry = next(value for value in headers.Lines(file.parent, join=False).values.values()
                 if headers._opened(value, seal or b"", pet))
    for path in pet:  # same names and sizes, other bytes
        path.write_bytes(bytes(path.stat().st_size))
    assert headers._opened(entry, headers._seal(pet) or b"", pet) is None


def test_a_file_that_cannot_be_read_is_tried_again(scans: Path, tmp_path: Path, read_now: Read) -> None:
    """A folder with a fault is not remembered: the fault may have been the disk's."""
    (scans / "P1" / "pet" / "bad.dcm").write_bytes(b"no image")
    plain = discover(scans)
    for _ in range(2):
        assert _find(scans, tmp_path / "run") == plain
    assert read_now().count("P1/pet") == 2 and "E-DICOM" in {p.code for p in plain[0].problems}


class _Lost(ThreadPoolExecutor):
    """Loses every other job."""

    def submit(self, function: object, /, *arguments: object, **named: object) -> Future[object]:  # type: ignore[override]
        self.n = getattr(self, "n", 0) + 1
        if self.n % 2:
            lost: Future[object] = Future()
            lost.set_exception(OSError())
            return lost
        return super().submit(function, *arguments, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, _Lost])
def test_many_headers_are_read_by_the_workers(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: type[ThreadPoolExecutor],
) -> None:  # fmt: skip
    """Workers find what one process finds, and are told of; a folder whose worker is lost twice is read here."""
    monkeypatch.setattr(headers, "MANY", 40)
    told: list[tuple[str, float, int]] = []
    with pool(2) as executor:
        workers = Workers(2, progress=lambda *row: told.append(row), executor=executor)
        found = discover(scans, read=HeaderReader(workers, tmp_path / "run"))
    assert found == discover(scans) and {row[0] for row in told} == {"headers"}


def test_a_run_remembers_and_a_look_writes_nothing(scans: Path, tmp_path: Path, read_now: Read) -> None:
    """A run reads no header twice; `check` and `cluster` use what it remembered and write nothing."""
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,tnm_stage\nP1,5,1,III\nP2,6,0,IVa\n")
    (tmp_path / "study.toml").write_text(
        '[cohort]\nimages = "scans"\ntable = "clinical.csv"\n[cohort.factors]\ntnm_stage = ["III", "IVa"]\n')
    study = Study.load(tmp_path / "study.toml")
    looks = HeaderReader(Workers(), tmp_path / "run", writes=False)
    assert read_cohort(study.cohort, looks).ids == ["P1", "P2"] and not (tmp_path / "run").exists() and read_now()
    for expected in (4, 0):
        with Run(study, tmp_path / "run", Workers()) as run, pytest.raises(CohortError, match="E-FEWEVENTS"):
            _ = run.cohort
        assert len(read_now()) == expected
    assert read_cohort(study.cohort, looks).ids == ["P1", "P2"] and not read_now()
