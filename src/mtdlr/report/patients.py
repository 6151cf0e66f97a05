"""One quality-control page a patient: pictures, warnings, the SUV audit, series, geometry, masks, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Template

from mtdlr.errors import Problem
from mtdlr.report.audit import Rows, choice_of, suv_candidates, suv_stated, suv_used
from mtdlr.report.explained import patient_shares
from mtdlr.report.masks import overlap_problems, patient_rows
from mtdlr.report.pictures import page_name
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS
from mtdlr.study import MAIN


@dataclass(frozen=True)
class Page:
    """What one patient's page and its line in the report show.

    Args:
        id, name, split, center: who; `name` is the page's file name without suffix.
        outcome: follow-up in words.
        dice, risk: as text.
        problems: warnings of preparation and scoring.
        choice: why these files were read, a sentence each.
        suv: (tag, value) as stated; used: (fact, value); candidates: reference times and what each would change.
        geometry: (title, rows) of every group of facts.
        masks: (parameter, predicted, manual, difference in percent).
        shares: (place, shares of the risk in PET and CT, what they add to it), where the report explains the patient.
        brief: three facts for the list of patients: uptake time, PET-CT distance, trust in the region.
    """

    id: str
    name: str
    split: str
    center: str
    outcome: str
    dice: str
    risk: str
    problems: tuple[Problem, ...]
    choice: tuple[str, ...]
    suv: Rows
    used: Rows
    candidates: list[tuple[str, str, str]]
    geometry: list[tuple[str, Rows]]
    masks: list[tuple[str, ...]]
    shares: list[tuple[str, ...]]
    brief: tuple[str, str, str]


def pages_of(results: Results, masks: pd.DataFrame) -> list[Page]:
    """The page of every patient, in table order.

    Args:
        results: of a finished run.
        masks: of `mask_table`.
    """
    poor = overlap_problems(masks)
    return [_page(results, masks, patient, poor.get(patient)) for patient in results.cohort.ids]


def write_pages(pages: Iterable[Page], template: Template, folder: Path, title: str) -> None:
    """Write `<name>.html` beside the pictures of `write_patients`, each linked with the next.

    Args:
        pages: of `pages_of`.
        template: the page's template.
        folder: folder of the pictures.
        title: title of the report.
    """
    pages = list(pages)
    for number, page in enumerate(pages):
        before = pages[number - 1] if number else None
        after = pages[number + 1] if number + 1 < len(pages) else None
        text = template.render(page=page, title=title, before=before, after=after)
        (folder / f"{page.name}.html").write_text(text, encoding="utf-8")


def _page(results: Results, masks: pd.DataFrame, patient: str, poor: Problem | None) -> Page:
    header = json.loads((results.prepared[patient] / "facts.json").read_text(encoding="utf-8"))
    score = json.loads((results.scored[patient] / "score.json").read_text(encoding="utf-8"))
    row, facts, audit = results.cohort.table.loc[patient], header["facts"], header.get("audit", {})
    suv = (audit.get("pet") or {}).get("suv") or {}
    dice = score["agreement"].get("dice")
    return Page(
        id=patient, name=page_name(patient), split=SPLIT_LABELS[str(row["split"])], center=str(row["center"]),
        outcome=f"{'event' if row['event'] else 'event free'} at {row['time_months']:.0f} months",
        dice="no manual mask" if dice is None else f"{dice:.2f}", risk=f"{results.findings.risks[MAIN][patient]:.2f}",
        problems=(*(_short(Problem(**p), patient) for p in header["problems"] + score["problems"]),
                  *([_short(poor, patient)] if poor else [])),
        choice=choice_of(audit), suv=suv_stated(suv), used=suv_used(suv), candidates=suv_candidates(suv),
        geometry=geometry_of(facts), masks=patient_rows(masks, patient), shares=patient_shares(results, patient),
        brief=_brief(suv, facts))


def _short(problem: Problem, patient: str) -> Problem:
    """The problem without the patient's name in front: the page is about nobody else."""
    place = problem.of_patient(patient).place
    return Problem(problem.code, problem.what, place, problem.found, problem.expected, problem.remedy)


def geometry_of(facts: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """Facts of a prepared patient in words, by group; groups without facts are left out."""
    groups = [("Grids", _grids(facts)), ("PET against CT", _alignment(facts)),
              ("Region of the networks", _region(facts)), ("Uptake and manual mask", _uptake(facts))]
    return [(title, rows) for title, rows in groups if rows]


def _grids(f: Mapping[str, Any]) -> Rows:
    rows = [(name.upper(), f"{f[f'{name}_size_zyx']} voxels of " + " x ".join(
        f"{f[f'{name}_voxel_{axis}_mm']:.4g}" for axis in "zyx") + " mm (z, y, x)")
        for name in ("pet", "ct") if f"{name}_size_zyx" in f]
    rows += [("angle between the grids", f"{f['pet_ct_angle_deg']:.2f} degrees")] if "pet_ct_angle_deg" in f else []
    if "pet_ct_middle_mm" in f:
        rows.append(("between the middles of the scans",
                     f"{f['pet_ct_middle_mm']:.1f} mm, {f['pet_ct_middle_z_mm']:+.1f} mm of it along the body"))
    return rows


def _alignment(f: Mapping[str, Any]) -> Rows:
    rows = [("alignment", str(f["alignment"]))] if "alignment" in f else []
    if "misalignment_mm" in f:
        shift = ", ".join(f"{f[f'misalignment_{axis}_mm']:+.1f}" for axis in "xyz")
        rows += [("PET and CT lie apart", f"{f['misalignment_mm']:.1f} mm: ({shift}) in x, y, z"),
                 ("standard deviation of that", f"{f['misalignment_sd_mm']:.1f} mm"),
                 ("seen in", str(f["misalignment_seen_in"])),
                 ("probability that it is right to 5 mm", f"{f['misalignment_confidence']:.2f}")]
    rows += [("left after correction", f"{f['alignment_residual_mm']:.1f} mm")] if "alignment_residual_mm" in f else []
    return rows + ([("body without CT", f"{f['body_without_ct']:.1%}")] if "body_without_ct" in f else [])


def _region(f: Mapping[str, Any]) -> Rows:
    if "roi_how" not in f:
        return []
    middle = ", ".join(f"{f[f'roi_{axis}_mm']:.0f}" for axis in "xyz")
    return [("found", str(f["roi_how"])), ("confidence", f"{f['roi_confidence']:.2f} (sure from 0.50)"),
            ("middle", f"({middle}) mm in LPS"),
            ("outside PET, outside CT", f"{f['roi_without_pet']:.1%}, {f['roi_without_ct']:.1%}")]


def _uptake(f: Mapping[str, Any]) -> Rows:
    labels = (("suv_max", "largest SUV around the region", "{:.2f}"),
              ("mask_ml", "manual mask on its own grid", "{:.1f} ml"), ("mask_suv_max", "largest SUV in it", "{:.2f}"),
              ("mask_in_roi", "share of it in the region", "{:.1%}"))
    return [(label, form.format(f[key])) for key, label, form in labels if key in f]


def _brief(suv: Mapping[str, Any], f: Mapping[str, Any]) -> tuple[str, str, str]:
    return (f"{suv['uptake_min']:.0f} min" if "uptake_min" in suv else "",
            f"{f['misalignment_mm']:.1f} mm" if "misalignment_mm" in f else "",
            f"{f['roi_confidence']:.2f}" if "roi_confidence" in f else "")
