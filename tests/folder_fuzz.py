"""Whole study folders with something wrong in them, made from a number: zips, links, permissions, tables, manifests,
DICOM, NIfTI, study files. Run by test_folder_fuzz.py in small and by bench/bench_fuzz.py at length.
"""

from __future__ import annotations

import builtins
import gzip
import io
import json
import os
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import test_imaging_fuzz as fuzz
import test_your_data as data

from mtdlr.cohort.check import check_study
from mtdlr.cohort.check_table import as_csv, as_text, rows_of, scans_text
from mtdlr.errors import MtdlrError

STUDY = """[cohort]
images = "{images}"
table = "clinical.csv"
split = "random"
stage = "stage"
continuous = ["age"]
factors = {{ stage = ["III", "IVa"], sex = ["f", "m"] }}
"""
CELLS = ["", " ", "0", "-1", "1e999", "nan", "NaN", "1,5", "1.234,5", "ja", "nein", "2", "01.02.2020", "1/2/2020",
         "IVa",
         "=1+1", "@x", '"', "''", "\x00", "\ufeff", "\u202e", "\u00e4\u00f6", "P1;P2", "A" * 5000, "\r", "-0", "+",
         "1e-320", "99999999999", "2020-02-31", "inf", "TRUE", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode(
             "utf-16"), "../x", "#REF!", "1 000", "\t"]
PATHS = ["", ".", "..", "/dev/null", "nope", "x" * 300, "a\x00b", "images/../images", "file:///x", "C:\\x\\y.nii",
         "images", "clinical.csv", "~", "*", "images/P0__PT.nii.gz"]
NAMES = [" ", "a b", "=x", "\u00e4", "x" * 200, "a:b", "a\nb", "-rf", ".hidden", "CON", "P0", "#", "'",
         '"', "%s", "{0}"]
SETTINGS = [
    'cohort.time_unit="days"', 'cohort.time_unit="years"', 'cohort.split="center"', 'cohort.split="given"',
    'cohort.layout="dicom"', 'cohort.layout="bids"', 'cohort.layout="manifest"', 'cohort.mask_name="GTV*"',
    "cohort.mask_label=3", "cohort.keep_ids=true", 'cohort.series=["x","*"]', 'cohort.event="time_months"',
    'cohort.id="stage"', 'cohort.start="age"', 'cohort.competing=["2"]', 'cohort.external_centers=["B"]',
    'cohort.center="stage"', 'prepare.pet_units="suv"', "prepare.uptake_min=60", "prepare.assume_geometry=true",
    'prepare.alignment="rigid"', "cohort.seed=5", 'evaluate.roc="status"', "cohort.internal_fraction=0.9",
    'cohort.described=["age"]', "deepmts.epochs=0", "nonsense.key=1", "cohort.images=7", "=", "cohort={}"]


def bases(folder: Path) -> list[Path]:
    """Study folders in which nothing is wrong: names of HECKTOR with DICOM folders and a zip, a manifest, BIDS."""
    mixed, manifest, bids = (folder / name for name in ("mixed", "manifest", "bids"))
    for n in (0, 1, 2, *range(5, 14)):
        data.image(mixed / "images" / f"P{n}__PT.nii.gz", n)
        data.ct(mixed / "images" / f"P{n}__CT.nii.gz", n)
        data.mask(mixed / "images" / f"P{n}.nii.gz")
    for n in (3, 4):
        data.dicom(mixed / "images" / f"P{n}", n)
    with zipfile.ZipFile(mixed / "images" / "P4.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(p for p in (mixed / "images" / "P4").rglob("*") if p.is_file()):
            packed.write(path, path.relative_to(mixed / "images"))
    shutil.rmtree(mixed / "images" / "P4")
    rows = ["patient_id,pet,ct,mask"]
    for n in range(4):
        data.image(manifest / "raw" / f"{n}a.nii.gz", n)
        data.ct(manifest / "raw" / f"{n}b.nii", n)
        data.mask(manifest / "raw" / f"{n}c.nii.gz")
        rows.append(f"P{n},raw/{n}a.nii.gz,raw/{n}b.nii,raw/{n}c.nii.gz")
    data.dicom(manifest / "raw" / "heap", 9)
    rows.append("P4,raw/heap,raw/heap,raw/heap/DICOM/02/0")
    (manifest / "manifest.csv").write_text("\n".join(rows) + "\n")
    whole = folder / "forty"
    data.bids(whole)
    for n in range(5):
        name = f"sub-{n + 1:02d}"
        shutil.copytree(whole / name, bids / "images" / name)
        shutil.copytree(whole / "derivatives" / "manual" / name, bids / "images" / "derivatives" / "manual" / name)
    shutil.rmtree(whole)
    for base, images, prefix in ((mixed, "images", "P{}"), (manifest, "manifest.csv", "P{}"),
                                 (bids, "images", "sub-0{}")):
        first = 1 if base is bids else 0
        table = "".join(f"{prefix.format(n + first)},{20 + n}.5,1,{'III' if n % 2 else 'IVa'},{40 + n},{'mf'[n % 2]}\n"
                        for n in range(14 if base is mixed else 5))
        (base / "clinical.csv").write_text("patient_id,time_months,event,stage,age,sex\n" + table)
        (base / "study.toml").write_text(STUDY.format(images=images))
    return [mixed, manifest, bids]


def run_one(base: Path, place: Path, seed: int) -> str:
    """What `check` makes of a spoiled copy: "fine", or the codes that it told; anything else is raised.

    Args:
        base: of `bases`.
        place: a folder that does not exist; it is removed again.
        seed: number of the case.
    """
    rng = random.Random(seed)
    shutil.copytree(base, place, symlinks=True)
    settings: list[str] = []
    locked: list[Path] = []
    try:
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice(SPOILERS)(place, rng, settings, locked)
        with refusing(locked), warnings.catch_warnings():
            warnings.simplefilter("error")
            checked = check_study(place / "study.toml", settings)
            assert all(isinstance(p.code, str) and p.what for p in checked.problems)
            assert not checked.is_fine or not any(p.is_error for p in checked.problems)
            rows_of(checked.problems)
            text = as_text(checked, width=rng.choice((80, 120, 200))) + as_csv(checked) + scans_text(checked)
        told = "E-NOSTUDY" in text or str(place) not in text  # the path of the study file is the user's own word
        assert told and "Traceback" not in text
        return "fine" if checked.is_fine else " ".join(sorted({p.code for p in checked.problems}))
    except MtdlrError as error:
        raise AssertionError(f"raised {error.code}: check raises nothing") from error
    finally:
        shutil.rmtree(place)


@contextmanager
def refusing(locked: list[Path]) -> Iterator[None]:
    """Files and folders that cannot be opened, for root too."""
    scan, opened, own = os.scandir, io.open, os.open

    def refused(path: object) -> bool:
        try:
            where = Path(os.fspath(path))  # type: ignore[arg-type, call-overload]
        except TypeError:
            return False
        return any(where == one or one in where.parents for one in locked)

    def guard(function: Callable[..., object]) -> Callable[..., object]:
        def guarded(path: object = ".", *args: object, **named: object) -> object:
            if refused(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **named)
        return guarded

    if not locked:
        yield
        return
    os.scandir, io.open, builtins.open, os.open = (guard(f) for f in (scan, opened, opened, own))  # type: ignore
    try:
        yield
    finally:
        os.scandir, io.open, builtins.open, os.open = scan, opened, opened, own


def _files(place: Path, suffix: str = "") -> list[Path]:
    found = sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink() and str(p).endswith(suffix))
    return found


def _pick(place: Path, rng: random.Random, suffix: str = "") -> Path:
    found = _files(place, suffix) or _files(place)
    return rng.choice(found) if found else place / "clinical.csv"


def _bytes(place, rng, settings, locked) -> None:
    """Some bytes of any file changed."""
    path = _pick(place, rng, rng.choice(("", ".nii.gz", ".csv", ".toml", ".json", ".zip", ".nii")))
    if path.is_file():
        path.write_bytes(fuzz.spoiled(path.read_bytes(), rng))


def _cut(place, rng, settings, locked) -> None:
    """A file cut, emptied or replaced by rubbish."""
    path = _pick(place, rng)
    if path.is_file():
        whole = path.read_bytes()
        path.write_bytes(rng.choice((b"", whole[: len(whole) // 2], whole[:7], rng.randbytes(300), whole * 2)))


def _gone(place, rng, settings, locked) -> None:
    """A file or folder deleted, or one in the place of the other."""
    every = sorted(place.rglob("*"))
    path = rng.choice(every)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        if rng.random() < 0.4:
            path.write_bytes(b"x")
    elif path.exists() or path.is_symlink():
        path.unlink()
        if rng.random() < 0.4:
            path.mkdir()


def _renamed(place, rng, settings, locked) -> None:
    """A file or folder under an odd name, moved or copied."""
    path = rng.choice(sorted(place.rglob("*")))
    name = rng.choice(NAMES) + rng.choice(("", path.suffix, "__PT.nii.gz", ".zip", ".nii"))
    target = path.with_name(name)
    if target.exists() or path.is_symlink():
        return
    if rng.random() < 0.5:
        path.rename(target)
    elif path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    elif path.is_file():
        shutil.copy(path, target)


def _linked(place, rng, settings, locked) -> None:
    """A link that loops, leads nowhere, out of the folder or to a device; a pipe."""
    folder = rng.choice([p for p in (place, *place.rglob("*")) if p.is_dir() and not p.is_symlink()])
    name = rng.choice(("link", "P9", "P9__PT.nii.gz", "P9.zip", "clinical.csv", "manifest.csv"))
    if rng.random() < 0.3 and _files(place):
        folder, name = (lambda p: (p.parent, p.name))(_pick(place, rng))
    path = folder / name
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    else:
        path.symlink_to((path, place, "/nowhere", "/dev/zero", "/etc/hostname")[kind - 1])


def _locked(place, rng, settings, locked) -> None:
    """A file or folder that may not be opened."""
    locked.append(rng.choice([p for p in place.rglob("*")]))


def _cells(place, rng, settings, locked) -> None:
    """Cells of the clinical table or the manifest replaced, rows doubled or cut, other delimiters and encodings."""
    path = place / rng.choice(("clinical.csv", "manifest.csv"))
    if not path.is_file() or path.is_symlink():
        path = place / "clinical.csv"
    try:
        rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return
    if not rows:
        return
    pool = CELLS if path.name == "clinical.csv" else PATHS + CELLS
    for _ in range(rng.choice((1, 3, 12))):
        row = rng.choice(rows)
        if row:
            row[rng.randrange(len(row))] = rng.choice(pool)
    kind = rng.randrange(8)
    if kind == 0:
        rows.append(list(rng.choice(rows)))
    elif kind == 1:
        del rng.choice(rows)[1:]
    elif kind == 2:
        rows = [row[:2] + row[3:] for row in rows]
    elif kind == 3:
        rows = rows[:1]
    joint, end = rng.choice((",", ",", ";", "\t", "|")), rng.choice(("\n", "\r\n", "\r"))
    text = end.join(joint.join(row) for row in rows)
    path.write_bytes(text.encode(rng.choice(("utf-8", "utf-8-sig", "cp1252", "utf-16", "gb18030")), "replace"))


def _settings(place, rng, settings, locked) -> None:
    """Settings on the command line, sensible and not."""
    settings += rng.sample(SETTINGS, rng.choice((1, 1, 2)))


def _study(place, rng, settings, locked) -> None:
    """A line of the study file changed, or its file names."""
    path = place / "study.toml"
    if not path.is_file() or path.is_symlink():
        return
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    if lines:
        k = rng.randrange(len(lines))
        key = lines[k].partition("=")[0]
        lines[k] = rng.choice((f"{key}= {json.dumps(rng.choice(PATHS + CELLS))}", f"{key}= 7", f"{key}= []",
                               f"{key}= {{}}", "", lines[k] + lines[k]))
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")


def _dicom(place, rng, settings, locked) -> None:
    """One element of one or every DICOM file of a folder has another value."""
    slices = [p for p in _files(place) if "DICOM" in p.parts]
    if not slices:
        return
    path = rng.choice(slices)
    for one in [path] if rng.random() < 0.5 else sorted(p for p in path.parent.iterdir() if p.is_file()):
        again = random.Random(rng.random()) if rng.random() < 0.1 else random.Random(path.name)
        try:
            one.write_bytes(fuzz.with_value(one.read_bytes(), again))
        except Exception:
            one.write_bytes(fuzz.spoiled(one.read_bytes(), rng))


def _nifti(place, rng, settings, locked) -> None:
    """A number of a NIfTI header replaced, or some voxels."""
    path = _pick(place, rng, rng.choice((".nii.gz", ".nii")))
    if not path.name.endswith((".nii", ".nii.gz")):
        return
    raw = path.read_bytes()
    try:
        inside = bytearray(gzip.decompress(raw) if path.name.endswith(".gz") else raw)
    except (OSError, EOFError):
        return
    at = rng.choice((0, 40, 42, 44, 46, 48, 70, 72, 76, 80, 84, 88, 108, 112, 116, 252, 254, 280, 284, 296, 300, 312,
                     344, 352, 400))
    whole, real = (-1, 0, 1, 32767, 3000, 512, 16, 64), (0.0, -1.0, float("nan"), float("inf"), 1e30, 352.0, 1e-30)
    value = struct.pack("<h", rng.choice(whole)) if rng.random() < 0.5 else struct.pack("<f", rng.choice(real))
    inside[at : at + len(value)] = value
    path.write_bytes(gzip.compress(bytes(inside), 1) if path.name.endswith(".gz") else bytes(inside))


def _zip(place, rng, settings, locked) -> None:
    """A zip with a flag, a name, a method or a member that is wrong."""
    zips = _files(place, ".zip")
    path = rng.choice(zips) if zips else place / "images" / "P1.zip"
    if not path.parent.is_dir():
        return
    kind = rng.randrange(6)
    if kind == 0 and zips:
        raw = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = raw.find(mark)
            if at >= 0:
                raw[at + offset] |= 1
        path.write_bytes(raw)
    elif kind == 1 and zips:
        raw = bytearray(path.read_bytes())
        raw[rng.randrange(len(raw))] ^= 0xFF
        path.write_bytes(raw)
    else:
        try:
            method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
            with warnings.catch_warnings(), zipfile.ZipFile(path, "a", method) as packed:
                warnings.simplefilter("ignore")
                name = rng.choice(("../x.dcm", "/x.dcm", "C:\\x", "a\\b.dcm", "x.dcm", "x.dcm", "d/", "\u00e4.dcm",
                                   "n.zip"))
                packed.writestr(name, rng.choice((b"", bytes(1 << 22), rng.randbytes(400), b"DICM" * 40)))
        except (OSError, zipfile.BadZipFile, ValueError):
            path.write_bytes(b"PK\x03\x04" + rng.randbytes(100))


def _json(place, rng, settings, locked) -> None:
    """A value of a BIDS sidecar replaced."""
    path = _pick(place, rng, ".json")
    if not path.name.endswith(".json"):
        return
    try:
        values = json.loads(path.read_text())
    except (ValueError, OSError):
        return
    if isinstance(values, dict) and values:
        values[rng.choice(sorted(values))] = rng.choice((None, "", "x", -1, 0, 1e308, [], {}, [1, 2], True, "NaN",
                                                         "99:99:99", 10**400))
        path.write_text(json.dumps(values))


SPOILERS = [_bytes, _cut, _gone, _renamed, _linked, _locked, _cells, _cells, _settings, _study, _dicom, _nifti, _zip,
            _json]
