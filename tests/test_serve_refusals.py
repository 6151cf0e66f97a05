"""What `predict` refuses is refused by the server with the same problems, and its page shows their codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from imaging_series import write_ct, write_pet
from markupsafe import escape
from serve_fake import FACTS
from untrained import save_untrained_bundle

from mtdlr.errors import MtdlrError
from mtdlr.predict import Bundle
from mtdlr.serve.jobs import Job, new_job, save_job
from mtdlr.serve.pages import job_page
from mtdlr.serve.predictor import predictor_of
from mtdlr.serve.worker import _problems_of

SLICES = 12
STAGE = {"clinical": {"tnm_stage": "IVa"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model whose networks are never loaded: every scan here is refused before."""
    place = tmp_path_factory.mktemp("model")
    for name in ("bundle", "parts"):
        (place / name).mkdir()
    save_untrained_bundle(place / "bundle", place / "parts")
    return Bundle.load(place / "bundle")


def _pair(folder: Path, **of_pet: Any) -> None:
    write_pet(folder / "PET", SLICES, **of_pet)
    write_ct(folder / "CT", SLICES)


def _two(folder: Path) -> None:
    for name in ("P1", "P2"):
        write_pet(folder / name / "PET", SLICES, PatientID=name, StudyInstanceUID=f"1.2.{len(name)}.{name[1]}")
        write_ct(folder / name / "CT", SLICES, PatientID=name, StudyInstanceUID=f"1.2.{len(name)}.{name[1]}")


def _text(folder: Path) -> None:
    (folder / "notes.txt").write_text("no scan")


@pytest.mark.parametrize(("make", "values", "code"), [
    (lambda folder: write_pet(folder, SLICES), STAGE, "E-NOCT"),
    (lambda folder: write_ct(folder, SLICES), STAGE, "E-NOPET"),
    (_two, STAGE, "E-MANYPATIENTS"), (_text, STAGE, "E-LAYOUT"), (_pair, {}, "E-CLINICAL"),
    (_pair, {"clinical": {"tnm_stage": "IX"}}, "E-CLINICAL"), (_pair, STAGE | {"series": ("nothing",)}, "E-NOSERIES"),
    (lambda folder: _pair(folder, Units="CNTS"), STAGE, "E-PHILIPS"),
    (lambda folder: _pair(folder, FrameOfReferenceUID="1.9"), STAGE, "E-FRAME"),
], ids=["no CT", "no PET", "two patients", "no scan", "no stage", "unknown stage", "no such series", "counts", "frames"]
)
def test_a_refusal_is_that_of_predict(
    model: Bundle, make: Callable[[Path], None], values: Mapping[str, Any], code: str, tmp_path: Path
) -> None:
    """The job's problems are those of `predict`, one for one, and the page holds their codes and what to do."""
    job = Job(new_job().id, **values)
    save_job(tmp_path, job)
    (tmp_path / job.id / "upload").mkdir()
    make(tmp_path / job.id / "upload")
    problems = _problems_of(predictor_of(model), tmp_path, job.id)
    with pytest.raises(MtdlrError) as refused:
        model.predict(tmp_path / job.id / "upload", **values)
    assert problems == refused.value.problems and problems[0].code == code
    page = job_page(FACTS, replace(job, state="failed", problems=problems), 0)
    assert all(problem.code in page and escape(problem.remedy or problem.expected) in page for problem in problems)
    assert [path.name for path in (tmp_path / job.id).iterdir() if path.name.startswith(".making")] == []
