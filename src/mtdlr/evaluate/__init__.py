"""Frozen risks x follow-up, as numbers: models in cohorts (`findings`), reviewers' questions (`appraise`), `rivals`."""

from mtdlr.evaluate.arms import study_arms
from mtdlr.evaluate.findings import (
    Evaluation,
    Findings,
    Judged,
    RiskGroups,
    calibrations,
    evaluate,
    judge,
    optimism,
    risk_groups,
)
from mtdlr.evaluate.rivals import Rivals
from mtdlr.evaluate.simple import study_rivals

__all__ = ["Evaluation", "Findings", "Judged", "RiskGroups", "Rivals", "calibrations", "evaluate", "judge", "optimism",
           "risk_groups", "study_arms", "study_rivals"]
