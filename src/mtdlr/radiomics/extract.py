"""Radiomics of a region: named features of PET and CT (METHOD 5), and the PET parameters of the paper's Tables 1 and 2.

PET, CT and mask are brought onto one isotropic grid (cubic B-splines; the mask linearly at one half, as IBSI asks), cut
out around the region. A feature that is not defined for a region is nan, never 0; `problems` says which and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import isnan, nan, pi
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy  # which loads ndimage at its first use: 20 MB that most calls do not need
from numpy.typing import NDArray

from mtdlr import texture
from mtdlr.errors import Problem, StudyError
from mtdlr.imaging import grid
from mtdlr.imaging.plausible import AIR_MOSTLY, air_share
from mtdlr.volume import Volume

if TYPE_CHECKING:  # pydantic and nibabel, which an image in memory does not need
    from mtdlr.prepared import Prepared
    from mtdlr.study import RadiomicsSettings

AIR_HU = -1024.0
SOFT_TISSUE_HU = (-200.0, 200.0)
THRESHOLDS = {"2_5": (2.5, False), "4_0": (4.0, False), "41pct": (0.41, True), "50pct": (0.50, True)}
"""Suffix -> (SUV, or share of SUVmax when True) of metabolic tumour volumes."""
_HALF = 0.5 - 1e-6  # a voxel half filled belongs to the region, whatever the rounding
_SPLINE_REACH = 20  # voxels beyond which a B-spline's value does not depend on the image: 0.27^20 is 4e-12
_MARGIN = 6  # voxels kept around the region: the reach of a wavelet


def extract(pet: Volume | None, ct: Volume | None, mask: Volume, settings: RadiomicsSettings) -> dict[str, float]:
    """The features of one region: `PET_<image>_<class>_<Feature>`, `CT_...` and `shape_<Feature>`.

    Args:
        pet: SUV, or None to leave PET out.
        ct: HU, or None to leave CT out.
        mask: True (or > 0) inside the region, on any grid.
        settings: the study's `radiomics` section. Profile `paper1456` gives 720 + 720 + 16 features, `ibsi` the
            recommended set; a PyRadiomics parameter file is applied to each image as it is.

    Raises:
        ScanError: E-NONFINITE for nan or infinite intensities, E-GREYLEVELS for bins too narrow for the image.
        StudyError: E-PROFILE for an unknown profile, E-PARAMETERS for a parameter file that is not valid.
    """
    named: dict[str, float] = {}
    shape: dict[str, float] = {}
    for modality, image in (("PET", pet), ("CT", ct)):
        if image is None:
            continue
        for name, value in image_features(image, mask, profile(settings, modality)).items():
            if name.startswith("original_shape_"):
                shape.setdefault(name.removeprefix("original_"), value)
            else:
                named[f"{modality}_{name}"] = value
    return named | shape


def patient_features(
    patient: Prepared, mask: Volume | None, settings: RadiomicsSettings
) -> tuple[dict[str, float], tuple[Problem, ...]]:
    """The radiomics features inside a mask, and warnings about those that are not defined; none without a mask.

    A mask that is mostly air is W-MASKAIR: its features are kept, and the warning stands beside the patient.

    Args:
        patient: PET in SUV (g/ml) and CT in HU.
        mask: the tumour; None gives no features and W-NOMASK.
        settings: of the study (`radiomics`).

    Returns:
        (features by name, warnings); an undefined feature is nan.
    """
    if mask is None:
        return {}, (Problem("W-NOMASK", "no mask: no features"),)
    features = extract(patient.pet_suv, patient.ct_hu, mask, settings)
    air = air_share(mask, patient.ct_hu)
    if air <= AIR_MOSTLY:
        return features, problems(features)
    return features, (*problems(features), Problem(
        "W-MASKAIR", "the mask is mostly air: its features describe no tissue", where="mask", found=f"{air:.0%} air",
        expected=f"at most {AIR_MOSTLY:.0%}", remedy="Correct the mask, or leave the patient out"))


def patient_pet_parameters(patient: Prepared, mask: Volume | None) -> dict[str, float]:
    """SUVmax, MTV and the like inside a mask; none without one.

    Args:
        patient: PET in SUV (g/ml).
        mask: the tumour; None gives nothing.
    """
    return {} if mask is None else pet_parameters(patient.pet_suv, mask)


def profile(settings: RadiomicsSettings, modality: str) -> texture.Profile:
    """The profile of one modality: PET, CT, or any other image, binned like CT and never re-segmented.

    Args:
        settings: of the study (`radiomics`).
        modality: "PET", "CT" or another word.

    Raises:
        StudyError: E-PROFILE for an unknown name, E-NOPARAMETERS and E-PARAMETERS for a parameter file.
    """
    width = settings.pet_bin_width if modality == "PET" else settings.ct_bin_width
    onto = texture.Resampling((settings.spacing_mm,) * 3, aligned="center")
    if settings.profile == "paper1456":
        return replace(texture.paper1456(width), resampling=onto)
    if settings.profile == "ibsi":
        limits = {"PET": (0.0, None), "CT": SOFT_TISSUE_HU}.get(modality)
        found = texture.ibsi(width, resegment=limits)
        return replace(found, resampling=onto, whole_numbers=modality == "CT")
    if Path(settings.profile).suffix.lower() in (".yaml", ".yml", ".json"):
        return texture.read_parameters(settings.profile)
    raise StudyError(Problem("E-PROFILE", "unknown radiomics profile", where="radiomics.profile",
                             found=settings.profile, expected="paper1456, ibsi or a PyRadiomics parameter file"))


def image_features(image: Volume, mask: Volume, profile: texture.Profile) -> dict[str, float]:
    """One image's features by PyRadiomics' names (`original_glcm_Contrast`), on the profile's grid.

    Args:
        image: intensities.
        mask: a mask, or a label map of which the profile's label is taken; on any grid.
        profile: which features, and how they are made.
    """
    image, region = gridded(image, mask, profile)
    return texture.extract(image.array, region.array, image.spacing_mm, profile=replace(profile, normalise=False))


def image_feature_maps(image: Volume, mask: Volume, profile: texture.Profile) -> dict[str, Volume]:
    """One image's features voxel by voxel, each a map of the region's box on the profile's grid.

    Args:
        image: intensities.
        mask: as `image_features`.
        profile: which features, and how they are made; its `kernel` is the neighbourhood.
    """
    image, region = gridded(image, mask, profile)
    box, maps = texture.feature_maps(image.array, region.array, image.spacing_mm,
                                     profile=replace(profile, normalise=False))
    affine = image.affine.copy()
    affine[:3, 3] = image.points_mm([part.start for part in box])
    return {name: Volume(array, affine) for name, array in maps.items()}


def gridded(image: Volume, mask: Volume, profile: texture.Profile) -> tuple[Volume, Volume]:
    """(image, region) as features see them: normalised, on the profile's grid.

    Args:
        image: intensities.
        mask: a mask, or a label map of which the profile's label is taken; on any grid.
        profile: how features are made.
    """
    region = labelled(mask, profile.label)
    if profile.normalise:
        image = image.with_array(
            texture.normalise(image.array, scale=profile.normalise_scale, outliers=profile.outliers))
    if profile.resampling is None:
        return image, image.with_array(region.array if region.same_grid(image) else _nearest(region, image))
    if profile.resampling.aligned == "center":
        target = _centred_grid(region, profile.resampling)
        values = _spline(image, target)
        inside = (_linear(region, target) >= _HALF) & grid.inside(target, region)
        return target.with_array(np.round(values) if profile.whole_numbers else values), target.with_array(inside)
    target = _corner_grid(region, profile.resampling)
    values = _as_itk(image, target, profile.resampling.interpolation)
    return target.with_array(values), target.with_array(_as_itk(region, target, "nearest"))


def labelled(mask: Volume, label: int) -> Volume:
    """The region of a mask, or of one label of a label map.

    Args:
        mask: bool voxels, or a label map.
        label: the region's label in a label map.
    """
    return mask if mask.array.dtype == bool else mask.with_array(mask.array == label)


def _spline(image: Volume, target: Volume) -> NDArray[np.float64]:
    """The image on a grid by cubic B-splines; air, or no uptake, beyond the scan."""
    outside = AIR_HU if image.array.min() < SOFT_TISSUE_HU[0] else 0.0
    values, inside = _spline_values(image, target)
    return np.where(inside, values, outside)


def _spline_values(image: Volume, target: Volume) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(B-spline values in double precision, which of them lie inside the image or within half a voxel of it)."""
    near = grid.crop(image, grid.corners_mm(target), margin_mm=_SPLINE_REACH * max(image.spacing_mm))
    if near is None:
        return np.zeros(target.shape), np.zeros(target.shape, bool)
    curve = scipy.ndimage.spline_filter(near.array, 3, output=np.float64, mode="mirror")
    lines = _lines(near, target)
    if lines is None:
        positions = _positions(near, target)
        values = scipy.ndimage.map_coordinates(curve, np.stack(positions), order=3, mode="mirror", prefilter=False)
    else:
        order, positions = lines
        values = curve.transpose(order)
        for axis, p in enumerate(positions):
            values = texture.spline_along(values, axis, p.ravel())
        positions = [positions[order.index(axis)] for axis in range(3)]
    inside = np.ones(target.shape, bool)
    for p, n in zip(positions, near.shape, strict=True):
        inside &= (p >= -0.5 - 1e-6) & (p <= n - 0.5 + 1e-6)
    return np.asarray(values), inside


def _lines(volume: Volume, target: Volume) -> tuple[list[int], list[NDArray[np.float64]]] | None:
    """(the volume's axis along each of the target's, broadcastable positions there); None where a grid is turned."""
    step = np.linalg.inv(volume.affine) @ target.affine
    reach = np.abs(step[:3, :3]) * target.shape
    order = reach.argmax(axis=0).tolist()
    reach[order, range(3)] = 0.0
    if sorted(order) != [0, 1, 2] or reach.sum() > 1e-6:
        return None
    places = np.ogrid[tuple(slice(0, n) for n in target.shape)]
    return order, [step[old, 3] + step[old, new] * places[new] for new, old in enumerate(order)]


def _as_itk(image: Volume, target: Volume, interpolation: texture.Interpolation) -> NDArray:
    """The image on a grid as ITK resamples: 0 from the far border on, whole numbers cut off rather than rounded."""
    if interpolation == "linear":
        values = _linear(image, target)
    else:
        values = _nearest(image, target) if interpolation == "nearest" else _spline_values(image, target)[0]
    inside = [(p >= -0.5) & (p < n - 0.5 - 1e-9) for p, n in zip(_positions(image, target), image.shape, strict=True)]
    values = np.where(inside[0] & inside[1] & inside[2], values, 0)
    return np.trunc(values) if image.array.dtype.kind in "iu" else values.astype(image.array.dtype)


def _linear(volume: Volume, target: Volume) -> NDArray[np.float64]:
    """Trilinear values at the target's voxel centres, the edge going on outside; IBSI takes no averages."""
    positions = _positions(volume, target)
    low = [min(max(int(p.min()) - 1, 0), n - 1) for p, n in zip(positions, volume.shape, strict=True)]
    high = [max(int(p.max()) + 3, at + 1) for p, at in zip(positions, low, strict=True)]
    near = volume.array[tuple(map(slice, low, high))].astype(np.float64)
    index = np.stack([p - at for p, at in zip(positions, low, strict=True)])
    return np.asarray(scipy.ndimage.map_coordinates(near, index, order=1, mode="nearest"))


def _nearest(volume: Volume, target: Volume) -> NDArray:
    """The nearest voxels."""
    return grid.resample(volume, target, interpolation="nearest").array


def _positions(volume: Volume, target: Volume) -> list[NDArray[np.float64]]:
    """Index along each axis of the volume at every voxel centre of the target."""
    step = np.linalg.inv(volume.affine) @ target.affine
    k, j, i = np.ogrid[tuple(slice(0, n) for n in target.shape)]
    return [step[axis, 0] * k + step[axis, 1] * j + step[axis, 2] * i + step[axis, 3] for axis in range(3)]


def problems(features: Mapping[str, float]) -> tuple[Problem, ...]:
    """What has to be said about extracted features: W-EMPTYREGION, or W-UNDEFINED with the names that are nan."""
    undefined = [name for name, value in features.items() if isnan(value)]
    if not undefined:
        return ()
    if len(undefined) == len(features):
        return (Problem("W-EMPTYREGION", "the mask holds no voxel: every feature is missing",
                        remedy="Check the segmentation"),)
    shown = ", ".join(undefined[:5]) + (", ..." if len(undefined) > 5 else "")
    return (Problem("W-UNDEFINED", f"{len(undefined)} features are not defined for this region", found=shown,
                    remedy="The region is too small or too thin for them"),)


def pet_parameters(pet_suv: Volume, mask: Volume) -> dict[str, float]:
    """The PET parameters of a region.

    Args:
        pet_suv: SUVbw in g/ml.
        mask: the lesion or lesions, on any grid.

    Returns:
        max_diameter_cm; suv_max, suv_peak (highest mean of a 1 ml sphere centred in the mask), suv_mean (whole mask);
        mtv_ml_*, suv_mean_*, tlg_g_* of the mask's voxels at or above SUV 2.5 (`2_5`), 4.0 (`4_0`), 41 % (`41pct`) and
        50 % (`50pct`) of the mask's maximum; lesions (connected parts) and spread_cm, the largest distance between
        the centres of two of them. All nan for an empty mask; a mean over no voxel is nan, its volume 0.

    References:
        METHOD 1 (MTV and SUVmean at SUV 2.5, TLG = SUVmean x MTV); IBSI reference manual 3.2 (peak).
    """
    inside = grid.mask_onto(mask, pet_suv).array
    values = pet_suv.array[inside].astype(np.float64)
    names = [f"{what}_{suffix}" for suffix in THRESHOLDS for what in ("mtv_ml", "suv_mean", "tlg_g")]
    if values.size == 0:
        first = ("max_diameter_cm", "suv_max", "suv_peak", "suv_mean")
        return dict.fromkeys((*first, *names, "lesions", "spread_cm"), nan)
    lesions, spread = _spread(pet_suv.with_array(inside))
    found = {"max_diameter_cm": _diameter_cm(mask), "suv_max": float(values.max()),
             "suv_peak": _peak(pet_suv, inside), "suv_mean": float(values.mean())}
    for suffix, (level, relative) in THRESHOLDS.items():
        hot = values[values >= level * (values.max() if relative else 1.0)]
        volume = hot.size * pet_suv.voxel_ml
        mean = float(hot.mean()) if hot.size else nan
        found |= {f"mtv_ml_{suffix}": volume, f"suv_mean_{suffix}": mean,
                  f"tlg_g_{suffix}": mean * volume if hot.size else 0.0}
    return found | {"lesions": float(lesions), "spread_cm": spread}


def _centred_grid(region: Volume, resampling: texture.Resampling) -> Volume:
    """The part of IBSI's grid (aligned at the mask's middle) that holds the region and a margin."""
    whole = grid.isotropic_grid(grid.canonical(region), resampling.spacing_mm[0])
    places = np.argwhere(region.array)
    if places.size == 0:
        return grid.grid((1, 1, 1), whole.affine)
    ends = np.array(list(product(*zip(places.min(0) - 0.5, places.max(0) + 0.5, strict=True))))
    index = whole.indices(region.points_mm(ends))
    low = np.floor(index.min(axis=0)).astype(int) - _MARGIN
    high = np.ceil(index.max(axis=0)).astype(int) + _MARGIN
    affine = whole.affine.copy()
    affine[:3, 3] = whole.points_mm(low)
    return grid.grid((high - low + 1).tolist(), affine)


def _corner_grid(region: Volume, resampling: texture.Resampling) -> Volume:
    """PyRadiomics' grid: the mask's axes, aligned at its first corner, the region and a margin as far as the mask goes.

    An axis along which the region is one voxel thick keeps its spacing.
    """
    old = np.array(region.spacing_mm)
    places = np.argwhere(region.array)
    if places.size == 0:
        return grid.grid((1, 1, 1), region.affine)
    first, last = places.min(axis=0), places.max(axis=0)
    new = np.where((np.array(resampling.spacing_mm) == 0) | (first == last), old, resampling.spacing_mm)
    ratio, pad = old / new, resampling.pad_voxels
    if np.allclose(old, new):
        low, high = np.maximum(first - pad, 0), np.minimum(last + pad, np.array(region.shape) - 1)
    else:
        low = np.maximum(np.floor((first - 0.5) * ratio - pad), 0)
        high = np.minimum(np.ceil((last + 0.5) * ratio + pad), np.ceil(np.array(region.shape) * ratio) - 1)
    affine = region.affine.copy()
    affine[:3, :3] = region.affine[:3, :3] / ratio
    affine[:3, 3] = region.points_mm(low / ratio + 0.5 * (new - old) / old)
    return grid.grid((high - low + 1).astype(int).tolist(), affine)


def _diameter_cm(mask: Volume) -> float:
    """The largest diameter of the mask's surface."""
    inside = mask.array > 0
    return texture.shape(inside[texture.bounding_box(inside)], mask.spacing_mm)["Maximum3DDiameter"] / 10.0


def _peak(pet: Volume, inside: NDArray[np.bool_]) -> float:
    """The highest mean of the voxels within a sphere of 1 ml, over spheres centred at the mask's voxels."""
    reach = (3000.0 / (4.0 * pi)) ** (1 / 3)
    ranges = [range(-int(reach // step), int(reach // step) + 1) for step in pet.spacing_mm]
    steps = [np.array(o) for o in product(*ranges) if np.linalg.norm(np.array(o) * pet.spacing_mm) <= reach]
    places = np.argwhere(inside)
    total, count = np.zeros(len(places)), np.zeros(len(places))
    for step in steps:
        at = places + step
        valid = ((at >= 0) & (at < pet.shape)).all(axis=1)
        total[valid] += pet.array[tuple(at[valid].T)]
        count[valid] += 1
    return float((total / count).max())


def _spread(mask: Volume) -> tuple[int, float]:
    """(number of connected parts, largest distance between the centres of two in cm)."""
    labels, count = scipy.ndimage.label(mask.array, structure=np.ones((3, 3, 3)))
    centres = mask.points_mm(np.array(scipy.ndimage.center_of_mass(mask.array, labels, np.arange(1, count + 1))))
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    return int(count), float(gaps.max()) / 10.0
