"""The pictures of docs/bedside.md: the page of one synthetic patient, as a browser shows it.

`python tests/bedside_pictures.py` makes them anew (Chromium needed).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from one_prediction import AUDIT, outside, prediction
from PIL import Image

from mtdlr.imaging import grid
from mtdlr.imaging.reading import Scan
from mtdlr.predict import Prediction
from mtdlr.prepare import prepare
from mtdlr.radiomics.extract import patient_pet_parameters
from mtdlr.report.patient_page import patient_page
from mtdlr.study import PrepareSettings
from mtdlr.synthetic import make_patient

DOCS = Path(__file__).parents[1] / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = {"bedside.png": (1100, 1180), "bedside-outside.png": (1100, 440)}
"""Width and height in pixels of the part of each page that is shown."""


def synthetic(made: Prediction) -> Prediction:
    """The prediction as if it were of a synthetic patient, whose true tumour is the predicted one."""
    patient = make_patient(voxel_scale=1.2, seed=5)
    scan = Scan("patient", patient.pet, patient.ct, None, AUDIT, ())
    ready = prepare(scan, PrepareSettings(size=48, spacing_mm=4.0, alignment="off"), patient_id="patient")
    mask = grid.mask_onto(patient.true_mask, ready.region)
    return replace(made, prepared=ready, mask=mask, uptake=patient_pet_parameters(ready, mask))


def pages() -> dict[str, str]:
    """The page of a synthetic patient, and of the same patient as if the scan were unlike those of training."""
    return dict(zip(PICTURES, (patient_page(synthetic(made)) for made in (prediction(), outside())), strict=True))


def browser() -> str | None:
    """The Chromium that is installed."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def take(page: str, target: Path, size: tuple[int, int]) -> None:
    """A picture of the top of a page, in 256 colours."""
    with tempfile.TemporaryDirectory() as place:
        source, raw = Path(place) / "page.html", Path(place) / "raw.png"
        source.write_text(page, encoding="utf-8")
        subprocess.run([str(browser()), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--user-data-dir={place}/profile", f"--window-size={size[0]},{size[1]}",
                        f"--screenshot={raw}", source.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(raw) as picture:
            picture.convert("RGB").quantize(256).save(target, optimize=True)


def make(folder: Path) -> None:
    """Every picture of the page, into a folder."""
    for name, page in pages().items():
        take(page, folder / name, PICTURES[name])


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
