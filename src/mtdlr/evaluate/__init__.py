"""Frozen risks x follow-up, as numbers: models in cohorts (`findings`), reviewers' questions (`appraise`), `rivals`."""

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

__all__ = ["Evaluation", "Findings", "Judged", "RiskGroups", "calibrations", "evaluate", "judge", "optimism",
           "risk_groups"]
