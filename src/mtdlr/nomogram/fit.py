"""Scores and clinical covariates -> the nomogram of one model: which terms enter, and how they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.cohort.clinical import label_of
from mtdlr.errors import FitError, Problem
from mtdlr.nomogram.model import Nomogram
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.gain import score_gains
from mtdlr.stats.terms import Continuous, Design, Factor, Spline, Term, harrell_knots
from mtdlr.study import SCORES, Model, Study
from mtdlr.survival import Survival

SELECTED_P = 0.05  # the paper's limit, in the univariate and in the multivariate model


def fit_nomogram(rows: pd.DataFrame, model: Model, study: Study) -> Nomogram:
    """The nomogram of a model's covariates and scores, fitted on the training rows that have all of them.

    A column that is the same for everybody (an empty signature, a stage with one level) takes no part.

    Args:
        rows: one row a patient, with `split`, `time_months`, `event`, covariates and scores.
        model: which covariates and scores.
        study: its settings (`nomogram`, `cohort`).

    Raises:
        FitError: E-NOMODEL when nothing varies; what `Nomogram.fit` raises.
    """
    names = [*model.covariates, *model.scores]
    training = rows[(rows["split"] == "training") & rows[names].notna().all(axis=1)]
    surv = Survival(training["time_months"].to_numpy(float), training["event"].to_numpy(bool))
    terms: list[Term] = [term for name in model.covariates for term in _covariate(training, name, study)]
    terms += [Continuous(name) for name in model.scores if training[name].nunique() > 1]
    notes: list[Problem] = []
    if study.nomogram.select == "gain":
        terms, notes = gaining_terms(training, surv, terms, model.scores)
        notes = [replace(note, where=f"nomogram {model.label}") for note in notes]
    if study.nomogram.select == "p":
        terms = selected_terms(training, surv, terms, study.nomogram.ties)
    if not terms:
        raise FitError(Problem("E-NOMODEL", "neither a clinical covariate nor a score varies in the training cohort",
                               where=" + ".join(names)))
    labels = {score.name: score.title for score in SCORES} | {name: label_of(name) for name in model.covariates}
    found = _finite(lambda firth: Nomogram.fit(training, surv, terms, study.nomogram.months, ties=study.nomogram.ties,
                                               labels=labels, endpoint=study.cohort.endpoint, firth=firth))
    notes += found.negative_weights(model.scores)
    return replace(found, cox=replace(found.cox, problems=(*found.cox.problems, *notes)))


def competing_notice(competing: Sequence[str]) -> tuple[Problem, ...]:
    """W-COMPETING: what the predictions of a cause-specific nomogram mean; nothing without competing events.

    Args:
        competing: values of the event column that were named as competing events.
    """
    if not competing:
        return ()
    return (Problem("W-COMPETING", "a predicted probability holds for a patient who cannot have a competing event, and "
                    "states too high a risk for a patient who can", where="nomogram",
                    found=f"competing events in training: {', '.join(competing)}",
                    remedy="Read the cumulative incidence in Table 11 of the model's report"),)


def gaining_terms(
    training: pd.DataFrame, surv: Survival, terms: Sequence[Term], scores: Sequence[str]
) -> tuple[list[Term], list[Problem]]:
    """(covariates and the scores that add to them, W-NOGAIN for each other score).

    Where no covariate varies the best score is taken whatever it adds: a nomogram needs a variable.

    Args:
        training: rows of the training cohort, none with a missing value.
        surv: their follow-up.
        terms: the candidate terms.
        scores: names of the terms that must add something to stay.
    """
    candidates = [term.name for term in terms if isinstance(term, Continuous) and term.name in scores]
    held = [term for term in terms if not isinstance(term, Continuous) or term.name not in candidates]
    base = np.zeros((len(training), 0))
    if held:
        design = Design(tuple(held))
        base = design.matrix({name: training[name].to_numpy() for name in design.variables})
    gains = score_gains(base, {name: training[name].to_numpy(float) for name in candidates}, surv)
    kept = {gain.name for gain in gains if gain.enters}
    if not held and not kept and gains:
        kept = {min(gains, key=lambda gain: gain.p).name}
    titles = {score.name: score.title for score in SCORES}
    notes = [Problem("W-NOGAIN", f"{titles.get(gain.name, gain.name)} adds nothing and gets no weight",
                     where="nomogram", found=f"coefficient {gain.coefficient:.2f} per SD, one-sided P = {gain.p:.3f}",
                     expected=f"a coefficient above 0, P below {gain.level:.3g}")
             for gain in gains if gain.name not in kept]
    return [*held, *(Continuous(name) for name in candidates if name in kept)], notes


def selected_terms(training: pd.DataFrame, surv: Survival, terms: Sequence[Term], ties: Any) -> list[Term]:
    """The terms that the paper's way keeps: P < 0.05 alone, then P < 0.05 beside the others that were kept.

    Selection by P makes the kept coefficients too large and their intervals too narrow (W-SELECTED).

    Args:
        training: rows of the training cohort, none with a missing value.
        surv: their follow-up.
        terms: the candidate terms.
        ties: "efron" or "breslow".

    Returns:
        Without a term that is kept beside the others, those that were kept alone.
    """
    alone = [term for term in terms if _p_of_term([term], term, training, surv, ties) < SELECTED_P]
    return [term for term in alone if _p_of_term(alone, term, training, surv, ties) < SELECTED_P] or alone


def _p_of_term(terms: Sequence[Term], term: Term, rows: pd.DataFrame, surv: Survival, ties: Any) -> float:
    """The Wald P of all columns of one term in a Cox model of `terms`."""
    design = Design(tuple(terms))
    fit = fit_cox(design.matrix({name: rows[name].to_numpy() for name in design.variables}), surv,
                  names=design.columns, ties=ties)
    return float(fit.wald(list(Design((term,)).columns)).p)


def _finite(fit: Callable[[bool], Nomogram]) -> Nomogram:
    """The nomogram; where the events are separated, by Firth's method, with a warning."""
    try:
        return fit(False)
    except FitError as error:
        if error.code != "E-SEPARATION":
            raise
        nomogram, separated = fit(True), error.problems[0]
    notice = Problem("W-FIRTH", "no finite maximum of the likelihood: the nomogram is fitted by Firth's method",
                     where=separated.where, remedy="Join the level without events with another")
    return replace(nomogram, cox=replace(nomogram.cox, problems=(*nomogram.cox.problems, notice)))


def _covariate(training: pd.DataFrame, name: str, study: Study) -> list[Term]:
    """A clinical column as a term: a factor with the levels that the training cohort has, a number or a spline; nothing
    where all patients share one value."""
    values = training[name]
    if values.nunique() < 2:
        return []
    if name in study.nomogram.splines:
        return [Spline(name, harrell_knots(values.to_numpy(float), study.nomogram.splines[name]))]
    if name not in study.cohort.factors:
        return [Continuous(name)]
    levels = tuple(level for level in study.cohort.factors[name] if (values == level).any())
    reference = study.cohort.references.get(name, levels[0])
    return [Factor(name, levels, reference if reference in levels else levels[0])]
