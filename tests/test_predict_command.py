"""The verb `predict`: what is read, what is written, what is refused before the work."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_prediction import prediction, prepared
from typer.testing import CliRunner, Result

from mtdlr import predict as stage
from mtdlr.cli import app
from mtdlr.cohort.clinical import label_of
from mtdlr.errors import MtdlrError, ScanError, TableError
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.covariates import clinical_values
from mtdlr.report import pdf
from mtdlr.shift import Reference, image_hashes
from mtdlr.shift.aggregates import Aggregates, salted
from mtdlr.stats.terms import Continuous, Factor
from mtdlr.survival import Survival


class _Bundle:
    """A model that answers without networks, and remembers how it was asked."""

    asked: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> _Bundle:
        return cls()

    def predict(self, patient: Path | None, **options: Any) -> stage.Prediction:
        _Bundle.asked = {"patient": patient} | options
        return prediction()


@pytest.fixture
def mtdlr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a command in an empty folder."""
    monkeypatch.setattr(stage, "Bundle", _Bundle)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))
    return call


def test_a_folder_or_two_images_are_read(mtdlr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict BUNDLE FOLDER` and `predict BUNDLE --pet X --ct Y` both reach the model, with the clinical values."""
    monkeypatch.setattr(stage, "_write_files", lambda *_: None)  # what is written is the next test's
    assert mtdlr("predict", "model", "scans", "--clinical", "tnm_stage=IVa", "-o", "one").exit_code == 0
    assert _Bundle.asked["patient"] == Path("scans") and _Bundle.asked["clinical"] == {"tnm_stage": "IVa"}
    done = mtdlr("predict", "model", "--pet", "pet.nii.gz", "--ct", "ct.nii.gz", "-o", "two", "--explain")
    assert done.exit_code == 0 and "open report.html" in done.stdout
    assert _Bundle.asked["pet"] == Path("pet.nii.gz") and _Bundle.asked["ct"] == Path("ct.nii.gz")
    assert _Bundle.asked["patient"] is None and _Bundle.asked["explain"] and not _Bundle.asked["center"]
    mtdlr("predict", "model", "scans", "-o", "three", "--center", "B")
    assert _Bundle.asked["center"] == "B"


@pytest.mark.slow
def test_what_is_written(mtdlr: Any) -> None:
    """The page, the numbers, the masks and the pictures; the PDF where it can be made. JSON on request."""
    done = mtdlr("predict", "model", "scans", "-o", "out", "--json")
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"report.html", "prediction.json", "mask.nii.gz", "mask_network.nii.gz", "nomogram.svg",
                     "overview.png"} | ({"report.pdf"} if pdf.can_write_pdf() else set())
    assert json.loads(done.stdout) == json.loads((Path("out") / "prediction.json").read_text())


@pytest.mark.parametrize(("arguments", "code"), [
    ((), "E-NOSCAN no scan given"), (("--pet", "a.nii"), "E-NOSCAN one of two images is missing; found pet alone"),
    (("scans", "--ct", "b.nii"), "E-OPTION the scan is given twice"),
    (("scans", "--clinical", "tnm_stage"), "E-CLINICAL"),
])
def test_mistakes_are_refused_before_the_work(mtdlr: Any, arguments: tuple[str, ...], code: str) -> None:
    """No scan, half a scan, two scans, a clinical value without `=`: one line, and no folder is made."""
    done = mtdlr("predict", "model", *arguments)
    assert isinstance(done.exception, MtdlrError) and str(done.exception).startswith(code)
    assert not list(Path().iterdir())


def test_threads_sleep_while_they_wait(mtdlr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict` asks for passive waiting before torch is loaded; who set it otherwise is heard."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    mtdlr("predict", "model")
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    mtdlr("predict", "model")
    assert os.environ["OMP_WAIT_POLICY"] == "active"


@pytest.mark.slow
def test_a_pdf_that_cannot_be_made_is_refused_first(mtdlr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--pdf` without WeasyPrint is refused before the prediction; without `--pdf` the PDF is left out."""
    monkeypatch.setitem(__import__("sys").modules, "weasyprint", None)
    done = mtdlr("predict", "model", "scans", "--pdf")
    assert isinstance(done.exception, MtdlrError) and done.exception.code == "E-PDF" and not list(Path().iterdir())
    assert mtdlr("predict", "model", "scans").exit_code == 0 and not Path("prediction/report.pdf").exists()


def test_in_python_half_a_scan_is_refused_too() -> None:
    """A PET without its CT is no scan, also where Python calls."""
    with pytest.raises(ScanError, match="E-NOSCAN.*pet alone"):
        stage.require_one_scan(None, "pet.nii.gz", None)


def test_only_levels_that_the_nomogram_saw_are_offered() -> None:
    """E-CLINICAL names the levels of the nomogram and refuses the others; a misspelt name is refused with the right
    ones. None of them is ignored."""
    rng = np.random.default_rng(3)
    table = {"tnm_stage": np.where(rng.random(80) < 0.5, "III", "IVa"), "deepmts": rng.normal(size=80)}
    surv = Survival(rng.exponential(30.0, 80) + 0.1, rng.random(80) < 0.6)
    model = Nomogram.fit(table, surv, [Factor("tnm_stage", ("III", "IVa"), "III"), Continuous("deepmts")], (12,),
                         labels={"tnm_stage": label_of("tnm_stage")})
    with pytest.raises(TableError) as caught:
        clinical_values(model, ["tnm_stage"], {"tnm_stage": "IVb"})
    assert "found 'IVb'; expected III or IVa" in str(caught.value) and "IVb or" not in str(caught.value)
    with pytest.raises(TableError) as caught:
        clinical_values(model, ["tnm_stage"], {"tnm_stgae": "IVa"})
    assert "E-CLINICAL tnm_stgae: the model does not use this clinical value" in str(caught.value)
    assert "expected tnm_stage" in str(caught.value)


def test_a_scan_of_the_training_cohort_is_said() -> None:
    """W-TRAINED where PET or CT of the patient are, by their salted hashes, those of a training patient."""
    patient, _ = prepared()
    known = Aggregates(Reference({}, {}, 0), None, (), "salt", (salted("salt", image_hashes(patient)[1]),))
    assert [p.code for p in stage.trained_on(known, patient)] == ["W-TRAINED"]
    assert stage.trained_on(replace(known, salt="other"), patient) == () == stage.trained_on(None, patient)
