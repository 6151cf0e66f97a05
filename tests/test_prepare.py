"""From a scan to a prepared patient: the same whatever the storage order, nothing corrected in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from mtdlr.errors import Problem, ScanError, StudyError
from mtdlr.imaging import grid, nifti
from mtdlr.imaging.layout import discover
from mtdlr.imaging.reading import Scan
from mtdlr.prepare import Prepared, prepare, read_patient
from mtdlr.prepared import load_mean_image, save_mean_image
from mtdlr.study import PrepareSettings, Study
from mtdlr.synthetic import SyntheticPatient, make_patient
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.volume import Volume

STS = Path(__file__).parents[1].parent / "shared" / "data" / "sts" / "images"
SMALL = {"size": 48, "spacing_mm": 4.0}


@pytest.fixture(scope="module")
def patient() -> SyntheticPatient:
    return make_patient(center="B", voxel_scale=1.5, seed=8)


def scan_of(patient: SyntheticPatient, **changed: Volume | None) -> Scan:
    volumes = {"pet": patient.pet, "ct": patient.ct, "mask": patient.manual_mask} | changed
    return Scan(patient.patient_id, **volumes, audit={}, problems=())


def made(scan: Scan, **settings) -> Prepared:
    return prepare(scan, PrepareSettings(**(SMALL | {"alignment": "off"} | settings)), patient_id="P1")


def codes(prepared: Prepared) -> list[str]:
    return [problem.code for problem in prepared.problems]


def shifted(volume: Volume, x: float, y: float, z: float) -> Volume:
    transform = np.eye(4)
    transform[:3, 3] = (x, y, z)
    return grid.moved(volume, transform)


def stored_otherwise(volume: Volume, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same voxels in the same places, with array axes in another order and direction."""
    steps = np.zeros((4, 4))
    steps[3, 3] = 1.0
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        steps[old, new] = sign
        steps[old, 3] = volume.shape[old] - 1 if sign < 0 else 0
    array = volume.array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return Volume(np.ascontiguousarray(array), volume.affine @ steps)


# ---------------------------------------------------------------- the network's view


def test_a_prepared_patient_holds_what_networks_and_radiomics_need(patient):
    """Image, mask and grid have the settings' size; native voxels keep their own grid and intensities."""
    prepared = made(scan_of(patient))
    assert prepared.id == "P1"
    assert prepared.image.shape == (2, 48, 48, 48)
    assert prepared.image.dtype == np.float32
    assert prepared.mask.shape == (48, 48, 48)
    assert prepared.mask.dtype == bool
    np.testing.assert_allclose(prepared.affine[:3, :3], np.eye(3)[::-1] * 4.0)
    assert prepared.ct_hu.array.dtype == np.int16
    np.testing.assert_allclose(prepared.ct_hu.spacing_mm, patient.ct.spacing_mm)
    np.testing.assert_allclose(prepared.pet_suv.spacing_mm, patient.pet.spacing_mm)
    assert grid.mask_volume_ml(prepared.manual_mask) == grid.mask_volume_ml(patient.manual_mask)
    on_network = prepared.region.with_array(prepared.mask)
    assert grid.mask_volume_ml(on_network) == pytest.approx(grid.mask_volume_ml(patient.manual_mask), rel=0.05)


def test_every_voxel_shows_its_place_in_the_patient(patient):
    """The tumour is where the image says: uptake under the network mask equals uptake under the native one."""
    prepared = made(scan_of(patient))
    seen = prepared.image[0][prepared.mask].mean() * 25.0
    true = patient.pet.array[grid.mask_onto(patient.manual_mask, patient.pet).array].mean()
    assert seen == pytest.approx(true, rel=0.12)  # peaks of 7 mm voxels lose a little between them


def test_intensities_follow_the_settings(patient):
    """CT lies in [-1, 1], PET is SUV over the clip, or has mean 0 and SD 1."""
    clipped = made(scan_of(patient), pet_clip_suv=10.0, ct_window_hu=(-200.0, 200.0))
    pet, ct = clipped.image
    assert pet.min() >= 0.0
    assert pet.max() == pytest.approx(1.0)  # the brain's SUV exceeds 10
    assert ct.min() == -1.0
    assert ct.max() == 1.0
    scored = made(scan_of(patient), pet_scaling="zscore")
    assert scored.image[0].mean() == pytest.approx(0.0, abs=1e-5)
    assert scored.image[0].std() == pytest.approx(1.0, abs=1e-4)


def test_outside_the_scan_is_air_without_uptake(patient):
    """Where neither scan reaches, CT is -1 and PET is 0."""
    prepared = made(scan_of(patient), size=96, spacing_mm=6.0)
    corner = prepared.image[:, :4, :4, :4]
    assert (corner[0] == 0.0).all()
    assert (corner[1] == -1.0).all()
    assert prepared.facts["roi_without_ct"] > 0.5


ORDERS = [
    (((0, 1, 2), (1, 1, -1)), ((0, 1, 2), (1, 1, -1))),  # left and right stored the other way round
    (((0, 1, 2), (1, -1, -1)), ((0, 1, 2), (1, -1, -1))),  # RAS instead of LPS
    (((2, 1, 0), (1, 1, 1)), ((0, 1, 2), (1, 1, 1))),  # PET stored x first
    (((1, 2, 0), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1))),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pet_as", "ct_as", "alignment"), [*((*order, "off") for order in ORDERS), (*ORDERS[3], "auto")])
def test_storage_order_changes_nothing(patient, pet_as, ct_as, alignment):
    """Flipped, RAS and permuted copies of a scan give the same image, mask and facts to 1e-6, alignment included."""
    whole = scan_of(patient, pet=shifted(patient.pet, 4.0, 7.0, -8.0))
    copy = Scan("", stored_otherwise(whole.pet, *pet_as), stored_otherwise(whole.ct, *ct_as),
                stored_otherwise(whole.mask, *ct_as), {}, ())
    one, other = made(whole, alignment=alignment), made(copy, alignment=alignment)
    np.testing.assert_allclose(other.image, one.image, atol=1e-6)
    np.testing.assert_array_equal(other.mask, one.mask)
    assert other.pet_suv.same_grid(one.pet_suv, 1e-6)
    assert other.ct_hu.same_grid(one.ct_hu, 1e-6)
    assert codes(other) == codes(one)
    assert {k: v for k, v in other.facts.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in one.facts.items() if isinstance(v, float)}, abs=1e-6)


@pytest.mark.slow
def test_thick_slices_are_ordinary(patient):
    """Slices of 5 mm cost little: the image differs from that of 2.5 mm slices by the blur, not by position."""
    def thick(volume: Volume) -> Volume:
        step = np.diag([5.0 / volume.spacing_mm[0], 1.0, 1.0, 1.0])
        count = int(volume.shape[0] * volume.spacing_mm[0] // 5.0)
        return grid.resample(volume, grid.grid((count, *volume.shape[1:]), volume.affine @ step), outside=-1000.0)

    fine, coarse = made(scan_of(patient)), made(scan_of(patient, ct=thick(patient.ct)))
    body = fine.image[1] > -0.9
    assert np.corrcoef(fine.image[1][body], coarse.image[1][body])[0, 1] > 0.97
    assert np.abs(np.array(coarse.region.center_mm) - fine.region.center_mm).max() < 4.0


# ---------------------------------------------------------------- where the network looks


@pytest.mark.parametrize("roi", ["auto", "center", "mask", "box"])
def test_each_region_contains_the_tumour(patient, roi):
    """Found, middle of a head scan, middle of the mask, and given by hand: all hold the whole mask."""
    prepared = made(scan_of(patient), roi=roi, box_center_mm=(0.0, 0.0, 0.0))
    assert prepared.facts["mask_in_roi"] == 1.0
    assert not any(code.startswith("W-MASK") for code in codes(prepared))


@pytest.mark.slow
def test_a_template_is_a_prepared_patient(patient, tmp_path):
    """The region of one prepared patient is found again in another."""
    made(scan_of(patient), roi="mask").save(tmp_path)
    other = make_patient(center="A", voxel_scale=1.5, seed=3)
    prepared = made(scan_of(other), roi="template", template=tmp_path)
    assert prepared.facts["roi_how"] == "by the template"
    assert prepared.facts["mask_in_roi"] == 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"roi": "box"}, "box_center_mm"), ({"roi": "template"}, "template"), ({"ct_window_hu": (100.0, 100.0)}, "low")],
)
def test_settings_that_lack_their_other_half_are_refused(wrong, words):
    """A region by hand needs its point, a template its folder, a window its width."""
    with pytest.raises(StudyError, match=words):
        Study.of({"prepare": wrong})


def test_pet_and_ct_apart_are_an_error(patient):
    """E-NOOVERLAP names both places and the patient."""
    with pytest.raises(ScanError, match=r"E-NOOVERLAP patient P1: .*one frame of reference") as error:
        made(scan_of(patient, ct=shifted(patient.ct, 800.0, 0.0, 0.0)))
    assert error.value.code == "E-NOOVERLAP"


def test_a_region_outside_the_scan_is_an_error(patient):
    """E-ROIOUTSIDE for a box given far away, and for a PET that ends above the region (a brain-only field of view)."""
    with pytest.raises(ScanError, match="E-ROIOUTSIDE"):
        made(scan_of(patient), roi="box", box_center_mm=(0.0, 0.0, 900.0))
    points = grid.corners_mm(patient.pet)
    points[:, 2] = np.maximum(points[:, 2], 30.0)
    with pytest.raises(ScanError, match=r"E-ROIOUTSIDE .*outside the PET"):
        made(scan_of(patient, pet=grid.crop(patient.pet, points)))


@pytest.mark.slow
def test_the_middle_of_a_tall_scan_without_its_head_is_an_error(patient):
    """E-HEAD when roi = "center" would leave the head out of the region."""
    tall = np.zeros((patient.pet.shape[0] + 150, *patient.pet.shape[1:]), np.float32)
    tall[150:] = patient.pet.array
    pet = shifted(patient.pet.__class__(tall, patient.pet.affine), 0, 0, -150 * patient.pet.spacing_mm[0])
    deep = np.full((patient.ct.shape[0] + 200, *patient.ct.shape[1:]), -1000, np.int16)
    deep[200:] = patient.ct.array
    ct = shifted(Volume(deep, patient.ct.affine), 0, 0, -200 * patient.ct.spacing_mm[0])
    with pytest.raises(ScanError, match=r"E-HEAD .*prepare.roi = 'auto'"):
        made(scan_of(patient, pet=pet, ct=ct), roi="center")
    assert made(scan_of(patient, pet=pet, ct=ct), roi="auto").facts["mask_in_roi"] == 1.0


def test_no_head_in_the_field_of_view(patient):
    """E-HEAD where roi = "auto" sees no head; the middle, the mask and a point are taken where they are asked for."""
    pet, ct = (grid.crop(v, [[-300.0, -300.0, -900.0], [300.0, 300.0, patient.ct.center_mm[2] - 60.0]])
               for v in (patient.pet, patient.ct))
    headless = scan_of(patient, pet=pet, ct=ct, mask=None)
    with pytest.raises(ScanError, match=r"E-HEAD .*prepare.roi = 'center'"):
        made(headless, roi="auto")
    assert made(headless, roi="center").facts["roi_how"] == "middle of the PET"


# ---------------------------------------------------------------- the mask


def test_no_mask_is_no_problem(patient):
    """A new patient has none; only roi = "mask" cannot do without."""
    prepared = made(scan_of(patient, mask=None))
    assert prepared.mask is None
    assert prepared.manual_mask is None
    assert codes(prepared) == []
    with pytest.raises(ScanError, match="E-NOMASK"):
        made(scan_of(patient, mask=None), roi="mask")


def test_an_empty_mask_is_no_obstacle(patient):
    """The image is prepared all the same; the reader's warning (W-MASKEMPTY) is carried along, not repeated."""
    empty = patient.manual_mask.with_array(np.zeros(patient.manual_mask.shape, bool))
    read = Scan("", patient.pet, patient.ct, empty, {}, (Problem("W-MASKEMPTY", "the mask is empty"),))
    prepared = made(read)
    assert codes(prepared) == ["W-MASKEMPTY"]
    assert not prepared.mask.any()
    assert "mask_ml" not in prepared.facts


def test_a_mask_cut_by_the_region_or_the_scan_is_said(patient):
    """W-MASKCUT with the share inside, W-MASKEDGE at the scan's border, E-MASKOUTSIDE when nothing is inside."""
    middle = np.array(grid.mask_center_mm(patient.manual_mask))
    beside = tuple((middle + np.array([64.0, 0.0, 0.0])).tolist())
    cut = made(scan_of(patient), roi="box", box_center_mm=beside, size=32, spacing_mm=4.0)
    assert codes(cut) == ["W-MASKCUT"]
    assert 0.1 < cut.facts["mask_in_roi"] < 0.9
    with pytest.raises(ScanError, match="E-MASKOUTSIDE"):
        made(scan_of(patient), roi="box", box_center_mm=(0.0, 60.0, 80.0), size=32, spacing_mm=1.0)
    at_edge = np.zeros(patient.ct.shape, bool)
    at_edge[:6, 40:50, 40:50] = True
    assert "W-MASKEDGE" in codes(made(scan_of(patient, mask=patient.ct.with_array(at_edge)), roi="mask"))


def test_a_mask_on_the_pet_grid_is_used_as_it_is(patient):
    """The native mask stays on the grid it was drawn on."""
    on_pet = grid.mask_onto(patient.manual_mask, patient.pet)
    prepared = made(scan_of(patient, mask=on_pet))
    assert prepared.manual_mask.same_grid(prepared.pet_suv)
    assert prepared.facts["mask_ml"] == pytest.approx(grid.mask_volume_ml(on_pet))


# ---------------------------------------------------------------- alignment


def overlap(prepared: Prepared, truth: NDArray[np.bool_]) -> float:
    """Dice of the network mask with a true one."""
    return float(2 * (prepared.mask & truth).sum() / (prepared.mask.sum() + truth.sum()))


@pytest.mark.slow
def test_a_misaligned_pet_is_reported_and_left_where_it_is(patient):
    """check: W-ALIGN with the distance, and nothing moved; off: not measured."""
    scan = scan_of(patient, pet=shifted(patient.pet, 3.0, -5.0, 9.0))
    check, off = (made(scan, alignment=how) for how in ("check", "off"))
    assert codes(check) == ["W-ALIGN"]
    assert check.facts["misalignment_mm"] == pytest.approx(np.sqrt(115.0), abs=1.0)
    assert codes(off) == []
    np.testing.assert_array_equal(check.image, off.image)


@pytest.mark.slow
def test_a_misaligned_pet_is_brought_back(patient):
    """auto and rigid: W-ALIGNED, less than 1 mm left, and the PET looks as it did before it was displaced."""
    scan = scan_of(patient, pet=shifted(patient.pet, 3.0, -5.0, 9.0))
    right, off = made(scan_of(patient)).image[0], made(scan)
    for corrected in (made(scan, alignment=how) for how in ("auto", "rigid")):
        assert codes(corrected) == ["W-ALIGNED"]
        assert corrected.facts["alignment"] == "rigid"
        assert corrected.facts["alignment_residual_mm"] < 1.0
        assert np.abs(corrected.image[0] - right).mean() < 0.2 * np.abs(off.image[0] - right).mean()
        assert corrected.mask.sum() == off.mask.sum()


@pytest.mark.slow
def test_an_aligned_pet_is_left_alone(patient):
    """auto changes no voxel of a patient whose scans agree."""
    auto = made(scan_of(patient), alignment="auto")
    assert auto.facts["alignment"] == "not needed"
    assert codes(auto) == []
    np.testing.assert_array_equal(auto.image, made(scan_of(patient)).image)


@pytest.mark.slow
def test_a_mask_drawn_on_the_pet_moves_with_it(patient):
    """After correction the mask lies where the tumour is on the CT."""
    on_pet = grid.mask_onto(patient.manual_mask, patient.pet)
    scan = scan_of(patient, pet=shifted(patient.pet, 0.0, 0.0, 12.0), mask=shifted(on_pet, 0.0, 0.0, 12.0))
    truth = made(scan_of(patient, mask=on_pet)).mask
    check, auto = (made(scan, alignment=how) for how in ("check", "auto"))
    assert overlap(check, truth) < 0.75
    assert overlap(auto, truth) > 0.9


@pytest.mark.slow
def test_whole_stacks_are_compared_though_only_the_region_is_measured(patient):
    """Equal stacks 12 mm apart are corrected by exactly that, though both are cut at the region's border."""
    origin = [*patient.ct.affine[:2, 3], patient.pet.affine[2, 3]]
    slices = Volume.on_grid(np.empty((patient.pet.shape[0], *patient.ct.shape[1:]), np.uint8),
                            (patient.pet.spacing_mm[0], *patient.ct.spacing_mm[1:]), origin)
    ct = grid.resample(patient.ct, slices, outside=-1000.0)
    scan = scan_of(patient, pet=shifted(patient.pet, 0.0, 0.0, -12.0), ct=ct, mask=None)
    prepared = made(scan, size=32, spacing_mm=4.0, alignment="auto")
    assert prepared.ct_hu.shape[0] < ct.shape[0]
    assert prepared.facts["alignment"] == "shift"
    assert prepared.facts["misalignment_z_mm"] == pytest.approx(12.0, abs=1e-6)
    assert prepared.pet_suv.center_mm[2] == pytest.approx(prepared.ct_hu.center_mm[2], abs=3.0)


@pytest.mark.slow
def test_images_without_anything_in_common_are_not_moved(patient):
    """W-NOALIGN: asked for always, but the CT explains nothing of this PET."""
    noise = np.random.default_rng(0).random(patient.pet.shape).astype(np.float32)
    prepared = made(scan_of(patient, pet=patient.pet.with_array(noise)), alignment="rigid", roi="box",
                    box_center_mm=(0.0, 0.0, 0.0))
    assert codes(prepared) == ["W-NOALIGN"]
    assert prepared.facts["alignment"] == "not possible"


# ---------------------------------------------------------------- facts and files


@pytest.mark.slow
def test_a_ct_cut_off_beside_the_body_is_said(patient):
    """W-CTFOV when the CT's field of view leaves out part of what PET shows; the airway is no gap."""
    x = np.arange(patient.ct.shape[2])
    outside = np.abs(x - patient.ct.shape[2] / 2) * patient.ct.spacing_mm[2] > 40.0
    narrow = patient.ct.with_array(np.where(outside, np.int16(-1000), patient.ct.array))
    prepared = made(scan_of(patient, ct=narrow), roi="center")
    assert "W-CTFOV" in codes(prepared)
    assert prepared.facts["body_without_ct"] > 0.05
    assert made(scan_of(patient), roi="center").facts["body_without_ct"] < 0.01


@pytest.mark.slow
def test_facts_are_plain_and_complete(patient):
    """Voxel sizes, distances in mm, angles in degrees, uptake and volumes, all of them JSON."""
    facts = made(scan_of(patient), alignment="check").facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["ct_voxel_z_mm"] == patient.ct.spacing_mm[0]
    assert facts["pet_ct_angle_deg"] == 0.0
    assert facts["mask_ml"] == pytest.approx(grid.mask_volume_ml(patient.manual_mask))
    assert facts["suv_max"] == pytest.approx(float(patient.pet.array.max()))
    assert 0.0 < facts["mask_suv_max"] <= facts["suv_max"]
    for name in ("roi_x_mm", "roi_confidence", "misalignment_mm", "misalignment_confidence", "roi_without_pet"):
        assert isinstance(facts[name], float), name


def test_a_turned_ct_is_measured_in_degrees_and_used(patient):
    """An oblique CT grid is resampled in physical space; its angle is a fact."""
    turn = np.eye(4)
    c, s = np.cos(np.radians(8.0)), np.sin(np.radians(8.0))
    turn[:2, :2] = [[c, -s], [s, c]]
    oblique = grid.resample(patient.ct, grid.moved(grid.grid(patient.ct.shape, patient.ct.affine), turn),
                            outside=-1000.0)
    prepared = made(scan_of(patient, ct=oblique, mask=None))
    assert prepared.facts["pet_ct_angle_deg"] == pytest.approx(8.0, abs=0.01)
    body = prepared.image[1] > -0.9
    upright = made(scan_of(patient, mask=None), roi="box", box_center_mm=tuple(prepared.region.center_mm))
    assert np.corrcoef(prepared.image[1][body], upright.image[1][body])[0, 1] > 0.95


def test_what_is_saved_is_loaded_and_mapped(patient, tmp_path):
    """Arrays, affines, facts and problems come back bit for bit; arrays are mapped from disk."""
    scan = scan_of(patient)
    audit = {"pet": {"suv": {"dose_bq": 3e8, "reference_candidates": []}}}
    scan = Scan(scan.patient_id, scan.pet, scan.ct, scan.mask, audit, (Problem("W-TEST", "a doubt", where="PET"),))
    prepared = made(scan)
    prepared.save(tmp_path / "P1")
    loaded = Prepared.load(tmp_path / "P1")
    assert isinstance(loaded.image, np.memmap)
    for name in ("image", "affine", "mask"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(prepared, name))
    for name in ("pet_suv", "ct_hu", "manual_mask"):
        one, other = getattr(loaded, name), getattr(prepared, name)
        np.testing.assert_array_equal(one.array, other.array)
        np.testing.assert_array_equal(one.affine, other.affine)
        assert one.array.dtype == other.array.dtype
    assert loaded.facts == prepared.facts
    assert loaded.problems == prepared.problems == (Problem("W-TEST", "a doubt", where="PET", patients=("P1",)),)
    assert loaded.id == "P1" and loaded.audit == audit


def test_the_mean_image_is_the_mean_of_what_is_saved(patient, tmp_path):
    """Every voxel of every channel, in single precision; one patient's mean is that patient."""
    one = made(scan_of(patient))
    for name, factor in (("a", 1.0), ("b", 3.0)):
        replace(one, image=one.image * np.float32(factor)).save(tmp_path / name)
    for names, factor in ((("a",), 1.0), (("a", "b"), 2.0)):
        save_mean_image([tmp_path / name for name in names], tmp_path)
        np.testing.assert_allclose(load_mean_image(tmp_path), one.image * factor, rtol=1e-6)
    assert load_mean_image(tmp_path).dtype == np.float32


def test_the_whole_pet_is_kept_as_two_projections(patient):
    """The largest values along y and along x of the PET in its place, whatever was cut out around the region."""
    coronal, sagittal = made(scan_of(patient)).projections
    pet = grid.canonical(patient.pet)
    np.testing.assert_array_equal(coronal.array[:, 0], pet.array.max(axis=1))
    np.testing.assert_array_equal(sagittal.array[:, :, 0], pet.array.max(axis=2))
    for flat in (coronal, sagittal):
        np.testing.assert_allclose(flat.center_mm, pet.center_mm, atol=1e-9)


@pytest.mark.slow
def test_frames_of_reference_may_differ_where_they_are_registered(patient, tmp_path):
    """prepare.alignment = "rigid" lets PET and CT of two frames of reference pass, "check" does not."""
    write_dicom_patient(tmp_path / "P1", patient, contour="seg")
    for path in (tmp_path / "P1" / "CT").iterdir():
        ds = dcmread(path)
        ds.FrameOfReferenceUID = "1.2.3"
        ds.save_as(path)
    (scan,) = discover(tmp_path)
    with pytest.raises(ScanError, match="E-FRAME"):
        read_patient(scan, PrepareSettings(alignment="check"))
    assert "W-FRAME" in [p.code for p in read_patient(scan, PrepareSettings(alignment="rigid")).problems]


def test_a_patient_without_mask_saves_none(patient, tmp_path):
    """No mask files are written, and none come back."""
    made(scan_of(patient, mask=None)).save(tmp_path)
    loaded = Prepared.load(tmp_path)
    assert loaded.mask is None
    assert loaded.manual_mask is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ct_hu.npy", "facts.json", "image.npy", "pet_suv.npy", "projection_coronal.npy", "projection_sagittal.npy"]


def test_a_ct_with_fractions_keeps_them(patient):
    """int16 only where nothing is lost."""
    fractional = patient.ct.with_array(patient.ct.array + np.float32(0.25))
    assert made(scan_of(patient, ct=fractional)).ct_hu.array.dtype == np.float32
    whole = patient.ct.with_array(patient.ct.array.astype(np.float32))
    assert made(scan_of(patient, ct=whole)).ct_hu.array.dtype == np.int16


# ---------------------------------------------------------------- real and large


@pytest.mark.slow
def test_a_whole_body_scan_becomes_a_prepared_head():
    """512 x 512 x 300 CT and its PET: the head is found among the other organs, the tumour lies in a 128 mm box."""
    patient = make_patient(field="whole_body", seed=5)
    prepared = made(scan_of(patient), size=128, spacing_mm=1.0, roi="auto")
    assert prepared.facts["roi_confidence"] >= 0.5
    assert prepared.facts["mask_in_roi"] == 1.0
    assert codes(prepared) == []


@pytest.mark.slow
@pytest.mark.skipif(not STS.is_dir(), reason="the soft-tissue-sarcoma patients are not beside the project")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("STS_001", []), ("STS_005", ["W-CTFOV"]), ("STS_009", ["W-MASKEDGE"]), ("STS_019", ["W-ALIGNED"]),
     ("STS_022", ["W-MASKEDGE"]), ("STS_026", ["W-MASKEDGE"]), ("STS_041", []), ("STS_044", ["W-MASKEDGE"])],
)
def test_real_patients_are_prepared_with_their_known_faults_named(name, expected):
    """Truncated CT, cut tumours and the displaced PET of real patients are each said, and nothing else."""
    pet, ct, mask = (nifti.read(STS / name / f"{kind}.nii.gz")[0] for kind in ("PET_image", "CT_image", "PET_mask"))
    prepared = made(Scan(name, pet, ct, mask, {}, ()), roi="mask", alignment="auto", size=128, spacing_mm=3.0)
    named = [code for code in codes(prepared) if code != "W-FIELD"]  # the cube of 384 mm is wider than these cut scans
    assert named == expected
    assert prepared.facts["mask_in_roi"] == 1.0
    if name == "STS_019":
        assert prepared.facts["alignment"] == "shift"
        ct_mask = nifti.read(STS / name / "CT_mask.nii.gz")[0]
        truth = grid.mask_onto(ct_mask, prepared.region).array
        assert overlap(prepared, truth) > 0.8  # 0.64 as read


# ---------------------------------------------------------------- the field of view


def test_scans_that_leave_out_much_of_the_region(patient):
    """W-FIELD where a crop leaves more than a quarter of the network grid without PET or CT, and only there."""
    ends = np.array(patient.ct.center_mm) + np.array([[-40.0, -40.0, -1000.0], [40.0, 40.0, 1000.0]])
    pet, ct = grid.crop(patient.pet, ends), grid.crop(patient.ct, ends)
    cropped = made(scan_of(patient, pet=pet, ct=ct, mask=None), roi="center")
    assert "W-FIELD" in codes(cropped) and cropped.facts["roi_without_pet"] > 0.25
    assert "W-FIELD" not in codes(made(scan_of(patient)))
