"""The models of a study as values: the four scores of the paper and what combines them, in the order of its Table 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtdlr.study.load import Study

MaskSource = Literal["auto", "manual", ""]


@dataclass(frozen=True)
class Score:
    """One number a patient, a log-hazard.

    Args:
        name: its column in tables.
        label: the model of this score alone, as printed.
        mask: the tumour mask that it is measured in, `auto` (predicted) or `manual`; empty for a network's own score.
    """

    name: str
    label: str
    mask: MaskSource = ""

    @property
    def title(self) -> str:
        """The score as printed, such as `DeepMTS-Score`."""
        return f"{self.label}-Score"


@dataclass(frozen=True)
class Model:
    """One model that a study judges: clinical covariates, a score, or a nomogram of both.

    Args:
        name: its key in results.
        label: its name as printed.
        scores: the scores that enter.
        covariates: the clinical columns that enter.
        mask: where its radiomics come from; empty where there is none.
    """

    name: str
    label: str
    scores: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    mask: MaskSource = ""

    @property
    def is_nomogram(self) -> bool:
        """Whether it is a Cox model of clinical covariates and scores, with points and survival."""
        return bool(self.scores and self.covariates)


SCORES = (Score("manual_radio", "ManualRadio", "manual"), Score("single_task", "SingleTask"),
          Score("deepmts", "DeepMTS"), Score("auto_radio", "AutoRadio", "auto"))
"""The paper's four scores."""
MAIN, REFERENCE, TRUTH = "mtdlr", "stage", "truth"
"""The model that the study is about, the one that every other is compared with, and a simulated study's true risk."""


KNOWN = (Model(TRUTH, "True risk (simulated)"),)
"""What stands beside the models where the truth is known: simulated patients."""


def models_of(study: Study) -> tuple[Model, ...]:
    """Every model of a study, in the order of the paper's Table 4.

    >>> [model.name for model in models_of(Study()) if model.is_nomogram]
    ['manual_radio_stage', 'single_task_stage', 'mtdlr']
    """
    clinical = study.nomogram_covariates
    with_ = "stage" if clinical == (study.cohort.stage,) else "clinical"
    manual, single, deep, auto = (Model(score.name, score.label, (score.name,), mask=score.mask) for score in SCORES)
    known = KNOWN if study.evaluate.known_risk is not None else ()
    return (
        Model(REFERENCE, "Stage", covariates=(study.cohort.stage,)),
        manual, Model("manual_radio_stage", f"{manual.label} + {with_}", manual.scores, clinical, manual.mask),
        single, Model("single_task_stage", f"{single.label} + {with_}", single.scores, clinical),
        deep, auto, Model(MAIN, "MTDLR", (*auto.scores, *deep.scores), clinical, auto.mask), *known)
