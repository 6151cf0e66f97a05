"""report.html: one self-contained page with warnings first, then flow, figures, tables, patients and settings.

Beside it lies a page for every patient: patients/<id>.html.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram.calculator import write_calculator
from mtdlr.nomogram.fit import competing_notice
from mtdlr.report.documents import to_html, write_table, write_word
from mtdlr.report.explained import explained_rows
from mtdlr.report.masks import mask_table, overlap_problems, overlap_rows, parameter_rows
from mtdlr.report.numbers import evaluation_numbers
from mtdlr.report.patients import pages_of, write_pages
from mtdlr.report.pdf import can_write_pdf, write_pdf
from mtdlr.report.pictures import (
    ATTRIBUTION,
    PICTURE,
    make_figures,
    undrawn,
    write_figures,
    write_patients,
    write_training,
)
from mtdlr.report.results import Results
from mtdlr.report.review import review, review_numbers, review_tables, write_review
from mtdlr.report.rivals import arms_numbers
from mtdlr.report.tables import SPLIT_LABELS, estimate_text, make_tables, p_text
from mtdlr.spreadsheet import frame_csv
from mtdlr.stats.calibration import Calibration
from mtdlr.stats.kaplan_meier import median_follow_up
from mtdlr.study import MAIN, SCORES
from mtdlr.survival import Survival
from mtdlr.versions import versions

CALIBRATION_TESTS = {"gnd": "Greenwood-Nam-D'Agostino", "hl_binary": "Hosmer-Lemeshow"}
"""What `evaluate.calibration_test` is called in print; the setting is the field of a `Calibration`."""


@dataclass(frozen=True)
class ProblemGroup:
    """Problems of one code."""

    code: str
    is_error: bool
    lines: tuple[str, ...]


def write_report(results: Results, folder: Path, hand_over: Callable[..., object] | None = None) -> None:
    """Write report.html, patients/, tables/, figures/, masks.csv, scores.csv and the nomogram into an empty folder.

    problems.json holds every problem that report.html shows: those of the run, and what only its report finds.

    Args:
        results: of a finished run.
        folder: an empty folder.
        hand_over: of `aside`, which prints the figures while the page is written; by default that is done here.
    """
    figures = make_figures(results)
    write_figures(figures, folder / "figures", tiff=results.study.report.tiff, hand_over=hand_over)
    masks, splits = mask_table(results), results.cohort.splits
    results = replace(results, problems=(*results.problems, *overlap_problems(masks).values(), *_no_pdf(results)))
    reviewed = review(results)
    results = replace(results, problems=tuple(reviewed.judged.problems))
    (folder / "problems.json").write_text(json.dumps([p.as_dict() for p in results.problems], indent=1))
    tables = make_tables(results)
    for table in tables.values():
        write_table(table, folder / "tables")
    (folder / "masks.csv").write_text(frame_csv(masks), encoding="utf-8")
    pages = pages_of(results, masks)
    if results.study.report.pages:
        write_patients(results, folder / "patients")
        write_pages(pages, _template("patient"), folder / "patients", results.study.report.title)
    nomogram = results.model.nomograms[MAIN]
    (folder / "nomogram.json").write_text(nomogram.to_json())
    write_calculator(nomogram, folder / "calculator.html", study=results.study.report.title,
                     note=" ".join(f"Here {p.what}." for p in competing_notice(results.study.cohort.competing)),
                     cutoff=results.model.cutoffs.get(MAIN))
    scores = results.scores.join(results.findings.risks, rsuffix="_risk")
    (folder / "scores.csv").write_text(frame_csv(scores), encoding="utf-8")
    numbers = evaluation_numbers(results) | {"review": review_numbers(reviewed), "arms": arms_numbers(results.arms)}
    (folder / "evaluation.json").write_text(json.dumps(numbers, indent=1))
    shown = write_review(results, reviewed, folder, hand_over)
    everything = [*tables.values(), *review_tables(results, reviewed)]
    write_word(everything, folder / "tables.docx", heading=results.study.report.title)
    script = (files("mtdlr") / "report" / "templates" / "sort.js").read_text(encoding="utf-8")
    page = _template("report").render(
        script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=results.study.report.title, groups=group_problems(results.problems), flow=flow(results),
        tables=[Markup(to_html(table)) for table in tables.values()],  # every cell is escaped there
        figures={name: (caption, _embedded(folder / "figures" / f"figure{name}.svg"))
                 for name, (caption, _) in figures.items()},
        undrawn=undrawn(results),
        curves=[(name, _embedded(path)) for name, path in write_training(results, folder / "figures")],
        optimism=optimism_rows(results), slopes=slope_rows(results),
        calibration_test=CALIBRATION_TESTS[results.study.evaluate.calibration_test],
        months=[f"{month:g}" for month in results.study.nomogram.months], masks=overlap_rows(masks, splits),
        parameters=parameter_rows(masks, splits), explained=explained_rows(results),
        signatures=signature_rows(results), pages=pages, linked=results.study.report.pages,
        pictures={i: _embedded(results.pictures[i] / PICTURE)
                  for i in results.cohort.some_of_each(results.study.report.thumbnails) if i in results.pictures},
        risk_maps={i: _embedded(path / ATTRIBUTION) for i, path in results.explained.items()},
        **shown | {"review_tables": [(title, Markup(text)) for title, text in shown["review_tables"]],
                   "checklists": [Markup(text) for text in shown["checklists"]]},
        settings=settings_rows(results), versions=versions(), out_of_fold=results.study.score.training == "out_of_fold")
    (folder / "report.html").write_text(page, encoding="utf-8")
    if results.study.report.pdf and can_write_pdf():
        write_pdf(page, folder / "report.pdf")


def group_problems(problems: Sequence[Problem]) -> list[ProblemGroup]:
    """Problems by code, errors first."""
    lines: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        lines[problem.code].append(str(problem).removeprefix(problem.code).strip())
    codes = sorted(lines, key=lambda code: (not code.startswith("E-"), code))
    return [ProblemGroup(code, code.startswith("E-"), tuple(lines[code])) for code in codes]


def flow(results: Results) -> dict[str, Any]:
    """How many came in, how many were left out, and who is in which cohort."""
    table = results.cohort.table
    arms = []
    for split in results.cohort.splits:
        rows = table[table["split"] == split]
        surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
        follow_up = median_follow_up(surv)
        arms.append({"name": SPLIT_LABELS[split], "n": len(rows), "events": surv.n_events,
                     "share": f"{100 * surv.n_events / len(rows):.0f} %", "follow_up": follow_up_text(follow_up)})
    out = sorted({f"patient {i}" for p in results.problems if p.is_error for i in p.patients})
    codes = {p.code: set[str]() for p in results.problems if p.is_error}
    for problem in results.problems:
        codes.get(problem.code, set()).update(problem.patients)
    return {"included": len(table), "left_out": out, "arms": arms,
            "codes": [(code, len(patients)) for code, patients in sorted(codes.items())]}


def follow_up_text(median: Estimate) -> str:
    """The median follow-up in words.

    >>> follow_up_text(Estimate(41.6)), follow_up_text(Estimate(float("nan")))
    ('median follow-up 42 months', 'median follow-up not reached: too few were followed to the end without an event')
    """
    if isfinite(median.value):
        return f"median follow-up {median.value:.0f} months"
    return "median follow-up not reached: too few were followed to the end without an event"


def optimism_rows(results: Results) -> list[tuple[str, ...]]:
    """C-index of each score: in sample, out of fold, and in the other cohorts."""
    titles = {score.name: score.title for score in SCORES}
    return [(titles[name], *(estimate_text(estimate) for estimate in found.values()))
            for name, found in results.findings.optimism.items() if name in titles]


def slope_rows(results: Results) -> list[tuple[str, ...]]:
    """Slope, O/E and a test's P, by horizon, of the nomogram in each cohort, on out-of-fold and on in-sample scores."""
    test, months = results.study.evaluate.calibration_test, results.study.nomogram.months
    return [(kind, SPLIT_LABELS[split].split()[0],
             *(cell for month in months for cell in _cells(found[split, month], test)))
            for kind, found in results.findings.calibrations.items() for split in results.cohort.splits
            if (split, months[0]) in found]


def _cells(found: Calibration, test: str) -> tuple[str, str, str]:
    """Slope, O/E and the test's P as text."""
    return estimate_text(found.slope), estimate_text(found.oe), p_text(getattr(found, test).p)


def signature_rows(results: Results) -> dict[str, list[tuple[str, ...]]]:
    """Selected features of each signature with their coefficient per SD and how often they are selected."""
    return {source: [(name, f"{coef:+.4f}", f"{100 * often:.0f} %") for name, coef, often in sorted(
        zip(s.features, s.coef, s.selected_in, strict=True), key=lambda row: -abs(row[1]))]
        for source, s in results.model.signatures.items()}


def settings_rows(results: Results) -> list[tuple[str, str, bool]]:
    """(key, value, changed) of every setting; where a path was given, its last part only."""
    default = type(results.study)().model_dump(mode="json")
    rows = []
    for section, keys in results.study.model_dump(mode="json", exclude={"run"}).items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            text = Path(value).name if isinstance(value, str) and "/" in value else json.dumps(value)
            rows.append((f"{section}.{key}", text, value != default[section][key]))
    return rows


def _no_pdf(results: Results) -> list[Problem]:
    """W-PDF where a PDF is wanted and cannot be written: hours of work are not lost for it."""
    if not results.study.report.pdf or can_write_pdf():
        return []
    return [Problem("W-PDF", "the report was not written as PDF", where="report.pdf", expected="WeasyPrint and Pango",
                    remedy="pip install 'mtdlr[docs-out]', or print report.html as PDF in any browser")]


def _embedded(path: Path) -> str:
    """A picture file as a data URL."""
    kind = {".svg": "svg+xml", ".jpg": "jpeg"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _template(name: str) -> Template:
    text = (files("mtdlr") / "report" / "templates" / f"{name}.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined).from_string(text)
