"""A synthetic patient looks like a head PET/CT and carries exactly the disease it was given."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_erosion, label
from scipy.stats import spearmanr

from mtdlr.synthetic import Disease, SyntheticPatient, make_patient
from mtdlr.synthetic.layout import Layout
from mtdlr.synthetic.patient import SCANNERS
from mtdlr.synthetic.study import patient_of, simulate_study
from mtdlr.volume import Volume


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _ml(mask: Volume) -> float:
    return float(mask.array.sum()) * mask.voxel_ml


def _pet_on_ct(patient: SyntheticPatient) -> NDArray[np.float32]:
    step = np.array(patient.ct.spacing_mm) / patient.pet.spacing_mm
    first = patient.pet.indices(patient.ct.points_mm((0, 0, 0)))
    return affine_transform(patient.pet.array, step, first, patient.ct.shape, order=1, mode="nearest")


def _brain_noise(patient: SyntheticPatient) -> float:
    """Median step in HU between neighbours in the upper brain."""
    plane = patient.ct.array[int(0.8 * patient.ct.shape[0])].astype(float)
    brain = (plane > -50) & (plane < 130)
    return float(np.median(np.abs(np.diff(plane, axis=1))[brain[:, 1:] & brain[:, :-1]]))


def _interior(patient: SyntheticPatient) -> NDArray[np.bool_]:
    """The manual mask without its rim, which the PET blurs, unless nothing is left."""
    eroded = binary_erosion(patient.manual_mask.array)
    return eroded if eroded.sum() >= 20 else patient.manual_mask.array


@pytest.fixture(scope="module")
def cohort() -> list[SyntheticPatient]:
    """Thirty patients of both centres at 1.5 times the demo's voxels."""
    clinical, truth = simulate_study(n_training=20, n_internal=0, n_external=10, seed=6)
    rows = zip(clinical.to_dict("records"), truth.to_dict("records"), strict=True)
    return [patient_of(row, hidden, voxel_scale=1.5) for row, hidden in rows]  # type: ignore[arg-type]


@pytest.mark.slow
def test_volumes_are_the_wanted_ones(cohort: list[SyntheticPatient]) -> None:
    """Primary, extension and nodes have the volumes of the truth table, to the voxel."""
    for patient in cohort:
        voxel = patient.ct.voxel_ml
        assert _ml(patient.true_mask) == pytest.approx(patient.truth["volume_ml"], abs=voxel)
        assert _ml(patient.invasion_mask) == pytest.approx(patient.truth["invasion_ml"], abs=voxel)
        assert _ml(patient.node_mask) == pytest.approx(patient.truth["node_ml"], abs=4 * voxel)


@pytest.mark.slow
def test_manual_mask_has_an_observers_error(cohort: list[SyntheticPatient]) -> None:
    """Dice of the manual with the true mask lies between .75 and .95 and varies between patients."""
    dice = [_dice(p.true_mask.array, p.manual_mask.array) for p in cohort]
    assert min(dice) >= 0.75
    assert max(dice) <= 0.95
    assert np.std(dice) > 0.01


@pytest.mark.slow
def test_invasion_and_nodes_lie_outside_the_masks(cohort: list[SyntheticPatient]) -> None:
    """What the mask cannot show is outside it: no voxel of extension or nodes is in either mask."""
    for patient in cohort:
        outside = patient.invasion_mask.array | patient.node_mask.array
        assert not (outside & (patient.manual_mask.array | patient.true_mask.array)).any()
        assert not (patient.invasion_mask.array & patient.node_mask.array).any()


@pytest.mark.slow
def test_invasion_touches_the_primary(cohort: list[SyntheticPatient]) -> None:
    """The extension grows out of the primary: together they are one piece."""
    for patient in cohort:
        pieces, _ = label(patient.true_mask.array | patient.invasion_mask.array, np.ones((3, 3, 3)))
        share = np.bincount(pieces[patient.invasion_mask.array]).max() / patient.invasion_mask.array.sum()
        assert share > 0.9


@pytest.mark.slow
def test_nodes_follow_the_n_stage(cohort: list[SyntheticPatient]) -> None:
    """N0 has no nodes, N1 nodes on one side, N2 on both, N3 more than N1 on average."""
    sides = {stage: [] for stage in ("N0", "N1", "N2", "N3")}  # type: dict[str, list[int]]
    for patient in cohort:
        x = patient.ct.points_mm(np.argwhere(patient.node_mask.array))[:, 0]
        middle = patient.ct.points_mm(np.argwhere(patient.true_mask.array))[:, 0].mean()
        sides[patient.truth["n_stage"]].append(len(set(np.sign(x[np.abs(x - middle) > 20] - middle))))
    assert set(sides["N0"]) <= {0}
    assert set(sides["N1"]) == {1}
    assert set(sides["N2"]) == {2}


@pytest.mark.slow
def test_pet_and_ct_lie_on_different_grids(cohort: list[SyntheticPatient]) -> None:
    """PET and CT differ in voxel size and origin; masks share the CT's grid; the tumour lies inside the PET."""
    for patient in cohort:
        assert patient.pet.spacing_mm != patient.ct.spacing_mm
        assert patient.ct.same_grid(patient.manual_mask)
        assert patient.ct.same_grid(patient.node_mask)
        disease = np.argwhere(patient.true_mask.array | patient.node_mask.array)
        where = patient.pet.indices(patient.ct.points_mm(disease))
        assert (where > 0).all()
        assert (where < np.array(patient.pet.shape) - 1).all()


@pytest.mark.slow
def test_head_position_and_size_vary(cohort: list[SyntheticPatient]) -> None:
    """The tumour's place in the scanner and the head's width differ from patient to patient by centimetres."""
    centers = [p.ct.points_mm(np.argwhere(p.true_mask.array)).mean(axis=0) for p in cohort]
    widths = [np.ptp(np.flatnonzero((p.ct.array > 300).any(axis=(0, 1)))) * p.ct.spacing_mm[2] for p in cohort]
    assert (np.ptp(centers, axis=0) > 10).all()
    assert np.ptp(widths) > 10


def test_it_reads_as_a_head() -> None:
    """CT has air, fat, soft tissue and bone; the brain takes up most of the tracer outside the tumour."""
    patient = make_patient(Disease(volume_ml=5, node_ml=0, n_stage="N0"), seed=2)
    hu, suv = patient.ct.array, _pet_on_ct(patient)
    body = hu > -300
    assert 0.15 < body.mean() < 0.6
    for low, high, least in ((-150, -60, 0.05), (20, 90, 0.3), (500, 3000, 0.05)):
        assert ((hu > low) & (hu < high)).sum() / body.sum() > least
    top = np.arange(hu.shape[0])[:, None, None] > 0.7 * hu.shape[0]
    assert np.median(suv[top & (hu > 10) & (hu < 60)]) > 3
    assert np.median(suv[~top & (hu > 10) & (hu < 90)]) < 1.5
    assert suv[hu < -900].mean() < 0.3


def test_centres_differ() -> None:
    """Centre B has other voxels, a blurrier and noisier PET, a noisier CT and a higher uptake scale than A."""
    a, b = SCANNERS["A"], SCANNERS["B"]
    assert a.ct_spacing_mm != b.ct_spacing_mm
    assert a.pet_spacing_mm != b.pet_spacing_mm
    one, two = (make_patient(center=center, seed=1) for center in "AB")
    noise = [_brain_noise(patient) for patient in (one, two)]
    assert noise[1] > 1.2 * noise[0]
    assert np.percentile(two.pet.array, 97) > 1.05 * np.percentile(one.pet.array, 97)


def test_same_seed_same_voxels() -> None:
    """The same arguments give the same voxels; another seed another head."""
    one, two, three = (make_patient(voxel_scale=2, seed=s) for s in (3, 3, 4))
    for name in ("pet", "ct", "true_mask", "manual_mask", "invasion_mask", "node_mask"):
        assert (getattr(one, name).array == getattr(two, name).array).all()
        assert (getattr(one, name).affine == getattr(two, name).affine).all()
    assert not (one.ct.array == three.ct.array).all()


def test_twins_differ_only_where_their_disease_does() -> None:
    """Two patients of one seed who differ in the extension alone differ next to it and nowhere else."""
    small, large = (make_patient(Disease(invasion_ml=ml), seed=5) for ml in (1.0, 15.0))
    assert (small.true_mask.array == large.true_mask.array).all()
    assert (small.node_mask.array == large.node_mask.array).all()
    changed = small.ct.array != large.ct.array
    far = np.linalg.norm(small.ct.points_mm(np.argwhere(changed))
                         - small.ct.points_mm(np.argwhere(large.invasion_mask.array)).mean(axis=0), axis=1)
    assert changed.any()
    assert far.max() < 40


@pytest.mark.slow
def test_invasion_is_visible_on_pet_and_ct() -> None:
    """A larger extension raises the uptake, and erodes bone or fills fat and air, in the voxels it takes."""
    visible = []
    for seed in range(5):
        small, large = (make_patient(Disease(invasion_ml=ml), voxel_scale=1.5, seed=seed) for ml in (0.6, 15.0))
        grown = large.invasion_mask.array & ~small.invasion_mask.array
        visible.append(_pet_on_ct(large)[grown].mean() / _pet_on_ct(small)[grown].mean())
        assert np.abs(large.ct.array.astype(float) - small.ct.array)[grown].mean() > 15
    assert min(visible) > 1.3


@pytest.mark.slow
def test_heterogeneity_is_visible_inside_the_mask(cohort: list[SyntheticPatient]) -> None:
    """Within the manual mask the coefficient of variation of SUV follows the latent heterogeneity."""
    suv = [_pet_on_ct(p)[_interior(p)] for p in cohort]
    variation = [values.std() / values.mean() for values in suv]
    assert spearmanr(variation, [p.truth["heterogeneity_latent"] for p in cohort]).statistic > 0.7


@pytest.mark.slow
def test_heterogeneity_does_not_move_the_mean() -> None:
    """Texture and necrosis change the spread of the uptake in the primary, not its level or its shape."""
    calm, wild = (make_patient(Disease(volume_ml=60, heterogeneity=h), seed=9) for h in (-2.0, 2.0))
    assert (calm.true_mask.array == wild.true_mask.array).all()
    inside = calm.true_mask.array
    a, b = _pet_on_ct(calm)[inside], _pet_on_ct(wild)[inside]
    assert b.mean() == pytest.approx(a.mean(), rel=0.1)
    assert b.std() > 2 * a.std()


@pytest.mark.slow
def test_nodes_are_visible_outside_the_mask(cohort: list[SyntheticPatient]) -> None:
    """Uptake in the neck below and outside the manual mask follows the nodal volume."""
    found = []
    for patient in cohort:
        lowest = patient.ct.points_mm(np.argwhere(patient.manual_mask.array))[:, 2].min()
        z = patient.pet.affine[2, 3] + patient.pet.spacing_mm[0] * np.arange(patient.pet.shape[0])
        scale = SCANNERS[patient.row["center"]].uptake_scale
        found.append((patient.pet.array[z < lowest - 8] > 2.6 * scale).sum() * patient.pet.voxel_ml)
    assert spearmanr(found, [p.truth["node_ml"] for p in cohort]).statistic > 0.7


def test_disease_without_nodes() -> None:
    """N0 leaves the node mask empty, whatever the node volume says."""
    patient = make_patient(replace(Disease(), n_stage="N0"), voxel_scale=3, seed=1)
    assert not patient.node_mask.array.any()


@pytest.mark.parametrize("volume_ml", [3.0, 200.0])
def test_extreme_tumours(volume_ml: float) -> None:
    """The smallest and the largest tumour are in one piece and of the wanted volume."""
    patient = make_patient(Disease(volume_ml=volume_ml), seed=7)
    assert _ml(patient.true_mask) == pytest.approx(volume_ml, rel=0.01)
    assert label(patient.true_mask.array, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.slow
def test_whole_body() -> None:
    """The whole-body field has clinical sizes, uptake in heart, liver and bladder, and the tumour in the head."""
    patient = make_patient(Disease(volume_ml=30), field="whole_body", seed=5)
    assert patient.ct.shape == (300, 512, 512)
    assert patient.pet.shape == (300, 200, 200)
    assert _ml(patient.true_mask) == pytest.approx(30, rel=0.05)
    peaks = patient.pet.array.max(axis=(1, 2))
    tumour_z = patient.pet.indices(patient.ct.points_mm(np.argwhere(patient.true_mask.array)))[:, 0].mean()
    assert tumour_z > 0.8 * 300
    assert peaks.argmax() < 0.4 * 300
    assert patient.pet.array[:, 0].max() < 0.5


PLAIN = Layout(side=1, height_mm=0.0, breakout=0, breakout_side=1, pattern=0, elongation=0.0, flatness=0.0,
               lobulation=0.0, reach=0.0, slope=0.0, rim=0.0, node_uptake=0.0, marrow=0.0)


def _drawn(**changes: float) -> SyntheticPatient:
    """One patient in coarse voxels whose layout differs from the plain one in the given fields."""
    return make_patient(Disease(layout=replace(PLAIN, **changes)), voxel_scale=2, seed=4)  # type: ignore[arg-type]


def test_the_layout_is_drawn() -> None:
    """Side, height, elongation, slope, node uptake and marrow of the layout show in the scans; nothing else moves."""
    plain, high, long = _drawn(), _drawn(height_mm=10.0), _drawn(elongation=2.0)
    middle = [p.true_mask.points_mm(np.argwhere(p.true_mask.array)) for p in (plain, high, long)]
    assert middle[0][:, 0].mean() > _drawn(side=-1).true_mask.points_mm(
        np.argwhere(_drawn(side=-1).true_mask.array))[:, 0].mean() + 8
    assert middle[1][:, 2].mean() - middle[0][:, 2].mean() == pytest.approx(10, abs=2.5)
    assert middle[2][:, 2].std() > 1.25 * middle[0][:, 2].std()
    assert _ml(long.true_mask) == pytest.approx(_ml(plain.true_mask), rel=0.05)
    for field, mask in (("node_uptake", plain.node_mask), ("marrow", None)):
        ratio = _drawn(**{field: 2.0}).pet.array / np.maximum(plain.pet.array, 0.3)
        where = plain.pet.indices(mask.points_mm(np.argwhere(mask.array))) if mask else None
        hot = ratio[tuple(np.rint(where).astype(int).T)].mean() if where is not None else ratio.max()
        assert hot > 1.2
