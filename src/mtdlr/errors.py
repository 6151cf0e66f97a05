"""What can go wrong, said in one line each.

The tree (every leaf exits 2: the user's input is wrong; anything else that escapes is our bug and exits 3)::

    MtdlrError
    |-- StudyError      a study file or a setting
    |-- TableError      the clinical table
    |-- ScanError       an image, a mask or a DICOM series
    |-- CohortError     patients that contradict one another: leakage, duplicates, too few events
    |-- FitError        a statistic or a model that the data cannot carry
    |-- PacsError       an archive that cannot be reached, refuses, or holds something else
    |-- StoreError      the run folder: locked, full, read-only, changed underneath
    `-- BundleError     a model folder that is not what it says it is

A `Problem` is the value: what is wrong, where, found, expected, what to do, and a stable code.
`E-...` codes stop the thing they name, `W-...` codes are carried along and reported. docs/codes.md lists them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

_SHOWN = 8  # patients named in one line


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, complete in itself.

    Args:
        code: stable, `E-NAME` (error) or `W-NAME` (warning).
        what: what is wrong, without a full stop.
        where: patient, file, field or key.
        found: what was there.
        expected: what should have been there.
        remedy: what the reader can do about it.
        patients: ids of the patients whom it concerns; `where` begins with them, whether or not they were put there.

    >>> problem = Problem("E-WEIGHT", "no patient weight", where="PET", remedy="Add (0010,1030)", patients=("P017",))
    >>> print(problem)
    E-WEIGHT patient P017: PET: no patient weight. Add (0010,1030).
    >>> problem.where, problem.place
    ('patient P017: PET', 'PET')
    """

    code: str
    what: str
    where: str = ""
    found: str = ""
    expected: str = ""
    remedy: str = ""
    patients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.code[:2] in ("E-", "W-"), self.code
        object.__setattr__(self, "patients", tuple(self.patients))  # JSON has lists
        if self._who and self.where != self._who and not self.where.startswith(f"{self._who}: "):
            object.__setattr__(self, "where", f"{self._who}: {self.where}" if self.where else self._who)

    @property
    def _who(self) -> str:
        """How `where` begins: `patient P1`, `patients P1, P2`, or nothing."""
        if len(self.patients) < 2:
            return f"patient {self.patients[0]}" if self.patients else ""
        more = len(self.patients) - _SHOWN
        return f"patients {', '.join(self.patients[:_SHOWN])}" + (f" and {more} more" if more > 0 else "")

    @property
    def place(self) -> str:
        """`where` without the patients: the file, field or key."""
        return self.where.removeprefix(self._who).removeprefix(": ")

    @property
    def is_error(self) -> bool:
        """Whether this stops the thing it names."""
        return self.code.startswith("E-")

    def at(self, where: str) -> Problem:
        """The same problem with its place put in front: `line 3` before `PET`, both behind the patient."""
        return replace(self, where=f"{where}: {self.place}" if self.place else where)

    def of_patient(self, patient: str) -> Problem:
        """The same problem of a patient; one that names its patients already is as it was."""
        return self if self.patients else replace(self, patients=(patient,))

    def as_dict(self) -> dict[str, Any]:
        """Plain strings, for JSON and tables; `patients` is there where it concerns any."""
        return {name: value for name, value in asdict(self).items() if name != "patients" or value}

    def __str__(self) -> str:
        line = f"{self.code} {self.where}: {self.what}" if self.where else f"{self.code} {self.what}"
        if self.found:
            line += f"; found {self.found}"
        if self.expected:
            line += f"; expected {self.expected}"
        line += "."
        if self.remedy:
            line += f" {self.remedy}" if self.remedy[-1] in ".?" else f" {self.remedy}."
        return " ".join(line.split())


class MtdlrError(Exception):
    """The user's input is wrong. Holds every problem found, at least one of them an error."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[MtdlrError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code

    def at(self, where: str) -> MtdlrError:
        """The same error with its place put in front of every problem."""
        return type(self)(problem.at(where) for problem in self.problems)

    def of_patient(self, patient: str) -> MtdlrError:
        """The same error with every problem given to a patient."""
        return type(self)(problem.of_patient(patient) for problem in self.problems)


class StudyError(MtdlrError):
    """A study file or a setting is wrong."""


class TableError(MtdlrError):
    """The clinical table is wrong."""


class ScanError(MtdlrError):
    """An image, a mask or a DICOM series cannot be used."""


class CohortError(MtdlrError):
    """Patients contradict one another: leakage, duplicates, too few events."""


class FitError(MtdlrError):
    """The data cannot carry the statistic or model that was requested."""


class PacsError(MtdlrError):
    """An archive cannot be reached, refuses, or holds something else than it should."""


class StoreError(MtdlrError):
    """The run folder is locked, full, read-only or was changed underneath."""


class BundleError(MtdlrError):
    """A model folder is not what its header describes."""
