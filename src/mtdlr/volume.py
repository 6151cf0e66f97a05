"""A volume: voxels and where they lie in the patient. The only image type that crosses a file boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtdlr.errors import Problem, ScanError


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (z, y, x) and the affine that takes an array index to a point in the patient.

    Args:
        array: (z, y, x), any numeric dtype or bool; made read-only.
        affine: (4, 4), array index (k, j, i, 1) -> (x, y, z, 1) in LPS millimetres. Its columns follow the ARRAY
            axes, so column 0 is the step along array axis 0 (z).

    Raises:
        ScanError: E-GEOMETRY when the array is not 3-D, has an empty axis, or the affine is singular or not finite.

    >>> v = Volume.on_grid(np.zeros((4, 5, 6)), spacing_mm=(3.0, 2.0, 1.0))
    >>> v.spacing_mm, v.center_mm
    ((3.0, 2.0, 1.0), (2.5, 4.0, 4.5))
    """

    array: NDArray
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        array = np.asanyarray(self.array).view()
        affine = np.array(self.affine, dtype=np.float64)
        if array.ndim != 3 or 0 in array.shape:
            raise _bad("a volume has three non-empty axes (z, y, x)", f"shape {array.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise _bad("the affine is not an invertible 4x4 matrix", np.array2string(affine, precision=3))
        array.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def on_grid(
        cls, array: ArrayLike, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0), origin_mm: Sequence[float] = (0, 0, 0)
    ) -> Volume:
        """A volume whose array axes run along the patient's z, y and x.

        Args:
            array: (z, y, x).
            spacing_mm: (z, y, x) voxel size in mm.
            origin_mm: (x, y, z) of the first voxel's centre, LPS mm.
        """
        affine = np.zeros((4, 4))
        affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
        affine[:3, 3] = origin_mm
        affine[3, 3] = 1.0
        return cls(np.asanyarray(array), affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxel counts."""
        z, y, x = self.array.shape
        return z, y, x

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Step lengths along the array axes (z, y, x) in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def center_mm(self) -> tuple[float, float, float]:
        """The point (x, y, z) in LPS mm at the middle of the grid."""
        x, y, z = self.points_mm([(n - 1) / 2.0 for n in self.shape]).tolist()
        return x, y, z

    def points_mm(self, indices: ArrayLike) -> NDArray[np.float64]:
        """LPS points (..., 3) in mm of array indices (..., 3) in (z, y, x) order."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def indices(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """Fractional array indices (..., 3) in (z, y, x) order of LPS points (..., 3) in mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points_mm, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    def with_array(self, array: NDArray) -> Volume:
        """Other voxels on the same grid."""
        assert array.shape == self.shape, (array.shape, self.shape)
        return Volume(array, self.affine)

    def same_grid(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether every corner voxel of both grids coincides within `tolerance_mm`.

        Args:
            other: any volume; its voxels do not count.
            tolerance_mm: largest distance in mm.
        """
        if self.shape != other.shape:
            return False
        corners = np.array([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * (np.array(self.shape) - 1)
        return bool(np.abs(self.points_mm(corners) - other.points_mm(corners)).max() <= tolerance_mm)


def _bad(what: str, found: str) -> ScanError:
    return ScanError(Problem("E-GEOMETRY", what, found=found))
