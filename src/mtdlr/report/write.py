"""report.html: one self-contained page with warnings first, then flow, figures, tables, patients and settings.

Beside it lies a page for every patient: patients/<id>.html.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, Template
from markupsafe import Markup

from mtdlr.errors import Problem
from mtdlr.evaluate import MODELS
from mtdlr.model import IN_SAMPLE, SCORE_LABELS, nomogram_predictions
from mtdlr.nomogram.calculator import write_calculator
from mtdlr.report.documents import to_html, write_table, write_word
from mtdlr.report.explained import explained_rows
from mtdlr.report.masks import mask_table, overlap_rows, parameter_rows
from mtdlr.report.patients import pages_of, write_pages
from mtdlr.report.pictures import (
    ATTRIBUTION,
    MODEL,
    PICTURE,
    make_figures,
    write_figures,
    write_patients,
    write_training,
)
from mtdlr.report.results import Results
from mtdlr.report.review import review, review_numbers, review_tables, write_review
from mtdlr.report.tables import SPLIT_LABELS, estimate_text, make_tables, p_text
from mtdlr.stats.calibration import Calibration, calibrate
from mtdlr.stats.concordance import concordance
from mtdlr.stats.kaplan_meier import median_follow_up
from mtdlr.survival import Survival
from mtdlr.versions import versions

CALIBRATION_TESTS = {"gnd": "Greenwood-Nam-D'Agostino", "hl_binary": "Hosmer-Lemeshow"}
"""What `evaluate.calibration_test` is called in print; the setting is the field of a `Calibration`."""


@dataclass(frozen=True)
class Group:
    """Problems of one code."""

    code: str
    is_error: bool
    lines: tuple[str, ...]


def write_report(results: Results, folder: Path) -> None:
    """Write report.html, patients/, tables/, figures/, masks.csv, scores.csv and the nomogram into an empty folder."""
    tables = make_tables(results)
    figures = make_figures(results)
    for table in tables.values():
        write_table(table, folder / "tables")
    write_figures(figures, folder / "figures")
    masks, splits = mask_table(results), results.cohort.splits
    masks.to_csv(folder / "masks.csv")
    pages = pages_of(results, masks)
    if results.study.report.pages:
        write_patients(results, folder / "patients")
        write_pages(pages, _template("patient"), folder / "patients", results.study.report.title)
    nomogram = results.models.nomograms[MODEL]
    (folder / "nomogram.json").write_text(nomogram.to_json())
    write_calculator(nomogram, folder / "calculator.html")
    results.models.scores.join(results.models.risks, rsuffix="_risk").to_csv(folder / "scores.csv")
    reviewed = review(results)
    numbers = {"evaluations": evaluation_numbers(results), "review": review_numbers(reviewed)}
    (folder / "evaluation.json").write_text(json.dumps(numbers, indent=1))
    shown = write_review(results, reviewed, folder)
    everything = [*tables.values(), *review_tables(results, reviewed)]
    write_word(everything, folder / "tables.docx", heading=results.study.report.title)
    script = (files("mtdlr") / "report" / "templates" / "sort.js").read_text(encoding="utf-8")
    page = _template("report").render(
        script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=results.study.report.title, groups=group_problems(results.problems), flow=flow(results),
        tables=[Markup(to_html(table)) for table in tables.values()],  # every cell is escaped there
        figures={name: (caption, _embedded(folder / "figures" / f"figure{name}.svg"))
                 for name, (caption, _) in figures.items()},
        curves=[(name, _embedded(path)) for name, path in write_training(results, folder / "figures")],
        optimism=optimism(results), slopes=slopes(results),
        calibration_test=CALIBRATION_TESTS[results.study.evaluate.calibration_test],
        months=[f"{month:g}" for month in results.study.nomogram.months], masks=overlap_rows(masks, splits),
        parameters=parameter_rows(masks, splits), explained=explained_rows(results),
        signatures=signature_rows(results), pages=pages, linked=results.study.report.pages,
        pictures={i: _embedded(results.pictures[i] / PICTURE)
                  for i in results.cohort.some_of_each(results.study.report.thumbnails)},
        risk_maps={i: _embedded(path / ATTRIBUTION) for i, path in results.explained.items()},
        **{k: [Markup(t) for t in v] if k in ("review_tables", "checklists") else v for k, v in shown.items()},
        settings=settings_rows(results), versions=versions(), out_of_fold=results.study.score.training == "out_of_fold")
    (folder / "report.html").write_text(page, encoding="utf-8")


def group_problems(problems: Sequence[Problem]) -> list[Group]:
    """Problems by code, errors first."""
    lines: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        lines[problem.code].append(str(problem).removeprefix(problem.code).strip())
    codes = sorted(lines, key=lambda code: (not code.startswith("E-"), code))
    return [Group(code, code.startswith("E-"), tuple(lines[code])) for code in codes]


def flow(results: Results) -> dict[str, Any]:
    """How many came in, how many were left out, and who is in which cohort."""
    table = results.cohort.table
    arms = []
    for split in results.cohort.splits:
        rows = table[table["split"] == split]
        surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
        follow_up = median_follow_up(surv)
        arms.append({"name": SPLIT_LABELS[split], "n": len(rows), "events": surv.n_events,
                     "share": f"{100 * surv.n_events / len(rows):.0f} %", "follow_up": f"{follow_up.value:.0f}"})
    out = sorted({f"patient {i}" for p in results.problems if p.is_error for i in p.patients})
    return {"included": len(table), "left_out": out, "arms": arms}


def optimism(results: Results) -> list[tuple[str, ...]]:
    """C-index of each score: in sample, out of fold, and in the other cohorts."""
    table, scores = results.cohort.table, results.models.scores
    rows = []
    for name in SCORE_LABELS:
        cells = [_c(scores[column], table, "training") for column in (f"{name}{IN_SAMPLE}", name)]
        cells += [_c(scores[name], table, split) for split in results.cohort.splits if split != "training"]
        rows.append((SCORE_LABELS[name], *cells))
    return rows


def slopes(results: Results) -> list[tuple[str, ...]]:
    """Slope, O/E and a test's P, by horizon, of the nomogram in each cohort, on out-of-fold and on in-sample scores."""
    table, settings, rows = results.cohort.table, results.study.evaluate, []
    data = table.join(results.models.scores)
    for name, label in ((MODEL, "out-of-fold scores"), (MODEL + IN_SAMPLE, "in-sample scores")):
        if name not in results.models.nomograms:
            continue
        _, predicted = nomogram_predictions(results.models.nomograms[name], data)
        for split in results.cohort.splits:
            known = ((table["split"] == split) & predicted.notna().all(axis=1)).to_numpy()
            surv = Survival(table["time_months"].to_numpy(float)[known], table["event"].to_numpy(bool)[known])
            found = [calibrate(predicted[month].to_numpy(float)[known], surv, month, groups=settings.calibration_groups,
                               development=split == "training") for month in results.study.nomogram.months]
            rows.append((label, SPLIT_LABELS[split].split()[0],
                         *(cell for c in found for cell in _cells(c, settings.calibration_test))))
    return rows


def _cells(found: Calibration, test: str) -> tuple[str, str, str]:
    """Slope, O/E and the test's P as text."""
    return estimate_text(found.slope), estimate_text(found.oe), p_text(getattr(found, test).p)


def signature_rows(results: Results) -> dict[str, list[tuple[str, ...]]]:
    """Selected features of each signature with their coefficient per SD and how often they are selected."""
    return {source: [(name, f"{coef:+.4f}", f"{100 * often:.0f} %") for name, coef, often in sorted(
        zip(s.features, s.coef, s.selected_in, strict=True), key=lambda row: -abs(row[1]))]
        for source, s in results.models.signatures.items()}


def settings_rows(results: Results) -> list[tuple[str, str, bool]]:
    """(key, value, changed) of every setting; where a path was given, its last part only."""
    default = type(results.study)().model_dump(mode="json")
    rows = []
    for section, keys in results.study.model_dump(mode="json", exclude={"run"}).items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            text = Path(value).name if isinstance(value, str) and "/" in value else json.dumps(value)
            rows.append((f"{section}.{key}", text, value != default[section][key]))
    return rows


def evaluation_numbers(results: Results) -> list[dict[str, Any]]:
    """Every evaluation's numbers, for programs."""
    return [{
        "model": e.model, "label": MODELS[e.model], "cohort": e.split, "n": e.n, "events": e.n_events,
        "c": _numbers(e.c), "c_vs_stage": e.concordance_vs_stage and _numbers(e.concordance_vs_stage),
        "auc": {f"{k:g}": _numbers(a.auc) for k, a in e.auc.items()},
        "calibration": {f"{k:g}": {"slope": _numbers(c.slope), "oe": _numbers(c.oe), "ici": _finite(c.ici),
                                   "gnd_p": _finite(c.gnd.p)} for k, c in e.calibration.items()},
        "groups": e.groups and {"cutoff": e.groups.cutoff, "hazard_ratio": _numbers(e.groups.hazard_ratio),
                                "log_rank_p": _finite(e.groups.log_rank.p)},
    } for e in results.models.evaluations.values()]


def _numbers(estimate: Any) -> dict[str, float | None]:
    return {name: _finite(getattr(estimate, name)) for name in ("value", "low", "high", "p")}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _c(score: Any, table: Any, split: str) -> str:
    """C-index of a score in one cohort, as text."""
    rows = ((table["split"] == split) & score.notna()).to_numpy()
    if not table["event"].to_numpy(bool)[rows].any():
        return "-"
    surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
    return estimate_text(concordance(score.to_numpy(float)[rows], surv).c)


def _embedded(path: Path) -> str:
    """A picture file as a data URL."""
    kind = {".svg": "svg+xml", ".jpg": "jpeg"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _template(name: str) -> Template:
    text = (files("mtdlr") / "report" / "templates" / f"{name}.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
