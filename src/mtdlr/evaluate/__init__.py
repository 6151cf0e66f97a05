"""Frozen risks x follow-up, as numbers: models in cohorts (`judge`), a reviewer's questions (`appraise`), `rivals`."""

from mtdlr.evaluate.judge import Evaluation, Findings, Groups, Judged, evaluate, judge

__all__ = ["Evaluation", "Findings", "Groups", "Judged", "evaluate", "judge"]
