"""Grids: resampling in physical space, cropping, orientation, components."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mtdlr.imaging import grid
from mtdlr.volume import Volume

PERMUTED_AND_FLIPPED = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def noise(shape: tuple[int, int, int] = (9, 11, 13), *, seed: int = 0, spacing=(3.0, 1.5, 1.2)) -> Volume:
    return Volume.on_grid(np.random.default_rng(seed).normal(size=shape), spacing, (-20.0, 5.0, 90.0))


def stored_otherwise(volume: Volume, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same voxels in the same places, with array axes in another order and direction."""
    steps = np.zeros((4, 4))
    steps[3, 3] = 1.0
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        steps[old, new] = sign
        steps[old, 3] = volume.shape[old] - 1 if sign < 0 else 0
    array = volume.array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return Volume(array, volume.affine @ steps)


def turned(volume: Volume, rotation_vector_deg: tuple[float, float, float]) -> Volume:
    """The grid turned about its own middle."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector_deg, degrees=True).as_matrix()
    matrix[:3, 3] = np.array(volume.center_mm) - matrix[:3, :3] @ np.array(volume.center_mm)
    return grid.moved(volume, matrix)


def by_simpleitk(volume: Volume, onto: Volume, interpolator: int, outside: float) -> NDArray:
    """The oracle."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array))
    reference = sitk.Image([int(n) for n in onto.shape[::-1]], sitk.sitkFloat64)
    for target, source in ((image, volume), (reference, onto)):
        direction = source.affine[:3, :3] / source.spacing_mm
        target.SetSpacing(source.spacing_mm[::-1])
        target.SetOrigin(source.affine[:3, 3].tolist())
        target.SetDirection(direction[:, ::-1].ravel().tolist())
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), interpolator, outside))


@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (3.0, -7.0, 11.0), (0.0, 0.0, 90.0)])
@pytest.mark.parametrize(("name", "interpolator"), [("linear", sitk.sitkLinear), ("bspline", sitk.sitkBSpline)])
def test_resampling_without_reduction_equals_simpleitk(name, interpolator, rotation):
    """Linear and cubic B-spline values equal SimpleITK's to 1e-8, beyond the edge and on turned grids too."""
    volume = noise()
    onto = turned(grid.cube(volume.center_mm, size=25, spacing_mm=1.17), rotation)
    expected = by_simpleitk(volume, onto, interpolator, -9.0)
    assert (expected == -9.0).any()
    assert (expected != -9.0).any()
    found = grid.resample(volume, onto, interpolation=name, outside=-9.0).array
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (3.0, -7.0, 11.0)])
def test_nearest_equals_simpleitk_and_keeps_the_type(rotation):
    """Nearest values equal SimpleITK's voxel for voxel (no point lies half-way between two), and stay integers."""
    values = np.random.default_rng(1).integers(-1000, 3000, size=(8, 9, 10), dtype=np.int16)
    volume = Volume.on_grid(values, (3.0, 1.5, 1.2), (1.0, 2.0, 3.0))
    onto = turned(grid.cube(np.array(volume.center_mm) + 0.0371, size=20, spacing_mm=1.173), rotation)
    found = grid.resample(volume, onto, interpolation="nearest", outside=-7).array
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, by_simpleitk(volume, onto, sitk.sitkNearestNeighbor, -7))


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
def test_storage_order_does_not_change_what_is_resampled(interpolation):
    """All 48 permuted and flipped copies of a volume give the same resampled voxels to 1e-12."""
    volume = noise((5, 6, 7))
    onto = grid.cube(np.array(volume.center_mm) + 0.21, size=9, spacing_mm=1.31)
    expected = grid.resample(volume, onto, interpolation=interpolation, outside=5.0).array
    for order, signs in PERMUTED_AND_FLIPPED:
        found = grid.resample(stored_otherwise(volume, order, signs), onto, interpolation=interpolation, outside=5.0)
        np.testing.assert_allclose(found.array, expected, atol=1e-12, err_msg=f"{order} {signs}")


def test_canonical_undoes_any_permutation_and_flip():
    """Canonical orientation gives back the z, y, x array of the upright volume, bit for bit."""
    volume = noise((4, 5, 6))
    for order, signs in PERMUTED_AND_FLIPPED:
        back = grid.canonical(stored_otherwise(volume, order, signs))
        assert back.same_grid(volume, tolerance_mm=1e-9), (order, signs)
        np.testing.assert_array_equal(back.array, volume.array, err_msg=f"{order} {signs}")


def test_canonical_leaves_every_value_at_its_place_on_an_oblique_grid():
    """On a turned grid the array is only reordered: each value keeps its point in the patient."""
    volume = turned(noise((4, 5, 6)), (10.0, 95.0, -8.0))
    upright = grid.canonical(volume)
    direction = upright.affine[:3, :3] / upright.spacing_mm
    assert (np.diag(direction[::-1]) > 0.7).all()
    index = np.array([[k, j, i] for k in range(4) for j in range(5) for i in range(6)])
    there = np.rint(upright.indices(volume.points_mm(index))).astype(int)
    np.testing.assert_array_equal(upright.array[tuple(there.T)], volume.array[tuple(index.T)])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.floats(0.4, 6.0), st.tuples(*[st.floats(-3, 3)] * 3), st.floats(-40.0, 40.0))
def test_linear_resampling_keeps_a_linear_ramp(spacing, shift, angle):
    """A linear function of position is reproduced inside the volume, whatever the grid, antialiasing included."""
    points = noise((12, 14, 16)).points_mm(np.stack(np.indices((12, 14, 16)), axis=-1))
    ramp = points @ np.array([0.3, -0.7, 0.2]) + 4.0
    volume = Volume.on_grid(ramp, (3.0, 1.5, 1.2), (-20.0, 5.0, 90.0))
    middle = np.array(volume.center_mm) + 0.3 * np.array(shift)
    onto = turned(grid.cube(middle, size=3, spacing_mm=spacing / 6), (0.0, 0.0, angle))
    where = onto.points_mm(np.stack(np.indices(onto.shape), axis=-1))
    np.testing.assert_allclose(grid.resample(volume, onto).array, where @ np.array([0.3, -0.7, 0.2]) + 4.0, atol=1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
@pytest.mark.parametrize("spacing", [0.7, 2.0, 5.0])
@pytest.mark.parametrize("angle", [0.0, 12.0])
def test_a_constant_stays_constant(interpolation, spacing, angle):
    """Weights add up to one everywhere inside, at the borders too."""
    volume = noise().with_array(np.full((9, 11, 13), 3.25))
    onto = turned(grid.cube(volume.center_mm, size=12, spacing_mm=spacing), (angle, 0.0, 0.0))
    found = grid.resample(volume, onto, interpolation=interpolation, outside=np.nan).array
    inside = grid.inside(onto, volume)
    np.testing.assert_allclose(found[inside], 3.25, rtol=1e-9)
    assert np.isnan(found[~inside]).all()


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_reduction_does_not_alias(angle):
    """A pattern finer than the new voxels averages out instead of beating; pure interpolation keeps it."""
    checker = np.indices((40, 40, 40)).sum(axis=0) % 2 * 2.0 - 1.0
    volume = Volume.on_grid(checker)
    onto = turned(grid.cube((19.5, 19.5, 19.5), size=10, spacing_mm=3.0), (angle, angle, angle))
    assert np.abs(grid.resample(volume, onto).array).max() < 0.15
    assert np.abs(grid.resample(volume, onto, interpolation="bspline").array).max() > 0.5


def test_reduction_keeps_the_mean():
    """Antialiased reduction of noise keeps its mean and shrinks its spread as an average of the covered voxels does."""
    volume = Volume.on_grid(np.random.default_rng(3).normal(10.0, 1.0, size=(60, 60, 60)))
    small = grid.resample(volume, grid.cube((29.5, 29.5, 29.5), size=14, spacing_mm=4.0)).array
    assert abs(small.mean() - 10.0) < 0.02
    assert small.std() == pytest.approx(4.0**-1.5, rel=0.1)  # the average of 64 voxels; interpolation alone: about 0.3


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_blas_threads():
    """A run's workers (one thread) and a prediction (as many as there are) see the same image, to the last bit."""
    code = ("import numpy as np; from mtdlr.imaging import grid; from mtdlr.volume import Volume;"
            "v = Volume.on_grid(np.random.default_rng(0).normal(size=(40, 300, 300)).astype(np.float32), (3., 1., 1.));"
            "onto = grid.cube(v.center_mm, size=128, spacing_mm=1.3);"
            "print([hash(grid.resample(v, onto, interpolation=i).array.tobytes()) for i in ('linear', 'bspline')])")
    found = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {
        "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}).stdout
        for threads in ("1", "2", "5")}
    assert len(found) == 1


def test_a_grid_that_misses_the_volume_is_all_outside():
    """No overlap gives the outside value, in the volume's kind of number."""
    volume = noise().with_array(np.ones((9, 11, 13), dtype=np.int16))
    far = grid.cube((900.0, 0.0, 0.0), size=4, spacing_mm=1.0)
    assert grid.coverage(far, volume) == 0.0
    assert (grid.resample(volume, far, outside=-1024.0).array == -1024.0).all()
    assert grid.resample(volume, far, interpolation="nearest", outside=-1024).array.dtype == np.int16


def test_a_single_slice_can_be_resampled():
    """A volume with one slice is as thick as its spacing says."""
    volume = Volume.on_grid(np.full((1, 4, 4), 7.0), (5.0, 1.0, 1.0))
    onto = Volume.on_grid(np.zeros((7, 4, 4)), (1.0, 1.0, 1.0), (0.0, 0.0, -3.0))
    for interpolation in ("linear", "bspline", "nearest"):
        found = grid.resample(volume, onto, interpolation=interpolation, outside=-1.0).array[:, 0, 0]
        np.testing.assert_allclose(found, [-1, 7, 7, 7, 7, 7, -1])


def test_crop_covers_the_points_and_keeps_their_values():
    """A crop holds every voxel between the points plus the margin, at the place it had."""
    volume = noise((20, 21, 22), spacing=(2.0, 1.0, 1.0))
    points = volume.points_mm([[5, 6, 7], [9, 8, 10]])
    part = grid.crop(volume, points, margin_mm=2.0)
    assert part.shape == (7, 7, 8)
    np.testing.assert_array_equal(part.array, volume.array[4:11, 4:11, 5:13])
    np.testing.assert_allclose(part.points_mm([0, 0, 0]), volume.points_mm([4, 4, 5]))
    assert part.array.base is None or not np.shares_memory(part.array, volume.array)


def test_crop_stops_at_the_volume_and_is_none_outside():
    """A crop reaches no further than the volume; points beyond it give nothing."""
    volume = noise((5, 6, 7))
    assert grid.crop(volume, grid.corners_mm(volume), margin_mm=50.0).shape == (5, 6, 7)
    assert grid.crop(volume, np.array(volume.center_mm)[None] + 500.0) is None


def test_a_cube_is_upright_isotropic_and_centred():
    """The network grid has the asked size, spacing and middle, with axes along z, y, x."""
    cube = grid.cube((10.0, -20.0, 30.0), size=32, spacing_mm=2.5)
    assert cube.shape == (32, 32, 32)
    np.testing.assert_allclose(cube.center_mm, (10.0, -20.0, 30.0))
    np.testing.assert_allclose(cube.affine[:3, :3], np.eye(3)[::-1] * 2.5)
    assert cube.array.nbytes > cube.array.base.nbytes  # the grid alone, no voxels


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.floats(0.5, 5.0))
def test_an_isotropic_grid_covers_its_volume(spacing):
    """The isotropic grid has the volume's axes and middle and reaches at least as far."""
    volume = turned(noise(), (5.0, 10.0, -20.0))
    made = grid.isotropic_grid(volume, spacing)
    np.testing.assert_allclose(made.spacing_mm, spacing)
    np.testing.assert_allclose(made.center_mm, volume.center_mm, atol=1e-9)
    extent, old = np.array(made.shape) * spacing, np.array(volume.shape) * volume.spacing_mm
    assert (extent > old - 1e-4).all()
    assert (extent < old + spacing + 1e-4).all()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.floats(0.5, 5.0), st.integers(0, 3), st.sampled_from([(0.0, 0.0, 0.0), (5.0, 10.0, -20.0)]))
def test_a_lattice_does_not_move_with_the_field_of_view(spacing, less, angles):
    """The lattice of a volume covers it, and that of a part of it has its voxels at the same places."""
    volume = turned(noise(), angles)
    part = Volume(volume.array[less:, : volume.shape[1] - less, less:],
                  np.block([[volume.affine[:3, :3], volume.points_mm([less, 0, less])[:, None]], [0, 0, 0, 1]]))
    whole, made = grid.lattice(volume, spacing), grid.lattice(part, spacing)
    assert grid.coverage(grid.grid(volume.shape, volume.affine), whole) == grid.coverage(part, made) == 1.0
    offset = whole.indices(made.points_mm([0.0, 0.0, 0.0]))
    np.testing.assert_allclose(offset, np.rint(offset), atol=1e-6)
    assert (np.array(made.shape) * spacing < np.array(part.shape) * part.spacing_mm + 2.0 * spacing + 1e-4).all()


def test_a_mask_keeps_its_volume_and_place_on_other_grids():
    """A ball keeps its volume to 3 % and its middle to 0.2 mm on finer, coarser and turned grids."""
    z, y, x = np.indices((40, 40, 40)) - 19.5
    ball = Volume.on_grid(z**2 + y**2 + x**2 < 15**2)
    for spacing, angle in ((0.8, 0.0), (1.7, 0.0), (3.0, 0.0), (1.3, 20.0)):
        onto = turned(grid.cube((19.5, 19.5, 19.5), size=round(40 / spacing), spacing_mm=spacing), (angle, 0, angle))
        moved = grid.mask_onto(ball, onto)
        assert moved.array.dtype == bool
        assert grid.mask_volume_ml(moved) == pytest.approx(grid.mask_volume_ml(ball), rel=0.03)
        np.testing.assert_allclose(moved.points_mm(np.argwhere(moved.array).mean(axis=0)), 19.5, atol=0.2)


def test_a_mask_on_its_own_grid_is_left_alone():
    """No interpolation where none is needed; values above zero count as inside."""
    labels = Volume.on_grid(np.array([[[0, 1, 0, 255]]], dtype=np.uint8))
    np.testing.assert_array_equal(grid.mask_onto(labels, labels).array, [[[False, True, False, True]]])


def test_moving_a_volume_changes_no_voxel():
    """A moved volume shares its voxels; only their place changes."""
    volume = noise()
    transform = np.eye(4)
    transform[:3, 3] = (1.0, -2.0, 6.6)
    moved = grid.moved(volume, transform)
    assert np.shares_memory(moved.array, volume.array)
    np.testing.assert_allclose(np.array(moved.center_mm) - volume.center_mm, (1.0, -2.0, 6.6))
