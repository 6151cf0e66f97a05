"""Tables 1-4 of the paper, for any study: who the patients are, what is associated with the outcome, how models do.

Tables 2 and 3 refit a Cox model inside each cohort: association, not validation. Table 4 judges the frozen models.
Every printed number carries its method in a footnote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import pandas as pd

from mtdlr.associate import NOT_ESTIMABLE, Association
from mtdlr.cohort.characteristics import Characteristic, Range
from mtdlr.estimate import Estimate
from mtdlr.evaluate import Evaluation
from mtdlr.report.results import Results
from mtdlr.study import MAIN, models_of

SPLIT_LABELS = {"training": "Training cohort", "internal": "Internal validation cohort",
                "external": "External validation cohort"}
FIRTH = "\N{DAGGER}"
"""Marks a hazard ratio by Firth's penalised likelihood."""
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
    return {1: patients(results), 2: univariate(results), 3: multivariate(results), 4: performance(results)}


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


def patients(results: Results) -> Table:
    """Table 1: the patients of each cohort, and whether the cohorts differ."""
    splits, table = results.cohort.splits, results.cohort.table
    sizes = (f"{SPLIT_LABELS[s]} (n = {int((table['split'] == s).sum())})" for s in splits)
    rows = tuple(row for one in results.characteristics for row in _characteristic_rows(one, splits))
    return Table(1, "Characteristics of the patients", ("Characteristic", *sizes, "P"), rows, (
        "Continuous: median (range), P by Kruskal-Wallis over all cohorts. Categorical: n (%), P by Pearson's "
        "chi-square without continuity correction. A missing value takes no part in its row.",
        "PET parameters inside the manual mask; SUVmean, MTV and TLG at SUV >= 2.5."))


def _characteristic_rows(one: Characteristic, splits: Sequence[str]) -> list[tuple[str, ...]]:
    if one.ranges:
        return [(one.label, *(_range_text(one.ranges[split]) for split in splits), p_text(one.p))]
    totals = [sum(row[split] for row in one.counts.values()) for split in splits]
    cells = {level: [_share(row[split], total) for split, total in zip(splits, totals, strict=True)]
             for level, row in one.counts.items()}
    if one.is_flag:
        return [(one.label, *cells["yes"], p_text(one.p))]
    return [(one.label, *[""] * len(splits), p_text(one.p)),
            *((f"  {level}", *row, "") for level, row in cells.items())]


def _range_text(values: Range) -> str:
    return f"{values.median:.4g} ({values.low:.4g}-{values.high:.4g})" if values.n else "-"


def _share(n: int, total: int) -> str:
    return f"{n} ({100 * n / total:.1f}%)" if total else "-"


# ---- Tables 2 and 3 -------------------------------------------------------------------------------------------------


def univariate(results: Results) -> Table:
    """Table 2: each variable alone in a Cox model, refitted in each cohort."""
    return Table(2, "Univariate Cox regression, refitted in each cohort", _cox_header(results.cohort.splits),
                 _cox_rows(results.associations.univariate), _cox_notes(results))


def multivariate(results: Results) -> Table:
    """Table 3: the candidates of the MTDLR nomogram together in a Cox model, refitted in each cohort."""
    found = results.associations.multivariate
    kept = results.model.nomograms[MAIN].design.variables
    out = list(dict.fromkeys(one.label for one in found if one.name not in kept))
    notes = (f"Not in the nomogram: {', '.join(out)}.",) if out else ()
    return Table(3, "Multivariate Cox regression, refitted in each cohort", _cox_header(results.cohort.splits),
                 _cox_rows(found), (*notes, *_cox_notes(results)))


def _cox_rows(found: Sequence[Association]) -> tuple[tuple[str, ...], ...]:
    """The rows of every variable, a pair of cells for each cohort."""
    by_name: dict[str, list[Association]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    return tuple(row for cohorts in by_name.values() for row in _variable_rows(cohorts))


def _variable_rows(cohorts: Sequence[Association]) -> list[tuple[str, ...]]:
    first = cohorts[0]
    if not first.reference:
        return [(first.label, *_flatten(_ratio_cells(one, "") for one in cohorts)),
                ("  per SD", *_flatten((estimate_text(one.per_sd or NOT_ESTIMABLE), "") for one in cohorts))]
    many = len(first.ratios) > 1
    rows = [(first.label, *_flatten(("-", p_text(one.overall_p)) if many else ("", "") for one in cohorts))]
    for level in first.levels:
        rows.append((f"  {level}", *_flatten(("Reference", "-") if level == first.reference
                                             else _ratio_cells(one, level) for one in cohorts)))
    return rows


def _ratio_cells(one: Association, level: str) -> tuple[str, str]:
    ratio, mark = one.ratios[level], FIRTH if level in one.penalised else ""
    return estimate_text(ratio) + mark, p_text(ratio.p)


def _flatten(pairs: object) -> list[str]:
    return [cell for pair in pairs for cell in pair]  # type: ignore[attr-defined]


def _cox_header(splits: Sequence[str]) -> tuple[str, ...]:
    return ("Characteristic", *_flatten((f"{SPLIT_LABELS[s]}: HR (95% CI)", "P") for s in splits))


def _cox_notes(results: Results) -> tuple[str, ...]:
    ties = {"efron": "Efron's", "breslow": "Breslow's"}[results.study.nomogram.ties]
    scores = ("out of fold in the training cohort, where one that knows little varies by chance up to 1.4 times as "
              "much as its interval and P say" if results.study.score.training == "out_of_fold"
              else "in-sample in the training cohort, and so too good there")
    return (f"Cox regression, {ties} handling of ties, Wald intervals and P; the P of a factor with more than two "
            "levels is its overall Wald test with k-1 degrees of freedom.",
            "Each cohort is fitted anew: this shows association, it does not validate the frozen nomogram.",
            f"Continuous variables: per unit, and per SD of the training cohort. Scores are log-hazards, {scores}.",
            f"{FIRTH} Events separate this level (it has no event, or all of them): Firth's penalised hazard ratio "
            "with its profile-likelihood interval and P. 'Not estimable': no patient has the level, or the cohort "
            "has no event.")


# ---- Table 4 --------------------------------------------------------------------------------------------------------


def performance(results: Results) -> Table:
    """Table 4: discrimination of every frozen model in every cohort, each compared with the stage."""
    splits, study, evaluations = results.cohort.splits, results.study, results.findings.evaluations
    keys = [0.0] if study.evaluate.roc == "status" else list(study.nomogram.months)
    header = ["Model", "Cohort", "C-index (95% CI)", "P", "P vs stage"]
    for key in keys:
        header += [f"{_auc_label(key)} (95% CI)", "P", "P vs stage"]
    rows = [(model.label, SPLIT_LABELS[split].split()[0], *_performance_cells(evaluations[model.name, split], keys))
            for model in models_of(study) for split in splits if (model.name, split) in evaluations]
    roc = ("ROC of the event status at last contact, DeLong" if study.evaluate.roc == "status" else
           "cumulative/dynamic AUC with inverse-probability-of-censoring weights, error from its influence function")
    return Table(4, "Discrimination of the frozen models", tuple(header), tuple(rows), (
        f"Harrell's C, normal interval, P against 0.5; P vs stage by {study.evaluate.comparison}.",
        f"AUC: {roc}; P against 0.5 and, paired, against the stage.",
        *(["Not estimable: no two patients of the cohort can be ordered by their follow-up (W-NOEVENTS, W-NOPAIRS), or "
           "it has no event before, or nobody followed beyond, the horizon."]
          if any("not estimable" in row for row in rows) else [])))


def _auc_label(key: float) -> str:
    return "AUC" if key == 0 else f"AUC at {key:g} months"


def _performance_cells(evaluation: Evaluation, keys: Sequence[float]) -> list[str]:
    versus = evaluation.concordance_vs_stage
    cells = [estimate_text(evaluation.c), p_text(evaluation.c.p), "-" if versus is None else p_text(versus.p)]
    for key in keys:
        auc = evaluation.auc[key].auc if key in evaluation.auc else NOT_ESTIMABLE
        against = evaluation.auc_vs_stage.get(key)
        cells += [estimate_text(auc), p_text(auc.p), "-" if against is None else p_text(against.p)]
    return cells
