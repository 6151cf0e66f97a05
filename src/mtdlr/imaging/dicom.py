"""Which DICOM series lie in a heap of files.

Series are told apart by SeriesInstanceUID alone; folder and file names mean nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtdlr.errors import Problem
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_instance import UNNEEDED, UNREADABLE, Found, Instance, read_instances
from mtdlr.imaging.identity import is_named

MIN_SLICES = 10
_TAME = re.compile(r"(DICOM|DCM|PET|PT|CT|IMG?|I|Z|STUDY|ST|SERIES|SER|SE|S|PAT?|SLICE|IMAGE)?[ _-]?\d{0,4}(\.dcm)?",
                   re.IGNORECASE)  # names that can hold no identity
_COPY = Problem("W-COPIES", "files lie in the folder twice and were read once")


@dataclass(frozen=True)
class Series:
    """One series: its files and the facts that choosing needs.

    Args:
        key: eight letters that stand for its SeriesInstanceUID.
        purpose: empty for a scan that can be used; otherwise why it is never taken unasked.
        z_mm: lowest and highest slice position in the patient; voxel_mm: (z, y, x).
        frame, study, patient: keys of its frame of reference, study and patient.
        refers_to: keys of the series that contours were drawn on; frames: keys of their frames of reference.
        patients: keys of every patient that its files name; derived: whether it was computed from other images.
        day: of the study, else of the series or its acquisition, as days since year 1; never shown.
        description: for matching a choice by name; never shown.
        named: keys of words that name the patient; burned_in: whether the pixels are said to show text.
    """

    key: str
    modality: str
    files: tuple[Path, ...] = field(repr=False)
    purpose: str = ""
    slices: int = 0
    z_mm: tuple[float, float] = (math.nan, math.nan)
    voxel_mm: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    series_type: str = ""
    head_neck: bool = False
    number: float = math.inf
    frame: str = ""
    study: str = ""
    patient: str = ""
    refers_to: frozenset[str] = frozenset()
    frames: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    derived: bool = False
    day: int | None = field(default=None, repr=False)
    description: str = field(default="", repr=False)
    named: frozenset[str] = field(default=frozenset(), repr=False)
    burned_in: bool = False

    @property
    def label(self) -> str:
        """How a message names the series: key, series number, slices and voxel size."""
        if self.modality not in ("PT", "CT"):
            return f"{self.modality} series {self.key}"
        z, y, x = self.voxel_mm
        number = f"no. {self.number:g}, " if math.isfinite(self.number) else ""
        size = f"{z:.3g} x {y:.3g} x {x:.3g} mm" if math.isfinite(z + y + x) else "voxel size unknown"
        return f"{self.modality} series {self.key} ({number}{self.slices} slices, {size})"


def group_series(paths: Iterable[Path]) -> tuple[tuple[Series, ...], tuple[Problem, ...]]:
    """The PET, CT, RTSTRUCT and SEG series among these files, and problems with single files.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    files = tuple(paths)
    return grouped(files, read_instances(files))


def grouped(files: Sequence[Path], found: Found) -> tuple[tuple[Series, ...], tuple[Problem, ...]]:
    """The series that files make up, and problems with single files.

    Args:
        files: all files that were read.
        found: what was read.
    """
    instances, bad = found
    series, copies = series_of(instances)
    return series, (*counted(bad, files), *copies)


def series_of(instances: Iterable[Instance]) -> tuple[tuple[Series, ...], tuple[Problem, ...]]:
    """The series that these files make up, sorted by modality and number, and W-COPIES for files that lie there twice.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    by_key: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_key[instance.series].append(instance)
    series, copies = [], 0
    for key, files in by_key.items():
        kept = _without_copies(files)
        copies += len(files) - len(kept)
        series.append(_series(key, _stacked(kept)))
    told = (replace(_COPY, found=f"{copies} copies"),) if copies else ()
    return tuple(sorted(series, key=lambda s: (s.modality, s.number, s.key))), told


def counted(bad: Iterable[tuple[Path, Problem]], files: Iterable[Path]) -> tuple[Problem, ...]:
    """Equal problems of single files once, with how many files they concern and which of `files` the first one is.

    Args:
        bad: a file and what is wrong with it, for each such file.
        files: all files, whose order gives the place of the first.

    Returns:
        One problem for each kind, in the order met.
    """
    first: dict[Problem, Path] = {}
    counts: Counter[Problem] = Counter()
    for path, problem in bad:
        first.setdefault(problem, path)
        counts[problem] += 1
    order = sorted(files) if first else []
    return tuple(replace(p, found=f"{n} file{'s' * (n > 1)}, {'first ' * (n > 1)}{_which(first[p], order)}")
                 if p in (UNREADABLE, UNNEEDED) else p for p, n in counts.items())


def _which(path: Path, order: Sequence[Path]) -> str:
    """Which file it is: by its path where that names nobody, else by its place among the patient's files."""
    common = next((parent for parent in path.parents if all(f.is_relative_to(parent) for f in order)), path.parent)
    parts = path.relative_to(common).parts
    if all(map(_TAME.fullmatch, parts)):
        return "/".join(parts)
    place = order.index(path) + 1 if path in order else 1
    return f"number {place} of {len(order)} in the order of their paths"


def damage(bad: Iterable[tuple[Path, Problem]], used: Iterable[Path], files: Iterable[Path]) -> tuple[Problem, ...]:
    """What damaged files mean for a patient: a warning unless they lie beside the files of a chosen series.

    Args:
        bad: of `read_instances`.
        used: the files of the chosen PET and CT.
        files: all files of the patient.
    """
    bad = tuple(bad)
    folders = {path.parent for path in used} if bad else set()
    return counted([(path, p if not folders or path.parent in folders else UNNEEDED) for path, p in bad], files)


def named_by(series: Series, name: str) -> bool:
    """Whether a folder's name holds a word that names the patient in the headers.

    Args:
        series: whose headers name the patient.
        name: name of a folder.
    """
    return is_named(name, series.named)


def _without_copies(files: list[Instance]) -> list[Instance]:
    """Each instance once; instances that come twice with other content stay and fail when the series is read."""
    first: dict[str, Instance] = {}
    kept = []
    for instance in files:
        twin = first.setdefault(instance.identity, instance)
        if twin is instance or not archive.same_content(twin.path, instance.path):
            kept.append(instance)
    return kept


def _stacked(members: list[Instance]) -> list[Instance]:
    """A CT series without localisers, projections and single images across the slices that lie among its slices."""
    plain = [m for m in members if not m.facts["purpose"] and not _across(m)]
    return plain if members[0].modality == "CT" and sum(m.frames for m in plain) >= MIN_SLICES else members


def _across(member: Instance) -> bool:
    """Whether an image does not lie across the patient's long axis."""
    if member.across is None:
        return False
    row, column = member.across[:3], member.across[3:]
    return abs(row[0] * column[1] - row[1] * column[0]) < 0.8


def _series(key: str, members: list[Instance]) -> Series:
    """A series from its files, ordered along the patient."""
    heights = [z for m in members for z in m.z_mm]
    ordered = sorted(members, key=lambda m: (min(m.z_mm, default=0.0), m.path))
    first = ordered[0]
    patients = frozenset(str(m.facts["patient"]) for m in members) - {""}
    low, high = min(heights, default=math.nan), max(heights, default=math.nan)
    slices = sum(m.frames for m in members)
    step = (high - low) / (slices - 1) if slices > 1 else math.nan
    pixel = first.pixel or (math.nan, math.nan)
    facts = dict(first.facts)
    purposes = [str(m.facts["purpose"]) for m in members if m.facts["purpose"]]
    facts["purpose"] = purposes[0] if purposes else _shape_purpose(first, slices)
    facts["burned_in"] = any(m.facts["burned_in"] for m in members)
    facts["number"] = math.inf if facts["number"] is None else facts["number"]
    return Series(key=key, modality=first.modality, files=tuple(m.path for m in ordered), slices=slices,
                  z_mm=(low, high), voxel_mm=(step, pixel[0], pixel[1]), patients=patients, **facts)  # type: ignore[arg-type]


def _shape_purpose(member: Instance, slices: int) -> str:
    """Why a series' shape rules it out; empty for a stack of axial slices."""
    if member.modality not in ("PT", "CT"):
        return ""
    if slices < MIN_SLICES:
        return f"{slices} slices only"
    return "not axial" if _across(member) else ""
