"""The picture of docs/pacs.md: a synthetic patient's study in Orthanc, after the results were sent.

`python tests/pacs_pictures.py` makes it anew (Orthanc with DICOMweb and Chromium needed).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from bedside_pictures import DOCS, browser
from one_prediction import prediction, prepared
from orthanc import CREDENTIALS, Orthanc, running_orthanc
from PIL import Image

from mtdlr.dicom_out import read_source, write_dicom
from mtdlr.pacs import send
from mtdlr.predict import one_scan
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.synthetic.study import patient_of, simulate_study
from mtdlr.volume import Volume

WIDTH, HEIGHT = 1100, 790


def fill(archive: Orthanc, place: Path) -> str:
    """Send results into a synthetic patient's study; the archive's own name of it."""
    clinical, truth = simulate_study(n_training=20, n_internal=0, n_external=4, seed=4)
    row, hidden = clinical.to_dict("records")[-1], truth.to_dict("records")[-1]
    write_dicom_patient(place / "patient", patient_of(row, hidden, voxel_scale=2.0), contour="rtstruct")
    for kind in ("CT", "PET"):
        for path in (place / "patient" / kind).iterdir():
            archive.store(pydicom.dcmread(path))
    source = read_source(one_scan(place / "patient", None, None))
    mask = Volume(np.pad(np.ones((4, 4, 4), bool), [(10, n - 14) for n in source.shape]), source.affine)
    made = prediction(mask=mask, prepared=replace(prepared()[0], ct_hu=mask))
    write_dicom(made, source, place / "prediction" / "dicom", pdf=b"%PDF-1.7\n%%EOF")
    send(place / "prediction", archive.archive)
    return str(json.loads(archive.ask("studies"))[0])


def make(folder: Path) -> None:
    """pacs.png, in 256 colours."""
    with tempfile.TemporaryDirectory() as name, running_orthanc(Path(name)) as archive:
        place = Path(name)
        study, root = fill(archive, place), archive.root.replace("http://", f"http://{CREDENTIALS}@")
        subprocess.run([str(browser()), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--user-data-dir={place}/profile", f"--window-size={WIDTH},{HEIGHT}",
                        "--virtual-time-budget=10000", f"--screenshot={place}/raw.png",
                        f"{root}/app/explorer.html#study?uuid={study}"], check=True, capture_output=True, timeout=120)
        with Image.open(place / "raw.png") as picture:
            picture.convert("RGB").quantize(256).save(folder / "pacs.png", optimize=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
