"""What is computed: feature names by class, filtered images, grey levels, and the named profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FIRSTORDER = (
    "10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis", "Maximum",
    "MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range", "RobustMeanAbsoluteDeviation", "RootMeanSquared",
    "Skewness", "StandardDeviation", "TotalEnergy", "Uniformity", "Variance",
)
SHAPE = (
    "Compactness1", "Compactness2", "Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength",
    "Maximum2DDiameterColumn", "Maximum2DDiameterRow", "Maximum2DDiameterSlice", "Maximum3DDiameter", "MeshVolume",
    "MinorAxisLength", "SphericalDisproportion", "Sphericity", "SurfaceArea", "SurfaceVolumeRatio", "VoxelVolume",
)
SHAPE2D = (
    "Elongation", "MajorAxisLength", "MaximumDiameter", "MeshSurface", "MinorAxisLength", "Perimeter",
    "PerimeterSurfaceRatio", "PixelSurface", "SphericalDisproportion", "Sphericity",
)
GLCM = (
    "Autocorrelation", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast", "Correlation",
    "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Id", "Idm", "Idmn", "Idn", "Imc1", "Imc2",
    "InverseVariance", "JointAverage", "JointEnergy", "JointEntropy", "MCC", "MaximumProbability", "SumAverage",
    "SumEntropy", "SumSquares",
)
GLRLM = (
    "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance", "HighGrayLevelRunEmphasis",
    "LongRunEmphasis", "LongRunHighGrayLevelEmphasis", "LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis",
    "RunEntropy", "RunLengthNonUniformity", "RunLengthNonUniformityNormalized", "RunPercentage", "RunVariance",
    "ShortRunEmphasis", "ShortRunHighGrayLevelEmphasis", "ShortRunLowGrayLevelEmphasis",
)
GLSZM = (
    "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance", "HighGrayLevelZoneEmphasis",
    "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis", "LargeAreaLowGrayLevelEmphasis", "LowGrayLevelZoneEmphasis",
    "SizeZoneNonUniformity", "SizeZoneNonUniformityNormalized", "SmallAreaEmphasis", "SmallAreaHighGrayLevelEmphasis",
    "SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage", "ZoneVariance",
)
GLDM = (
    "DependenceEntropy", "DependenceNonUniformity", "DependenceNonUniformityNormalized", "DependenceVariance",
    "GrayLevelNonUniformity", "GrayLevelVariance", "HighGrayLevelEmphasis", "LargeDependenceEmphasis",
    "LargeDependenceHighGrayLevelEmphasis", "LargeDependenceLowGrayLevelEmphasis", "LowGrayLevelEmphasis",
    "SmallDependenceEmphasis", "SmallDependenceHighGrayLevelEmphasis", "SmallDependenceLowGrayLevelEmphasis",
)
NGTDM = ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength")

FEATURES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPE, "firstorder": FIRSTORDER, "glcm": GLCM, "glrlm": GLRLM, "glszm": GLSZM, "gldm": GLDM,
    "ngtdm": NGTDM,
}
"""Every feature of a region in space, by class, in PyRadiomics' spelling."""

CLASSES: Mapping[str, tuple[str, ...]] = {**FEATURES, "shape2D": SHAPE2D}
"""Every feature we compute: those of `FEATURES`, and the outline of a region that lies in one plane."""

DEPRECATED: Mapping[str, tuple[str, ...]] = {
    "firstorder": ("StandardDeviation",), "shape": ("Compactness1", "Compactness2", "SphericalDisproportion"),
    "shape2D": ("SphericalDisproportion",),
}
"""Features that repeat another one (sqrt Variance, functions of Sphericity): computed only where named."""

WITHOUT_VALUE: Mapping[str, tuple[str, ...]] = {
    "glcm": ("Dissimilarity", "Homogeneity1", "Homogeneity2", "SumVariance"),
    "gldm": ("DependencePercentage", "GrayLevelNonUniformityNormalized"),
}
"""Names that PyRadiomics accepts but computes no value for: each equals another feature."""

Weighting = Literal["infinity", "euclidean", "manhattan", "no_weighting"]


Interpolation = Literal["nearest", "linear", "bspline"]


@dataclass(frozen=True)
class GreyLevels:
    """How intensities become grey levels, and how the levels are counted.

    Args:
        bin_width: width of a bin, in the image's unit; bins lie at multiples of it.
        bin_count: so many bins from the region's minimum to its maximum, in place of a width.
        origin: lower edge of bin 1 (IBSI's fixed bin size); None numbers the bin of the region's minimum 1.
        distances: Chebyshev distances in voxels of GLCM, GLDM and NGTDM neighbours.
        plane_axis: array axis across which there are no neighbours (PyRadiomics' force2D), None for 3-D.
        symmetric: a GLCM pair counts in both orders.
        weighting: None averages features over directions; otherwise the matrices are merged with these weights.
        dependence: largest grey-level difference that is dependent (GLDM's alpha).
        shift: added to intensities before Energy, TotalEnergy and RootMeanSquared.
    """

    bin_width: float = 25.0
    bin_count: int | None = None
    origin: float | None = None
    distances: tuple[int, ...] = (1,)
    plane_axis: int | None = None
    symmetric: bool = True
    weighting: Weighting | None = None
    dependence: int = 0
    shift: float = 0.0


@dataclass(frozen=True)
class LocalPattern:
    """How a voxel's neighbours on a circle in its plane become one number (local binary pattern).

    Args:
        radius: of the circle, in voxels.
        samples: points on the circle.
        method: default (the bits as a number), ror (its least rotation), uniform (the bits set, one more than the
            samples for patterns that change more than twice) or var (variance of the samples).
        axis: array axis across which planes lie.
    """

    radius: float = 1.0
    samples: int = 8
    method: Literal["default", "ror", "uniform", "var"] = "uniform"
    axis: int = 0


@dataclass(frozen=True)
class Kernel:
    """The neighbourhood of features that are taken voxel by voxel.

    Args:
        radius: voxels on each side of the centre.
        masked: neighbours outside the region do not count, and grey levels are the region's.
        outside: value of a map outside the region.
    """

    radius: int = 1
    masked: bool = True
    outside: float = 0.0


@dataclass(frozen=True)
class Filter:
    """One kind of derived image.

    Args:
        kind: original, wavelet, log, square, squareroot, logarithm, exponential, gradient or lbp2d.
        grey_levels: how its intensities are discretised.
        wavelet: name of the wavelet (PyWavelets).
        start_level: decompositions made before the first one that is kept.
        levels: decompositions kept.
        dilated: later decompositions spread their filters (IBSI); PyRadiomics applies the same filters again.
        sigmas_mm: widths of the Laplacian of Gaussian.
        cutoff: None is ITK's recursive approximation times sigma^2 (PyRadiomics); a number is IBSI's sampled kernel,
            cut off at so many sigma.
        gradient_spacing: gradient per mm rather than per voxel.
        pattern: of lbp2d.
    """

    kind: Literal["original", "wavelet", "log", "square", "squareroot", "logarithm", "exponential", "gradient", "lbp2d"]
    grey_levels: GreyLevels = GreyLevels()
    wavelet: str = "coif1"
    start_level: int = 0
    levels: int = 1
    dilated: bool = False
    sigmas_mm: tuple[float, ...] = ()
    cutoff: float | None = None
    gradient_spacing: bool = True
    pattern: LocalPattern = LocalPattern()


@dataclass(frozen=True)
class Resampling:
    """The grid features are computed on.

    Args:
        spacing_mm: (z, y, x); 0 keeps an axis as it is.
        interpolation: of the image.
        pad_voxels: margin kept around the region before filtering.
        aligned: old and new grid share their middle (IBSI), or the outer corner of their first voxel (PyRadiomics).
    """

    spacing_mm: tuple[float, float, float]
    interpolation: Interpolation = "bspline"
    pad_voxels: int = 5
    aligned: Literal["center", "corner"] = "corner"


@dataclass(frozen=True)
class Profile:
    """Everything that decides a feature table's values.

    Args:
        features: class -> feature names, in output order.
        filters: the images features are taken from.
        resampling: None keeps the image's own grid.
        whole_numbers: resampled intensities are rounded, as CT is in HU.
        crop: filters see the region and so many voxels around it; None shows them the whole image.
        normalise: z-score the whole image first, times `normalise_scale`, clipped at `outliers` SDs where given.
        resegment: keep region voxels whose intensity lies within (low, high), high may be None.
        resegment_mode: the limits are intensities, multiples of the maximum, or SDs about the mean.
        resegment_shape: shape features use the re-segmented region too.
        min_dimensions: a region that extends along fewer axes has no texture: those features are nan.
        min_voxels: a region of at most so many voxels has no features.
        label: mask value of the region in a label map.
        diagnostics: a table says in columns `diagnostics_*` what each row was computed from (PyRadiomics'
            additionalInfo).
        kernel: of feature maps.
    """

    features: Mapping[str, tuple[str, ...]]
    filters: tuple[Filter, ...] = (Filter("original"),)
    resampling: Resampling | None = None
    whole_numbers: bool = False
    crop: int | None = None
    normalise: bool = False
    normalise_scale: float = 1.0
    outliers: float | None = None
    resegment: tuple[float, float | None] | None = None
    resegment_mode: Literal["absolute", "relative", "sigma"] = "absolute"
    resegment_shape: bool = False
    min_dimensions: int = 2
    min_voxels: int = 0
    label: int = 1
    diagnostics: bool = False
    kernel: Kernel = Kernel()


def default_features(feature_class: str) -> tuple[str, ...]:
    """A class's features without the deprecated ones: what PyRadiomics enables by default.

    >>> len(default_features("shape")), len(default_features("firstorder")), len(default_features("glcm"))
    (14, 18, 24)
    """
    gone = DEPRECATED.get(feature_class, ())
    return tuple(name for name in CLASSES[feature_class] if name not in gone)


def paper1456(bin_width: float) -> Profile:
    """The paper's set: 80 features of 9 images (original, 8 wavelet bands) of one modality, and 16 of shape.

    METHOD C1: first-order 19 + GLCM 24 + GLRLM 16 + GLSZM 16 + NGTDM 5; shape without VoxelVolume.

    >>> profile = paper1456(25.0)
    >>> 9 * sum(len(v) for k, v in profile.features.items() if k != "shape"), len(profile.features["shape"])
    (720, 16)
    """
    features = {name: FEATURES[name] for name in ("firstorder", "glcm", "glrlm", "glszm", "ngtdm")}
    shape = tuple(name for name in SHAPE if name != "VoxelVolume")
    grey = GreyLevels(bin_width=bin_width)
    return Profile({"shape": shape, **features}, (Filter("original", grey), Filter("wavelet", grey)))


def ibsi(bin_width: float, *, resegment: tuple[float, float | None] | None = None) -> Profile:
    """The recommended set: every class without repeats, of the original and the wavelet images, IBSI's fixed bin size.

    Args:
        bin_width: width of a bin.
        resegment: (low, high) intensities kept; bins of the original image start at the lower one.

    >>> sum(len(names) for names in ibsi(25.0).features.values())
    107
    """
    features = {name: default_features(name) for name in FEATURES}
    origin = resegment[0] if resegment else None
    filters = (Filter("original", GreyLevels(bin_width=bin_width, origin=origin)),
               Filter("wavelet", GreyLevels(bin_width=bin_width)))
    return Profile(features, filters, resegment=resegment)
