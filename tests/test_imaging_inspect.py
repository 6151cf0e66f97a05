"""Inspection: damage that only voxels tell is found, and an image is known again whatever its file looks like."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import imaging_series as series
import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.inspect import image_hash, inspect_scan
from mtdlr.imaging.layout import ScanSet, discover, given_files
from mtdlr.volume import Volume

RAS = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray, affine: np.ndarray = RAS, level: int = 6) -> Path:
    data = nibabel.Nifti1Image(array, affine, dtype=array.dtype).to_bytes()
    path.write_bytes(gzip.compress(data, level) if path.suffix == ".gz" else data)
    return path


def patient(folder: Path, *, pet: np.ndarray | None = None, ct: np.ndarray | None = None,
            mask: np.ndarray | None = None) -> ScanSet:  # fmt: skip
    """A NIfTI patient; the arrays are (i, j, k)."""
    rng = np.random.default_rng(4)
    save(folder / "pet.nii.gz", rng.gamma(2, 1, (9, 8, 7)).astype(np.float32) if pet is None else pet)
    save(folder / "ct.nii.gz", rng.integers(-1000, 900, (9, 8, 7)).astype(np.int16) if ct is None else ct)
    if mask is None:
        mask = np.zeros((9, 8, 7), np.uint8)
        mask[2:6, 2:6, 2:6] = 1
    save(folder / "mask.nii.gz", mask)
    return given_files("P", folder / "pet.nii.gz", folder / "ct.nii.gz", folder / "mask.nii.gz")


def codes(scan: ScanSet) -> set[str]:
    return {p.code for p in inspect_scan(scan).problems}


def test_sound_scan(tmp_path: Path) -> None:
    """A sound scan has no problem, a hash of each image and one of all."""
    found = inspect_scan(patient(tmp_path))
    assert found.problems == ()
    assert len({found.pet_hash, found.ct_hash, found.mask_hash, found.content_hash}) == 4


@pytest.mark.parametrize("role", ["pet", "ct", "mask"])
@pytest.mark.parametrize(("damage", "code"), [("cut", "E-TRUNCATED"), ("crc", "E-GZIP"), ("trailer", "E-TRUNCATED")])
def test_damaged_compressed_file(tmp_path: Path, role: str, damage: str, code: str) -> None:
    """A cut file, a wrong checksum and a missing trailer, which the header does not show, are named with the image."""
    scan = patient(tmp_path)
    path = tmp_path / f"{role}.nii.gz"
    data = bytearray(path.read_bytes())
    if damage == "crc":
        data[-6] ^= 1
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-8] if damage == "trailer" else data)
    found = inspect_scan(scan)
    assert [p.code for p in found.problems] == [code]
    assert found.problems[0].where == {"pet": "PET", "ct": "CT", "mask": "mask"}[role]


def test_voxels_no_header_tells(tmp_path: Path) -> None:
    """NaN, activity given as SUV, a CT without air and a mask of fractions are all named, in one look."""
    pet = np.full((9, 8, 7), 9000.0, np.float32)
    ct = np.random.default_rng(1).integers(0, 2000, (9, 8, 7)).astype(np.int16)
    mask = np.full((9, 8, 7), 0.5, np.float32)
    assert codes(patient(tmp_path, pet=pet, ct=ct, mask=mask)) == {"E-PETUNITS", "W-CTOFFSET", "E-MASKVALUES"}
    pet[1, 1, 1] = np.nan
    assert codes(patient(tmp_path, pet=pet)) == {"E-NONFINITE"}


def test_damaged_pixel_data(tmp_path: Path) -> None:
    """DICOM pixel data that end too early are named, and the PET that is sound keeps its hash."""
    series.write_pet(tmp_path / "P", 12)
    paths = series.write_ct(tmp_path / "P", 12)
    sound = inspect_scan(discover(tmp_path)[0])
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    found = inspect_scan(discover(tmp_path)[0])
    assert "E-PIXELS" in {p.code for p in found.problems} and not found.ct_hash
    assert found.pet_hash == sound.pet_hash != ""


def test_same_voxels_in_other_clothes(tmp_path: Path) -> None:
    """Another compression level, number type, axis order, flip or origin gives the same hash; one voxel another."""
    rng = np.random.default_rng(8)
    array = rng.integers(-1000, 1000, (9, 8, 7)).astype(np.int16)
    known = image_hash(nifti.read(save(tmp_path / "a.nii.gz", array))[0])
    flipped, shifted = RAS.copy(), RAS.copy()
    flipped[0] = [-2.0, 0, 0, -10 + 2.0 * 8]
    shifted[:3, 3] += 50
    others = [save(tmp_path / "b.nii.gz", array, level=1), save(tmp_path / "c.nii", array.astype(np.float32)),
              save(tmp_path / "d.nii", array[::-1], flipped), save(tmp_path / "e.nii", array, shifted),
              save(tmp_path / "f.nii", array.transpose(2, 0, 1), RAS[:, [2, 0, 1, 3]])]
    assert {image_hash(nifti.read(path)[0]) for path in others} == {known}
    array[3, 3, 3] += 1
    assert image_hash(nifti.read(save(tmp_path / "g.nii", array))[0]) != known
    assert image_hash(Volume.on_grid(np.zeros((2, 3, 4)), (1, 1, 2))) != image_hash(Volume.on_grid(np.zeros((2, 3, 4))))


def test_re_exported_dicom(tmp_path: Path) -> None:
    """A series sent again under new identifiers, with another weight in its header, has the old hashes."""
    series.write_pet(tmp_path / "P", 12)
    series.write_ct(tmp_path / "P", 12)
    known = inspect_scan(discover(tmp_path)[0])
    for path in (tmp_path / "P").iterdir():
        ds = dcmread(path)
        for tag in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
            setattr(ds, tag, generate_uid(entropy_srcs=[ds[tag].value, "again"]))
        ds.PatientID = ds.PatientName = "other"
        if ds.Modality == "PT":
            ds.PatientWeight = "71"
        ds.save_as(path)
    again = inspect_scan(discover(tmp_path)[0])
    assert (again.pet_hash, again.ct_hash) == (known.pet_hash, known.ct_hash)


def small_header(path: Path, shape: tuple[int, int, int]) -> bytes:
    """The bytes of a small file whose header announces another shape."""
    data = bytearray(save(path, np.zeros((5, 5, 5), np.uint8)).read_bytes())
    struct.pack_into("<8h", data, 40, 3, *shape, 1, 1, 1, 1)
    return bytes(data)


def refused(path: Path, code: str) -> None:
    """The file is refused with the code before memory is taken."""
    tracemalloc.start()
    with pytest.raises(ScanError) as caught:
        nifti.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == code and peak < 2**24


def test_compressed_bomb(tmp_path: Path) -> None:
    """A small .nii.gz that would expand to 1.4 GiB is refused from its header, whatever lies behind it."""
    head = small_header(tmp_path / "a.nii", (1200, 1200, 1000))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(head) + bytes(2**21))
    refused(tmp_path / "b.nii.gz", "E-TOOBIG")


def test_six_gigabytes(tmp_path: Path) -> None:
    """A .nii of 6 GB is refused from its header and its size."""
    (tmp_path / "a.nii").write_bytes(small_header(tmp_path / "a.nii", (2000, 2000, 1500)))
    os.truncate(tmp_path / "a.nii", 6 * 10**9)  # sparse: takes no disk
    refused(tmp_path / "a.nii", "E-TOOBIG")


def test_pipes_and_devices(tmp_path: Path) -> None:
    """A pipe, which would wait for ever, and an endless device are refused before they are opened."""
    os.mkfifo(tmp_path / "pipe.nii")
    refused(tmp_path / "pipe.nii", "E-NOFILE")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    refused(tmp_path / "zero.nii", "E-NOFILE")
    os.mkfifo(tmp_path / "pipe")
    save(tmp_path / "ct.nii.gz", np.zeros((5, 5, 5), np.int16))
    scan = given_files("P", tmp_path / "pipe", tmp_path / "ct.nii.gz")
    assert {p.code for p in inspect_scan(scan).problems} >= {"E-NOFILE"}


@pytest.mark.slow
def test_memory_of_reading(tmp_path: Path) -> None:
    """Reading an image takes the memory of its voxels and one slice, not of several copies."""
    array = np.random.default_rng(0).integers(0, 9, (128, 128, 192)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", array)
    tracemalloc.start()
    nifti.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * array.nbytes
