"""Preparation: a whole-body DICOM study to a prepared patient, resampling and alignment beside SimpleITK, real shifts.

Usage: python bench/bench_prepare.py [--sts FOLDER]     FOLDER: images/ of the soft-tissue-sarcoma patients
Times are CPU seconds of one thread (set OMP_NUM_THREADS=1); peak memory is that of a child process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from mtdlr.imaging import grid, nifti
from mtdlr.imaging.layout import discover
from mtdlr.imaging.locate import locate_head
from mtdlr.imaging.reading import read_scan
from mtdlr.imaging.register import align, misalignment
from mtdlr.prepare import prepare
from mtdlr.study import PrepareSettings
from mtdlr.synthetic import Disease, SyntheticPatient, make_patient
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.volume import Volume


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of this process, what the work returned)."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def write_whole_body(folder: str) -> None:
    """A whole-body examination as a hospital would send it."""
    write_dicom_patient(Path(folder), make_patient(field="whole_body", seed=5), contour="seg")


def whole_body(folder: str, results: Any) -> None:
    """One DICOM study to a prepared patient, stage by stage."""
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found, (scan_set,) = cpu(lambda: discover(Path(folder)))
    read, scan = cpu(lambda: read_scan(scan_set))
    located, region = cpu(lambda: locate_head(scan.pet, scan.ct))
    settings = PrepareSettings(alignment="check")
    prepared_s, prepared = cpu(lambda: prepare(scan, settings, patient_id="bench"))
    saved, _ = cpu(lambda: prepared.save(Path(folder) / "prepared"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put({"discover": found, "read": read, "locate alone": located, "prepare (with check)": prepared_s,
                 "save": saved, "whole": found + read + prepared_s + saved, "peak GiB": peak, "imports GiB": base,
                 "tumour in box": prepared.facts.get("mask_in_roi"), "confidence": region.confidence})


def in_a_child(work: Callable, *arguments: Any) -> None:
    """Run where memory is counted for itself."""
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join()


def as_sitk(volume: Volume) -> sitk.Image:
    """The same volume for the peer."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetDirection((volume.affine[:3, :3] / volume.spacing_mm)[:, ::-1].ravel().tolist())
    return image


def resampling() -> None:
    """CT 512 x 512 x 300 onto 128^3 of 2 mm: ours beside SimpleITK, conversion not counted."""
    ct = Volume.on_grid(np.random.default_rng(0).integers(-1000, 1500, (300, 512, 512), np.int16), (3.0, 0.98, 0.98))
    target = grid.cube(ct.center_mm, size=128, spacing_mm=2.0)
    image, reference = as_sitk(ct), as_sitk(target)
    for name, interpolator in (("linear", sitk.sitkLinear), ("bspline", sitk.sitkBSpline),
                               ("nearest", sitk.sitkNearestNeighbor)):
        ours, _ = cpu(lambda name=name: grid.resample(ct, target, interpolation=name))
        peer, _ = cpu(lambda i=interpolator: sitk.Resample(image, reference, sitk.Transform(), i, 0.0,
                                                           sitk.sitkFloat32))
        print(f"| resample {name} | {ours:.3f} | {peer:.3f} | {ours / peer:.2f} |")


def by_tissues(pet: Volume, ct: Volume, how: str) -> NDArray[np.float64]:
    """Ours."""
    return align(pet, ct, how=how)


def by_mutual_information(pet: Volume, ct: Volume, how: str) -> NDArray[np.float64]:
    """SimpleITK's registration: Mattes mutual information, every voxel of a 4 mm grid, two resolutions."""
    place = grid.isotropic_grid(grid.grid(ct.shape, ct.affine), 4.0)
    start = sitk.Euler3DTransform() if how == "rigid" else sitk.AffineTransform(3)
    start.SetCenter(ct.center_mm)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, 100, gradientMagnitudeTolerance=1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4, 1])
    method.SetInitialTransform(start, inPlace=True)
    fixed = sitk.Cast(as_sitk(grid.resample(ct, place, outside=-1000.0)), sitk.sitkFloat32)
    method.Execute(fixed, sitk.Cast(as_sitk(pet), sitk.sitkFloat32))
    origin = np.array(start.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([start.TransformPoint(unit) for unit in np.eye(3).tolist()]).T - origin[:, None]
    matrix[:3, 3] = origin
    return np.linalg.inv(matrix)


def error_mm(transform: NDArray, motion: NDArray, patient: SyntheticPatient) -> float:
    """Mean miss in mm over the tumour and the corners of a 120 mm box."""
    tumour = patient.true_mask.points_mm(np.argwhere(patient.true_mask.array)[::20])
    points = np.concatenate([tumour, grid.corners_mm(grid.cube((0.0, 0.0, 0.0), size=2, spacing_mm=60.0))])
    both = transform @ motion
    return float(np.linalg.norm(points @ both[:3, :3].T + both[:3, 3] - points, axis=1).mean())


def alignment(patients: int = 8) -> None:
    """Synthetic heads turned by about 7 degrees and shifted by about 9 mm, brought back by both."""
    rng = np.random.default_rng(1)
    rows: dict[str, list[tuple[float, float]]] = {}
    before = []
    for seed in range(patients):
        patient = make_patient(seed=seed, center="AB"[seed % 2], voxel_scale=1.0 + 0.5 * (seed % 2))
        center, motion = np.array(patient.pet.center_mm), np.eye(4)
        motion[:3, :3] = Rotation.from_rotvec(np.radians(rng.normal(0, 4, 3))).as_matrix()
        motion[:3, 3] = center + rng.normal(0, 5, 3) - motion[:3, :3] @ center
        pet = grid.moved(patient.pet, motion)
        before.append(error_mm(np.eye(4), motion, patient))
        for how in ("rigid", "affine"):
            for name, method in (("ours", by_tissues), ("SimpleITK MI", by_mutual_information)):
                seconds, transform = cpu(partial(method, pet, patient.ct, how))
                rows.setdefault(f"{how}, {name}", []).append((error_mm(transform, motion, patient), seconds))
    print(f"| before | {np.mean(before):.2f} | {np.max(before):.2f} | |")
    for name, values in rows.items():
        errors, seconds = np.array(values).T
        print(f"| {name} | {errors.mean():.2f} | {errors.max():.2f} | {seconds.mean():.2f} |")


def shifts(sts: Path | None) -> None:
    """What is measured on patients that are aligned, on those moved by 10 mm, and on real ones."""
    rng = np.random.default_rng(3)
    errors, alarms = {0: [], 6: [], 8: [], 10: [], 15: []}, {0: 0, 6: 0, 8: 0, 10: 0, 15: 0}
    count = 20
    for seed in range(count):
        patient = make_patient(seed=300 + seed, center="AB"[seed % 2], voxel_scale=1.5)
        for size in errors:
            direction = rng.normal(size=3)
            shift = size * direction / np.linalg.norm(direction)
            motion = np.eye(4)
            motion[:3, 3] = -shift
            found = misalignment(grid.moved(patient.pet, motion), patient.ct)
            errors[size].append(np.linalg.norm(np.array(found.shift_mm) - shift))
            alarms[size] += found.exceeds(5.0)
    for size, values in errors.items():
        print(f"| synthetic, {size} mm | {np.mean(values):.2f} | {np.max(values):.2f} | {alarms[size]} of {count} |")
    if sts is None:
        return
    for folder in sorted(sts.iterdir()):
        pet, ct = (nifti.read(folder / f"{kind}_image.nii.gz")[0] for kind in ("PET", "CT"))
        a = misalignment(pet, ct)
        sure = a.distance_mm - 2 * float(np.linalg.norm(np.array(a.shift_mm) / max(a.distance_mm, 1e-9) * a.sd_mm))
        print(f"| {folder.name} ({a.how}) | {a.distance_mm:.1f} ({', '.join(f'{s:.1f}' for s in a.shift_mm)}) "
              f"| {sure:.1f} | {'ALARM' if a.exceeds(5.0) else ''} |")


def containment(patients: int = 200) -> None:
    """How far primaries of 4 to 200 ml reach from the found middle; 64 mm is the edge of the smallest box."""
    reaches, confidences, seconds = [], [], []
    for seed in range(1000, 1000 + patients):
        rng = np.random.default_rng(seed)
        disease = Disease(volume_ml=float(np.exp(rng.uniform(np.log(4), np.log(200)))), n_stage="N3",
                          invasion_ml=float(rng.uniform(0, 25)), node_ml=float(rng.uniform(0, 60)),
                          uptake_suv=float(rng.uniform(3, 16)))
        patient = make_patient(disease, seed=seed, center="AB"[seed % 2], voxel_scale=1.0 + 0.5 * (seed % 3))
        spent, region = cpu(lambda p=patient: locate_head(p.pet, p.ct))
        tumour = patient.true_mask.points_mm(np.argwhere(patient.true_mask.array | patient.manual_mask.array))
        reaches.append(np.abs(tumour - region.center_mm).max())
        confidences.append(region.confidence)
        seconds.append(spent)
    print(f"| {patients} | {np.mean(reaches):.1f} | {np.max(reaches):.1f} | {(np.array(reaches) < 64).sum()} "
          f"| {np.min(confidences):.2f} | {np.mean(seconds):.2f} |")


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sts", type=Path)
    options = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        in_a_child(write_whole_body, f"{folder}/dicom")
        results = multiprocessing.get_context("spawn").Queue()
        in_a_child(whole_body, f"{folder}/dicom", results)
        print("| whole-body DICOM to prepared | |\n|---|---|")
        for name, value in results.get().items():
            print(f"| {name} | {value if value is None else round(value, 3)} |")
    print("\n| task | ours s | SimpleITK s | ratio |\n|---|---|---|---|")
    resampling()
    print("\n| alignment | mean miss mm | worst mm | CPU s |\n|---|---|---|---|")
    alignment()
    print("\n| locator: patients | mean reach mm | worst | inside 128 mm box | least confidence | CPU s |")
    print("|---|---|---|---|---|---|")
    containment()
    print("\n| shift | error or size mm | worst, or size less 2 SD | alarms at 5 mm |\n|---|---|---|---|")
    shifts(options.sts)


if __name__ == "__main__":
    main()
