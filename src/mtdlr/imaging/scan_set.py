"""One patient's files: PET, CT and mask, whether they were found by `layout` or named one by one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom import Series, grouped
from mtdlr.imaging.dicom_choice import Choice, answers_to, choose
from mtdlr.imaging.dicom_instance import Found, read_instances

Files = Path | tuple[Path, ...]


@dataclass(frozen=True)
class ScanSet:
    """The files of one patient.

    Args:
        patient_id: the name that joins the scans to the clinical table.
        pet, ct: one NIfTI file, or the files of one DICOM series; None where there is none (problems say so).
        mask: NIfTI, RTSTRUCT or SEG file; None where there is none.
        kind: the layout it was found in.
        problems: what is wrong already; errors among them mean that the scan cannot be read.
        candidates: every DICOM series found, so that another can be chosen.
        mask_pattern: name of the structure meant, a shell pattern; mask_label: label of the tumour in a NIfTI mask.
        why: why these series were chosen.
    """

    patient_id: str
    pet: Files | None = field(repr=False)
    ct: Files | None = field(repr=False)
    mask: Path | None = field(repr=False)
    kind: str
    problems: tuple[Problem, ...] = ()
    candidates: tuple[Series, ...] = field(default=(), repr=False)
    mask_pattern: str = "*"
    why: str = ""
    mask_label: int | None = None


@dataclass(frozen=True)
class Named:
    """One patient whose PET, CT and mask are named one by one, before any file is read.

    Args:
        patient_id: the name that joins the scan to the clinical table.
        paths: the files, folders and zips that exist, by role.
        heap: the files in the folders and zips among them.
        problems: what is wrong already.
    """

    patient_id: str
    paths: Mapping[str, Path]
    heap: tuple[Path, ...]
    problems: tuple[Problem, ...]


def given_files(
    patient_id: str, pet: str | Path, ct: str | Path, mask: str | Path | None = None, *, mask_pattern: str = "*",
    kind: str = "files",
) -> ScanSet:  # fmt: skip
    """One patient whose PET, CT and mask are named one by one.

    Args:
        patient_id: the name that joins the scan to the clinical table.
        pet: a NIfTI file, a DICOM file, or a folder or zip of DICOM files from which the series is chosen.
        ct: likewise.
        mask: likewise; None for a patient without one.
        mask_pattern: as `discover`.
        kind: what names the files, for the audit: "files" or "manifest".
    """
    given = named(patient_id, pet, ct, mask)
    return of_named(given, read_instances(given.heap), mask_pattern=mask_pattern, kind=kind)


def named(patient_id: str, pet: str | Path, ct: str | Path, mask: str | Path | None = None) -> Named:
    """One patient's files as they are named; what lies in folders and zips is listed, not read.

    Args:
        patient_id: the name that joins the scan to the clinical table.
        pet: a file, or a folder or zip of DICOM files.
        ct: likewise.
        mask: likewise; None for a patient without one.
    """
    paths = {"pet": Path(pet), "ct": Path(ct)} | ({"mask": Path(mask)} if mask is not None else {})
    there = {role: path for role, path in paths.items() if archive.exists(path)}
    problems = [Problem("E-NOFILE", "the file does not exist", where=role, remedy="Check the path")
                for role in paths if role not in there]
    heap: dict[Path, None] = {}
    for path in dict.fromkeys(there.values()):
        try:
            heap |= dict.fromkeys(archive.list_files(path) if _is_heap(path) else ())
        except ScanError as error:
            problems += error.problems
    return Named(patient_id, there, tuple(heap), tuple(problems))


def of_named(given: Named, found: Found, *, mask_pattern: str, kind: str) -> ScanSet:
    """The patient, with series chosen in the folders and zips.

    Args:
        given: the files as they are named.
        found: what the headers in `given.heap` say.
        mask_pattern: as `discover`.
        kind: what names the files, for the audit.
    """
    series, bad = grouped(given.heap, found)
    problems, choice = [*given.problems, *bad], choose(series) if given.heap else None
    taken: dict[str, Files | None] = {role: _picked(choice, role, path, problems) if _is_heap(path) else path
                                      for role, path in given.paths.items()}
    pet_files, ct_files, mask_file = taken.get("pet"), taken.get("ct"), taken.get("mask")
    return ScanSet(
        given.patient_id, pet_files, ct_files, mask_file[0] if isinstance(mask_file, tuple) else mask_file, kind,
        tuple(dict.fromkeys(problems)), series, mask_pattern, choice.why if choice else "",
    )  # fmt: skip


def with_series(scan: ScanSet, wanted: Sequence[str]) -> ScanSet:
    """The same patient with the requested DICOM series chosen.

    Args:
        scan: one patient's files; without DICOM candidates it is returned as it is.
        wanted: UIDs, keys or description patterns; none leaves the scan as it is.
    """
    return chosen(scan, wanted) if scan.candidates and wanted else scan


def take_series(found: Sequence[ScanSet], wanted: Sequence[str]) -> tuple[tuple[ScanSet, ...], tuple[Problem, ...]]:
    """The patients, each with the requested series that it has, and E-NOSERIES for names that match nobody's series.

    Args:
        found: the patients of a cohort.
        wanted: UIDs, keys or description patterns (`cohort.series`).
    """
    taken = tuple(with_series(scan, [w for w in wanted if any(answers_to(s, w) for s in scan.candidates)])
                  for scan in found)
    unknown = [w for w in wanted if not any(answers_to(s, w) for scan in found for s in scan.candidates)]
    problem = Problem("E-NOSERIES", "no patient has a requested series", where="cohort.series",
                      found=f"{len(unknown)} of {len(wanted)} names", remedy="`mtdlr check --scans` lists the series")
    return taken, (problem,) if unknown else ()


def content_hash(scan: ScanSet) -> str:
    """SHA-256 over the contents of the patient's PET, CT and mask files, whatever they are called.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    return content_hashes(scan)[0]


def content_hashes(scan: ScanSet) -> tuple[str, str, str]:
    """SHA-256 of all that a patient's result is read from, of the PET alone and of the CT alone.

    Raises:
        ScanError: E-NOFILE, E-ZIP.
    """
    pet, ct, mask = (archive.digest(_paths(files)) for files in (scan.pet, scan.ct, scan.mask))
    meant = [scan.mask_pattern] * (scan.mask_pattern != "*") + [str(scan.mask_label)] * (scan.mask_label is not None)
    parts = [pet, ct, mask, *(meant if scan.mask is not None else ())]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest(), pet, ct


def _paths(files: Files | None) -> tuple[Path, ...]:
    return () if files is None else (files,) if isinstance(files, Path) else files


def unique(found: Iterable[ScanSet]) -> tuple[ScanSet, ...]:
    """Sorted by id; patients that come twice carry E-DUPLICATEID."""
    ordered = sorted(found, key=lambda s: s.patient_id)
    counts = Counter(s.patient_id for s in ordered)
    twice = Problem("E-DUPLICATEID", "two scans go by one patient id", remedy="Keep one, or give them different ids")
    return tuple(replace(s, problems=(*s.problems, twice)) if counts[s.patient_id] > 1 else s for s in ordered)


def missing(pet: Files | None, ct: Files | None) -> tuple[Problem, ...]:
    """E-NOPET and E-NOCT for the images that a patient lacks.

    Args:
        pet: the PET's files; None where there is none.
        ct: the CT's files; None where there is none.
    """
    gone = [("E-NOPET", "PET", pet), ("E-NOCT", "CT", ct)]
    return tuple(Problem(code, f"there is no {name}", remedy="Add it, or remove the patient")
                 for code, name, files in gone if files is None)


def chosen(scan: ScanSet, wanted: Sequence[str]) -> ScanSet:
    """The scan with its series chosen anew; problems of the previous choice are dropped.

    Args:
        scan: one patient's files with the series found.
        wanted: UIDs, keys or description patterns that replace the automatic choice.
    """
    before = choose(scan.candidates).problems if wanted else ()
    choice = choose(scan.candidates, wanted)
    kept = tuple(p for p in scan.problems if p not in before)
    return replace(
        scan, pet=choice.pet.files if choice.pet else None, ct=choice.ct.files if choice.ct else None,
        mask=choice.mask.files[0] if choice.mask else None, why=choice.why, problems=(*kept, *choice.problems),
    )  # fmt: skip


def _is_heap(path: Path) -> bool:
    """Whether series are chosen among the files of this path."""
    return path.is_dir() or archive.is_archive(path)


def _picked(choice: Choice | None, role: str, heap: Path, problems: list[Problem]) -> Files | None:
    """The series of a role inside its folder or zip, with the problems of choosing it."""
    if choice is None:
        if not any(p.is_error for p in problems):
            problems.append(Problem("E-EMPTYFOLDER", "the folder or zip holds no files", where=role,
                                    remedy="Name the folder that holds them"))
        return None
    series = {"pet": choice.pet, "ct": choice.ct, "mask": choice.mask}[role]
    about = {"pet": ("E-NOPET", "E-NAC", "W-SHORTFOV"), "ct": ("E-NOCT", "W-CTTIE"), "mask": ("W-MASK",)}[role]
    general = ("E-SERIESTIE", "E-PATIENTMIX", "E-NOSERIES", "W-BURNEDIN")
    problems += [p for p in choice.problems if p.code.startswith((*about, *general))]
    if series is None and role == "mask":
        problems.append(Problem("E-NOCONTOURS", "the mask's folder holds no contours that belong to the images"))
    return series.files if series is not None and all(f.is_relative_to(heap) for f in series.files) else None
