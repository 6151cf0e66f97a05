"""A newcomer's way with sixty patients in their own naming: from `mtdlr init` to a run in at most three checks."""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mtdlr.cli import app
from mtdlr.cohort.patients import read_cohort, require_events
from mtdlr.cohort.propose import propose_manifest
from mtdlr.imaging import nifti
from mtdlr.nets.pace import Pace
from mtdlr.study import Study
from mtdlr.volume import Volume

PATIENTS = 60
COLUMNS = ["Pat.-Nr.", "Geschlecht", "Alter (Jahre)", "Stadium", "Therapiebeginn", "Letzter Kontakt", "Status"]
WRONG = {  # row of the table: (column, what stands there, what should)
    4: ("Therapiebeginn", "31.02.2019", "28.02.2019"), 11: ("Stadium", "IVaa", "IVa"),
    17: ("Status", "unklar", "lebt"), 23: ("Alter (Jahre)", "6o,5", "60,5"),
    31: ("Letzter Kontakt", "03.05.2012", "03.05.2021"), 38: ("Stadium", "4a", "IVa"), 45: ("Status", "", "Rezidiv"),
}  # fmt: skip


def image(path: Path, seed: int, low: float, high: float) -> None:
    array = np.random.default_rng(seed).uniform(low, high, (6, 5, 4)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume.on_grid(array, (3.0, 2.0, 2.0)))


def write_hospital(folder: Path) -> None:
    """Bilder/Fall 001 ... and Klinik.csv as a German Excel writes it: semicolons, decimal commas, Windows-1252."""
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[1:4, 1:4, 1:4] = 1
    rows = [";".join(COLUMNS)]
    for n in range(1, PATIENTS + 1):
        case = folder / "Bilder" / f"Fall {n:03d}"
        image(case / f"PET_SUV_{n:03d}.nii.gz", n, 0.0, 9.0)
        image(case / f"CT_nativ_{n:03d}.nii.gz", 1000 + n, -1000.0, 1000.0)
        nifti.write(case / f"GTV_{n:03d}.nii.gz", Volume.on_grid(mask, (3.0, 2.0, 2.0)))
        cells = [f"Fall-{n}", "männlich" if n % 3 else "weiblich", f"{50 + n % 30},5", "IVa" if n % 2 else "III",
                 f"{1 + n % 28:02d}.{1 + n % 12:02d}.2018", f"{1 + n % 27:02d}.{1 + n % 12:02d}.2021",
                 "Rezidiv" if n % 3 == 0 else "lebt"]
        if n in WRONG:
            cells[COLUMNS.index(WRONG[n][0])] = WRONG[n][1]
        rows.append(";".join(cells))
    rows.append(rows[8])  # a row twice
    (folder / "Klinik.csv").write_bytes("\r\n".join(rows).encode("cp1252"))


@dataclass
class Newcomer:
    """Somebody who types commands, reads what they print, and edits what is named."""

    folder: Path
    checks: int = 0

    def types(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done.exit_code, done.output

    def checks_it(self) -> tuple[int, list[dict[str, str]]]:
        """Exit status and the lines of --csv; the text of the table must not praise what is wrong."""
        self.checks += 1
        status, text = self.types("check", str(self.folder / "mystudy" / "study.toml"), "--csv",
                                  str(self.folder / "problems.csv"))
        problems = list(csv.DictReader(StringIO((self.folder / "problems.csv").read_text(encoding="utf-8-sig"))))
        assert ("nothing is wrong" in text) == (not problems)
        assert all(p["what to do"] for p in problems if p["code"].startswith("E-"))
        return status, problems

    def edits_study(self, edit: Callable[[str], str]) -> None:
        path = self.folder / "mystudy" / "study.toml"
        path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")

    def edits_table(self, edit: Callable[[list[list[str]]], list[list[str]]]) -> None:
        path = self.folder / "Klinik.csv"
        rows = [line.split(";") for line in path.read_bytes().decode("cp1252").split("\r\n")]
        path.write_bytes("\r\n".join(";".join(row) for row in edit(rows)).encode("cp1252"))


def sets(**keys: str) -> Callable[[str], str]:
    """The study file with some of its commented keys set."""
    def edit(text: str) -> str:
        for key, value in keys.items():
            text, n = re.subn(rf"^(# )?{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
            assert n == 1, key
        return text

    return edit


@pytest.fixture()
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Newcomer:
    monkeypatch.setattr(importlib.import_module("mtdlr.cli.check"), "_timer", lambda *_: Pace(1.0, 1.0))
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # sixty tiny scans are not worth the start of more processes
    write_hospital(tmp_path)
    found = Newcomer(tmp_path)
    status, text = found.types("init", str(tmp_path / "mystudy"), "--images", str(tmp_path / "Bilder"), "--table",
                               str(tmp_path / "Klinik.csv"))
    assert status == 0 and "60 patients" in text
    return found


@pytest.mark.slow
def test_sixty_patients_in_three_checks(newcomer: Newcomer) -> None:
    """init, check, fill in columns, check, mend cells, check: then a run begins with all sixty patients."""
    status, problems = newcomer.checks_it()
    assert status == 2 and {p["code"] for p in problems} >= {"E-COLUMN", "E-STAGE"}
    missing = " ".join(p["expected"] for p in problems if p["code"] == "E-COLUMN")
    assert all(name in missing for name in COLUMNS)  # the messages show which columns there are
    newcomer.edits_study(sets(start='"Therapiebeginn"', end='"Letzter Kontakt"', event='"Status"', stage='"Stadium"',
                              continuous='["Alter (Jahre)"]',
                              factors='{ Stadium = ["III", "IVa"], Geschlecht = ["männlich", "weiblich"] }'))
    status, problems = newcomer.checks_it()
    assert status == 2
    told = {(p["where"], p["found"].strip("'")) for p in problems if p["code"].startswith("E-")}
    assert {(column, cell) for column, cell, _ in WRONG.values()} <= told
    assert [p["code"] for p in problems if p["patient"] == "Fall-8"] == ["E-DUPLICATE"]
    named = {p["patient"] for p in problems if p["code"].startswith("E-")}
    assert named == {f"Fall-{n}" for n in (*WRONG, 8)}

    def mended(rows: list[list[str]]) -> list[list[str]]:
        for n, (column, _, right) in WRONG.items():
            rows[n][COLUMNS.index(column)] = right
        return rows[:-1]

    newcomer.edits_table(mended)
    status, problems = newcomer.checks_it()
    assert status == 0 and not [p for p in problems if p["code"].startswith("E-")] and newcomer.checks <= 3
    cohort = read_cohort(Study.load(newcomer.folder / "mystudy" / "study.toml").cohort)
    require_events(cohort)
    assert len(cohort) == PATIENTS and cohort.ids[0] == "Fall-1" and all(p.scan.mask for p in cohort)
    assert cohort.table["Alter (Jahre)"].iloc[0] == 51.5 and cohort.table["event"].sum() == 20


@pytest.mark.parametrize("names", [
    ("{n}/pet.nii.gz", "{n}/ct.nii.gz", "{n}/seg.nii.gz"), ("PET/{n}.nii.gz", "CT/{n}.nii.gz", "Masken/{n}.nii.gz"),
    ("{n}_PT.nii.gz", "{n}_CT.nii.gz", "{n}_CT_mask.nii.gz"), ("{n}/TEP.nii", "{n}/TDM.nii", "{n}/masque.nii"),
    ("{n}/FDG SUV.nii.gz", "{n}/LowDose-CT.nii.gz", "{n}/Kontur.nii.gz"),
    ("{n}/PET_SUVbw.nii.gz", "{n}/CTAC.nii.gz", "{n}/Tumour GTVp.nii.gz"),
    ("{n}-PET.nii.gz", "{n}-TAC.nii.gz", "{n}-maschera.nii.gz")])
def test_names_of_files_are_understood(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """Names as hospitals give them, in five languages: every patient has PET, CT and mask in the proposed manifest."""
    for n in range(3):
        for name in names:
            path = tmp_path / "scans" / name.format(n=f"K{n}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    rows = propose_manifest(tmp_path / "scans", tmp_path).rows
    assert [row[:4] for row in rows] == [
        (f"K{n}", *(f"scans/{name.format(n=f'K{n}')}" for name in names)) for n in range(3)]
