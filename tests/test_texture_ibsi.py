"""The engine against the Image Biomarker Standardisation Initiative's consensus values (IBSI 1)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import texture_tags as tags
from numpy.typing import NDArray

from mtdlr.texture import GreyLevels
from mtdlr.texture.discretise import Discretised, discretise
from mtdlr.texture.firstorder import firstorder
from mtdlr.texture.glcm import glcm_features
from mtdlr.texture.matrices import LevelMap, dependences, differences, half_steps, level_map, pairs_and_runs, zones
from mtdlr.texture.morphology import shape
from mtdlr.texture.ngtdm import ngtdm_features
from mtdlr.texture.profile import GLCM
from mtdlr.texture.sizes import DEPENDENCE, RUN, ZONE, size_features

IBSI = Path(__file__).parents[1].parent / "shared" / "data" / "ibsi"
Conforms = Callable[[str, int, int], None]
needs_data = pytest.mark.skipif(not IBSI.exists(), reason="the IBSI phantoms lie in ../shared/data/ibsi")

def reference(name: str) -> Iterator[tuple[str, str, str, float, float]]:
    """(tag, family, feature tag, value, tolerance) of every consensus value that our features cover."""
    with (IBSI / "reference_values" / "mirp_csv" / f"{name}.csv").open(encoding="utf-8-sig") as file:
        for row in csv.DictReader(file, delimiter=";"):
            family, _, rest = row["tag"].partition("_")
            feature = rest.split("_2D")[0].split("_2_5D")[0].split("_3D")[0]
            extra = row["tag"] in ("stat_kurt", "ih_entropy", "ih_uniformity")
            if (extra or feature in tags.FAMILIES.get(family, {})) and row["reference value"]:
                yield row["tag"], family, feature, float(row["reference value"]), float(row["tolerance"])


def all_values(values: NDArray, mask: NDArray[np.bool_], spacing: tuple[float, float, float],
               morph_mask: NDArray[np.bool_], grey: GreyLevels) -> dict[str, float]:
    """Every covered IBSI tag of one region."""
    found = discretise(values[mask], grey)
    first = firstorder(values[mask], found.counts[1:], voxel_mm3=float(np.prod(spacing)))
    form = shape(morph_mask, spacing)
    out = {f"stat_{tag}": first[name] for tag, name in tags.STAT.items()}
    out |= {"stat_kurt": first["Kurtosis"] - 3, "ih_entropy": first["Entropy"], "ih_uniformity": first["Uniformity"]}
    out |= {f"morph_{tag}": form[name] for tag, name in tags.MORPH.items()}
    # PyRadiomics divides the covariance of the voxel positions by n, IBSI by n - 1; its kurtosis is not in excess of 3.
    n = np.count_nonzero(morph_mask)
    out |= {tag: out[tag] * np.sqrt(n / (n - 1)) for tag in out if tag.endswith("_axis")}
    whole, flat = level_map(found, mask, 1), level_map(found, mask, 1, 0)
    slices = [level_map(part, mask[z:z + 1], 1, 0) for z, part in by_slice(found, mask)]
    for suffix, maps in (("3D", [whole]), ("2_5D", [flat]), ("2D", slices)):
        out |= aggregated(suffix, maps)
    return out


def by_slice(found: Discretised, mask: NDArray[np.bool_]) -> Iterator[tuple[int, Discretised]]:
    """The grey levels of each slice that holds region voxels."""
    which = np.nonzero(mask)[0]
    for z in np.unique(which).tolist():
        level = found.level[which == z]
        yield z, Discretised(level, found.gray, np.bincount(level, minlength=found.gray.size))


def aggregated(suffix: str, maps: list[LevelMap]) -> dict[str, float]:
    """Tags of one aggregation: matrices of each map (a volume, or every slice), over directions or merged."""
    rows: dict[str, list[NDArray]] = {}
    for levels in maps:
        for kind, found in matrix_rows(levels).items():
            rows.setdefault(kind, []).append(found)
    out = {}
    for kind, blocks in rows.items():
        family, _, how = kind.partition(" ")
        names = {"cm": GLCM, "rlm": RUN, "szm": ZONE, "ngl": DEPENDENCE,
                 "ngt": ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength")}[family]
        mean = np.concatenate(blocks).mean(axis=0)
        for tag, name in tags.FAMILIES[family].items():
            out["_".join(part for part in (family, tag, suffix, how) if part)] = float(mean[names.index(name)])
    return out


def matrix_rows(levels: LevelMap) -> dict[str, NDArray]:
    """Features of each matrix of one map, one row a matrix."""
    gray, steps = levels.gray[1:], half_steps(levels.extent, (1,), planar=levels.planar)
    pairs, runs = pairs_and_runs(levels, steps)
    longest = np.arange(1, runs.shape[2] + 1)
    used = pairs.any(axis=(1, 2))
    matrix, sizes = zones(levels)
    dependent = dependences(levels, steps, 0)
    there = levels.counts[1:] > 0
    near = ngtdm_features(levels.counts[1:][there], differences(levels, steps)[there], gray[there])
    rows = {"rlm avg": size_features(runs, gray, longest), "rlm comb": size_features(runs.sum(0)[None], gray, longest),
            "szm": size_features(matrix[None], gray, sizes),
            "ngl": size_features(dependent[None], gray, np.arange(1, dependent.shape[1] + 1)),
            "ngt": np.array([list(near.values())])}
    if used.any():
        rows |= {"cm avg": glcm_features(pairs[used], gray), "cm comb": glcm_features(pairs.sum(0)[None], gray)}
    return rows


def misses(found: dict[str, float], name: str) -> tuple[int, list[str]]:
    """(how many values were compared, those outside the tolerance)."""
    compared, wrong = 0, []
    for tag, _, _, value, tolerance in reference(name):
        if tag in found:
            compared += 1
            # Where no tolerance is allowed, the value must agree as printed: to three digits.
            slack = tolerance or (0.5 * 10.0 ** (np.floor(np.log10(abs(value))) - 2) if value else 1e-9)
            if isnan(found[tag]) or abs(found[tag] - value) > slack * (1 + 1e-9):
                wrong.append(f"{tag}: {found[tag]:.6g}, expected {value:g} +- {tolerance:g}")
    return compared, wrong


def read(path: Path) -> tuple[sitk.Image, sitk.Image]:
    """(image, mask) of a phantom."""
    image = sitk.ReadImage(str(next((path / "nifti" / "image").glob("*.nii.gz"))), sitk.sitkFloat64)
    return image, sitk.ReadImage(str(next((path / "nifti" / "mask").glob("*.nii.gz"))), sitk.sitkFloat64)


def resampled(image: sitk.Image, spacing: tuple[float, ...], interpolator: int) -> sitk.Image:
    """The image on IBSI's grid: aligned at the middle, rounded up; beyond the border the edge goes on."""
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    new = np.ceil(size * old / spacing - 1e-6).astype(int)
    middle = image.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(middle) - direction @ ((new - 1) / 2 * np.array(spacing))
    grown = sitk.ConstantPad(image, [0, 0, 0], [0, 0, 0])
    return sitk.Resample(grown, new.tolist(), sitk.Transform(), interpolator, origin.tolist(), list(spacing),
                         image.GetDirection(), 0.0, sitk.sitkFloat64, True)


@needs_data
def test_digital_phantom(conforms: Conforms) -> None:
    """Every covered value of the digital phantom, in all aggregations, lies within the consensus tolerance."""
    image, mask = read(IBSI / "phantoms" / "ibsi_1_digital_phantom")
    values, inside = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask) > 0
    found = all_values(values, inside, (2.0, 2.0, 2.0), inside, GreyLevels(bin_width=1.0, origin=1.0))
    compared, wrong = misses(found, "ibsi_1_dig_phantom")
    assert wrong == []
    conforms("IBSI 1, digital phantom, all six aggregations", compared, compared)


def configuration(name: str) -> tuple[NDArray, NDArray[np.bool_], tuple[float, float, float], NDArray[np.bool_],
                                      GreyLevels]:
    """(values, intensity mask, spacing, morphological mask, grey levels) of one configuration of the CT phantom."""
    spacing, interpolator, limits, three_sigma, grey = {
        "a": (None, sitk.sitkLinear, (-500.0, 400.0), False, GreyLevels(bin_width=25.0, origin=-500.0)),
        "b": ((2.0, 2.0, None), sitk.sitkLinear, (-500.0, 400.0), False, GreyLevels(bin_count=32)),
        "c": ((2.0, 2.0, 2.0), sitk.sitkLinear, (-1000.0, 400.0), False, GreyLevels(bin_width=25.0, origin=-1000.0)),
        "d": ((2.0, 2.0, 2.0), sitk.sitkLinear, None, True, GreyLevels(bin_count=32)),
        "e": ((2.0, 2.0, 2.0), sitk.sitkBSpline, (-1000.0, 400.0), True, GreyLevels(bin_count=32)),
    }[name]
    image, mask = read(IBSI / "phantoms" / "ibsi_1_ct_radiomics_phantom")
    if spacing is not None:
        wanted = tuple(s if s is not None else o for s, o in zip(spacing, image.GetSpacing(), strict=True))
        image, mask = resampled(image, wanted, interpolator), resampled(mask, wanted, sitk.sitkLinear)
    values, inside = np.round(sitk.GetArrayFromImage(image)), sitk.GetArrayFromImage(mask) >= 0.5
    kept = inside.copy()
    if limits is not None:
        kept &= (values >= limits[0]) & (values <= limits[1])
    if three_sigma:
        mean, sd = values[kept].mean(), values[kept].std()
        kept &= (values >= mean - 3 * sd) & (values <= mean + 3 * sd)
    z, y, x = image.GetSpacing()[::-1]
    return values, kept, (z, y, x), inside, grey


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_ct_phantom(name: str, conforms: Conforms) -> None:
    """Every covered value of the CT phantom's five configurations lies within the consensus tolerance."""
    found = all_values(*configuration(name))
    compared, wrong = misses(found, f"ibsi_1_chest_config_{name}")
    assert wrong == []
    conforms(f"IBSI 1, configuration {name.upper()} of the CT phantom", compared, compared)
