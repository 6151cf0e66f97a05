"""DICOM: which series is taken, how its slices become a volume, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import imaging_series as series
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.dicom import group_series
from mtdlr.imaging.dicom_choice import Choice, choose
from mtdlr.imaging.images import read_ct, read_pet
from mtdlr.imaging.layout import content_hash, discover
from mtdlr.imaging.reading import inspect_scan, read_scan

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
CANARY = "ZZPHI^CANARY"


def files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.rglob("*.dcm")))


def choice_in(folder: Path, *wanted: str) -> Choice:
    return choose(group_series(files(folder))[0], wanted)


def codes(problems: tuple[Problem, ...]) -> set[str]:
    return {p.code for p in problems}


def error_of(folder: Path, modality: str = "PT") -> ScanError:
    with pytest.raises(ScanError) as caught:
        (read_pet if modality == "PT" else read_ct)(files(folder))
    return caught.value


# --- volumes ---------------------------------------------------------------------------------------------------------


def test_slices_are_ordered_by_position(tmp_path: Path) -> None:
    """Slices are ordered along the patient whatever their file names, and the affine says where each voxel lies."""
    series.write_ct(tmp_path, 6)
    volume = read_ct(files(tmp_path)).volume
    np.testing.assert_array_equal(volume.array, series.stored(6, seed=6) // 10 - 1024)
    np.testing.assert_allclose(volume.points_mm([2, 3, 4]), [-30 + 4 * 5.0, -40 + 3 * 4.0, -200 + 2 * 3.0])
    assert volume.array.dtype == np.float32


def test_feet_first_and_oblique_orientation(tmp_path: Path) -> None:
    """Rows and columns that run backwards or obliquely put every voxel where the header says."""
    turn = np.radians(20.0)
    across, down = np.array([-np.cos(turn), np.sin(turn), 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(across, down)

    def oblique(k: int, ds: Dataset) -> None:
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in (*across, *down)]
        ds.ImagePositionPatient = [f"{v:.10g}" for v in np.array([5.0, 6.0, 7.0]) - 2.5 * k * normal]

    series.write_ct(tmp_path, 5, edit=oblique)
    volume = read_ct(files(tmp_path)).volume
    at = np.array([5.0, 6.0, 7.0]) - 2.5 * 3 * normal + 4 * 5.0 * across + 2 * 4.0 * down
    k, j, i = np.rint(volume.indices(at)).astype(int)
    assert np.abs(volume.points_mm([k, j, i]) - at).max() < 1e-6
    assert volume.array[k, j, i] == (series.stored(5, seed=6) // 10)[3, 2, 4] - 1024


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
def test_real_series_equal_their_nifti_truth(patient: str) -> None:
    """Two real GE examinations give the voxels and the grid of their published NIfTI copies."""
    if not (SHARED / "dicom").exists():
        pytest.skip("the real DICOM series (../shared/data/dicom) are not here")
    scan = read_scan(discover(SHARED / "dicom" / "sts_real" / patient)[0])
    truth = SHARED / "ibsi" / "parity_sts" / patient
    for image, name in ((scan.pet, "PET_image"), (scan.ct, "CT_image")):
        expected, _ = nifti.read(truth / f"{name}.nii.gz")
        assert image.same_grid(expected, tolerance_mm=0.01)
        np.testing.assert_allclose(image.array, expected.array, atol=1e-6 * float(expected.array.max()))


def drop(folder: Path, *numbers: int) -> None:
    for path in files(folder):
        if int(dcmread(path).InstanceNumber) in numbers:
            path.unlink()


def tilt(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.ImageOrientationPatient = [1, 0, 0, 0, "0.98", "0.199"]


def twice(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.ImagePositionPatient = [-30.0, -40.0, -197.0]


def lean(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-30.0, -40.0 + 0.5 * k, -200.0 + 3.0 * k]


def two_spacings(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-30.0, -40.0, -200.0 + (3.0 * k if k < 6 else 15.0 + 4.25 * (k - 5))]


def other_size(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.Rows, ds.Columns = 7, 9


def other_spacing(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.PixelSpacing = [4.1, 5.0]


def no_position(k: int, ds: Dataset) -> None:
    if k == 2:
        del ds.ImagePositionPatient


def short(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.PixelData = ds.PixelData[:100]


def no_pixels(k: int, ds: Dataset) -> None:
    if k == 2:
        del ds.PixelData


def other_frame(k: int, ds: Dataset) -> None:
    if k == 2:
        ds.FrameOfReferenceUID = "1.2.3.99"


def zero_spacing(_: int, ds: Dataset) -> None:
    ds.PixelSpacing = [0, 0]


def flat_orientation(_: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def twelve_allocated(_: int, ds: Dataset) -> None:
    ds.BitsAllocated = 12


def endless(_: int, ds: Dataset) -> None:
    ds.Rows = 60000


def colour(_: int, ds: Dataset) -> None:
    ds.SamplesPerPixel = 3


def jpeg_without_decoder(_: int, ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
    ds["PixelData"].is_undefined_length = True
    item = b"\xfe\xff\x00\xe0"
    ds.PixelData = item + bytes(4) + item + b"\x04\x00\x00\x00abcd" + b"\xfe\xff\xdd\xe0" + bytes(4)


BROKEN = {
    "slice tilted": ("E-ORIENTATION", tilt), "slice twice": ("E-DUPLICATE", twice), "gantry tilt": ("E-TILT", lean),
    "two spacings": ("E-SPACING", two_spacings), "slice of another size": ("E-MIXED", other_size),
    "slice of another pixel spacing": ("E-MIXED", other_spacing), "slice without position": ("E-TAG", no_position),
    "short pixel data": ("E-PIXELS", short), "no pixel data": ("E-PIXELS", no_pixels),
    "slice of another frame of reference": ("E-MIXED", other_frame), "pixel spacing 0": ("E-GEOMETRYTAG", zero_spacing),
    "flat orientation": ("E-ORIENTATION", flat_orientation), "12 bits allocated": ("E-PIXELS", twelve_allocated),
    "60000 rows": ("E-GEOMETRYTAG", endless),
    "colour": ("E-PIXELS", colour), "compressed, undecodable": ("E-COMPRESSED", jpeg_without_decoder),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("modality", ["PT", "CT"])
def test_broken_stack_is_an_error(tmp_path: Path, case: str, modality: str) -> None:
    """A stack of slices that is no upright, even, complete volume stops with one typed error."""
    code, edit = BROKEN[case]
    (series.write_pet if modality == "PT" else series.write_ct)(tmp_path, 8, edit=edit)
    assert error_of(tmp_path, modality).code == code


def test_missing_slice_inside(tmp_path: Path) -> None:
    """A slice missing inside is E-GAP, which tells how many and the largest step."""
    series.write_pet(tmp_path, 12)
    drop(tmp_path, 6)
    error = error_of(tmp_path)
    assert error.code == "E-GAP"
    assert "1 missing, largest step 6.00 mm" in str(error)


def test_missing_slices_at_the_end(tmp_path: Path) -> None:
    """Slices missing at the end of a PET are W-SLICES by NumberOfSlices, and the rest is read."""
    series.write_pet(tmp_path, 12)
    drop(tmp_path, 11, 12)
    image = read_pet(files(tmp_path))
    assert image.volume.shape[0] == 10
    assert "W-SLICES" in codes(image.problems)


def test_spacing_jitter_is_allowed(tmp_path: Path) -> None:
    """Positions rounded to 0.01 mm are no gap."""
    def rounded(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-30.0, -40.0, f"{-200.0 + k * 3.2699999:.2f}"]

    series.write_ct(tmp_path, 40, edit=rounded)
    assert read_ct(files(tmp_path)).volume.spacing_mm[0] == pytest.approx(3.27, abs=1e-3)


def test_two_series_given_as_one(tmp_path: Path) -> None:
    """Two series read as one are E-DUPLICATE: their slices lie at the same positions."""
    series.write_pet(tmp_path / "a", 4)
    series.write_pet(tmp_path / "b", 4, SeriesInstanceUID="1.2.3.77")
    assert error_of(tmp_path).code == "E-DUPLICATE"


def test_ct_given_as_pet(tmp_path: Path) -> None:
    """A CT given as PET is E-MODALITY."""
    series.write_ct(tmp_path)
    error = error_of(tmp_path)
    assert error.code == "E-MODALITY" and "found CT" in str(error)


def test_single_slice_and_no_files(tmp_path: Path) -> None:
    """One slice, or none, is E-SLICES."""
    series.write_pet(tmp_path, 1)
    assert error_of(tmp_path).code == "E-SLICES"
    assert error_of(tmp_path / "nothing").code == "E-SLICES"


def test_compressed_series_is_decoded(tmp_path: Path) -> None:
    """A losslessly compressed (RLE) series gives the same volume as the plain one."""
    series.write_ct(tmp_path / "plain", 4)
    (tmp_path / "rle").mkdir()
    for path in files(tmp_path / "plain"):
        ds = dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(tmp_path / "rle" / path.name)
    plain, packed = (read_ct(files(tmp_path / n)).volume for n in ("plain", "rle"))
    np.testing.assert_array_equal(plain.array, packed.array)


@pytest.mark.parametrize(("bits", "signed"), [(12, 0), (16, 1), (16, 0)])
def test_jpeg_lossless_is_decoded(tmp_path: Path, bits: int, signed: int) -> None:
    """JPEG lossless, the commonest compression of CT archives, gives the stored numbers, also negative ones."""
    codecs = pytest.importorskip("imagecodecs")
    values = series.stored(12) % 4096 - (2048 if signed else 0)

    def packed(k: int, ds: Dataset) -> None:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, signed
        frame = codecs.ljpeg_encode(values[k].astype(np.int16).view(np.uint16), bitspersample=bits)
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"

    volume = read_ct(tuple(series.write_ct(tmp_path, 12, edit=packed))).volume
    np.testing.assert_array_equal(volume.array, values - 1024.0)


def test_jpeg_lossless_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the decoder is not installed, E-COMPRESSED names the compression and the extra that reads it."""
    monkeypatch.setattr("mtdlr.imaging.dicom_volume.find_spec", lambda name: None)

    def packed(_: int, ds: Dataset) -> None:
        ds.PixelData = encapsulate([b"no jpeg at all"])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"

    with pytest.raises(ScanError, match=r"JPEG Lossless.*mtdlr\[jpeg\]") as caught:
        read_ct(tuple(series.write_ct(tmp_path, 12, edit=packed)))
    assert caught.value.code == "E-COMPRESSED"


def test_deflated_file(tmp_path: Path) -> None:
    """A deflated file is E-COMPRESSED, unread: nothing bounds what it unpacks to."""
    path = series.write_ct(tmp_path)[0]
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    ds.save_as(path)
    assert error_of(tmp_path, "CT").code == "E-COMPRESSED"


@pytest.mark.parametrize(("bits", "signed"), [(8, 0), (16, 0), (16, 1), (32, 1)])
def test_pixel_formats(tmp_path: Path, bits: int, signed: int) -> None:
    """8, 16 and 32 bits, signed and unsigned, come out as they were stored."""
    dtype = f"<{'i' if signed else 'u'}{bits // 8}"
    values = np.random.default_rng(1).integers(0, 127, (4, 9, 7)).astype(dtype)

    def stored(k: int, ds: Dataset) -> None:
        ds.BitsAllocated = ds.BitsStored = bits
        ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = bits - 1, signed, "0"
        ds.PixelData = values[k].tobytes() + (b"\0" if values[k].nbytes % 2 else b"")

    series.write_ct(tmp_path, 4, edit=stored)
    np.testing.assert_array_equal(read_ct(files(tmp_path)).volume.array, values)


def test_spare_bits_are_ignored(tmp_path: Path) -> None:
    """Overlay bits above the stored 12 do not change the values."""
    values = np.full((4, 9, 7), 1000, "<u2")

    def overlaid(k: int, ds: Dataset) -> None:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 12, 11, 0, "0"
        ds.PixelData = (values[k] | 0x8000).tobytes()

    series.write_ct(tmp_path, 4, edit=overlaid)
    np.testing.assert_array_equal(read_ct(files(tmp_path)).volume.array, values)


def test_padding_becomes_air(tmp_path: Path) -> None:
    """CT voxels with the padding value become air, and the audit counts them."""
    values = np.full((4, 9, 7), 1024, np.int16)
    values[:, 0] = -2000
    values[:, 1] = 24
    series.write_ct(tmp_path, 4, values=values, PixelPaddingValue=-2000)
    image = read_ct(files(tmp_path))
    assert image.volume.array.min() == -1024.0
    assert image.audit["padding_voxels"] == 4 * 7


@pytest.mark.parametrize(("intercept", "code"), [("0", "W-CTOFFSET"), ("-1024", None)])
def test_ct_offset(tmp_path: Path, intercept: str, code: str | None) -> None:
    """A CT whose smallest value is 0 is W-CTOFFSET."""
    series.write_ct(tmp_path, 4, RescaleIntercept=intercept)
    assert (code in codes(read_ct(files(tmp_path)).problems)) == (code is not None)


def test_flat_ct(tmp_path: Path) -> None:
    """A CT that hardly varies is W-CTRANGE."""
    series.write_ct(tmp_path, 4, values=np.zeros((4, 9, 7), np.int16))
    assert "W-CTRANGE" in codes(read_ct(files(tmp_path)).problems)


# --- enhanced multi-frame --------------------------------------------------------------------------------------------


def group(**tags: object) -> Sequence:
    item = Dataset()
    series.put(item, tags)
    return Sequence([item])


def write_enhanced_pet(path: Path) -> np.ndarray:
    """An Enhanced PET: one file, frames in reverse order, dose in MBq, units in a real-world mapping."""
    values = series.stored(5)
    ds = series.plane("PT", 0, values[0], 3.0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
                 "AcquisitionTime", "AcquisitionDate", "SeriesTime"):
        delattr(ds, name)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.130"
    ds.NumberOfFrames = 5
    ds.PixelData = np.ascontiguousarray(values[::-1], "<i2").tobytes()
    ds.AttenuationCorrected, ds.DecayCorrected, ds.PatientWeight = "YES", "YES", "70"
    ds.DecayCorrectionDateTime = "20200302110000"
    ds.RadiopharmaceuticalInformationSequence = Sequence([series.tracer(
        RadionuclideTotalDose="370", RadiopharmaceuticalStartTime=None,
        RadiopharmaceuticalStartDateTime="20200302100000")])
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=[4.0, 5.0], SliceThickness="3")
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    units = group(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Bq/ml")
    for k in reversed(range(5)):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[-30.0, -40.0, -200.0 + 3.0 * k])
        frame.FrameContentSequence = group(FrameAcquisitionDateTime="20200302110000", FrameAcquisitionDuration=300000.0)
        frame.RealWorldValueMappingSequence = group(
            RealWorldValueSlope=0.5 * (k + 1), RealWorldValueIntercept=0.0, MeasurementUnitsCodeSequence=units)
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.save_as(path, enforce_file_format=True)
    return values * (0.5 * np.arange(1, 6))[:, None, None]


def test_enhanced_pet(tmp_path: Path) -> None:
    """An Enhanced (multi-frame) PET is read like its single-frame twin: order, slopes, dose in MBq, units, times."""
    activity = write_enhanced_pet(tmp_path / "pet.dcm")
    image = read_pet((tmp_path / "pet.dcm",))
    np.testing.assert_allclose(image.volume.array, activity * series.activity_factor(60.0), rtol=2e-6)
    assert "W-DOSEMBQ" in codes(image.problems)
    (found,) = group_series([tmp_path / "pet.dcm"])[0]
    assert (found.slices, found.z_mm) == (5, (-200.0, -188.0))


def test_multi_frame_without_descriptions(tmp_path: Path) -> None:
    """A multi-frame image whose frames are not described is E-MULTIFRAME."""
    series.write_pet(tmp_path, 2, NumberOfFrames=3)
    assert error_of(tmp_path).code == "E-MULTIFRAME"


# --- the choice of series --------------------------------------------------------------------------------------------

KINDS = {
    "NAC": {"CorrectedImage": ["DECY", "SCAT"]},
    "NAC by name only": {"CorrectedImage": None, "SeriesDescription": "WB NAC"},
    "uncorrected by name only": {"CorrectedImage": None, "SeriesDescription": "PET WB (uncorrected)"},
    "gated": {"SeriesType": ["GATED", "IMAGE"]},
    "dynamic": {"SeriesType": ["DYNAMIC", "IMAGE"]},
    "MIP by series type": {"SeriesType": ["STATIC", "REPROJECTION"]},
    "MIP by image type": {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
    "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "few slices": {},
    "coronal": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_unfit_series_is_never_taken_silently(tmp_path: Path, case: str) -> None:
    """NAC, gated, dynamic, projected, captured, short and coronal series are passed over for a fit one, or refused."""
    slices = 3 if case == "few slices" else 10
    series.write_pet(tmp_path / "unfit", slices, SeriesInstanceUID="1.2.3.66", PixelSpacing=[1.0, 1.0], **KINDS[case])
    alone = choice_in(tmp_path)
    assert alone.pet is None and codes(alone.problems) >= {"E-NAC" if "correct" in case or "NAC" in case else "E-NOPET"}
    series.write_pet(tmp_path / "fit", 10)
    chosen = choice_in(tmp_path)
    assert chosen.pet is not None and set(chosen.pet.files) == set(files(tmp_path / "fit"))
    assert "attenuation corrected" in chosen.why


def test_unfit_series_can_be_asked_for(tmp_path: Path) -> None:
    """A series that is never taken by itself is taken when asked for by UID, key or description, with a warning."""
    series.write_pet(tmp_path / "gated", 12, SeriesInstanceUID="1.2.3.66", SeriesType=["GATED", "IMAGE"],
                     SeriesDescription="PET gate 3")
    series.write_pet(tmp_path / "fit", 12)
    key = next(s.key for s in group_series(files(tmp_path))[0] if s.purpose)
    for name in ("1.2.3.66", key, "pet GATE*"):
        chosen = choice_in(tmp_path, name)
        assert chosen.pet is not None and set(chosen.pet.files) == set(files(tmp_path / "gated"))
        assert "W-SERIES" in codes(chosen.problems)
    assert codes(choice_in(tmp_path, "9.9.9").problems) >= {"E-NOSERIES"}


@pytest.mark.slow
def test_whole_body_and_neck_series(tmp_path: Path) -> None:
    """Of a whole-body and a finer head-and-neck PET the finer is taken; a finer one of the legs is not."""
    series.write_pet(tmp_path / "wb", 41, step_mm=15.0, SeriesInstanceUID="1.2.3.50")
    fine = {"PixelSpacing": [2.0, 2.0]}

    def neck(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-30.0, -40.0, 75.0 + 10.0 * k]

    series.write_pet(tmp_path / "legs", 20, step_mm=10.0, SeriesInstanceUID="1.2.3.51", **fine)
    assert choice_in(tmp_path).pet.files[0].parent.name == "wb"
    series.write_pet(tmp_path / "neck", 33, edit=neck, SeriesInstanceUID="1.2.3.52", **fine)
    chosen = choice_in(tmp_path)
    assert chosen.pet.files[0].parent.name == "neck"
    assert "smallest voxel of 3" in chosen.why


def test_equal_reconstructions_are_a_tie(tmp_path: Path) -> None:
    """Two equally good PET reconstructions are E-SERIESTIE until one is asked for, by a pattern for all patients."""
    series.write_pet(tmp_path / "a", 12, SeriesDescription="WB OSEM")
    series.write_pet(tmp_path / "b", 12, SeriesDescription="WB TrueX", SeriesInstanceUID="1.2.3.70")
    assert codes(choice_in(tmp_path).problems) >= {"E-SERIESTIE"}
    assert choice_in(tmp_path, "*truex*").pet.files[0].parent.name == "b"
    assert codes(choice_in(tmp_path, "wb*").problems) >= {"E-SERIESTIE"}


def test_brain_scan_is_short(tmp_path: Path) -> None:
    """A PET of 10 cm is W-SHORTFOV."""
    series.write_pet(tmp_path, 12)
    assert "W-SHORTFOV" in codes(choice_in(tmp_path).problems)


def test_ct_of_the_examination(tmp_path: Path) -> None:
    """The CT in the PET's frame of reference is taken before a finer one of another examination; no localiser is."""
    series.write_pet(tmp_path / "pet", 12)
    series.write_ct(tmp_path / "other", 12, SeriesInstanceUID="1.2.3.60", FrameOfReferenceUID="1.2.3.61",
                    PixelSpacing=[0.5, 0.5])
    series.write_ct(tmp_path / "scout", 12, SeriesInstanceUID="1.2.3.62", PixelSpacing=[0.5, 0.5],
                    ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series.write_ct(tmp_path / "own", 12)
    chosen = choice_in(tmp_path)
    assert chosen.ct is not None and chosen.ct.files[0].parent.name == "own"
    series.write_ct(tmp_path / "kernel", 12, SeriesInstanceUID="1.2.3.63", SeriesNumber=9)
    tied = choice_in(tmp_path)
    assert tied.ct.files[0].parent.name == "own" and "W-CTTIE" in codes(tied.problems)


def test_missing_modality(tmp_path: Path) -> None:
    """A patient without CT is E-NOCT, without PET E-NOPET."""
    series.write_pet(tmp_path / "1", 12)
    assert codes(choice_in(tmp_path / "1").problems) >= {"E-NOCT"}
    series.write_ct(tmp_path / "2", 12)
    assert codes(choice_in(tmp_path / "2").problems) >= {"E-NOPET"}


# --- one patient, end to end -----------------------------------------------------------------------------------------


def write_patient(folder: Path, **pet_tags: object) -> None:
    series.write_pet(folder / "s1", 12, **pet_tags)
    series.write_ct(folder / "deep" / "er" / "s2", 12)


def test_scan_from_a_tree_and_from_a_zip(tmp_path: Path) -> None:
    """A DICOM tree and a zip of it give the same scan and the same content hash, whatever the folders are called."""
    write_patient(tmp_path / "tree")
    with zipfile.ZipFile(tmp_path / "patient.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for n, path in enumerate(files(tmp_path / "tree")):
            packed.write(path, f"{n % 5}/{n}")
    (tree,), (zipped,) = discover(tmp_path / "tree"), discover(tmp_path / "patient.zip")
    assert (tree.patient_id, zipped.patient_id) == ("tree", "patient")
    assert content_hash(tree) == content_hash(zipped)
    a, b = read_scan(tree), read_scan(zipped)
    np.testing.assert_array_equal(a.pet.array, b.pet.array)
    np.testing.assert_array_equal(a.ct.array, b.ct.array)
    assert a.audit["geometry"]["same_frame_of_reference"] is True
    json.dumps(a.audit)


def test_content_hash_sees_content_only(tmp_path: Path) -> None:
    """Renaming files leaves the content hash, one changed byte changes it."""
    write_patient(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for n, path in enumerate(files(tmp_path / "b")):
        path.rename(path.with_name(f"renamed{n}.dcm"))
    (a,), (b,) = discover(tmp_path / "a"), discover(tmp_path / "b")
    assert content_hash(a) == content_hash(b)
    changed = next(iter(b.pet))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x7f")
    assert content_hash(a) != content_hash(discover(tmp_path / "b")[0])


def test_copies_are_read_once(tmp_path: Path) -> None:
    """Files that lie in a patient's folder twice are read once, with W-COPIES."""
    write_patient(tmp_path / "p")
    shutil.copytree(tmp_path / "p" / "s1", tmp_path / "p" / "again")
    (scan,) = discover(tmp_path / "p")
    assert "W-COPIES" in codes(scan.problems)
    assert read_scan(scan).pet.shape[0] == 12


def test_same_patient_in_two_folders(tmp_path: Path) -> None:
    """The same files under two ids stay two patients with one content hash, so that the cohort can refuse them."""
    write_patient(tmp_path / "P1")
    shutil.copytree(tmp_path / "P1", tmp_path / "P2")
    one, two = discover(tmp_path)
    assert (one.patient_id, two.patient_id) == ("P1", "P2")
    assert content_hash(one) == content_hash(two)


def test_unreadable_file_among_good_ones(tmp_path: Path) -> None:
    """A damaged .dcm file beside the slices is E-DICOM and blocks that patient only; elsewhere it is W-DICOM."""
    for name in ("P1", "P2"):
        write_patient(tmp_path / name)
    (tmp_path / "P1" / "empty.dcm").write_bytes(b"")
    (tmp_path / "P2" / "s1" / "empty.dcm").write_bytes(b"")
    (tmp_path / "P2" / "notes.txt").write_text("not an image")
    first, second = discover(tmp_path)
    assert not any(p.is_error for p in first.problems) and "W-DICOM" in codes(first.problems)
    assert codes(second.problems) >= {"E-DICOM"}
    with pytest.raises(ScanError):
        read_scan(second)


def test_two_patients_in_one_folder(tmp_path: Path) -> None:
    """PET and CT headers of different patients in one folder are E-PATIENTMIX."""
    series.write_pet(tmp_path / "P1" / "a", 12)
    series.write_ct(tmp_path / "P1" / "b", 12, PatientID="0815")
    (scan,) = discover(tmp_path)
    assert "E-PATIENTMIX" in codes(scan.problems)


def test_other_frame_of_reference(tmp_path: Path) -> None:
    """PET and CT of different frames of reference are E-FRAME, unless they will be registered."""
    series.write_pet(tmp_path / "p", 12)
    series.write_ct(tmp_path / "c", 12, FrameOfReferenceUID="1.2.3.61")
    (scan,) = discover(tmp_path)
    with pytest.raises(ScanError) as caught:
        read_scan(scan)
    assert caught.value.code == "E-FRAME" and "E-FRAME" in codes(inspect_scan(scan))
    assert "W-FRAME" in codes(read_scan(scan, other_frame=True).problems)


def test_no_overlap(tmp_path: Path) -> None:
    """PET and CT that do not overlap in space are E-NOOVERLAP, with the distance."""
    def far(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [-30.0, -40.0, 500.0 + 3.0 * k]

    series.write_pet(tmp_path / "p", 12)
    series.write_ct(tmp_path / "c", 12, edit=far)
    (scan,) = discover(tmp_path)
    with pytest.raises(ScanError, match="mm apart") as caught:
        read_scan(scan)
    assert caught.value.code == "E-NOOVERLAP" and "E-NOOVERLAP" in codes(inspect_scan(scan))


def test_burned_in_text_is_warned_of(tmp_path: Path) -> None:
    """Images said to show text are W-BURNEDIN."""
    write_patient(tmp_path, BurnedInAnnotation="YES")
    assert "W-BURNEDIN" in codes(discover(tmp_path)[0].problems)


def test_inspect_finds_what_reading_would(tmp_path: Path) -> None:
    """Headers alone tell the missing weight of the PET and the tilt of the CT, both at once."""
    series.write_pet(tmp_path / "p", 12, PatientWeight=None)
    series.write_ct(tmp_path / "c", 12, edit=lean)
    (scan,) = discover(tmp_path)
    assert codes(inspect_scan(scan)) >= {"E-WEIGHT", "E-TILT"}
    assert all(p.is_error for p in inspect_scan(scan)[:2])


@pytest.mark.parametrize(("edit", "code"), [(short, "E-PIXELS"), (jpeg_without_decoder, "E-COMPRESSED")])
def test_inspect_finds_pixels_that_cannot_be_read(tmp_path: Path, edit: series.Edit, code: str) -> None:
    """Without decoding anything: a file too short for its numbers, and a compression that nothing here decodes."""
    series.write_pet(tmp_path / "p", 12)
    series.write_ct(tmp_path / "c", 12, edit=edit, values=np.zeros((12, 64, 64), np.int16))
    (scan,) = discover(tmp_path)
    assert code in codes(inspect_scan(scan))


def test_a_file_cut_off_in_its_first_tags_is_said(tmp_path: Path) -> None:
    """A slice cut before it says which series it belongs to is E-DICOM, not just a gap."""
    write_patient(tmp_path)
    cut = sorted((tmp_path / "s1").iterdir())[4]
    data = cut.read_bytes()
    cut.write_bytes(data[: data.find(b"\x20\x00\x0d\x00")])
    (scan,) = discover(tmp_path)
    assert "E-DICOM" in codes(scan.problems)


def test_series_is_chosen_when_reading(tmp_path: Path) -> None:
    """read_scan takes the series that is asked for, and the audit says so."""
    write_patient(tmp_path)
    series.write_pet(tmp_path / "second", 12, SeriesInstanceUID="1.2.3.70", SeriesDescription="second", Units="GML")
    scan = discover(tmp_path)[0]
    with pytest.raises(ScanError):
        read_scan(scan)
    taken = read_scan(scan, series="second")
    assert taken.audit["pet"]["suv"]["units"] == "GML" and "asked for" in taken.audit["choice"]


# --- nobody is named -------------------------------------------------------------------------------------------------

PRIVATE = {
    "PatientName": CANARY, "PatientID": CANARY, "PatientBirthDate": "19440102", "OtherPatientNames": CANARY,
    "PatientAddress": CANARY, "PatientMotherBirthName": CANARY, "PatientTelephoneNumbers": CANARY,
    "PatientComments": CANARY, "AccessionNumber": CANARY, "StudyID": CANARY, "ReferringPhysicianName": CANARY,
    "PerformingPhysicianName": CANARY, "OperatorsName": CANARY, "InstitutionName": CANARY, "StationName": CANARY,
    "SeriesDescription": CANARY, "StudyDescription": CANARY, "ProtocolName": CANARY, "ImageComments": CANARY,
    "AdditionalPatientHistory": CANARY, "BodyPartExamined": CANARY, "Manufacturer": CANARY,
    "StudyInstanceUID": "1.2.840.77777", "SeriesInstanceUID": "1.2.840.88888", "FrameOfReferenceUID": "1.2.840.99999",
    "SOPInstanceUID": "1.2.840.66666",
}  # fmt: skip
SECRETS = (CANARY, "CANARY", "19440102", "1.2.840.77777", "1.2.840.88888", "1.2.840.99999", "1.2.840.66666")
PERSONAL = {
    "as it is": {}, "no weight": {"PatientWeight": None}, "units": {"Units": CANARY}, "sex": {"PatientSex": CANARY},
    "decay": {"DecayCorrection": CANARY}, "suv type": {"Units": "GML", "SUVType": CANARY},
    "series type": {"SeriesType": [CANARY, CANARY]}, "time": {"SeriesTime": CANARY}, "modality": {"Modality": CANARY},
    "corrected": {"CorrectedImage": ["ATTN", CANARY]}, "image type": {"ImageType": [CANARY, "MIP"]},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", PERSONAL)
def test_nobody_is_named(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    """Names, birth dates, ids and UIDs in 26 tags and in file names reach no error, problem, audit, repr or log."""
    folder = tmp_path / "P1"

    def mark(k: int, ds: Dataset) -> None:
        series.put(ds, {**PRIVATE, "SOPInstanceUID": f"1.2.840.66666.{k}"})
        ds.SeriesInstanceUID = f"1.2.840.88888.{1 if 'Units' in ds else 2}"
        series.put(ds, PERSONAL[case] if "Units" in ds else {})

    series.write_pet(folder / CANARY, 10, edit=mark)
    series.write_ct(folder / "CT", 10, edit=mark)
    for n, path in enumerate(files(folder)):
        path.rename(path.with_name(f"{CANARY}-{n}.dcm"))
    caplog.clear()
    told: list[str] = []
    for scan in discover(tmp_path):
        told += [repr(scan), scan.why, repr(inspect_scan(scan)), *map(str, scan.problems)]
        try:
            read = read_scan(scan)
            told += [repr(read), json.dumps(read.audit), *map(str, read.problems)]
        except ScanError as error:
            told += [repr(error), str(error), json.dumps([p.as_dict() for p in error.problems])]
    text = "\n".join([*told, caplog.text])
    assert told and not [secret for secret in SECRETS if secret in text]


def test_folder_that_names_the_patient(tmp_path: Path) -> None:
    """Folders called by the PatientID or a name of the headers are W-IDFOLDER, unless identity was removed."""
    write_patient(tmp_path / "1" / "Person_Test")
    write_patient(tmp_path / "1" / "4711")
    write_patient(tmp_path / "1" / "P003")
    (told,) = [p for s in discover(tmp_path / "1") for p in s.problems if p.code == "W-IDFOLDER"]
    assert told.found == "2 of 3 folders"
    series.write_pet(tmp_path / "2" / "4711" / "a", 12, PatientIdentityRemoved="YES")
    assert "W-IDFOLDER" not in codes(discover(tmp_path / "2")[0].problems)


def test_pseudonyms(tmp_path: Path) -> None:
    """With a key, patients are told apart by PatientID over all folders, and the id cannot be read off the name."""
    write_patient(tmp_path / "a")
    series.write_pet(tmp_path / "b", 12, PatientID="0815", SeriesInstanceUID="1.2.3.80")
    one, two = discover(tmp_path, pseudonym_key="secret")
    assert {len(one.candidates), len(two.candidates)} == {1, 2}
    assert not {"4711", "0815"} & {one.patient_id, two.patient_id}
    again = {s.patient_id for s in discover(tmp_path, pseudonym_key="other")}
    assert not again & {one.patient_id, two.patient_id}


def test_every_code_is_documented() -> None:
    """Every code that reading can give has its row in docs/codes.md."""
    root = Path(__file__).parents[1]
    documented = set(re.findall(r"^\| ([EW]-[A-Z0-9]+) \|", (root / "docs" / "codes.md").read_text(), re.MULTILINE))
    ours = [p for n in ("archive", "contours", "dicom*", "images", "layout", "masks", "nifti", "reading", "suv*")
            for p in (root / "src" / "mtdlr" / "imaging").glob(f"{n}.py")]
    given = {code for p in ours for code in re.findall(r'"([EW]-[A-Z0-9]+)"', p.read_text())}
    assert len(given) > 100 and given - {"W-MASK"} <= documented
