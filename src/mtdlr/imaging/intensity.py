"""From SUV and HU to what a network sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def scale_ct(ct_hu: NDArray, window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """CT clipped to the window and mapped to [-1, 1]; air below the window is -1.

    Args:
        ct_hu: any shape, HU.
        window_hu: (low, high), HU.

    >>> scale_ct(np.array([-2000.0, 0.0, 1024.0]), (-1024.0, 1024.0)).tolist()
    [-1.0, 0.0, 1.0]
    """
    low, high = window_hu
    clipped = np.clip(ct_hu.astype(np.float32, copy=False), low, high)
    return ((clipped - low) * (2.0 / (high - low)) - 1.0).astype(np.float32, copy=False)


def clip_pet(pet_suv: NDArray, top_suv: float) -> NDArray[np.float32]:
    """PET clipped to [0, top_suv] and divided by top_suv: keeps absolute uptake, 0 is no uptake, 1 is `top_suv`.

    Args:
        pet_suv: SUV, g/ml, of any shape.
        top_suv: the SUV that becomes 1, > 0.

    >>> clip_pet(np.array([-0.1, 5.0, 40.0]), 25.0).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    return np.clip(pet_suv.astype(np.float32, copy=False), 0.0, top_suv) / np.float32(top_suv)


def standardise_pet(pet_suv: NDArray, inside: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """PET minus its mean over its standard deviation; zeros for a flat image (METHOD 2: the paper group's habit).

    Args:
        pet_suv: any shape, g/ml.
        inside: the voxels that the scan holds, same shape; mean and deviation are theirs, so that they do not depend on
            how much of the grid lies outside the field of view. None for all.
    """
    values = pet_suv.astype(np.float64)
    known = values if inside is None or not inside.any() else values[inside]
    spread = known.std()
    if spread < 1e-12:
        return np.zeros(values.shape, dtype=np.float32)
    return ((values - known.mean()) / spread).astype(np.float32)
