"""Laplacian of Gaussian, by ITK's recursive approximation (PyRadiomics) or by sampled kernels (IBSI 2)."""

from __future__ import annotations

from math import cos, exp, floor, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry

Taps = NDArray[np.float64]

# Farneback & Westin, "Improving Deriche-style recursive Gaussian filters" (2006), as in ITK: of the Gaussian and of its
# second derivative, amplitudes and phases of two damped oscillations with frequencies W and damping L.
_SMOOTH = (1.3530, 1.8151, -0.3531, 0.0902)
_SECOND = (-1.3563, 5.2318, 0.3446, -2.2355)
_W1, _L1, _W2, _L2 = 0.6681, -1.3932, 2.0787, -1.3732
REACH = 16  # standard deviations after which the recursive filter has forgotten


def recursive_laplacian(image: NDArray, sigma_mm: float, spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """sigma^2 times the Laplacian of the image smoothed with a Gaussian; the image's edge goes on outside.

    Args:
        image: (z, y, x).
        sigma_mm: width of the Gaussian.
        spacing_mm: (z, y, x).
    """
    kernels = [(_coefficients(sigma_mm / step, derivative=False), _coefficients(sigma_mm / step, derivative=True))
               for step in spacing_mm]
    total = np.zeros(image.shape)
    for across in range(image.ndim):
        term = image.astype(np.float64)
        for axis in range(image.ndim):
            term = _recursive(term, axis, *kernels[axis][axis == across])
        total += term * (sigma_mm / spacing_mm[across])**2
    return total


def sampled_laplacian(image: NDArray, sigma_mm: float, spacing_mm: tuple[float, ...], cutoff: float) -> NDArray:
    """The Laplacian of the image smoothed with a Gaussian, mirrored at the border.

    Args:
        image: (z, y, x).
        sigma_mm: SD of the Gaussian, > 0.
        spacing_mm: voxel size along each axis in mm.
        cutoff: where the kernel ends, in SDs.

    Returns:
        (z, y, x) float64.

    References:
        IBSI 2 reference manual (arXiv 2006.05470), section 3.2; derivatives per voxel, not scale-normalised.
    """
    kernels = []
    for step in spacing_mm:
        sigma = sigma_mm / step
        x = np.arange(-floor(cutoff * sigma + 0.5), floor(cutoff * sigma + 0.5) + 1)
        gauss = np.exp(-x**2 / (2 * sigma**2)) / (sqrt(2 * pi) * sigma)
        kernels.append((gauss, gauss * (x**2 / sigma**4 - 1 / sigma**2)))
    total = np.zeros(image.shape)
    for across in range(image.ndim):
        term = image.astype(np.float64)
        for axis in range(image.ndim):
            term = _convolved(term, axis, kernels[axis][axis == across])
        total += term
    return total


def _convolved(x: NDArray[np.float64], axis: int, taps: Taps) -> NDArray[np.float64]:
    """The image convolved along an axis with an odd number of symmetric taps, mirrored at the border."""
    n, reach = x.shape[axis], taps.size // 2
    rows = np.moveaxis(x, axis, 0)
    wide = np.pad(rows, [(reach, reach), *[(0, 0)] * (x.ndim - 1)], mode="symmetric")
    total = np.zeros(rows.shape)
    for shift, tap in enumerate(taps.tolist()):
        total += tap * wide[shift:shift + n]
    return np.moveaxis(total, 0, axis)


def _recursive(x: NDArray[np.float64], axis: int, forward: Taps, backward: Taps, feedback: Taps) -> NDArray[np.float64]:
    """Causal plus anticausal filtering along an axis, as if the first and last values went on for ever."""
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    out = np.zeros(rows.shape)
    flat, flat_out = rows.reshape(-1, rows.shape[-1]), out.reshape(-1, rows.shape[-1])
    for taps, onward in ((forward, True), (backward, False)):
        five = np.append(taps, np.zeros(5 - taps.size))
        _add_filtered(flat, five, feedback, _settled(taps, feedback), onward, flat_out)
    return np.moveaxis(out, -1, axis)


@entry("f8[:,::1], f8[::1], f8[::1], f8[::1], b1, f8[:,::1]")
def _add_filtered(x: NDArray[np.float64], taps: Taps, feedback: Taps, settled: Taps, onward: bool,
                  out: NDArray[np.float64]) -> None:
    """Add each row's response to a fourth-order recursive filter that runs onward, or from the end to the start."""
    n = x.shape[1]
    for row in range(len(x)):
        edge = x[row, 0] if onward else x[row, n - 1]
        s0, s1, s2, s3 = settled[0] * edge, settled[1] * edge, settled[2] * edge, settled[3] * edge
        for k in range(n):
            i = k if onward else n - 1 - k
            value = x[row, i]
            y = taps[0] * value + s0
            s0 = taps[1] * value - feedback[1] * y + s1
            s1 = taps[2] * value - feedback[2] * y + s2
            s2 = taps[3] * value - feedback[3] * y + s3
            s3 = taps[4] * value - feedback[4] * y
            out[row, i] += y


def _settled(taps: Taps, feedback: Taps) -> Taps:
    """The state of a direct form II transposed filter that has seen ones for ever."""
    level = taps.sum() / feedback.sum()
    parts = np.zeros(feedback.size)
    parts[:taps.size] = taps
    return np.ascontiguousarray(np.cumsum((parts - feedback * level)[:0:-1])[::-1])


def _coefficients(sigma: float, *, derivative: bool) -> tuple[Taps, Taps, Taps]:
    """(causal, anticausal, feedback) taps for a sigma in voxels."""
    feedback = _feedback(sigma)
    n = _numerator(sigma, _SMOOTH)
    total = feedback.sum()
    if derivative:
        second = _numerator(sigma, _SECOND)
        n = second - n * (2 * second.sum() - total * second[0]) / (2 * n.sum() - total * n[0])
        k4, k5 = np.arange(4.0), np.arange(5.0)
        dn, en, dd, ed = (n * k4).sum(), (n * k4**2).sum(), (feedback * k5).sum(), (feedback * k5**2).sum()
        scale = (en * total**2 - ed * n.sum() * total - 2 * dn * dd * total + 2 * dd**2 * n.sum()) / total**3
    else:
        scale = 2 * n.sum() / total - n[0]
    n = n / scale
    backward = np.append(n, 0.0) - feedback * n[0]
    return n, backward, feedback


def _numerator(sigma: float, shape: tuple[float, float, float, float]) -> Taps:
    """The four numerator taps of one pair of oscillations."""
    a1, b1, a2, b2 = shape
    s1, s2, c1, c2 = sin(_W1 / sigma), sin(_W2 / sigma), cos(_W1 / sigma), cos(_W2 / sigma)
    e1, e2 = exp(_L1 / sigma), exp(_L2 / sigma)
    return np.array([
        a1 + a2,
        e2 * (b2 * s2 - (a2 + 2 * a1) * c2) + e1 * (b1 * s1 - (a1 + 2 * a2) * c1),
        2 * e1 * e2 * ((a1 + a2) * c2 * c1 - b1 * c2 * s1 - b2 * c1 * s2) + a2 * e1**2 + a1 * e2**2,
        e2 * e1**2 * (b2 * s2 - a2 * c2) + e1 * e2**2 * (b1 * s1 - a1 * c1),
    ])


def _feedback(sigma: float) -> Taps:
    """The denominator's taps."""
    c1, c2, e1, e2 = cos(_W1 / sigma), cos(_W2 / sigma), exp(_L1 / sigma), exp(_L2 / sigma)
    return np.array([1.0, -2 * (e2 * c2 + e1 * c1), 4 * c2 * c1 * e1 * e2 + e1**2 + e2**2,
                     -2 * c1 * e1 * e2**2 - 2 * c2 * e2 * e1**2, e1**2 * e2**2])
