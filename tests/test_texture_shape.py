"""Meshes, axes, diameters and outlines of bodies whose measures can be written down."""

from __future__ import annotations

from math import hypot, isnan, pi, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr.texture import shape
from mtdlr.texture.mesh import surface
from mtdlr.texture.outline import outline

SPACING = (3.0, 2.0, 0.5)


def box_by_hand(n: tuple[int, int, int], mm: tuple[float, float, float]) -> tuple[float, float]:
    """(area, volume) of the mesh around a box of voxels: flat faces, edges cut at 45 degrees, corners cut off.

    Half a voxel beyond the outermost centres lie the faces; an edge's strip joins the middles of two voxel sides.
    """
    a, b, c = mm
    inner = [(k - 1) * step for k, step in zip(n, mm, strict=True)]
    z, y, x = inner
    corner = sqrt((a * b)**2 + (b * c)**2 + (a * c)**2) / 8
    area = (2 * (z * y + y * x + z * x)
            + 4 * (z * hypot(b, c) + y * hypot(a, c) + x * hypot(a, b)) / 2 + 8 * corner)
    volume = z * y * x + z * y * c + y * x * a + z * x * b + (z * b * c + y * a * c + x * a * b) / 2 + a * b * c / 6
    return area, volume


@pytest.mark.parametrize("n", [(1, 1, 1), (1, 1, 4), (3, 1, 1), (2, 3, 4), (1, 5, 2)])
@pytest.mark.parametrize("mm", [(1.0, 1.0, 1.0), SPACING])
def test_the_mesh_of_a_box(n: tuple[int, int, int], mm: tuple[float, float, float]) -> None:
    """A box of voxels has the area and volume of a box with cut edges and corners, whatever the spacing."""
    assert surface(np.pad(np.ones(n, bool), 1), mm) == pytest.approx(box_by_hand(n, mm))


def test_separate_parts_add_up() -> None:
    """Parts that do not touch have their areas and volumes added, wherever they lie."""
    one, other = np.zeros((2, 6, 7, 8), bool)
    one[1:3, 1:3, 1:3] = True
    other[4, 5, 3:7] = True
    area, volume = (sum(values) for values in zip(*(surface(np.pad(m, 1), SPACING) for m in (one, other)),
                                                  strict=True))
    assert surface(np.pad(one | other, 1), SPACING) == pytest.approx((area, volume))


def test_a_hole_takes_volume_and_adds_area() -> None:
    """A hole of one voxel inside a block takes an octahedron's volume away and adds its area, normals inward."""
    block = np.ones((5, 5, 5), bool)
    whole, spot = surface(np.pad(block, 1), SPACING), surface(np.pad(np.ones((1, 1, 1), bool), 1), SPACING)
    block[2, 2, 2] = False
    assert surface(np.pad(block, 1), SPACING) == pytest.approx((whole[0] + spot[0], whole[1] - spot[1]))


@pytest.mark.parametrize("turn", [(0, 1), (0, 2), (1, 2)])
def test_a_turned_region_keeps_its_measures(turn: tuple[int, int]) -> None:
    """A region turned by 90 degrees, its spacing with it, keeps volume, area, axes and the diameter in space.

    So does any whose faces have no two opposite corners alone: the classical table joins those one way round only.
    """
    mask = np.zeros((5, 5, 6), bool)
    mask[:2, :4, :3] = mask[:2, :2, :5] = mask[:4, :2, :3] = True
    spacing = list(SPACING)
    spacing[turn[0]], spacing[turn[1]] = spacing[turn[1]], spacing[turn[0]]
    before, after = shape(mask, SPACING), shape(np.ascontiguousarray(np.rot90(mask, axes=turn)),
                                                (spacing[0], spacing[1], spacing[2]))
    for name in before:
        if not name.startswith("Maximum2D"):
            assert after[name] == pytest.approx(before[name], rel=1e-9), name
    flat = [f"Maximum2DDiameter{name}" for name in ("Slice", "Column", "Row")]
    swapped = list(flat)
    swapped[turn[0]], swapped[turn[1]] = swapped[turn[1]], swapped[turn[0]]
    assert [after[name] for name in flat] == pytest.approx([before[name] for name in swapped])


def test_voxels_of_another_size() -> None:
    """Three times the spacing: lengths 3, areas 9, volumes 27 times as large; forms stay."""
    mask = np.random.default_rng(3).random((4, 4, 5)) < 0.7
    before, after = shape(mask, SPACING), shape(mask, (9.0, 6.0, 1.5))
    powers = {"SurfaceArea": 2, "MeshVolume": 3, "VoxelVolume": 3, "SurfaceVolumeRatio": -1}
    lengths = [name for name in before if name.endswith("AxisLength") or "Diameter" in name]
    powers |= dict.fromkeys(lengths, 1)
    for name in before:
        assert after[name] == pytest.approx(before[name] * 3.0 ** powers.get(name, 0)), name
    assert len(lengths) == 7


def test_axes_of_a_box() -> None:
    """A box of n voxels of s mm has an axis of 4 s sqrt((n^2 - 1) / 12); elongation and flatness are their ratios."""
    n = (2, 4, 40)
    axis = sorted(4 * s * sqrt((k * k - 1) / 12) for k, s in zip(n, SPACING, strict=True))
    found = shape(np.ones(n, bool), SPACING)
    assert [found[f"{name}AxisLength"] for name in ("Least", "Minor", "Major")] == pytest.approx(axis)
    assert found["Elongation"] == pytest.approx(axis[1] / axis[2])
    assert found["Flatness"] == pytest.approx(axis[0] / axis[2])


def test_axes_need_not_lie_along_the_grid() -> None:
    """A diagonal line of voxels has one axis, along the diagonal, and no width."""
    mask = np.zeros((5, 5, 5), bool)
    mask[np.arange(5), np.arange(5), np.arange(5)] = True
    found = shape(mask, SPACING)
    step = sqrt(sum(s * s for s in SPACING))
    assert found["MajorAxisLength"] == pytest.approx(4 * step * sqrt(24 / 12))
    assert (found["MinorAxisLength"], found["LeastAxisLength"], found["Elongation"]) == (0.0, 0.0, 0.0)


def test_forms_are_functions_of_area_and_volume() -> None:
    """Sphericity, disproportion and both compactnesses follow IBSI's equations from area and volume."""
    found = shape(np.random.default_rng(1).random((5, 4, 6)) < 0.5, SPACING)
    area, volume = found["SurfaceArea"], found["MeshVolume"]
    assert found["Sphericity"] == pytest.approx((36 * pi * volume**2)**(1 / 3) / area)
    assert found["SphericalDisproportion"] == pytest.approx(1 / found["Sphericity"])
    assert found["Compactness1"] == pytest.approx(volume / (sqrt(pi) * area**1.5))
    assert found["Compactness2"] == pytest.approx(36 * pi * volume**2 / area**3)
    assert found["SurfaceVolumeRatio"] == pytest.approx(area / volume)
    assert found["Compactness2"] == pytest.approx(found["Sphericity"]**3)


def test_diameters_of_a_box() -> None:
    """Between face middles, a 2 x 4 x 9 box measures its full length less half a voxel along the others."""
    found = shape(np.ones((2, 4, 9), bool), SPACING)
    z, y, x = (k * s for k, s in zip((2, 4, 9), SPACING, strict=True))
    a, b, c = SPACING
    assert found["Maximum3DDiameter"] == pytest.approx(max(
        hypot(z, y - b, x - c), hypot(z - a, y, x - c), hypot(z - a, y - b, x)))
    assert found["Maximum2DDiameterSlice"] == pytest.approx(max(hypot(y, x - c), hypot(y - b, x)))
    assert found["Maximum2DDiameterColumn"] == pytest.approx(max(hypot(z, x - c), hypot(z - a, x)))
    assert found["Maximum2DDiameterRow"] == pytest.approx(max(hypot(z, y - b), hypot(z - a, y)))


def drawn(*rows: str) -> NDArray[np.bool_]:
    """A plane region drawn with # for a voxel."""
    return np.array([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize(("y", "x"), [(1, 1), (1, 5), (3, 2), (4, 6)])
def test_the_outline_of_a_rectangle(y: int, x: int) -> None:
    """A rectangle's outline runs through the middles of its outer sides, its corners cut off."""
    dy, dx = 2.0, 0.5
    found = outline(np.ones((y, x), bool), (dy, dx))
    inner_y, inner_x = (y - 1) * dy, (x - 1) * dx
    assert found["Perimeter"] == pytest.approx(2 * (inner_y + inner_x) + 4 * hypot(dy, dx) / 2)
    assert found["MeshSurface"] == pytest.approx(inner_y * inner_x + inner_y * dx + inner_x * dy + dy * dx / 2)
    assert found["PixelSurface"] == pytest.approx(y * x * dy * dx)
    axes = sorted(4 * s * sqrt((k * k - 1) / 12) for k, s in ((y, dy), (x, dx)))
    assert [found["MinorAxisLength"], found["MajorAxisLength"]] == pytest.approx(axes)
    assert found["MaximumDiameter"] == pytest.approx(max(hypot(y * dy, inner_x), hypot(inner_y, x * dx)))


def test_voxels_that_touch_at_a_corner_are_not_joined() -> None:
    """Two diagonal voxels have twice the outline and twice the area of one."""
    one, two = outline(drawn("#"), (2.0, 1.0)), outline(drawn("#.", ".#"), (2.0, 1.0))
    assert (two["Perimeter"], two["MeshSurface"]) == pytest.approx((2 * one["Perimeter"], 2 * one["MeshSurface"]))


def test_a_dent_lengthens_the_outline() -> None:
    """A missing corner keeps the length of the outline but for the two cut corners, and takes its voxel's area."""
    full, dented = outline(drawn("###", "###", "###"), (1.0, 1.0)), outline(drawn("##.", "###", "###"), (1.0, 1.0))
    assert dented["PixelSurface"] == full["PixelSurface"] - 1
    # one cut corner and two half sides become two cut corners and an inner one
    assert dented["Perimeter"] == pytest.approx(full["Perimeter"] + 2 * sqrt(0.5) - 2)
    assert dented["MeshSurface"] == pytest.approx(full["MeshSurface"] - 1)


def test_outlines_turn() -> None:
    """Transposing a region with its spacing keeps every number."""
    mask = drawn("##..", "###.", ".###")
    assert outline(mask.T.copy(), (0.5, 2.0)) == pytest.approx(outline(mask, (2.0, 0.5)))


def test_forms_of_an_outline() -> None:
    """Sphericity is the circumference of the circle of equal area over the perimeter, disproportion its inverse."""
    found = outline(drawn("##..", "###.", ".###"), (2.0, 0.5))
    assert found["Sphericity"] == pytest.approx(2 * sqrt(pi * found["MeshSurface"]) / found["Perimeter"])
    assert found["SphericalDisproportion"] == pytest.approx(1 / found["Sphericity"])
    assert found["PerimeterSurfaceRatio"] == pytest.approx(found["Perimeter"] / found["MeshSurface"])
    assert found["Elongation"] == pytest.approx(found["MinorAxisLength"] / found["MajorAxisLength"])


def test_one_voxel_has_an_outline_and_no_elongation() -> None:
    """One voxel is a rhombus with its voxel's sides as diagonals; it has no axes."""
    found = outline(drawn("#"), (2.0, 1.0))
    assert isnan(found["Elongation"]) and found["MajorAxisLength"] == 0.0
    assert (found["Perimeter"], found["MeshSurface"]) == pytest.approx((4 * hypot(1.0, 0.5), 1.0))
    assert found["MaximumDiameter"] == 2.0
