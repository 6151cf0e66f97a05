"""A frozen model as a folder: networks, scales, signatures, nomograms, settings. No patient's row is in it.

Of images it holds the training cohort's mean, with which `predict --explain` compares a patient. Everything is JSON,
safetensors or a plain array; every file's SHA-256 is in bundle.json, and loading refuses a folder that differs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtdlr.errors import BundleError, Problem, StudyError
from mtdlr.model import IN_SAMPLE, FrozenModel, Scale
from mtdlr.nomogram import Nomogram
from mtdlr.prepared import MEAN_IMAGE
from mtdlr.shift.aggregates import FILE as AGGREGATES
from mtdlr.shift.aggregates import Aggregates
from mtdlr.signature import Signature
from mtdlr.store import file_hash
from mtdlr.study import Study
from mtdlr.versions import versions

SCHEMA = 3  # 2: with the mean image; 3: with clinical covariates and what a missing one takes
HEADER = "bundle.json"
KEPT_OF_COHORT = ("stage", "continuous", "factors", "references")
README = """\
# A frozen mtdlr model
For research only; not a medical device.
`mtdlr predict THIS_FOLDER PATIENT --clinical {stage}=...` predicts one patient's PET/CT.
Trained on {n} patients with {events} events; horizons {months} months. Of their images only the mean is here
(mean_image.npy, for `--explain`); no row and no id of any patient is.
"""


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
    _write_header(folder, model, _copy_parameters(model.study.radiomics.profile, folder))


def read_bundle(folder: str | Path) -> FrozenModel:
    """The frozen model in a folder, every byte of it checked.

    Raises:
        BundleError: E-NOBUNDLE, E-SCHEMA for one of another version, E-BUNDLEHASH for a file that is missing or was
            changed, and what the parts raise.
    """
    folder = Path(folder)
    header = _read_header(folder)
    for name, digest in header["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file() or file_hash(path) != digest:
            raise BundleError(Problem("E-BUNDLEHASH", "a file of the model is missing or was changed", where=name,
                                      remedy="Ask the sender for the whole folder again"))
    try:
        study = _with_parameters(Study.of(header["study"]), folder, header["files"])
    except StudyError as error:
        raise BundleError(error.problems) from None
    names = sorted(header["files"])
    return FrozenModel(
        study=study,
        nomograms={_middle(n): Nomogram.from_json((folder / n).read_text())
                   for n in names if n.startswith("nomogram_")},
        signatures={_middle(n): Signature.load(folder / n) for n in names if n.startswith("signature_")},
        networks={name: tuple(folder / "networks" / name / str(k) for k in range(len(scales)))
                  for name, scales in header["scales"].items()},
        scales={name: tuple(Scale(**s) for s in scales) for name, scales in header["scales"].items()},
        cutoffs=header["cutoffs"], mean_image=folder, imputed=header["imputed"], facts=header["facts"],
        aggregates=Aggregates.load(folder) if AGGREGATES in header["files"] else None)


def _copy_parameters(profile: str, folder: Path) -> str:
    """The radiomics profile by the name it has in the frozen model: a parameter file is copied there."""
    if not Path(profile).is_file():
        return profile
    return shutil.copyfile(profile, folder / f"parameters{Path(profile).suffix}").name


def _with_parameters(study: Study, folder: Path, files: Mapping[str, str]) -> Study:
    """The study with its parameter file where the frozen model lies now."""
    if study.radiomics.profile not in files:
        return study
    place = {"profile": str(folder / study.radiomics.profile)}
    return study.model_copy(update={"radiomics": study.radiomics.model_copy(update=place)})


def _write_header(folder: Path, model: FrozenModel, profile: str) -> None:
    settings = model.study.model_dump(mode="json", exclude={"run", "cohort", "report", "evaluate"})
    settings["radiomics"]["profile"] = profile
    cohort = model.study.recipe("cohort")
    header = {
        "schema": SCHEMA, "facts": dict(model.facts) | {"versions": versions()}, "cutoffs": dict(model.cutoffs),
        "imputed": dict(model.imputed), "study": settings | {"cohort": {key: cohort[key] for key in KEPT_OF_COHORT}},
        "scales": {name: [asdict(s) for s in scales] for name, scales in model.scales.items()},
        "files": {str(p.relative_to(folder)): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
    (folder / HEADER).write_text(json.dumps(header, indent=1, sort_keys=True))


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        schema = header["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(Problem("E-NOBUNDLE", "this is not a model folder", where=folder.name,
                                  expected=f"a folder with {HEADER}, as `mtdlr run` writes it")) from None
    if schema != SCHEMA:
        raise BundleError(Problem("E-SCHEMA", "the model was written by another version of mtdlr", where=folder.name,
                                  found=f"schema {schema}", expected=f"schema {SCHEMA}",
                                  remedy="Update mtdlr, or write the model again with `mtdlr run`"))
    return dict(header)


def _middle(name: str) -> str:
    """`mtdlr` of `nomogram_mtdlr.json`."""
    return name.partition("_")[2].removesuffix(".json")
