"""What can go wrong, said in one line each.

The tree (every leaf exits 2: the user's input is wrong; anything else that escapes is our bug and exits 3)::

    MtdlrError
    |-- StudyError      a study file or a setting
    |-- TableError      the clinical table
    |-- ScanError       an image, a mask or a DICOM series
    |-- CohortError     patients that contradict one another: leakage, duplicates, too few events
    |-- FitError        a statistic or a model that the data cannot carry
    |-- StoreError      the run folder: locked, full, read-only, changed underneath
    `-- BundleError     a model folder that is not what it says it is

A `Problem` is the value: what is wrong, where, found, expected, what to do, and a stable code.
`E-...` codes stop the thing they name, `W-...` codes are carried along and reported. docs/codes.md lists them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace


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

    >>> print(Problem("E-WEIGHT", "no patient weight", where="patient P017", remedy="Add (0010,1030)"))
    E-WEIGHT patient P017: no patient weight. Add (0010,1030).
    """

    code: str
    what: str
    where: str = ""
    found: str = ""
    expected: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        assert self.code[:2] in ("E-", "W-"), self.code

    @property
    def is_error(self) -> bool:
        """Whether this stops the thing it names."""
        return self.code.startswith("E-")

    def at(self, where: str) -> Problem:
        """The same problem with its place put in front: `patient P017` before `PET`."""
        return replace(self, where=f"{where}: {self.where}" if self.where else where)

    def as_dict(self) -> dict[str, str]:
        """Plain strings, for JSON and tables."""
        return asdict(self)

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


class StudyError(MtdlrError):
    """A study file or a setting is wrong."""


class TableError(MtdlrError):
    """The clinical table is wrong."""


class ScanError(MtdlrError):
    """An image, a mask or a DICOM series cannot be used."""


class CohortError(MtdlrError):
    """Patients contradict one another: leakage, duplicates, too few events."""


class FitError(MtdlrError):
    """The data cannot carry the statistic or model that was asked for."""


class StoreError(MtdlrError):
    """The run folder is locked, full, read-only or was changed underneath."""


class BundleError(MtdlrError):
    """A model folder is not what it says it is."""
