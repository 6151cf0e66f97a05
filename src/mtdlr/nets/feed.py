"""Batches on the device: the whole cohort lies there, or the next batch is on its way while one is learned from.

On a card, images are kept as half-precision numbers, whose error of 2^-11 is below that of bfloat16 products. On the
processor a batch is read from the patients' own arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtdlr.nets.cases import Case, Rows, batch_tensors
from mtdlr.nets.device import Device
from mtdlr.nets.step import autocast
from mtdlr.nets.weights import Network

SHARE = 0.5  # of a card's free memory that the cohort may fill


class Batch(NamedTuple):
    """Images (b, 2, z, y, x), masks (b, z, y, x) as 0/1, and whether each mask is known (b,)."""

    image: Tensor
    mask: Tensor
    known: Tensor


class Feed:
    """Patients as batches on a device.

    Args:
        cases: the patients.
        device: where batches are wanted.
        room: bytes of the device that the cohort may fill; by default half of what is free on a card. The processor
            has no such store unless it is given.
    """

    def __init__(self, cases: Sequence[Case], device: torch.device, *, room: int | None = None) -> None:
        self._cases, self._device = cases, device
        self._resident: Batch | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._coming: tuple[bytes, Future[Batch]] | None = None
        if device.type == "cpu" and room is None:
            return
        voxels = int(np.prod(cases[0].image.shape[1:]))
        if room is None:
            room = int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
        if len(cases) * voxels * (2 * cases[0].image.shape[0] + 1) <= room:
            self._resident = _whole(cases, device)
        else:
            self._pool = ThreadPoolExecutor(1, "feed")

    @property
    def is_resident(self) -> bool:
        """Whether the whole cohort lies on the device."""
        return self._resident is not None

    def make_room(self) -> bool:
        """Take the cohort off the device, which then gets each batch as it is needed: the same numbers, more slowly.

        Returns:
            Whether it lay there.
        """
        if self._resident is None:
            return False
        self._resident, self._pool = None, ThreadPoolExecutor(1, "feed")
        return True

    def batch(self, rows: Rows, then: Rows | None = None) -> Batch:
        """The patients of some rows; those of `then` are fetched meanwhile.

        Args:
            rows: (k,) positions among the cases.
            then: positions of the batch that follows; None where none does.
        """
        if self._resident is not None:
            index = torch.from_numpy(rows).to(self._device, non_blocking=True)
            return _unpacked(Batch(*(part.index_select(0, index) for part in self._resident)))
        if self._pool is None:
            return Batch(*batch_tensors([self._cases[i] for i in rows]))
        key, coming = self._coming or (b"", None)
        packed = coming.result() if coming is not None and key == rows.tobytes() else self._fetch(rows)
        if then is not None:
            self._coming = then.tobytes(), self._pool.submit(self._fetch, then)
        return _unpacked(_moved(packed, self._device))

    def _fetch(self, rows: Rows) -> Batch:
        packed = _packed([self._cases[i] for i in rows])
        return Batch(*(part.pin_memory() for part in packed)) if self._device.type == "cuda" else packed


def scored(model: Network, feed: Feed, rows: Rows, *, size: int, device: Device) -> tuple[Tensor, list[float]]:
    """Risks (n,) of some rows, on the processor, and the Dice of each mask that is known and not empty.

    Args:
        model: left in evaluation mode.
        feed: the patients.
        rows: which of them.
        size: patients that go through the network at a time.
        device: where the model lies.
    """
    model.eval()
    risks, dices, have = [], [], []
    with torch.inference_mode(), autocast(device.place, device.precision):
        for k in range(0, len(rows), size):
            image, mask, known = feed.batch(rows[k:k + size], rows[k + size:k + 2 * size])
            output = model(image)
            risks.append(output.risk.float())
            if output.probability is not None:
                hard = (output.probability > 0.5).float()
                dices.append(2 * (hard * mask).sum((1, 2, 3)) / (hard + mask).sum((1, 2, 3)))
                have.append(known & mask.any(3).any(2).any(1))  # where both are empty, Dice is 0 / 0
    return torch.cat(risks).cpu(), torch.cat(dices)[torch.cat(have)].tolist() if dices else []


def _whole(cases: Sequence[Case], device: torch.device) -> Batch:
    """All patients on the device, one copied after the other."""
    parts = Batch(*(torch.empty(len(cases), *one.shape[1:], dtype=one.dtype, device=device)
                    for one in _packed(cases[:1])))
    for k in range(len(cases)):
        for part, one in zip(parts, _packed(cases[k:k + 1]), strict=True):
            part[k:k + 1].copy_(one)
    return parts


def _packed(cases: Sequence[Case]) -> Batch:
    """Half-precision images and masks of one byte."""
    image = np.stack([np.asarray(case.image, dtype=np.float16) for case in cases])
    mask = np.stack([np.zeros(image.shape[2:], np.uint8) if case.mask is None else np.asarray(case.mask, np.uint8)
                     for case in cases])
    return Batch(torch.from_numpy(image), torch.from_numpy(mask), torch.tensor([c.mask is not None for c in cases]))


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(part.to(device, non_blocking=True) for part in batch))


def _unpacked(batch: Batch) -> Batch:
    return Batch(batch.image.float(), batch.mask.float(), batch.known)
