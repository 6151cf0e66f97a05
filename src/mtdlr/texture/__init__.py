"""Radiomics features: PyRadiomics' names and definitions, computed by our own engine."""

from mtdlr.texture.engine import bounding_box, extract, is_compiled, normalise
from mtdlr.texture.morphology import shape
from mtdlr.texture.parameters import profile_of, read_parameters
from mtdlr.texture.profile import (
    FEATURES,
    Filter,
    GreyLevels,
    Interpolation,
    Profile,
    Resampling,
    default_features,
    ibsi,
    paper1456,
)
from mtdlr.texture.spline import spline_along

__all__ = ["FEATURES", "Filter", "GreyLevels", "Interpolation", "Profile", "Resampling", "bounding_box",
           "default_features", "extract", "ibsi", "is_compiled", "normalise", "paper1456", "profile_of",
           "read_parameters", "shape", "spline_along"]
