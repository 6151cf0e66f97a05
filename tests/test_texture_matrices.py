"""Matrices, eigenvalues, bins and percentiles against slow, obvious versions of themselves."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import label

from mtdlr.errors import ScanError
from mtdlr.texture import (
    GreyLevels,
    discretise,
    eigen,
    extract,
    filters,
    firstorder,
    glcm,
    ibsi,
    matrices,
    mesh,
    morphology,
    ngtdm,
    paper1456,
    shape,
    sizes,
    spline,
)
from mtdlr.texture.compiled import _kinds
from mtdlr.texture.discretise import bin_edges
from mtdlr.texture.discretise import discretise as discretised

quickly = settings(deadline=None, derandomize=True, max_examples=40)
volumes = arrays(np.int64, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))


def map_of(levels: NDArray[np.int64], reach: int = 1, plane_axis: int | None = None) -> matrices.LevelMap:
    """The level map of a volume of grey levels, 0 outside."""
    inside = levels > 0
    found = discretised(levels[inside].astype(float), GreyLevels(bin_width=1.0, origin=1.0))
    return matrices.level_map(found, inside, reach, plane_axis)


def cells(levels: NDArray[np.int64]) -> dict[tuple[int, ...], int]:
    """Grey level by place."""
    return {tuple(place): int(levels[tuple(place)]) for place in np.argwhere(levels > 0)}


@pytest.mark.slow
@quickly
@given(volumes)
def test_pairs(levels: NDArray[np.int64]) -> None:
    """A direction's matrix counts each voxel with its neighbour, whatever the region."""
    if not levels.any():
        return
    found, region = map_of(levels), cells(levels)
    steps = matrices.half_steps(levels.shape, (1,))
    pairs, _ = matrices.pairs_and_runs(found, steps)
    for step, matrix in zip(steps, pairs, strict=True):
        expected = Counter((g, region[there]) for place, g in region.items()
                           if (there := tuple(np.add(place, step).tolist())) in region)
        assert {(int(found.gray[i + 1]), int(found.gray[j + 1])): int(matrix[i, j])
                for i, j in np.argwhere(matrix)} == expected


@quickly
@given(volumes)
def test_runs(levels: NDArray[np.int64]) -> None:
    """A direction's runs cover every voxel of the region exactly once, and none can be longer."""
    if not levels.any():
        return
    found, region = map_of(levels), cells(levels)
    steps = matrices.half_steps(levels.shape, (1,))
    _, runs = matrices.pairs_and_runs(found, steps)
    for step, matrix in zip(steps, runs, strict=True):
        expected: Counter[tuple[int, int]] = Counter()
        for place, g in region.items():
            if region.get(tuple(np.subtract(place, step).tolist())) != g:
                n = next(n for n in range(1, 9) if region.get(tuple(np.add(place, np.multiply(n, step)).tolist())) != g)
                expected[g, n] += 1
        assert {(int(found.gray[i + 1]), int(n + 1)): int(matrix[i, n]) for i, n in np.argwhere(matrix)} == expected


@quickly
@given(volumes, st.sampled_from([None, 0, 1, 2]))
def test_zones(levels: NDArray[np.int64], plane_axis: int | None) -> None:
    """Zones are the 26-connected parts of equal grey level; in a plane the 8-connected ones."""
    if not levels.any():
        return
    found = map_of(levels, 1, plane_axis)
    matrix, zone_sizes = matrices.zones(found)
    structure = np.ones((3, 3, 3), int)
    if plane_axis is not None:
        structure = np.moveaxis(structure, plane_axis, 0)
        structure[[0, 2]] = 0
        structure = np.moveaxis(structure, 0, plane_axis)
    expected = Counter((g, int(n)) for g in (1, 2, 3)
                       for n in np.bincount(label(levels == g, structure)[0].ravel())[1:])
    assert {(int(found.gray[i + 1]), int(zone_sizes[j])): int(matrix[i, j])
            for i, j in np.argwhere(matrix)} == expected


@quickly
@given(volumes, st.sampled_from([(1,), (2,), (1, 2)]), st.integers(0, 2))
def test_neighbourhoods(levels: NDArray[np.int64], distances: tuple[int, ...], largest: int) -> None:
    """Differences and dependences look at every neighbour in the region and at no other voxel."""
    if not levels.any():
        return
    found, region = map_of(levels, max(distances)), cells(levels)
    around = [s for s in product(range(-2, 3), repeat=3) if max(map(abs, s)) in distances]
    total: dict[int, float] = dict.fromkeys(set(region.values()), 0.0)
    dependent: Counter[tuple[int, int]] = Counter()
    for place, g in region.items():
        near = [region[t] for s in around if (t := tuple(np.add(place, s).tolist())) in region]
        total[g] += abs(g - sum(near) / len(near)) if near else 0.0
        dependent[g, sum(abs(g - h) <= largest for h in near)] += 1
    steps = matrices.half_steps(levels.shape, distances)
    assert dict(zip(found.gray[1:].tolist(), matrices.differences(found, steps), strict=True)) == pytest.approx(total)
    counts = matrices.dependences(found, steps, largest)
    assert {(int(found.gray[i + 1]), int(n)): int(counts[i, n]) for i, n in np.argwhere(counts)} == dependent


@quickly
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_second_largest_eigenvalue(n: int, seed: int) -> None:
    """The eigenvalue is LAPACK's, for spread and for degenerate spectra, of either sign."""
    random = np.random.default_rng(seed)
    counts = random.poisson(random.choice([0.05, 1.0, 30.0]), size=(n, n)) + np.eye(n)
    p = (counts + counts.T) / (counts + counts.T).sum()
    a = p / np.sqrt(np.outer(p.sum(1), p.sum(1)))
    assert eigen.second_largest(a) == pytest.approx(np.sort(np.abs(np.linalg.eigvalsh(a)))[-2], abs=1e-13)


def test_maximal_correlation_by_hand() -> None:
    """Two levels that only meet each other, or only themselves, are perfectly dependent; independent ones are not."""
    gray = np.array([1, 2])
    mcc = [glcm.glcm_features(np.array([m], float), gray)[0, glcm.GLCM.index("MCC")]
           for m in ([[0, 5], [5, 0]], [[5, 0], [0, 5]], [[4, 4], [4, 4]])]
    assert mcc == pytest.approx([1.0, 1.0, 0.0], abs=1e-9)


@quickly
@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32)))
def test_percentiles(values: NDArray[np.float64]) -> None:
    """Percentiles, median and range are numpy's to the last bit, though nothing is sorted as a whole."""
    found = firstorder.firstorder(values, np.array([values.size]), voxel_mm3=1.0)
    assert found["10Percentile"] == np.percentile(values, 10) and found["90Percentile"] == np.percentile(values, 90)
    assert found["Median"] == pytest.approx(np.median(values), rel=1e-15)
    assert found["InterquartileRange"] == np.percentile(values, 75) - np.percentile(values, 25)


@quickly
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e3, 1e3, width=32)), st.sampled_from([0.1, 1.0, 7]))
def test_bins(values: NDArray[np.float64], width: float) -> None:
    """Every value lies in the half-open bin numpy.digitize puts it in, edges included."""
    grey = GreyLevels(bin_width=width)
    found = discretised(values, grey)
    assert found.gray[found.level].tolist() == np.digitize(values, bin_edges(values, grey)).tolist()
    assert found.counts[1:].min() > 0 and found.counts.sum() == values.size


def test_origin_numbers_bins_as_ibsi() -> None:
    """With an origin the first bin starts there, occupied or not."""
    found = discretised(np.array([-120.0, 30.0]), GreyLevels(bin_width=25.0, origin=-200.0))
    assert found.gray.tolist() == [0, 4, 10]


def test_too_many_levels() -> None:
    """Bins far too narrow are refused with their number, before memory runs out."""
    for values in (np.array([0.0, 1e9]), np.arange(10_000.0)):
        with pytest.raises(ScanError) as error:
            discretised(values, GreyLevels(bin_width=0.1 if values.size > 2 else 1e-3))
        assert error.value.code == "E-GREYLEVELS"


@quickly
@given(arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3)), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 0.5)]))
def test_diameters(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> None:
    """Diameters equal the largest distance between all pairs of surface face centres, in space and in each plane."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(int)
    faces = np.concatenate([np.argwhere(np.diff(padded, axis=axis)) + 0.5 * np.eye(3)[axis] for axis in range(3)])
    gaps = faces[:, None] - faces[None]
    square = ((gaps * spacing) ** 2).sum(axis=2)
    found = shape(mask, spacing)
    assert found["Maximum3DDiameter"] == pytest.approx(np.sqrt(square.max()))
    for axis, name in enumerate(("Slice", "Column", "Row")):
        flat = np.where(gaps[..., axis] == 0, square, 0)
        assert found[f"Maximum2DDiameter{name}"] == pytest.approx(np.sqrt(flat.max()))


def test_sphere() -> None:
    """A finely sampled sphere has the volume, area and axes of one."""
    z, y, x = np.indices((41, 41, 41)) - 20
    found = shape(z**2 + y**2 + x**2 <= 18.0**2, (1.0, 1.0, 1.0))
    assert found["MeshVolume"] == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.01)
    assert found["Sphericity"] == pytest.approx(1.0, abs=0.1) and found["Flatness"] == pytest.approx(1.0)
    assert found["MajorAxisLength"] == pytest.approx(4 * 18 / np.sqrt(5), rel=0.01)


def test_mesh_scales() -> None:
    """Voxels twice as large make four times the area and eight times the volume."""
    mask = np.pad(np.random.default_rng(0).random((5, 6, 7)) > 0.5, 1)
    (area, volume), (area2, volume2) = (mesh.surface(mask, (s, s, s)) for s in (1.0, 2.0))
    assert (area2, volume2) == pytest.approx((4 * area, 8 * volume))


def test_sizes_by_hand() -> None:
    """Runs of a row 1 1 2: one of length 2 at level 1, one of length 1 at level 2."""
    found = dict(zip(sizes.RUN, sizes.size_features(np.array([[[0, 1], [1, 0]]]), np.array([1, 2]),
                                                    np.array([1, 2]))[0], strict=True))
    assert found["ShortRunEmphasis"] == pytest.approx((1 / 4 + 1) / 2)
    assert found["RunPercentage"] == pytest.approx(2 / 3)
    assert found["LongRunHighGrayLevelEmphasis"] == pytest.approx((4 * 1 + 1 * 4) / 2)
    assert found["RunEntropy"] == pytest.approx(1.0)


def test_each_kernel_is_compiled_once() -> None:
    """No kernel has a second signature, read-only and single-precision images included: processes that fill the
    compilation cache at the same moment write the same content. The decorator of one that Python calls names it."""
    image = np.random.default_rng(0).normal(size=(8, 9, 10)) * 50
    for dtype in (np.float32, np.float64, np.int16):
        mask, values = np.abs(image) > 10, image.astype(dtype)
        values.flags.writeable = mask.flags.writeable = False
        for profile in (paper1456(10.0), ibsi(10.0, resegment=(-100.0, None))):
            extract(values, mask, (1.0, 2.0, 3.0), profile=profile)
    for axis in range(3):
        spline.spline_along(np.zeros((3, 4, 5)).transpose(2, 0, 1), axis, np.arange(3.0))
    modules = (discretise, eigen, filters, firstorder, glcm, matrices, mesh, morphology, ngtdm, sizes, spline)
    kernels = [value for module in modules for value in vars(module).values()
               if hasattr(value, "signatures") and value.targetoptions]
    assert len(kernels) > 15
    assert {kernel.py_func.__name__: len(kernel.signatures) for kernel in kernels
            if len(kernel.signatures) > 1 and kernel.py_func.__name__ != "_convolve"} == {}
    called = [kernel for kernel in kernels if hasattr(kernel.py_func, "arguments") and kernel.signatures]
    assert len(called) > 15
    for kernel in called:  # by Python: what its decorator says, for which a wheel holds machine code
        ((*types,),) = kernel.signatures
        assert all(getattr(one, "layout", "C") == "C" for one in types), kernel
        assert _kinds(kernel.py_func.arguments) == tuple(
            (np.dtype(str(getattr(one, "dtype", one))).str[1:], getattr(one, "ndim", 0)) for one in types), kernel
