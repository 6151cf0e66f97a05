"""Where voxels lie and what a new voxel is made of: affines, orientations and weights with answers written by hand."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr.errors import ScanError
from mtdlr.imaging import grid
from mtdlr.volume import Volume


def turned(shape: tuple[int, int, int] = (3, 4, 5)) -> Volume:
    """A volume on an oblique grid of 3 x 2 x 1 mm, turned by 30 degrees about z."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -s, c], [0, c, s], [1, 0, 0]]) * (3.0, 2.0, 1.0)
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return Volume(np.arange(np.prod(shape), dtype=np.float64).reshape(shape), affine)


def line(values: list[float], step: float = 1.0, origin: float = 0.0) -> Volume:
    """Voxels along x alone."""
    return Volume.on_grid(np.array(values, np.float64).reshape(1, 1, -1), (1.0, 1.0, step), (origin, 0.0, 0.0))


def along_x(n: int, step: float, origin: float) -> Volume:
    return grid.grid((1, 1, n), Volume.on_grid(np.zeros((1, 1, n)), (1.0, 1.0, step), (origin, 0.0, 0.0)).affine)


def on_line(volume: Volume, onto: Volume, **options: object) -> list[float]:
    found = grid.resample(volume, onto, **options).array  # type: ignore[arg-type]
    return found[0, 0].tolist()


def test_indices_and_points_undo_one_another() -> None:
    """The point of an index has that index again, also between voxels and outside, on any grid."""
    volume = turned()
    index = np.array([[0.0, 0.0, 0.0], [1.5, -2.0, 7.25], [2.0, 3.0, 4.0]])
    np.testing.assert_allclose(volume.indices(volume.points_mm(index)), index, atol=1e-12)
    assert volume.points_mm([0, 0, 0]).tolist() == [10.0, -20.0, 30.0]
    assert volume.points_mm([1, 0, 0]).tolist() == pytest.approx([10.0, -20.0, 33.0])
    assert volume.points_mm([0, 0, 2]).tolist() == pytest.approx([10.0 + 2 * np.cos(np.pi / 6), -19.0, 30.0])


def test_sizes_of_an_oblique_volume() -> None:
    """Spacing is the length of each step, a voxel the volume they span, the centre the middle of all corners."""
    volume = turned()
    assert volume.spacing_mm == pytest.approx((3.0, 2.0, 1.0)) and volume.voxel_ml == pytest.approx(6e-3)
    assert volume.center_mm == pytest.approx(tuple(grid.corners_mm(volume).mean(axis=0)))
    sheared = Volume(np.zeros((2, 2, 2)), np.array([[1.0, 0, 0, 0], [1.0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]))
    assert sheared.voxel_ml == pytest.approx(6e-3) and sheared.spacing_mm == pytest.approx((np.sqrt(2), 2.0, 3.0))


def test_a_grid_made_from_spacing() -> None:
    """`on_grid` puts (z, y, x) spacing and an (x, y, z) origin at their places."""
    volume = Volume.on_grid(np.zeros((2, 3, 4)), (5.0, 3.0, 2.0), (10.0, 20.0, 30.0))
    assert volume.points_mm([1, 1, 1]).tolist() == [12.0, 23.0, 35.0]
    assert volume.spacing_mm == (5.0, 3.0, 2.0)


@pytest.mark.parametrize(("array", "affine"), [
    (np.zeros((2, 3)), np.eye(4)), (np.zeros((2, 0, 3)), np.eye(4)), (np.zeros((2, 2, 2)), np.eye(3)),
    (np.zeros((2, 2, 2)), np.diag([1.0, 0.0, 1.0, 1.0])), (np.zeros((2, 2, 2)), np.diag([1.0, np.nan, 1.0, 1.0]))])
def test_what_is_no_volume(array: NDArray, affine: NDArray) -> None:
    """Two axes, an empty axis, and an affine that is small, singular or not finite are E-GEOMETRY."""
    with pytest.raises(ScanError) as caught:
        Volume(array, affine)
    assert caught.value.code == "E-GEOMETRY" and caught.value.problems[0].found


def test_a_volume_cannot_be_changed() -> None:
    """Voxels and affine are read-only, and the array that was given stays writable."""
    array = np.zeros((2, 2, 2))
    volume = Volume(array, np.eye(4))
    for part in (volume.array, volume.affine):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 1
    array[0, 0, 0] = 5.0
    assert array.flags.writeable


def test_the_same_grid_looks_at_every_corner() -> None:
    """A shift beyond the tolerance, a turn that moves the far corner alone, or another shape is another grid."""
    volume = turned((40, 40, 40))
    shift = np.eye(4)
    shift[0, 3] = 0.01
    assert volume.same_grid(grid.moved(volume, shift), tolerance_mm=0.011)
    assert not volume.same_grid(grid.moved(volume, shift))
    turn = np.eye(4)
    turn[0, 1], turn[1, 0] = -1e-4, 1e-4
    about = np.eye(4)
    about[:3, 3] = -volume.affine[:3, 3]
    assert not volume.same_grid(grid.moved(volume, np.linalg.inv(about) @ turn @ about), tolerance_mm=1e-3)
    assert not volume.same_grid(turned((40, 40, 39)))


def test_corners_are_those_of_voxels_and_not_of_centres() -> None:
    """The outer corners lie half a voxel beyond the outermost centres."""
    corners = grid.corners_mm(Volume.on_grid(np.zeros((2, 3, 4)), (5.0, 3.0, 2.0)))
    assert corners.min(axis=0).tolist() == [-1.0, -1.5, -2.5] and corners.max(axis=0).tolist() == [7.0, 7.5, 7.5]
    assert len(np.unique(corners, axis=0)) == 8


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_orientation_becomes_canonical(order: tuple[int, int, int]) -> None:
    """However axes are stored and directed, canonical runs towards +z, +y, +x with every value at its point."""
    upright = Volume.on_grid(np.arange(24.0).reshape(2, 3, 4), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0))
    for flips in product((1, -1), repeat=3):
        array, affine = upright.array.transpose(order), upright.affine.copy()
        affine[:, :3] = affine[:, list(order)]
        array = array[tuple(slice(None, None, f) for f in flips)]
        for axis, flip in enumerate(flips):
            if flip < 0:
                affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
                affine[:3, axis] *= -1
        found = grid.canonical(Volume(array, affine))
        np.testing.assert_array_equal(found.array, upright.array)
        np.testing.assert_allclose(found.affine, upright.affine, atol=1e-12)


def test_canonical_of_an_oblique_grid_is_nearly_upright() -> None:
    """After canonical each step's largest part is its own axis and positive, also where two axes are 30 degrees off."""
    flipped = turned()
    for axes in permutations(range(3)):
        affine = flipped.affine.copy()
        affine[:, :3] = affine[:, list(axes)]
        found = grid.canonical(Volume(flipped.array.transpose(axes), affine)).affine[:3, :3]
        assert np.abs(found).argmax(axis=0).tolist() == [2, 1, 0]
        assert min(found[2, 0], found[1, 1], found[0, 2]) > 0


def test_half_the_step_takes_the_middle() -> None:
    """On a finer grid new values lie on the straight line between the old ones; up to half a voxel out the edge's."""
    found = on_line(line([0.0, 4.0, 2.0]), along_x(8, 0.5, -0.75), outside=-9.0)
    assert found == pytest.approx([-9.0, 0.0, 1.0, 3.0, 3.5, 2.5, 2.0, -9.0])


def test_twice_the_step_takes_the_mean() -> None:
    """A new voxel of two old ones is their mean; shifted by half, it has halves of its neighbours."""
    values = line([1.0, 3.0, 5.0, 11.0, 2.0, 4.0])
    assert on_line(values, along_x(3, 2.0, 0.5)) == pytest.approx([2.0, 8.0, 3.0])
    assert on_line(values, along_x(2, 2.0, 1.0)) == pytest.approx([(0.5 + 3 + 2.5) / 2, (2.5 + 11 + 1) / 2])


def test_three_times_the_step_counts_each_old_voxel_once() -> None:
    """The sum over new voxels times their width is that over the old ones."""
    random = np.random.default_rng(0).random(12)
    found = on_line(line(random.tolist()), along_x(4, 3.0, 1.0))
    assert found == pytest.approx(random.reshape(4, 3).mean(axis=1).tolist())


def test_nearest_takes_the_voxel_that_holds_the_point() -> None:
    """Nearest takes the upper of two equally near voxels, never a mixture, in the volume's own dtype."""
    labels = Volume.on_grid(np.array([[[0, 7, 3]]], np.uint8))
    found = grid.resample(labels, along_x(6, 0.5, -0.5), interpolation="nearest", outside=9)
    assert found.array[0, 0].tolist() == [0, 0, 7, 7, 3, 3] and found.array.dtype == np.uint8


def test_whole_numbers_are_interpolated_as_single_precision() -> None:
    """Interpolated int16 and bool become float32, float64 stays."""
    for dtype, expected in ((np.int16, np.float32), (np.bool_, np.float32), (np.float64, np.float64)):
        volume = Volume.on_grid(np.array([[[0, 1]]], dtype))
        found = grid.resample(volume, along_x(1, 1.0, 0.5)).array
        assert found.dtype == expected and found[0, 0, 0] == 0.5


def test_a_spline_through_a_parabola() -> None:
    """A cubic B-spline reproduces a parabola inside the volume, where linear interpolation is too high."""
    x = np.arange(60.0)
    volume, onto = line(((x - 30)**2).tolist()), along_x(10, 1.0, 25.5)
    exact = (np.arange(25.5, 35.5) - 30)**2
    np.testing.assert_allclose(on_line(volume, onto, interpolation="bspline"), exact, atol=1e-5)
    np.testing.assert_allclose(on_line(volume, onto), exact + 0.25, atol=1e-9)


def test_coverage_is_a_share_of_voxel_centres() -> None:
    """Half a region inside is 0.5; a centre on the border counts, one beyond it does not."""
    volume = line([0.0] * 4)
    assert grid.coverage(along_x(4, 1.0, 2.0), volume) == 0.5
    assert grid.inside(along_x(4, 1.0, -1.5), volume)[0, 0].tolist() == [False, True, True, True]
    assert grid.inside(along_x(2, 1.0, 3.5), volume)[0, 0].tolist() == [True, False]
    assert grid.coverage(along_x(3, 1.0, 40.0), volume) == 0.0


def test_a_lattice_lies_at_multiples_of_its_step() -> None:
    """Upright lattices have their voxels at whole multiples of the spacing, and cover the outer corners."""
    around = Volume.on_grid(np.zeros((4, 5, 6)), (3.0, 2.0, 1.0), (0.3, -7.7, 11.1))
    found = grid.lattice(around, 2.0)
    assert found.spacing_mm == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(found.affine[:3, 3] / 2.0, np.round(found.affine[:3, 3] / 2.0), atol=1e-9)
    inner, outer = grid.corners_mm(around), grid.corners_mm(found)
    assert (outer.min(0) <= inner.min(0) + 1e-6).all() and (outer.max(0) >= inner.max(0) - 1e-6).all()
    assert (inner.min(0) - outer.min(0) < 2.0).all() and (outer.max(0) - inner.max(0) < 2.0).all()


def test_an_isotropic_grid_shares_the_middle() -> None:
    """The isotropic grid of an oblique volume keeps its axes and its middle, and rounds its extent up."""
    volume = turned((5, 7, 9))
    found = grid.isotropic_grid(volume, 2.5)
    assert found.shape == (6, 6, 4) and found.center_mm == pytest.approx(volume.center_mm)
    for axis in range(3):
        np.testing.assert_allclose(found.affine[:3, axis] / 2.5, volume.affine[:3, axis] / volume.spacing_mm[axis])


def test_a_crop_adds_its_margin_in_mm() -> None:
    """A margin of 2 mm is one voxel of 2 mm and none of 5: each axis counts its own."""
    volume = Volume.on_grid(np.arange(1000).reshape(10, 10, 10), (5.0, 2.0, 1.0))
    found = grid.crop(volume, [[5.0, 10.0, 25.0]], margin_mm=2.0)
    assert found is not None and found.shape == (1, 3, 5)
    np.testing.assert_array_equal(found.array, volume.array[5:6, 4:7, 3:8])
    assert found.points_mm([0, 0, 0]).tolist() == [3.0, 8.0, 25.0]


def test_masks_half_filled() -> None:
    """Of new voxels those at least half filled belong to a mask: its volume and its middle stay."""
    mask = Volume.on_grid(np.array([[[0, 1, 1, 1, 0, 0, 1, 0]]], np.uint8))
    found = grid.mask_onto(mask, along_x(4, 2.0, 0.5))
    assert found.array[0, 0].tolist() == [True, True, False, True] and found.array.dtype == bool
    assert grid.mask_volume_ml(mask) == pytest.approx(4e-3)
    box = Volume.on_grid(np.pad(np.ones((2, 3, 1), bool), 2), (3.0, 2.0, 1.0))
    assert grid.mask_center_mm(box) == (2.0, 6.0, 7.5)


def test_an_empty_grid_holds_one_byte() -> None:
    """A grid of 512^3 takes no memory for its voxels, and is a volume like others."""
    found = grid.grid((512, 512, 512), np.eye(4))
    assert found.array.strides == (0, 0, 0) and found.shape == (512, 512, 512)


def test_a_cube_has_its_middle_between_voxels_when_even() -> None:
    """The middle of an even cube lies between voxels, of an odd one on a voxel; its axes run z, y, x."""
    for size in (4, 5):
        found = grid.cube((1.0, 2.0, 3.0), size=size, spacing_mm=2.0)
        index = found.indices([1.0, 2.0, 3.0])
        assert index.tolist() == [(size - 1) / 2] * 3
        np.testing.assert_array_equal(found.affine[:3, :3], np.eye(3)[::-1] * 2.0)
