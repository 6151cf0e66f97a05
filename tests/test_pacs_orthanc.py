"""Orthanc in, Orthanc out: what a real archive gives back is what was measured, and what it is given it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mtdlr.bundle import save_bundle
from mtdlr.cli import app
from mtdlr.errors import PacsError
from mtdlr.model import FrozenModel
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build, save_network, weights_of
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.scores import Scale
from mtdlr.predict import Bundle, Prediction
from mtdlr.prepared import MEAN_IMAGE
from mtdlr.signature import Signature
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.synthetic.study import patient_of, simulate_study

pytest.importorskip("dicomweb_client")
pytest.importorskip("highdicom")

import pacs_pictures
from bedside_pictures import DOCS, browser
from orthanc import CREDENTIALS, ORTHANC, PLUGIN, Orthanc, running_orthanc

from mtdlr.pacs import Archive, authorization, content_sha256, fetch, send

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not (ORTHANC and PLUGIN.exists()), reason="no Orthanc with DICOMweb (Debian orthanc, orthanc-dicomweb)")]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An empty archive."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PET, CT and contour of a synthetic patient, as an archive has them."""
    folder = tmp_path_factory.mktemp("examination")
    clinical, truth = simulate_study(n_training=20, n_internal=0, n_external=4, seed=4)
    row, hidden = clinical.to_dict("records")[-1], truth.to_dict("records")[-1]
    write_dicom_patient(folder, patient_of(row, hidden, voxel_scale=2.0), contour="seg", seed=4)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen model whose networks are not trained."""
    torch.manual_seed(3)
    place, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    networks = {}
    for name, config in (("deepmts", DeepmtsConfig(width=0.25)),
                         ("csn-only", SingletaskConfig("csn-only", width=0.25))):
        (place / name).mkdir()
        save_network(weights_of(build(config).eval()), config, place / name, {})
        networks[name] = (place / name,)
    np.save(place / MEAN_IMAGE, np.zeros((2, 32, 32, 32), np.float32))
    table = pd.DataFrame({"tnm_stage": rng.choice(["III", "IVa"], 60), "auto_radio": rng.normal(size=60),
                          "deepmts": rng.normal(size=60)})
    surv = Survival(rng.exponential(40.0, 60) + 0.1, rng.random(60) < 0.7)
    study = Study.of({"preset": "quick", "prepare": {"size": 32, "spacing_mm": 5.0},
                      "radiomics": {"spacing_mm": 8.0, "profile": "ibsi"}, "singletask": {"network": "csn-only"},
                      "cohort": {"factors": {"tnm_stage": ["III", "IVa"]}}})
    signature = Signature(("PET_original_firstorder_Mean",), (1.0,), (2.0,), (0.4,), 0.1, (1.0,), 60, 40, 10)
    folder = tmp_path_factory.mktemp("model")
    nomogram = Nomogram.fit(table, surv, ["tnm_stage", "auto_radio", "deepmts"], [12, 24])
    save_bundle(FrozenModel(
        study, {"mtdlr": nomogram}, {"auto": signature}, networks, {name: (Scale(0.1, 1.5),) for name in networks},
        {"mtdlr": 0.2}, place, {}, {"n": 60, "events": surv.n_events, "c": {}}), folder)
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    return {str(ds.SOPInstanceUID): content_sha256(ds) for ds in map(pydicom.dcmread, folder.rglob("*.dcm"))}


def _differences(a: Any, b: Any) -> Iterator[float]:
    """How far the numbers of two results lie apart; everything else must be equal."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            yield from _differences(a[key], b[key])
    elif isinstance(a, float):
        yield abs(a - b) / max(1.0, abs(a))
    else:
        assert a == b


def _said(made: Prediction) -> dict[str, Any]:
    """The prediction but for the facts about the contour, which stays in the archive."""
    return made.as_dict() | {"scan": {name: facts for name, facts in made.prepared.audit.items() if name != "mask"}}


def test_orthanc_in_orthanc_out(
    orthanc: Orthanc, examination: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out has the same pixels and gives the same numbers; the results go in, once, byte for byte."""
    for path in sorted(examination.rglob("*.dcm")):
        orthanc.ask("instances", path.read_bytes())
    study = str(pydicom.dcmread(next((examination / "CT").iterdir())).StudyInstanceUID)
    images = fetch(study, tmp_path / "fetched", orthanc.archive)
    assert _hashes(tmp_path / "fetched") == _hashes(examination / "CT") | _hashes(examination / "PET")
    assert sum(images.values()) == len(_hashes(tmp_path / "fetched"))

    given, fetched = (Bundle.load(bundle, device="cpu").predict(folder, clinical={"tnm_stage": "IVa"})
                      for folder in (examination, tmp_path / "fetched"))
    differences = list(_differences(_said(given), _said(fetched)))
    assert len(differences) > 40 and max(differences) <= 1e-12
    np.testing.assert_array_equal(given.mask.array, fetched.mask.array)
    assert fetched.mask.array.any()

    monkeypatch.setenv("MTDLR_PACS_CREDENTIALS", CREDENTIALS)
    before = len(orthanc.instances())
    for folder, name in ((tmp_path / "fetched", "a"), (examination, "b")):
        done = CliRunner().invoke(app, ["predict", str(bundle), str(folder), "--clinical", "tnm_stage=IVa",
                                         "--dicom", "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.exception
        done = CliRunner().invoke(app, ["send", str(tmp_path / name), "--dicomweb", orthanc.archive.url])
        assert done.exit_code == 0, done.exception
    objects = {str(pydicom.dcmread(path).SOPInstanceUID): path.read_bytes()
               for path in (tmp_path / "a" / "dicom").glob("*.dcm")}
    held = orthanc.instances()
    assert len(objects) >= 2 and len(held) == before + len(objects)
    assert {uid: held[uid] for uid in objects} == objects
    again = fetch(study, tmp_path / "again", orthanc.archive)
    assert again == images, "the results in the archive are not taken for images"


def test_orthanc_refuses_and_is_not_believed(orthanc: Orthanc, tmp_path: Path) -> None:
    """A wrong password and a study that is not there are told apart."""
    for archive, code in ((Archive(orthanc.archive.url, authorization("engineer:wrong")), "E-PACSLOGIN"),
                          (orthanc.archive, "E-PACSNONE")):
        with pytest.raises(PacsError, match=code):
            fetch("1.2.3.4", tmp_path / "out", archive)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PacsError, match="E-PACSNONE"):
        send(tmp_path, orthanc.archive)


@pytest.mark.skipif(browser() is None, reason="no Chromium here")
def test_the_picture_of_the_documentation_can_be_made_anew(tmp_path: Path) -> None:
    """docs/pacs.md shows what Orthanc's own page shows after `send`; the picture is small and not empty."""
    pacs_pictures.make(tmp_path)
    assert "](pacs.png)" in (DOCS / "pacs.md").read_text(encoding="utf-8")
    assert (DOCS / "pacs.png").stat().st_size < 100_000
    with Image.open(tmp_path / "pacs.png") as new, Image.open(DOCS / "pacs.png") as shown:
        assert new.size == shown.size and len(new.getcolors() or ()) > 100
