"""A triangle mesh around a region: marching cubes at half height of a 0/1 mask (Lorensen & Cline 1987)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mtdlr.texture.compiled import entry

_EDGES = np.array([(0, 0, 1), (0, 1, 2), (0, 2, 1), (0, 1, 0), (2, 0, 1), (2, 1, 2), (2, 2, 1), (2, 1, 0),
                   (1, 0, 0), (1, 0, 2), (1, 2, 2), (1, 2, 0)]) / 2.0

# The classical table for the 128 cubes whose last corner is outside: triangles as triples of edges in hexadecimal,
# normals outward. A cube whose last corner is inside is its complement turned inside out.
_TRIANGLES = """
- 083 019 183.198 12a 083.12a 029.2a9 283.2a8.8a9 23b 08b.0b2 019.23b 19b.1b2.8b9 13a.3ba 08a.0a1.8ba
039.3b9.9ba 8a9.8ba 478 043.347 019.478 147.173.194 12a.478 043.12a.347 029.2a9.478 273.297.2a9.479 23b.478
042.24b.47b 019.23b.478 192.29b.47b.4b9 13a.3ba.478 041.14b.1ba.47b 039.3b9.478.9ba 47b.4b9.9ba 495 083.495
015.054 153.358.485 12a.495 083.12a.495 024.254.2a5 253.2a5.348.354 23b.495 08b.0b2.495 015.054.23b
152.258.28b.485 13a.3ba.495 08a.0a1.495.8ba 03b.054.0b5.5ba 485.58a.8ba 579.789 093.357.395 017.078.157 157.173
12a.579.789 093.12a.357.395 028.258.2a5.578 253.2a5.357 23b.579.789 092.27b.297.579 018.157.178.23b 157.17b.1b2
13a.3ba.579.789 057.07b.095.0a1.0ba 03b.057.078.0a5.0ba 57b.5ba 5a6 083.5a6 019.5a6 183.198.5a6 126.165
083.126.165 026.069.596 258.265.283.598 23b.5a6 08b.0b2.5a6 019.23b.5a6 19b.1b2.5a6.8b9 135.365.3b6
051.08b.0b5.5b6 036.059.065.3b6 596.69b.8b9 478.5a6 043.347.5a6 019.478.5a6 147.173.194.5a6 126.165.478
043.126.165.347 026.069.478.596 269.293.397.479.596 23b.478.5a6 042.24b.47b.5a6 019.23b.478.5a6
192.29b.47b.4b9.5a6 135.365.3b6.478 04b.0b1.1b5.47b.5b6 036.059.065.3b6.478 479.596.69b.7b9 49a.4a6 083.49a.4a6
01a.064.0a6 168.183.1a6.486 124.149.264 083.124.149.264 024.264 248.264.283 23b.49a.4a6 08b.0b2.49a.4a6
01a.064.0a6.23b 148.164.18b.1a6.1b2 139.369.3b6.496 081.149.164.18b.1b6 036.064.3b6 486.68b 67a.78a.89a
073.09a.0a7.67a 018.178.1a7.67a 173.1a7.67a 126.168.189.678 093.129.269.397.679 026.067.078 267.273
23b.67a.78a.89a 072.097.27b.67a.79a 018.178.1a7.23b.67a 167.17b.1a6.1b2 136.169.3b6.678.689 091.67b
03b.067.078.0b6 67b
""".split()


def surface(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """(area in mm2, enclosed volume in mm3) of a region's mesh.

    Args:
        mask: (z, y, x) with a border of at least one voxel outside the region on every side.
        spacing_mm: (z, y, x).

    >>> one = np.pad(np.ones((1, 1, 1), bool), 1)
    >>> area, volume = surface(one, (1.0, 1.0, 1.0))
    >>> round(area, 4), round(volume, 4)
    (1.7321, 0.1667)
    """
    cubes, places = np.zeros(256, np.int64), np.zeros((256, 3), np.int64)
    _count_cubes(np.ascontiguousarray(mask).view(np.uint8), cubes, places)
    owner, corners = _triangles()
    spacing = np.array(spacing_mm)
    a, b, c = (corners * spacing).transpose(1, 0, 2)
    normal = np.cross(a - c, b - c)
    area = float(((cubes[owner] + cubes[255 - owner]) * np.sqrt((normal * normal).sum(1))).sum()) / 2
    # Six times the volume between a triangle and the origin is det(a, b, c); moved by o it grows by o . normal.
    own = (cubes[owner] - cubes[255 - owner]) * (np.cross(a, b) * c).sum(1)
    moved = ((places[owner] - places[255 - owner]) * spacing * normal).sum(1)
    return area, float((own + moved).sum()) / 6


@cache
def _triangles() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(cube of each triangle, (triangles, 3 corners, 3 coordinates) in voxels)."""
    rows = [(cube, t) for cube, cell in enumerate(_TRIANGLES) if cell != "-" for t in cell.split(".")]
    return np.array([cube for cube, _ in rows]), np.array([[_EDGES[int(e, 16)] for e in t] for _, t in rows])


@entry("u1[:,:,::1], i8[::1], i8[:,::1]")
def _count_cubes(mask: NDArray[np.uint8], cubes: NDArray[np.int64], places: NDArray[np.int64]) -> None:
    """Count the cubes of 2x2x2 voxels by which corners are inside, and sum their places."""
    nz, ny, nx = mask.shape
    for z in range(nz - 1):
        for y in range(ny - 1):
            a, b, c, d = (int(mask[z, y, 0]), int(mask[z, y + 1, 0]), int(mask[z + 1, y, 0]),
                          int(mask[z + 1, y + 1, 0]))
            for x in range(nx - 1):
                cube = a + 8 * b + 16 * c + 128 * d
                a, b, c, d = (int(mask[z, y, x + 1]), int(mask[z, y + 1, x + 1]), int(mask[z + 1, y, x + 1]),
                              int(mask[z + 1, y + 1, x + 1]))
                cube += 2 * a + 4 * b + 32 * c + 64 * d
                if cube != 0 and cube != 255:
                    cubes[cube] += 1
                    places[cube, 0] += z
                    places[cube, 1] += y
                    places[cube, 2] += x
