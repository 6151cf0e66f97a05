"""Damaged and invented files: whatever they hold, reading ends soon, in a result or in a ScanError.

Each case is a seeded mutation of a good file, so a failure can be made again from its number.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import imaging_series as series
import nibabel
import numpy as np
import pytest
import test_imaging_contours as contours
import test_imaging_dicom as dicom
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.contours import rtstruct_mask, seg_mask
from mtdlr.imaging.dicom_rois import structure_names
from mtdlr.imaging.images import read_ct, read_pet
from mtdlr.imaging.inspect import inspect_scan as inspect_voxels
from mtdlr.imaging.layout import content_hash, discover, given_files
from mtdlr.imaging.reading import inspect_scan, read_scan
from mtdlr.volume import Volume

LONGEST_S = 5.0
VALUES = [
    b"", b" ", b"\0", b"0", b"-1", b"1", b"1e400", b"-1e400", b"nan", b"inf", b"1\\2", b"1\\2\\3\\4\\5\\6\\7",
    b"\\\\\\\\",
    b"99999999", b"20200231", b"256199", b"115959.9999999", b"0000", b"20200302110000+9999", b"20200302110000-0000",
    b"\xff\xfe\xfd\xfc", "ä".encode("latin-1") * 3, b"9" * 300, b"1" * 64, b"STATIC\\IMAGE", b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.5.1.4.1.1.130", b"PT", b"CT", b"%s%n", b"\x00\x01", b"\xff\xff", b"\x00\x80",
]  # fmt: skip


class Outcomes(dict):
    """How often each outcome was seen."""

    def see(self, number: object, work: Callable[[], object]) -> None:
        """Run one case: a value or a ScanError, within the time, is fine."""
        start = time.monotonic()
        try:
            work()
            outcome = "read"
        except ScanError as error:
            assert error.problems and error.code.startswith("E-"), number
            outcome = error.code
        except Exception as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - start < LONGEST_S, number
        self[outcome] = self.get(outcome, 0) + 1


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """The data with a few bytes changed, cut, doubled or put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(out)) if out else 0
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 32))
        elif kind == 4:
            del out[at:]
        else:
            out[at:at] = out[at : at + rng.randrange(1, 200)]
    return bytes(out)


def with_value(data: bytes, rng: random.Random) -> bytes:
    """A DICOM file in which one element, of any depth, has another value; written without any check."""
    ds = dcmread(io.BytesIO(data))
    pool = [ds]
    for element in ds.iterall():
        if element.VR == "SQ" and element.value:
            pool += list(element.value)
    holder = rng.choice(pool)
    tags = [t for t in holder.keys() if t != 0x7FE00010]
    if not tags:
        return data
    tag = Tag(rng.choice(tags))
    raw = data.find(struct.pack("<HH", tag.group, tag.element))
    vr = data[raw + 4 : raw + 6]
    if raw < 0 or vr in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        return data
    length = struct.unpack_from("<H", data, raw + 6)[0]
    value = rng.choice(VALUES) if rng.random() < 0.8 else rng.randbytes(rng.randrange(40))
    value += b" " * (len(value) % 2)
    return data[: raw + 6] + struct.pack("<H", len(value)) + value + data[raw + 8 + length :]


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good patient: PET, CT, RTSTRUCT and SEG."""
    folder = tmp_path_factory.mktemp("good")
    series.write_pet(folder / "PET", 3)
    ct = series.write_ct(folder / "CT", 3)
    contours.write_rtstruct(folder / "RS" / "rs.dcm", {"GTV": [contours.square(-20, -10, z=-197.0)]})
    contours.write_seg(folder / "SEG" / "seg.dcm", ct, {"tumour": np.ones((3, 9, 7), bool)})
    contours.write_seg(folder / "MAP" / "map.dcm", ct, {"tumour": np.ones((3, 9, 7), bool)}, kind="LABELMAP")
    dicom.write_enhanced_pet(folder / "enhanced.dcm")
    return folder


def dicom_cases(folder: Path, scratch: Path, seeds: range) -> Outcomes:
    """One changed slice among good ones, both kinds of change, PET and CT in turn."""
    outcomes = Outcomes()
    good = {m: [p.read_bytes() for p in sorted((folder / m).iterdir())] for m in ("PET", "CT")}
    for seed in seeds:
        rng = random.Random(seed)
        modality = "PET" if seed % 3 else "CT"
        change = with_value if seed % 4 else spoiled
        planes = list(good[modality])
        for n in range(len(planes)) if seed % 5 == 0 else [rng.randrange(len(planes))]:
            planes[n] = change(planes[n], random.Random(seed))
        paths = tuple(scratch / f"{n}.dcm" for n in range(len(planes)))
        for path, data in zip(paths, planes, strict=True):
            write(path, data)
        outcomes.see(seed, lambda paths=paths, read=read_pet if modality == "PET" else read_ct: read(paths))
        if seed % 10 == 0:
            outcomes.see(seed, lambda: [(inspect_scan(s), content_hash(s)) for s in discover(scratch)])
    return outcomes


def object_cases(folder: Path, scratch: Path, seeds: range) -> Outcomes:
    """Changed structure sets, segmentations and multi-frame images."""
    outcomes = Outcomes()
    grid = Volume.on_grid(np.zeros((3, 9, 7), bool), (3.0, 4.0, 5.0), (-30.0, -40.0, -200.0))
    kinds = [("RS/rs.dcm", lambda p: rtstruct_mask(p, grid)), ("SEG/seg.dcm", lambda p: seg_mask(p, grid)),
             ("MAP/map.dcm", lambda p: seg_mask(p, grid)), ("RS/rs.dcm", structure_names),
             ("enhanced.dcm", lambda p: read_pet((p,)))]
    good = {name: (folder / name).read_bytes() for name, _ in kinds}
    path = scratch / "object.dcm"
    for seed in seeds:
        name, read = kinds[seed % len(kinds)]
        rng = random.Random(seed)
        write(path, (with_value if seed % 2 else spoiled)(good[name], rng))
        outcomes.see((name, seed), lambda read=read: read(path))
    return outcomes


def nifti_cases(scratch: Path, seeds: range) -> Outcomes:
    """Headers with random fields and files with random damage, plain and compressed."""
    outcomes = Outcomes()
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([2.0, 3, 4, 1]))
    good = image.to_bytes()
    path = scratch / "a.nii.gz"
    for seed in seeds:
        rng = random.Random(seed)
        data = bytearray(good)
        if seed % 3:
            at, layout = rng.choice(((40, "8h"), (70, "2h"), (76, "8f"), (108, "3f"), (252, "2h"), (256, "6f"),
                                     (280, "12f")))
            n = int(layout[:-1])
            values = [rng.choice((0, -1, 1, 2, 3, 64, 512, 32767, -32768)) if layout[-1] == "h" else
                      rng.choice((0.0, -1.0, 1e-40, 1e38, float("nan"), float("inf"), 352.0, rng.uniform(-5, 5)))
                      for _ in range(n)]
            keep = list(struct.unpack_from(f"<{layout}", data, at))
            mixed = [v if rng.random() < 0.4 else k for v, k in zip(values, keep, strict=True)]
            struct.pack_into(f"<{layout}", data, at, *mixed)
        packed = gzip.compress(bytes(data), 1) if seed % 2 else bytes(data)
        write(path, packed if seed % 3 else spoiled(packed, rng))
        outcomes.see(seed, lambda: nifti.read(path))
        outcomes.see(seed, lambda: nifti.read_header(path, assume_geometry=True))
        if seed % 7 == 0:
            outcomes.see(seed, lambda: inspect_voxels(given_files("P", path, path, path)))
    return outcomes


def folder_cases(folder: Path, scratch: Path, seeds: range) -> Outcomes:
    """Zips, manifests and sidecars with random damage."""
    outcomes = Outcomes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*.dcm")):
            packed.write(path, path.relative_to(folder).as_posix())
    nifti.write(scratch / "sub-1_pet.nii.gz", Volume.on_grid(np.ones((4, 4, 4), np.float32)))
    nifti.write(scratch / "sub-1_ct.nii.gz", Volume.on_grid(np.arange(64, dtype=np.int16).reshape(4, 4, 4) * 20 - 1000))
    manifest = b"patient_id,pet,ct,mask\nA,sub-1_pet.nii.gz,sub-1_ct.nii.gz,\nB,x.zip,x.zip,\n"
    sidecar = json.dumps({
        "Units": "Bq/mL", "InjectedRadioactivity": 370, "InjectedRadioactivityUnits": "MBq", "BodyWeight": 70,
        "InjectionStart": 0, "ImageDecayCorrected": True, "TracerRadionuclide": "F18", "FrameTimesStart": [3600],
        "ImageDecayCorrectionTime": 3600, "FrameDuration": [600]}).encode()
    for seed in seeds:
        rng = random.Random(seed)
        kind = seed % 3
        write(scratch / "x.zip", spoiled(buffer.getvalue(), rng) if kind == 0 else buffer.getvalue())
        write(scratch / "manifest.csv", spoiled(manifest, rng) if kind == 1 else manifest)
        write(scratch / "sub-1_pet.json", spoiled(sidecar, rng) if kind == 2 else sidecar)
        root = scratch / "x.zip" if kind == 0 else scratch
        outcomes.see(seed, lambda root=root: [inspect_scan(s) for s in discover(root)])
        if kind:
            outcomes.see(seed, lambda: read_scan(discover(scratch)[0]))
    return outcomes


@pytest.mark.slow
def test_a_few_damaged_files(patient: Path, tmp_path: Path) -> None:
    """120 damaged DICOM objects and NIfTI files end in a volume or a ScanError."""
    outcomes = [dicom_cases(patient, tmp_path / "d", range(40)), object_cases(patient, tmp_path / "o", range(40)),
                nifti_cases(tmp_path / "n", range(40))]
    for seen in outcomes:
        assert len(seen) > 2, seen


@pytest.mark.slow
def test_two_thousand_damaged_files(patient: Path, tmp_path: Path) -> None:
    """More than 2,000 damaged headers and files end in a volume or a ScanError: no other exception, no hang."""
    (tmp_path / "f").mkdir()
    outcomes = [
        dicom_cases(patient, tmp_path / "d", range(1000, 1900)),
        object_cases(patient, tmp_path / "o", range(1000, 1450)),
        nifti_cases(tmp_path / "n", range(1000, 1700)),
        folder_cases(patient, tmp_path / "f", range(1000, 1150)),
    ]
    assert sum(sum(seen.values()) for seen in outcomes) > 2000
    for seen in outcomes:
        assert len(seen) >= 3, seen


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["PatientWeight", "RescaleSlope", "ImagePositionPatient", "SeriesTime", "Rows"])
def test_every_odd_value_of_a_tag(patient: Path, tmp_path: Path, tag: str) -> None:
    """Every odd value of a tag that the volume or SUV rests on ends in a volume or a ScanError."""
    outcomes = Outcomes()
    good = [p.read_bytes() for p in sorted((patient / "PET").iterdir())]
    for number, value in enumerate(VALUES):
        for n, data in enumerate(good):
            ds = dcmread(io.BytesIO(data))
            element = ds[tag]
            at = data.find(struct.pack("<HH", element.tag.group, element.tag.element))
            length = struct.unpack_from("<H", data, at + 6)[0]
            even = value + b" " * (len(value) % 2)
            write(tmp_path / f"{n}.dcm", data[: at + 6] + struct.pack("<H", len(even)) + even + data[at + 8 + length :])
        outcomes.see((tag, number), lambda: read_pet(tuple(sorted(tmp_path.iterdir()))))
    assert keyword_for_tag(element.tag) == tag and sum(outcomes.values()) == len(VALUES)
