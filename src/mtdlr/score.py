"""Every network's risk for one patient, the predicted mask, and the features inside a mask: stages 4 and 5 of a run.

A training patient of fold k is spoken for by network k alone, which never saw the patient; anybody else by all
networks, whose probability maps are averaged. `models.combine_scores` puts the risks on one scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mtdlr import radiomics
from mtdlr.errors import Problem
from mtdlr.imaging import grid, nifti
from mtdlr.infer import mask_agreement, score, tumour_mask
from mtdlr.nets.weights import Checkpoint
from mtdlr.prepare import Prepared
from mtdlr.study import RadiomicsSettings, ScoreSettings
from mtdlr.volume import Volume

Networks = Mapping[str, Sequence[Checkpoint]]
"""Trained networks by name, one a fold."""
MASK = "mask.nii.gz"


@dataclass(frozen=True, eq=False)
class PatientScore:
    """What the networks say of one patient.

    Args:
        risks: raw log-hazards of each network, in the order of the folds.
        mask: predicted tumour on the network grid.
        agreement: dice, hausdorff95_mm and volumes against the manual mask; empty where there is none.
        problems: warnings, such as an empty prediction replaced by uptake.
    """

    risks: Mapping[str, tuple[float, ...]]
    mask: Volume
    agreement: Mapping[str, float]
    problems: tuple[Problem, ...]

    def save(self, folder: Path) -> None:
        """Write score.json and mask.nii.gz."""
        nifti.write(folder / MASK, self.mask)
        header = {"risks": dict(self.risks), "agreement": dict(self.agreement),
                  "problems": [p.as_dict() for p in self.problems]}
        (folder / "score.json").write_text(json.dumps(header, indent=1))


def load_networks(folders: Mapping[str, Sequence[Path]], threads: int) -> Networks:
    """The networks of the given checkpoint folders.

    Raises:
        BundleError: as `Checkpoint.load`.
    """
    torch.set_num_threads(threads)
    return {name: [Checkpoint.load(folder) for folder in places] for name, places in folders.items()}


def load_mask(folder: Path) -> Volume:
    """The predicted mask that `PatientScore.save` wrote."""
    volume, _ = nifti.read(folder / MASK)
    return volume.with_array(volume.array > 0)


def score_patient(patient: Prepared, networks: Networks, fold: int | None, settings: ScoreSettings) -> PatientScore:
    """Risks of every network, and the mask of those that never saw the patient.

    Args:
        patient: prepared.
        networks: by name, network k of which never saw fold k.
        fold: the patient's fold in training; None for everybody else.
        settings: threshold and component rule of the mask.
    """
    risks: dict[str, tuple[float, ...]] = {}
    maps: list[NDArray[np.float32]] = []
    for name, folds in networks.items():
        scores = [score(network, patient.image) for network in folds]
        risks[name] = tuple(one.risk for one in scores)
        maps += [one.probability for k, one in enumerate(scores)
                 if one.probability is not None and (fold is None or k == fold)]
    region = patient.region
    suv = grid.resample(patient.pet_suv, region).array.astype(np.float32)
    mask, problems = tumour_mask(np.mean(maps, axis=0, dtype=np.float32), voxel_ml=region.voxel_ml, pet_suv=suv,
                                 threshold=settings.mask_threshold, min_component_ml=settings.min_component_ml)
    return PatientScore(risks, Volume(mask, patient.affine), _agreement(mask, patient), problems)


def patient_features(
    patient: Prepared, mask: Volume | None, settings: RadiomicsSettings
) -> tuple[dict[str, float], tuple[Problem, ...]]:
    """The radiomics features inside a mask, and warnings about those that are not defined; none without a mask."""
    if mask is None:
        return {}, (Problem("W-NOMASK", "no mask: no features"),)
    features = radiomics.extract(patient.pet_suv, patient.ct_hu, mask, settings)
    return features, radiomics.problems(features)


def patient_pet_parameters(patient: Prepared, mask: Volume | None) -> dict[str, float]:
    """SUVmax, MTV and the like inside a mask; none without one."""
    return {} if mask is None else radiomics.pet_parameters(patient.pet_suv, mask)


def _agreement(mask: NDArray[np.bool_], patient: Prepared) -> dict[str, float]:
    if patient.mask is None:
        return {}
    found = mask_agreement(mask, np.asarray(patient.mask), patient.region.spacing_mm)
    return {"dice": found.dice, "hausdorff95_mm": found.hausdorff95_mm, "volume_ml": found.volume_ml,
            "reference_ml": found.reference_ml}
