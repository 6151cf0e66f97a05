"""Stage 4: from checkpoints and a prepared patient to risks and a tumour mask.

Training patients of fold k are scored by network k, which never saw them, with the risk that was solved without their
subfold; all other patients by every network, whose probability maps are averaged. `nomogram.scores.combine_scores` puts
the risks on one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import grid
from mtdlr.imaging.plausible import mask_doubts, seen_by_both
from mtdlr.imaging.slices import eroded
from mtdlr.nets.device import Name, place_of
from mtdlr.nets.memory import cut_until_it_fits
from mtdlr.nets.singletask import NoMask
from mtdlr.nets.weights import Checkpoint
from mtdlr.prepared import PLAIN, PatientScore, Prepared
from mtdlr.study import ScoreSettings
from mtdlr.volume import Volume

Networks = Mapping[str, Sequence[Checkpoint]]
"""Trained networks by name, one a fold."""

FALLBACK_SUV = 2.5


@dataclass(frozen=True, eq=False)
class NetworkScore:
    """What one network returns for one patient.

    Args:
        risk: log-hazard up to a constant; higher is worse.
        probability: (z, y, x) float32 tumour probability, None for a single-task network.
        plain: the risk of the fit without the ten measures, None for a network that has no such fit.
        bottleneck: (c,) float32, what the encoder's last level holds in the mean over the grid; None without one.
    """

    risk: float
    probability: NDArray[np.float32] | None
    plain: float | None = None
    bottleneck: NDArray[np.float32] | None = None


def score(checkpoint: Checkpoint, image: NDArray[np.float32]) -> NetworkScore:
    """The risk and the tumour probability of one prepared image (2, z, y, x).

    Args:
        checkpoint: one trained network, on its device.
        image: (2, z, y, x), PET and CT in [0, 1].

    Raises:
        ScanError: E-IMAGE for another shape, an axis under 32, or values that are not finite.
        FitError: E-MEMORY where the memory is not enough.
    """
    scorer, x = checkpoint.scorer, torch.from_numpy(checked_image(image)).unsqueeze(0).to(checkpoint.place)
    with torch.inference_mode():  # in single precision: on a card fp16 overflows and bf16 moves risks by 8 %
        output = cut_until_it_fits(lambda _: scorer(x), where="scoring")
    probability, bottleneck = (None if one is None else one[0].float().cpu().numpy()
                               for one in (output.probability, output.bottleneck))
    return NetworkScore(float(output.risk[0]), probability, None if output.plain is None else float(output.plain[0]),
                        bottleneck)


def fold_scores(folds: Sequence[Checkpoint], image: NDArray[np.float32]) -> list[NetworkScore]:
    """What the network of each fold returns; networks that differ in their heads alone read the image once.

    Args:
        folds: networks of one kind, on one device.
        image: as in `score`.

    Raises:
        MtdlrError: as `score`.
    """
    first = folds[0]
    if not all(isinstance(one.model, NoMask) and one.model.config == first.model.config for one in folds):
        return [score(one, image) for one in folds]
    reader, x = cast(NoMask, first.scorer), torch.from_numpy(checked_image(image)).unsqueeze(0).to(first.place)
    with torch.inference_mode():
        vectors = cut_until_it_fits(lambda _: reader.embed(x)[0], where="scoring")
        return [NetworkScore(float(cast(NoMask, one.scorer).head(vectors)[0]), None) for one in folds]


def tumour_mask(probability: NDArray[np.float32], *, voxel_ml: float, threshold: float = 0.5,
                min_component_ml: float = 1.0, pet_suv: NDArray[np.float32] | None = None,
                ) -> tuple[NDArray[np.bool_], tuple[Problem, ...]]:
    """Where the probability exceeds the threshold, small components dropped; warnings beside it.

    When nothing is left, the component with SUV >= 2.5 nearest the grid's centre stands in (W-EMPTYMASK), and when
    there is no such uptake, or no PET was given, the mask stays empty (W-NOMASK).

    Args:
        probability: (z, y, x) in [0, 1].
        voxel_ml: volume of a voxel, ml.
        threshold: tumour above this.
        min_component_ml: smaller components are dropped, ml; components touch by faces, edges or corners.
        pet_suv: (z, y, x) uptake on the same grid, g/ml.

    >>> tumour_mask(np.full((2, 2, 2), 0.9, np.float32), voxel_ml=1.0)[0].sum()
    np.int64(8)
    """
    mask = _without_small(probability > threshold, min_component_ml / voxel_ml)
    if mask.any():
        return mask, ()
    top = f"highest probability {float(probability.max()):.2f}"
    if pet_suv is not None:
        mask = _nearest_component(_without_small(pet_suv >= FALLBACK_SUV, min_component_ml / voxel_ml))
        if mask.any():
            return mask, (Problem("W-EMPTYMASK", "the network found no tumour; the nearest uptake of SUV 2.5 or more "
                                  "stands in", found=top, remedy="Look at the mask before using what follows from it"),)
    return mask, (Problem("W-NOMASK", "the network found no tumour and no uptake stands in", found=top,
                          remedy="Features of the mask are missing for this patient"),)


@dataclass(frozen=True)
class MaskAgreement:
    """How well two masks agree; nan where a mask is empty and the figure has no meaning."""

    dice: float
    hausdorff95_mm: float
    volume_ml: float
    reference_ml: float


def mask_agreement(mask: NDArray[np.bool_], reference: NDArray[np.bool_],
                   spacing_mm: tuple[float, float, float]) -> MaskAgreement:
    """Dice, 95 % Hausdorff distance and volumes of a mask against a reference.

    The distance is the larger of the two directed 95th percentiles between the surfaces.

    Args:
        mask: (z, y, x).
        reference: (z, y, x), on the same grid.
        spacing_mm: (z, y, x) voxel size in mm.

    Returns:
        Dice is nan where both are empty, the distance (mm) where one is; volumes are in ml.

    >>> a = np.zeros((4, 4, 4), bool); a[1, 1, 1] = True
    >>> mask_agreement(a, np.roll(a, 2, axis=2), (1.0, 1.0, 3.0)).hausdorff95_mm
    6.0
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    total = int(mask.sum()) + int(reference.sum())
    dice = 2.0 * int((mask & reference).sum()) / total if total else float("nan")
    return MaskAgreement(dice, _hausdorff95_mm(mask, reference, spacing_mm), int(mask.sum()) * voxel_ml,
                         int(reference.sum()) * voxel_ml)


def checked_image(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image as float32.

    Raises:
        ScanError: E-IMAGE where a network cannot read it.
    """
    image = np.array(image, dtype=np.float32)  # a copy: torch warns of memory it cannot write to
    if image.ndim != 4 or image.shape[0] != 2 or min(image.shape[1:]) < 32:
        raise ScanError(Problem("E-IMAGE", "a network image has two channels and every axis at least 32",
                                found=str(image.shape), expected="(2, z, y, x)"))
    if not np.isfinite(image).all():
        raise ScanError(Problem("E-IMAGE", "a network image holds values that are not finite",
                                found=f"{int((~np.isfinite(image)).sum())} voxels"))
    return image


def _without_small(mask: NDArray[np.bool_], min_voxels: float) -> NDArray[np.bool_]:
    """The components of at least that many voxels."""
    labels, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= min_voxels
    keep[0] = False
    return keep[labels]


def _nearest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The component that comes nearest the middle of the grid."""
    labels, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if n == 0:
        return mask
    middle = (np.array(mask.shape) - 1) / 2.0
    index = np.argwhere(mask)
    nearest = index[np.argmin(((index - middle) ** 2).sum(1))]
    return labels == labels[tuple(nearest)]


def _hausdorff95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """95 % Hausdorff distance of the surfaces, mm; nan when a mask is empty."""
    if not a.any() or not b.any():
        return float("nan")
    box = tuple(slice(max(0, lo - 1), hi + 2) for lo, hi in zip(np.argwhere(a | b).min(0), np.argwhere(a | b).max(0),
                                                                strict=True))
    edges = [m[box] & ~eroded(m[box]) for m in (a, b)]
    ways = [ndimage.distance_transform_edt(~there, sampling=spacing_mm)[here]
            for here, there in (edges, reversed(edges))]
    return float(max(np.percentile(way, 95) for way in ways))


def held_out(folds: Sequence[Checkpoint], subfold: int | None) -> list[Checkpoint]:
    """The networks of every fold, the one that never saw a training patient as it scores the patient's subfold.

    Args:
        folds: networks of one kind.
        subfold: of the patient; None for a patient outside training.
    """
    return [one if subfold is None or k != subfold % len(folds) else one.without(subfold)
            for k, one in enumerate(folds)]


def load_networks(folders: Mapping[str, Sequence[Path]], *, device: Name = "auto") -> Networks:
    """The networks of the given checkpoint folders, to score on a device.

    Args:
        folders: by network, one a fold.
        device: where they score.

    Raises:
        BundleError: as `Checkpoint.load`.
        FitError: E-DEVICE for a device the machine does not have.
    """
    place = place_of(device)
    return {name: [replace(Checkpoint.load(folder), place=place) for folder in places]
            for name, places in folders.items()}


def score_patient(patient: Prepared, networks: Networks, fold: int | None, settings: ScoreSettings) -> PatientScore:
    """Risks of every network, and the mask of those that never saw the patient.

    The mask is cut to where PET and CT both are: a network knows nothing of what neither scan shows.

    Args:
        patient: prepared.
        networks: by name, K of each, network k of which never saw fold k.
        fold: the patient's fold or subfold in training, whose network is that number modulo K; None for everybody else.
        settings: threshold and component rule of the mask.
    """
    risks: dict[str, tuple[float, ...]] = {}
    maps: list[NDArray[np.float32]] = []
    bottlenecks: list[NDArray[np.float32]] = []
    for name, folds in networks.items():
        own = None if fold is None else fold % len(folds)
        scores = fold_scores(held_out(folds, fold), patient.image)
        risks[name] = tuple(one.risk for one in scores)
        if all(one.plain is not None for one in scores):
            risks[f"{name}{PLAIN}"] = tuple(one.plain for one in scores if one.plain is not None)
        maps += [one.probability for k, one in enumerate(scores)
                 if one.probability is not None and own in (None, k)]
        bottlenecks += [one.bottleneck for one in scores if one.bottleneck is not None]
    region = patient.region
    suv = grid.resample(patient.pet_suv, region).array.astype(np.float32)
    seen = seen_by_both(region, patient.pet_suv, patient.ct_hu)
    probability = np.where(seen, np.mean(maps, axis=0, dtype=np.float32), np.float32(0))
    mask, problems = tumour_mask(probability, voxel_ml=region.voxel_ml, pet_suv=np.where(seen, suv, np.float32(0)),
                                 threshold=settings.mask_threshold, min_component_ml=settings.min_component_ml)
    predicted = Volume(mask, patient.affine)
    doubts = mask_doubts(predicted, patient.ct_hu)
    return PatientScore(risks, predicted, _agreement(mask, patient), (*problems, *doubts),
                        np.array(bottlenecks) if bottlenecks else None)


def _agreement(mask: NDArray[np.bool_], patient: Prepared) -> dict[str, float]:
    if patient.mask is None:
        return {}
    found = mask_agreement(mask, np.asarray(patient.mask), patient.region.spacing_mm)
    return {"dice": found.dice, "hausdorff95_mm": found.hausdorff95_mm, "volume_ml": found.volume_ml,
            "reference_ml": found.reference_ml}
