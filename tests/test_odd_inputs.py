"""Inputs that nobody means and somebody has: endless files, huge cells and ids, times beyond any life."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mtdlr.cli import app
from mtdlr.cohort.check import check_study
from mtdlr.cohort.clinical import survey_clinical
from mtdlr.errors import Problem, StudyError, TableError
from mtdlr.imaging.layout import discover
from mtdlr.nomogram import Nomogram
from mtdlr.report.pictures import page_name
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.workers.parts import require_part

ROOT = Path(__file__).parents[1]
STUDY = '[cohort]\nimages = "{images}"\nstage = "stage"\nfactors = {{ stage = ["III"] }}\n'


def _codes(folder: Path, rows: str, end: str = "\n") -> dict[str, list[str]]:
    """The codes of every patient of a table."""
    (folder / "clinical.csv").write_bytes(("patient_id,time_months,event,stage\n" + rows).replace("\n", end).encode())
    (folder / "study.toml").write_text(STUDY.format(images="images"))
    _, problems, _ = survey_clinical(Study.load(folder / "study.toml").cohort)
    found: dict[str, list[str]] = {}
    for problem in problems:
        for patient in problem.patients:
            found.setdefault(patient, []).append(problem.code)
    return found


def test_a_follow_up_beyond_any_life(tmp_path: Path) -> None:
    """More than a hundred years, up to the end of double precision, is E-TIME of its patient, not a usable time."""
    usual = "".join(f"U{n},{20 + n},1,III\n" for n in range(5))
    told = _codes(tmp_path, "P1,1e308,1,III\nP2,1201,1,III\nP3,1199,1,III\nP4,1e999,1,III\n" + usual)
    assert told["P1"] == told["P2"] == ["E-TIME"] and "P3" not in told and told["P4"] == ["E-NUMBER"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_huge_cell_and_any_line_end(tmp_path: Path, end: str) -> None:
    """A cell of 100,000 letters costs its own patient only, a longer one is E-CSV with its line, with any line end."""
    assert _codes(tmp_path, f"P1,5,1,III\nP2,5,1,{'x' * 100_000}\n", end) == {"P2": ["E-LEVEL"]}
    with pytest.raises(TableError, match="E-CSV clinical.csv: .* line 3"):
        _codes(tmp_path, f"P1,5,1,III\nP2,5,1,{'x' * 200_000}\n", end)


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_what_never_ends_is_not_read(tmp_path: Path, kind: str) -> None:
    """A pipe or /dev/zero in the place of the table, of a scan or of a file that a manifest names is a problem at once:
    nothing is waited for and no memory is filled."""
    def put(path: Path) -> None:
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")

    put(tmp_path / "clinical.csv")
    (tmp_path / "images").mkdir()
    for name in ("P1__PT.nii.gz", "P1__CT.nii.gz", "P1.nii"):
        put(tmp_path / "images" / name)
    (tmp_path / "study.toml").write_text(STUDY.format(images="images"))
    with pytest.raises(TableError, match="E-NOTABLE"):
        survey_clinical(Study.load(tmp_path / "study.toml").cohort)
    assert "E-NOTABLE" in {p.code for p in check_study(tmp_path / "study.toml").problems}
    (tmp_path / "manifest.csv").write_text("patient_id,pet,ct\nP1,images/P1__PT.nii.gz,images/P1.nii\n")
    (scan,) = discover(tmp_path / "manifest.csv")
    (tmp_path / "clinical.csv").unlink()
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,stage\nP1,5,1,III\n")
    checked = check_study(tmp_path / "study.toml", [f"cohort.images={tmp_path / 'manifest.csv'}"])
    assert checked.usable == () and any(p.is_error for p in checked.problems if "P1" in p.patients), scan


def test_a_file_of_no_bytes_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of the system's files say that they hold nothing and wait for ever when read: a file of no bytes is taken as
    empty without being opened."""
    opened: list[str] = []
    really = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path.name) or really(path, *a, **k))
    (tmp_path / "images" / "P1").mkdir(parents=True)
    for name in ("empty.dcm", "some.dcm"):
        (tmp_path / "images" / "P1" / name).write_bytes(b"" if name == "empty.dcm" else b"no DICOM")
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,stage\nP1,5,1,III\n")
    (tmp_path / "study.toml").write_text(STUDY.format(images="images"))
    opened.clear()
    assert check_study(tmp_path / "study.toml").usable == ()
    assert "some.dcm" in opened and "empty.dcm" not in opened


def test_ids_of_any_length_have_a_page() -> None:
    """An id of 251 letters, of slashes or of other letters has a file name of its own that every file system takes."""
    ids = ["x" * 251, "x" * 252, "a/b", "a_b", "Ä" * 120, "..", ".", "病人"]
    names = [page_name(id_) for id_ in ids]
    assert len(set(names)) == len(ids)
    assert all(0 < len(f"{name}-risk.jpg".encode()) < 200 and "/" not in name and name.strip(".") for name in names)


def test_a_template_scan_is_not_given_away() -> None:
    """E-TEMPLATE before any work where a bundle would need a patient's scan; a report alone can be made."""
    study = Study.of({"prepare": {"roi": "template", "template": "/somewhere"}})
    with pytest.raises(StudyError, match="E-TEMPLATE"):
        require_part(None, "bundle", study)
    assert require_part(None, "report", study) == "report"


def test_no_template_prints_a_name_that_is_not_there() -> None:
    """Every page is made by templates that refuse a name they do not know, instead of printing nothing."""
    made = [found for path in (ROOT / "src" / "mtdlr").rglob("*.py")
            for found in re.findall(r"\bEnvironment\((?:[^()]|\([^()]*\))*\)", path.read_text(encoding="utf-8"))]
    assert len(made) >= 5 and all("StrictUndefined" in found for found in made), made


@pytest.mark.slow  # figures are drawn
def test_the_examples_of_the_nomogram_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both Python blocks of docs/nomogram.md run as they stand, on a table with the columns that they name."""
    from mtdlr.nomogram.calculator import write_calculator
    from mtdlr.report.figures import nomogram_figure, save

    random = np.random.default_rng(0)
    table = pd.DataFrame({"tnm_stage": np.where(random.random(90) < 0.5, "III", "IVa"),
                          "auto_radio": random.normal(size=90), "deepmts": random.normal(size=90)})
    surv = Survival(random.exponential(40 * np.exp(-table["deepmts"])) + 0.1, random.random(90) < 0.6)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "nomogram.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {"Nomogram": Nomogram, "table": table, "surv": surv, "patient": table.iloc[0].to_dict(), "patients": table,
             "save": save, "nomogram_figure": nomogram_figure, "write_calculator": write_calculator}
    monkeypatch.chdir(tmp_path)
    for block in blocks[:2]:
        exec(block, names)
    assert len(blocks) >= 2 and (tmp_path / "calculator.html").is_file() and (tmp_path / "nomogram.pdf").is_file()


def test_a_run_that_lost_a_patient_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` ends with status 1 and names the patient and the stage where one failed; with 0 where none did."""
    (tmp_path / "study.toml").write_text(STUDY.format(images="images"))
    lost: dict[str, str] = {}

    @contextmanager
    def run(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(failed=lost, output=tmp_path, evaluations={}, until=lambda stage: None,
                              problems=[Problem("E-GAP", "slices are missing").of_patient(i) for i in lost])

    monkeypatch.setattr(importlib.import_module("mtdlr.pipeline"), "Run", run)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "study.toml"), "--until", "prepare"])
    assert done.exit_code == 0
    lost["P7"] = "radiomics"
    done = CliRunner().invoke(app, ["run", str(tmp_path / "study.toml"), "--until", "prepare"])
    assert done.exit_code == 1 and "P7 in radiomics" in done.output
