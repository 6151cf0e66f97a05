"""Every network's risk for one patient, and the predicted mask: stage 4 of a run.

A training patient of fold k is spoken for by network k alone, which never saw the patient; anybody else by all
networks, whose probability maps are averaged. `models.combine_scores` puts the risks on one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtdlr.imaging import grid
from mtdlr.infer import mask_agreement, score, tumour_mask
from mtdlr.nets.weights import Checkpoint
from mtdlr.prepared import Prepared
from mtdlr.scored import PatientScore
from mtdlr.study import ScoreSettings
from mtdlr.volume import Volume

Networks = Mapping[str, Sequence[Checkpoint]]
"""Trained networks by name, one a fold."""


def load_networks(folders: Mapping[str, Sequence[Path]]) -> Networks:
    """The networks of the given checkpoint folders.

    Raises:
        BundleError: as `Checkpoint.load`.
    """
    return {name: [Checkpoint.load(folder) for folder in places] for name, places in folders.items()}


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


def _agreement(mask: NDArray[np.bool_], patient: Prepared) -> dict[str, float]:
    if patient.mask is None:
        return {}
    found = mask_agreement(mask, np.asarray(patient.mask), patient.region.spacing_mm)
    return {"dice": found.dice, "hausdorff95_mm": found.hausdorff95_mm, "volume_ml": found.volume_ml,
            "reference_ml": found.reference_ml}
