"""Every voxel of a scan read once: what is wrong that no header shows, and hashes by which the image is known again.

One image is held at a time, so memory is bounded by the largest image that is read at all (`nifti.read`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import grid
from mtdlr.imaging.dicom_volume import assemble, read_stack
from mtdlr.imaging.images import Image, read_ct, read_pet, stacked_pet
from mtdlr.imaging.layout import Files, ScanSet
from mtdlr.imaging.masks import read_mask
from mtdlr.imaging.nifti import is_nifti
from mtdlr.imaging.reading import expanded
from mtdlr.volume import Volume


@dataclass(frozen=True)
class Inspection:
    """What the voxels of one patient's files show.

    Args:
        problems: everything that reading found, with "PET", "CT" or "mask" in front of its place. A damaged PET hides
            nothing about the CT. Those that headers tell as well are equal to those of `reading.inspect_scan`, so
            `dict.fromkeys` joins both lists.
        pet_hash, ct_hash, mask_hash: `image_hash` of each image; "" where there is none or it cannot be read.
    """

    problems: tuple[Problem, ...]
    pet_hash: str = ""
    ct_hash: str = ""
    mask_hash: str = ""

    @property
    def content_hash(self) -> str:
        """One hash of all three images; "" where the PET or the CT cannot be read."""
        if not (self.pet_hash and self.ct_hash):
            return ""
        return hashlib.sha256(f"{self.pet_hash} {self.ct_hash} {self.mask_hash}".encode()).hexdigest()


def inspect_scan(
    scan: ScanSet, *, pet_units: str = "auto", uptake_min: float | None = None, mask_label: int | None = None,
    assume_geometry: bool = False,
) -> Inspection:  # fmt: skip
    """What the voxels of a patient's PET, CT and mask show; each file is read once.

    Seen here and in no header: cut or damaged compressed data, a checksum that does not match, pixel data that do not
    decode, NaN and infinite voxels, a mask's values that are no labels, Bq/ml given as SUV, a CT without air.

    Args:
        scan: from `discover`; series that were not chosen are not read.
        pet_units: as `reading.read_scan`.
        uptake_min: as `reading.read_scan`.
        mask_label: as `reading.read_scan`.
        assume_geometry: as `reading.read_scan`.

    Returns:
        Problems and hashes. Nothing is raised for a file that cannot be read: that is one of the problems.
    """
    scan = expanded(scan)
    images: dict[str, Image] = {}
    hashes: dict[str, str] = {}
    problems: list[Problem] = []
    for role, files in (("PET", scan.pet), ("CT", scan.ct)):
        if files is None:
            continue
        try:
            image, hashes[role] = (_pet(files, pet_units, uptake_min, assume_geometry) if role == "PET"
                                   else _ct(files, assume_geometry))
            images[role] = Image(_place(image.volume), {}, image.frame, ())
            problems += image.problems
        except ScanError as error:
            problems += error.problems
    mask_hash, doubts = _mask(scan, images, mask_label, assume_geometry)
    found = sorted(dict.fromkeys((*problems, *doubts)), key=lambda p: not p.is_error)
    return Inspection(tuple(found), hashes.get("PET", ""), hashes.get("CT", ""), mask_hash)


def image_hash(volume: Volume) -> str:
    """SHA-256 of an image's voxels, size and voxel spacing.

    The same voxels give the same hash whatever their file format, compression, number type, axis order, identifiers
    or position in the scanner's space. PET counts before its SUV factor, so that another weight or dose in the header
    does not hide that two images are one.
    """
    upright = grid.canonical(volume)
    digest = hashlib.sha256(repr((upright.shape, [round(s, 2) for s in upright.spacing_mm])).encode())
    for plane in upright.array:
        digest.update((plane.astype("<f4") + np.float32(0)).tobytes())  # -0 becomes 0
    return digest.hexdigest()


def _pet(files: Files, pet_units: str, uptake_min: float | None, assume_geometry: bool) -> tuple[Image, str]:
    """(PET, hash of its voxels before any SUV factor)."""
    if isinstance(files, Path) and is_nifti(files):
        image = read_pet(files, pet_units=pet_units, uptake_min=uptake_min, assume_geometry=assume_geometry)
        return image, image_hash(image.volume)
    try:
        stack = read_stack((files,) if isinstance(files, Path) else files, "PT")
        known = image_hash(assemble(stack)[0])
        return stacked_pet(stack, pet_units=pet_units, uptake_min=uptake_min), known
    except ScanError as error:
        raise error.at("PET") from None


def _ct(files: Files, assume_geometry: bool) -> tuple[Image, str]:
    """(CT, hash of its voxels)."""
    image = read_ct(files, assume_geometry=assume_geometry)
    return image, image_hash(image.volume)


def _mask(
    scan: ScanSet, images: dict[str, Image], label: int | None, assume_geometry: bool
) -> tuple[str, tuple[Problem, ...]]:
    """(hash of the mask, what is wrong with it); ("", ()) where there is no image that it could lie on."""
    if scan.mask is None or not images or (len(images) < 2 and not is_nifti(scan.mask)):
        return "", ()
    either = next(iter(images.values()))
    pet, ct = (images.get(role, either) for role in ("PET", "CT"))
    try:
        chosen = scan.mask_label if label is None else label
        mask, _, doubts = read_mask(scan, pet, ct, label=chosen, assume_geometry=assume_geometry)
    except ScanError as error:
        return "", error.problems
    return "" if mask is None else image_hash(mask), doubts


def _place(volume: Volume) -> Volume:
    """The volume's grid, without its voxels."""
    return grid.grid(volume.shape, volume.affine)
