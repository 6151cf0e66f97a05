"""Radiomics on its own: images and masks of many patients to one table, in parallel and resumable.

What a patient's features depend on (its files, the settings, the parameter file) names the stored result: a second run
computes what is new or changed and nothing else, and a killed run goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mtdlr import radiomics
from mtdlr.errors import Problem, ScanError, TableError
from mtdlr.imaging import nifti
from mtdlr.imaging.layout import ScanSet, content_hash, discover
from mtdlr.imaging.reading import read_scan
from mtdlr.store import Recipe, Store, file_hash, open_store, write_atomic
from mtdlr.study import RadiomicsSettings
from mtdlr.workers import Workers, run_jobs

VERSION = 1
"""Raised when the engine's results change."""
_IDS = ("patient_id", "patientid", "id", "patient")


@dataclass(frozen=True)
class Case:
    """One row: a patient's scan, or any one image with a mask."""

    id: str
    scan: ScanSet | None = None
    image: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features by patient, and what has to be said about them.

    Args:
        features: one row a patient (nan where a feature is not defined), one column a feature.
        problems: errors of the patients that failed (their row is nan), warnings of the others.
    """

    features: pd.DataFrame
    problems: tuple[Problem, ...]


def read_cases(images: str | Path) -> tuple[Case, ...]:
    """The cases of a folder of scans, of a manifest (patient_id, pet, ct, mask), or of a CSV with Image and Mask.

    Raises:
        ScanError: what `discover` raises.
        TableError: E-MANIFEST for an Image table without masks, E-DUPLICATEID for an id that occurs twice.
    """
    images = Path(images)
    rows = _table(images) if images.suffix.lower() == ".csv" else []
    if not rows or "image" not in rows[0]:
        return tuple(Case(scan.patient_id, scan) for scan in discover(images))
    if "mask" not in rows[0]:
        raise TableError(Problem("E-MANIFEST", "the table has no column Mask", where=images.name))
    name = next((column for column in _IDS if column in rows[0]), None)
    ids = [row[name] if name else str(number) for number, row in enumerate(rows, start=1)]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise TableError(Problem("E-DUPLICATEID", "an id occurs twice", where=images.name, found=twice[0]))
    return tuple(Case(i, None, images.parent / row["image"], images.parent / row["mask"])
                 for i, row in zip(ids, rows, strict=True))


def extract_table(cases: Sequence[Case], settings: RadiomicsSettings, *, store: Store,
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
    outcomes = run_jobs(_extract, [_Job(case, settings, store) for case in cases], workers, label="features")
    rows: dict[str, dict[str, float]] = {}
    problems: list[Problem] = []
    for case, outcome in zip(cases, outcomes, strict=True):
        where = f"patient {case.id}"
        rows[case.id] = {}
        if outcome.value is None:
            problems += [p if p.where.startswith(where) else p.at(where) for p in outcome.problems]
            continue
        stored = json.loads((outcome.value / "features.json").read_text(encoding="utf-8"))
        rows[case.id] = stored["features"]
        problems += [Problem(**p).at(where) for p in stored["problems"]]
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float).reindex(list(rows))
    table.index.name = "patient_id"
    return FeatureTable(table, tuple(problems))


def write_features(images: str | Path, output: str | Path, *, profile: str = "paper1456",
                   workers: Workers | None = None) -> tuple[Problem, ...]:
    """Write the table of `images` to a CSV and return what has to be said; finished cases are kept beside it.

    Args:
        images: as `read_cases`.
        output: the CSV; the folder `<output>.cache` beside it holds what makes a run resumable, and may be deleted.
        profile: paper1456, ibsi or a PyRadiomics parameter file.
        workers: where the work runs.

    Raises:
        MtdlrError: what `read_cases`, `open_store` and `extract_table` raise.
    """
    output = Path(output)
    cases = read_cases(images)
    with open_store(output.with_name(f"{output.name}.cache")) as store:
        found = extract_table(cases, RadiomicsSettings(profile=profile), store=store, workers=workers or Workers())
        write_atomic(output, found.features.to_csv(lineterminator="\n"))
    return found.problems


@dataclass(frozen=True)
class _Job:
    """One case for a worker."""

    case: Case
    settings: RadiomicsSettings
    store: Store


def _extract(job: _Job) -> Path:
    """The folder of one case's features.json."""
    settings = job.settings.model_dump(mode="json")
    if Path(job.settings.profile).is_file():
        settings["profile"] = file_hash(Path(job.settings.profile))
    recipe = Recipe("features", settings, {"images": _content(job.case)}, VERSION)

    def build(folder: Path) -> None:
        features, doubts = _features(job.case, job.settings)
        found = {"features": features, "problems": [p.as_dict() for p in (*doubts, *radiomics.problems(features))]}
        write_atomic(folder / "features.json", json.dumps(found))

    return job.store.make(recipe, build)


def _content(case: Case) -> str:
    """A hash of everything the case's features are read from."""
    if case.scan is not None:
        return content_hash(case.scan)
    assert case.image is not None and case.mask is not None
    parts = [file_hash(_existing(path)) for path in (case.image, case.mask)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ScanError(Problem("E-NOFILE", "the file does not exist", where=path.name, remedy="Check the path"))
    return path


def _features(case: Case, settings: RadiomicsSettings) -> tuple[dict[str, float], tuple[Problem, ...]]:
    """(features, doubts about the files) of one case."""
    if case.scan is None:
        assert case.image is not None and case.mask is not None
        (image, first), (mask, second) = nifti.read(case.image), nifti.read(case.mask)
        return radiomics.image_features(image, mask, radiomics.profile(settings, "image")), (*first, *second)
    scan = read_scan(case.scan)
    if scan.mask is None:
        raise ScanError(Problem("E-NOMASK", "there is no mask to extract features in", where=f"patient {case.id}",
                                remedy="Give one in the manifest's column mask"))
    return radiomics.extract(scan.pet, scan.ct, scan.mask, settings), scan.problems


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, column names in lower case."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{str(k).strip().lower(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(file)]
    except OSError:
        raise TableError(Problem("E-NOFILE", "there is no such table", where=str(path))) from None
