"""Which patients lie in a folder, and which files are their PET, CT and mask.

Layouts are recognised by content: DICOM of any depth (or a zip of it), HECKTOR 2022 and 2025, BIDS-PET, one folder a
patient with PET_image and CT_image, or a manifest.csv. docs/your-data.md shows each.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom import Instance, Series, damage, group_series, named_by, read_instances, series_of
from mtdlr.imaging.dicom_choice import Choice, answers_to, choose
from mtdlr.imaging.nifti import is_nifti

LAYOUTS = ("auto", "manifest", "hecktor", "bids", "patient-folders", "dicom")
_NEVER_DICOM = (".csv", ".json", ".tsv", ".txt", ".md", ".xml", ".pdf", ".jpg", ".png")
_HECKTOR = re.compile(r"(?P<id>.+?)__(?P<kind>PT|CT)\.nii(\.gz)?$")
_MANIFEST = ("patient_id", "pet", "ct", "mask")

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


def discover(
    folder: str | Path, *, layout: str = "auto", mask_pattern: str = "*", pseudonym_key: str | None = None
) -> tuple[ScanSet, ...]:
    """The patients in a folder, a zip or a manifest, sorted by id. NIfTI and DICOM patients may lie side by side.

    Args:
        folder: cohort folder, one patient's folder, a zip of either, or a manifest CSV.
        layout: one of `LAYOUTS`; "auto" takes a manifest.csv if there is one, else every layout that is found.
        mask_pattern: shell pattern for the structure, segment or file name of the tumour mask.
        pseudonym_key: a secret; with it DICOM patients are told apart by PatientID and named by its keyed digest
            instead of by the folder below `folder`.

    Raises:
        ScanError: E-NOFILE, E-ZIP, E-LAYOUT (nothing found, or an unknown layout), E-MANIFEST.
    """
    root = Path(folder)
    if layout not in LAYOUTS:
        raise ScanError(Problem("E-LAYOUT", "unknown layout", found=layout, expected=", ".join(LAYOUTS)))
    manifest = root if root.suffix.lower() == ".csv" else root / "manifest.csv"
    if layout == "manifest" or (layout == "auto" and manifest.is_file()):
        return _from_manifest(manifest, mask_pattern)
    files = _with_zips(root, archive.list_files(root))
    images = [f for f in files if is_nifti(f)]
    found: list[ScanSet] = []
    if layout in ("auto", "bids"):
        found += _bids(images, mask_pattern)
    if layout in ("auto", "hecktor"):
        found += _hecktor(images, mask_pattern)
    if layout in ("auto", "patient-folders"):
        found += _patient_folders(images, mask_pattern)
    if layout in ("auto", "dicom"):
        others = [f for f in files if not is_nifti(f) and f.suffix.lower() not in _NEVER_DICOM]
        found += _dicom(root, others, mask_pattern, pseudonym_key)
    if not found:
        raise ScanError(Problem("E-LAYOUT", "no PET/CT was found", where=root.name, found=f"{len(files)} files",
                                expected="DICOM, HECKTOR or BIDS NIfTI, or a manifest.csv",
                                remedy="Describe the files in a manifest.csv: patient_id,pet,ct,mask"))
    return _unique(found)


def given_files(
    patient_id: str, pet: str | Path, ct: str | Path, mask: str | Path | None = None, *, mask_pattern: str = "*",
    kind: str = "files",
) -> ScanSet:  # fmt: skip
    """One patient whose PET, CT and mask are named one by one.

    Args:
        patient_id: the name that joins the scan to the clinical table.
        pet, ct, mask: a NIfTI file, a DICOM file, or a folder or zip of DICOM files from which the series is chosen.
        mask_pattern: as `discover`.
    """
    named = {"pet": Path(pet), "ct": Path(ct)} | ({"mask": Path(mask)} if mask is not None else {})
    problems = [Problem("E-NOFILE", "the file does not exist", where=role, remedy="Check the path")
                for role, path in named.items() if not path.exists() and archive.archive_of(path) is None]
    series, choice = _series_in(named.values(), problems)
    taken: dict[str, Files | None] = {}
    for role, path in named.items():
        heap = path.is_dir() or archive.is_archive(path)
        taken[role] = _picked(choice, role, path, problems) if heap else path
    pet_files, ct_files, mask_file = taken.get("pet"), taken.get("ct"), taken.get("mask")
    return ScanSet(
        patient_id, pet_files, ct_files, mask_file[0] if isinstance(mask_file, tuple) else mask_file, kind,
        tuple(dict.fromkeys(problems)), series, mask_pattern, choice.why if choice else "",
    )  # fmt: skip


def with_series(scan: ScanSet, wanted: Sequence[str]) -> ScanSet:
    """The same patient with the DICOM series that were asked for (UID, key or description pattern) chosen."""
    return _chosen(scan, wanted) if scan.candidates and wanted else scan


def take_series(found: Sequence[ScanSet], wanted: Sequence[str]) -> tuple[tuple[ScanSet, ...], tuple[Problem, ...]]:
    """The patients, each with those of the wanted series that it has, and E-NOSERIES for names that nobody has."""
    taken = tuple(with_series(scan, [w for w in wanted if any(answers_to(s, w) for s in scan.candidates)])
                  for scan in found)
    unknown = [w for w in wanted if not any(answers_to(s, w) for scan in found for s in scan.candidates)]
    problem = Problem("E-NOSERIES", "a series asked for is nobody's", where="cohort.series",
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


def _with_zips(root: Path, files: Sequence[Path]) -> list[Path]:
    """The files, with the members of zips that lie among them in the zips' place."""
    if not root.is_dir():
        return list(files)
    return [m for f in files for m in (archive.list_files(f) if archive.is_archive(f) else (f,))]


def _unique(found: Iterable[ScanSet]) -> tuple[ScanSet, ...]:
    """Sorted by id; patients that come twice carry E-DUPLICATEID."""
    ordered = sorted(found, key=lambda s: s.patient_id)
    counts = Counter(s.patient_id for s in ordered)
    twice = Problem("E-DUPLICATEID", "two scans go by one patient id", remedy="Keep one, or give them different ids")
    return tuple(replace(s, problems=(*s.problems, twice)) if counts[s.patient_id] > 1 else s for s in ordered)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _missing(pet: Files | None, ct: Files | None) -> tuple[Problem, ...]:
    """E-NOPET and E-NOCT."""
    gone = [("E-NOPET", "PET", pet), ("E-NOCT", "CT", ct)]
    return tuple(Problem(code, f"there is no {name}", remedy="Add it, or remove the patient")
                 for code, name, files in gone if files is None)


def _nifti_set(patient_id: str, kind: str, images: dict[str, Path], mask: Path | None, pattern: str) -> ScanSet:
    pet, ct = images.get("PT"), images.get("CT")
    return ScanSet(patient_id, pet, ct, mask, kind, _missing(pet, ct), mask_pattern=pattern)


def _hecktor(files: Sequence[Path], pattern: str) -> list[ScanSet]:
    """HECKTOR: <ID>__PT.nii.gz and <ID>__CT.nii.gz; the label <ID>.nii.gz beside them or in a labels folder."""
    images: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    labels: dict[str, Path] = {}
    for path in files:
        if match := _HECKTOR.match(path.name):
            images[match["id"]][match["kind"]].append(path)
        else:
            labels.setdefault(_stem(path).replace("_", "-"), path)
    found = []
    for patient, kinds in images.items():
        first = {kind: paths[0] for kind, paths in kinds.items()}
        scan = _nifti_set(patient, "hecktor", first, labels.get(patient.replace("_", "-")), pattern)
        found.append(replace(scan, problems=(*scan.problems, *_repeated(kinds.values()))))
    return found


def _repeated(images: Iterable[Sequence[Path]]) -> tuple[Problem, ...]:
    """What to say of images that lie in several folders, as in the tasks of HECKTOR 2025."""
    several = [paths for paths in images if len(paths) > 1]
    if not several:
        return ()
    if all(archive.digest([p]) == archive.digest([paths[0]]) for paths in several for p in paths[1:]):
        return (Problem("W-COPIES", "files lie in the folder twice and were read once"),)
    return (Problem("E-DUPLICATEID", "different images go by one patient id", remedy="Point at one of the folders"),)


def _patient_folders(files: Sequence[Path], pattern: str) -> list[ScanSet]:
    """One folder a patient: PET_image, CT_image and CT_mask or PET_mask."""
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in files:
        folders[path.parent][_stem(path).lower()] = path
    found = []
    for folder, names in folders.items():
        images = {k: names[n] for k, n in (("PT", "pet_image"), ("CT", "ct_image")) if n in names}
        if images:
            usual = [names[n] for n in ("ct_mask", "pet_mask") if n in names]
            asked = [p for n, p in names.items() if pattern != "*" and fnmatchcase(n, pattern.lower())]
            mask = next(iter((*asked, *usual)), None)
            found.append(_nifti_set(folder.name, "patient-folders", images, mask, pattern))
    return found


def _bids(files: Sequence[Path], pattern: str) -> list[ScanSet]:
    """BIDS-PET: sub-<id>/[ses-<id>/]pet/*_pet.nii.gz, ct/*_ct.nii.gz, masks anywhere as *_mask or *_dseg."""
    by_kind: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        patient, _, rest = _stem(path).partition("_")
        kind = {"pet": "PET", "ct": "CT", "mask": "mask", "dseg": "mask"}.get(rest.rpartition("_")[2].lower())
        meant = kind != "mask" or fnmatchcase(_stem(path).upper(), f"*{pattern.upper()}*")
        if patient.startswith("sub-") and kind and meant:
            by_kind[patient][kind].append(path)
    found = []
    for patient, kinds in by_kind.items():
        several = tuple(Problem("E-SERIESTIE", f"the patient has several {n} images", found=str(len(v)), expected="one",
                                remedy="Describe the cohort in a manifest.csv") for n, v in kinds.items() if len(v) > 1)
        pet, ct, mask = (next(iter(kinds.get(n, ())), None) for n in ("PET", "CT", "mask"))
        found.append(ScanSet(patient, pet, ct, mask, "bids", (*_missing(pet, ct), *several), mask_pattern=pattern))
    return found


def _dicom(root: Path, files: Sequence[Path], pattern: str, pseudonym_key: str | None) -> list[ScanSet]:
    """DICOM files by patient: the folder directly below the root, or the PatientID."""
    instances, bad = read_instances(files)
    if pseudonym_key is None or not instances:
        groups = _by_folder(root, instances, [f for f, _ in bad])
    else:
        groups = _by_patient_id(instances, pseudonym_key)
    found = []
    for name, members in groups.items():
        own = [(path, p) for path, p in bad if len(groups) == 1 or pseudonym_key or _below(root, path) == name]
        series, copies = series_of(members)
        shown = _without_zip(name)
        scan = _chosen(ScanSet(shown, None, None, None, "dicom", copies, series, pattern), ())
        used = (*_paths(scan.pet), *_paths(scan.ct))
        found.append(replace(scan, problems=(*damage(own, used), *scan.problems)))
    return _named_openly(found)


def names_the_patient(scan: ScanSet) -> bool:
    """Whether the patient's id holds the name or number that stands in the DICOM headers."""
    return any(named_by(s, scan.patient_id) for s in scan.candidates)


def _named_openly(found: list[ScanSet]) -> list[ScanSet]:
    """The patients; the first whose folder is called by the name or number in its headers says how many are."""
    named = [n for n, scan in enumerate(found) if names_the_patient(scan)]
    if named:
        first = found[named[0]]
        told = Problem("W-IDFOLDER", "folders bear the patient's name or number, which will stand in every output",
                       found=f"{len(named)} of {len(found)} folders",
                       remedy="Rename the folders, or have ids made from PatientID with a pseudonym key")
        found[named[0]] = replace(first, problems=(*first.problems, told))
    return found


def _by_patient_id(instances: Sequence[Instance], key: str) -> dict[str, list[Instance]]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        digest = hmac.new(key.encode(), str(instance.facts["patient"]).encode(), hashlib.sha256).hexdigest()
        groups[f"P{digest[:10]}"].append(instance)
    return groups


def _by_folder(root: Path, instances: Sequence[Instance], unreadable: Sequence[Path]) -> dict[str, list[Instance]]:
    """Patients by the folder below the root. The root is the patient if it holds one, whose files are spread."""
    groups: dict[str, list[Instance]] = {_below(root, f): [] for f in unreadable}
    for instance in instances:
        groups.setdefault(_below(root, instance.path), []).append(instance)
    one = len({i.facts["patient"] for i in instances}) == 1
    complete = any({"PT", "CT"} <= {i.modality for i in members} for members in groups.values())
    if one and (not complete or _spread(groups.values())):
        return {root.name: list(instances)}
    return groups


def _spread(groups: Iterable[Sequence[Instance]]) -> bool:
    """Whether one series has different files in several folders, as when an export fills folders in turn."""
    parts: dict[str, set[frozenset[str]]] = defaultdict(set)
    for members in groups:
        for key in {i.series for i in members}:
            parts[key].add(frozenset(i.identity for i in members if i.series == key))
    return any(len(p) > 1 for p in parts.values())


def _below(root: Path, file: Path) -> str:
    """Name of the folder (or zip) directly below the root that holds the file; the root's own for files in it."""
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else root.name


def _without_zip(name: str) -> str:
    return re.sub(r"\.zip$", "", name, flags=re.IGNORECASE)


def _chosen(scan: ScanSet, wanted: Sequence[str]) -> ScanSet:
    """The scan with its series chosen; problems of the choice before are dropped."""
    before = choose(scan.candidates).problems if wanted else ()
    choice = choose(scan.candidates, wanted)
    kept = tuple(p for p in scan.problems if p not in before)
    return replace(
        scan, pet=choice.pet.files if choice.pet else None, ct=choice.ct.files if choice.ct else None,
        mask=choice.mask.files[0] if choice.mask else None, why=choice.why, problems=(*kept, *choice.problems),
    )  # fmt: skip


def _series_in(paths: Iterable[Path], problems: list[Problem]) -> tuple[tuple[Series, ...], Choice | None]:
    """The DICOM series in the folders and zips among the paths, and the choice among them."""
    files: dict[Path, None] = {}
    try:
        for path in paths:
            if path.is_dir() or archive.is_archive(path):
                files |= dict.fromkeys(archive.list_files(path))
        series, bad = group_series(files)
        problems += bad
    except ScanError as error:
        series = ()
        problems += error.problems
    return series, choose(series) if files else None


def _picked(choice: Choice | None, role: str, heap: Path, problems: list[Problem]) -> Files | None:
    """The series of a role inside its folder or zip, with the problems of choosing it."""
    assert choice is not None
    series = {"pet": choice.pet, "ct": choice.ct, "mask": choice.mask}[role]
    about = {"pet": ("E-NOPET", "E-NAC", "W-SHORTFOV"), "ct": ("E-NOCT", "W-CTTIE"), "mask": ("W-MASK",)}[role]
    general = ("E-SERIESTIE", "E-PATIENTMIX", "E-NOSERIES", "W-BURNEDIN")
    problems += [p for p in choice.problems if p.code.startswith((*about, *general))]
    if series is None and role == "mask":
        problems.append(Problem("E-NOCONTOURS", "the mask's folder holds no contours that belong to the images"))
    return series.files if series is not None and all(f.is_relative_to(heap) for f in series.files) else None


def _from_manifest(path: Path, pattern: str) -> tuple[ScanSet, ...]:
    """One row a patient: patient_id, pet, ct, mask; paths lie relative to the file."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise _bad_manifest(path, "a file that cannot be read", "a UTF-8 CSV") from None
    names = {str(name) for name in rows[0]} if rows else set()
    if not {"patient_id", "pet", "ct"} <= names:
        raise _bad_manifest(path, f"columns {', '.join(sorted(names)) or 'none'}", ", ".join(_MANIFEST))
    return _unique(_manifest_row(path.parent, row, line, pattern) for line, row in enumerate(rows, 2))


def _manifest_row(folder: Path, row: dict[str, str | None], line: int, pattern: str) -> ScanSet:
    patient, *cells = ((row.get(name) or "").strip() for name in _MANIFEST)
    empty = [n for n, cell in zip(_MANIFEST, (patient, *cells[:2]), strict=False) if not cell]
    if empty:
        problems = tuple(Problem("E-MANIFEST", f"{n} is empty", where=f"line {line}") for n in empty)
        return ScanSet(patient or f"line {line}", None, None, None, "manifest", problems)
    pet, ct, mask = (folder / cell if cell else None for cell in cells)
    assert pet is not None and ct is not None
    scan = given_files(patient, pet, ct, mask, mask_pattern=pattern, kind="manifest")
    return replace(scan, problems=tuple(p.at(f"line {line}") for p in scan.problems))


def _bad_manifest(path: Path, found: str, expected: str) -> ScanError:
    return ScanError(Problem("E-MANIFEST", "the manifest cannot be used", where=path.name, found=found,
                             expected=expected))
