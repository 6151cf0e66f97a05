"""Which patients lie in a folder, and which files are their PET, CT and mask.

Layouts are recognised by content: DICOM of any depth (or a zip of it), HECKTOR 2022 and 2025, BIDS-PET, one folder a
patient with PET_image and CT_image, or a manifest.csv. docs/your-data.md shows each.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.dicom import damage, named_by, series_of
from mtdlr.imaging.dicom_instance import Instance, Reader, read_heaps
from mtdlr.imaging.manifest import find_manifest, read_manifest
from mtdlr.imaging.nifti import is_nifti
from mtdlr.imaging.scan_set import (
    Files,
    ScanSet,
    chosen,
    content_hash,
    content_hashes,
    given_files,
    missing,
    take_series,
    unique,
    with_series,
)

__all__ = ["LAYOUTS", "NOTHING", "Files", "ScanSet", "content_hash", "content_hashes", "discover", "given_files",
           "names_the_patient", "take_series", "with_series"]
LAYOUTS = ("auto", "manifest", "hecktor", "bids", "patient-folders", "dicom")
_NO_DICOM = (".nii", ".nii.gz", ".csv", ".json", ".tsv", ".txt", ".md", ".xml", ".pdf", ".jpg", ".png")
_HECKTOR = re.compile(r"(?P<id>.+?)__(?P<kind>PT|CT)\.nii(\.gz)?$")
_PACKED = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz)|7z|rar|iso)$", re.IGNORECASE)
NOTHING = "nothing"  # the kind of a folder or archive below the root in which there is no scan


def discover(
    folder: str | Path, *, layout: str = "auto", mask_pattern: str = "*", pseudonym_key: str | None = None,
    empty: bool = False, read: Reader = read_heaps,
) -> tuple[ScanSet, ...]:
    """The patients in a folder, a zip or a manifest, sorted by id. NIfTI and DICOM patients may lie side by side.

    Args:
        folder: cohort folder, one patient's folder, a zip of either, or a manifest CSV.
        layout: one of `LAYOUTS`; "auto" takes a manifest.csv if there is one, else every layout that is found.
        mask_pattern: shell pattern for the structure, segment or file name of the tumour mask.
        pseudonym_key: a secret; with it DICOM patients are told apart by PatientID and named by its keyed digest
            instead of by the folder below `folder`.
        empty: whether a folder or zip without any image comes too.
        read: reads the headers of DICOM files; by default here and now.

    A zip, link or folder below the root that cannot be read comes too, with the reason in its problems and the kind
    `NOTHING`; nothing that is wrong with one patient costs another.

    Raises:
        ScanError: E-NOFILE, E-NOACCESS and E-ZIP of the root itself, E-LAYOUT (nothing found, or an unknown layout),
            E-MANIFEST, E-EXTRA.
    """
    root = Path(folder)
    if layout not in LAYOUTS:
        raise ScanError(Problem("E-LAYOUT", "unknown layout", found=layout, expected=", ".join(LAYOUTS)))
    manifest = find_manifest(root)
    if layout == "manifest" or (layout == "auto" and manifest is not None):
        return read_manifest(manifest or root / "manifest.csv", mask_pattern, read)
    listing = archive.walk(root)
    files = listing.files
    images = [f for f in files if is_nifti(f)]
    found: list[ScanSet] = []
    if layout in ("auto", "bids"):
        found += _bids(images, mask_pattern)
    if layout in ("auto", "hecktor"):
        found += _hecktor(images, mask_pattern)
    if layout in ("auto", "patient-folders"):
        found += _patient_folders(images, mask_pattern)
    if layout in ("auto", "dicom"):
        others = [f for f in files if not f.name.lower().endswith(_NO_DICOM)]
        found += _dicom(root, others, mask_pattern, pseudonym_key, read)
    if not found:
        nowhere = Problem("E-LAYOUT", "no PET/CT was found", found=f"{len(files)} files",
                          expected="DICOM, HECKTOR or BIDS NIfTI, or a manifest.csv",
                          remedy="`mtdlr init --images FOLDER` proposes a manifest from the file names")
        raise ScanError([nowhere, *dict.fromkeys(problem for _, problem in listing.passed)])
    return unique(_with_passed(root, found, listing, empty=empty))


def _with_passed(root: Path, found: Sequence[ScanSet], listing: archive.Listing, *, empty: bool) -> list[ScanSet]:
    """The patients with what was passed over below their folders, and the folders in which there is no scan."""
    if not root.is_dir() or any(scan.patient_id == root.name for scan in found):
        return list(found)
    told: dict[str, list[Problem]] = defaultdict(list)
    for path, problem in listing.passed:
        told[_without_zip(_below(root, path, inside=True))].append(problem)
    patients = [replace(scan, problems=tuple(dict.fromkeys((*scan.problems, *told.pop(scan.patient_id, ())))))
                for scan in found]
    taken = {_below(root, file) for scan in found for file in _files_of(scan)}
    taken |= {_below(root, file) for file in listing.files if is_nifti(file)}
    used = {*map(_without_zip, taken), *(scan.patient_id for scan in found)}
    held: Counter[str] = Counter()
    for name, count in Counter(_below(root, file) for file in listing.files).items():
        held[_without_zip(name)] += count
    tops = [_without_zip(path.name) for path in sorted(root.iterdir()) if path.is_dir()]
    for top in dict.fromkeys((*tops, *held, *told)):
        if top not in used and (empty or top in told) and not top.startswith("."):
            why = told.get(top) or [Problem("E-NOIMAGES", "there is no PET or CT in the folder or zip",
                                            found=f"{held[top]} files", remedy="Export the images again")]
            patients.append(ScanSet(top, None, None, None, NOTHING, tuple(dict.fromkeys(why))))
    return patients


def _files_of(scan: ScanSet) -> list[Path]:
    """Every file of a patient that was recognised."""
    given = [f for f in (scan.pet, scan.ct, scan.mask) if isinstance(f, Path)]
    return [*given, *(file for series in scan.candidates for file in series.files)]


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _nifti_set(patient_id: str, kind: str, images: dict[str, Path], mask: Path | None, pattern: str) -> ScanSet:
    pet, ct = images.get("PT"), images.get("CT")
    return ScanSet(patient_id, pet, ct, mask, kind, missing(pet, ct), mask_pattern=pattern)


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
    """The warning for images that lie in several folders, as in the tasks of HECKTOR 2025."""
    several = [paths for paths in images if len(paths) > 1]
    if not several:
        return ()
    if all(archive.same_content(p, paths[0]) for paths in several for p in paths[1:]):
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
        found.append(ScanSet(patient, pet, ct, mask, "bids", (*missing(pet, ct), *several), mask_pattern=pattern))
    return found


def _dicom(root: Path, files: Sequence[Path], pattern: str, pseudonym_key: str | None, read: Reader) -> list[ScanSet]:
    """DICOM files by patient: the folder directly below the root, or the PatientID."""
    ((instances, bad),) = read([files])
    if pseudonym_key is None or not instances:
        groups = _by_folder(root, instances, [f for f, _ in bad])
    else:
        groups = _by_patient_id(instances, pseudonym_key)
    alone = len(groups) == 1 or pseudonym_key is not None
    lying: dict[str, list[Path]] = defaultdict(list)
    damaged: dict[str, list[tuple[Path, Problem]]] = defaultdict(list)
    for file in files if bad else ():
        lying["" if alone else _below(root, file)].append(file)
    for file, problem in bad:
        damaged["" if alone else _below(root, file)].append((file, problem))
    found = []
    for name, members in groups.items():
        key = "" if alone else name
        series, copies = series_of(members)
        scan = ScanSet(_without_zip(name), None, None, None, "dicom", copies, series, pattern)
        scan = chosen(scan, ()) if series or not damaged[key] else scan
        used = [file for files_ in (scan.pet, scan.ct) if isinstance(files_, tuple) for file in files_]
        found.append(replace(scan, problems=(*damage(damaged[key], used, lying[key]), *scan.problems)))
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


def _below(root: Path, file: Path, *, inside: bool = False) -> str:
    """Name of the folder (or zip) directly below the root that holds the file; the root's own for files in it.

    With `inside` an item directly below the root is its own folder.
    """
    parts = file.parts[len(root.parts):]  # a tenth of the time of `relative_to`, which cohorts of many files feel
    return parts[0] if len(parts) > 1 or (inside and parts) else root.name


def _without_zip(name: str) -> str:
    return _PACKED.sub("", name)
