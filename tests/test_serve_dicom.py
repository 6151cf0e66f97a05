"""The server's DICOM results: made on request alone, behind the same gate, and the only file that names the patient."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel
import numpy as np
import pydicom
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
pytest.importorskip("highdicom")

from one_examination import IDENTITY, examination, predicted, source_of
from one_prediction import card, nomogram
from serving import Served, problem, serving, zipped

from mtdlr.dicom_out import write_dicom
from mtdlr.predict import Bundle, Prediction
from mtdlr.serve.predictor import predictor_of
from mtdlr.serve.upload import Limits
from mtdlr.serve.worker import Predictor
from mtdlr.study import MAIN

pytestmark = pytest.mark.slow
STAGE = {"clinical.tnm_stage": "IVa"}
SECRETS = re.compile("|".join(IDENTITY[name] for name in ("PatientID", "PatientName", "PatientBirthDate")).encode())


def load() -> Predictor:
    """A predictor whose model predicts an examination without networks."""
    def predict(scan: Path, **_: Any) -> Prediction:
        return predicted(source_of(scan)) if scan.suffix == ".zip" else predicted(source_of(scan / "ours"))

    frozen = SimpleNamespace(nomograms={MAIN: nomogram()}, cutoffs={MAIN: card().cutoff}, digest=card().digest,
                             harmonised_centers=(), study=SimpleNamespace(nomogram_covariates=("tnm_stage",)))
    return predictor_of(cast(Bundle, SimpleNamespace(frozen=frozen, predict=predict)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of this file."""
    with serving(tmp_path_factory.mktemp("jobs"), load, Limits()) as running:
        yield running


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of an examination whose headers name a patient."""
    folder = examination(tmp_path_factory.mktemp("ours") / "in")
    packed = folder.with_suffix(".zip")
    packed.write_bytes(zipped({f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.dcm")}))
    return packed


@pytest.fixture(scope="module")
def job(served: Served, scan: Path) -> str:
    """A job that was asked for DICOM results, and is done."""
    done = served.done({"B001.zip": scan.read_bytes()}, STAGE | {"dicom": "yes"})
    assert served.queue.job(done).state == "done", served.queue.job(done)
    return done


def test_the_results_are_those_of_predict(served: Served, scan: Path, job: str, tmp_path: Path) -> None:
    """The zip holds what `predict --dicom` writes, byte for byte, in the patient's examination, and unpacks to a folder
    that `send` takes.
    """
    answer = served.ask("GET", f"/jobs/{job}/dicom/dicom.zip")
    assert answer.getheader("Content-Disposition") == 'attachment; filename="dicom.zip"'
    held = served.queue.folder / job / "dicom" / "dicom.zip"
    page, source = served.queue.folder / job / "result" / "report.pdf", source_of(scan)
    pdf = page.read_bytes() if page.exists() else None
    wanted = write_dicom(predicted(source), source, tmp_path / "dicom", pdf=pdf)
    with zipfile.ZipFile(held) as opened:
        assert {f"dicom/{path.name}": path.read_bytes() for path in wanted} == {
            name: opened.read(name) for name in opened.namelist()}
        tumour = pydicom.dcmread(io.BytesIO(opened.read("dicom/tumour.dcm")))
    assert (tumour.PatientID, tumour.Modality) == (IDENTITY["PatientID"], "SEG")
    assert "They name the patient" in served.ask("GET", f"/jobs/{job}", Accept="text/html").text


@pytest.mark.parametrize(("files", "code"), [
    ({f"P1/{name}_image.nii": nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
      for name in ("PET", "CT")}, "E-DICOMINPUT"), ({"notes.txt": b"nothing"}, "E-LAYOUT")])
def test_what_predict_refuses_is_refused_with_the_same_code(
    served: Served, files: dict[str, bytes], code: str
) -> None:
    """Asked for NIfTI images, or for no scan, the job fails as `predict --dicom` does, and its page says the code."""
    job = served.done(files, STAGE | {"dicom": "yes"})
    assert [one.code for one in served.queue.job(job).problems] == [code]
    assert code in served.ask("GET", f"/jobs/{job}", Accept="text/html").text


def test_the_gate_holds_before_the_results(served: Served, job: str) -> None:
    """Without the token, from another site, under another host or by a path that climbs nobody gets the zip."""
    zip_at = f"/jobs/{job}/dicom/dicom.zip"
    assert problem(served.ask("GET", zip_at, Authorization="")) == (401, "E-TOKEN")
    assert problem(served.ask("GET", zip_at, Authorization="Bearer wrong")) == (401, "E-TOKEN")
    assert problem(served.ask("GET", zip_at, Origin="https://evil.example")) == (403, "E-ORIGIN")
    assert problem(served.ask("GET", zip_at, Sec_Fetch_Site="cross-site")) == (403, "E-ORIGIN")
    assert problem(served.ask("GET", zip_at, Host="evil.example")) == (421, "E-HOST")
    for name in ("../job.json", "%2e%2e%2fjob.json", "..%2fresult%2fprediction.json", "tumour.dcm", "dicom.zip%00", "",
                 "dicom.zip/dicom/tumour.dcm", "%2fetc%2fpasswd"):
        assert served.ask("GET", f"/jobs/{job}/dicom/{name}").status in (404, 405), name
    assert served.ask("GET", f"/jobs/{'0' * 32}/dicom/dicom.zip").status == 404
    passed = served.ask("GET", zip_at)
    assert passed.getheader("Content-Security-Policy") and passed.getheader("Cache-Control") == "no-store"
    assert passed.getheader("X-Content-Type-Options") == "nosniff"


def test_nothing_else_names_the_patient(served: Served, job: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Of all that is kept and shown for a job, the zip alone holds the patient's name, and deleting removes it."""
    kept = [path for path in (served.queue.folder / job).rglob("*") if path.is_file()]
    with zipfile.ZipFile(served.queue.folder / job / "dicom" / "dicom.zip") as opened:
        assert all(SECRETS.search(opened.read(name)) for name in opened.namelist())
    assert [path.name for path in kept if SECRETS.search(path.read_bytes())] == []  # the zip is compressed
    assert not any(SECRETS.search(path.name.encode()) for path in kept)
    for address in ("/", f"/jobs/{job}", f"/jobs/{job}/state"):
        assert not SECRETS.search(served.ask("GET", address, Accept="text/html").text.encode())
    assert served.ask("DELETE", f"/jobs/{job}").status == 204
    assert job not in served.folders() and served.ask("GET", f"/jobs/{job}/dicom/dicom.zip").status == 404
    said = capfd.readouterr()
    assert not SECRETS.search((said.out + said.err).encode())
