"""Where a risk comes from: what it costs, and what its few points on the way from the mean image to the patient miss.

    OMP_NUM_THREADS=1 python bench/bench_explain.py RUN [--patients 8]

RUN: the folder of a finished run, such as demo/runs/study. Against 48 points of each network: the largest difference of
any share, and how far the map's sum misses the risk less that of the mean image, in SD of the risks. CPU seconds of one
thread. Last, why the way does not begin in air: its risk, and the patients', over that of the mean image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mtdlr.explain import STEPS, attribution, gradients
from mtdlr.infer import score
from mtdlr.nets.weights import Checkpoint
from mtdlr.predict import Bundle
from mtdlr.prepared import Prepared, load_mean_image

MANY = 48


@dataclass(frozen=True, eq=False)
class Ways:
    """Some networks, the SD of the risks of each, and the image that every way starts from."""

    networks: Sequence[Checkpoint]
    sds: Sequence[float]
    start: np.ndarray

    def maps(self, image: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
        """(mean of the networks' maps in units of their SD, CPU seconds)."""
        began = time.process_time()
        maps = np.mean([gradients(network, image, self.start, steps=steps) / sd
                        for network, sd in zip(self.networks, self.sds, strict=True)], 0)
        return maps, time.process_time() - began

    def rise(self, image: np.ndarray) -> float:
        """The patient's risk less that of the start, in SD."""
        return float(np.mean([(score(network, image).risk - score(network, self.start).risk) / sd
                              for network, sd in zip(self.networks, self.sds, strict=True)]))


def line(ways: Ways, steps: int, patients: Sequence[Prepared]) -> str:
    """What `steps` points cost and miss."""
    shares, misses, seconds = [], [], []
    for patient in patients:
        image, mask = np.asarray(patient.image), np.asarray(patient.mask)
        (few, cost), (many, _) = ways.maps(image, steps), ways.maps(image, MANY)
        one, other = (attribution(maps, mask, spacing_mm=patient.region.spacing_mm).share for maps in (few, many))
        shares.append(100 * max(abs(one[name] - other[name]) for name in one))
        misses.append(abs(float(few.sum()) - ways.rise(image)))
        seconds.append(cost)
    return (f"{len(ways.networks)} network(s), {steps} points each, {len(patients)} patients, {np.median(seconds):.2f} "
            f"CPU s each: shares differ by at most {max(shares):.1f} points (median {np.median(shares):.1f}); the sum "
            f"misses the rise by at most {max(misses):.2f} SD (median {np.median(misses):.2f})")


def main() -> None:
    """Print one line for one network and one for all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--patients", type=int, default=8)
    asked = parser.parse_args()
    bundle = Bundle.load(asked.run / "bundle")
    networks, scales = list(bundle.networks["deepmts"]), bundle.frozen.scales["deepmts"]
    torch.set_num_threads(1)
    folders = sorted((asked.run / "objects" / "prepare").iterdir())[: asked.patients]
    patients = [patient for patient in map(Prepared.load, folders) if patient.mask is not None]
    start = load_mean_image(bundle.frozen.mean_image)
    for count in (1, len(networks)):
        print(line(Ways(networks[:count], [scale.sd for scale in scales[:count]], start), STEPS, patients), flush=True)
    images = [np.asarray(patient.image) for patient in patients]
    air = np.ascontiguousarray(np.broadcast_to(images[0].min((1, 2, 3), keepdims=True), start.shape))
    for k, (network, scale) in enumerate(zip(networks, scales, strict=True)):
        one = Ways([network], [scale.sd], start)
        risks = [one.rise(image) for image in images]
        print(f"network {k}, risk over that of the mean image, SD: air {one.rise(air):+.1f}, "
              f"patients {min(risks):+.1f} to {max(risks):+.1f}")


if __name__ == "__main__":
    main()
