"""What other models found in the same patients: rivals (Table 10) and the arms of the radiomics (Table 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mtdlr.evaluate.arms import Arm
from mtdlr.evaluate.rivals import BESIDE, RIVALS
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.summary import Judged, difference_text
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text
from mtdlr.study import MAIN, SCORES


def rival_table(judged: Judged) -> Table:
    """Table 10: what simpler models found in the same patients; no row without rivals.

    Args:
        judged: the evaluations of all models.
    """
    names = {MAIN: judged.labels[MAIN], "deepmts": judged.labels["deepmts"]} | BESIDE
    rows = tuple(
        (label, SPLIT_LABELS[split].split()[0], estimate_text(found.c), p_text(found.c.p),
         *(difference_text(judged.appraisals[own, split].versus.get(name)) if (own, split) in judged.appraisals else "-"
           for own in (MAIN, "deepmts")))
        for name, label in names.items() for (model, split), found in judged.evaluations.items() if model == name)
    if not any(model in RIVALS for model, _ in judged.evaluations):
        return Table(10, "", ("",), ())
    return Table(10, "Rivals: what simpler models found in the same patients", (
        "Model", "Cohort", "C-index (95% CI)", "P", f"C of {names[MAIN]} less it", f"C of {names['deepmts']} less it"),
        rows, (
        "Rivals are fitted to the training cohort alone; where scores are out of fold, so are the rivals' risks of "
        "training patients. Volume + stage: Cox model of the predicted mask's log volume and the stage. Clinical "
        "ridge: every clinical factor and continuous column. Image-PCA ridge: leading components of the PET on an "
        "8 x 8 x 8 grid. Equal-weight radiomics: features that repeat no other one, each with its sign. Embedding: "
        "vectors made elsewhere (evaluate.embedding). Without measures: DeepMTS fitted without its ten hand-made "
        "measures of volume, uptake and active tissue. Differences are paired (compareC), with P.",))


def arms_table(arms: Sequence[Arm], judged: Judged) -> Table:
    """Table 14: signatures of one modality's features beside the full ones; no row without arms.

    Args:
        arms: of `study_arms`.
        judged: the evaluations of all models.
    """
    labels = {str(score.mask): score for score in SCORES if score.mask}
    rows = []
    for source, split in dict.fromkeys((arm.source, arm.split) for arm in arms):
        score, cohort = labels[source], SPLIT_LABELS[split].split()[0]
        full = judged.evaluations.get((score.name, split))
        rows.append((f"{score.title}, PET and CT", cohort, "-", "-" if full is None else estimate_text(full.c), "-"))
        rows += [(f"{score.title}, {arm.modality} alone", cohort, f"{arm.kept} of {arm.candidates}",
                  estimate_text(arm.c), difference_text(arm.lost)) for arm in arms
                 if (arm.source, arm.split) == (source, split)]
    return Table(14, "Arms of the radiomics: the signature of one modality alone", (
        "Signature", "Cohort", "Features kept", "C-index (95% CI)", "C of PET and CT less it"), tuple(rows), (
        "Each arm is a Lasso-Cox signature of the features of one modality and of the mask's shape, fitted and "
        "cross-fitted as the full one. Arms enter no nomogram. Differences are paired (compareC), with P.",))


def arms_numbers(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """The numbers of Table 14 as plain JSON values; None for what could not be computed.

    Args:
        arms: of `study_arms`.
    """
    return [{one.name: getattr(arm, one.name) for one in fields(arm) if one.name not in ("c", "lost")}
            | {"c": estimate_numbers(arm.c), "lost": estimate_numbers(arm.lost)} for arm in arms]
