"""PyRadiomics parameter files: read as they are, turned into a `Profile`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mtdlr.errors import Problem, StudyError
from mtdlr.texture.profile import (
    CLASSES,
    FEATURES,
    WITHOUT_VALUE,
    Filter,
    GreyLevels,
    Kernel,
    LocalPattern,
    Profile,
    Resampling,
    default_features,
)

log = logging.getLogger(__name__)
_IMAGES = {"Original": "original", "Wavelet": "wavelet", "LoG": "log", "Square": "square", "SquareRoot": "squareroot",
           "Logarithm": "logarithm", "Exponential": "exponential", "Gradient": "gradient",
           "LBP2D": "lbp2d"}
_INTERPOLATORS = {"sitkNearestNeighbor": "nearest", "sitkLinear": "linear", "sitkBSpline": "bspline",
                  1: "nearest", 2: "linear", 3: "bspline"}
_CLASSES = tuple(sorted(FEATURES))
_REFUSED = {"LBP3D": "PyRadiomics itself makes it only with scipy before 1.17. Use LBP2D, or leave it out",
            "Volume": "Since PyRadiomics 2.0 it is called MeshVolume", "MajorAxis": "It is called MajorAxisLength",
            "MinorAxis": "It is called MinorAxisLength", "LeastAxis": "It is called LeastAxisLength",
            "inputImage": "Since PyRadiomics 1.3 it is called imageType"}
_NUMBERS = {"binWidth": 25.0, "binCount": None, "minimumROIDimensions": 2, "minimumROISize": None, "label": 1,
            "normalizeScale": 1.0, "removeOutliers": None, "padDistance": 5, "force2Ddimension": 0, "start_level": 0,
            "level": 1, "voxelArrayShift": 0, "gldm_a": 0, "lbp2DRadius": 1.0, "lbp2DSamples": 8, "kernelRadius": 1}
_SWITCHES = {"normalize": False, "force2D": False, "resegmentShape": False, "preCrop": False,
             "gradientUseSpacing": True, "symmetricalGLCM": True, "additionalInfo": True, "maskedKernel": True}
_LISTS = {"resampledPixelSpacing": None, "resegmentRange": None, "distances": [1], "sigma": []}
_WORDS: dict[str, tuple[object, tuple[object, ...]]] = {
    "interpolator": ("sitkBSpline", (None, *_INTERPOLATORS)),
    "resegmentMode": ("absolute", ("absolute", "relative", "sigma")),
    "lbp2DMethod": ("uniform", ("default", "ror", "uniform", "var")),
    "weightingNorm": (None, (None, "infinity", "euclidean", "manhattan", "no_weighting")),
}
_DEFAULTS: dict[str, Any] = {**_NUMBERS, **_SWITCHES, **_LISTS, **{k: v[0] for k, v in _WORDS.items()},
                             "wavelet": "coif1", "initValue": 0.0}
_WITHOUT_EFFECT = ("geometryTolerance", "correctMask", "label_channel", "voxelBatch", "lbp3DLevels",
                   "lbp3DIcosphereRadius", "lbp3DIcosphereSubdivision")


def read_parameters(path: str | Path) -> Profile:
    """The profile of a PyRadiomics parameter file (YAML or JSON).

    Raises:
        StudyError: E-NOPARAMETERS when there is no such file, E-PARAMETERS for all that is wrong in it at once.
    """
    return profile_of(read_content(path), where=Path(path).name)


def read_content(path: str | Path) -> Any:
    """The content of a parameter file, not yet checked; an empty mapping for an empty file.

    Args:
        path: YAML or JSON.

    Raises:
        StudyError: E-NOPARAMETERS when there is no such file, E-PARAMETERS when it is not YAML.
    """
    path = Path(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except OSError:
        raise StudyError(Problem("E-NOPARAMETERS", "there is no such parameter file", where=str(path))) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(getattr(error, "problem_mark", None), "line", None)
        raise StudyError(Problem("E-PARAMETERS", "not valid YAML", where=path.name,
                                 found="" if where is None else f"line {where + 1}")) from None


def profile_of(values: Mapping[str, Any], *, where: str = "parameters") -> Profile:
    """The profile of a parameter file's content: mappings `setting`, `imageType`, `featureClass`.

    Args:
        values: the content of the file.
        where: what the file is called in a message.

    Raises:
        StudyError: all that is unknown or out of range in the file, at once.

    >>> profile = profile_of({"setting": {"binWidth": 5}, "featureClass": {"glcm": ["Contrast"]}})
    >>> profile.features, profile.filters[0].grey_levels.bin_width
    ({'glcm': ('Contrast',)}, 5.0)
    """
    problems: list[Problem] = []
    tables = _tables(values, problems)
    settings = _settings(tables["setting"] | tables["voxelSetting"], "setting", problems)
    images = tables["imageType"] or {"Original": {}}
    custom = {name: _settings(own, f"imageType.{name}", problems) for name, own in images.items()
              if _known(name, _IMAGES, "imageType", problems)}
    features = _features(tables["featureClass"], problems)
    if problems:
        raise StudyError(problem.at(where) for problem in problems)
    full = _DEFAULTS | settings
    if "shape2D" in features and not full["force2D"]:
        del features["shape2D"]
        log.warning("shape2D is left out: it needs force2D: true")
    filters = tuple(_filter(_IMAGES[name], full | own) for name, own in custom.items())
    return _profile(full, features, filters)


def _tables(values: Mapping[str, Any], problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """The file's four tables, empty where absent."""
    tables: dict[str, dict[str, Any]] = {"setting": {}, "voxelSetting": {}, "imageType": {}, "featureClass": {}}
    if not isinstance(values, Mapping):
        problems.append(_wrong("the file is not a mapping", "", values))
        return tables
    for key, table in values.items():
        if not _known(key, tables, "", problems) or table is None:
            continue
        if isinstance(table, Mapping):
            tables[key] = {str(k): v for k, v in table.items()}
        else:
            problems.append(_wrong("must be a mapping", key, table))
    return tables


def _settings(table: Any, where: str, problems: list[Problem]) -> dict[str, Any]:
    """The settings given, checked; those without effect on features here left out."""
    found: dict[str, Any] = {}
    if table is not None and not isinstance(table, Mapping):
        problems.append(_wrong("must be a mapping", where, table))
        return found
    for key, value in (table or {}).items():
        if key in _WITHOUT_EFFECT:
            continue
        if _known(key, _DEFAULTS, where, problems):
            wrong = _complaint(key, value)
            if wrong:
                problems.append(_wrong(wrong, f"{where}.{key}", value))
            found[key] = value
    return found


def _complaint(key: str, value: Any) -> str:
    """What is wrong with a value, or nothing."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _NUMBERS:
        positive = key in ("binWidth", "binCount", "normalizeScale", "removeOutliers", "level", "label", "lbp2DRadius",
                           "lbp2DSamples", "kernelRadius")
        if value is None:
            return "" if _NUMBERS[key] is None or key == "binWidth" else "must be a number"
        if not number or (value < 0 and key != "voxelArrayShift") or (positive and value <= 0):
            return "must be a positive number"
    if key in _SWITCHES and not isinstance(value, bool):
        return "must be true or false"
    if key == "initValue":
        return "" if _is_float(value) else "must be a number or nan"
    if key in _LISTS and value is not None:
        if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
            return "must be a list of numbers"
        if len(value) not in {"resampledPixelSpacing": (3,), "resegmentRange": (1, 2)}.get(key, (len(value),)):
            return "has the wrong number of values"
    if key in _WORDS and value not in _WORDS[key][1]:
        return f"must be one of {', '.join(str(word) for word in _WORDS[key][1] if isinstance(word, str))}"
    return ""


def _is_float(value: Any) -> bool:
    """Whether a value is a number, or nan as YAML's text has it."""
    return (isinstance(value, int | float) and not isinstance(value, bool)) or str(value).lower() == "nan"


def _features(table: Mapping[str, Any], problems: list[Problem]) -> dict[str, tuple[str, ...]]:
    """Feature names by class."""
    found: dict[str, tuple[str, ...]] = {}
    for group, names in (table or dict.fromkeys(_CLASSES)).items():
        if not _known(group, CLASSES, "featureClass", problems):
            continue
        wanted = tuple(names or default_features(group))
        for name in wanted:
            if name not in WITHOUT_VALUE.get(group, ()):
                _known(name, CLASSES[group], f"featureClass.{group}", problems)
        found[group] = tuple(name for name in wanted if name in CLASSES[group])
    return found


def _known(key: Any, allowed: Any, where: str, problems: list[Problem]) -> bool:
    """Whether a name is one we have; otherwise a problem that suggests the nearest."""
    if key in allowed:
        return True
    near = difflib.get_close_matches(str(key), [str(name) for name in allowed], n=1)
    remedy = _REFUSED.get(str(key)) or (f"Did you mean {near[0]}?" if near else "Remove it")
    problems.append(Problem("E-PARAMETERS", "not known, or not supported here", where=f"{where}.{key}".strip("."),
                            remedy=remedy))
    return False


def _wrong(what: str, where: str, value: Any) -> Problem:
    return Problem("E-PARAMETERS", what, where=where, found=repr(value))


def _filter(kind: Any, values: Mapping[str, Any]) -> Filter:
    """One image type with its settings."""
    width = values["binWidth"]
    grey = GreyLevels(
        bin_width=25.0 if width is None else float(width), bin_count=values["binCount"],
        distances=tuple(values["distances"] or [1]),
        plane_axis=values["force2Ddimension"] if values["force2D"] else None, symmetric=values["symmetricalGLCM"],
        weighting=values["weightingNorm"], dependence=values["gldm_a"], shift=float(values["voxelArrayShift"]))
    return Filter(kind, grey, wavelet=values["wavelet"], start_level=values["start_level"], levels=values["level"],
                  sigmas_mm=tuple(values["sigma"] or ()), gradient_spacing=values["gradientUseSpacing"],
                  pattern=LocalPattern(float(values["lbp2DRadius"]), values["lbp2DSamples"], values["lbp2DMethod"],
                                       values["force2Ddimension"]))


def _profile(values: Mapping[str, Any], features: dict[str, tuple[str, ...]], filters: tuple[Filter, ...]) -> Profile:
    """The profile of checked settings."""
    profile = Profile(features, filters, normalise=values["normalize"], normalise_scale=values["normalizeScale"],
                      outliers=values["removeOutliers"], resegment_mode=values["resegmentMode"],
                      resegment_shape=values["resegmentShape"], min_dimensions=values["minimumROIDimensions"],
                      min_voxels=values["minimumROISize"] or 0, label=values["label"],
                      diagnostics=values["additionalInfo"],
                      kernel=Kernel(values["kernelRadius"], values["maskedKernel"], float(values["initValue"])))
    limits = values["resegmentRange"]
    if limits:
        low, *rest = sorted(limits)
        profile = replace(profile, resegment=(float(low), float(rest[0]) if rest else None))
    spacing = values["resampledPixelSpacing"]
    if spacing and values["interpolator"] is not None:
        x, y, z = map(float, spacing)
        grid = Resampling((z, y, x), _INTERPOLATORS[values["interpolator"]], values["padDistance"])  # type: ignore[arg-type]
        return replace(profile, resampling=grid)
    return replace(profile, crop=values["padDistance"]) if values["preCrop"] else profile
