"""The region contains the tumour, and says when it is unsure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtdlr.imaging import grid, nifti
from mtdlr.imaging.locate import SURE, locate_by_template, locate_head
from mtdlr.synthetic import Disease, SyntheticPatient, make_patient
from mtdlr.volume import Volume

STS = Path(__file__).parents[1].parent / "shared" / "data" / "sts" / "images"
BOX_MM = 128.0  # the smallest network region of any preset


def drawn(seed: int, **arguments) -> SyntheticPatient:
    """A patient with a tumour of 4 to 200 ml, faint to hot, with nodes."""
    rng = np.random.default_rng([seed, 7])
    disease = Disease(volume_ml=float(np.exp(rng.uniform(np.log(4), np.log(200)))), n_stage="N3",
                      invasion_ml=float(rng.uniform(0, 25)), node_ml=float(rng.uniform(0, 60)),
                      uptake_suv=float(rng.uniform(3, 16)))
    return make_patient(disease, seed=seed, **arguments)


def reach_mm(patient: SyntheticPatient, center_mm: tuple[float, float, float]) -> float:
    """How far the primary reaches from a point along its worst axis: at most half the box, or the box cuts it."""
    tumour = patient.true_mask.array | patient.manual_mask.array
    return float(np.abs(patient.true_mask.points_mm(np.argwhere(tumour)) - center_mm).max())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_box_contains_the_tumour(seed):
    """A 128 mm box at the region's middle holds the whole primary, on either scanner, at any voxel size."""
    patient = drawn(seed, center="AB"[seed % 2], voxel_scale=1.0 + 0.5 * (seed % 3))
    region = locate_head(patient.pet, patient.ct)
    assert reach_mm(patient, region.center_mm) < BOX_MM / 2
    assert region.confidence >= SURE
    assert region.problems == ()


@pytest.mark.slow
def test_the_box_contains_the_tumour_in_sixty_patients():
    """Of 60 patients, all primaries lie whole in the 128 mm box, with at least 8 mm to spare."""
    furthest = max(reach_mm(patient, locate_head(patient.pet, patient.ct).center_mm)
                   for patient in (drawn(seed, center="AB"[seed % 2], voxel_scale=2.0) for seed in range(100, 160)))
    assert furthest < BOX_MM / 2 - 8.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 204))
def test_the_box_contains_the_tumour_in_whole_bodies(seed):
    """In a CT of 512 x 512 x 300 and its PET, from vertex to thigh, the PET-guided locator and the template (of a head
    scan) both hold the whole primary in the 128 mm box, and are sure."""
    patient, model = drawn(seed, field="whole_body", center="AB"[seed % 2]), drawn(5, voxel_scale=2.0)
    assert patient.ct.shape == (300, 512, 512)
    center = locate_head(model.pet, model.ct).center_mm
    part = grid.crop(model.ct, grid.corners_mm(grid.cube(center, size=64, spacing_mm=2.0)))
    for region in (locate_head(patient.pet, patient.ct), locate_by_template(patient.ct, part, center, patient.pet)):
        assert reach_mm(patient, region.center_mm) < BOX_MM / 2, region
        assert region.confidence >= SURE


@pytest.mark.slow
def test_a_head_whose_vertex_is_cut_off_is_found():
    """A field of view that ends in the middle of the brain still gives the region to 10 mm."""
    patient = drawn(4, center="A", voxel_scale=1.5)
    whole = locate_head(patient.pet, patient.ct)
    top = whole.center_mm[2] + 75.0
    pet, ct = (cut_above(volume, top) for volume in (patient.pet, patient.ct))
    region = locate_head(pet, ct)
    assert region.confidence >= SURE
    assert np.abs(np.array(region.center_mm) - whole.center_mm).max() < 10.0


def cut_above(volume: Volume, top_mm: float) -> Volume:
    """The slices below a height."""
    points = grid.corners_mm(volume)
    points[:, 2] = np.minimum(points[:, 2], top_mm)
    part = grid.crop(volume, points)
    assert part is not None
    return part


def test_a_cold_brain_makes_the_region_unsure():
    """A skull without the brain's uptake (high blood glucose, or another tracer) is used, but not trusted."""
    patient = drawn(1, voxel_scale=1.5)
    dim = patient.pet.with_array(np.minimum(patient.pet.array, 1.0))
    region = locate_head(dim, patient.ct)
    assert region.confidence < SURE
    assert [problem.code for problem in region.problems] == ["W-ROI"]


def test_without_a_head_the_middle_of_the_pet_is_used_and_said():
    """The neck and shoulders alone give the PET's middle and W-ROI."""
    patient = drawn(2, voxel_scale=1.5)
    below = locate_head(patient.pet, patient.ct).center_mm[2] - 40.0
    pet, ct = cut_above(patient.pet, below), cut_above(patient.ct, below)
    region = locate_head(pet, ct)
    assert region.center_mm == pet.center_mm
    assert region.confidence == 0.0
    assert region.problems[0].code == "W-ROI"
    assert "box_center_mm" in str(region.problems[0])


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (1, 2)])
def test_a_wrong_patient_position_makes_the_region_unsure(axes: tuple[int, ...]) -> None:
    """A head that stands upside down, or looks backwards, as after a wrong patient position, is W-ROI."""
    patient = drawn(2, center="A", voxel_scale=2.0)
    pet, ct = (v.with_array(np.flip(v.array, axes)) for v in (patient.pet, patient.ct))
    region = locate_head(pet, ct)
    assert region.confidence < SURE and [p.code for p in region.problems] == ["W-ROI"]


@pytest.mark.parametrize("hu", [-1000.0, 40.0, 900.0])
def test_featureless_images_are_no_head(hu):
    """All air, all tissue or all bone: the PET's middle."""
    volume = Volume.on_grid(np.full((20, 20, 20), hu), (5.0,) * 3)
    assert locate_head(volume.with_array(np.ones((20, 20, 20))), volume).how == "middle of the PET"


@pytest.mark.slow
def test_a_template_finds_the_same_place_in_another_patient():
    """The region of one patient is found in another of different size and pose to 20 mm, and is trusted."""
    model, patient = drawn(5, voxel_scale=2.0), drawn(6, center="B", voxel_scale=2.0)
    center = locate_head(model.pet, model.ct).center_mm
    part = grid.crop(model.ct, grid.corners_mm(grid.cube(center, size=64, spacing_mm=2.0)))
    region = locate_by_template(patient.ct, part, center, patient.pet)
    assert region.confidence >= SURE
    assert np.abs(np.array(region.center_mm) - locate_head(patient.pet, patient.ct).center_mm).max() < 20.0


def test_a_template_finds_itself_exactly_where_it_was_moved():
    """A patient shifted by whole voxels is found by the same shift, to a quarter voxel."""
    model = drawn(5, voxel_scale=2.0)
    center = (2.0, 1.0, -3.0)
    part = grid.crop(model.ct, grid.corners_mm(grid.cube(center, size=60, spacing_mm=2.0)))
    transform = np.eye(4)
    transform[:3, 3] = (30.0, -18.0, 42.0)
    region = locate_by_template(grid.moved(model.ct, transform), part, center, model.pet)
    np.testing.assert_allclose(region.center_mm, np.array(center) + np.array([30.0, -18.0, 42.0]), atol=4.0)


def test_a_template_that_fits_nothing_is_not_trusted():
    """Noise is not taken for the template's head."""
    model = drawn(5, voxel_scale=2.0)
    part = grid.crop(model.ct, grid.corners_mm(grid.cube((0.0, 0.0, 0.0), size=60, spacing_mm=2.0)))
    noise = np.random.default_rng(0).normal(0.0, 300.0, size=(40, 40, 40))
    ct = Volume.on_grid(noise, (6.0,) * 3)
    region = locate_by_template(ct, part, (0.0, 0.0, 0.0), ct)
    assert region.confidence < SURE
    assert region.problems[0].code == "W-ROI"


@pytest.mark.slow
@pytest.mark.skipif(not STS.is_dir(), reason="the soft-tissue-sarcoma patients are not beside the project")
def test_limbs_are_not_taken_for_heads():
    """All 36 real limb scans give the PET's middle and W-ROI."""
    for folder in sorted(STS.iterdir()):
        pet, ct = (nifti.read(folder / f"{kind}_image.nii.gz")[0] for kind in ("PET", "CT"))
        region = locate_head(pet, ct)
        assert region.center_mm == pet.center_mm, folder.name
        assert region.problems[0].code == "W-ROI"


def with_margin(volume: Volume, mm: float, *, below_mm: float) -> Volume:
    """The volume with so much more air at either side, before and behind, and so much less below."""
    steps = [round(mm / step) for step in volume.spacing_mm]
    less = round(below_mm / volume.spacing_mm[0])
    array = np.pad(volume.array[less:], ((0, 0), (steps[1],) * 2, (steps[2],) * 2),
                   constant_values=volume.array.dtype.type(volume.array.min()))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.points_mm([less, -steps[1], -steps[2]])
    return Volume(array, affine)


@pytest.mark.slow
def test_the_field_of_view_does_not_move_the_region():
    """15 mm more of air around a head and 15 mm less of its shoulders give the region of the scan as it was, by either
    way of finding it: network and prediction see the same voxels."""
    patient = drawn(3, center="A", voxel_scale=2.0)
    pet, ct = (with_margin(volume, 15.0, below_mm=15.0) for volume in (patient.pet, patient.ct))
    before, after = locate_head(patient.pet, patient.ct), locate_head(pet, ct)
    assert before.how == after.how == "below the brain"
    np.testing.assert_allclose(after.center_mm, before.center_mm, atol=0.5)
    part = grid.crop(patient.ct, grid.corners_mm(grid.cube(before.center_mm, size=60, spacing_mm=2.0)))
    ways = [locate_by_template(image, part, before.center_mm, patient.pet).center_mm for image in (patient.ct, ct)]
    np.testing.assert_allclose(*ways, atol=0.5)
