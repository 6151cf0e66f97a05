"""Whether a predicted mask can be a tumour, and the mask as it lies on a scan's own grid."""

from __future__ import annotations

import numpy as np

from mtdlr.errors import Problem
from mtdlr.imaging import grid
from mtdlr.volume import Volume

AIR_HU = -300.0
MOST_ML = 2500.0  # the largest of 36 real sarcomas has 2,339 ml, the largest head-and-neck tumours some 200 ml
BODY_SHARE = 0.5
AIR_WARNED = 0.1  # manual masks of the same patients hold 0 to 1.7 % of air
AIR_MOSTLY = 0.5


def seen_by_both(region: Volume, pet: Volume, ct: Volume) -> np.ndarray:
    """Voxels of a grid whose centres lie inside both scans, bool (z, y, x): nowhere else is a tumour predicted.

    Args:
        region: the grid; only its shape and affine count.
        pet: any volume on the PET's grid.
        ct: any volume on the CT's grid.
    """
    return grid.inside(region, pet) & grid.inside(region, ct)


def air_share(mask: Volume, ct: Volume) -> float:
    """Share (0 to 1) of a mask's voxels that hold air or lie outside the CT; 0 for an empty mask.

    Args:
        mask: bool, on any grid.
        ct: HU.
    """
    inside = mask.array > 0
    if not inside.any():
        return 0.0
    hu = grid.resample(ct, mask, interpolation="nearest", outside=-2000).array
    return float((hu[inside] < AIR_HU).mean())


def mask_doubts(mask: Volume, ct: Volume) -> tuple[Problem, ...]:
    """W-MASKVOLUME and W-MASKAIR for a predicted mask that can hardly be a tumour.

    Args:
        mask: bool, on the network grid.
        ct: HU, the patient's own voxels around the region.
    """
    volume_ml = grid.mask_volume_ml(mask)
    hu = grid.resample(ct, grid.grid(mask.shape, mask.affine), interpolation="nearest", outside=-2000).array
    body_ml = float(np.count_nonzero(hu >= AIR_HU)) * mask.voxel_ml
    air = air_share(mask, ct)
    problems = []
    if volume_ml > MOST_ML or volume_ml > BODY_SHARE * body_ml:
        problems.append(Problem("W-MASKVOLUME", "the predicted mask is larger than a tumour can be", where="mask",
                                found=f"{volume_ml:.0f} ml in {body_ml:.0f} ml of body",
                                expected=f"at most {MOST_ML:.0f} ml and {BODY_SHARE:.0%} of the body in the region",
                                remedy="Look at the mask; do not use what follows from it"))
    if air > AIR_WARNED:
        problems.append(Problem("W-MASKAIR", "the predicted mask holds air", where="mask", found=f"{air:.0%} of it",
                                expected=f"at most {AIR_WARNED:.0%}",
                                remedy="Look at the mask; do not use what follows from it"))
    return tuple(problems)
