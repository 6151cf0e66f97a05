"""A manifest: the table that names the files of each patient, where no layout does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtdlr.errors import Problem, ScanError, TableError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom_instance import Reader, read_heaps
from mtdlr.imaging.scan_set import Named, ScanSet, named, of_named, unique
from mtdlr.spreadsheet import read_sheet

COLUMNS = ("patient_id", "pet", "ct", "mask")
NAMES = ("manifest.csv", "manifest.xlsx")


def find_manifest(root: Path) -> Path | None:
    """The manifest that a cohort's path is or holds."""
    if root.suffix.lower() in (".csv", ".xlsx", ".tsv"):
        return root
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def read_manifest(path: Path, mask_pattern: str, read: Reader = read_heaps) -> tuple[ScanSet, ...]:
    """The patients of a manifest: one row a patient with patient_id, pet, ct and mask, CSV of any dialect or .xlsx.

    Args:
        path: the table; paths in it are relative to its folder.
        mask_pattern: name or shell pattern of the structure that is the tumour.
        read: reads the headers of DICOM files; by default here and now.

    Returns:
        The patients, sorted by id. What is wrong with a single row stands among its problems.

    Raises:
        ScanError: E-MANIFEST for a file that is no such table, E-EXTRA where .xlsx needs a package that is not
            installed.
    """
    try:
        sheet = read_sheet(path)
    except TableError as error:
        if error.code == "E-EXTRA":
            raise ScanError(error.problems) from None
        raise _bad_manifest(path, error.problems[0].what, "a CSV or .xlsx") from None
    names = [name.lower() for name in sheet.names]
    if not set(COLUMNS[:3]) <= set(names):
        raise _bad_manifest(path, f"columns {', '.join(sheet.names) or 'none'}", ", ".join(COLUMNS))
    place = [names.index(name) if name in names else None for name in COLUMNS]
    given = [_row(path.parent, ["" if k is None else row[k] for k in place], line)
             for row, line in zip(sheet.rows, sheet.lines, strict=True)]
    scans = [of_named(row, found, mask_pattern=mask_pattern, kind="manifest")
             for row, found in zip(given, read([row.heap for row in given]), strict=True)]
    return unique(replace(scan, problems=tuple(p.at(f"line {line}") for p in scan.problems))
                  for scan, line in zip(scans, sheet.lines, strict=True))


def _row(folder: Path, cells: list[str], line: int) -> Named:
    """The files that a row names; none where a cell is empty."""
    patient, *cells_of_files = cells
    empty = [name for name, cell in zip(COLUMNS[:3], cells, strict=False) if not cell]
    if empty:
        problems = tuple(Problem("E-MANIFEST", f"{name} is empty", remedy="Fill in the cell") for name in empty)
        return Named(patient or f"line {line}", {}, (), problems)
    pet, ct, mask = (_path(folder, cell) if cell else None for cell in cells_of_files)
    assert pet is not None and ct is not None
    return named(patient, pet, ct, mask)


def _path(folder: Path, cell: str) -> Path:
    """The path that a cell means; Windows' backslashes are understood where no file is called so."""
    path = folder / cell
    return folder / cell.replace("\\", "/") if "\\" in cell and not archive.exists(path) else path


def _bad_manifest(path: Path, found: str, expected: str) -> ScanError:
    return ScanError(Problem("E-MANIFEST", "the manifest cannot be used", where=path.name, found=found,
                             expected=expected, remedy="`mtdlr init --images FOLDER` proposes one"))
