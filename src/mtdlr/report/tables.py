"""Tables 1-4 of the paper, for any study: who the patients are, what is associated with the outcome, how models do.

Tables 2 and 3 refit a Cox model inside each cohort: association, not validation. Table 4 judges the frozen models.
Every printed number carries its method in a footnote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
import pandas as pd

from mtdlr.cohort.clinical import label_of
from mtdlr.errors import FitError
from mtdlr.estimate import Estimate
from mtdlr.evaluate import MODELS, NOMOGRAMS, Evaluation
from mtdlr.model import SCORE_LABELS
from mtdlr.report.results import Results
from mtdlr.stats.cox import CoxFit, fit_cox
from mtdlr.stats.groups import chi_square, kruskal_wallis
from mtdlr.stats.terms import Continuous, Design, Factor
from mtdlr.survival import Survival

SPLIT_LABELS = {"training": "Training cohort", "internal": "Internal validation cohort",
                "external": "External validation cohort"}
PET_LABELS = {"max_diameter_cm": "Maximum diameter (cm)", "suv_max": "SUVmax (g/ml)", "suv_mean_2_5": "SUVmean (g/ml)",
              "mtv_ml_2_5": "MTV (ml)", "tlg_g_2_5": "TLG (g)"}
"""The PET parameters of the paper's Tables 1 and 2; SUVmean, MTV and TLG at SUV >= 2.5."""
LARGEST = 1000.0
"""Ratios above this are printed as such: their digits mean nothing."""


@dataclass(frozen=True)
class Table:
    """A table as printed: header, rows of text, footnotes."""

    number: int
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footnotes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The printed cells as a data frame."""
        return pd.DataFrame(list(self.rows), columns=list(self.header))


def make_tables(results: Results) -> dict[int, Table]:
    """Tables 1 to 4 by number."""
    return {1: characteristics(results), 2: univariate(results), 3: multivariate(results), 4: performance(results)}


def p_text(p: float) -> str:
    """A p value as journals print it.

    >>> p_text(0.0312), p_text(0.00004), p_text(float("nan"))
    ('0.031', '<0.001', '-')
    """
    if isnan(p):
        return "-"
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def estimate_text(estimate: Estimate) -> str:
    """Value and interval; words where the data cannot give one. A ratio all of whose interval is within 0.01 of 1 (that
    of a variable with large values, per unit) has five decimals.

    >>> estimate_text(Estimate(1.464, 0.986, 2.174)), estimate_text(Estimate(3.027, 0.0, 1e15))
    ('1.464 (0.986-2.174)', '3.027 (0.000 to >1000)')
    >>> estimate_text(Estimate(1.00042, 1.00012, 1.00072))
    '1.00042 (1.00012-1.00072)'
    >>> estimate_text(Estimate(float("nan")))
    'not estimable'
    """
    if not isfinite(estimate.value):
        return "not estimable"
    if isnan(estimate.low):
        return _decimal(estimate.value)
    plain = estimate.low >= 0 and estimate.high <= LARGEST
    digits = 5 if max(abs(estimate.low - 1.0), abs(estimate.high - 1.0)) < 0.01 else 3
    value, low, high = (_decimal(number, digits) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low}{'-' if plain else ' to '}{high})"


def _decimal(value: float, digits: int = 3) -> str:
    return f">{LARGEST:g}" if value > LARGEST else f"{value:.{digits}f}"


# ---- Table 1 --------------------------------------------------------------------------------------------------------


def characteristics(results: Results) -> Table:
    """Table 1: the patients of each cohort, and whether the cohorts differ."""
    table, settings = results.cohort.table, results.study.cohort
    splits = results.cohort.splits
    groups = [table[table["split"] == split] for split in splits]
    sizes = (f"{SPLIT_LABELS[s]} (n = {len(g)})" for s, g in zip(splits, groups, strict=True))
    header = ("Characteristic", *sizes, "P")
    rows: list[tuple[str, ...]] = []
    for name in settings.continuous:
        rows.append(_continuous_row(label_of(name), [g[name] for g in groups]))
    for name, levels in settings.factors.items():
        rows += _factor_rows(label_of(name), [g[name] for g in groups], levels)
    for name in settings.described:
        rows.append(_flag_row(label_of(name), [g[name] for g in groups]))
    pet = results.pet_parameters["manual"]
    rows += [_continuous_row(label, [pet.loc[g.index, name] for g in groups])
             for name, label in PET_LABELS.items() if name in pet]
    rows += _factor_rows("Outcome", [g["event"].map({False: "Event free", True: "Event"}) for g in groups],
                         ("Event free", "Event"))
    return Table(1, "Characteristics of the patients", header, tuple(rows), (
        "Continuous: median (range), P by Kruskal-Wallis over all cohorts. Categorical: n (%), P by Pearson's "
        "chi-square without continuity correction. A missing value takes no part in its row.",
        "PET parameters inside the manual mask; SUVmean, MTV and TLG at SUV >= 2.5."))


def _continuous_row(label: str, values: Sequence[pd.Series]) -> tuple[str, ...]:
    samples = [v.dropna().to_numpy(float) for v in values]
    cells = [f"{np.median(v):.4g} ({v.min():.4g}-{v.max():.4g})" if v.size else "-" for v in samples]
    return (label, *cells, p_text(_p_of(lambda: kruskal_wallis([v for v in samples if v.size]).p)))


def _factor_rows(label: str, values: Sequence[pd.Series], levels: Sequence[str]) -> list[tuple[str, ...]]:
    counts = np.array([[int((v == level).sum()) for v in values] for level in levels])
    totals = counts.sum(axis=0)
    present = counts[counts.sum(axis=1) > 0]
    rows = [(label, *[""] * len(values), p_text(_p_of(lambda: chi_square(present).p)))]
    return rows + [(f"  {level}", *(_share(n, total) for n, total in zip(row, totals, strict=True)), "")
                   for level, row in zip(levels, counts, strict=True)]


def _flag_row(label: str, values: Sequence[pd.Series]) -> tuple[str, ...]:
    counts = np.array([[int((v == k).sum()) for v in values] for k in (1, 0)])
    return (label, *(_share(n, total) for n, total in zip(counts[0], counts.sum(axis=0), strict=True)),
            p_text(_p_of(lambda: chi_square(counts).p)))


def _share(n: int, total: int) -> str:
    return f"{n} ({100 * n / total:.1f}%)" if total else "-"


def _p_of(test: Callable[[], float]) -> float:
    """The p value, or nan where the cohorts cannot be compared (one cohort, one level)."""
    try:
        return test()
    except FitError:
        return float("nan")


# ---- Tables 2 and 3 -------------------------------------------------------------------------------------------------


def univariate(results: Results) -> Table:
    """Table 2: each variable alone in a Cox model, refitted in each cohort."""
    splits = results.cohort.splits
    frames = [_frame(results, split) for split in splits]
    rows: list[tuple[str, ...]] = []
    for term, label in _terms(results):
        blocks = [_cox_block(frame, [term], results.study.nomogram.ties) for frame in frames]
        rows += _side_by_side(label, term, blocks)
    return Table(2, "Univariate Cox regression, refitted in each cohort", _cox_header(splits), tuple(rows),
                 _cox_notes(results))


def multivariate(results: Results) -> Table:
    """Table 3: the variables of the MTDLR nomogram together in a Cox model, refitted in each cohort."""
    splits, study = results.cohort.splits, results.study
    terms: list[Continuous | Factor] = [_factor(results, study.cohort.stage), *map(Continuous, NOMOGRAMS["mtdlr"])]
    fits = [_cox_block(_frame(results, split), terms, study.nomogram.ties) for split in splits]
    rows: list[tuple[str, ...]] = []
    for term in terms:
        rows += _side_by_side(SCORE_LABELS.get(term.name, label_of(term.name)), term, fits)
    return Table(3, "Multivariate Cox regression, refitted in each cohort", _cox_header(splits), tuple(rows),
                 _cox_notes(results))


def _terms(results: Results) -> list[tuple[Continuous | Factor, str]]:
    """Every variable of Table 2 and its label."""
    settings = results.study.cohort
    terms: list[tuple[Continuous | Factor, str]] = [(Continuous(n), label_of(n)) for n in settings.continuous]
    terms += [(_factor(results, n), label_of(n)) for n in settings.factors]
    terms += [(Continuous(n), label) for n, label in PET_LABELS.items() if n in results.pet_parameters["manual"]]
    return terms + [(Continuous(n), label) for n, label in SCORE_LABELS.items()]


def _factor(results: Results, name: str) -> Factor:
    settings = results.study.cohort
    levels = settings.factors[name]
    return Factor(name, levels, settings.references.get(name, levels[0]))


def _frame(results: Results, split: str) -> pd.DataFrame:
    """Clinical columns, PET parameters and scores of one cohort."""
    table, pet = results.cohort.of(split).table, results.pet_parameters["manual"]
    return table.join(pet[[n for n in PET_LABELS if n in pet]]).join(results.models.scores[list(SCORE_LABELS)])


def _cox_block(frame: pd.DataFrame, terms: Sequence[Continuous | Factor], ties: str) -> tuple[CoxFit, Design] | None:
    """The fit on complete cases; None where there is nothing to fit."""
    complete = frame[[t.name for t in terms]].notna().all(axis=1)
    rows = frame[complete]
    if not rows["event"].any():
        return None
    design = Design(tuple(terms))
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    try:
        matrix = design.matrix({t.name: rows[t.name].to_numpy() for t in terms})
        return fit_cox(matrix, surv, names=design.columns, ties=ties), design  # type: ignore[arg-type]
    except FitError:
        return None


def _side_by_side(
    label: str, term: Continuous | Factor, blocks: Sequence[tuple[CoxFit, Design] | None]
) -> list[tuple[str, ...]]:
    """The rows of one variable, a pair of cells for each cohort."""
    if isinstance(term, Continuous):
        return [(label, *_flatten(_cell(block, term.name) for block in blocks))]
    many = len(term.levels) > 2
    rows = [(label, *_flatten(_overall(block, term) if many else ("", "") for block in blocks))]
    for level in term.levels:
        name = f"{term.name}={level}"
        cells = (("Reference", "-") if level == term.reference else _cell(block, name) for block in blocks)
        rows.append((f"  {level}", *_flatten(cells)))
    return rows


def _cell(block: tuple[CoxFit, Design] | None, name: str) -> tuple[str, str]:
    if block is None:
        return "not estimable", "-"
    ratio = block[0].hazard_ratios().get(name, Estimate(float("nan")))
    return estimate_text(ratio), p_text(ratio.p)


def _overall(block: tuple[CoxFit, Design] | None, term: Factor) -> tuple[str, str]:
    """The overall Wald P of a factor, k-1 degrees of freedom."""
    if block is None:
        return "-", "-"
    return "-", p_text(block[0].wald([f"{term.name}={level}" for level in term.contrasts]).p)


def _flatten(pairs: object) -> list[str]:
    return [cell for pair in pairs for cell in pair]  # type: ignore[attr-defined]


def _cox_header(splits: Sequence[str]) -> tuple[str, ...]:
    return ("Characteristic", *_flatten((f"{SPLIT_LABELS[s]}: HR (95% CI)", "P") for s in splits))


def _cox_notes(results: Results) -> tuple[str, ...]:
    ties = {"efron": "Efron's", "breslow": "Breslow's"}[results.study.nomogram.ties]
    scores = ("out of fold in the training cohort" if results.study.score.training == "out_of_fold"
              else "in-sample in the training cohort, and so too good there")
    return (f"Cox regression, {ties} handling of ties, Wald intervals and P; the P of a factor with more than two "
            "levels is its overall Wald test with k-1 degrees of freedom.",
            "Each cohort is fitted anew: this shows association, it does not validate the frozen nomogram.",
            f"Scores are log-hazards, {scores}. 'Not estimable': a level without events, or separation.")


# ---- Table 4 --------------------------------------------------------------------------------------------------------


def performance(results: Results) -> Table:
    """Table 4: discrimination of every frozen model in every cohort, each compared with the stage."""
    splits, study = results.cohort.splits, results.study
    evaluations = results.models.evaluations
    keys = [0.0] if study.evaluate.roc == "status" else list(study.nomogram.months)
    header = ["Model", "Cohort", "C-index (95% CI)", "P", "P vs stage"]
    for key in keys:
        header += [f"{_auc_label(key)} (95% CI)", "P", "P vs stage"]
    rows = [(MODELS[model], SPLIT_LABELS[split].split()[0], *_performance_cells(evaluations[model, split], keys))
            for model in MODELS for split in splits if (model, split) in evaluations]
    roc = ("ROC of the event status at last contact, DeLong" if study.evaluate.roc == "status" else
           "cumulative/dynamic AUC with inverse-probability-of-censoring weights, error from its influence function")
    return Table(4, "Discrimination of the frozen models", tuple(header), tuple(rows), (
        f"Harrell's C, normal interval, P against 0.5; P vs stage by {study.evaluate.comparison}.",
        f"AUC: {roc}; P against 0.5 and, paired, against the stage."))


def _auc_label(key: float) -> str:
    return "AUC" if key == 0 else f"AUC at {key:g} months"


def _performance_cells(evaluation: Evaluation, keys: Sequence[float]) -> list[str]:
    versus = evaluation.concordance_vs_stage
    cells = [estimate_text(evaluation.c), p_text(evaluation.c.p), "-" if versus is None else p_text(versus.p)]
    for key in keys:
        auc = evaluation.auc[key].auc
        against = evaluation.auc_vs_stage.get(key)
        cells += [estimate_text(auc), p_text(auc.p), "-" if against is None else p_text(against.p)]
    return cells
