"""How one prepared patient looks, in numbers: what is compared with the training patients before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtdlr.imaging.appearance import PROTOCOL, appearance, appearance_uptake
from mtdlr.prepared import Prepared

Vector = NDArray[np.float64]
DESCRIPTION = "appearance.json"
"""The file of a prepared patient's description."""
_LABELS = ("vendor", "reconstruction", "kernel")


@dataclass(frozen=True, eq=False)
class Description:
    """How one prepared patient looks: numbers by group, physical values, hashes of the voxels of PET and CT, and labels
    of the scanner.
    """

    numbers: Mapping[str, Vector]
    physical: Mapping[str, float]
    images: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def describe(patient: Prepared) -> dict[str, Any]:
    """The description of a prepared patient as plain values for JSON."""
    return {"numbers": {name: values.tolist() for name, values in patient_numbers(patient).items()},
            "physical": physical_values(patient), "images": list(image_hashes(patient)),
            "labels": scanner_labels(patient)}


def image_hashes(patient: Prepared) -> tuple[str, str]:
    """SHA-256 of the voxels of PET and CT around the region, in thousandths of SUV and in HU.

    A scan is known again whatever its files are called and however they are compressed.
    """
    pet, ct = (sha256(np.rint(np.asarray(volume.array, np.float64) * scale).astype("<i8").tobytes()).hexdigest()
               for volume, scale in ((patient.pet_suv, 1000.0), (patient.ct_hu, 1.0)))
    return pet, ct


def load_description(folder: Path) -> Description:
    """What a run wrote of `describe` into a prepared patient's folder."""
    values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return Description({name: np.array(row, dtype=np.float64) for name, row in values["numbers"].items()},
                       values["physical"], tuple(values["images"]), values.get("labels", {}))


def images_of(folders: Mapping[str, Path]) -> dict[str, tuple[str, str]]:
    """The `image_hashes` of prepared patients, by id; those without a description are left out.

    Args:
        folders: the folder of each prepared patient.
    """
    found = {}
    for patient, folder in folders.items():
        if (folder / DESCRIPTION).is_file():
            pet, ct = load_description(folder).images
            found[patient] = pet, ct
    return found


def patient_numbers(patient: Prepared) -> dict[str, Vector]:
    """The numbers of a prepared patient by group: its appearance, its voxel sizes and, where known, its uptake time."""
    edges = [float(patient.facts[f"{kind}_voxel_{axis}_mm"]) for kind in ("pet", "ct") for axis in "zyx"
             if f"{kind}_voxel_{axis}_mm" in patient.facts]
    protocol = {"protocol": np.log(edges)} if len(edges) == len(PROTOCOL) else {}
    minutes = _audit(patient, "pet", "suv").get("uptake_min")
    waited = {} if minutes is None else {"uptake_time": np.array([float(minutes)])}
    return appearance(patient.pet_suv, patient.ct_hu, patient.region) | protocol | waited


def scanner_labels(patient: Prepared) -> dict[str, str]:
    """Vendors, PET reconstruction and CT kernel of a prepared patient, as far as DICOM headers state them."""
    return {f"{kind.upper()} {what}": str(name) for kind in ("pet", "ct")
            for what, name in _audit(patient, kind, "scanner").items() if what in _LABELS}


def _audit(patient: Prepared, kind: str, part: str) -> Mapping[str, Any]:
    """A part of what was read from the headers of PET or CT; empty where there is none."""
    image = patient.audit.get(kind)
    found = image.get(part) if isinstance(image, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def physical_values(patient: Prepared) -> dict[str, float]:
    """The values of `PHYSICAL` that a prepared patient has."""
    uptake = np.exp(appearance_uptake(patient.pet_suv, patient.ct_hu, patient.region))
    low, high = np.quantile(patient.ct_hu.array, (0.001, 0.999))
    values = {"suv_middle": float(uptake[0]), "suv_top": float(uptake[-1]), "hu_low": float(low),
              "hu_high": float(high)}
    for kind in ("pet", "ct"):
        edges = [float(patient.facts[key]) for axis in "zyx" if (key := f"{kind}_voxel_{axis}_mm") in patient.facts]
        values |= {f"{kind}_voxel_mm": max(edges)} if edges else {}
    return values
