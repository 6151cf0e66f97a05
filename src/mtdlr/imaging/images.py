"""The PET of one patient in SUVbw and the CT in HU, from NIfTI or DICOM, each with an audit and its doubts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.dicom_volume import Stack, assemble, read_stack
from mtdlr.imaging.layout import Files
from mtdlr.imaging.suv import range_warning, suv_scale
from mtdlr.imaging.suv_bids import bids_scale, sidecar_of
from mtdlr.imaging.suv_facts import PetHeader
from mtdlr.volume import Volume

PET_UNITS = ("auto", "suv", "bqml")
_SUV_LIMIT = 200.0


@dataclass(frozen=True, eq=False)
class Image:
    """One modality as it was read: its volume, its facts, its frame of reference (empty if unknown) and warnings."""

    volume: Volume
    audit: dict[str, object]
    frame: str
    problems: tuple[Problem, ...]


def read_pet(
    files: Files | None, *, pet_units: str = "auto", uptake_min: float | None = None, assume_geometry: bool = False
) -> Image:
    """The PET in SUVbw with its audit.

    Args:
        files: one NIfTI file, or the files of one DICOM series.
        pet_units: as `read_scan`.
        uptake_min: as `read_scan`.
        assume_geometry: as `read_scan`.

    Raises:
        ScanError: every error of `nifti.read`, `read_stack`, `suv_scale` and `bids_scale`; E-NOPET, E-PETUNITS.
    """
    if pet_units not in PET_UNITS:
        raise ScanError(Problem("E-PETUNITS", "unknown PET units", found=pet_units, expected=", ".join(PET_UNITS)))
    try:
        if files is None:
            raise ScanError(Problem("E-NOPET", "there is no PET", remedy="Add it"))
        if isinstance(files, Path) and nifti.is_nifti(files):
            return _nifti_pet(files, pet_units, uptake_min, assume_geometry)
        return stacked_pet(read_stack(_several(files), "PT"), pet_units=pet_units, uptake_min=uptake_min)
    except ScanError as error:
        raise error.at("PET") from None


def stacked_pet(stack: Stack, *, pet_units: str, uptake_min: float | None) -> Image:
    """The PET in SUVbw, g/ml, of a DICOM series that was read with its numbers.

    Args:
        stack: the series, read with its pixel data.
        pet_units: as `read_scan`.
        uptake_min: as `read_scan`.

    Raises:
        ScanError: the errors of `suv_scale`.
    """
    scale = suv_scale(_header(stack), [p.acquisition for p in stack.planes], units=pet_units, uptake_min=uptake_min)
    volume, _ = assemble(stack, scale.factors)
    high = float(volume.array.max())
    audit = {"source": "DICOM", **grid_facts(volume), "scanner": stack.scanner, "suv": scale.audit, "suv_max": high}
    problems = (*stack.problems, *_no_frame(stack), *scale.problems, *range_warning(high))
    return Image(volume, audit, stack.frame, tuple(p.at("PET") for p in problems))


def read_ct(files: Files | None, *, assume_geometry: bool = False) -> Image:
    """The CT in HU with its audit.

    Args:
        files: one NIfTI file, or the files of one DICOM series.
        assume_geometry: as `read_scan`.

    Raises:
        ScanError: every error of `nifti.read` and `read_stack`; E-NOCT.
    """
    try:
        if files is None:
            raise ScanError(Problem("E-NOCT", "there is no CT", remedy="Add it"))
        if isinstance(files, Path) and nifti.is_nifti(files):
            found, problems = nifti.read(files, assume_geometry=assume_geometry)
            volume, frame, padded = _float32(found), "", 0
            told: dict[str, object] = {"source": "NIfTI"}
        else:
            stack = read_stack(_several(files), "CT")
            volume, padded = assemble(stack)
            frame, problems = stack.frame, (*stack.problems, *_no_frame(stack))
            told = {"source": "DICOM", "scanner": stack.scanner}
        low, high = float(volume.array.min()), float(volume.array.max())
        audit = {**told, **grid_facts(volume), "hu_min": low, "hu_max": high, "padding_voxels": padded}
        return Image(volume, audit, frame, tuple(p.at("CT") for p in (*problems, *_hu_range(low, high))))
    except ScanError as error:
        raise error.at("CT") from None


def _several(files: Files) -> tuple[Path, ...]:
    return (files,) if isinstance(files, Path) else files


def _header(stack: Stack) -> PetHeader:
    assert stack.header is not None
    return stack.header


def _float32(volume: Volume) -> Volume:
    return volume.with_array(volume.array.astype(np.float32, copy=False))


def grid_facts(volume: Volume) -> dict[str, object]:
    """Shape and spacing, for an audit."""
    return {"shape_zyx": list(volume.shape), "spacing_zyx_mm": [round(s, 5) for s in volume.spacing_mm]}


def _nifti_pet(path: Path, pet_units: str, uptake_min: float | None, assume_geometry: bool) -> Image:
    """A NIfTI PET that holds SUV, or activity that a BIDS sidecar explains."""
    found, problems = nifti.read(path, assume_geometry=assume_geometry)
    volume = _float32(found)
    sidecar = sidecar_of(path) if pet_units != "suv" else None
    suv: dict[str, object] = {"units_used": "SUVbw as given"}
    if sidecar is not None:
        scale = bids_scale(sidecar, uptake_min=uptake_min)
        volume = volume.with_array(volume.array * np.float32(scale.factors[0]))
        suv, problems = scale.audit, (*problems, *scale.problems)
    high = float(volume.array.max())
    if sidecar is None and (pet_units == "bqml" or (pet_units == "auto" and high > _SUV_LIMIT)):
        raise ScanError(Problem("E-PETUNITS", "the image holds activity, not SUV, and NIfTI has no dose and weight",
                                found=f"maximum {high:.4g}", expected=f"at most {_SUV_LIMIT:g}",
                                remedy="Use the DICOM series, add a BIDS sidecar, or set pet_units to suv"))
    audit = {"source": "NIfTI", **grid_facts(volume), "suv": suv, "suv_max": high}
    return Image(volume, audit, "", tuple(p.at("PET") for p in (*problems, *range_warning(high))))


def _no_frame(stack: Stack) -> tuple[Problem, ...]:
    """W-NOFRAME where a series does not name its frame of reference."""
    if stack.frame:
        return ()
    return (Problem("W-NOFRAME", "the series names no frame of reference: nothing says that PET and CT fit together",
                    where="FrameOfReferenceUID (0020,0052)", remedy="Look at the fused images"),)


def _hu_range(low: float, high: float) -> tuple[Problem, ...]:
    """W-CTOFFSET for a CT without air, W-CTRANGE for one that spans too little."""
    if high - low < 100.0:
        span = f"{low:.0f} to {high:.0f} HU"
        return (Problem("W-CTRANGE", "the CT hardly varies", found=span, expected="air to bone"),)
    if low < -200.0:
        return ()
    return (Problem("W-CTOFFSET", "the CT holds no air: HU may be offset by 1000 or 1024",
                    found=f"minimum {low:.0f}", expected="about -1000 HU",
                    remedy="Check RescaleIntercept, or subtract the offset"),)


def read_headers(
    files: Files, role: str, *, pet_units: str = "auto", uptake_min: float | None = None, assume_geometry: bool = False
) -> Image:
    """An image without its voxels: its volume holds zeros and costs no memory.

    The audit of a PET names what its SUV would rest on.

    Args:
        files: one NIfTI file, or the files of one DICOM series.
        role: "PET" or "CT".
        pet_units: as `read_scan`.
        uptake_min: as `read_scan`.
        assume_geometry: as `read_scan`.
    """
    audit: dict[str, object] = {}
    try:
        if isinstance(files, Path) and nifti.is_nifti(files):
            header = nifti.read_header(files, assume_geometry=assume_geometry)
            shape, affine, frame, problems = header.shape, header.affine, "", header.problems
            sidecar = sidecar_of(files) if role == "PET" and pet_units != "suv" else None
            if sidecar is not None:
                scale = bids_scale(sidecar, uptake_min=uptake_min)
                problems, audit = (*problems, *scale.problems), {"suv": scale.audit}
        else:
            stack = read_stack(_several(files), "PT" if role == "PET" else "CT", pixels=False)
            shape, affine, frame = stack.shape, stack.affine, stack.frame
            problems = (*stack.problems, *_no_frame(stack))
            if role == "PET":
                acquisitions = [p.acquisition for p in stack.planes]
                scale = suv_scale(_header(stack), acquisitions, units=pet_units, uptake_min=uptake_min)
                problems, audit = (*problems, *scale.problems), {"suv": scale.audit}
    except ScanError as error:
        raise error.at(role) from None
    empty = Volume(np.broadcast_to(np.float32(0), shape), affine)
    return Image(empty, audit | grid_facts(empty), frame, tuple(p.at(role) for p in problems))
