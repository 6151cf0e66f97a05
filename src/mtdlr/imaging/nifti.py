"""NIfTI files to volumes and back. Nothing in the file is trusted: sizes, trailer, scaling and both forms are checked.

NIfTI stores voxels with i fastest and points in RAS millimetres; a Volume is (k, j, i) in LPS millimetres.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import nibabel
import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.volume import Volume

_MAX_VOXELS = 2**29  # 512 x 512 x 2048
_GZIP_RATIO = 1100  # deflate cannot compress more than 1032:1
_LARGE_BYTES = 2**30
_LARGE_RATIO = 100  # of more than _LARGE_BYTES; scans reach 10, small masks several hundred
_SLACK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_HEADER_BYTES = 348
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_FORM_TOLERANCE_MM = 0.1
_SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Header:
    """The checked header: shape (z, y, x), affine to LPS mm, and how to find the voxels."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    problems: tuple[Problem, ...]


def is_nifti(path: Path) -> bool:
    """Whether a file is named as NIfTI: .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read(path: str | Path, *, assume_geometry: bool = False) -> tuple[Volume, tuple[Problem, ...]]:
    """The volume in a .nii or .nii.gz file (numbers as stored, or float32 where the file scales them) and warnings.

    Args:
        path: file; compression is recognised by content.
        assume_geometry: where neither sform nor qform is set, take the voxel sizes along R, A, S instead of failing.

    Raises:
        ScanError: E-NOFILE, E-TRUNCATED, E-GZIP, E-NOTNIFTI, E-DIMS, E-TOOBIG, E-4D, E-DTYPE, E-SCLSLOPE, E-NOFORM,
            E-AFFINE, E-TILT, E-NONFINITE.
    """
    with _opened(Path(path)) as (head, size, stream):
        header = _checked_header(head, size, packed=_is_packed(stream), assume_geometry=assume_geometry)
        return Volume(_voxels(stream, header), header.affine), header.problems


def read_header(path: str | Path, *, assume_geometry: bool = False) -> Header:
    """The checked header of a file; voxels are not read, so damage behind the header goes unseen.

    Args:
        path: file; compression is recognised by content.
        assume_geometry: as `read`.

    Raises:
        ScanError: as `read`, save E-NONFINITE and, in compressed files, E-TRUNCATED and E-GZIP.
    """
    with _opened(Path(path)) as (head, size, stream):
        return _checked_header(head, size, packed=_is_packed(stream), assume_geometry=assume_geometry)


def write(path: str | Path, volume: Volume) -> None:
    """A NIfTI-1 file that holds the volume, byte for byte the same for the same volume; compressed if named .gz.

    Args:
        path: file; replaced in one step, so a reader never sees half a file.
        volume: bool is stored as uint8, float64 as float32, other numbers as they are.
    """
    path = Path(path)
    array = _storable(volume.array)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), ras)
    image.header.set_xyzt_units("mm")
    image.header["scl_slope"], image.header["scl_inter"] = 1.0, 0.0
    data = image.to_bytes()
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    scratch.write_bytes(data)
    os.replace(scratch, path)


def _storable(array: NDArray) -> NDArray:
    """The array in a type every NIfTI reader takes."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.float64 or array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.int64, np.uint64, np.uint32):
        assert array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31), array.dtype
        return array.astype(np.int32)
    return array


@contextmanager
def _opened(path: Path) -> Iterator[tuple[bytes, int, BinaryIO]]:
    """(first bytes, size in bytes, stream at the start) of the file or zip member, decompressed as it is read."""
    for _, stream in archive.open_all([path]):
        try:
            head = _not_empty(stream.read(_HEAD_BYTES))
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if head[:2] != b"\x1f\x8b":
                yield head, size, stream
                return
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield _gunzip_head(head), size, cast(BinaryIO, unpacked)
            return
        except EOFError:
            raise ScanError(Problem("E-TRUNCATED", "the compressed file ends too early", remedy="Copy it again")
                            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise ScanError(Problem("E-GZIP", "the compressed data are damaged", expected="a matching CRC and length",
                                    remedy="Copy it again")) from None
        except archive.BROKEN:
            code = "E-NOFILE" if archive.archive_of(path) is None else "E-ZIP"
            raise ScanError(Problem(code, "the file cannot be read to its end", remedy="Copy it again")) from None
    raise AssertionError(path)


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise ScanError(Problem("E-TRUNCATED", "the file is empty", remedy="Copy it again"))
    return data


def _gunzip_head(head: bytes) -> bytes:
    """The first bytes behind a gzip header, as many as the piece yields."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(head, 4096)
    except zlib.error:
        raise ScanError(Problem("E-GZIP", "the compressed data are damaged", remedy="Copy it again")) from None
    if len(found) < _HEADER_BYTES and not unpacker.eof:
        raise EOFError
    return found


def _is_packed(stream: BinaryIO) -> bool:
    return isinstance(stream, gzip.GzipFile)


def _checked_header(head: bytes, size: int, *, packed: bool, assume_geometry: bool) -> Header:
    """The header in `head`, checked against the bytes that a file of `size` bytes can hold."""
    raw = _header_struct(head)
    shape, problems = _shape(raw)
    dtype = _dtype(raw)
    offset = _offset(raw, len(head))
    wanted = offset + math.prod(shape) * dtype.itemsize
    if packed and wanted > max(_LARGE_BYTES, size * _LARGE_RATIO):
        raise ScanError(Problem("E-TOOBIG", "the compressed file expands further than any scan does",
                                found=f"{size / 2**20:.0f} MiB to {wanted / 2**20:.0f} MiB",
                                expected=f"a ratio of at most {_LARGE_RATIO} above {_LARGE_BYTES // 2**20} MiB"))
    if math.prod(shape) > _MAX_VOXELS:
        raise ScanError(Problem("E-TOOBIG", "the header announces more voxels than any scan has",
                                found=" x ".join(map(str, shape)), expected=f"at most {_MAX_VOXELS}"))
    if wanted > (size * _GZIP_RATIO if packed else size):
        raise ScanError(Problem("E-TRUNCATED", "the file is shorter than its header says", found=f"{size} bytes",
                                expected=f"{wanted} bytes", remedy="Copy it again"))
    slope, inter = _scaling(raw)
    affine, form_problems = _affine(raw, shape, assume_geometry=assume_geometry)
    return Header(shape, affine, dtype, offset, slope, inter, problems + form_problems)


def _header_struct(head: bytes) -> nibabel.Nifti1Header:
    """nibabel's header of either version and byte order, or E-NOTNIFTI."""
    for kind, length, magics in (
        (nibabel.Nifti1Header, 348, (b"n+1\x00", b"ni1\x00")),
        (nibabel.Nifti2Header, 540, (b"n+2\x00", b"ni2\x00")),
    ):
        at = 344 if length == 348 else 4
        if len(head) < length or head[at : at + 4] not in magics:
            continue
        order = "<" if int.from_bytes(head[:4], "little") == length else ">"
        if int.from_bytes(head[:4], "little" if order == "<" else "big") == length:
            header: nibabel.Nifti1Header = kind(head[:length], endianness=order, check=False)
            return header
    raise ScanError(Problem("E-NOTNIFTI", "this is not a single-file NIfTI image", found=f"{len(head)} bytes",
                            expected="a NIfTI-1 or NIfTI-2 header", remedy="Export it again as .nii.gz"))


def _shape(raw: nibabel.Nifti1Header) -> tuple[tuple[int, int, int], tuple[Problem, ...]]:
    """(z, y, x) with trailing single axes dropped."""
    dim = [int(n) for n in raw["dim"]]
    axes = dim[1 : dim[0] + 1]
    if not 3 <= dim[0] <= 7 or min(axes) < 1:
        raise ScanError(Problem("E-DIMS", "the header's dimensions are impossible", found=str(dim),
                                expected="three axes of at least one voxel", remedy="Export the image again"))
    if math.prod(axes[3:]) > 1:
        raise ScanError(Problem("E-4D", "the image has more than three axes", found=" x ".join(map(str, axes)),
                                expected="one static volume", remedy="Export the frame or channel that is meant"))
    squeezed = Problem("W-4D", "axes of length one were dropped", found=" x ".join(map(str, axes)))
    return (axes[2], axes[1], axes[0]), (squeezed,) if dim[0] > 3 else ()


def _dtype(raw: nibabel.Nifti1Header) -> np.dtype:
    """The voxel type, a real number in the file's byte order."""
    try:
        dtype = raw.get_data_dtype()
    except (KeyError, nibabel.spatialimages.HeaderDataError):
        dtype = np.dtype(np.void)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError(Problem("E-DTYPE", "voxels are not plain numbers", found=f"type code {int(raw['datatype'])}",
                                expected="integers or floats of up to 64 bits"))
    return dtype


def _offset(raw: nibabel.Nifti1Header, available: int) -> int:
    """Where the voxels begin."""
    offset = float(raw["vox_offset"])
    header_end = int(raw["sizeof_hdr"]) + 4
    if not math.isfinite(offset) or offset > 1 << 30 or (offset != 0 and offset < header_end) or offset % 1:
        raise ScanError(Problem("E-DIMS", "the header's voxel offset is impossible", found=f"{offset:g}",
                                expected=f"at least {header_end}", remedy="Export the image again"))
    return int(offset) or header_end


def _scaling(raw: nibabel.Nifti1Header) -> tuple[float, float]:
    """(slope, intercept); slope 0 means unscaled, by the standard."""
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise ScanError(Problem("E-SCLSLOPE", "scl_slope or scl_inter is not a number", found=f"{slope:g}, {inter:g}",
                                expected="finite numbers", remedy="Export the image again"))
    return slope, inter


def _affine(
    raw: nibabel.Nifti1Header, shape: tuple[int, int, int], *, assume_geometry: bool
) -> tuple[NDArray[np.float64], tuple[Problem, ...]]:
    """Affine from array index (k, j, i) to LPS mm, by sform, else qform."""
    sform = _finite(raw.get_sform()) if int(raw["sform_code"]) > 0 else None
    qform = _qform(raw) if int(raw["qform_code"]) > 0 else None
    problems: list[Problem] = []
    if sform is None and qform is None:
        sform = _voxel_sizes_only(raw, allowed=assume_geometry)
        problems.append(Problem("W-NOFORM", "no sform and no qform: orientation assumed as right, anterior, superior"))
    elif sform is not None and qform is not None:
        apart = _corner_distance_mm(sform, qform, shape)
        if apart > _FORM_TOLERANCE_MM:
            problems.append(Problem("W-FORMS", "sform and qform disagree; sform is used", found=f"{apart:.2f} mm apart",
                                    expected=f"at most {_FORM_TOLERANCE_MM} mm"))
    ras = sform if sform is not None else qform
    assert ras is not None
    scale = _UNITS_MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    if scale != 1.0:
        problems.append(Problem("W-UNITS", "lengths are not in mm and were converted", found=f"factor {scale:g}"))
    return _as_lps(ras, scale), tuple(problems)


def _as_lps(ras: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """(i, j, k) -> RAS as (k, j, i) -> LPS, with invertible, perpendicular axes."""
    lps = np.diag([-scale, -scale, scale, 1.0]) @ ras[:, [2, 1, 0, 3]]
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    if not np.isfinite(lps).all() or not 1e-3 <= lengths.min() <= lengths.max() <= 1e3:
        raise ScanError(Problem("E-AFFINE", "the voxel sizes are impossible",
                                found=" x ".join(f"{n:.4g}" for n in lengths) + " mm", expected="0.001 to 1000 mm"))
    cosines = (lps[:3, :3] / lengths).T @ (lps[:3, :3] / lengths) - np.eye(3)
    if np.abs(cosines).max() > _SHEAR_TOLERANCE:
        angle = math.degrees(math.asin(min(1.0, float(np.abs(cosines).max()))))
        raise ScanError(Problem("E-TILT", "the image axes are not perpendicular", found=f"{angle:.2f} degrees off",
                                expected=f"at most {math.degrees(_SHEAR_TOLERANCE):.2f} degrees",
                                remedy="Resample the image to an upright grid first"))
    return lps


def _finite(affine: NDArray) -> NDArray[np.float64]:
    """The affine, if it is made of numbers and its axes span space."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ScanError(Problem("E-AFFINE", "the orientation in the header is not a usable matrix",
                                remedy="Export the image again, or remove the broken form"))
    return affine


def _qform(raw: nibabel.Nifti1Header) -> NDArray[np.float64]:
    """The affine of the quaternion; E-AFFINE where the quaternion is not one."""
    try:
        return _finite(raw.get_qform())
    except (ValueError, nibabel.spatialimages.HeaderDataError):
        raise ScanError(Problem("E-AFFINE", "the qform is not a rotation", remedy="Export the image again")) from None


def _voxel_sizes_only(raw: nibabel.Nifti1Header, *, allowed: bool) -> NDArray[np.float64]:
    """An upright affine with the header's voxel sizes, if the caller allows it."""
    if not allowed:
        raise ScanError(Problem("E-NOFORM", "neither sform nor qform says how the image lies in the patient",
                                expected="sform_code or qform_code > 0",
                                remedy="Export the image again, or allow it: prepare.assume_geometry"))
    return _finite(np.diag([*np.abs(raw["pixdim"][1:4].astype(np.float64)), 1.0]))


def _corner_distance_mm(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Largest distance between the corners of one grid under two affines."""
    z, y, x = shape
    corners = np.array([[i, j, k, 1.0] for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)])
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())


def _voxels(stream: BinaryIO, header: Header) -> NDArray:
    """The voxels (z, y, x), scaled, all finite, read slice by slice; a compressed file is read to its trailer."""
    scaled = header.slope != 1.0 or header.inter != 0.0
    array = np.empty(header.shape, np.float32 if scaled else header.dtype.newbyteorder("="))
    buffer = bytearray(header.dtype.itemsize * header.shape[1] * header.shape[2])
    _fill(stream, bytearray(header.offset))
    bad = 0
    for plane in array:
        _fill(stream, buffer)
        values = np.frombuffer(buffer, header.dtype).reshape(header.shape[1:])
        if scaled:
            with np.errstate(over="ignore", invalid="ignore"):
                plane[...] = values.astype(np.float64) * header.slope + header.inter
        else:
            plane[...] = values
        if plane.dtype.kind == "f":
            bad += int(plane.size - np.count_nonzero(np.isfinite(plane)))
    if len(stream.read(_SLACK_BYTES)) == _SLACK_BYTES:  # reading on also verifies length and CRC of a compressed file
        raise ScanError(Problem("E-DIMS", "the file holds far more data than its header announces",
                                expected=f"{header.offset + array.size * header.dtype.itemsize} bytes",
                                remedy="Export the image again"))
    if bad:
        raise ScanError(Problem("E-NONFINITE", "voxels are not numbers", found=f"{bad} NaN or infinite voxels",
                                expected="none", remedy="Export the image again"))
    return array


def _fill(stream: BinaryIO, buffer: bytearray) -> None:
    """Read as many bytes as the buffer holds."""
    at, view = 0, memoryview(buffer)
    while at < len(buffer):
        count = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not count:
            raise ScanError(Problem("E-TRUNCATED", "the file is shorter than its header says", remedy="Copy it again"))
        at += count
