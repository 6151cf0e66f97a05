"""The picture of docs/serve.md: the result of one synthetic patient, as a browser shows it.

`python tests/serve_pictures.py` makes it anew (Chromium needed).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import serve_patient
from bedside_pictures import DOCS
from chromium import chromium
from PIL import Image
from serving import SCAN, serving, zipped

from mtdlr.serve.upload import Limits


def make(target: Path) -> None:
    """The top of the result page, in 256 colours."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "jobs", serve_patient.load, Limits()) as served:
        scan, raw = Path(name) / "scan.zip", Path(name) / "raw.png"
        scan.write_bytes(zipped(SCAN))
        with chromium(Path(name) / "profile") as page:
            page.size(1280, 1080)
            page.send(served.address, scan, "IVa")
            page.picture(raw, whole=False)
        with Image.open(raw) as picture:
            picture.convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    make(DOCS / "serve.png")
