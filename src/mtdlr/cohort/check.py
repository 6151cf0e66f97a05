"""Everything that is wrong with a study before any work is done: settings, table, scans, leakage. Writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from mtdlr.cohort.folds import too_few_centers
from mtdlr.cohort.headers import HeaderReader
from mtdlr.cohort.patients import Cohort, Survey, require_events, shared_images, survey_cohort
from mtdlr.errors import CohortError, MtdlrError, Problem
from mtdlr.imaging.inspect import inspect_scan
from mtdlr.imaging.layout import NOTHING, ScanSet
from mtdlr.imaging.reading import survey_scan
from mtdlr.study import PrepareSettings, Study
from mtdlr.workers import Workers, run_jobs

MODEL_VARIABLES = 3
STEPS = 100  # below it masks are poor: 36 real patients, Dice 0.36 after 28 steps (bench/RESULTS.md, 2026-11-26)
_MANY = 16  # scans that are worth the start of more processes
T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What a study's files show without any computing.

    Args:
        problems: everything that is wrong or noticed, errors first.
        usable: the ids of patients that nothing is wrong with.
        audits: by patient, which series were taken and why, and what their SUV will rest on.
        study: the settings, None where they could not be read.
        training: how many of the usable patients train.
        centers: of how many centres they are.
    """

    problems: tuple[Problem, ...]
    usable: tuple[str, ...] = ()
    audits: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    study: Study | None = None
    training: int = 0
    centers: int = 0

    @property
    def is_fine(self) -> bool:
        """Whether a run can begin: no error, and somebody to run with."""
        return bool(self.usable) and not any(problem.is_error for problem in self.problems)


@dataclass(frozen=True)
class _Look:
    """One patient's scans, to be looked at in a worker."""

    scan: ScanSet
    settings: PrepareSettings


@dataclass(frozen=True)
class _Seen:
    """What headers and voxels of one patient show."""

    audit: Mapping[str, object]
    problems: tuple[Problem, ...]
    hashes: tuple[str, str] = ("", "")


def check_study(path: str | Path, overrides: Sequence[str] = (), *, workers: Workers | None = None,
                received: Callable[[Study], Study] | None = None,
                run_folder: Callable[[Study], Path] | None = None) -> Checked:
    """Every problem of a study file and of what it names, whatever else is wrong.

    Reads every voxel of the scans once: for what no header tells, and to find the same scan under two ids. Writes
    nothing.

    Args:
        path: the study file.
        overrides: `section.key=value` that replace settings.
        workers: where scans are read, and who is told of progress.
        received: the settings under which a frozen model judges the study (`validate.merge`); nobody trains then, and
            no rule of training is asked. By default the study trains a model.
        run_folder: gives the run folder; headers that a run there remembers are not read again.
    """
    problems: list[Problem] = []
    study = _collect(problems, lambda: Study.load(path, overrides))
    if study is None:
        return Checked(tuple(problems))
    study = received(study) if received else study
    workers = workers or Workers()
    headers = HeaderReader(workers, run_folder(study) if run_folder else None, writes=False)
    survey = survey_cohort(study.cohort, headers)
    problems += survey.cohort.problems
    seen = _look(survey, study.prepare, workers)
    problems += [problem for one in seen.values() for problem in one.problems]
    problems += shared_images(survey.cohort.split, {i: one.hashes for i, one in seen.items()})
    wrong = {patient for p in problems if p.is_error for patient in p.patients}
    usable = survey.cohort.only([i for i in survey.cohort.ids if i not in wrong])
    training = usable.of("training").table.iloc[: 0 if received else None]
    if len(usable) and not received:
        _collect(problems, lambda: require_events(usable))
        problems += [*sparse(usable), *blind_cohorts(usable, study), *few_steps(study, training),
                     *too_few_centers(training, study.score), *unnamed_centers(study)]
    known = sorted(dict.fromkeys(problems), key=lambda problem: not problem.is_error)
    checked = Checked(tuple(known), tuple(usable.ids), {i: one.audit for i, one in seen.items()}, study, len(training),
                      training["center"].nunique())
    return _withheld(checked, survey.cohort.withheld)


def unnamed_centers(study: Study) -> list[Problem]:
    """E-NOCENTER where features of several centres are to be harmonised and no column names the centre.

    Args:
        study: its settings.
    """
    if study.signature.harmonise == "off" or study.cohort.center is not None:
        return []
    return [Problem("E-NOCENTER", "features can be harmonised only where each patient's centre is known",
                    where="signature.harmonise", found=study.signature.harmonise,
                    remedy='Name the column of the centre in cohort.center, or set signature.harmonise to "off"')]


def require_named_centers(study: Study) -> None:
    """Stop where features are to be harmonised and no column names the centre.

    Args:
        study: its settings.

    Raises:
        CohortError: E-NOCENTER.
    """
    if wrong := unnamed_centers(study):
        raise CohortError(wrong)


def blind_cohorts(cohort: Cohort, study: Study) -> list[Problem]:
    """Warnings for validation cohorts that can judge little: of one patient, without events or of events only, or
    without manual masks.

    Args:
        cohort: the patients with their splits.
        study: its settings.
    """
    problems = []
    for split in (split for split in cohort.splits if split != "training"):
        part = cohort.of(split)
        events, n = int(part.table["event"].sum()), len(part)
        said = []
        if n == 1:
            said.append(("one patient only", "no C-index, ROC, calibration or risk group can be given"))
        elif events == 0:
            said.append(("no event", "no C-index, ROC or hazard ratio can be given"))
        elif events == n and study.evaluate.roc == "status":
            said.append(("events only", 'no ROC by event status can be given; evaluate.roc = "cumulative" needs none'))
        if all(patient.scan.mask is None for patient in part):
            said.append(("no manual mask", "no Dice and no ManualRadio-Score can be given"))
        problems += [Problem("W-VALIDATION", f"the cohort is too small to judge a model: {what}",
                             where=f"{split} cohort", found=f"{found} in {n} patient{'s' * (n != 1)}",
                             remedy="Wait for longer follow-up or add patients, or read it as it is")
                     for found, what in said]
    return problems


def sparse(cohort: Cohort) -> list[Problem]:
    """What is said of a training cohort that carries less than the models ask of it."""
    training = cohort.of("training")
    events = int(training.table["event"].sum())
    problems = []
    if 0 < events < 10 * MODEL_VARIABLES:
        problems.append(Problem(
            "W-EPV", "fewer than ten events for each variable of the nomogram", where="training cohort",
            found=f"{events} events, {MODEL_VARIABLES} variables", remedy="Expect unstable hazard ratios"))
    unmasked = [p.id for p in training if p.scan.mask is None]
    if unmasked and len(unmasked) == len(training):
        problems.append(Problem("E-NOMASK", "DeepMTS learns from tumour masks, and no training patient has one",
                                where="training cohort", found=f"{len(training)} patients without a mask",
                                remedy="Give masks: a column `mask` in the manifest, or contours beside the scans"))
    elif unmasked:
        problems.append(Problem("W-NOMASK", f"{len(unmasked)} training patients have no tumour mask",
                                where="training cohort", found=", ".join(unmasked[:8]),
                                remedy="They train the survival task only and have no ManualRadio-Score"))
    return problems


def few_steps(study: Study, training: pd.DataFrame) -> list[Problem]:
    """A warning where DeepMTS of each fold learns from too few steps, as in a small cohort with few epochs.

    Args:
        study: the settings.
        training: rows of the training patients, with center.
    """
    settings, folds = study.deepmts, study.score.n_folds(training["center"].nunique())
    left_out = 1.0 / folds if study.score.training == "out_of_fold" else 0.0
    seen = len(training) * (1.0 - left_out) * (1.0 - settings.validation_fraction)
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


def _look(survey: Survey, settings: PrepareSettings, workers: Workers) -> dict[str, _Seen]:
    """What the scans of every patient with a row show; of all scans where ids do not match."""
    ids = [i for i in survey.ids if i in survey.scans]
    wanted = list(survey.scans) if len(ids) < len(survey.ids) or not ids else ids
    scans = [survey.scans[i] for i in sorted(wanted) if survey.scans[i].kind != NOTHING]
    workers = workers if len(scans) >= _MANY else replace(workers, count=1)
    outcomes = run_jobs(look, [_Look(scan, settings) for scan in scans], workers, label="check")
    return {scan.patient_id: _Seen({}, tuple(p.of_patient(scan.patient_id) for p in outcome.problems))
            if outcome.value is None else outcome.value for scan, outcome in zip(scans, outcomes, strict=True)}


def look(job: _Look) -> _Seen:
    """What headers and voxels of one patient's scans show."""
    settings, id_ = job.settings, job.scan.patient_id
    audit, of_headers = survey_scan(
        job.scan, pet_units=settings.pet_units, uptake_min=settings.uptake_min,
        assume_geometry=settings.assume_geometry, other_frame=settings.alignment in ("rigid", "affine"))
    voxels = inspect_scan(job.scan, pet_units=settings.pet_units, uptake_min=settings.uptake_min,
                          assume_geometry=settings.assume_geometry)
    found = dict.fromkeys((*of_headers, *voxels.problems))
    return _Seen(audit, tuple(p.of_patient(id_) for p in found), (voxels.pet_hash, voxels.ct_hash))


def _withheld(checked: Checked, lines: Mapping[str, int]) -> Checked:
    """The same without the ids that name a patient: the line of the table stands for them."""
    if not lines:
        return checked
    shown = {name: f"(line {line})" if line else "(name withheld)" for name, line in lines.items()}
    names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in sorted(shown, key=len, reverse=True)))

    def covered(text: str) -> str:
        return names.sub(lambda match: shown[match[0]], text)

    problems = (replace(p, where=covered(p.place), what=covered(p.what), found=covered(p.found),
                        expected=covered(p.expected), patients=tuple(map(covered, p.patients)))
                for p in checked.problems)
    return replace(checked, problems=tuple(dict.fromkeys(problems)), usable=tuple(map(covered, checked.usable)),
                   audits={covered(i): audit for i, audit in checked.audits.items()})
