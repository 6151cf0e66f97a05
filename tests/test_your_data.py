"""docs/your-data.md shows what the command really prints: each layout is made here and checked.

`python tests/test_your_data.py` writes the outputs anew into the page.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import imaging_series as series
import messy_export as messy
import numpy as np
import pytest
import test_imaging_contours as contours
from typer.testing import CliRunner

from mtdlr import cli
from mtdlr.imaging import nifti
from mtdlr.volume import Volume

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "your-data.md"
PATIENTS = 40
BLOCK = re.compile(r"(<!-- output of (\S+) -->\n```\n)(.*?)(```)", re.DOTALL)


def image(path: Path, seed: int, low: float = 0.0, high: float = 9.0) -> None:
    array = np.random.default_rng(seed).uniform(low, high, (6, 5, 4)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume.on_grid(array, (3.0, 2.0, 2.0)))


def ct(path: Path, seed: int) -> None:
    image(path, 1000 + seed, -1000.0, 1000.0)


def mask(path: Path) -> None:
    array = np.zeros((6, 5, 4), np.uint8)
    array[1:4, 1:4, 1:4] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume.on_grid(array, (3.0, 2.0, 2.0)))


def dicom(folder: Path, seed: int) -> None:
    """PET, CT and RTSTRUCT of one patient, in folders that say nothing."""
    tags = {"PatientID": f"47{seed:03d}", "StudyInstanceUID": f"1.2.3.{seed}", "FrameOfReferenceUID": f"1.2.3.{seed}.9"}
    pet, other = f"1.2.3.{seed}.1", f"1.2.3.{seed}.2"
    series.write_pet(folder / "DICOM" / "00", 14, values=series.stored(14, seed) // 40, step_mm=15.0, **tags,
                     SeriesInstanceUID=pet, SeriesType=["WHOLE BODY", "IMAGE"])
    series.write_ct(folder / "DICOM" / "01", 14, values=series.stored(14, 500 + seed) // 10, step_mm=15.0, **tags,
                    SeriesInstanceUID=other)
    square = contours.square(-20, -10, z=-170.0)
    contours.write_rtstruct(folder / "DICOM" / "02" / "0", {"GTVp": [square]}, kinds={"GTVp": "GTV"}, refers_to=other,
                            PatientID=tags["PatientID"], SeriesInstanceUID=f"1.2.3.{seed}.3")


def dicom_tree(root: Path) -> list[str]:
    """P001 to P038 as folders, P039 and P040 as zips; P001 holds a series without attenuation correction too."""
    for n in range(1, PATIENTS + 1):
        dicom(root / f"P{n:03d}", n)
    series.write_pet(root / "P001" / "DICOM" / "03", 14, step_mm=15.0, PatientID="47001", StudyInstanceUID="1.2.3.1",
                     SeriesInstanceUID="1.2.3.1.7", FrameOfReferenceUID="1.2.3.1.9", CorrectedImage=["DECY"],
                     SeriesNumber=7)
    for n in (39, 40):
        with zipfile.ZipFile(root / f"P{n:03d}.zip", "w") as archive:
            for path in sorted(p for p in (root / f"P{n:03d}").rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(root))
        shutil.rmtree(root / f"P{n:03d}")
    return [f"P{n:03d}" for n in range(1, PATIENTS + 1)]


def hecktor_2022(root: Path) -> list[str]:
    names = [f"CHUM-{n:03d}" for n in range(1, PATIENTS + 1)]
    for n, name in enumerate(names):
        image(root / "imagesTr" / f"{name}__PT.nii.gz", n), ct(root / "imagesTr" / f"{name}__CT.nii.gz", n)
        mask(root / "labelsTr" / f"{name}.nii.gz")
    return names


def hecktor_2025(root: Path) -> list[str]:
    names = [f"CHUM-{n:03d}" for n in range(1, PATIENTS + 1)]
    for n, name in enumerate(names):
        folder = root / "Task 1" / name
        image(folder / f"{name}__PT.nii.gz", n), ct(folder / f"{name}__CT.nii.gz", n), mask(folder / f"{name}.nii.gz")
        image(folder / f"{name}__RTDOSE.nii.gz", n)
    return names


def bids(root: Path) -> list[str]:
    names = [f"sub-{n:02d}" for n in range(1, PATIENTS + 1)]
    for n, name in enumerate(names):
        image(root / name / "pet" / f"{name}_pet.nii.gz", n, high=20.0), ct(root / name / "ct" / f"{name}_ct.nii.gz", n)
        mask(root / "derivatives" / "manual" / name / f"{name}_desc-tumour_mask.nii.gz")
        (root / name / "pet" / f"{name}_pet.json").write_text(json.dumps({
            "Units": "kBq/mL", "TracerRadionuclide": "F18", "InjectedRadioactivity": 300 + n, "BodyWeight": 60 + n,
            "InjectedRadioactivityUnits": "MBq", "TimeZero": "10:00:00", "InjectionStart": 0, "ScanStart": 3600,
            "FrameTimesStart": [3600], "FrameDuration": [600], "ImageDecayCorrected": True,
            "ImageDecayCorrectionTime": 3600, "AttenuationCorrection": "measured"}))
    return names


def patient_folders(root: Path) -> list[str]:
    names = [f"P{n:03d}" for n in range(1, PATIENTS + 1)]
    for n, name in enumerate(names):
        image(root / name / "PET_image.nii.gz", n), ct(root / name / "CT_image.nii.gz", n)
        mask(root / name / "CT_mask.nii.gz")
    return names


def manifest(root: Path) -> list[str]:
    """P001 from NIfTI files of any name, P002 from a DICOM folder with an RTSTRUCT, the rest from NIfTI."""
    dicom(root / "raw" / "0815", 2)
    rows = ["patient_id,pet,ct,mask", "P001,nifti/p1_suv.nii.gz,nifti/p1_ct.nii.gz,nifti/p1_gtv.nii.gz",
            "P002,raw/0815,raw/0815,raw/0815/DICOM/02/0"]
    for n in [1, *range(3, PATIENTS + 1)]:
        image(root / "nifti" / f"p{n}_suv.nii.gz", n), ct(root / "nifti" / f"p{n}_ct.nii.gz", n)
        mask(root / "nifti" / f"p{n}_gtv.nii.gz")
        rows += [f"P{n:03d},nifti/p{n}_suv.nii.gz,nifti/p{n}_ct.nii.gz,nifti/p{n}_gtv.nii.gz"] if n > 1 else []
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return [f"P{n:03d}" for n in range(1, PATIENTS + 1)]


# name on the page -> (what makes the images, options of the command, lines shown)
EXAMPLES: dict[str, tuple[Callable[[Path], list[str]], list[str], slice]] = {
    "dicom": (dicom_tree, ["--scans"], slice(0, 7)), "dicom-end": (dicom_tree, [], slice(-1, None)),
    "hecktor-2022": (hecktor_2022, [], slice(None)), "hecktor-2025": (hecktor_2025, ["--scans"], slice(0, 4)),
    "bids": (bids, ["--scans"], slice(0, 4)), "patient-folders": (patient_folders, [], slice(None)),
    "manifest": (manifest, ["--scans"], slice(0, 10)),
}  # fmt: skip


def output_of(name: str, folder: Path) -> str:
    """What the command prints for an example that is made in `folder`."""
    if name == "messy":
        messy.write_messy_export(folder)
        return command(folder, [], slice(None))
    make, options, shown = EXAMPLES[name]
    ids = make(folder / "images")
    rows = "".join(f"{patient},{20 + n},1,IVa\n" for n, patient in enumerate(ids))
    (folder / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + rows)
    (folder / "study.toml").write_text(messy.STUDY.replace('"export"', '"images"'))
    return command(folder, options, shown)


def command(folder: Path, options: list[str], shown: slice) -> str:
    """The lines that `mtdlr check study.toml` prints."""
    with contextlib.chdir(folder):
        done = CliRunner(env={"COLUMNS": "120"}).invoke(cli.app, ["check", "study.toml", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    table = done.stdout.partition("\nwhat a run costs")[0]  # the cost differs by machine
    return "\n".join(table.rstrip().splitlines()[shown]) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hecktor-2022", "hecktor-2025", "bids", "patient-folders", "manifest", "dicom",
                                  "dicom-end", "messy"])
def test_the_page_shows_the_real_output(name: str, tmp_path: Path) -> None:
    """Under each layout of the page stands what `mtdlr check` prints for it, word for word."""
    shown = {match[2]: match[3] for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}
    assert shown[name] == output_of(name, tmp_path)


def test_every_example_is_on_the_page() -> None:
    """No layout is without its example."""
    assert {match[2] for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))} == {*EXAMPLES, "messy"}


def _rewrite() -> None:
    """Put the outputs into the page."""
    def made(match: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return match[1] + output_of(match[2], Path(folder)) + match[4]

    PAGE.write_text(BLOCK.sub(made, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _rewrite()
