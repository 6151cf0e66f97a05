"""Who is learned from: patients as a network sees them, their splits, and the batches of an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mtdlr.errors import FitError, Problem, ScanError

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """One patient to learn from.

    Args:
        id: the patient.
        image: (2, z, y, x) float32, PET then CT, every axis >= 32; may be a read-only memory map.
        mask: (z, y, x) bool, the tumour, or None where nobody drew it.
        time_months: follow-up, months.
        event: whether the event was seen.
        stratum: what splits are balanced over beside the event, such as the centre.
        held_out: None for a patient to learn from. A number for a patient whom the network never sees before its risk
            is solved: the subfold, without which one more risk is solved to score its patients.
    """

    id: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    time_months: float
    event: bool
    stratum: str = ""
    held_out: int | None = None


def check_cases(cases: Sequence[Case], needs_masks: bool) -> None:
    """Refuse patients no network can learn from.

    Args:
        cases: the training patients.
        needs_masks: whether the network learns from masks.

    Raises:
        FitError: E-NOEVENT with fewer than two events or two censored patients, E-NOMASK when masks are needed and
            nobody has one.
        ScanError: E-IMAGE for images that differ in shape, are too small or hold values that are not finite.
    """
    seen = [case for case in cases if case.held_out is None]
    events = sum(bool(case.event) for case in seen)
    if not 2 <= events <= len(seen) - 2:
        raise FitError(Problem("E-NOEVENT", "training needs at least two events and two censored patients",
                               found=f"{events} events among {len(seen)} patients"))
    if needs_masks and all(case.mask is None for case in seen):
        raise FitError(Problem("E-NOMASK", "DeepMTS learns from tumour masks, and no training patient has one",
                               remedy="Give masks, or use a single-task network"))
    shape = cases[0].image.shape
    for case in cases:
        fits = case.image.shape == shape and len(shape) == 4 and min(shape[1:]) >= 32
        if not fits or (case.mask is not None and case.mask.shape != shape[1:]):
            raise ScanError(Problem("E-IMAGE", "network images must share one shape, every axis at least 32, and masks "
                                    "their grid", patients=(case.id,), found=str(case.image.shape),
                                    expected=str(shape)))
        if not np.isfinite(case.image).all():
            raise ScanError(Problem("E-IMAGE", "a network image holds values that are not finite",
                                    patients=(case.id,),
                                    found=f"{int((~np.isfinite(case.image)).sum())} voxels"))


def digest_of(cases: Sequence[Case]) -> str:
    """What distinguishes this set of patients from another: ids, follow-up, who has a mask and who is held out."""
    text = "\n".join(f"{c.id},{float(c.time_months)!r},{int(c.event)},{c.mask is not None}"
                     + ("" if c.held_out is None else f",{c.held_out}") for c in cases)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folds(ids: Sequence[str], events: ArrayLike, strata: Sequence[str], n_folds: int, seed: int) -> Rows:
    """The fold (0 .. n_folds-1) of every row, balanced over event and stratum; rows of one patient stay together.

    Who shares a fold depends on who is in the list, not on the list's order.

    Args:
        ids: (n,) patient of each row.
        events: (n,), whether the patient had the event.
        strata: (n,) labels to balance over; equal labels for none.
        n_folds: number of folds, >= 2.
        seed: of the shuffle.

    Returns:
        (n,) int64.

    >>> sorted(folds(["a", "b", "c", "d"], [1, 1, 0, 0], [""] * 4, 2, seed=0)[:2].tolist())
    [0, 1]
    """
    cells: dict[tuple[bool, str], set[str]] = {}
    cell_of: dict[str, tuple[bool, str]] = {}
    for patient, event, stratum in zip(ids, np.asarray(events), strata, strict=True):
        cell_of[patient] = max(cell_of.get(patient, (False, "")), (bool(event), stratum))
    for patient, cell in cell_of.items():
        cells.setdefault(cell, set()).add(patient)
    rng = np.random.default_rng([seed, 1])
    fold: dict[str, int] = {}
    for cell in sorted(cells):
        for patient in rng.permutation(sorted(cells[cell])).tolist():
            fold[patient] = len(fold) % n_folds
    return np.array([fold[patient] for patient in ids], dtype=np.int64)


def inner_split(cases: Sequence[Case], fraction: float, seed: int, *, by_event: bool = True) -> tuple[Rows, Rows]:
    """(rows to learn from, rows that choose the epoch), stratified like folds.

    Args:
        cases: the training patients.
        fraction: share that chooses the epoch, within (0, 0.5]; one half at the most is taken.
        seed: of the split.
        by_event: whether both have the same share of events; else no event decides where a patient goes.
    """
    part = folds([c.id for c in cases], [by_event and c.event for c in cases], [c.stratum for c in cases],
                 max(2, round(1.0 / fraction)), seed)
    return np.flatnonzero(part != 0), np.flatnonzero(part == 0)


def epoch_batches(events: ArrayLike, *, size: int, steps: int | None, sampling: Literal["balanced", "uniform", "paper"],
                  seed: int, epoch: int) -> list[Rows]:
    """The rows of each step of one epoch.

    `balanced`: half events, half censored, each class shuffled and dealt out, nobody twice in a batch; a class too
    small for its half leaves places to the other. `paper`: both halves drawn with replacement. `uniform`: shuffled.

    Args:
        events: (n,) whether each patient had the event.
        size: patients a step.
        steps: how many; by default one pass over the patients.
        sampling: see above.
        seed: of the training.
        epoch: number of the epoch, which has random numbers of its own.

    >>> [len(rows) for rows in epoch_batches([1, 0, 0, 0, 0, 0, 0, 0], size=4, steps=None, sampling="balanced",
    ...                                      seed=0, epoch=0)]
    [4, 4]
    """
    event = np.asarray(events, dtype=bool)
    steps = steps or max(1, round(event.size / size))
    rng = np.random.default_rng([seed, 2, epoch])
    rows = np.arange(event.size)
    if sampling == "uniform":
        return _dealt(rows, min(size, event.size), steps, rng)
    if sampling == "paper":
        return [np.concatenate([rng.choice(rows[event], size // 2), rng.choice(rows[~event], size - size // 2)])
                for _ in range(steps)]
    n_events = min(int(event.sum()), max(size // 2, size - int((~event).sum())))
    n_censored = min(int((~event).sum()), size - n_events)
    return [np.concatenate(both) for both in zip(_dealt(rows[event], n_events, steps, rng),
                                                 _dealt(rows[~event], n_censored, steps, rng), strict=True)]


def batch_tensors(cases: Sequence[Case]) -> tuple[Tensor, Tensor, Tensor]:
    """Images (b, 2, z, y, x), masks (b, z, y, x) as 0/1, and whether each mask is known (b,)."""
    image = np.stack([np.asarray(case.image, dtype=np.float32) for case in cases])
    mask = np.stack([np.zeros(image.shape[2:], np.float32) if case.mask is None
                     else np.asarray(case.mask, dtype=np.float32) for case in cases])
    return torch.from_numpy(image), torch.from_numpy(mask), torch.tensor([case.mask is not None for case in cases])


def follow_up(cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """(time in months, event) of patients."""
    return (torch.tensor([c.time_months for c in cases], dtype=torch.float32),
            torch.tensor([bool(c.event) for c in cases]))


def _dealt(rows: Rows, need: int, steps: int, rng: np.random.Generator) -> list[Rows]:
    """`steps` handfuls of `need` rows, dealt from shuffled decks; no row twice in a handful."""
    if need == 0:
        return [rows[:0]] * steps
    hands = len(rows) // need
    decks = [rng.permutation(rows)[:hands * need].reshape(hands, need) for _ in range(-(-steps // hands))]
    return list(np.concatenate(decks)[:steps])
