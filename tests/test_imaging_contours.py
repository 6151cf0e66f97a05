"""Contours: exact filling, holes, names, RTSTRUCT and SEG files, and real ones against their published masks."""

from __future__ import annotations

import warnings
from pathlib import Path

import highdicom as hd
import imaging_series as series
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes as concepts
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.contours import fill, rtstruct_mask, seg_mask
from mtdlr.imaging.images import read_ct
from mtdlr.imaging.layout import discover, given_files
from mtdlr.imaging.reading import inspect_scan, read_scan
from mtdlr.volume import Volume

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
GRID = Volume.on_grid(np.zeros((4, 30, 40), bool), spacing_mm=(3.0, 1.0, 1.0))


def polygon(points: list[tuple[float, float]], z: float = 3.0) -> np.ndarray:
    """Closed contour (n, 3) in mm at height z; on GRID one millimetre is one voxel."""
    return np.array([(x, y, z) for x, y in points])


def square(low: float, high: float, z: float = 3.0) -> np.ndarray:
    return polygon([(low, low), (high, low), (high, high), (low, high)], z)


def circle(x: float, y: float, r: float, n: int = 60, z: float = 3.0) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + r * np.cos(t), y + r * np.sin(t), np.full(n, z)], axis=1)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


# --- filling ---------------------------------------------------------------------------------------------------------


def test_square() -> None:
    """A square from 4.5 to 9.5 mm holds the 25 voxel centres 5..9, in its own slice only."""
    mask = fill([square(4.5, 9.5)], GRID)
    expected = np.zeros(GRID.shape, bool)
    expected[1, 5:10, 5:10] = True
    np.testing.assert_array_equal(mask, expected)


def test_touching_squares_share_no_voxel() -> None:
    """Squares that share an edge through voxel centres cover every voxel exactly once."""
    left = polygon([(2, 2), (10, 2), (10, 12), (2, 12)])
    right = polygon([(10, 2), (20, 2), (20, 12), (10, 12)])
    a, b = fill([left], GRID), fill([right], GRID)
    assert not (a & b).any()
    np.testing.assert_array_equal(a | b, fill([polygon([(2, 2), (20, 2), (20, 12), (2, 12)])], GRID))


@pytest.mark.parametrize("inner", [square(8.5, 12.5), square(8.5, 12.5)[::-1]])
def test_hole_and_island(inner: np.ndarray) -> None:
    """A contour inside another is a hole and one inside that an island, whatever their direction and order."""
    contours = [inner, square(4.5, 18.5), square(9.5, 11.5)]
    count = [np.count_nonzero(fill(c, GRID)) for c in (contours, contours[::-1])]
    assert count == [14 * 14 - 4 * 4 + 2 * 2] * 2


def test_keyhole() -> None:
    """A hole drawn as one contour with a channel is a hole."""
    keyhole = polygon([(4.5, 4.5), (18.5, 4.5), (18.5, 18.5), (4.5, 18.5), (4.5, 10.5), (8.5, 10.5), (8.5, 12.5),
                       (12.5, 12.5), (12.5, 8.5), (8.5, 8.5), (8.5, 10.5), (4.5, 10.5)])
    assert np.count_nonzero(fill([keyhole], GRID)) == 14 * 14 - 4 * 4


def test_contour_beyond_the_image() -> None:
    """A contour that leaves the image is cut at its border, one beside it fills nothing."""
    assert np.count_nonzero(fill([square(-50.0, 100.0)], GRID)) == 30 * 40
    assert not fill([square(-50.0, -10.0)], GRID).any()
    assert not fill([square(200.0, 210.0)], GRID).any()
    assert not fill([square(4.5, 9.5, z=60.0)], GRID).any()


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=12))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_against_the_winding_of_every_voxel(points: list[tuple[float, float]]) -> None:
    """For any polygon, self-crossing ones included, each voxel agrees with a ray cast from its centre by hand."""
    mask = fill([polygon(points)], GRID)[1]
    for y, x in ((0, 0), (3, 17), (11, 8), (15, 30), (20, 20), (29, 39)):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if (y0 < y) != (y1 < y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
                crossings += 1
        assert mask[y, x] == (crossings % 2 == 1), (y, x)


@given(x=st.floats(12, 25), y=st.floats(12, 18), r=st.floats(3, 10))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_area_of_a_circle(x: float, y: float, r: float) -> None:
    """A circle's area in voxels is pi r^2 within its circumference."""
    area = np.count_nonzero(fill([circle(x, y, r)], GRID))
    assert abs(area - np.pi * r**2) <= 2 * np.pi * r * 0.35 + 1


@pytest.mark.parametrize(("planes_mm", "grid_mm", "filled"),
                         [(3.0, 3.0, 5), (6.0, 3.0, 10), (3.0, 6.0, 3), (3.0, 1.0, 15)])
def test_slices_between_contour_planes(planes_mm: float, grid_mm: float, filled: int) -> None:
    """On a grid of finer or coarser slices each slice takes the nearest contour plane within half their spacing."""
    contours = [square(4.5, 9.5, z=30.0 + planes_mm * n) for n in range(5)]
    grid = Volume.on_grid(np.zeros((100, 20, 20), bool), spacing_mm=(grid_mm, 1.0, 1.0))
    slices = fill(contours, grid).any(axis=(1, 2))
    # A slice half-way between two planes belongs to both ends' reach: one more at most.
    assert filled <= np.count_nonzero(slices) <= filled + 1
    inside = np.flatnonzero(slices)
    assert inside[-1] - inside[0] + 1 == inside.size


def test_contours_on_a_turned_grid() -> None:
    """Contours across a sagittal image's slices are E-CONTOURPLANE, along them they are filled."""
    sagittal = np.array([[3.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]])
    grid = Volume(np.zeros((10, 30, 30), bool), sagittal)
    with pytest.raises(ScanError) as caught:
        fill([square(4.5, 9.5)], grid)
    assert caught.value.code == "E-CONTOURPLANE"
    along = np.array([(6.0, 4.5, 4.5), (6.0, 9.5, 4.5), (6.0, 9.5, 9.5), (6.0, 4.5, 9.5)])
    assert np.count_nonzero(fill([along], grid)) == 25


# --- RTSTRUCT --------------------------------------------------------------------------------------------------------


def item(**tags: object) -> Dataset:
    ds = Dataset()
    series.put(ds, tags)
    return ds


def write_rtstruct(path: Path, rois: dict[str, list[np.ndarray]], *, kinds: dict[str, str] | None = None,
                   refers_to: str = "1.2.3.2", frame: str = "1.2.3.9", **tags: object) -> Path:  # fmt: skip
    """An RTSTRUCT of the given structures, drawn on the CT of `imaging_series`."""
    ds = item(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", SOPInstanceUID=generate_uid(), Modality="RTSTRUCT",
              PatientID="4711", PatientName="Test^Person", StudyInstanceUID="1.2.3", SeriesInstanceUID=generate_uid(),
              FrameOfReferenceUID=frame)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    used = item(SeriesInstanceUID=refers_to)
    study = item(RTReferencedSeriesSequence=Sequence([used]))
    ds.ReferencedFrameOfReferenceSequence = Sequence([item(FrameOfReferenceUID=frame,
                                                           RTReferencedStudySequence=Sequence([study]))])
    ds.StructureSetROISequence = Sequence([item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=frame)
                                           for n, name in enumerate(rois, 1)])
    ds.RTROIObservationsSequence = Sequence([
        item(ObservationNumber=n, ReferencedROINumber=n, RTROIInterpretedType=(kinds or {}).get(name, "ORGAN"))
        for n, name in enumerate(rois, 1)])
    ds.ROIContourSequence = Sequence([
        item(ReferencedROINumber=n, ContourSequence=Sequence([
            item(ContourGeometricType="CLOSED_PLANAR" if len(c) > 1 else "POINT", NumberOfContourPoints=len(c),
                 ContourData=[f"{v:.6g}" for v in c.ravel()]) for c in contours]))
        for n, contours in enumerate(rois.values(), 1)])
    series.put(ds, tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def test_rtstruct(tmp_path: Path) -> None:
    """The structure of a file becomes its mask; points and lines in it enclose nothing."""
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [square(4.5, 9.5), np.array([[1.0, 1.0, 3.0]])]})
    mask, problems = rtstruct_mask(path, GRID)
    assert not problems and mask.same_grid(GRID)
    np.testing.assert_array_equal(mask.array, fill([square(4.5, 9.5)], GRID))


def test_structure_by_name(tmp_path: Path) -> None:
    """A pattern takes the structures it matches, whatever their case; several are united with W-ROIUNION."""
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTVp": [square(4.5, 9.5)], "GTVn 1": [square(15.5, 19.5)],
                                                "Spinal cord": [square(1.5, 3.5)]})
    one, quiet = rtstruct_mask(path, GRID, "gtvP")
    both, told = rtstruct_mask(path, GRID, "GTV*")
    assert (np.count_nonzero(one.array), np.count_nonzero(both.array)) == (25, 41)
    assert not quiet and [p.code for p in told] == ["W-ROIUNION"] and "GTVp, GTVn 1" in told[0].found


def test_structure_is_not_guessed(tmp_path: Path) -> None:
    """Without a pattern the only tumour is taken among organs; of two tumours none is, and both are named."""
    rois = {"PTV": [square(4.5, 9.5)], "Mass": [square(15.5, 19.5)], "Cord": [square(1.5, 3.5)]}
    path = write_rtstruct(tmp_path / "a.dcm", rois, kinds={"Mass": "GTV", "PTV": "PTV"})
    assert np.count_nonzero(rtstruct_mask(path, GRID)[0].array) == 16
    path = write_rtstruct(tmp_path / "b.dcm", rois, kinds={"Mass": "GTV", "PTV": "GTV"})
    with pytest.raises(ScanError, match="PTV, Mass, Cord") as caught:
        rtstruct_mask(path, GRID)
    assert caught.value.code == "E-ROINAME"


def test_structure_names_that_may_name_people_are_withheld(tmp_path: Path) -> None:
    """Structure names that look like a person's name or number are not repeated."""
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV ZZPHI^CANARY": [square(1, 5)], "Tumour 19440102": [square(1, 5)]})
    with pytest.raises(ScanError) as caught:
        rtstruct_mask(path, GRID, "heart")
    assert "CANARY" not in str(caught.value) and "1944" not in str(caught.value)
    assert "(name withheld), (name withheld)" in str(caught.value)


def broken_points(path: Path) -> Path:
    ds = dcmread(path)
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
    ds.save_as(path)
    return path


def test_broken_contours(tmp_path: Path) -> None:
    """Contour data that are no triples are E-RTSTRUCT; another kind of file is E-DICOM."""
    path = broken_points(write_rtstruct(tmp_path / "rs.dcm", {"GTV": [square(4.5, 9.5)]}))
    with pytest.raises(ScanError) as caught:
        rtstruct_mask(path, GRID)
    assert caught.value.code == "E-RTSTRUCT"
    (ct, *_) = series.write_ct(tmp_path / "ct")
    for reader in (rtstruct_mask, seg_mask):
        with pytest.raises(ScanError) as caught:
            reader(ct, GRID)
        assert caught.value.code == "E-DICOM"


@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
@pytest.mark.parametrize("image", ["PET", "CT"])
def test_real_contours(patient: str, image: str) -> None:
    """The contours of two real patients, drawn on PET and on CT, have Dice >= 0.98 with their published masks."""
    folder = SHARED / "dicom" / "sts_real" / patient / image / "mask"
    if not folder.exists():
        pytest.skip("the real contours (../shared/data/dicom) are not here")
    truth, _ = nifti.read(SHARED / "ibsi" / "parity_sts" / patient / f"{image}_mask.nii.gz")
    mask, _ = rtstruct_mask(folder / "RS.dcm", truth)
    assert dice(mask.array, truth.array > 0) >= 0.98


# --- SEG -------------------------------------------------------------------------------------------------------------


def write_seg(path: Path, ct_files: list[Path], masks: dict[str, np.ndarray], *, fractional: bool = False,
              kind: str = "") -> Path:  # fmt: skip
    """A SEG by highdicom, drawn on a CT."""
    images = sorted((dcmread(p) for p in ct_files), key=lambda ds: float(ds.ImagePositionPatient[2]))
    for ds in images:
        ds.PatientBirthDate, ds.StudyID, ds.StudyTime, ds.AccessionNumber = "", "1", "110000", ""
        ds.PatientSex, ds.ReferringPhysicianName = "", ""
    described = [hd.seg.SegmentDescription(
        segment_number=n, segment_label=name, segmented_property_category=concepts.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=concepts.SCT.Neoplasm, algorithm_type="MANUAL") for n, name in enumerate(masks, 1)]
    pixels = np.stack(list(masks.values()), axis=-1)
    seg = hd.seg.Segmentation(
        source_images=images, pixel_array=pixels.astype(np.float32 if fractional else np.uint8),
        segmentation_type=kind or ("FRACTIONAL" if fractional else "BINARY"), segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=9, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="Test", manufacturer_model_name="Test", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def blob(shape: tuple[int, int, int], seed: int = 3) -> np.ndarray:
    """A mask with empty first and last slices, and one empty slice inside."""
    mask = np.random.default_rng(seed).random(shape) > 0.6
    mask[[0, 4, -1]] = False
    return mask


@pytest.mark.parametrize("fractional", [False, True])
def test_seg(tmp_path: Path, fractional: bool) -> None:
    """A segmentation written by highdicom comes back voxel by voxel, omitted empty frames included."""
    ct = series.write_ct(tmp_path / "ct", 12)
    mask = blob((12, 9, 7))
    path = write_seg(tmp_path / "seg.dcm", ct, {"tumour": mask}, fractional=fractional)
    found, problems = seg_mask(path, read_ct(tuple(ct)).volume)
    assert not problems
    np.testing.assert_array_equal(found.array, mask)


def test_segment_by_name(tmp_path: Path) -> None:
    """The segment whose label matches is taken; without a pattern two segments are E-ROINAME."""
    ct = series.write_ct(tmp_path / "ct", 12)
    one, two = blob((12, 9, 7)), blob((12, 9, 7), 4)
    path = write_seg(tmp_path / "seg.dcm", ct, {"tumour": one, "node": two & ~one})
    grid = read_ct(tuple(ct)).volume
    np.testing.assert_array_equal(seg_mask(path, grid, "NODE")[0].array, two & ~one)
    np.testing.assert_array_equal(seg_mask(path, grid, "?o*")[0].array, two & ~one)
    with pytest.raises(ScanError) as caught:
        seg_mask(path, grid)
    assert caught.value.code == "E-ROINAME"


@pytest.mark.parametrize("spoil", ["frames", "type", "orientation", "spacing"])
def test_broken_seg(tmp_path: Path, spoil: str) -> None:
    """A segmentation with missing frames, of no known type, with skewed frames or no spacing is E-SEG."""
    ct = series.write_ct(tmp_path / "ct", 12)
    path = write_seg(tmp_path / "seg.dcm", ct, {"tumour": blob((12, 9, 7))})
    ds = dcmread(path)
    if spoil == "frames":
        ds.PerFrameFunctionalGroupsSequence.pop()
    elif spoil == "type":
        ds.SegmentationType = "LABELS"
    elif spoil == "orientation":
        ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    else:
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0, 0]
    ds.save_as(path)
    with pytest.raises(ScanError) as caught:
        seg_mask(path, read_ct(tuple(ct)).volume)
    assert caught.value.code == "E-SEG"


def test_label_map(tmp_path: Path) -> None:
    """A SEG whose pixels are segment numbers is found and read like one with a plane for each segment."""
    ct = write_patient(tmp_path)
    node = np.roll(blob((12, 9, 7)), 1, axis=2) & ~blob((12, 9, 7))
    write_seg(tmp_path / "SEG" / "seg.dcm", ct, {"GTVp": blob((12, 9, 7)), "GTVn": node}, kind="LABELMAP")
    (scan,) = discover(tmp_path, mask_pattern="GTVn")
    np.testing.assert_array_equal(read_scan(scan).mask.array, node)


# --- volumes of small and separate lesions ----------------------------------------------------------------------------


CT_GRID = Volume.on_grid(np.zeros((60, 80, 80), bool), spacing_mm=(3.0, 1.0, 1.0))


def lesion(x: float, slices: range, half: float = 10.0) -> list[np.ndarray]:
    """Contours of a block on some slices of `CT_GRID`, 20 x 20 mm: each is 1.2 ml a slice."""
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    return [np.array([(x + 0.5 + i, 40.5 + j, 3.0 * k) for i, j in corners]) for k in slices]


LESIONS = {
    "one slice each, 20 apart": (lesion(30, range(5, 6)) + lesion(30, range(25, 26)), 2),
    "one slice each, 2 apart, side by side": (lesion(20, range(5, 6)) + lesion(55, range(7, 8)), 2),
    "three slices and one": (lesion(30, range(5, 8)) + lesion(30, range(40, 41)), 4),
    "two stacks far apart": (lesion(30, range(5, 9)) + lesion(30, range(30, 34)), 8),
    "every second slice": (lesion(30, range(10, 20, 2)), 10),
    "every second slice, and a node on one": (lesion(30, range(10, 20, 2)) + lesion(30, range(50, 51)), 12),
    "one slice alone": (lesion(30, range(5, 6)), 1),
}


@pytest.mark.parametrize("case", LESIONS)
def test_volume_of_separate_lesions(case: str) -> None:
    """Lesions drawn on few slices, apart or on every second slice, have their volume to 2 %."""
    contours, slices = LESIONS[case]
    volume_ml = np.count_nonzero(fill(contours, CT_GRID)) * CT_GRID.voxel_ml
    assert volume_ml == pytest.approx(slices * 1.2, rel=0.02)


def test_seg_without_its_empty_frames(tmp_path: Path) -> None:
    """Two one-slice lesions with the empty frames between them left out keep their volume, whatever the header says."""
    ct = series.write_ct(tmp_path / "ct", 12)
    mask = np.zeros((12, 9, 7), bool)
    mask[[1, 10], 2:6, 2:5] = True
    path = write_seg(tmp_path / "seg.dcm", ct, {"tumour": mask})
    grid = read_ct(tuple(ct)).volume
    for thickness in ("3", "27", ""):
        ds = dcmread(path)
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SliceThickness = thickness
        if "SpacingBetweenSlices" in measures:
            measures.SpacingBetweenSlices = thickness
        ds.save_as(path)
        np.testing.assert_array_equal(seg_mask(path, grid)[0].array, mask)


# --- names and odd encodings ------------------------------------------------------------------------------------------


def test_long_contours_of_unknown_type(tmp_path: Path) -> None:
    """Contours of more than 64 KB, which explicit files hold as UN, are read like others."""
    turn = np.linspace(0, 2 * np.pi, 8000, endpoint=False)
    ring = np.stack([40 + 30 * np.cos(turn), 40 + 30 * np.sin(turn), np.full(8000, 15.0)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom tells that it writes UN
        path = write_rtstruct(tmp_path / "rs.dcm", {"GTV": lesion(30, range(5, 6)), "BODY": [ring]})
    assert b"UN" in path.read_bytes()
    body = rtstruct_mask(path, CT_GRID, "BODY")[0]
    assert np.count_nonzero(body.array) == pytest.approx(np.pi * 30**2, rel=0.02)
    assert np.count_nonzero(rtstruct_mask(path, CT_GRID, "GTV")[0].array) == 400


def test_damage_in_a_structure_nobody_asked_for(tmp_path: Path) -> None:
    """Broken points of another structure do not matter."""
    path = broken_points(write_rtstruct(tmp_path / "rs.dcm", {"BODY": [square(1, 9)], "GTV": [square(4.5, 9.5)]}))
    assert np.count_nonzero(rtstruct_mask(path, GRID, "GTV")[0].array) == 25


@pytest.mark.parametrize(("declared", "stored"), [("GB18030", "gb18030"), ("ISO_IR 192", "utf-8"), (None, "gb18030"),
                                                  (None, "utf-8"), ("ISO_IR 100", "gb18030")])
def test_chinese_names(tmp_path: Path, declared: str | None, stored: str) -> None:
    """A Chinese structure name is matched, also where its character set is missing or wrong, and shown."""
    path = write_rtstruct(tmp_path / "rs.dcm", {"X" * 12: [square(4.5, 9.5)], "Cord": [square(1, 9)]},
                          SpecificCharacterSet=declared)
    name = "鼻咽肿瘤"
    path.write_bytes(path.read_bytes().replace(b"X" * 12, name.encode(stored).ljust(12)))
    assert np.count_nonzero(rtstruct_mask(path, GRID, "鼻咽*")[0].array) == 25
    with pytest.raises(ScanError) as caught:
        rtstruct_mask(path, GRID, "heart")
    assert (name in str(caught.value)) == (declared != "ISO_IR 100")


def test_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    """A name that is given exactly is taken, although its brackets would be a pattern; so is one among its fellows."""
    path = write_rtstruct(tmp_path / "rs.dcm", {"GTV [PET]": [square(4.5, 9.5)], "GTV [CT]": [square(1, 9)],
                                                "GTV": [square(1, 3)]})
    assert np.count_nonzero(rtstruct_mask(path, GRID, "gtv [pet]")[0].array) == 25
    assert np.count_nonzero(rtstruct_mask(path, GRID, "GTV")[0].array) == 4


@pytest.mark.parametrize(("name", "visible"), [
    ("GTVp 1", True), ("Spinal cord", True), ("GTV_PET-left", True), ("Doe", False), ("GTV John", False),
    ("JOHN DOE", False), ("GTV 004711", False), ("Person", False), ("ln level II", True)])
def test_which_names_are_shown(tmp_path: Path, name: str, visible: bool) -> None:
    """A structure's name is repeated if it is made of words of anatomy and planning alone."""
    path = write_rtstruct(tmp_path / "rs.dcm", {name: [square(4.5, 9.5)], "Cord": [square(1, 9)]})
    with pytest.raises(ScanError) as caught:
        rtstruct_mask(path, GRID, "heart")
    assert (name in str(caught.value)) == visible


# --- contours of a patient -------------------------------------------------------------------------------------------


def write_patient(folder: Path) -> list[Path]:
    series.write_pet(folder / "PET", 12)
    return series.write_ct(folder / "CT", 12)


def test_contours_are_found_and_filled(tmp_path: Path) -> None:
    """A patient's RTSTRUCT on the CT gives the mask on the CT's grid; its series says which image it belongs to."""
    write_patient(tmp_path)
    write_rtstruct(tmp_path / "RS" / "rs.dcm", {"GTV": [square(-20, -10, z=-200 + 3.0 * k) for k in range(3, 7)]})
    scan = read_scan(discover(tmp_path)[0])
    assert scan.mask is not None and scan.mask.same_grid(scan.ct)
    assert set(np.flatnonzero(scan.mask.array.any(axis=(1, 2)))) == {3, 4, 5, 6}
    assert scan.audit["mask"]["source"] == "RTSTRUCT"


def test_seg_is_found_and_read(tmp_path: Path) -> None:
    """A patient's SEG gives the mask on the CT's grid."""
    ct = write_patient(tmp_path)
    write_seg(tmp_path / "SEG" / "seg.dcm", ct, {"tumour": blob((12, 9, 7))})
    scan = read_scan(discover(tmp_path)[0])
    np.testing.assert_array_equal(scan.mask.array, blob((12, 9, 7)))
    assert scan.audit["mask"]["source"] == "SEG"


def test_contours_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """Of two structure sets on one CT none is taken, with W-MASKCHOICE.

    Contours drawn on another image in the same frame are taken, with W-MASKSERIES; those of other frames W-MASKOTHER.
    """
    write_patient(tmp_path / "1")
    for name in ("a", "b"):
        write_rtstruct(tmp_path / "1" / f"{name}.dcm", {"GTV": [square(-20, -10, z=-190.0)]})
    (two,) = discover(tmp_path / "1")
    assert two.mask is None and "W-MASKCHOICE" in {p.code for p in two.problems}
    write_patient(tmp_path / "2")
    write_rtstruct(tmp_path / "2" / "c.dcm", {"GTV": [square(-20, -10, z=-190.0)]}, refers_to="9.9.9")
    (near,) = discover(tmp_path / "2")
    assert near.mask is not None and "W-MASKSERIES" in {p.code for p in near.problems}
    write_rtstruct(tmp_path / "2" / "c.dcm", {"GTV": [square(-20, -10, z=-190.0)]}, refers_to="9.9.9", frame="9.9.8")
    (other,) = discover(tmp_path / "2")
    assert other.mask is None and "W-MASKOTHER" in {p.code for p in other.problems}


def test_contours_of_another_frame_of_reference(tmp_path: Path) -> None:
    """Contours given for images of another frame of reference are W-MASKFRAME."""
    write_patient(tmp_path)
    path = write_rtstruct(tmp_path / "rs" / "rs.dcm", {"GTV": [square(-20, -10, z=-191.0)]}, frame="1.2.3.10")
    scan = read_scan(given_files("x", tmp_path / "PET", tmp_path / "CT", path))
    assert "W-MASKFRAME" in {p.code for p in scan.problems}


def test_wrong_name_is_found_by_the_header_check(tmp_path: Path) -> None:
    """A structure name that matches nothing is found before anything is computed."""
    write_patient(tmp_path)
    write_rtstruct(tmp_path / "rs.dcm", {"GTV": [square(-20, -10, z=-190.0)]})
    (scan,) = discover(tmp_path, mask_pattern="tumor*")
    assert "E-ROINAME" in {p.code for p in inspect_scan(scan)}
