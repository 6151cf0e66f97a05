"""An examination of clinical size through a real archive: `python bench/bench_pacs.py` (Orthanc with DICOMweb needed).

300 CT slices of 512 x 512 and 300 PET slices of 200 x 200: fetched, results written on that CT, sent, read back.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from imaging_series import ct_plane, pet_plane
from one_prediction import prediction, prepared
from orthanc import running_orthanc

from mtdlr.dicom_out import read_source, write_dicom
from mtdlr.pacs import fetch, send
from mtdlr.predict import one_scan
from mtdlr.volume import Volume

SLICES = 300


def fill(archive: object) -> None:
    """The examination, made up and stored slice by slice."""
    rng = np.random.default_rng(0)
    for k in range(SLICES):
        ct = rng.integers(0, 2000, (512, 512)).astype(np.int16)
        for ds in (ct_plane(k, ct, 3.0), pet_plane(k, ct[:200, :200], 3.0, SLICES, {})):
            archive.store(ds)  # type: ignore[attr-defined]


def peak_mb() -> float:
    """The largest memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Time and memory of each step."""
    with tempfile.TemporaryDirectory() as place, running_orthanc(Path(place)) as archive:
        fill(archive)
        folder, before, start = Path(place) / "fetched", peak_mb(), time.perf_counter()
        images = fetch("1.2.3", folder, archive.archive)
        megabytes = sum(path.stat().st_size for path in folder.rglob("*.dcm")) / 1e6
        print(f"fetch  {time.perf_counter() - start:6.2f} s, {megabytes:.0f} MB, {images}, memory {before:.0f} to "
              f"{peak_mb():.0f} MB")
        start = time.perf_counter()
        source = read_source(one_scan(folder, None, None))
        print(f"read   {time.perf_counter() - start:6.2f} s")
        array = np.zeros(source.shape, bool)
        array[100:140, 200:260, 180:250] = True
        mask = Volume(array, source.affine)
        made = prediction(mask=mask, prepared=replace(prepared()[0], ct_hu=mask))
        start = time.perf_counter()
        paths = write_dicom(made, source, Path(place) / "out" / "dicom", pdf=b"%PDF-1.7\n%%EOF")
        print(f"write  {time.perf_counter() - start:6.2f} s, {[path.stat().st_size // 1000 for path in paths]} kB")
        start = time.perf_counter()
        digests = send(Path(place) / "out", archive.archive)
        print(f"send   {time.perf_counter() - start:6.2f} s, {len(digests)} objects, memory {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
