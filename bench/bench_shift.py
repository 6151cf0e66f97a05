"""How well unfit scans are told from fit ones: AUROC and refusals for nine faults, on both synthetic scanners, at 32^3.

    python bench/bench_shift.py [--training 70] [--fit 100] [--faulty 12] [--seed 7]
    python bench/bench_shift.py --real ../shared/data/sts/images [--faulty 12]

The reference is made from patients of scanner A alone; fit patients are new ones of A and of B (other voxels,
sharpness, noise, and SUV 20 % higher). Each fault is made on patients of both scanners.

With --real, 36 scans of limbs (soft-tissue sarcoma) are the fit ones: each sixth of them is judged by a reference of
the others, and so are its faults. The region is the scan's middle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdlr.errors import MtdlrError
from mtdlr.imaging.layout import given_files
from mtdlr.imaging.reading import Scan, read_scan
from mtdlr.prepare import prepare
from mtdlr.prepared import Prepared
from mtdlr.shift import Reference, patient_numbers, physical_values
from mtdlr.study import Study
from mtdlr.synthetic.anatomy import shoulders, trunk
from mtdlr.synthetic.canvas import Canvas, Grid, Pose, smooth_noise
from mtdlr.synthetic.patient import SCANNERS, SyntheticPatient, _scan_ct, _scan_pet
from mtdlr.synthetic.study import patient_of, simulate_study
from mtdlr.volume import Volume

SETTINGS = Study.of({"preset": "quick", "prepare": {"alignment": "off"}}).prepare
PLACES = {"kidney field of view": (62.0, 95.0, -470.0), "legs": (76.0, 55.0, -780.0)}


def scan_of(pet: Volume, ct: Volume) -> Scan:
    return Scan("patient", pet, ct, None, {}, ())


def elsewhere(place: tuple[float, float, float], center: str, rng: np.random.Generator) -> Prepared:
    """A region of the trunk or the legs, scanned by a centre's scanner."""
    scanner, side = SCANNERS[center], rng.choice((-1.0, 1.0))
    middle = np.array(place) * (side, 1.0, 1.0) + rng.normal(0, 8, 3)
    canvas = Canvas.of_air(Grid.around(middle, (260, 420, 420), (4, 4, 4)))
    canvas.paint((*shoulders(), *trunk()), Pose(np.eye(3) * rng.uniform(0.94, 1.06), rng.uniform(-8, 8, 3)))
    pet_grid, ct_grid = (Grid.around(middle + rng.uniform(-2, 2, 3), (240, 400, 400), step)
                         for step in (scanner.pet_spacing_mm, scanner.ct_spacing_mm))
    scan = scan_of(pet_grid.volume(_scan_pet(canvas, pet_grid, scanner, rng)),
                   ct_grid.volume(_scan_ct(canvas, ct_grid, scanner, rng)))
    box = {"roi": "box", "box_center_mm": tuple(float(x) for x in middle)}
    return prepare(scan, SETTINGS.model_copy(update=box), patient_id="patient")


def magnetic_resonance(ct: Volume, rng: np.random.Generator) -> Volume:
    """T1-like intensities in place of HU, with a bias field and noise."""
    bright = np.interp(ct.array, [-1000, -300, -100, -30, 20, 60, 150, 400, 1500],
                       [5, 60, 900, 700, 500, 420, 300, 120, 60])
    bias = 1 + 0.25 * smooth_noise(ct.shape, ct.spacing_mm, 120.0, rng)
    return ct.with_array(np.clip(bright * bias + rng.normal(0, 15, ct.shape), 0, None).astype(np.float32))


def halved(p: SyntheticPatient | Pair, rng: np.random.Generator) -> Scan:
    """Half of both scans holds air: left or right, front or back, upper or lower."""
    axis, first = int(rng.integers(3)), bool(rng.integers(2))
    parts = []
    for volume, air in ((p.pet, 0), (p.ct, -1000)):
        array, n = np.array(volume.array), volume.shape[axis]
        array[(slice(None),) * axis + (slice(0, n // 2) if first else slice(n // 2, None),)] = air
        parts.append(volume.with_array(array))
    return scan_of(parts[0], parts[1])


def noisy(p: SyntheticPatient | Pair, rng: np.random.Generator) -> Scan:
    """PET noise six times, CT noise eight times the usual."""
    pet = np.asarray(p.pet.array)
    pet = pet + 0.8 * np.sqrt(np.maximum(pet, 0.05)) * smooth_noise(pet.shape, p.pet.spacing_mm, 5.0, rng)
    ct = p.ct.array + 120 * smooth_noise(p.ct.shape, p.ct.spacing_mm, 2.0, rng)
    return scan_of(p.pet.with_array(np.maximum(pet, 0).astype(np.float32)), p.ct.with_array(ct.astype(np.float32)))


def scaled(p: SyntheticPatient | Pair, factor: float) -> Scan:
    return scan_of(p.pet.with_array((p.pet.array * factor).astype(np.float32)), p.ct)


def faults(
    p: SyntheticPatient | Pair, other: SyntheticPatient | Pair, rng: np.random.Generator
) -> dict[str, Callable[[], Scan]]:
    """Every fault of one patient's scans, by name."""
    return {
        "MR in place of CT": lambda: scan_of(p.pet, magnetic_resonance(p.ct, rng)),
        "SUV x 1,000": lambda: scaled(p, 1000.0),
        "SUV / body weight": lambda: scaled(p, 1.0 / float(rng.uniform(50, 95))),
        "flipped z": lambda: scan_of(*(v.with_array(v.array[::-1].copy()) for v in (p.pet, p.ct))),
        "heavy noise": lambda: noisy(p, rng),
        "half the head missing": lambda: halved(p, rng),
        "PET and CT of two patients": lambda: scan_of(p.pet, other.ct),
    }


def prepared(scan: Scan) -> Prepared | None:
    """The prepared patient, where the head is found or else at the scanner's middle; None where neither works."""
    for update in ({}, {"roi": "box", "box_center_mm": (0.0, 0.0, 0.0)}):
        try:
            return prepare(scan, SETTINGS.model_copy(update=update), patient_id="patient")
        except MtdlrError:
            continue
    return None


def patients(split: str, n: int, seed: int) -> Iterator[SyntheticPatient]:
    """The first n patients of one split."""
    sizes = {"n_training": 1, "n_internal": 1, "n_external": 1} | {f"n_{split}": n}
    clinical, truth = simulate_study(**sizes, seed=seed)
    for row, hidden in zip(clinical.to_dict("records"), truth.to_dict("records"), strict=True):
        if row["split"] == split:
            yield patient_of(row, hidden)


def outside(reference: Reference, patient: Prepared | None) -> tuple[float, bool]:
    """(-log10 of the share further out in the worst group, refused); a scan that cannot be prepared is refused."""
    if patient is None:
        return 300.0, True
    numbers = patient_numbers(patient)
    shift = reference.judge(numbers, physical_values(patient))
    beyond = min(group.beyond(numbers[name]) for name, group in reference.groups.items() if name in numbers)
    return -np.log10(max(beyond, 1e-300)), shift.refused


@dataclass(frozen=True)
class Pair:
    """PET and CT of one real patient."""

    pet: Volume
    ct: Volume


def real_pair(folder: Path) -> Pair:
    scan = read_scan(given_files("patient", folder / "PET_image.nii.gz", folder / "CT_image.nii.gz"))
    return Pair(scan.pet, scan.ct)


def in_the_middle(scan: Scan) -> Prepared | None:
    """The prepared patient around the PET's middle; None where that cannot be prepared."""
    try:
        return prepare(scan, SETTINGS.model_copy(update={"roi": "center"}), patient_id="patient")
    except MtdlrError:
        return None


def moved(ct: Volume, pet: Volume) -> Volume:
    """A CT with its middle in the PET's middle."""
    affine = np.array(ct.affine)
    affine[:3, 3] += np.array(pet.center_mm) - np.array(ct.center_mm)
    return Volume(ct.array, affine)


def real(folder: Path, faulty: int, seed: int) -> None:
    """Faults of real scans against a reference of other real scans, in six parts."""
    people = [real_pair(one) for one in sorted(folder.iterdir()) if one.is_dir()]
    fit = [in_the_middle(scan_of(p.pet, p.ct)) for p in people]
    part = np.arange(len(people)) % 6
    references = [Reference.fit([patient_numbers(one) for one, k in zip(fit, part, strict=True) if one and k != fold])
                  for fold in range(6)]
    usual = [outside(references[k], one) for one, k in zip(fit, part, strict=True)]
    print(f"real limbs: {sum(r for _, r in usual)} of {len(usual)} fit patients refused, "
          f"{sum(d > -np.log10(0.05) for d, _ in usual)} warned of", flush=True)
    found: dict[str, list[tuple[float, bool]]] = {}
    heads = [prepared(scan_of(p.pet, p.ct)) for p in patients("internal", 6, seed)]
    found["a (synthetic) head"] = [outside(references[k], one) for k, one in enumerate(heads)]
    for n, p in enumerate(people[:faulty]):
        other = people[(n + 7) % len(people)]
        pair = Pair(other.pet, moved(other.ct, p.pet))
        for name, make in faults(p, pair, np.random.default_rng([seed, n])).items():
            found.setdefault(name, []).append(outside(references[part[n]], in_the_middle(make())))
    for name, results in found.items():
        scores = np.array([score for score, _ in results])
        auroc = float(np.mean([(scores > s).mean() + 0.5 * (scores == s).mean() for s, _ in usual]))
        print(f"{name:28s} AUROC {auroc:.3f}; {sum(r for _, r in results)} of {len(results)} refused", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", type=Path)
    for name, default in (("training", 70), ("fit", 100), ("faulty", 12), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    if asked.real:
        real(asked.real, asked.faulty, asked.seed)
        return
    reference = Reference.fit([patient_numbers(found) for p in patients("training", asked.training, asked.seed)
                               if (found := prepared(scan_of(p.pet, p.ct)))])
    fit = {"A": "internal", "B": "external"}
    usual, people = {}, {}
    for center, split in fit.items():
        people[center] = list(patients(split, asked.fit, asked.seed + 1))
        usual[center] = [outside(reference, prepared(scan_of(p.pet, p.ct))) for p in people[center]]
        print(f"scanner {center}: {sum(r for _, r in usual[center])} of {len(usual[center])} fit patients refused, "
              f"{sum(d > -np.log10(0.05) for d, _ in usual[center])} warned of", flush=True)
    found: dict[str, list[tuple[float, bool]]] = {}
    for center, group in people.items():
        for k, p in enumerate(group[: asked.faulty]):
            rng = np.random.default_rng([asked.seed, k])
            for name, place in PLACES.items():
                found.setdefault(name, []).append(outside(reference, elsewhere(place, center, rng)))
            for name, make in faults(p, group[k + 1], rng).items():
                found.setdefault(name, []).append(outside(reference, prepared(make())))
    for name, results in found.items():
        scores = np.array([score for score, _ in results])
        auroc = [float(np.mean([(scores > s).mean() + 0.5 * (scores == s).mean() for s, _ in usual[c]])) for c in fit]
        print(f"{name:28s} AUROC against A {auroc[0]:.3f}, against B {auroc[1]:.3f}; "
              f"{sum(r for _, r in results)} of {len(results)} refused", flush=True)


if __name__ == "__main__":
    main()
