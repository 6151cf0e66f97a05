"""A DICOM image series to voxels in the patient: decoded, ordered along the slice normal, every step checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_frames import frames_of
from mtdlr.imaging.dicom_header import Plane, read_pet_header, read_plane
from mtdlr.imaging.dicom_tags import number, parse, quiet, secret, text, uid_name
from mtdlr.imaging.scanner import scanner_facts
from mtdlr.imaging.suv_facts import PetHeader
from mtdlr.imaging.suv_time import Clock
from mtdlr.volume import Volume

_NATIVE = {
    "1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">",
}  # fmt: skip
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_DUPLICATE_MM = 0.001
_DRIFT_MM = 0.1
_FLOAT32_MAX = 3e38


@dataclass(frozen=True, eq=False)
class Stack:
    """An image series in patient order: planes, their stored numbers (None when only headers were read) and place.

    Args:
        header: what a PET says about its numbers, None for CT.
        affine: (4, 4), array index (k, j, i) -> LPS mm; frame: key of the frame of reference it lies in.
        scanner: of `scanner_facts`.
    """

    modality: str
    planes: tuple[Plane, ...]
    stored: tuple[NDArray, ...] | None
    header: PetHeader | None
    affine: NDArray[np.float64]
    frame: str
    problems: tuple[Problem, ...]
    scanner: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxel counts."""
        return len(self.planes), *self.planes[0].shape


@dataclass(frozen=True, eq=False)
class _Frame:
    """One plane as it was found in a file."""

    modality: str
    plane: Plane
    stored: NDArray | None
    header: PetHeader | None
    frame: str
    scanner: dict[str, str]
    announced: int | None


def read_stack(files: Sequence[Path], modality: str, *, pixels: bool = True) -> Stack:
    """The series in these files, ordered along its normal.

    Args:
        files: all files of one series, in any order.
        modality: "PT" or "CT".
        pixels: whether to decode the numbers, or to check headers only.

    Raises:
        ScanError: E-DICOM, E-MODALITY, E-TAG, E-TIMETAG, E-GEOMETRYTAG, E-PIXELS, E-COMPRESSED, E-MULTIFRAME, E-MIXED,
            E-ORIENTATION, E-SLICES, E-DUPLICATE, E-GAP, E-SPACING, E-TILT, E-SLOPE.
    """
    frames: list[_Frame] = []
    with quiet():
        for n, (_, stream) in enumerate(archive.open_all(files), 1):
            try:
                frames += _read_file(stream, modality, pixels=pixels)
            except ScanError as error:
                raise error.at(f"file {n} of {len(files)}") from None
    return _ordered(frames, modality)


def _ordered(frames: list[_Frame], modality: str) -> Stack:
    """The frames sorted and checked as one stack."""
    if not frames:
        raise ScanError(Problem("E-SLICES", "the series holds no files", remedy="Check the folder"))
    _same_grid([f.plane for f in frames])
    header, header_problems = _one_header([f.header for f in frames])
    normal = _normal(frames[0].plane)
    frames = sorted(frames, key=lambda f: float(np.dot(normal, f.plane.position_mm)))
    planes = tuple(f.plane for f in frames)
    affine = _affine(planes, normal)
    _scaling(planes, modality)
    stored = tuple(f.stored for f in frames if f.stored is not None)
    if len({f.frame for f in frames}) > 1:
        raise ScanError(Problem("E-MIXED", "slices lie in different frames of reference", remedy="Separate the series"))
    return Stack(
        modality, planes, stored if len(stored) == len(planes) else None, header, affine, frames[0].frame,
        (*header_problems, *_announced(frames)), frames[0].scanner,
    )  # fmt: skip


def assemble(stack: Stack, factors: NDArray[np.float64] | float = 1.0) -> tuple[Volume, int]:
    """The volume of stored * slope * factor + intercept, float32, and how many padding voxels were set to air.

    Args:
        stack: with its numbers.
        factors: one for each plane, or one for all.

    Raises:
        ScanError: E-NONFINITE where a slope leads out of what float32 holds.
    """
    assert stack.stored is not None
    array = np.empty(stack.shape, dtype=np.float32)
    each = np.broadcast_to(np.asarray(factors, dtype=np.float64), (len(stack.planes),))
    padded = 0
    for k, (plane, stored, factor) in enumerate(zip(stack.planes, stack.stored, each, strict=True)):
        scale, offset = (1.0 if plane.slope is None else plane.slope) * float(factor), plane.intercept or 0.0
        if not abs(scale) * 2.0**32 + abs(offset) < _FLOAT32_MAX:
            raise ScanError(Problem("E-NONFINITE", "the rescaled voxels are not numbers",
                                    where="RescaleSlope (0028,1053)", remedy="Correct the header"))
        array[k] = stored
        if scale != 1.0:
            array[k] *= np.float32(scale)
        if offset:
            array[k] += np.float32(offset)
        padded += _unpad(array[k], stored, plane, stack.modality)
    return Volume(array, stack.affine), padded


def _unpad(values: NDArray[np.float32], stored: NDArray, plane: Plane, modality: str) -> int:
    """CT voxels that hold the padding value become air (-1000 HU); how many."""
    if modality != "CT" or plane.padding is None:
        return 0
    outside = stored == plane.padding
    count = int(np.count_nonzero(outside))
    if count:
        values[outside] = np.minimum(values[outside], -1000.0)
        values[outside] = np.maximum(values[outside], -1024.0)
    return count


def _read_file(stream: BinaryIO, modality: str, *, pixels: bool) -> list[_Frame]:
    """The frames of one file of the wanted modality: one, unless it is a multi-frame image."""
    ds = parse(stream, pixels=pixels)
    if ds is None:
        raise ScanError(Problem("E-DICOM", "this is not a DICOM file", remedy="Check the folder"))
    found = text(ds, "Modality")
    if found != modality:
        raise ScanError(Problem("E-MODALITY", "the image is of another modality", where="Modality (0008,0060)",
                                found=found if found in ("CT", "PT", "MR", "NM", "RTSTRUCT", "SEG") else "another",
                                expected=modality, remedy="Check which series is given as which"))
    parts = list(frames_of(ds))
    planes = [read_plane(part) for part in parts]
    stored: list[NDArray | None] = list(_decode(ds, planes[0], len(planes))) if pixels else [None] * len(planes)
    if not pixels:
        _require_pixels(ds, planes, stream.seek(0, 2))
    slices = number(ds, "NumberOfSlices") if len(parts) == 1 else None
    frame, scanner = secret(text(ds, "FrameOfReferenceUID")), scanner_facts(ds)
    return [_Frame(modality, plane, values, read_pet_header(part) if modality == "PT" else None, frame, scanner,
                   announced=None if slices is None else int(slices))
            for part, plane, values in zip(parts, planes, stored, strict=True)]


def _decode(ds: Dataset, plane: Plane, count: int) -> NDArray:
    """The stored numbers (count, rows, columns)."""
    syntax = _syntax(ds)
    if (number(ds, "SamplesPerPixel") or 1) != 1 or "PixelData" not in ds:
        raise ScanError(Problem("E-PIXELS", "the file holds no grey-scale pixel data", where="PixelData (7FE0,0010)",
                                remedy="Export the original images, not pictures of them"))
    if syntax not in _NATIVE:
        return _decompress(ds, (count, *plane.shape), syntax)
    allocated, used = number(ds, "BitsAllocated"), number(ds, "BitsStored")
    signed = number(ds, "PixelRepresentation") == 1
    if allocated not in (8, 16, 32) or not 1 <= (used or allocated) <= allocated:
        raise ScanError(Problem("E-PIXELS", "the pixel format is not readable", where="BitsAllocated (0028,0100)",
                                expected="8, 16 or 32 bits", remedy="Export the original images"))
    dtype = np.dtype(f"{_NATIVE[syntax]}{'i' if signed else 'u'}{int(allocated) // 8}")
    data, numbers = ds.get_item(0x7FE00010).value, count * math.prod(plane.shape)
    if not isinstance(data, bytes) or len(data) < numbers * dtype.itemsize:
        raise ScanError(Problem("E-PIXELS", "the pixel data are too short", where="PixelData (7FE0,0010)",
                                found=f"{len(data) if isinstance(data, bytes) else 0} bytes",
                                expected=f"{numbers * dtype.itemsize} bytes", remedy="Copy the files again"))
    stored = np.frombuffer(data, dtype, numbers).reshape(count, *plane.shape)
    return _significant(stored, int(allocated), int(used or allocated), number(ds, "HighBit"))


def _significant(stored: NDArray, allocated: int, used: int, high: float | None) -> NDArray:
    """The bits that hold the numbers: the lowest, or, as old files have it, those that end at HighBit."""
    below = 0 if high is None else int(high) + 1 - used
    if below and (not 0 < below <= allocated - used or (stored & (2**below - 1)).any()):
        raise ScanError(Problem("E-PIXELS", "HighBit contradicts BitsStored and the pixel data",
                                where="HighBit (0028,0102)", found=f"{high:g} with {used} bits stored",
                                expected=f"{used - 1}", remedy="Correct the header"))
    return stored if used == allocated else (stored << (allocated - used - below)) >> (allocated - used)


def _require_pixels(ds: Dataset, planes: list[Plane], size: int) -> None:
    """E-PIXELS where a file, of which only the header was read, is too short for its uncompressed numbers; E-COMPRESSED
    where nothing installed decodes it."""
    syntax = _syntax(ds)
    wanted = len(planes) * math.prod(planes[0].shape) * int(number(ds, "BitsAllocated") or 0) // 8
    if syntax not in _NATIVE and not _has_decoder(syntax):
        raise _undecodable(syntax)
    if syntax in _NATIVE and size < wanted:
        raise ScanError(Problem("E-PIXELS", "the pixel data are too short", where="PixelData (7FE0,0010)",
                                found=f"a file of {size} bytes", expected=f"{wanted} bytes and a header",
                                remedy="Copy the files again"))


def _syntax(ds: Dataset) -> str:
    return str(getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", "1.2.840.10008.1.2"))


def _has_decoder(syntax: str) -> bool:
    """Whether a decoder of this compression is installed."""
    try:
        return _lossless_decoder(syntax) is not None or bool(get_decoder(UID(syntax)).is_available)
    except Exception:  # a syntax that pydicom does not know
        return False


def _lossless_decoder(syntax: str) -> Callable[[bytes], NDArray] | None:
    """What decodes JPEG lossless, which pydicom's permissive plugins do not; None where it is not installed."""
    if syntax not in _JPEG_LOSSLESS or find_spec("imagecodecs") is None:
        return None
    decode: Callable[[bytes], NDArray] = import_module("imagecodecs").jpegsof3_decode
    return decode


def _undecodable(syntax: str) -> ScanError:
    plugin = "the extra mtdlr[jpeg]" if syntax in _JPEG_LOSSLESS else "pylibjpeg"
    return ScanError(Problem("E-COMPRESSED", "the images are compressed and cannot be decoded here",
                             where="TransferSyntaxUID (0002,0010)", found=uid_name(syntax),
                             remedy="Decompress them (for example with dcmdjpeg or gdcmconv --raw), or install "
                             f"{plugin}"))


def _decompress(ds: Dataset, shape: tuple[int, int, int], syntax: str) -> NDArray:
    """The stored numbers of a compressed image, by whatever decoder is installed."""
    try:
        decode = _lossless_decoder(syntax)
        stored = np.asarray(ds.pixel_array) if decode is None else _jpeg_lossless(ds, shape[0], decode)
    except Exception:  # decoders raise whatever they like, quoting what they read
        raise _undecodable(syntax) from None
    if stored.size != math.prod(shape):
        raise ScanError(Problem("E-PIXELS", "the decoded image has another size than its header says",
                                found=" x ".join(map(str, stored.shape)), expected=" x ".join(map(str, shape))))
    return stored.reshape(shape)


def _jpeg_lossless(ds: Dataset, count: int, decode: Callable[[bytes], NDArray]) -> NDArray:
    """The frames (count, rows, columns) of a JPEG lossless image; the stream holds the bits without their sign."""
    frames = np.stack([decode(frame) for frame in generate_frames(ds.PixelData, number_of_frames=count)])
    bits = int(number(ds, "BitsAllocated") or 16)
    kind = "i" if number(ds, "PixelRepresentation") == 1 else "u"
    stored = frames.astype(f"u{bits // 8}").view(f"{kind}{bits // 8}")
    return _significant(stored, bits, int(number(ds, "BitsStored") or bits), number(ds, "HighBit"))


def _same_grid(planes: list[Plane]) -> None:
    """All planes have one size, pixel spacing and orientation."""
    first = planes[0]
    for n, plane in enumerate(planes, 1):
        if np.abs(np.subtract(plane.orientation, first.orientation)).max() > 1e-3:
            raise ScanError(Problem("E-ORIENTATION", "a slice is tilted against the others",
                                    where=f"file {n} of {len(planes)}, ImageOrientationPatient (0020,0037)",
                                    remedy="Export the series again, or remove what belongs to another series"))
        if plane.shape != first.shape or np.abs(np.subtract(plane.pixel_mm, first.pixel_mm)).max() > 1e-3:
            raise ScanError(Problem("E-MIXED", "slices differ in size or pixel spacing",
                                    where=f"file {n} of {len(planes)}", found=_grid_text(plane),
                                    expected=_grid_text(first), remedy="Separate the series"))
    if min(first.pixel_mm) <= 0 or max(first.pixel_mm) > 1000:
        raise ScanError(Problem("E-GEOMETRYTAG", "the pixel spacing is impossible", where="PixelSpacing (0028,0030)",
                                remedy="Correct the header"))


def _grid_text(plane: Plane) -> str:
    return f"{plane.shape[0]} x {plane.shape[1]} of {plane.pixel_mm[0]:.4g} x {plane.pixel_mm[1]:.4g} mm"


def _normal(plane: Plane) -> NDArray[np.float64]:
    """Unit vector across the slices; the orientation must be two perpendicular unit vectors."""
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    if abs(np.linalg.norm(row) - 1) > 1e-2 or abs(np.linalg.norm(column) - 1) > 1e-2 or abs(row @ column) > 1e-2:
        raise ScanError(Problem("E-ORIENTATION", "the orientation is not two perpendicular directions",
                                where="ImageOrientationPatient (0020,0037)", remedy="Correct the header"))
    normal: NDArray[np.float64] = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _affine(planes: tuple[Plane, ...], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, j, i) -> LPS mm of evenly spaced, upright planes in order."""
    positions = np.array([p.position_mm for p in planes])
    if len(planes) < 2:
        raise ScanError(Problem("E-SLICES", "the series has one slice only", remedy="Export the whole series"))
    _even_steps(np.diff(positions @ normal))
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    drift = positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal)
    across = float(np.linalg.norm(drift, axis=1).max())
    if across > _DRIFT_MM:
        height = float((positions[-1] - positions[0]) @ normal)
        angle = math.degrees(math.atan2(float(np.linalg.norm(drift[-1])), height))
        raise ScanError(Problem("E-TILT", "slices are shifted against one another (gantry tilt)",
                                where="ImagePositionPatient (0020,0032)", found=f"{across:.2f} mm, {angle:.1f} degrees",
                                expected=f"at most {_DRIFT_MM} mm",
                                remedy="Resample the series to an upright grid first"))
    first, affine = planes[0], np.eye(4)
    affine[:3, 0] = float(step @ normal) * normal
    affine[:3, 1] = np.array(first.orientation[3:]) * first.pixel_mm[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.pixel_mm[1]
    affine[:3, 3] = positions[0]
    return affine


def _even_steps(steps: NDArray[np.float64]) -> None:
    """Neither duplicates, nor gaps, nor two spacings."""
    if steps.min() <= _DUPLICATE_MM:
        count = int((steps <= _DUPLICATE_MM).sum())
        raise ScanError(Problem("E-DUPLICATE", "slices lie at the same position", found=f"{count} duplicates",
                                remedy="Remove copies, or separate series that share an identifier"))
    median = float(np.median(steps))
    if steps.max() - steps.min() <= max(0.05 * median, 0.02):
        return
    whole = np.round(steps / steps.min())
    if np.abs(steps / steps.min() - whole).max() < 0.1 and np.count_nonzero(whole > 1) <= max(1, len(steps) // 10):
        raise ScanError(Problem("E-GAP", "slices are missing inside the series",
                                found=f"{int((whole - 1).sum())} missing, largest step {steps.max():.2f} mm",
                                expected=f"steps of {median:.2f} mm", remedy="Export the whole series again"))
    raise ScanError(Problem("E-SPACING", "slices are not evenly spaced",
                            found=f"steps of {steps.min():.2f} to {steps.max():.2f} mm", expected=f"{median:.2f} mm",
                            remedy="Separate the bed positions, or export one evenly spaced series"))


def _scaling(planes: tuple[Plane, ...], modality: str) -> None:
    """Every PET slice has a slope above 0 and no intercept; every CT slice has a slope that is not 0."""
    for n, plane in enumerate(planes, 1):
        where = f"slice {n} of {len(planes)}"
        missing = plane.slope is None and modality == "PT"
        if missing or plane.slope == 0 or (modality == "PT" and (plane.slope or 0) < 0):
            raise ScanError(Problem("E-SLOPE", "the rescale slope is missing, 0 or negative",
                                    where=f"{where}, RescaleSlope (0028,1053)", expected="above 0",
                                    remedy="Export the series again"))
        if modality == "PT" and plane.intercept:
            raise ScanError(Problem("E-SLOPE", "a PET slice has a rescale intercept",
                                    where=f"{where}, RescaleIntercept (0028,1052)", found=f"{plane.intercept:g}",
                                    expected="0", remedy="Export the series again"))


def _announced(frames: list[_Frame]) -> tuple[Problem, ...]:
    """W-SLICES where NumberOfSlices promises more than there are."""
    promised = max((f.announced or 0 for f in frames), default=0)
    if promised <= len(frames):
        return ()
    return (Problem("W-SLICES", "slices are missing at an end of the series", where="NumberOfSlices (0054,0081)",
                    found=str(len(frames)), expected=str(promised), remedy="Export the whole series again"),)


def _one_header(headers: list[PetHeader | None]) -> tuple[PetHeader | None, tuple[Problem, ...]]:
    """The header that all PET slices share."""
    found = [h for h in headers if h is not None]
    if not found:
        return None, ()
    first, problems = found[0], []
    for name in (f.name for f in fields(PetHeader) if f.name != "clock"):
        if any(getattr(h, name) != getattr(first, name) for h in found):
            raise ScanError(Problem("E-MIXED", "slices of one series contradict one another",
                                    where=name.replace("_", " "), expected="one value in all slices",
                                    remedy="Separate the series"))
    moments: dict[str, datetime | None] = {}
    for name in (f.name for f in fields(Clock)):
        values = sorted({getattr(h.clock, name) for h in found} - {None})
        moments[name] = values[0] if values else None
        if len(values) > 1:
            problems.append(Problem("W-BEDTIMES", "slices give different times; the earliest was used",
                                    where=name.replace("_", " "), found=f"{len(values)} values"))
    return replace(first, clock=Clock(**moments)), tuple(problems)  # type: ignore[arg-type]
