"""NIfTI: what is written comes back, and a damaged or doubtful file never passes silently."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.layout import given_files
from mtdlr.imaging.reading import inspect_scan, read_scan
from mtdlr.volume import Volume

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
RAS = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def voxels(shape: tuple[int, ...] = (5, 6, 7), seed: int = 1) -> np.ndarray:
    """Numbers (i, j, k) that differ in every voxel."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray = RAS, edit: Callable | None = None) -> Path:
    """A file by nibabel; `edit` changes the header before it is written, and what it returns replaces the bytes."""
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    if edit is not None:
        edit(image.header)
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def patched(path: Path, at: int, layout: str, *values: float) -> Path:
    """The file with header bytes overwritten, past any library's checks."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at, *values)
    path.write_bytes(data)
    return path


def error_of(path: Path, **options: bool) -> ScanError:
    with pytest.raises(ScanError) as caught:
        nifti.read(path, **options)
    assert path.name not in str(caught.value)  # a file's name may be a patient's
    return caught.value


def codes(problems: tuple) -> list[str]:
    return [p.code for p in problems]


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "bool", "float64", "int64"])
def test_round_trip(tmp_path: Path, name: str, dtype: str) -> None:
    """What is written is read back: the same voxels at the same points."""
    array = (np.arange(4 * 5 * 6).reshape(4, 5, 6) % 2).astype(dtype)
    turn = np.array([[0, 0, 3.0, 5], [0, -2.0, 0, 6], [1.0, 0, 0, 7], [0, 0, 0, 1]])
    nifti.write(tmp_path / name, Volume(array, turn))
    volume, problems = nifti.read(tmp_path / name)
    assert not problems
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, turn, atol=1e-5)


def test_written_twice_is_the_same_file(tmp_path: Path) -> None:
    """The same volume gives the same bytes, without a time stamp, and no scratch file is left."""
    volume = Volume.on_grid(voxels())
    nifti.write(tmp_path / "a.nii.gz", volume)
    nifti.write(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_lps_and_axis_order(tmp_path: Path) -> None:
    """Voxel (i, j, k) at a RAS point is voxel (k, j, i) at the LPS point with x and y negated."""
    array = voxels()
    volume, _ = nifti.read(save(tmp_path / "a.nii.gz", array))
    i, j, k = 3, 1, 5
    assert volume.array[k, j, i] == array[i, j, k]
    np.testing.assert_allclose(volume.points_mm([k, j, i]), (RAS @ [i, j, k, 1])[:3] * [-1, -1, 1])


@given(seed=st.integers(0, 10_000), order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_storage_order_changes_no_point(tmp_path_factory: pytest.TempPathFactory, seed: int, order: list[int],
                                        flips: tuple[bool, bool, bool]) -> None:
    """The same image stored with flipped or permuted axes has the same value at every point, to 1e-6."""
    array, image = voxels(seed=seed), nibabel.Nifti1Image(voxels(seed=seed), RAS)
    target = np.array([[order[n], -1 if flips[n] else 1] for n in range(3)])
    other = image.as_reoriented(target)
    folder = tmp_path_factory.mktemp("order")
    plain, _ = nifti.read(save(folder / "a.nii", array))
    turned, _ = nifti.read(save(folder / "b.nii", np.asarray(other.dataobj), other.affine))
    at = np.stack(np.meshgrid(*[np.arange(n) for n in plain.shape], indexing="ij"), -1)
    there = np.rint(turned.indices(plain.points_mm(at))).astype(int)
    np.testing.assert_allclose(turned.array[tuple(there.transpose(3, 0, 1, 2))], plain.array, atol=1e-6)


def test_scaled_integers(tmp_path: Path) -> None:
    """Stored integers with slope and intercept come out scaled, to single precision."""
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "a.nii", stored)
    volume, _ = nifti.read(patched(path, 112, "<2f", 0.25, -3.0))
    np.testing.assert_allclose(volume.array, stored.transpose(2, 1, 0) * 0.25 - 3.0)
    assert volume.array.dtype == np.float32


def test_slope_zero_means_unscaled(tmp_path: Path) -> None:
    """scl_slope 0 leaves the numbers as stored, as the standard says."""
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume, _ = nifti.read(patched(save(tmp_path / "a.nii", stored), 112, "<2f", 0.0, 7.0))
    np.testing.assert_array_equal(volume.array, stored.transpose(2, 1, 0))


def test_big_endian_and_version_2(tmp_path: Path) -> None:
    """Big-endian files and NIfTI-2 files read like ordinary ones."""
    array = voxels()
    big = nibabel.Nifti1Header(endianness=">")
    big.set_data_dtype(np.float32)
    (tmp_path / "big.nii").write_bytes(nibabel.Nifti1Image(array, RAS, big).to_bytes())
    (tmp_path / "two.nii").write_bytes(nibabel.Nifti2Image(array, RAS).to_bytes())
    for name in ("big.nii", "two.nii"):
        volume, _ = nifti.read(tmp_path / name)
        np.testing.assert_array_equal(volume.array, array.transpose(2, 1, 0))
        assert volume.array.dtype.isnative


def test_metres_are_converted(tmp_path: Path) -> None:
    """Lengths in metres become millimetres, with W-UNITS."""
    path = save(tmp_path / "a.nii", voxels(), np.diag([0.002, 0.003, 0.004, 1.0]), lambda h: h.set_xyzt_units("meter"))
    volume, problems = nifti.read(path)
    assert volume.spacing_mm == pytest.approx((4.0, 3.0, 2.0))
    assert codes(problems) == ["W-UNITS"]


def test_qform_alone(tmp_path: Path) -> None:
    """A file with a qform only is placed by it."""
    path = patched(save(tmp_path / "a.nii", voxels()), 252, "<2h", 1, 0)
    patched(path, 280, "<12f", *[np.nan] * 12)
    np.testing.assert_allclose(nifti.read(path)[0].spacing_mm, (4.0, 3.0, 2.0), rtol=1e-5)


def test_header_alone_agrees_with_reading(tmp_path: Path) -> None:
    """Reading the header gives the shape, the affine and the warnings of reading all."""
    path = save(tmp_path / "a.nii.gz", voxels((5, 6, 7, 1)))
    volume, problems = nifti.read(path)
    header = nifti.read_header(path)
    assert header.shape == volume.shape and header.problems == problems
    np.testing.assert_array_equal(header.affine, volume.affine)


def test_real_files() -> None:
    """A real patient's four images equal what nibabel reads."""
    folder = SHARED / "sts" / "images" / "STS_019"
    if not folder.exists():
        pytest.skip("the real images (../shared/data/sts) are not here")
    for path in sorted(folder.glob("*.nii.gz")):
        expected = nibabel.Nifti1Image.load(path).get_fdata().transpose(2, 1, 0)
        np.testing.assert_allclose(nifti.read(path)[0].array, expected, rtol=1e-6)


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_cut_in_half(tmp_path: Path) -> None:
    """A compressed file cut in half is E-TRUNCATED."""
    path = save(tmp_path / "a.nii.gz", voxels((20, 20, 20)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert error_of(path).code == "E-TRUNCATED"


@pytest.mark.parametrize("missing", [1, 4, 8])
def test_gzip_trailer_cut(tmp_path: Path, missing: int) -> None:
    """A compressed file without its last bytes, which other readers accept, is E-TRUNCATED."""
    path = save(tmp_path / "a.nii.gz", voxels((9, 9, 9)))
    path.write_bytes(path.read_bytes()[:-missing])
    assert error_of(path).code == "E-TRUNCATED"


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    """No single flipped byte behind the gzip header lets another voxel through unseen."""
    path = save(tmp_path / "a.nii.gz", voxels((6, 6, 6)))
    good, expected = path.read_bytes(), nifti.read(path)[0]
    for at in range(10, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            volume = nifti.read(path)[0]
        except ScanError:
            continue
        np.testing.assert_array_equal(volume.array, expected.array)


def test_plain_file_cut(tmp_path: Path) -> None:
    """An uncompressed file that is too short is E-TRUNCATED, with both lengths."""
    path = save(tmp_path / "a.nii", voxels())
    path.write_bytes(path.read_bytes()[:-4])
    assert "expected 1192 bytes" in str(error_of(path))


@pytest.mark.parametrize(("content", "code"), [
    (b"", "E-TRUNCATED"), (b"<html><body>404</body></html>", "E-NOTNIFTI"), (b"\x1f\x8b garbage", "E-GZIP"),
    (gzip.compress(b"not an image" * 100, mtime=0), "E-NOTNIFTI"), (b"\0" * 400, "E-NOTNIFTI"),
])  # fmt: skip
def test_not_an_image(tmp_path: Path, content: bytes, code: str) -> None:
    """An empty file, a web page or noise under an image's name is told apart from an image."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert error_of(path).code == code


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is E-NOFILE."""
    assert error_of(tmp_path / "gone.nii").code == "E-NOFILE"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_huge_header_is_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    """A header of 32000 cubed voxels is refused without allocating for them."""
    path = save(tmp_path / "a.nii", voxels())
    patched(path, 40, "<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1)
    if name.endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    tracemalloc.start()
    code = error_of(tmp_path / name).code
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == "E-TOOBIG" and peak < 2**24


@pytest.mark.slow
def test_bomb_is_refused(tmp_path: Path) -> None:
    """A file that unpacks to far more than its header announces is E-DIMS, within bounds of memory."""
    data = save(tmp_path / "a.nii", voxels()).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data + bytes(2**26)))
    tracemalloc.start()
    code = error_of(tmp_path / "b.nii.gz").code
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == "E-DIMS" and peak < 2**24


@pytest.mark.parametrize("dims", [(3, -5, 6, 7), (3, 0, 6, 7), (2, 5, 6, 1), (0, 5, 6, 7), (9, 5, 6, 7), (-3, 5, 6, 7)])
def test_impossible_dimensions(tmp_path: Path, dims: tuple[int, ...]) -> None:
    """Negative, zero, missing or too many dimensions are E-DIMS."""
    assert error_of(patched(save(tmp_path / "a.nii", voxels()), 40, "<4h", *dims)).code == "E-DIMS"


def test_fourth_axis(tmp_path: Path) -> None:
    """A fourth axis of length one is dropped with W-4D; a longer one is E-4D."""
    volume, problems = nifti.read(save(tmp_path / "a.nii", voxels((5, 6, 7, 1))))
    assert volume.shape == (7, 6, 5) and codes(problems) == ["W-4D"]
    assert error_of(save(tmp_path / "b.nii", voxels((5, 6, 7, 2)))).code == "E-4D"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    """NaN and infinite voxels are E-NONFINITE, with their count."""
    array = voxels()
    array[1, 2, 3:5] = bad
    error = error_of(save(tmp_path / "a.nii.gz", array))
    assert error.code == "E-NONFINITE" and "2 NaN or infinite voxels" in str(error)


@pytest.mark.parametrize("scaling", [(np.nan, 0.0), (1.0, np.nan), (np.inf, 0.0)])
def test_scaling_that_is_no_number(tmp_path: Path, scaling: tuple[float, float]) -> None:
    """A slope or intercept that is no number is E-SCLSLOPE, where other readers ignore it."""
    path = save(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16))
    assert error_of(patched(path, 112, "<2f", *scaling)).code == "E-SCLSLOPE"


def test_no_orientation(tmp_path: Path) -> None:
    """Without sform and qform a file is E-NOFORM, or upright with W-NOFORM when that was allowed."""
    path = patched(save(tmp_path / "a.nii", voxels()), 252, "<2h", 0, 0)
    assert error_of(path).code == "E-NOFORM"
    volume, problems = nifti.read(path, assume_geometry=True)
    assert volume.spacing_mm == pytest.approx((4.0, 3.0, 2.0)) and codes(problems) == ["W-NOFORM"]


def test_forms_that_disagree(tmp_path: Path) -> None:
    """A qform 5 mm away from the sform is W-FORMS with the distance; the sform is used."""
    shifted = RAS.copy()
    shifted[0, 3] += 5.0

    def both(header: nibabel.Nifti1Header) -> None:
        header.set_sform(RAS, 1)
        header.set_qform(shifted, 1)

    volume, problems = nifti.read(save(tmp_path / "a.nii", voxels(), RAS, both))
    assert codes(problems) == ["W-FORMS"] and "5.00 mm" in problems[0].found
    assert volume.points_mm([0, 0, 0])[0] == pytest.approx(10.0)


@pytest.mark.parametrize(("affine", "code"), [
    (np.diag([2.0, 0.0, 4.0, 1.0]), "E-AFFINE"), (np.diag([2.0, np.nan, 4.0, 1.0]), "E-AFFINE"),
    (np.diag([2.0, 1e5, 4.0, 1.0]), "E-AFFINE"),
    (np.array([[2.0, 0.6, 0, 0], [0, 3.0, 0, 0], [0, 0, 4.0, 0], [0, 0, 0, 1]]), "E-TILT"),
])  # fmt: skip
def test_impossible_orientation(tmp_path: Path, affine: np.ndarray, code: str) -> None:
    """A singular, endless or sheared sform is refused."""
    path = patched(save(tmp_path / "a.nii", voxels()), 280, "<12f", *affine[:3].ravel())
    assert error_of(path).code == code


def test_broken_qform(tmp_path: Path) -> None:
    """A quaternion longer than one is E-AFFINE."""
    path = patched(save(tmp_path / "a.nii", voxels()), 252, "<2h", 1, 0)
    assert error_of(patched(path, 256, "<3f", 3.0, 3.0, 3.0)).code == "E-AFFINE"


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_not_single_numbers(tmp_path: Path, dtype: object) -> None:
    """Complex and colour images are E-DTYPE."""
    assert error_of(save(tmp_path / "a.nii", np.zeros((3, 4, 5), dtype))).code == "E-DTYPE"


@pytest.mark.parametrize("offset", [-1.0, 10.0, np.nan, 352.5, 1e30])
def test_impossible_voxel_offset(tmp_path: Path, offset: float) -> None:
    """A voxel offset inside the header, fractional or endless is E-DIMS."""
    assert error_of(patched(save(tmp_path / "a.nii", voxels()), 108, "<f", offset)).code == "E-DIMS"


# --- a patient in NIfTI ----------------------------------------------------------------------------------------------


def write_patient(folder: Path, *, pet: np.ndarray | None = None, ct: np.ndarray | None = None,
                  mask: np.ndarray | None = None, mask_affine: np.ndarray = RAS) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(2)
    save(folder / "pet.nii.gz", rng.uniform(0, 9, (8, 8, 8)).astype(np.float32) if pet is None else pet)
    save(folder / "ct.nii.gz", rng.integers(-1000, 900, (8, 8, 8)).astype(np.int16) if ct is None else ct)
    if mask is not None:
        save(folder / "mask.nii.gz", mask, mask_affine)
    return folder


def scan_in(folder: Path, **options: object):
    mask = folder / "mask.nii.gz"
    return read_scan(given_files("P", folder / "pet.nii.gz", folder / "ct.nii.gz", mask if mask.exists() else None),
                     **options)


def block(value: float = 1, dtype: str = "uint8") -> np.ndarray:
    mask = np.zeros((8, 8, 8), dtype)
    mask[2:5, 2:5, 2:5] = value
    return mask


def test_activity_given_as_suv(tmp_path: Path) -> None:
    """A NIfTI PET above 200 is E-PETUNITS; told that it is SUV, it passes with W-SUVRANGE."""
    write_patient(tmp_path, pet=np.full((8, 8, 8), 5000.0, np.float32))
    with pytest.raises(ScanError) as caught:
        scan_in(tmp_path)
    assert caught.value.code == "E-PETUNITS"
    assert "W-SUVRANGE" in codes(scan_in(tmp_path, pet_units="suv").problems)
    with pytest.raises(ScanError):
        scan_in(tmp_path, pet_units="kBq")


def test_ct_with_an_offset(tmp_path: Path) -> None:
    """A NIfTI CT that starts at 0 is W-CTOFFSET."""
    write_patient(tmp_path, ct=np.random.default_rng(3).integers(0, 2000, (8, 8, 8)).astype(np.int16))
    assert codes(scan_in(tmp_path).problems) == ["W-CTOFFSET"]


@pytest.mark.parametrize(("mask", "expected", "voxels"), [
    (block(0), ["W-MASKEMPTY"], 0), (block(255), ["W-MASKVALUES"], 27), (block(1, "int64"), [], 27),
    (block(1, "float32"), [], 27), (block(1) + 2 * (np.arange(8) == 7).astype("uint8"), ["W-MASKLABELS"], 27),
])  # fmt: skip
def test_masks_that_are_read(tmp_path: Path, mask: np.ndarray, expected: list[str], voxels: int) -> None:
    """Empty, 0/255, int64, float and two-label masks are read, each with its doubt; label 1 is the tumour."""
    scan = scan_in(write_patient(tmp_path, mask=mask))
    assert codes(scan.problems) == expected
    assert scan.mask is not None and scan.mask.array.dtype == bool
    assert np.count_nonzero(scan.mask.array) == voxels == scan.audit["mask"]["voxels"]


def test_one_voxel_mask(tmp_path: Path) -> None:
    """A mask of one voxel is W-MASKSMALL."""
    mask = np.zeros((8, 8, 8), "uint8")
    mask[4, 4, 4] = 1
    assert codes(scan_in(write_patient(tmp_path, mask=mask)).problems) == ["W-MASKSMALL"]


@pytest.mark.parametrize("value", [0.5, -1.0, 300.0])
def test_masks_that_are_refused(tmp_path: Path, value: float) -> None:
    """Fractional, negative and endless labels are E-MASKVALUES."""
    with pytest.raises(ScanError) as caught:
        scan_in(write_patient(tmp_path, mask=block(value, "float32")))
    assert caught.value.code == "E-MASKVALUES"


def test_mask_label_that_is_asked_for(tmp_path: Path) -> None:
    """The label asked for is taken; one that is not there is E-MASKLABEL."""
    write_patient(tmp_path, mask=block(1) + 2 * (np.arange(8) == 7).astype("uint8"))
    assert np.count_nonzero(scan_in(tmp_path, mask_label=2).mask.array) == 64
    with pytest.raises(ScanError) as caught:
        scan_in(tmp_path, mask_label=3)
    assert caught.value.code == "E-MASKLABEL"


def test_mask_on_another_grid(tmp_path: Path) -> None:
    """A mask on a grid of its own is brought to the CT's by nearest voxel, with W-MASKGRID and the volume kept."""
    fine = RAS.copy()
    fine[:3, :3] /= 2
    mask = np.zeros((16, 16, 16), "uint8")
    mask[4:10, 4:10, 4:10] = 1
    scan = scan_in(write_patient(tmp_path, mask=mask, mask_affine=fine))
    assert codes(scan.problems) == ["W-MASKGRID"] and scan.mask.same_grid(scan.ct)
    np.testing.assert_array_equal(scan.mask.array, block().transpose(2, 1, 0))


def test_patient_without_overlap(tmp_path: Path) -> None:
    """NIfTI images that do not overlap are E-NOOVERLAP, for the header check as well."""
    write_patient(tmp_path)
    far = RAS.copy()
    far[2, 3] += 500
    save(tmp_path / "ct.nii.gz", np.zeros((8, 8, 8), np.int16), far)
    with pytest.raises(ScanError) as caught:
        scan_in(tmp_path)
    assert caught.value.code == "E-NOOVERLAP"
    found = inspect_scan(given_files("P", tmp_path / "pet.nii.gz", tmp_path / "ct.nii.gz"))
    assert codes(found) == ["E-NOOVERLAP"]


def test_rotated_images(tmp_path: Path) -> None:
    """A CT turned by 3 degrees against the PET is W-ROTATED, with the angle in the audit."""
    write_patient(tmp_path)
    cos, sin = np.cos(np.radians(3.0)), np.sin(np.radians(3.0))
    turned = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ RAS
    save(tmp_path / "ct.nii.gz", np.random.default_rng(3).integers(-1000, 900, (8, 8, 8)).astype(np.int16), turned)
    scan = scan_in(tmp_path)
    assert codes(scan.problems) == ["W-ROTATED"]
    assert scan.audit["geometry"]["rotation_degrees"] == pytest.approx(3.0, abs=0.01)


def test_thick_slices(tmp_path: Path) -> None:
    """Slices of 5 mm are read like any other."""
    thick = np.diag([1.0, 1.0, 5.0, 1.0])
    volume, problems = nifti.read(save(tmp_path / "a.nii.gz", voxels(), thick))
    assert volume.spacing_mm == pytest.approx((5.0, 1.0, 1.0)) and not problems
