"""Which features survive a slightly different contour and a little more noise, as a table and as a filter.

The filter looks at features alone, never at outcomes, and only at the patients it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtdlr.radiomics import extract as radiomics
from mtdlr.study import RadiomicsSettings
from mtdlr.texture.robustness import intraclass_correlation, noisy, perturbed_mask
from mtdlr.volume import Volume


def perturbed_features(pet: Volume | None, ct: Volume | None, mask: Volume, settings: RadiomicsSettings, *,
                       seeds: Sequence[int], contour_mm: float = 2.0) -> list[dict[str, float]]:
    """The features of a patient once per seed, under a displaced contour and added noise.

    Args:
        pet: SUV; None where there is none.
        ct: HU; None where there is none.
        mask: the tumour.
        settings: of the study (`radiomics`).
        seeds: one perturbation each.
        contour_mm: standard deviation of the contour's displacement.
    """
    found = []
    for seed in seeds:
        own = range(3 * seed, 3 * seed + 3)  # contour, PET and CT do not share their random numbers
        moved = perturbed_mask(mask.array > 0, mask.spacing_mm, contour_mm=contour_mm, seed=own[0])
        images = [image and image.with_array(noisy(image.array, _around(mask, image), seed=number))
                  for image, number in zip((pet, ct), own[1:], strict=True)]
        found.append(radiomics.extract(images[0], images[1], mask.with_array(moved), settings))
    return found


def robustness(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """ICC(1) of every feature over perturbations, with its 95 % interval: columns icc, low, high, one row a feature.

    Args:
        tables: (patients, features), at least two: as given, and once a perturbation; patients with a feature
            missing in any of them take no part in that feature's ICC.

    >>> volume = pd.DataFrame({"shape_MeshVolume": [1.0, 2.0, 4.0, 8.0]})
    >>> robustness([volume, volume * 1.01]).round(3).loc["shape_MeshVolume"].tolist()
    [1.0, 0.999, 1.0]
    """
    values = np.stack([table.to_numpy(dtype=np.float64) for table in tables], axis=2)
    rows = [_correlation(values[:, j]) for j in range(values.shape[1])]
    return pd.DataFrame(rows, index=tables[0].columns, columns=["icc", "low", "high"])


def robust_features(tables: Sequence[pd.DataFrame], min_icc: float) -> list[str]:
    """Names of the features whose ICC is at least `min_icc` with 97.5 % confidence (Zwanenburg 2019 takes 0.75).

    Args:
        tables: as `robustness`.
        min_icc: least lower limit of the ICC's interval.
    """
    low = robustness(tables)["low"]
    return [str(name) for name in low.index[low >= min_icc]]


def _correlation(values: np.ndarray) -> tuple[float, float, float]:
    """ICC(1) and its interval over the patients that have every value; nan for fewer than two."""
    whole = values[np.isfinite(values).all(axis=1)]
    return intraclass_correlation(whole) if len(whole) > 1 else (np.nan, np.nan, np.nan)


def _around(mask: Volume, image: Volume) -> tuple[slice, slice, slice]:
    """The image's voxels in the bounding box of the mask; all of them where it is empty or outside."""
    places = np.argwhere(mask.array > 0)
    index = image.indices(mask.points_mm(places)) if places.size else np.zeros((1, 3))
    low, high = np.floor(index.min(axis=0)).astype(int), np.ceil(index.max(axis=0)).astype(int) + 1
    z, y, x = (slice(max(a, 0), min(b, n)) if max(a, 0) + 1 < min(b, n) else slice(0, n)
               for a, b, n in zip(low, high, image.shape, strict=True))
    return z, y, x
