"""A manifest proposed from what lies in a folder, for somebody to look over: what is unclear stays empty."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtdlr.cohort.ids import propose_ids
from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.archive import walk
from mtdlr.imaging.layout import NOTHING, ScanSet, discover
from mtdlr.imaging.manifest import COLUMNS
from mtdlr.imaging.nifti import is_nifti
from mtdlr.spreadsheet import csv_text, read_sheet

_WORDS = {  # a mask comes first: CT_mask is a mask
    "mask": {"mask", "masks", "seg", "segmentation", "label", "labels", "gtv", "gtvp", "gtvt", "roi", "tumor", "tumour",
             "lesion", "contour", "annotation", "gt", "maske", "masken", "kontur", "segmentierung", "masque", "tumeur",
             "mascara", "máscara", "maschera", "tumore"},
    "pet": {"pet", "pt", "suv", "suvbw", "fdg", "petsuv", "tep"},
    "ct": {"ct", "ctac", "ctres", "ctgrid", "tdm", "tac"},
}  # fmt: skip
Cells = tuple[Path | None, Path | None, Path | None]
"""PET, CT and mask of a patient."""


@dataclass(frozen=True)
class Proposal:
    """Rows of a manifest.

    Args:
        rows: patient_id, pet, ct, mask, and the name that the scans bear where the table's id was put instead.
        problems: what was left open.
        id_column: the table's column in which the ids were found; empty where no table was given.
    """

    rows: tuple[tuple[str, str, str, str, str], ...]
    problems: tuple[Problem, ...] = ()
    id_column: str = ""

    def as_csv(self) -> str:
        """The manifest as text; `found_as` is for whoever looks it over."""
        return csv_text([*COLUMNS, "found_as"], self.rows)


def propose_manifest(images: Path, beside: Path, table: Path | None = None) -> Proposal:
    """A manifest of the scans below a folder, whatever they are called.

    Layouts that are understood give their own patients; other NIfTI files are sorted by words in their names and
    folders (PET, PT, SUV; CT; mask, seg, label, GTV). A cell that two files could fill stays empty.

    Args:
        images: folder of scans.
        beside: folder that the manifest will lie in; paths are relative to it.
        table: the clinical table, whose ids are taken where they differ from the scans' in spelling only.

    Raises:
        ScanError: E-NOFILE, E-NOACCESS, E-LAYOUT where nothing is found.
        TableError: what `read_sheet` raises.
    """
    files = walk(images).files
    try:
        known = [scan for scan in discover(images) if scan.kind != NOTHING]
    except ScanError as error:
        if error.code != "E-LAYOUT":
            raise
        known = []
    rows = {scan.patient_id: _cells(scan, images) for scan in known}
    used = {path for scan in known for path in (scan.pet, scan.ct, scan.mask)}
    guessed, problems = _by_words(images, [f for f in files if is_nifti(f) and f not in used])
    rows |= {name: cells for name, cells in guessed.items() if name not in rows}
    if not rows:
        raise ScanError(Problem("E-LAYOUT", "no PET/CT was found", found=f"{len(files)} files",
                                expected="DICOM, or NIfTI files with PET and CT in their names"))
    column, named = ("", {}) if table is None else _ids_of(table, list(rows))
    told = [(named.get(name, name), *(_shown(path, beside) for path in cells), name if name in named else "")
            for name, cells in sorted(rows.items())]
    return Proposal(tuple((a, b, c, d, e) for a, b, c, d, e in told), tuple(problems), column)


def _cells(scan: ScanSet, images: Path) -> Cells:
    """The paths of a patient whose layout is understood; DICOM by its folder, in which the series is chosen."""
    if scan.kind != "dicom":
        pet, ct = (path if isinstance(path, Path) else None for path in (scan.pet, scan.ct))
        return pet, ct, scan.mask
    file = next(path for series in scan.candidates for path in series.files) if scan.candidates else images
    parts = file.relative_to(images).parts
    heap = images / parts[0] if len(parts) > 1 and scan.patient_id != images.name else images
    return heap, heap, heap if scan.mask is not None else None


def _by_words(images: Path, files: Sequence[Path]) -> tuple[dict[str, Cells], list[Problem]]:
    """(paths by patient, what was left open) of NIfTI files whose names say what they are."""
    by_folder: dict[Path, list[tuple[str, str, Path]]] = defaultdict(list)
    for path in files:
        role, rest = _role(path, images)
        if role:
            by_folder[_folder(path, images)].append((role, rest, path))
    patients: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder, found in by_folder.items():
        rests = {rest for role, rest, _ in found if role in ("pet", "ct")}
        own = folder != images and (len(rests) < 2 or sum(role == "pet" for role, _, _ in found) == 1)
        for role, rest, path in found:
            patients[folder.name if own or not rest else rest][role].append(path)
    rows: dict[str, Cells] = {}
    problems = []
    for name, roles in sorted(patients.items()):
        several = [role for role, paths in roles.items() if len(paths) > 1]
        if several:
            problems.append(Problem("W-PROPOSAL", f"several files could be the {' and the '.join(sorted(several))}",
                                    patients=(name,), found=f"{max(len(roles[r]) for r in several)} files",
                                    remedy="Fill in the empty cell of the manifest"))
        pet, ct, mask = (roles[role][0] if len(roles[role]) == 1 else None for role in COLUMNS[1:])
        rows[name] = pet, ct, mask
    return {name: cells for name, cells in rows.items() if any(cells[:2])}, problems


def _role(path: Path, images: Path) -> tuple[str, str]:
    """("pet", what is left of the name) by the words of a file's name, else by those of its folders."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", stem) if word]
    for role, names in _WORDS.items():
        if any(word.lower() in names for word in words):
            every = set().union(*_WORDS.values())
            return role, "_".join(word for word in words if word.lower() not in every)
    above = [part.lower() for part in path.relative_to(images).parts[:-1]]
    role = next((role for role, names in _WORDS.items() if any(names & set(re.split(r"[\W_]+", a)) for a in above)), "")
    return role, "_".join(words)


def _folder(path: Path, images: Path) -> Path:
    """The folder of a file above those that are called PET, CT or mask."""
    every = set().union(*_WORDS.values())
    folder = path.parent
    while folder != images and set(re.split(r"[\W_]+", folder.name.lower())) <= every:
        folder = folder.parent
    return folder


def _ids_of(table: Path, scans: Sequence[str]) -> tuple[str, dict[str, str]]:
    """(the table's column that holds the ids, its id for each scan that is spelled otherwise)."""
    sheet = read_sheet(table)
    best: tuple[int, str, dict[str, str]] = (0, "", {})
    for place, name in enumerate(sheet.names):
        ids = [row[place] for row in sheet.rows if row[place]]
        proposed = propose_ids(ids, scans)
        score = 2 * len(set(ids) & set(scans)) + len(proposed)
        if score > best[0]:
            best = (score, name, {scan: id_ for id_, scan in proposed.items()})
    return best[1], best[2]


def _shown(path: Path | None, beside: Path) -> str:
    return "" if path is None else Path(os.path.relpath(path, beside)).as_posix()
