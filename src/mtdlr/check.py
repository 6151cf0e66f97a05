"""Everything that is wrong with a study before any work is done: settings, table, scans, leakage. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mtdlr.cohort import Cohort, Patient, leakage, read_cohort, require_events
from mtdlr.errors import MtdlrError, Problem
from mtdlr.imaging.reading import inspect_scan
from mtdlr.study import Study

MODEL_VARIABLES = 3
T = TypeVar("T")


def check_study(path: str | Path, overrides: Sequence[str] = ()) -> list[Problem]:
    """Every problem of a study file and of what it names, errors first; empty when there is none.

    Reads the headers of the scans and, to find the same scan under two ids, their bytes. Computes and writes nothing.
    """
    problems: list[Problem] = []
    study = _collect(problems, lambda: Study.load(path, overrides))
    cohort = _collect(problems, lambda: read_cohort(study.cohort, tolerant=True)) if study else None
    if study and cohort:
        problems += cohort.problems
        problems += [p for patient in cohort for p in _inspect(patient)]
        problems += leakage(cohort)[1]
        _collect(problems, lambda: require_events(cohort))
        problems += sparse(cohort)
    return sorted(dict.fromkeys(problems), key=lambda problem: not problem.is_error)


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


def _collect(problems: list[Problem], step: Callable[[], T]) -> T | None:
    """The step's value, or None and its problems."""
    try:
        return step()
    except MtdlrError as error:
        problems += error.problems
        return None


def _inspect(patient: Patient) -> list[Problem]:
    """What the headers of one patient's scans tell."""
    problems: list[Problem] = []
    problems += _collect(problems, lambda: inspect_scan(patient.scan)) or ()
    return [_at_patient(problem, patient.id) for problem in problems]


def _at_patient(problem: Problem, patient: str) -> Problem:
    return problem if problem.where.startswith(f"patient {patient}") else problem.at(f"patient {patient}")
