"""CPU seconds and memory of the radiomics engine and of PyRadiomics on real patients, in the same run, one core.

Usage: python bench/bench_radiomics.py [--memory] [--repeats N]

Features and filters of profile paper1456 (720 of the image and 16 of shape) on images that PyRadiomics resampled
(cubic B-spline), float32 arrays in memory; reading files and resampling are left out. Needs ../shared/data/sts and the
extra [oracles]. CPU time is the best of N (default 3) for both.
"""
# ruff: noqa: E402  (thread counts must be set before the libraries are imported)

from __future__ import annotations

import argparse
import logging
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[name] = "1"

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from radiomics import featureextractor, imageoperations

from mtdlr import texture

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "sts" / "images"
CASES = [(patient, modality, spacing, width) for patient in ("STS_001", "STS_002", "STS_008")
         for modality, spacing, width in (("PET", 3.0, 0.25), ("CT", 2.0, 25.0), ("CT", 1.0, 25.0))]


def load(patient: str, modality: str, spacing: float) -> tuple[sitk.Image, sitk.Image]:
    """(image, mask) on PyRadiomics' own grid."""
    image = sitk.ReadImage(str(DATA / patient / f"{modality}_image.nii.gz"), sitk.sitkFloat32)
    mask = sitk.Cast(sitk.ReadImage(str(DATA / patient / f"{modality}_mask.nii.gz")) > 0, sitk.sitkUInt8)
    mask.CopyInformation(image)
    return imageoperations.resampleImage(image, mask, resampledPixelSpacing=[spacing] * 3, padDistance=5,
                                         interpolator=sitk.sitkBSpline)


def ours(image: sitk.Image, mask: sitk.Image, width: float) -> Callable[[], dict[str, float]]:
    """A call of our engine."""
    values, inside = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask) > 0
    z, y, x = image.GetSpacing()[::-1]
    return lambda: texture.extract(values, inside, (z, y, x), profile=texture.paper1456(width))


def theirs(image: sitk.Image, mask: sitk.Image, width: float) -> Callable[[], dict[str, float]]:
    """A call of PyRadiomics for the same features."""
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=width, additionalInfo=False)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**{k: list(v) for k, v in texture.paper1456(width).features.items()})
    extractor.enableImageTypes(Original={}, Wavelet={})
    return lambda: {name: float(value) for name, value in extractor.execute(image, mask).items()}


def best(call: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def speed(repeats: int) -> None:
    """Print the speed table."""
    print("| patient | image | voxels | ours, CPU s | PyRadiomics, CPU s | ratio | largest relative difference |")
    print("|---|---|---|---|---|---|---|")
    totals = np.zeros(2)
    for patient, modality, spacing, width in CASES:
        image, mask = load(patient, modality, spacing)
        mine, other = ours(image, mask, width), theirs(image, mask, width)
        found, expected = mine(), other()
        difference = max(abs(found[k] - v) / max(abs(v), 1e-9) for k, v in expected.items())
        times = np.array([best(mine, repeats), best(other, repeats)])
        totals += times
        voxels = int((sitk.GetArrayViewFromImage(mask) > 0).sum())
        print(f"| {patient} | {modality} {spacing:g} mm | {voxels} | {times[0]:.3f} | {times[1]:.3f} | "
              f"{times[1] / times[0]:.1f} | {difference:.0e} |", flush=True)
    print(f"| all | | | {totals[0]:.3f} | {totals[1]:.3f} | {totals[1] / totals[0]:.1f} | |")


OURS = """
import sys, numpy as np
from mtdlr import texture
case = np.load(sys.argv[1])
texture.extract(case["image"], case["mask"], tuple(case["spacing"]), profile=texture.paper1456(float(sys.argv[2])))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
THEIRS = """
import logging, sys, numpy as np, SimpleITK as sitk
from radiomics import featureextractor
logging.getLogger("radiomics").setLevel(logging.CRITICAL)
case = np.load(sys.argv[1])
images = [sitk.GetImageFromArray(case["image"]), sitk.GetImageFromArray(case["mask"].astype(np.uint8))]
for one in images:
    one.SetSpacing(case["spacing"][::-1].tolist())
extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=float(sys.argv[2]), additionalInfo=False)
extractor.disableAllFeatures()
extractor.enableFeaturesByName(firstorder=[], glcm=[], glrlm=[], glszm=[], ngtdm=[], shape=[])
extractor.enableImageTypes(Original={}, Wavelet={})
extractor.execute(*images)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def memory() -> None:
    """Print the peak resident memory of a process that imports one engine and extracts one case."""
    print("| case | ours, MB | PyRadiomics, MB |\n|---|---|---|")
    for patient, modality, spacing, width in CASES:
        image, mask = load(patient, modality, spacing)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.npz"
            np.savez(path, image=sitk.GetArrayFromImage(image), mask=sitk.GetArrayFromImage(mask) > 0,
                     spacing=image.GetSpacing()[::-1])
            peaks = [int(run(code, str(path), str(width)).split()[-1]) / 1024 for code in (OURS, THEIRS)]
        print(f"| {patient} {modality} {spacing:g} mm | {peaks[0]:.0f} | {peaks[1]:.0f} |", flush=True)


def run(code: str, *arguments: str) -> str:
    """What a new process prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
                          env=environment).stdout


CALLS = """
import time, numpy as np
from mtdlr import texture
image = np.random.default_rng(0).normal(size=(20, 20, 20)) * 50
for _ in range(2):
    start = time.perf_counter()
    texture.extract(image, abs(image) > 1, (1.0, 1.0, 1.0), profile=texture.paper1456(25.0))
    print(f"{time.perf_counter() - start:.3f}")
"""


def first_call() -> None:
    """Print the first and the second call's wall seconds in a new process, with a warm compilation cache."""
    run(CALLS)
    first, second = run(CALLS).split()
    print(f"first call in a new process {first} s, second {second} s (wall)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    if arguments.memory:
        memory()
        first_call()
    else:
        speed(arguments.repeats)
