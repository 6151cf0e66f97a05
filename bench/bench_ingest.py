"""How fast a whole-body PET/CT is read, beside SimpleITK's own series reader in the same process.

Usage: python bench/bench_ingest.py [--full]      --full: CT 512 x 512 x 300 and PET 200 x 200 x 300 (about 200 MB)
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from mtdlr.imaging.contours import fill
from mtdlr.imaging.images import read_ct, read_pet
from mtdlr.imaging.layout import content_hash, discover
from mtdlr.imaging.reading import inspect_scan, read_scan
from mtdlr.volume import Volume


def write_series(folder: Path, modality: str, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """An uncompressed series of noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(3).integers(0, 3000, shape[1:]).astype("<i2")
    for k in range(shape[0]):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pet = modality == "PT"
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128" if pet else "1.2.840.10008.5.1.4.1.1.2"
        ds.SOPInstanceUID = f"1.2.9.{int(pet)}.{k}"
        ds.Modality, ds.PatientID, ds.SeriesInstanceUID = modality, "BENCH", f"1.2.9.{int(pet)}"
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.9", "1.2.9.7"
        ds.SeriesDate = ds.AcquisitionDate = "20200302"
        ds.SeriesTime = ds.AcquisitionTime = "110000"
        ds.ImagePositionPatient = [-250.0, -250.0, spacing[0] * k]
        ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [spacing[1], spacing[2]]
        ds.Rows, ds.Columns, ds.SamplesPerPixel = shape[1], shape[2], 1
        ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 1
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.RescaleSlope, ds.RescaleIntercept = ("0.7", "0") if pet else ("1", "-1024")
        if pet:
            item = Dataset()
            item.RadiopharmaceuticalStartTime, item.RadionuclideTotalDose = "100000", "370000000"
            item.RadionuclideHalfLife = "6586.2"
            ds.RadiopharmaceuticalInformationSequence = Sequence([item])
            ds.Units, ds.DecayCorrection, ds.PatientWeight = "BQML", "START", "70"
            ds.CorrectedImage, ds.SeriesType = ["ATTN", "DECY"], ["STATIC", "IMAGE"]
        ds.PixelData = np.roll(noise, k, axis=1).tobytes()
        ds.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def sitk_series(folder: Path) -> np.ndarray:
    """The series by SimpleITK: list by series, then read."""
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    return sitk.GetArrayFromImage(reader.Execute())


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time: other work on the machine does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    n = 300 if options.full else 60
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_series(root / "CT", "CT", (n, 512, 512), (3.0, 0.98, 0.98))
        write_series(root / "PET", "PT", (n, 200, 200), (3.0, 4.07, 4.07))
        (scan,) = discover(root)
        rows = []
        for name, folder, ours in (
            ("CT", root / "CT", lambda: read_ct(discover_one(root / "CT", "CT"))),
            ("PET", root / "PET", lambda: read_pet(discover_one(root / "PET", "PT"))),
        ):
            for _ in range(1):
                sitk_series(folder)
            rows.append((f"{name}: find the series and read it", seconds(ours, options.repeats),
                         seconds(lambda folder=folder: sitk_series(folder), options.repeats)))
        both = seconds(lambda: read_scan(discover(root)[0]), options.repeats)
        rows.append(("PET + CT: discover and read_scan", both, rows[0][2] + rows[1][2]))
        print(f"{n} slices each; CT 512 x 512, PET 200 x 200; median of {options.repeats}; processor s, one thread\n")
        print(f"{'':36s} {'ours s':>8s} {'SimpleITK s':>12s} {'ratio':>6s}")
        for label, mine, theirs in rows:
            print(f"{label:36s} {mine:8.2f} {theirs:12.2f} {mine / theirs:6.2f}")
        print(f"{'discover (headers of all files)':36s} {seconds(lambda: discover(root), options.repeats):8.2f}")
        print(f"{'inspect_scan (what check runs)':36s} {seconds(lambda: inspect_scan(scan), options.repeats):8.2f}")
        print(f"{'content_hash':36s} {seconds(lambda: content_hash(scan), options.repeats):8.2f}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circles = [np.stack([60 * np.cos(angle), 60 * np.sin(angle), np.full(400, 3.0 * k)], axis=1) for k in range(60)]
    grid = Volume.on_grid(np.zeros((60, 512, 512), bool), (3.0, 0.98, 0.98), (-250.0, -250.0, 0.0))
    print(f"{'60 contours of 400 points to a mask':36s} {seconds(lambda: fill(circles, grid), options.repeats):8.2f}")


def discover_one(folder: Path, modality: str) -> tuple[Path, ...]:
    """The files of the folder's only series of a modality."""
    (scan,) = discover(folder)
    return next(s.files for s in scan.candidates if s.modality == modality)


if __name__ == "__main__":
    main()
