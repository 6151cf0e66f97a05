"""Association of each variable with the outcome: Cox models refitted inside each cohort, as numbers (Tables 2 and 3).

This shows association; it does not validate a frozen model, which is `evaluate`'s work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.cohort.clinical import label_of
from mtdlr.errors import FitError
from mtdlr.estimate import Estimate
from mtdlr.radiomics import PET_LABELS
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.cox_firth import profile_interval
from mtdlr.stats.terms import Continuous, Design, Factor
from mtdlr.study import MAIN, SCORES, Study, models_of
from mtdlr.survival import Survival

Variable = Continuous | Factor
Ties = Literal["efron", "breslow"]
NOT_ESTIMABLE = Estimate(float("nan"))


@dataclass(frozen=True)
class Association:
    """One variable in one cohort.

    Args:
        name, label: the column, and what is printed for it.
        split: the cohort.
        levels: in printed order; none for a continuous variable.
        reference: the level that the others are compared with; empty for a continuous variable.
        ratios: hazard ratio by level, of one unit under "" for a continuous variable; nan where it is not estimable.
        per_sd: hazard ratio of one SD of the training cohort; None for a factor.
        overall_p: Wald P of all levels together (k-1 degrees of freedom); nan for fewer than three levels.
        n, n_events: patients without a missing value, and their events.
        penalised: levels (or "" of a continuous variable) that events separate: their ratio is Firth's, with its
            profile interval and likelihood-ratio P, for the ordinary one is 0 or infinite.
    """

    name: str
    label: str
    split: str
    levels: tuple[str, ...]
    reference: str
    ratios: Mapping[str, Estimate]
    per_sd: Estimate | None
    overall_p: float
    n: int
    n_events: int
    penalised: tuple[str, ...] = ()


@dataclass(frozen=True)
class Associations:
    """Every variable alone (Table 2), and those of the nomogram together (Table 3), in each cohort."""

    univariate: tuple[Association, ...]
    multivariate: tuple[Association, ...]


def associate(
    rows: pd.DataFrame, alone: Sequence[tuple[Variable, str]], together: Sequence[tuple[Variable, str]], *, ties: Ties,
) -> Associations:
    """The associations of a study's variables, refitted in each cohort of `rows`.

    Args:
        rows: (patients) split, time_months (months), event and every variable.
        alone: variables and labels of the univariate models.
        together: variables and labels of the multivariate model.
        ties: handling of tied event times.
    """
    splits = list(dict.fromkeys(map(str, rows["split"])))
    univariate = [found for pair in alone for split in splits for found in _fitted(rows, split, [pair], ties)]
    joint = [found for split in splits for found in _fitted(rows, split, together, ties)]
    order = {term.name: k for k, (term, _) in enumerate(together)}
    return Associations(tuple(univariate), tuple(sorted(joint, key=lambda found: order[found.name])))


def study_associations(rows: pd.DataFrame, study: Study, measured: Collection[str]) -> Associations:
    """The associations that a study's Tables 2 and 3 print.

    Args:
        rows: (patients) clinical table, scores and PET parameters.
        study: which columns there are, and the variables of the main nomogram.
        measured: the PET parameters that `rows` has.
    """
    cohort, main = study.cohort, next(model for model in models_of(study) if model.name == MAIN)
    titles = {score.name: score.title for score in SCORES}
    alone = [_variable(name, study) for name in (*cohort.continuous, *cohort.factors)]
    alone += [(Continuous(name), label) for name, label in PET_LABELS.items() if name in measured]
    alone += [(Continuous(name), title) for name, title in titles.items()]
    together = [_variable(name, study) for name in main.covariates]
    together += [(Continuous(name), titles[name]) for name in main.scores]
    return associate(rows, alone, together, ties=study.nomogram.ties)


def _variable(name: str, study: Study) -> tuple[Variable, str]:
    """A clinical column as a term, and what is printed for it."""
    if name not in study.cohort.factors:
        return Continuous(name), label_of(name)
    levels = study.cohort.factors[name]
    return Factor(name, levels, study.cohort.references.get(name, levels[0])), label_of(name)


def _fitted(rows: pd.DataFrame, split: str, pairs: Sequence[tuple[Variable, str]], ties: Ties) -> list[Association]:
    """The associations of some variables in one Cox model on the complete cases of one cohort."""
    names = [term.name for term, _ in pairs]
    complete = rows[(rows["split"] == split) & rows[names].notna().all(axis=1)]
    fit, firth = _cox(complete, [term for term, _ in pairs], ties)
    training = rows[rows["split"] == "training"] if (rows["split"] == "training").any() else rows
    return [_association((fit, firth), term, label, split, complete, training) for term, label in pairs]


def _cox(rows: pd.DataFrame, terms: Sequence[Variable], ties: Ties) -> tuple[CoxFit | None, dict[str, Estimate]]:
    """The fit (None where there is nothing to fit), and Firth's ratio of each column that events separate."""
    if not rows["event"].any():
        return None, {}
    design = Design(tuple(terms))
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    try:
        matrix = design.matrix({term.name: rows[term.name].to_numpy() for term in terms})
        fit = fit_cox(matrix, surv, names=design.columns, ties=ties)
    except FitError:
        return None, {}
    return fit, {name: _penalised(matrix, surv, list(design.columns).index(name), ties) for name in fit.monotone}


def _penalised(matrix: NDArray[np.float64], surv: Survival, column: int, ties: Ties) -> Estimate:
    """Firth's hazard ratio of a column, with the interval of its profile."""
    try:
        return profile_interval(matrix, surv, column, firth=True, ties=ties)
    except FitError:
        return NOT_ESTIMABLE


def _association(
    fitted: tuple[CoxFit | None, dict[str, Estimate]], term: Variable, label: str, split: str, rows: pd.DataFrame,
    training: pd.DataFrame,
) -> Association:
    fit, firth = fitted
    ratios = (fit.hazard_ratios() if fit else {}) | firth
    counts: dict[str, Any] = {"n": len(rows), "n_events": int(rows["event"].sum())}
    if isinstance(term, Continuous):
        ratio = ratios.get(term.name, NOT_ESTIMABLE)
        sd, counts["penalised"] = float(training[term.name].std()), ("",) if term.name in firth else ()
        return Association(term.name, label, split, (), "", {"": ratio}, _scaled(ratio, sd), float("nan"), **counts)
    levels = {level: ratios.get(f"{term.name}={level}", NOT_ESTIMABLE) for level in term.contrasts}
    counts["penalised"] = tuple(level for level in levels if f"{term.name}={level}" in firth)
    many = fit is not None and len(term.levels) > 2
    overall = fit.wald([f"{term.name}={level}" for level in levels]).p if many and fit else float("nan")
    return Association(term.name, label, split, term.levels, term.reference, levels, None, float(overall), **counts)


def _scaled(ratio: Estimate, sd: float) -> Estimate:
    """A hazard ratio per unit as one per `sd` units."""
    try:
        return Estimate(ratio.value**sd, ratio.low**sd, ratio.high**sd, ratio.p)
    except OverflowError:  # no computer holds the number: the unit is far too large for this variable
        return NOT_ESTIMABLE
