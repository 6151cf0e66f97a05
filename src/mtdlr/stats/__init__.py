"""Survival statistics equal to R to the printed digit, on numpy, scipy and numba alone.

Every function takes arrays and plain keywords, with `(risk, surv)` in that order and higher risk worse, and returns a
frozen value that holds its interval and p value.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtdlr.stats.auc_curve import AucCurve, auc_curve
from mtdlr.stats.bootstrap_calibration import BootstrapCalibration, calibrate_bootstrap
from mtdlr.stats.calibration import Calibration, calibrate
from mtdlr.stats.combat import Combat, fit_combat
from mtdlr.stats.competing import CumulativeIncidence, GrayTest, cumulative_incidence, gray_test
from mtdlr.stats.concordance import Concordance, compare_concordance, concordance
from mtdlr.stats.conformal import LowerBound, fit_lower_bound
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.cox_firth import firth_cox, profile_interval
from mtdlr.stats.cox_residuals import CoxResiduals, cox_residuals, proportional_hazards_test
from mtdlr.stats.cox_rows import Cases
from mtdlr.stats.decision import (
    Brier,
    DecisionCurve,
    IntegratedBrier,
    brier_score,
    compare_brier,
    decision_curve,
    integrated_brier,
)
from mtdlr.stats.drop1 import WithoutTerm, drop1
from mtdlr.stats.fisher import fisher
from mtdlr.stats.goodness_of_fit import hosmer_lemeshow
from mtdlr.stats.groups import (
    GroupTest,
    chi_square,
    contingency_table,
    kruskal_wallis,
    standardised_difference,
    standardised_difference_levels,
)
from mtdlr.stats.hazard_trend import HazardTrend, hazard_trends
from mtdlr.stats.inference import Comparison, Test
from mtdlr.stats.kaplan_meier import (
    KaplanMeier,
    kaplan_meier,
    median_follow_up,
    restricted_mean,
    restricted_mean_difference,
)
from mtdlr.stats.lasso import (
    LassoCV,
    LassoPath,
    Penalties,
    cross_validate_lasso,
    lasso_path,
    relaxed_fit,
    stratified_folds,
)
from mtdlr.stats.lasso_stability import RepeatedLassoCV, repeat_cross_validation, selection_frequency
from mtdlr.stats.log_rank import LogRank, group_hazard_ratio, log_rank, log_rank_trend
from mtdlr.stats.net_benefit import NetBenefit, compare_net_benefit, net_benefit
from mtdlr.stats.optimism import OptimismCorrected
from mtdlr.stats.pooling import Pooled, pool
from mtdlr.stats.roc import CutOff, Roc, at_threshold, delong, roc, youden
from mtdlr.stats.sample_size import DevelopmentSize, ValidationSize, development_size, validation_size
from mtdlr.stats.terms import Continuous, Design, Factor, Interaction, Spline, harrell_knots, spline_basis
from mtdlr.stats.time_roc import TimeAuc, auc_at, compare_auc_at, known_status_roc
from mtdlr.stats.updating import (
    ClosedTest,
    Performance,
    Update,
    UpdateOptimism,
    closed_test,
    effective_sample_size,
    performance,
    update_cox,
    update_optimism,
)
from mtdlr.stats.validation import Validation, validate_bootstrap

if TYPE_CHECKING:
    from mtdlr.stats.sample_tests import anova, mann_whitney, t_test

__all__ = [
    "AucCurve",
    "BootstrapCalibration",
    "Brier",
    "Calibration",
    "Cases",
    "ClosedTest",
    "Combat",
    "Comparison",
    "Concordance",
    "Continuous",
    "CoxFit",
    "CoxResiduals",
    "CumulativeIncidence",
    "CutOff",
    "DecisionCurve",
    "Design",
    "DevelopmentSize",
    "Factor",
    "GrayTest",
    "GroupTest",
    "HazardTrend",
    "IntegratedBrier",
    "Interaction",
    "KaplanMeier",
    "LassoCV",
    "LassoPath",
    "LogRank",
    "LowerBound",
    "NetBenefit",
    "OptimismCorrected",
    "Penalties",
    "Performance",
    "Pooled",
    "RepeatedLassoCV",
    "Roc",
    "Spline",
    "Test",
    "TimeAuc",
    "Update",
    "UpdateOptimism",
    "Validation",
    "ValidationSize",
    "WithoutTerm",
    "anova",
    "at_threshold",
    "auc_at",
    "auc_curve",
    "brier_score",
    "calibrate",
    "calibrate_bootstrap",
    "chi_square",
    "closed_test",
    "compare_auc_at",
    "compare_brier",
    "compare_concordance",
    "compare_net_benefit",
    "concordance",
    "contingency_table",
    "cox_residuals",
    "cross_validate_lasso",
    "cumulative_incidence",
    "decision_curve",
    "delong",
    "development_size",
    "drop1",
    "effective_sample_size",
    "firth_cox",
    "fisher",
    "fit_combat",
    "fit_cox",
    "fit_lower_bound",
    "gray_test",
    "group_hazard_ratio",
    "harrell_knots",
    "hazard_trends",
    "hosmer_lemeshow",
    "integrated_brier",
    "kaplan_meier",
    "known_status_roc",
    "kruskal_wallis",
    "lasso_path",
    "log_rank",
    "log_rank_trend",
    "mann_whitney",
    "median_follow_up",
    "net_benefit",
    "performance",
    "pool",
    "profile_interval",
    "proportional_hazards_test",
    "relaxed_fit",
    "repeat_cross_validation",
    "restricted_mean",
    "restricted_mean_difference",
    "roc",
    "selection_frequency",
    "spline_basis",
    "standardised_difference",
    "standardised_difference_levels",
    "stratified_folds",
    "t_test",
    "update_cox",
    "update_optimism",
    "validate_bootstrap",
    "validation_size",
    "youden",
]


def __getattr__(name: str) -> Any:
    if name in ("anova", "mann_whitney", "t_test"):  # scipy.stats loads with them, and with nothing else
        return getattr(import_module("mtdlr.stats.sample_tests"), name)
    raise AttributeError(f"module 'mtdlr.stats' has no attribute {name!r}")
