"""Local binary patterns by hand: four points on a circle of one voxel are the four neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr.texture.patterns import local_patterns
from mtdlr.texture.profile import LocalPattern

PLANE = np.random.default_rng(3).integers(0, 5, size=(6, 7)).astype(float)
"""Few levels, so that ties abound: a neighbour as bright as the voxel counts as 1."""


def patterns(plane: NDArray[np.float64], **how: object) -> NDArray[np.float64]:
    image = plane[None]
    box = (slice(0, 1), slice(0, plane.shape[0]), slice(0, plane.shape[1]))
    return local_patterns(image, box, LocalPattern(**how))[0]  # type: ignore[arg-type]


def neighbours(y: int, x: int) -> list[float]:
    """Right, above, left, below: counter-clockwise from the right; zeros beyond the image."""
    padded = np.pad(PLANE, 1)
    return [float(padded[y + 1 + dy, x + 1 + dx]) for dy, dx in ((0, 1), (-1, 0), (0, -1), (1, 0))]


def by_hand(method: str) -> NDArray[np.float64]:
    """Ojala's four numbers of each voxel."""
    found = np.zeros(PLANE.shape)
    for y, x in np.ndindex(PLANE.shape):
        near = neighbours(y, x)
        bits = [int(value >= PLANE[y, x]) for value in near]
        if method == "var":
            found[y, x] = np.var(near)
        elif method == "uniform":
            changes = sum(a != b for a, b in zip(bits[1:], bits[:-1], strict=True))
            found[y, x] = sum(bits) if changes <= 2 else 5
        else:
            turns = range(4) if method == "ror" else range(1)
            found[y, x] = min(sum(2**k * bits[(k - turn) % 4] for k in range(4)) for turn in turns)
    return found


@pytest.mark.parametrize("method", ["default", "ror", "uniform", "var"])
def test_four_neighbours(method: str) -> None:
    """Each method gives the number that Ojala's definition gives of the four neighbours, at the border too."""
    np.testing.assert_allclose(patterns(PLANE, radius=1.0, samples=4, method=method), by_hand(method), atol=1e-12)


def test_a_level_and_a_scale_do_not_matter() -> None:
    """Bits compare intensities: inside the image another level or a positive factor changes no pattern."""
    for how in ({"method": "default"}, {"method": "uniform", "radius": 1.5, "samples": 12}):
        found, moved = patterns(PLANE, **how)[2:-2, 2:-2], patterns(4 * PLANE + 64, **how)[2:-2, 2:-2]
        assert np.mean(found == moved) > 0.9  # rounding decides ties of interpolated points
    np.testing.assert_array_equal(patterns(PLANE, samples=4, method="ror")[1:-1, 1:-1],
                                  patterns(2 * PLANE + 8, samples=4, method="ror")[1:-1, 1:-1])


def test_a_quarter_turn_keeps_the_least_rotation() -> None:
    """The least rotation of the bits does not change when the picture is turned by 90 degrees."""
    turned = patterns(np.ascontiguousarray(np.rot90(PLANE)), samples=4, method="ror")
    np.testing.assert_array_equal(turned, np.rot90(patterns(PLANE, samples=4, method="ror")))


def test_planes_know_nothing_of_one_another() -> None:
    """A volume's patterns are those of each of its planes alone, in the volume's own dtype."""
    volume = np.stack([PLANE, PLANE[::-1], PLANE + 1]).astype(np.float32)
    box = (slice(0, 3), slice(0, 6), slice(0, 7))
    found = local_patterns(volume, box, LocalPattern())
    assert found.dtype == np.float32
    for plane, one in zip(volume, found, strict=True):
        np.testing.assert_array_equal(patterns(plane.astype(float)).astype(np.float32), one)


def test_a_flat_image_has_all_bits() -> None:
    """Where all is equal, every neighbour counts: all bits inside the image, and no variance."""
    flat = np.full((6, 6), 3.0)
    assert (patterns(flat, method="default")[2:-2, 2:-2] == 255).all()
    assert (patterns(flat, method="uniform")[2:-2, 2:-2] == 8).all()
    assert np.abs(patterns(flat, method="var")[2:-2, 2:-2]).max() < 1e-12
