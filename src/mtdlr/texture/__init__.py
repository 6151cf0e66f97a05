"""Radiomics features: PyRadiomics' names and definitions, computed by our own engine."""

from mtdlr.texture.engine import bounding_box, extract, is_compiled, normalise
from mtdlr.texture.maps import feature_maps
from mtdlr.texture.morphology import shape
from mtdlr.texture.parameters import profile_of, read_content, read_parameters
from mtdlr.texture.profile import (
    CLASSES,
    FEATURES,
    Filter,
    GreyLevels,
    Interpolation,
    Kernel,
    Profile,
    Resampling,
    default_features,
    ibsi,
    paper1456,
)
from mtdlr.texture.spline import spline_along

__all__ = ["CLASSES", "FEATURES", "Filter", "GreyLevels", "Interpolation", "Kernel", "Profile", "Resampling",
           "bounding_box", "default_features", "extract", "feature_maps", "ibsi", "is_compiled", "normalise",
           "paper1456", "profile_of", "read_content", "read_parameters", "shape", "spline_along"]
