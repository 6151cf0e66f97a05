"""IBSI's feature tags and the features they name."""

from mtdlr.texture.sizes import DEPENDENCE, RUN, ZONE

STAT = {"mean": "Mean", "var": "Variance", "skew": "Skewness", "median": "Median", "min": "Minimum",
        "p10": "10Percentile", "p90": "90Percentile", "max": "Maximum", "iqr": "InterquartileRange", "range": "Range",
        "mad": "MeanAbsoluteDeviation", "rmad": "RobustMeanAbsoluteDeviation", "energy": "Energy",
        "rms": "RootMeanSquared"}
MORPH = {"volume": "MeshVolume", "vol_approx": "VoxelVolume", "area_mesh": "SurfaceArea", "av": "SurfaceVolumeRatio",
         "comp_1": "Compactness1", "comp_2": "Compactness2", "sph_dispr": "SphericalDisproportion",
         "sphericity": "Sphericity", "diam": "Maximum3DDiameter", "pca_maj_axis": "MajorAxisLength",
         "pca_min_axis": "MinorAxisLength", "pca_least_axis": "LeastAxisLength", "pca_elongation": "Elongation",
         "pca_flatness": "Flatness"}
CM = {"joint_max": "MaximumProbability", "joint_avg": "JointAverage", "joint_var": "SumSquares",
      "joint_entr": "JointEntropy", "diff_avg": "DifferenceAverage", "diff_var": "DifferenceVariance",
      "diff_entr": "DifferenceEntropy", "sum_avg": "SumAverage", "sum_var": "ClusterTendency",
      "sum_entr": "SumEntropy", "energy": "JointEnergy", "contrast": "Contrast", "dissimilarity": "DifferenceAverage",
      "inv_diff": "Id", "inv_diff_norm": "Idn", "inv_diff_mom": "Idm", "inv_diff_mom_norm": "Idmn",
      "inv_var": "InverseVariance", "corr": "Correlation", "auto_corr": "Autocorrelation",
      "clust_tend": "ClusterTendency", "clust_shade": "ClusterShade", "clust_prom": "ClusterProminence",
      "info_corr1": "Imc1", "info_corr2": "Imc2"}
RLM = dict(zip(("sre", "lre", "glnu", "glnu_norm", "rlnu", "rlnu_norm", "r_perc", "gl_var", "rl_var", "rl_entr",
                "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge"), RUN, strict=True))
SZM = dict(zip(("sze", "lze", "glnu", "glnu_norm", "zsnu", "zsnu_norm", "z_perc", "gl_var", "zs_var", "zs_entr",
                "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge"), ZONE, strict=True))
NGL = {tag: name for tag, name in zip(("lde", "hde", "glnu", "", "dcnu", "dcnu_norm", "", "gl_var", "dc_var",
                                       "dc_entr", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge"),
                                      DEPENDENCE, strict=True) if tag}
NGT = {name.lower(): name for name in ("Coarseness", "Contrast", "Busyness", "Complexity", "Strength")}
FAMILIES = {"stat": STAT, "morph": MORPH, "cm": CM, "rlm": RLM, "szm": SZM, "ngl": NGL, "ngt": NGT}
