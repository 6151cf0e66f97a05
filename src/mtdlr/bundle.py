"""A frozen model as a folder: networks, scales, signatures, nomograms, settings. No patient's row is in it.

Of images it holds the training cohort's mean, with which `predict --explain` compares a patient. Everything is JSON,
safetensors or a plain array. bundle.json lists every file with its SHA-256 and closes with a hash of itself; it is read
under a closed schema, and a folder that holds more, less or other files than it lists is refused.
"""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mtdlr.errors import BundleError, Problem, StudyError
from mtdlr.model import FrozenModel, nomogram_predictions
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.fit import competing_notice
from mtdlr.nomogram.scores import IN_SAMPLE, Scale
from mtdlr.prepared import MEAN_IMAGE
from mtdlr.shift.aggregates import FILE as AGGREGATES
from mtdlr.shift.aggregates import Aggregates
from mtdlr.signature import Signature
from mtdlr.store import PUBLISHED, digest, file_hash, strict_json
from mtdlr.study import MAIN, Study, models_of
from mtdlr.versions import package_version, versions

SCHEMA = 3  # 2: with the mean image; 3: with clinical covariates, aggregates and a hash of bundle.json
HEADER = "bundle.json"
KEPT_OF_COHORT = ("stage", "continuous", "factors", "references", "endpoint", "competing")
MOST_BYTES = {".json": 1 << 26, ".safetensors": 1 << 32, ".npy": 1 << 30, ".npz": 1 << 30}
"""The largest file of each kind; others end at 1 MiB."""
LITTER = (PUBLISHED, "Thumbs.db", "desktop.ini")
"""Files beside the model that are never read: what publishing and file managers leave; and names with a dot first."""
README = """\
# A frozen mtdlr model
For research only; not a medical device.
`mtdlr predict THIS_FOLDER PATIENT --clinical {stage}=...` predicts one patient's PET/CT.
Trained on {n} patients with {events} events; horizons {months} months. Of their images only the mean is here
(mean_image.npy, for `--explain`); no row and no id of any patient is.
"""
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Name = Annotated[str, Field(pattern=r"^[\w.+-]{1,80}$")]
Text = Annotated[str, Field(max_length=200)]


class _Closed(BaseModel):
    """A part of bundle.json: no key that it does not know, no value of another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Scale(_Closed):
    mean: Finite
    sd: Annotated[float, Field(allow_inf_nan=False, gt=1e-6, le=1e6)]


Share = Annotated[float, Field(allow_inf_nan=False, ge=0.0, le=1.0)]


class _Facts(_Closed):
    n: Annotated[int, Field(ge=1)]
    events: Annotated[int, Field(ge=0)]
    versions: dict[Name, Text]
    parent: Name | None = None
    update: Literal["baseline", "slope", "refit"] | None = None
    update_n: int | None = None
    update_events: int | None = None
    c: dict[Name, Annotated[list[Share | None], Field(min_length=3, max_length=3)]] | None = None


class _Header(_Closed):
    schema_: Annotated[int, Field(alias="schema")]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    facts: _Facts
    cutoffs: dict[Name, Finite]
    imputed: dict[Text, Finite | Text]
    study: dict[str, Any]
    scales: dict[Name, Annotated[list[_Scale], Field(min_length=1, max_length=50)]]
    files: Annotated[dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(min_length=1, max_length=500)]


def save_bundle(model: FrozenModel, folder: Path) -> None:
    """Write a frozen model into an empty folder.

    Args:
        model: the frozen model.
        folder: an empty folder that exists.
    """
    for network, checkpoints in model.networks.items():
        for k, checkpoint in enumerate(checkpoints):
            for name in ("weights.safetensors", "model.json"):
                target = folder / "networks" / network / str(k) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(checkpoint / name, target)
    shutil.copyfile(model.mean_image / MEAN_IMAGE, folder / MEAN_IMAGE)
    for name, nomogram in model.nomograms.items():
        if not name.endswith(IN_SAMPLE):
            (folder / f"nomogram_{name}.json").write_text(nomogram.to_json())
    for source, signature in model.signatures.items():
        signature.save(folder / f"signature_{source}.json")
    if model.aggregates is not None:
        model.aggregates.save(folder)
    (folder / "README.md").write_text(README.format(
        stage=model.study.cohort.stage, months=", ".join(f"{m:g}" for m in model.study.nomogram.months), **model.facts))
    _write_header(folder, model)


def read_bundle(folder: str | Path) -> FrozenModel:
    """The frozen model in a folder, every byte of it checked.

    A model that another version of the package wrote says so among its problems (W-MODELVERSION).

    Raises:
        BundleError: E-NOBUNDLE for a folder that holds no model; E-SCHEMA for a model of a version that is not read;
            E-BUNDLEHASH for a file that is missing, changed, or not listed; E-BUNDLE for content that no model has; and
            what the parts raise.
    """
    folder = Path(folder)
    header = _read_header(folder)
    _require_files(folder, header.files)
    try:
        model = _model(folder, header)
        _require_whole(model)
        _require_numbers(model)
    except StudyError as error:
        raise BundleError(error.problems) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise BundleError(_not_a_model(type(error).__name__, folder)) from None
    return model


def _model(folder: Path, header: _Header) -> FrozenModel:
    """The model of the files that the header lists."""
    names = sorted(header.files)
    study = _at_home(Study.of(header.study), folder, header.files)
    return FrozenModel(
        study=study,
        nomograms={_middle(n): Nomogram.from_json((folder / n).read_text(encoding="utf-8"))
                   for n in names if n.startswith("nomogram_")},
        signatures={_middle(n): Signature.load(folder / n) for n in names if n.startswith("signature_")},
        networks={name: tuple(folder / "networks" / name / str(k) for k in range(len(scales)))
                  for name, scales in header.scales.items()},
        scales={name: tuple(Scale(s.mean, s.sd) for s in scales) for name, scales in header.scales.items()},
        cutoffs=header.cutoffs, mean_image=folder, imputed=header.imputed,
        facts=header.facts.model_dump(exclude_none=True),
        problems=(*_other_version(header, folder), *competing_notice(study.cohort.competing)),
        aggregates=Aggregates.load(folder) if AGGREGATES in header.files else None)


def _require_whole(model: FrozenModel) -> None:
    """Refuse a model whose parts do not belong together.

    Raises:
        BundleError: E-BUNDLE.
    """
    scores = {"deepmts", "single_task"} | {f"{source}_radio" for source in model.signatures}
    known = scores | set(model.study.nomogram_covariates)
    needed = {f"networks/{name}" for name in ("deepmts", model.study.singletask.network)}
    cohort = model.study.cohort
    missing = sorted(needed - {f"networks/{name}" for name in model.networks}
                     | ({f"nomogram {MAIN}"} - {f"nomogram {name}" for name in model.nomograms})
                     | {f"levels of {name}" for name in (cohort.stage, *model.study.nomogram_covariates)
                        if name not in cohort.factors and (name == cohort.stage or name not in cohort.continuous)})
    strange = sorted({name for nomogram in model.nomograms.values() for name in nomogram.design.variables} - known
                     | set(model.cutoffs) - {one.name for one in models_of(model.study)})
    if missing or strange:
        raise BundleError(Problem("E-BUNDLE", "the parts of the model do not belong together",
                                  found=", ".join([*(f"no {name}" for name in missing), *strange])[:200],
                                  remedy="Ask the sender for the whole folder again"))


def _require_numbers(model: FrozenModel) -> None:
    """Refuse a nomogram that gives its own typical patient no risk: its parts do not fit together.

    Raises:
        ValueError: where there is no finite risk or survival.
    """
    for name, nomogram in model.nomograms.items():
        row = pd.DataFrame([{key: limits.typical for key, limits in nomogram.limits.items()}])
        with np.errstate(all="ignore"):
            risk, survival = nomogram_predictions(nomogram, row)
        if not np.isfinite([*risk, *survival.to_numpy(dtype=float).ravel()]).all():
            raise ValueError(f"nomogram {name} predicts nothing")


def _require_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a folder whose files are not those that its header lists.

    Raises:
        BundleError: E-BUNDLEHASH.
    """
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not stat.S_ISDIR(p.lstat().st_mode)}
    for name in sorted(there - set(files) - {HEADER}):
        if not (Path(name).name.startswith(".") or Path(name).name in LITTER):
            raise BundleError(Problem("E-BUNDLEHASH", "the folder holds a file that the model does not list",
                                      where=name[:80], remedy="Take it away, or ask the sender for the folder again"))
    for name, expected in files.items():
        path = folder / name
        if name not in there or not _is_plain(path) or file_hash(path) != expected:
            raise BundleError(Problem("E-BUNDLEHASH", "a file of the model is missing or was changed", where=name[:80],
                                      remedy="Ask the sender for the whole folder again"))


def _is_plain(path: Path) -> bool:
    """Whether a path is a file of a size that a model has: no link, no pipe, no device."""
    facts = path.lstat()
    return stat.S_ISREG(facts.st_mode) and facts.st_size <= MOST_BYTES.get(path.suffix, 1 << 20)


def _copy_parameters(profile: str, folder: Path) -> str:
    """The radiomics profile by the name it has in the frozen model: a parameter file is copied there."""
    if not Path(profile).is_file():
        return profile
    return shutil.copyfile(profile, folder / f"parameters{Path(profile).suffix}").name


def _at_home(study: Study, folder: Path, files: Mapping[str, str]) -> Study:
    """The study with its parameter file where the frozen model lies now."""
    if study.radiomics.profile not in files:
        return study
    place = {"profile": str(folder / study.radiomics.profile)}
    return study.model_copy(update={"radiomics": study.radiomics.model_copy(update=place)})


def _write_header(folder: Path, model: FrozenModel) -> None:
    settings = model.study.model_dump(mode="json", exclude={"run", "cohort", "report", "evaluate"})
    settings["radiomics"]["profile"] = _copy_parameters(model.study.radiomics.profile, folder)
    cohort = model.study.recipe("cohort")
    header = {
        "schema": SCHEMA, "facts": dict(model.facts) | {"versions": versions()}, "cutoffs": dict(model.cutoffs),
        "imputed": dict(model.imputed), "study": settings | {"cohort": {key: cohort[key] for key in KEPT_OF_COHORT}},
        "scales": {name: [asdict(s) for s in scales] for name, scales in model.scales.items()},
        "files": {p.relative_to(folder).as_posix(): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
    (folder / HEADER).write_text(json.dumps(header | {"digest": digest(header)}, indent=1, sort_keys=True),
                                 encoding="utf-8")


def _read_header(folder: Path) -> _Header:
    """bundle.json under its schema.

    Raises:
        BundleError: E-NOBUNDLE, E-SCHEMA, E-BUNDLEHASH, E-BUNDLE.
    """
    path = folder / HEADER
    try:
        if not _is_plain(path):
            raise ValueError
        values = strict_json(path.read_text(encoding="utf-8"))
        schema = values["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(Problem("E-NOBUNDLE", "this is not a model folder", where=folder.name,
                                  expected=f"a folder with {HEADER}, as `mtdlr run` writes it")) from None
    if schema != SCHEMA:
        raise BundleError(Problem(
            "E-SCHEMA", "the model was written by a version of mtdlr that this one does not read", where=folder.name,
            found=f"schema {schema}"[:80], expected=f"schema {SCHEMA}",
            remedy="Update mtdlr" if isinstance(schema, int) and schema > SCHEMA else
            "Ask the sender to run it again: from models of schema 1 and 2 patients' rows can be read"))
    if values.get("digest") != digest({k: v for k, v in values.items() if k != "digest"}):
        raise BundleError(Problem("E-BUNDLEHASH", "a file of the model is missing or was changed", where=HEADER,
                                  remedy="Ask the sender for the whole folder again"))
    try:
        return _Header.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(_not_a_model(".".join(map(str, first["loc"]))[:80] + f": {first['type']}", folder)) from None


def _other_version(header: _Header, folder: Path) -> tuple[Problem, ...]:
    """W-MODELVERSION for a model that another version of the package wrote."""
    written, ours = header.facts.versions.get("mtdlr", "unknown"), package_version()
    if written == ours:
        return ()
    return (Problem("W-MODELVERSION", "the model was written by another version of mtdlr", where=folder.name,
                    found=written, expected=ours,
                    remedy="Compare one known patient before you use it"),)


def _not_a_model(found: str, folder: Path) -> Problem:
    return Problem("E-BUNDLE", "a part of the model is not what it should be", where=folder.name, found=found,
                   remedy="Ask the sender for the whole folder again")


def _middle(name: str) -> str:
    """`mtdlr` of `nomogram_mtdlr.json`."""
    return name.partition("_")[2].removesuffix(".json")
