"""Derived images: wavelet bands, Laplacian of Gaussian, gradient, and pointwise transforms.

Each function takes a whole image and a box, and returns the filtered values inside the box alone, so that a small
lesion in a large scan costs what the lesion costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
import pywt
from numpy.typing import NDArray

from mtdlr.texture.compiled import compiled, entry
from mtdlr.texture.laplacian import REACH, recursive_laplacian, sampled_laplacian
from mtdlr.texture.patterns import local_patterns
from mtdlr.texture.profile import Filter

Box = tuple[slice, slice, slice]
Spacing = tuple[float, float, float]


def filtered(image: NDArray, box: Box, spacing_mm: Spacing, spec: Filter) -> Iterator[tuple[str, NDArray]]:
    """(name, values inside the box) of each image a filter makes.

    Args:
        image: (z, y, x), any real dtype.
        box: the part that is wanted.
        spacing_mm: (z, y, x).
        spec: which filter.

    An image too small for its filter, or of zeros that should be scaled, comes without values: all nan.
    """
    if spec.kind == "original":
        yield "original", image[box]
    elif spec.kind == "wavelet":
        yield from wavelet_bands(image, box, spec)
    elif spec.kind == "log":
        yield from _laplacians(image, box, spacing_mm, spec)
    elif spec.kind == "gradient":
        yield "gradient", _gradient(image, box, spacing_mm if spec.gradient_spacing else (1.0, 1.0, 1.0))
    elif spec.kind == "lbp2d":
        yield "lbp-2D", local_patterns(image, box, spec.pattern)
    elif spec.kind in POINTWISE:
        part, largest = image[box].astype(np.float64), float(np.abs(image).max())
        yield spec.kind, POINTWISE[spec.kind](part, largest) if largest > 0 else np.full(part.shape, np.nan)
    else:
        raise AssertionError(spec.kind)


def _laplacians(image: NDArray, box: Box, spacing_mm: Spacing, spec: Filter) -> Iterator[tuple[str, NDArray]]:
    """Laplacian of Gaussian images, single precision as ITK's."""
    for sigma in spec.sigmas_mm:
        name = f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"
        fits = min(image.shape) >= 4 and all(n >= ceil(sigma / s) + 1 for n, s in zip(image.shape, spacing_mm,
                                                                                      strict=True))
        if not fits:
            yield name, np.full(image[box].shape, np.nan)
            continue
        reach = REACH if spec.cutoff is None else spec.cutoff + 1
        part, inner = _around(box, image.shape, [ceil(reach * sigma / s) + 1 for s in spacing_mm])
        if spec.cutoff is None:
            found = recursive_laplacian(image[part], sigma, spacing_mm)
        else:
            found = sampled_laplacian(image[part], sigma, spacing_mm, spec.cutoff)
        yield name, found[inner].astype(np.float32)


def _gradient(image: NDArray, box: Box, spacing_mm: Spacing) -> NDArray:
    """Magnitude of the gradient by central differences; the edge goes on outside."""
    index = [np.arange(part.start - 1, part.stop + 1).clip(0, n - 1) for part, n in zip(box, image.shape, strict=True)]
    x = image[np.ix_(*index)].astype(np.float64)
    squares = np.zeros(tuple(part.stop - part.start for part in box))
    for axis, step in enumerate(spacing_mm):
        middle = [slice(1, -1)] * 3
        after, before = [*middle], [*middle]
        after[axis], before[axis] = slice(2, None), slice(None, -2)
        squares += ((x[tuple(after)] - x[tuple(before)]) / (2 * step))**2
    return np.sqrt(squares).astype(np.float64 if image.dtype == np.float64 else np.float32)


def _around(box: Box, extent: tuple[int, ...], margin: list[int]) -> tuple[Box, Box]:
    """(the box with a margin as far as the image goes, the box within it)."""
    outer = [slice(max(b.start - m, 0), min(b.stop + m, n)) for b, m, n in zip(box, margin, extent, strict=True)]
    inner = [slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True)]
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])


def wavelet_bands(image: NDArray, box: Box, spec: Filter) -> Iterator[tuple[str, NDArray]]:
    """(name, band inside the box) of an undecimated wavelet transform, periodic at the image's border.

    H is high-pass, L low-pass, letters in the order x, y, z... of PyRadiomics: LLH first, LLL last.

    Args:
        image: the whole image, (z, y, x).
        box: slices of the part that is wanted.
        spec: wavelet, levels, first level, and whether the filters are dilated from level to level.
    """
    axes = tuple(axis for axis in (2, 1, 0) if axis != spec.grey_levels.plane_axis)
    wavelet = pywt.Wavelet(spec.wavelet)
    dtype = np.float32 if image.dtype == np.float32 else np.float64
    low, high = _taps(wavelet, dtype)
    deepest = spec.start_level + spec.levels
    spreads = [2**level if spec.dilated else 1 for level in range(deepest)]
    ahead, reach = low.size // 2 - 1, low.size - 1
    data = _wrapped(image, box, sum(spreads) * reach, axes, sum(spreads) * ahead).astype(dtype)
    for level, spread in enumerate(spreads):
        taps = (("L", _spread(low, spread)), ("H", _spread(high, spread)))
        bands = {"": data}
        for axis in axes:
            bands = {name + letter: _filtered_along(band, axis, filter_) for name, band in bands.items()
                     for letter, filter_ in taps}
        data = bands.pop("L" * len(axes))
        if level >= spec.start_level:
            number = level - spec.start_level + 1
            prefix = "wavelet" if number == 1 else f"wavelet{number}"
            for name, band in bands.items():
                yield f"{prefix}-{name}", _inner(band, box, sum(spreads[level + 1:]) * ahead, axes)
    prefix = "wavelet" if spec.levels == 1 else f"wavelet{spec.levels}"
    yield f"{prefix}-{'L' * len(axes)}", data


def _spread(taps: NDArray, spread: int) -> NDArray:
    """The taps with zeros between them."""
    spaced = np.zeros((taps.size - 1) * spread + 1, taps.dtype)
    spaced[::spread] = taps
    return spaced


def _taps(wavelet: pywt.Wavelet, dtype: type) -> tuple[NDArray, NDArray]:
    """(low-pass, high-pass) taps as PyWavelets holds them in this precision: its own answer to an impulse."""
    n = wavelet.dec_len
    impulse = np.zeros(4 * n, dtype)
    impulse[2 * n] = 1
    low, high = pywt.swt(impulse, wavelet, level=1)[0]
    first = 2 * n - n // 2
    return low[first:first + n].copy(), high[first:first + n].copy()


def _wrapped(image: NDArray, box: Box, reach: int, axes: tuple[int, ...], before: int) -> NDArray:
    """The box with `reach` voxels more along the axes, `before` of them in front; the image is continued periodically.

    An odd axis is first extended by a copy of its first voxel, as PyRadiomics does.
    """
    picks = []
    for axis, (n, part) in enumerate(zip(image.shape, box, strict=True)):
        index = np.arange(part.start, part.stop)
        if axis in axes:
            index = np.arange(part.start - before, part.stop + reach - before) % (n + n % 2)
            index[index == n] = 0
        picks.append(index)
    return image[np.ix_(*picks)]


def _inner(band: NDArray, box: Box, before: int, axes: tuple[int, ...]) -> NDArray:
    """The box within a band that still has the margin of later decompositions along the axes, `before` in front."""
    starts = [before if axis in axes else 0 for axis in range(3)]
    return band[tuple(slice(start, start + part.stop - part.start) for start, part in zip(starts, box, strict=True))]


def _filtered_along(data: NDArray, axis: int, taps: NDArray) -> NDArray:
    """The convolution along one axis where the filter fits: shorter by its length less one."""
    inner = int(np.prod(data.shape[axis + 1:]))
    shape = list(data.shape)
    shape[axis] -= taps.size - 1
    out = np.zeros(shape, data.dtype)
    flat, flat_out = data.reshape(-1, data.shape[axis] * inner), out.reshape(-1, shape[axis] * inner)
    (_convolve_single if data.dtype == np.float32 else _convolve_double)(flat, taps, inner, flat_out)
    return out


@compiled
def _convolve(data: NDArray, taps: NDArray, inner: int, out: NDArray) -> None:
    """Fill `out`, block by block so that it stays in cache; taps in PyWavelets' order, to the last bit."""
    for row in range(out.shape[0]):
        for start in range(0, out.shape[1], 2048):
            stop = min(start + 2048, out.shape[1])
            for j in range(taps.size):
                shift, tap = (taps.size - 1 - j) * inner, taps[j]
                source, target = data[row, start + shift:stop + shift], out[row, start:stop]
                for i in range(target.size):
                    target[i] += tap * source[i]


@entry("f4[:,::1], f4[::1], i8, f4[:,::1]")
def _convolve_single(data: NDArray[np.float32], taps: NDArray[np.float32], inner: int,
                     out: NDArray[np.float32]) -> None:
    """`_convolve` in single precision."""
    _convolve(data, taps, inner, out)


@entry("f8[:,::1], f8[::1], i8, f8[:,::1]")
def _convolve_double(data: NDArray[np.float64], taps: NDArray[np.float64], inner: int,
                     out: NDArray[np.float64]) -> None:
    """`_convolve` in double precision."""
    _convolve(data, taps, inner, out)


def _square(x: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    return (x * (1 / np.sqrt(largest))) ** 2


def _square_root(x: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    return np.sign(x) * np.sqrt(np.abs(x) * largest)


def _logarithm(x: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    return np.sign(x) * np.log(np.abs(x) + 1) * (largest / np.log(largest + 1))


def _exponential(x: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    return np.exp(x * (np.log(largest) / largest))


POINTWISE = {"square": _square, "squareroot": _square_root, "logarithm": _logarithm, "exponential": _exponential}
"""Transforms of an intensity and the image's largest absolute intensity, back onto about the same range."""
