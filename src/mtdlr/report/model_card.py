"""What a reader of one prediction must know of the model behind it: who trained it, how well it does, who it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any

from mtdlr.estimate import Estimate
from mtdlr.model import FrozenModel
from mtdlr.shift import TrainingRisks
from mtdlr.study import MAIN


@dataclass(frozen=True)
class ModelCard:
    """Facts of a frozen model, as far as its folder holds them.

    Args:
        digest: of the model; two models with one digest predict the same.
        version: of mtdlr that made it; "" where it is not known.
        n, events: training patients and their events.
        cross_fitted: whether training patients were scored by networks that never saw them.
        cutoff: log hazard from which a patient is at high risk; nan where the model has none.
        c: C-index of the main model by cohort (`training`, `internal`, `external`), where it is known.
        risks: of the training patients in groups of five or more; None where the model keeps none.
        parent: digest of the model that this one updates; "" for one that was trained.
    """

    digest: str
    version: str
    n: int
    events: int
    cross_fitted: bool
    cutoff: float = nan
    c: Mapping[str, Estimate] = field(default_factory=dict)
    risks: TrainingRisks | None = None
    parent: str = ""

    def as_dict(self, risk: float) -> dict[str, Any]:
        """Plain values for JSON, with the share of training patients below a risk."""
        return {
            "n": self.n, "events": self.events, "version": self.version, "cross_fitted": self.cross_fitted,
            "cutoff": None if self.cutoff != self.cutoff else self.cutoff,
            "c": {split: [None if v != v else v for v in (c.value, c.low, c.high)] for split, c in self.c.items()},
            "share_below": None if self.risks is None else self.risks.share_below(risk), "parent": self.parent,
        }


def model_card(model: FrozenModel) -> ModelCard:
    """The card of a frozen model."""
    facts, aggregates = model.facts, model.aggregates
    c = {str(split): Estimate(*(nan if value is None else float(value) for value in values))
         for split, values in facts.get("c", {}).items() if values[0] is not None}
    return ModelCard(
        model.digest, str(facts.get("versions", {}).get("mtdlr", "")), int(facts["n"]), int(facts["events"]),
        model.study.score.training == "out_of_fold", float(model.cutoffs.get(MAIN, nan)), c,
        None if aggregates is None else aggregates.risks, str(facts.get("parent", "")))
