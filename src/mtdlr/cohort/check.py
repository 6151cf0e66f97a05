"""Everything that is wrong with a study before any work is done: settings, table, scans, leakage. Computes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from mtdlr.cohort.patients import Cohort, Patient, leakage, read_cohort, require_events
from mtdlr.errors import MtdlrError, Problem
from mtdlr.imaging.reading import survey_scan
from mtdlr.study import PrepareSettings, Study

MODEL_VARIABLES = 3
STEPS = 100  # below it masks are poor: 36 real patients, Dice 0.36 after 28 steps (bench/RESULTS.md, 2026-11-26)
T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What a study's files tell without any computing.

    Args:
        problems: everything that is wrong or noticed, errors first.
        usable: the ids of patients that nothing is wrong with.
        audits: by patient, which series were taken and why, and what their SUV will rest on.
    """

    problems: tuple[Problem, ...]
    usable: tuple[str, ...] = ()
    audits: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def check_study(path: str | Path, overrides: Sequence[str] = ()) -> Checked:
    """Every problem of a study file and of what it names.

    Reads the headers of the scans and, to find the same scan under two ids, their bytes. Computes and writes nothing.
    """
    problems: list[Problem] = []
    audits: dict[str, Mapping[str, object]] = {}
    study = _collect(problems, lambda: Study.load(path, overrides))
    cohort = _collect(problems, lambda: read_cohort(study.cohort, tolerant=True)) if study else None
    if study and cohort:
        problems += cohort.problems
        for patient in cohort:
            audits[patient.id] = _inspect(patient, study.prepare, problems)
        problems += leakage(cohort)[1]
        _collect(problems, lambda: require_events(cohort))
        problems += sparse(cohort) + few_steps(study, len(cohort.of("training").table))
    known = sorted(dict.fromkeys(problems), key=lambda problem: not problem.is_error)
    wrong = {patient for p in known if p.is_error for patient in p.patients}
    usable = [] if cohort is None else [i for i in cohort.ids if i not in wrong]
    return _withheld(Checked(tuple(known), tuple(usable), audits), {} if cohort is None else cohort.withheld)


def sparse(cohort: Cohort) -> list[Problem]:
    """Warnings for cohorts that carry less than the models ask of them."""
    training = cohort.of("training")
    events = int(training.table["event"].sum())
    problems = []
    if 0 < events < 10 * MODEL_VARIABLES:
        problems.append(Problem(
            "W-EPV", "fewer than ten events for each variable of the nomogram", where="training cohort",
            found=f"{events} events, {MODEL_VARIABLES} variables", remedy="Expect unstable hazard ratios"))
    unmasked = [p.id for p in training if p.scan.mask is None]
    if unmasked:
        problems.append(Problem("W-NOMASK", f"{len(unmasked)} training patients have no tumour mask",
                                where="training cohort", found=", ".join(unmasked[:8]),
                                remedy="They train the survival task only and have no ManualRadio-Score"))
    return problems


def few_steps(study: Study, n: int) -> list[Problem]:
    """A warning where DeepMTS of each fold learns from too few steps, as in a small cohort with few epochs.

    Args:
        study: the settings.
        n: training patients.
    """
    settings, left_out = study.deepmts, 1.0 / study.score.folds if study.score.training == "out_of_fold" else 0.0
    seen = n * (1.0 - left_out) * (1.0 - settings.validation_fraction)
    an_epoch = settings.steps_per_epoch or max(1, round(seen / settings.batch_size))
    steps = settings.epochs * an_epoch
    return [] if steps >= STEPS else [Problem(
        "W-FEWSTEPS", "too few training steps for good masks", where="deepmts",
        found=f"{settings.epochs} epochs of {an_epoch}", expected=f"{STEPS} steps or more",
        remedy=f"Set deepmts.steps_per_epoch = {-(-STEPS // settings.epochs)}")]


def _collect(problems: list[Problem], step: Callable[[], T]) -> T | None:
    """The step's value, or None and its problems."""
    try:
        return step()
    except MtdlrError as error:
        problems += error.problems
        return None


def _inspect(patient: Patient, settings: PrepareSettings, problems: list[Problem]) -> Mapping[str, object]:
    """What the headers of one patient's scans tell; the problems are added to the list."""
    surveyed = _collect(problems, lambda: survey_scan(
        patient.scan, pet_units=settings.pet_units, uptake_min=settings.uptake_min,
        assume_geometry=settings.assume_geometry, other_frame=settings.alignment in ("rigid", "affine")))
    audit, found = surveyed or ({}, ())
    problems += [problem.of_patient(patient.id) for problem in found]
    return audit


def _withheld(checked: Checked, lines: Mapping[str, int]) -> Checked:
    """The same without the ids that name a patient: the line of the table stands for them."""
    if not lines:
        return checked
    shown = {name: f"(line {line})" if line else "(name withheld)" for name, line in lines.items()}
    names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(shown, key=len, reverse=True)))

    def covered(text: str) -> str:
        return names.sub(lambda match: shown[match[0]], text)

    problems = (replace(p, where=covered(p.place), what=covered(p.what), found=covered(p.found),
                        patients=tuple(map(covered, p.patients)))
                for p in checked.problems)
    return Checked(tuple(dict.fromkeys(problems)), tuple(map(covered, checked.usable)),
                   {covered(i): audit for i, audit in checked.audits.items()})
