"""Radiomics on its own: images and masks of many patients to one table, in parallel and resumable.

What a patient's features depend on (its files, the settings, the parameter file) names the stored result: a second run
computes what is new or changed and nothing else, and a killed run goes on where it was. Nothing here needs pandas, so
that workers start fast and small; `feature_frame` has the same as a DataFrame.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from mtdlr import texture
from mtdlr.errors import Problem, ScanError, TableError
from mtdlr.imaging import itk
from mtdlr.imaging.layout import ScanSet, content_hash, discover
from mtdlr.imaging.reading import read_scan
from mtdlr.radiomics import extract as radiomics
from mtdlr.radiomics.diagnostics import Facts, diagnostics
from mtdlr.spreadsheet import read_sheet
from mtdlr.store import Recipe, Store, file_hash, open_store, write_atomic
from mtdlr.study import RadiomicsSettings
from mtdlr.volume import Volume
from mtdlr.workers import Workers, run_jobs

_IDS = ("patient_id", "patientid", "id", "patient")
_NEEDED = "patient_id, pet, ct, mask; or Image, Mask (and ID, Modality, Timepoint, Label, Label_channel)"
_ABOUT = ("timepoint", "label", "label_channel")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RadiomicsCase:
    """One row: a patient's scan, or any one image with a mask.

    Args:
        id: the row's name.
        scan: PET, CT and mask; None where there is one image only.
        image, mask: NIfTI files, where there is no scan.
        modality: of the image: PET, CT or nothing that we know of.
        named: features carry the modality and are made as a scan's, `PET_original_...`, not `original_...`.
        about: timepoint, label and label_channel as the table gives them; they tell rows of one patient apart.
    """

    id: str
    scan: ScanSet | None = None
    image: Path | None = None
    mask: Path | None = None
    modality: str = ""
    named: bool = False
    about: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """What this row alone is called: `P1`, or `P1, timepoint t0, label 2`."""
        return ", ".join([self.id, *(f"{name} {value}" for name, value in self.about if value)])

    def number(self, name: str) -> int | None:
        """The label or channel of the row; None where the table has none."""
        value = dict(self.about).get(name, "")
        return int(value) if value else None


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features by patient, and what has to be said about them.

    Args:
        rows: row's key -> features by name, nan where one is not defined; empty for a row that failed. A parameter
            file adds PyRadiomics' `diagnostics_*`, as text or numbers.
        problems: errors of the patients that failed, warnings of the others.
        cases: the rows' cases, in order; patient_id, timepoint and label are theirs.
    """

    rows: Mapping[str, Mapping[str, str | float]]
    problems: tuple[Problem, ...]
    cases: tuple[RadiomicsCase, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Every name, in the order in which the engine gives them."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))

    def csv(self) -> str:
        """One row a patient, time point and label; numbers to the last bit, empty where there is no value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns, about = self.columns, list(dict.fromkeys(name for case in self.cases for name, _ in case.about))
        writer.writerow(["patient_id", *about, *columns])
        for case in self.cases:
            row, given = self.rows[case.key], dict(case.about)
            writer.writerow([case.id, *(given.get(name, "") for name in about), *(_cell(row.get(k)) for k in columns)])
        return text.getvalue()


def _cell(value: str | float | None) -> str:
    """A value as it stands in the table."""
    return "" if value is None or (isinstance(value, float) and isnan(value)) else str(value)


def read_cases(images: str | Path) -> tuple[RadiomicsCase, ...]:
    """The cases of a folder of scans, of a manifest (patient_id, pet, ct, mask), or of a table with Image and Mask.

    Tables are CSV of any dialect or .xlsx (`spreadsheet.read_sheet`).

    Paths are taken from the table's own folder. A column Modality (PET or CT) says how an Image is binned. Columns
    Timepoint, Label (of a label map) and Label_channel make several rows of one patient.

    Raises:
        ScanError: what `discover` raises.
        TableError: E-MANIFEST for a table of other columns or a label that is no number, E-DUPLICATEID for a row that
            occurs twice.
    """
    images = Path(images)
    if images.suffix.lower() not in (".csv", ".tsv", ".xlsx"):
        return tuple(RadiomicsCase(scan.patient_id, scan) for scan in discover(images))
    rows = _table(images)
    columns = set(rows[0]) if rows else set()
    if {"image", "mask"} <= columns:
        return _image_cases(rows, images)
    if "image" in columns or not columns & {"pet", "ct"}:
        raise TableError(Problem("E-MANIFEST", "these columns do not name images and masks", where=images.name,
                                 found=", ".join(sorted(columns)) or "no row", expected=_NEEDED))
    return _scan_cases(rows, images)


def _image_cases(rows: Sequence[Mapping[str, str]], table: Path) -> tuple[RadiomicsCase, ...]:
    """The cases of a table with Image and Mask."""
    return tuple(RadiomicsCase(i, None, table.parent / row["image"], table.parent / row["mask"],
                               row.get("modality", "").upper(), about=_about(row))
                 for i, row in zip(_ids(rows, table), rows, strict=True))


def _about(row: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Timepoint, label and channel of a row, where the table has these columns."""
    return tuple((name, row[name]) for name in _ABOUT if name in row)


def _scan_cases(rows: Sequence[Mapping[str, str]], table: Path) -> tuple[RadiomicsCase, ...]:
    """The cases of a manifest; a patient without PET, or without CT, is an image with its modality."""
    alone = {}
    for id_, row in zip(_ids(rows, table), rows, strict=True):
        given = [name for name in ("pet", "ct") if row.get(name)]
        if len(given) == 1 and row.get("mask"):
            (name,) = given
            case = RadiomicsCase(id_, None, table.parent / row[name], table.parent / row["mask"], name.upper(),
                                 named=True, about=_about(row))
            alone[case.key] = case
    if len(alone) == len(rows):
        return tuple(alone.values())
    if told := [name for name in _ABOUT if name in rows[0]]:
        raise TableError(Problem("E-MANIFEST", "time points and labels need one image a row", where=table.name,
                                 found=", ".join(told), expected="columns Image, Mask, Modality"))
    return tuple(alone.get(scan.patient_id) or RadiomicsCase(scan.patient_id, scan) for scan in discover(table))


def _ids(rows: Sequence[Mapping[str, str]], table: Path) -> list[str]:
    """The rows' ids; their numbers where no column holds ids."""
    name = next((column for column in _IDS if column in rows[0]), None)
    ids = [row[name] if name else str(number) for number, row in enumerate(rows, start=1)]
    for given in (row[column] for row in rows for column in _ABOUT[1:] if row.get(column)):
        if not given.isdecimal():
            raise TableError(Problem("E-MANIFEST", "a label is a whole number", where=table.name, found=given))
    keys = [", ".join([i, *(value for _, value in _about(row))]) for i, row in zip(ids, rows, strict=True)]
    twice = sorted(i for i, count in Counter(keys).items() if count > 1)
    if twice:
        raise TableError(Problem("E-DUPLICATEID", "a row occurs twice", where=table.name, found=twice[0],
                                 remedy="Columns Timepoint and Label tell rows of one patient apart"))
    return ids


def extract_rows(cases: Sequence[RadiomicsCase], settings: RadiomicsSettings, *, store: Store,
                 workers: Workers) -> FeatureTable:
    """The features of many cases; the same bytes for any number of workers.

    Args:
        cases: from `read_cases`.
        settings: the study's `radiomics` section.
        store: where finished cases are kept.
        workers: where the work runs and who is told of progress.

    Raises:
        StudyError: E-PROFILE, E-NOPARAMETERS, E-PARAMETERS: before any work starts.
    """
    for modality in ("PET", "CT"):
        radiomics.profile(settings, modality)
    if not texture.is_compiled():
        log.warning("compiling the engine, once after installing: about half a minute")
    outcomes = run_jobs(_extract, [_Job(case, settings, store) for case in cases], workers, label="features")
    rows: dict[str, dict[str, str | float]] = {}
    problems: list[Problem] = []
    for case, outcome in zip(cases, outcomes, strict=True):
        rows[case.key] = {}
        if outcome.value is None:
            problems += [_placed(p, case) for p in outcome.problems]
            continue
        stored = json.loads((outcome.value / "features.json").read_text(encoding="utf-8"))
        rows[case.key] = stored["features"]
        problems += [_placed(Problem(**p), case) for p in stored["problems"]]
    return FeatureTable(rows, tuple(problems), tuple(cases))


def _placed(problem: Problem, case: RadiomicsCase) -> Problem:
    """A problem of a row: its patient, and which time point and label."""
    about = case.key.removeprefix(case.id).removeprefix(", ")
    return (problem.at(about) if about else problem).of_patient(case.id)


def write_features(images: str | Path, output: str | Path, settings: RadiomicsSettings | None = None, *,
                   workers: Workers | None = None) -> tuple[Problem, ...]:
    """Write the table of `images` to a CSV and return what has to be said; finished cases are kept beside it.

    Args:
        images: as `read_cases`.
        output: the CSV; the folder `<output>.cache` beside it holds what makes a run resumable, and may be deleted.
        settings: profile, spacing and bin widths.
        workers: where the work runs.

    Raises:
        MtdlrError: what `read_cases`, `open_store` and `extract_rows` raise.
    """
    output, settings = Path(output), settings or RadiomicsSettings()
    cases = read_cases(images)
    radiomics.profile(settings, "PET")
    with open_store(output.with_name(f"{output.name}.cache")) as store:
        found = extract_rows(cases, settings, store=store, workers=workers or Workers())
        write_atomic(output, found.csv())
    return found.problems


@dataclass(frozen=True)
class _Job:
    """One case for a worker."""

    case: RadiomicsCase
    settings: RadiomicsSettings
    store: Store


def _extract(job: _Job) -> Path:
    """The folder of one case's features.json."""
    settings = job.settings.model_dump(mode="json")
    if Path(job.settings.profile).is_file():
        settings["profile"] = file_hash(Path(job.settings.profile))
    kind = f"{job.case.modality} {job.case.named}" + "".join(f" {job.case.number(name) or ''}" for name in _ABOUT[1:]
                                                             if job.case.number(name))
    recipe = Recipe("features", settings, {"images": _content(job.case), "kind": kind})

    def build(folder: Path) -> None:
        features, doubts = _features(job.case, job.settings)
        found = {"features": features, "problems": [p.as_dict() for p in doubts]}
        write_atomic(folder / "features.json", json.dumps(found))

    return job.store.make(recipe, build)


def _content(case: RadiomicsCase) -> str:
    """A hash of everything the case's features are read from."""
    scan = case.scan
    files = (case.image, case.mask) if scan is None else (scan.pet, scan.ct, scan.mask)
    paths = [path for path in files if isinstance(path, Path)]
    try:
        if scan is not None:
            return content_hash(scan)
        return hashlib.sha256(" ".join(map(file_hash, paths)).encode()).hexdigest()
    except (ScanError, OSError):
        gone = [str(path) for path in paths if not path.exists()]
        if not gone:
            raise
        raise ScanError(Problem("E-NOFILE", "a file does not exist", found=", ".join(gone),
                                remedy="Check the path in the table")) from None


def _features(case: RadiomicsCase, settings: RadiomicsSettings) -> tuple[Facts, tuple[Problem, ...]]:
    """(features, doubts about the files and the features) of one case."""
    if case.scan is None:
        return _image_features(case, settings)
    scan = read_scan(case.scan)
    if scan.mask is None:
        raise ScanError(Problem("E-NOMASK", "there is no mask to extract features in", patients=(case.id,),
                                remedy="Give one in the manifest's column mask"))
    features, facts = radiomics.extract(scan.pet, scan.ct, scan.mask, settings), Facts()
    for modality, volume in (("PET", scan.pet), ("CT", scan.ct)):
        if volume is not None:
            facts |= _facts(f"{modality}_", volume, scan.mask, radiomics.profile(settings, modality))
    return facts | features, (*scan.problems, *radiomics.problems(features))


def _image_features(case: RadiomicsCase, settings: RadiomicsSettings) -> tuple[Facts, tuple[Problem, ...]]:
    """(features, doubts about the files and the features) of one image."""
    assert case.image is not None and case.mask is not None
    image, first = itk.read(case.image)
    mask, second = itk.read(case.mask, channel=case.number("label_channel") or 0)
    found = radiomics.profile(settings, case.modality)
    found = replace(found, label=case.number("label") or found.label)
    if case.named:
        pet, ct = (image, None) if case.modality == "PET" else (None, image)
        region = mask if case.number("label") is None else radiomics.labelled(mask, found.label)
        features, prefix = radiomics.extract(pet, ct, region, settings), f"{case.modality}_"
    else:
        features, prefix = radiomics.image_features(image, mask, found), ""
    return _facts(prefix, image, mask, found) | features, (*first, *second, *radiomics.problems(features))


def _facts(prefix: str, image: Volume, mask: Volume, profile: texture.Profile) -> Facts:
    """`diagnostics_*` where the profile wants them."""
    if not profile.diagnostics:
        return {}
    return {prefix + name: value for name, value in diagnostics(image, mask, profile).items()}


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a table of any dialect, column names in lower case."""
    if not path.exists():
        raise TableError(Problem("E-NOFILE", "there is no such table", where=str(path)))
    sheet = read_sheet(path)
    if wrong := [problem for problem in sheet.problems if problem.is_error]:
        raise TableError(wrong)
    names = [name.lower() for name in sheet.names]
    return [dict(zip(names, row, strict=True)) for row in sheet.rows]
