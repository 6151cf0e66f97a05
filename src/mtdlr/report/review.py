"""What a reviewer reads of the report: summary, appraisal of every model, subgroups, development, checklists."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mtdlr.cohort import impute
from mtdlr.cohort.clinical import label_of
from mtdlr.estimate import Estimate
from mtdlr.evaluate import Evaluation
from mtdlr.evaluate.appraise import Appraisal, Development, Subgroup, appraise, develop, differences, subgroups
from mtdlr.evaluate.competing import CompetingRisks, competing_risks
from mtdlr.evaluate.integrated import integrated_error
from mtdlr.report.acquisition import (
    Confounding,
    acquisition_table,
    confounding,
    confounding_numbers,
    confounding_table,
)
from mtdlr.report.checklist import checklist_tables, checklists_csv, counts, fill_checklists, metrics_score
from mtdlr.report.competing import competing_figures, competing_numbers, competing_table
from mtdlr.report.documents import to_html, write_table, write_word
from mtdlr.report.facts import facts_of, review_facts
from mtdlr.report.figures import kaplan_meier_panels
from mtdlr.report.figures.judged import auc_figure, benefit_figure, concordance_figure, trend_figure
from mtdlr.report.methods import bibtex, methods_text
from mtdlr.report.pictures import survival_panels, write_figures
from mtdlr.report.results import Results
from mtdlr.report.rivals import arms_table, rival_table
from mtdlr.report.summary import OUTSIDE, Judged, difference_text, strongest_rival, summary_lines
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text
from mtdlr.stats.decision import IntegratedBrier
from mtdlr.stats.net_benefit import net_benefit
from mtdlr.study import MAIN, REFERENCE, SCORES, models_of
from mtdlr.survival import Survival

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cells = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Review:
    """What was appraised beyond the paper's tables: by (model, cohort), of the development, by subgroup and cohort."""

    judged: Judged
    development: Development | None
    subgroups: tuple[Subgroup, ...]
    differences: Mapping[str, Mapping[str, Estimate]]
    competing: tuple[CompetingRisks, ...] = ()
    confounding: tuple[Confounding, ...] = ()
    integrated: Mapping[str, IntegratedBrier] = field(default_factory=dict)


def review(results: Results) -> Review:
    """The appraisal of a finished study."""
    found = _found(results)
    settings, main = results.study.cohort, found.main
    columns = ["center", *(n for n in settings.factors if n in found.table), *settings.continuous]
    months = tuple(results.study.nomogram.months)
    parts = (subgroups(found.risks[main], found.predicted[main], found.table, columns, max(months))
             if main in found.predicted else ())
    appraisals = appraise(found.risks, found.predicted, found.table, months, cutoffs=found.cutoffs,
                          reference="manual_radio_stage")
    known = impute(found.table, results.model.imputed)[0].join(found.scores)  # as the nomogram was fitted
    training = known[known["split"] == "training"]
    development = develop(found.nomogram, training, found.candidates, seed=results.study.evaluate.seed,
                          resamples=min(results.study.evaluate.bootstrap, 200))
    judgeable = known[found.risks[main].notna()]
    judged = Judged(main, found.reference, found.labels, found.evaluations, appraisals, development,
                    tuple(dict.fromkeys((*results.problems, *development.problems))),
                    results.study.score.training == "out_of_fold",
                    tuple(score for one in results.model.models if one.name == main for score in one.scores
                          if score in found.nomogram.design.variables))
    return Review(judged, development, parts,
                  differences(found.table, [*settings.continuous, *settings.factors, *settings.described]),
                  competing_risks(found.risks[main], found.cutoffs.get(main, float("nan")), found.table, months,
                                  competing=settings.competing),
                  confounding(results), integrated_error(found.nomogram, judgeable, max(months)))


def write_review(results: Results, done: Review, folder: Path,
                 hand_over: Callable[..., object] | None = None) -> dict[str, Any]:
    """Write figures, tables, checklists and one Word file of them; returns what the page shows of them.

    Args:
        results: of a finished run.
        done: of `review`.
        folder: where the files go.
        hand_over: of `write_figures`.
    """
    tables = review_tables(results, done)
    for table in tables:
        write_table(table, folder / "tables")
    facts = facts_of(results) | review_facts(results, judged=done.judged, parts=done.subgroups)
    items = fill_checklists(facts, results.study.report.statements)
    (folder / "methods.md").write_text(methods_text(facts), encoding="utf-8")
    (folder / "references.bib").write_text(bibtex(), encoding="utf-8")
    (folder / "checklists.csv").write_text(checklists_csv(items), encoding="utf-8")
    write_word(checklist_tables(items), folder / "checklists.docx", heading="Reporting checklists")
    shown = {}
    figures = review_figures(results, done)
    write_figures(figures, folder / "figures", tiff=results.study.report.tiff, hand_over=hand_over)
    for name, (caption, _) in figures.items():
        data = base64.b64encode((folder / "figures" / f"figure{name}.svg").read_bytes()).decode()
        shown[name] = (caption, f"data:image/svg+xml;base64,{data}")
    return {"summary": summary_lines(done.judged), "review_figures": shown,
            "review_tables": [(f"Table {t.number}. {t.title}", to_html(t)) for t in tables],
            "checklists": [to_html(table) for table in checklist_tables(items)], "checklist_counts": counts(items),
            "metrics": metrics_score(items), "subgroup_rows": subgroup_rows(done)}


def review_figures(results: Results, done: Review) -> dict[str, tuple[str, Figure]]:
    """(caption, figure) by name: C of every model, Figure 4 as one page, AUC(t), decision curves, effects over time,
    cumulative incidences.

    Args:
        results: of a finished run.
        done: of `review`.
    """
    judged, splits = done.judged, results.cohort.splits
    place = next((s for s in OUTSIDE if (judged.main, s) in judged.appraisals), None)
    if place is None:
        return competing_figures(done.competing)
    name = judged.labels[judged.main]
    by_cohort = {SPLIT_LABELS[s]: {judged.labels[m]: e.c for (m, split), e in judged.evaluations.items()
                                   if split == s and m in judged.labels} for s in splits}
    by_cohort = {cohort: c for cohort, c in by_cohort.items() if any(isfinite(e.value) for e in c.values())}
    figures = {
        "_summary": (f"C-index of every model with its 95 % interval by cohort; {name} is drawn heavier. The "
                     "dashed line is chance.", concordance_figure(by_cohort, emphasised=name)),
        "4": ("Risk groups of the nomograms and of the stage (rows) in every cohort (columns). A curve ends where "
              "fewer than five patients are at risk.", kaplan_meier_panels(survival_panels(results),
                                                                     endpoint=results.study.cohort.endpoint))}
    curves = {SPLIT_LABELS[s]: {judged.labels[m]: a.auc for (m, split), a in judged.appraisals.items()
                                if split == s and m in (judged.main, judged.reference, strongest_rival(judged, place))
                                and a.auc is not None} for s in splits}
    curves = {cohort: by_model for cohort, by_model in curves.items() if by_model}
    if curves:
        figures["5"] = (f"AUC over time of {name}, the stage and the strongest other model; the band is the 95 % "
                        f"interval of {name}.", auc_figure(curves, emphasised=name))
    return figures | _benefit_figures(results, done, place) | _trend_figures(done) | competing_figures(done.competing)


def review_tables(results: Results, done: Review) -> list[Table]:
    """Tables 5 to 14, those that this run can fill.

    Args:
        results: of a finished run.
        done: of `review`.
    """
    tables = [_appraisal_table(done), _calibration_table(done), _hazard_table(done), _subgroup_table(results, done),
              _difference_table(results, done), rival_table(done.judged), competing_table(done.competing),
              acquisition_table(results), confounding_table(done.confounding), arms_table(results.arms, done.judged)]
    return [table for table in tables if table.rows]


def review_numbers(done: Review) -> dict[str, Any]:
    """Every number of the appraisal as plain JSON values; None for what could not be computed."""
    development = done.development
    return {
        "appraisals": [_appraisal_numbers(a) for a in done.judged.appraisals.values()],
        "subgroups": [{"cohort": s.split, "variable": s.variable, "level": s.level, "n": s.n, "events": s.n_events,
                       "c": _numbers(s.c), "oe": _numbers(s.oe), "slope": _numbers(s.slope)} for s in done.subgroups],
        "integrated_brier": {split: {name: _finite(getattr(one, name)) for name in ("ibs", "null_ibs", "ipa")}
                             for split, one in done.integrated.items()},
        "confounding": [confounding_numbers(one) for one in done.confounding],
        "competing_risks": [competing_numbers(one) for one in done.competing],
        "differences": {split: {name: _numbers(e) for name, e in found.items()}
                        for split, found in done.differences.items()},
        "development": development and {
            "parameters": development.parameters, "candidates": development.candidates, "n": development.n,
            "events": development.n_events,
            "needed": {name: size and size.n for name, size in (("parameters", development.by_parameters),
                                                               ("candidates", development.by_candidates))},
            "corrected_c": development.corrected and _numbers(development.corrected.c),
            "corrected_slope": development.corrected and development.corrected.row("slope")["corrected"],
            "proportional_hazards_p": {name: _finite(test.p) for name, test in development.proportional.items()}},
    }


def subgroup_rows(done: Review) -> list[Cells]:
    """Cohort, variable, level, patients, events, C, O/E and slope."""
    return [(SPLIT_LABELS[s.split].split()[0], label_of(s.variable), s.level, str(s.n), str(s.n_events),
             *(estimate_text(e) if isfinite(e.value) else "-" for e in (s.c, s.oe, s.slope))) for s in done.subgroups]


def missing_rows(table: pd.DataFrame, columns: list[str]) -> list[Cells]:
    """Column, centre, patients and missing values, where any is missing.

    Args:
        table: one row a patient, with `center`.
        columns: names of columns; one that the table lacks is left out.
    """
    counted = [(label_of(name), str(centre), str(len(rows)), str(int(rows[name].isna().sum())))
               for name in columns if name in table for centre, rows in table.groupby("center")]
    return [row for row in counted if row[3] != "0"]


@dataclass(frozen=True, eq=False)
class _Found:
    """Where the results of a run lie."""

    main: str
    reference: str
    labels: Mapping[str, str]
    evaluations: Mapping[tuple[str, str], Evaluation]
    risks: pd.DataFrame
    predicted: Mapping[str, pd.DataFrame]
    cutoffs: Mapping[str, float]
    table: pd.DataFrame
    scores: pd.DataFrame
    nomogram: Any
    candidates: int


def _found(results: Results) -> _Found:
    model, found, table = results.model, results.findings, results.cohort.table
    labels = {one.name: one.label for one in models_of(results.study)}
    scores = results.scores.drop(columns=[name for name in results.scores if name in table])
    return _Found(MAIN, REFERENCE, labels, found.evaluations, found.risks, found.predicted, model.cutoffs, table,
                  scores, model.nomograms[MAIN], max((s.n_candidates for s in model.signatures.values()), default=0))


def _benefit_figures(results: Results, done: Review, place: str) -> dict[str, tuple[str, Figure]]:
    """The decision curve of the main nomogram at the last horizon, where it is judged best."""
    appraisal = done.judged.appraisals[done.judged.main, place]
    if not appraisal.benefit:
        return {}
    month, name = max(appraisal.benefit), done.judged.labels[done.judged.main]
    rows = results.cohort.of(place).table
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    everybody = net_benefit([0.0] * len(surv), surv, month, appraisal.benefit[month].thresholds)
    others = {done.judged.labels[m]: a.benefit[month] for (m, s), a in done.judged.appraisals.items()
              if s == place and m != done.judged.main and month in a.benefit}
    over = {"Less treat all": appraisal.over_all[month]}
    if month in appraisal.over_reference:
        over[f"Less {done.judged.labels['manual_radio_stage']}"] = appraisal.over_reference[month]
    return {"6": (f"Decision curves at {month:g} months, {SPLIT_LABELS[place].lower()}: net benefit, and how much more "
                  f"{name} has, with 95 % intervals.",
                  benefit_figure({name: appraisal.benefit[month], **others, "Treat all": everybody}, over))}


def _trend_figures(done: Review) -> dict[str, tuple[str, Figure]]:
    trends = done.development.trends if done.development else {}
    if not trends:
        return {}
    return {"7": ("Effects over time (scaled Schoenfeld residuals with a smooth curve and its band) of the nomogram's "
                  "variables in the training cohort; a level curve is a proportional hazard.",
                  trend_figure({_variable(name): trend for name, trend in trends.items()}))}


def _variable(name: str) -> str:
    """A column of the model as printed: `tnm=IVa` is "Tnm IVa"."""
    column, _, level = name.partition("=")
    titles = {score.name: score.title for score in SCORES}
    return titles.get(column, f"{label_of(column)} {level}".strip())


def _appraisal_table(done: Review) -> Table:
    """Table 5: Uno's C, paired differences, restricted mean."""
    judged, rows = done.judged, []
    for (model, split), a in judged.appraisals.items():
        if model not in judged.labels:
            continue
        place_rival = strongest_rival(judged, split)
        pair = [a.versus.get(judged.reference), a.versus.get(place_rival or "")]
        rows.append((judged.labels[model], SPLIT_LABELS[split].split()[0], estimate_text(a.uno),
                     *(difference_text(e) for e in pair), difference_text(a.restricted_mean, 1)))
    return Table(5, "Discrimination, further figures", (
        "Model", "Cohort", "Uno's C (95% CI)", "C less the stage's", "C less the strongest other model's",
        "Event-free months, high less low risk"), tuple(rows), (
        "Uno's C up to the last horizon, weighted by the inverse squared probability of being uncensored. Differences "
        "of Harrell's C are paired (compareC), with P. The strongest other model is the one with the highest C in that "
        "cohort, which favours it. Event-free months up to the last horizon (restricted mean).",))


def _calibration_table(done: Review) -> Table:
    """Table 6: calibration and error of the main nomogram by cohort and horizon."""
    judged, rows = done.judged, []
    for (model, split), e in judged.evaluations.items():
        a = judged.appraisals.get((model, split))
        for month, c in e.calibration.items() if model == judged.main else ():
            brier = a.brier.get(month) if a else None
            rows.append((SPLIT_LABELS[split].split()[0], f"{month:g}", estimate_text(c.oe), estimate_text(c.intercept),
                         estimate_text(c.slope), *(f"{v:.3f}" if isfinite(v) else "-" for v in (c.ici, c.e50, c.e90)),
                         estimate_text(brier.score) if brier else "-",
                         f"{brier.ipa:.1%}" if brier and isfinite(brier.ipa) else "-"))
    rows += [(SPLIT_LABELS[split].split()[0], f"1 to {one.months[-1]:g}", *["-"] * 6, f"{one.ibs:.3f}",
              f"{one.ipa:.1%}") for split, one in done.integrated.items() if isfinite(one.ipa)]
    return Table(6, f"Calibration and prediction error of {judged.labels[judged.main]}", (
        "Cohort", "Months", "O/E (95% CI)", "Intercept", "Slope", "ICI", "E50", "E90", "Brier score", "IPA"),
        tuple(rows), (
        "ICI, E50, E90: mean, median and 90th percentile of the distance between predicted and smoothed observed risk. "
        "IPA: 1 - Brier / Brier of the Kaplan-Meier risk; at or below 0 the model is no better than no model. "
        "1 to a month: integrated over the months.",))


def _hazard_table(done: Review) -> Table:
    """Table 7: proportional hazards and optimism of the nomogram step."""
    d = done.development
    if d is None:
        return Table(7, "", ("",), ())
    rows = [(f"Proportional hazards: {_variable(name) if name != 'GLOBAL' else 'all together'}",
             f"chi-square {t.statistic:.2f}, df {t.df:g}", f"P {p_text(t.p)}") for name, t in d.proportional.items()]
    if d.corrected:
        c, slope = d.corrected.row("c"), d.corrected.row("slope")
        rows += [("C-index, bootstrap of the nomogram step",
                  f"apparent {c['apparent']:.3f}, optimism {c['optimism']:.3f}",
                  f"corrected {estimate_text(d.corrected.c)}"),
                 ("Slope, bootstrap of the nomogram step", f"apparent {slope['apparent']:.3f}",
                  f"corrected {slope['corrected']:.3f}")]
    for what, size in (("its parameters", d.by_parameters), ("all candidate features", d.by_candidates)):
        if size:
            rows.append((f"Sample size for {what}", f"{size.parameters:,} parameters, R2 {size.r2:.3f}",
                         f"{size.n:,} patients needed, {d.n:,} there"))
    return Table(7, "Development of the nomogram", ("What", "Figures", "Result"), tuple(rows), (
        "Score test of each variable against time (as cox.zph). The bootstrap refits the nomogram's terms on given "
        "scores; the optimism of networks, signatures and the choice of terms is met by cross-fitting. Sample size by "
        "Riley's three criteria with an R2 of 15 % of the largest possible.",))


def _subgroup_table(results: Results, done: Review) -> Table:
    months = max(results.study.nomogram.months)
    return Table(8, f"{done.judged.labels[done.judged.main]} in subgroups", (
        "Cohort", "Variable", "Level", "Patients", "Events", "C-index (95% CI)", f"O/E at {months:g} months",
        "Slope"), tuple(subgroup_rows(done)), (
        "No figures below ten events. Many subgroups are looked at: differences between them can be chance.",))


def _difference_table(results: Results, done: Review) -> Table:
    rows = [(label_of(name), SPLIT_LABELS[split].split()[0], difference_text(e, 2))
            for split, found in done.differences.items() for name, e in found.items() if isfinite(e.value)]
    settings = results.study.cohort
    lost = missing_rows(results.cohort.table, [*settings.continuous, *settings.factors, *settings.described])
    rows += [(f"{name}: missing", centre, f"{k} of {n}") for name, centre, n, k in lost]
    return Table(9, "Cohorts against the training cohort, and missing values by centre", (
        "Variable", "Cohort or centre", "Standardised difference (95% CI), or missing"), tuple(rows), (
        "Above 0.1 in size a standardised difference is often called noteworthy.",))


def _appraisal_numbers(a: Appraisal) -> dict[str, Any]:
    curves = {"benefit": a.benefit, "over_all": a.over_all, "over_reference": a.over_reference}
    return {
        "model": a.model, "cohort": a.split, "uno_c": _numbers(a.uno),
        "c_versus": {name: _numbers(e) for name, e in a.versus.items()},
        "auc_over_time": a.auc and {name: [_finite(v) for v in getattr(a.auc, name)]
                                    for name in ("months", "auc", "low", "high")},
        "brier": {f"{m:g}": {"score": _numbers(b.score), "null": _finite(b.null), "ipa": _finite(b.ipa)}
                  for m, b in a.brier.items()},
        **{name: {f"{m:g}": {part: [_finite(v) for v in getattr(c, part)]
                             for part in ("thresholds", "value", "low", "high")} for m, c in found.items()}
           for name, found in curves.items()},
        "restricted_mean_difference": _numbers(a.restricted_mean)}


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    return {each.name: _finite(getattr(estimate, each.name)) for each in fields(estimate)}


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
