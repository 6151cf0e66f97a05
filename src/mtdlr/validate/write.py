"""What a validation leaves on disk: report.html, tables, figures, evaluation.json, scores.csv, and an updated model."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mtdlr.errors import FitError, Problem
from mtdlr.evaluate import Evaluation
from mtdlr.model import GUARANTEE
from mtdlr.report.documents import to_html, write_table
from mtdlr.report.figures import calibration_figure, decision_figure, kaplan_meier_figure, roc_figure, save
from mtdlr.report.tables import Table, estimate_text, p_text
from mtdlr.report.write import group_problems
from mtdlr.shift.aggregates import margins, margins_text
from mtdlr.spreadsheet import plain_cell
from mtdlr.stats.concordance import concordance
from mtdlr.study import MAIN
from mtdlr.survival import Survival
from mtdlr.validate.performance import TableValidation, numbers
from mtdlr.validate.run import CohortValidation
from mtdlr.validate.update import NomogramUpdate, update_numbers
from mtdlr.validate.updated import require_same, save_updated, updated_model
from mtdlr.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARMONISATION = ("Quantity", "Policy", "What was done", "n")
MASKS = {"auto": "predicted", "manual": "manual"}
DONE = {"stored": "ComBat as fitted on this centre's training patients",
        "transductive": "ComBat against the training cohort's reference centre, fitted on these patients' features "
                        "without outcomes", "none": "nothing: too few patients, and the centre was not in training"}


def write_validation(found: CohortValidation, folder: Path) -> None:
    """Write everything a reader of the validation needs into a folder, in place of an earlier report.

    report.html, tables/, figures/, evaluation.json, scores.csv, shift.json, and `updated-model/` where there is an
    update: a new bundle with its parent's hash, the method and the numbers it rests on.

    Args:
        found: what the validation found.
        folder: where the files go; made if missing.

    Raises:
        StoreError: E-EXISTS, before anything is written, where `updated-model/` is another model.
    """
    updated = None if found.update is None else updated_model(found.model, found.update)
    if updated is not None:
        require_same(folder, updated)
    clear_results(folder)
    figures = {} if found.main is None else performance_figures(
        found.main, folder / "figures", found.study.cohort.endpoint, _groups(found))
    (folder / "evaluation.json").write_text(json.dumps(evaluation(found), indent=1), encoding="utf-8")
    (folder / "shift.json").write_text(json.dumps({i: s.as_dict() for i, s in found.shifts.items()}, indent=1),
                                       encoding="utf-8")
    score_rows(found).rename(index=plain_cell).to_csv(folder / "scores.csv", index_label="patient_id")
    page = render(folder, validation_tables(found), figures, title=found.study.report.title, summary=summary(found),
                  problems=found.problems, parent=found.model.digest)
    (folder / "report.html").write_text(page, encoding="utf-8")
    if updated is not None:
        save_updated(folder, updated)


def clear_results(folder: Path) -> None:
    """Make the folder of a validation, without tables and figures of an earlier one: some would outlive it.

    Everything else stays: what is stored to go on from, and an updated model, which may be the one that is judged now.

    Args:
        folder: made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tables", "figures"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)


def render(
    folder: Path, tables: Sequence[Table], figures: Mapping[str, str], *, title: str, summary: Sequence[str],
    problems: Sequence[Problem], parent: str,
) -> str:
    """The page of a validation, whose tables are written into `tables/` too.

    Args:
        folder: where `tables/` goes.
        tables: in their order; they are numbered from 1.
        figures: data URLs by caption.
        title: of the study.
        summary: first lines, in sentences.
        problems: errors first.
        parent: which model was judged.
    """
    numbered = [replace(table, number=k) for k, table in enumerate(tables, start=1)]
    for table in numbered:
        write_table(table, folder / "tables")
    text = (files("mtdlr") / "validate" / "validation.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return page.from_string(text).render(
        title=title, groups=group_problems(problems), summary=summary, figures=figures, versions=versions(),
        parent=parent, tables=[Markup(to_html(table)) for table in numbered])  # cells are escaped there


def evaluation(found: CohortValidation) -> dict[str, Any]:
    """Every number for programs."""
    return {
        "model": found.model.digest, "patients": len(found.cohort), "follow_up": found.followed,
        "refused": sorted(i for i, shift in found.shifts.items() if shift.refused),
        "accepted_out_of_distribution": sorted(i for i, shift in found.shifts.items() if any(
            p.code in ("W-SHIFT", "W-PHYSICAL") and p.remedy.startswith("Accepted") for p in shift.problems)),
        "main": None if found.main is None else numbers(found.main),
        "models": [] if found.findings is None else [_one(e) for e in found.findings.evaluations.values()],
        "update": None if found.update is None else update_numbers(found.update),
        "harmonisation": [dict(zip(("quantity", "policy", "done", "n"), row, strict=True))
                          for row in harmonisation(found)],
    }


def score_rows(found: CohortValidation) -> pd.DataFrame:
    """(patients): scores, log-hazards, predicted survival, risk group, lower bound, shift percentile."""
    predicted = found.predicted.rename(columns=lambda month: f"survival_{month:g}")
    cutoff, risk = found.model.cutoffs.get(MAIN, np.nan), found.risks[MAIN]
    known = risk.notna() & np.isfinite(cutoff)
    group = pd.Series(np.where(risk >= cutoff, "high", "low"), index=risk.index).where(known)
    percentile = pd.Series({i: shift.percentile for i, shift in found.shifts.items()}).reindex(risk.index)
    return found.scores.join(found.risks, rsuffix="_risk").join(predicted).assign(
        risk_group=group, lower_bound_months=found.bounds, shift_percentile=percentile)


def summary(found: CohortValidation) -> list[str]:
    """The first lines of the report, in sentences."""
    refused = sum(shift.refused for shift in found.shifts.values())
    lines = [f"{len(found.cohort)} patients were judged. {refused or 'None'} of those who came in "
             f"{'were' if refused > 1 else 'was'} refused for a scan unlike those of the training cohort."]
    if found.main is None:
        return [*lines, "The table has no follow-up: there are scores, no performance."]
    lines.append(f"{found.main.n_events} events.")
    if found.main.c is not None:
        lines.append(f"C-index of the nomogram as received: {estimate_text(found.main.c)}.")
        for month, one in found.main.months.items():
            lines.append(f"At {month:g} months: O/E {estimate_text(one.calibration.oe)}, slope "
                         f"{estimate_text(one.calibration.slope)}, AUC " + (
                             f"{estimate_text(one.auc.auc)}." if np.isfinite(one.auc.auc.low) else
                             f"not told: {one.auc.n_cases} with the event, {one.auc.n_controls} followed longer."))
    bound = None if found.model.aggregates is None else found.model.aggregates.bound
    if bound is not None:
        said = [str(p) for p in bound.problems(GUARANTEE)]
        lines.append(f"Lower bound of the time to the event, for {GUARANTEE:.0%} of patients: cross-validated coverage "
                     f"in training {bound.coverage_text(GUARANTEE)}. {' '.join(said)}".strip())
    return lines


def harmonisation(found: CohortValidation) -> list[tuple[str, str, str, str]]:
    """(quantity, policy, what was done, n patients): how this centre's numbers were brought to those of training."""
    n = str(len(found.cohort))
    rows = [("SUV and CT numbers", "none", "physical units; each scan checked against the training cohort's range", n),
            ("Grid and intensities", "stored", "the model's own preparation", n)]
    for source, policies in found.harmonised.items():
        rows += [(f"Features of the {MASKS[source]} mask, centre {one.center}", one.policy, DONE[one.policy],
                  str(one.n)) for one in policies]
    if not found.harmonised:
        rows.append(("Radiomics features", "none", "the model harmonises no features (signature.harmonise = off)", n))
    return [*rows, ("Network scores", "stored", "the model's frozen scales", n)]


def validation_tables(found: CohortValidation) -> list[Table]:
    """The tables of the report, in their order."""
    tables = [cohort_table(found), Table(
        2, "Harmonisation of this cohort", HARMONISATION, tuple(harmonisation(found)), (
            "Stored: fitted on training patients and applied as it is. Transductive: fitted on the features of these "
            "very patients, without outcomes; it holds for a whole centre, not for one later patient. None: left as "
            "measured.",))]
    if found.main is not None and found.findings is not None:
        tables.append(_models_table(found))
        tables.append(calibration_table(found.main))
    if found.main is not None and found.main.centers:
        tables.append(center_table(found.main))
    if found.update is not None:
        tables.append(update_table(found.update))
    return tables


def cohort_table(found: CohortValidation) -> Table:
    """Table 1: the new cohort beside the training cohort's published margins.

    Args:
        found: what the validation found.
    """
    kept = () if found.model.aggregates is None else found.model.aggregates.margins
    here = margins_text(margins(found.cohort.table, found.study.cohort), len(found.cohort))
    there = margins_text(kept, int(found.model.facts.get("n", 0)))
    keys = dict.fromkeys([*here, *there])
    rows = tuple((f"{label}: {level}" if level not in ("", label) else label, here.get((label, level), "-"),
                  there.get((label, level), "-")) for label, level in keys)
    notes = ["Numbers: median (quartiles); levels: n (%). Counts of one to four patients are not shown."]
    if any(own == "-" for _, own, _ in rows):
        notes.append("A dash in this cohort: the study file does not name the column. Name it under [cohort] in "
                     "continuous, factors or described to have it here.")
    return Table(1, "Patients of this cohort beside the training cohort", (
        "Characteristic", f"This cohort (n = {len(found.cohort)})",
        f"Training cohort (n = {found.model.facts.get('n', '?')})"), rows, tuple(notes))


def _models_table(found: CohortValidation) -> Table:
    """Discrimination of every model as received."""
    assert found.findings is not None
    labels = {one.name: one.label for one in found.model.models}
    rows = []
    for (name, _), e in found.findings.evaluations.items():
        aucs = [f"{estimate_text(curve.auc)}" for curve in e.auc.values()]
        ratio = "-" if e.groups is None else estimate_text(e.groups.hazard_ratio)
        rows.append((labels.get(name, name), f"{e.n} / {e.n_events}",
                     "-" if e.concordance is None else estimate_text(e.concordance.c), _uno(found, name), *aucs, ratio))
    width = max(len(row) for row in rows)
    months = [f"AUC at {month:g} months" for month in found.model.study.nomogram.months][: width - 5]
    months += ["AUC"] * (width - 5 - len(months))
    return Table(3, "Discrimination of every model as received", (
        "Model", "n / events", "C-index (95% CI)", "Uno's C", *months, "HR of the risk groups"),
        tuple((*row[:-1], *["-"] * (width - len(row)), row[-1]) for row in rows), (
        "Nothing was fitted here. Risk groups at the cut-off frozen in training.",))


def _uno(found: CohortValidation, name: str) -> str:
    """Uno's C of a model up to the last horizon; a dash where no two patients can be ordered."""
    assert found.findings is not None
    rows = found.cohort.table
    risk = found.findings.risks[name].reindex(rows.index)  # with the known risk of made-up patients, if they have one
    known = risk.notna()
    surv = Survival(rows.loc[known, "time_months"].to_numpy(float), rows.loc[known, "event"].to_numpy(bool))
    try:
        return estimate_text(concordance(risk[known].to_numpy(float), surv, weighting="uno",
                                         tau=max(found.model.study.nomogram.months)).c)
    except FitError:
        return "-"


def calibration_table(main: TableValidation) -> Table:
    """Calibration and overall error of a nomogram by horizon.

    Args:
        main: its numbers.
    """
    rows = []
    for month, one in main.months.items():
        c = one.calibration
        rows.append((f"{month:g}", estimate_text(c.oe), estimate_text(c.slope), _number(c.ici), _number(c.e50),
                     _number(c.e90), p_text(c.gnd.p), estimate_text(one.auc.auc), estimate_text(one.uno),
                     estimate_text(one.brier.score), _number(one.brier.ipa)))
    return Table(4, "Calibration and accuracy of the nomogram as received", (
        "Months", "O/E", "Slope", "ICI", "E50", "E90", "P (GND)", "AUC(t)", "Uno's C", "Brier", "IPA"), tuple(rows), (
        f"Harrell's C {'-' if main.c is None else estimate_text(main.c)}. "
        "O/E: Kaplan-Meier over mean predicted risk. ICI, E50, E90: distance of the smooth curve.",))


def center_table(main: TableValidation) -> Table:
    """Each centre, and all of them pooled.

    Args:
        main: the numbers of a nomogram.
    """
    rows: list[tuple[str, ...]] = [(c.center, f"{c.n} / {c.n_events}", estimate_text(c.c), estimate_text(c.oe),
                                    estimate_text(c.slope)) for c in main.centers]
    pooled = main.pooled
    if pooled:
        rows.append(("Pooled", "", *(estimate_text(pooled[k].value) if k in pooled else "-"
                                     for k in ("c", "oe", "slope"))))
        rows.append(("Between centres, I2", "", *(f"{100 * pooled[k].i2:.0f}%" if k in pooled else "-"
                                                 for k in ("c", "oe", "slope"))))
    return Table(5, "By centre", ("Centre", "n / events", "C-index", "O/E", "Slope"), tuple(rows), (
        "Pooled by random effects (REML, Hartung-Knapp); O/E and slope at the last horizon.",))


def update_table(update: NomogramUpdate) -> Table:
    """As received, and each update on patients left out of it.

    Args:
        update: of `update_nomogram`.
    """
    judged = {"as received": update.received, **{f"{name}, left-out patients": part for name, part in
                                                 update.cross_validated.items()},
              f"{update.update.method}, bootstrap-corrected": update.optimism.corrected}
    rows = tuple((name, *(_number(v) for v in (p.c, p.slope, p.oe, p.ipa))) for name, p in judged.items())
    test = update.test
    return Table(6, f"Update of the nomogram at {update.month:g} months", (
        "Model", "C-index", "Slope", "O/E", "IPA"), rows, (
        f"Made: {update.update.method}, from {update.update.n} patients with "
        f"{update.update.n_events} events. Closed test: {test.chosen} (P against none "
        f"{p_text(test.against_none.p)}, baseline {p_text(test.against_baseline.p)}, slope "
        f"{p_text(test.against_slope.p)}).",
        "Effective sample size of a prediction (median): " + " and ".join(
            f"{size:.0f} {name}" if np.isfinite(size) else f"not known {name}"
            for size, name in zip(update.effective_n, ("as received", "updated"), strict=True)) + ".",
        *(str(p) for p in update.problems if p.code == "W-UPDATEWORSE")))


def performance_figures(
    main: TableValidation, folder: Path, endpoint: str, groups: Figure | None = None
) -> dict[str, str]:
    """Calibration, ROC, risk groups and net benefit as SVG files; their captions with data URLs.

    Args:
        main: the numbers of a nomogram.
        folder: where the files go.
        endpoint: what event-free survival is called.
        groups: the figure of the risk groups; None leaves it out.
    """
    calibrations = {month: one.calibration for month, one in main.months.items() if one.calibration.groups is not None}
    curves = {f"{month:g} months": one.auc for month, one in main.months.items() if np.isfinite(one.auc.auc.value)}
    last = list(main.months.values())[-1].decision if main.months else None
    drawn = {
        "calibration": ("Calibration of the nomogram as received",
                        calibration_figure(calibrations, endpoint=endpoint) if calibrations else None),
        "roc": ("ROC of the nomogram", roc_figure(curves) if curves else None),
        "groups": ("Risk groups at the frozen cut-off", groups),
        "decision": ("Net benefit at the last horizon", None if last is None or not np.isfinite(last.net_benefit).any()
                     else decision_figure({"Nomogram": last})),
    }
    folder.mkdir(parents=True, exist_ok=True)
    shown = {}
    for name, (caption, figure) in drawn.items():
        if figure is not None:
            save(figure, folder / f"{name}.svg")
            shown[caption] = "data:image/svg+xml;base64," + base64.b64encode(
                (folder / f"{name}.svg").read_bytes()).decode()
    return shown


def _groups(found: CohortValidation) -> Figure | None:
    """Kaplan-Meier curves of the risk groups, where there are two."""
    e = None if found.findings is None else found.findings.evaluations.get((MAIN, "external"))
    if e is None or e.groups is None:
        return None
    return kaplan_meier_figure(e.groups.curves, p=e.groups.log_rank.p, hazard_ratio=e.groups.hazard_ratio,
                               endpoint=found.study.cohort.endpoint)


def _one(e: Evaluation) -> dict[str, Any]:
    """One model's numbers."""
    return {"model": e.model, "n": e.n, "events": e.n_events,
            "c": None if e.concordance is None else _plain(e.concordance.c),
            "auc": {f"{key:g}": _plain(curve.auc) for key, curve in e.auc.items()},
            "oe": {f"{month:g}": _plain(c.oe) for month, c in e.calibration.items()},
            "slope": {f"{month:g}": _plain(c.slope) for month, c in e.calibration.items()},
            "groups": None if e.groups is None else {"cutoff": e.groups.cutoff,
                                                     "hazard_ratio": _plain(e.groups.hazard_ratio)}}


def _plain(estimate: Any) -> Mapping[str, float | None]:
    return {name: float(value) if np.isfinite(value := getattr(estimate, name)) else None
            for name in ("value", "low", "high", "p")}


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
