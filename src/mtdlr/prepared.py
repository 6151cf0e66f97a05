"""What is kept of one patient, and how it lies on disk: `Prepared` images, then the networks' `PatientScore`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mtdlr.errors import Problem
from mtdlr.imaging import grid, nifti
from mtdlr.volume import Volume

MEAN_IMAGE = "mean_image.npy"
MASK, BOTTLENECKS = "mask.nii.gz", "bottlenecks.npy"
PLAIN = "_plain"
"""Behind a network's name: its risk by the fit without the ten measures."""
_PROJECTIONS = ("projection_coronal", "projection_sagittal")


@dataclass(frozen=True, eq=False)
class Prepared:
    """One patient, ready for networks and radiomics.

    Args:
        id: the patient.
        image: float32 (2, z, y, x), PET and CT on the network grid, scaled.
        affine: (4, 4), array index of the network grid -> LPS mm.
        mask: bool (z, y, x) on the network grid, or None.
        pet_suv: PET in SUV on its own grid, cropped to the region and a margin.
        ct_hu: CT in HU on its own grid, cropped likewise; int16 where that loses nothing.
        manual_mask: the mask on its own grid, cropped likewise, or None.
        facts: geometry, alignment, region and uptake in plain numbers (docs/preparation.md lists them).
        problems: warnings, those of the reading included.
        audit: what the files said and how it was read: choice of series, SUV, geometry (`Scan.audit`).
        projections: the whole PET's maximum-intensity projections, coronal (z, 1, x) and sagittal (z, y, 1).
    """

    id: str
    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    pet_suv: Volume
    ct_hu: Volume
    manual_mask: Volume | None
    facts: Mapping[str, float | str]
    problems: tuple[Problem, ...] = ()
    audit: Mapping[str, object] = field(default_factory=dict)
    projections: tuple[Volume, Volume] | None = None

    @property
    def region(self) -> Volume:
        """The network grid (an empty volume)."""
        return grid.grid(self.image.shape[1:], self.affine)

    def save(self, folder: str | Path) -> None:
        """Write the arrays as .npy and the rest as facts.json into an existing or new folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "image.npy", self.image)
        if self.mask is not None:
            np.save(folder / "mask.npy", self.mask)
        volumes = {"pet_suv": self.pet_suv, "ct_hu": self.ct_hu, "manual_mask": self.manual_mask}
        volumes |= dict(zip(_PROJECTIONS, self.projections or (), strict=False))
        for name, volume in volumes.items():
            if volume is not None:
                np.save(folder / f"{name}.npy", volume.array)
        header = {
            "id": self.id,
            "affines": {"image": self.affine.tolist()}
            | {name: volume.affine.tolist() for name, volume in volumes.items() if volume is not None},
            "facts": dict(self.facts),
            "problems": [problem.as_dict() for problem in self.problems],
            "audit": dict(self.audit),
        }
        (folder / "facts.json").write_text(json.dumps(header, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Prepared:
        """What `save` wrote; arrays are mapped from disk, not copied."""
        folder = Path(folder)
        header = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        affines = header["affines"]

        def mapped(name: str) -> NDArray | None:
            path = folder / f"{name}.npy"
            return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

        def volume(name: str) -> Volume | None:
            array = mapped(name)
            return None if array is None else Volume(array, affines[name])

        image, pet_suv, ct_hu = mapped("image"), volume("pet_suv"), volume("ct_hu")
        assert image is not None and pet_suv is not None and ct_hu is not None
        coronal, sagittal = map(volume, _PROJECTIONS)
        return cls(header["id"], image, np.array(affines["image"]), mapped("mask"), pet_suv, ct_hu,
                   volume("manual_mask"), header["facts"], tuple(Problem(**p) for p in header["problems"]),
                   header.get("audit", {}), None if coronal is None or sagittal is None else (coronal, sagittal))


def narrower(patient: Prepared, mm: float) -> Prepared | None:
    """The patient as the networks would see it if PET and CT ended earlier wherever they end inside the region.

    Args:
        patient: prepared.
        mm: by how much earlier, > 0.

    Returns:
        The patient with another `image`; None where both scans cover the whole region, or one none of it.
    """
    image, region = np.array(patient.image), patient.region
    seen = [grid.inside(region, volume) for volume in (patient.pet_suv, patient.ct_hu)]
    if all(one.all() for one in seen) or not all(one.any() for one in seen):
        return None
    for channel, one in zip(image, seen, strict=True):
        if not one.all():
            channel[ndimage.distance_transform_edt(one, sampling=region.spacing_mm) <= mm] = channel[~one][0]
    return replace(patient, image=image)


def save_mean_image(patients: Sequence[Path], folder: Path) -> None:
    """Write the mean of the patients' images, float32 (2, z, y, x), as mean_image.npy.

    Args:
        patients: folders of prepared patients, at least one.
        folder: where mean_image.npy goes; it must exist.
    """
    images = (np.load(patient / "image.npy", allow_pickle=False) for patient in patients)
    total = sum(images, start=np.zeros(()))  # in double precision
    np.save(folder / MEAN_IMAGE, (total / len(patients)).astype(np.float32))


def load_mean_image(folder: Path) -> NDArray[np.float32]:
    """What `save_mean_image` wrote."""
    mean: NDArray[np.float32] = np.load(folder / MEAN_IMAGE, allow_pickle=False)
    return mean


@dataclass(frozen=True, eq=False)
class PatientScore:
    """What the networks return for one patient.

    Args:
        risks: raw log-hazards of each network, in the order of the folds; with `_plain` behind the name those of
            the fit without the ten measures.
        mask: predicted tumour on the network grid.
        agreement: dice, hausdorff95_mm and volumes against the manual mask; empty where there is none.
        problems: warnings, such as an empty prediction replaced by uptake.
        bottlenecks: (folds, c) float32, what DeepMTS of each fold sees; None where no network has a bottleneck.
    """

    risks: Mapping[str, tuple[float, ...]]
    mask: Volume
    agreement: Mapping[str, float]
    problems: tuple[Problem, ...]
    bottlenecks: NDArray[np.float32] | None = None

    def save(self, folder: Path) -> None:
        """Write score.json, mask.nii.gz, its affine also in score.json (NIfTI keeps no more than single precision), and
        bottlenecks.npy.
        """
        nifti.write(folder / MASK, self.mask)
        if self.bottlenecks is not None:
            np.save(folder / BOTTLENECKS, self.bottlenecks)
        header = {"risks": dict(self.risks), "agreement": dict(self.agreement), "affine": self.mask.affine.tolist(),
                  "problems": [p.as_dict() for p in self.problems]}
        (folder / "score.json").write_text(json.dumps(header, indent=1))


def load_mask(folder: Path) -> Volume:
    """The predicted mask that `PatientScore.save` wrote, as it was to the last bit."""
    volume, _ = nifti.read(folder / MASK)
    return Volume(volume.array > 0, json.loads((folder / "score.json").read_text())["affine"])


def load_bottlenecks(folder: Path) -> NDArray[np.float32] | None:
    """(folds, c) that `PatientScore.save` wrote; None where there are none."""
    if not (folder / BOTTLENECKS).is_file():
        return None
    found: NDArray[np.float32] = np.load(folder / BOTTLENECKS, allow_pickle=False)
    return found
