"""Our features beside PyRadiomics, fastrad, flash-radiomics and MIRP: CPU, memory, difference, determinism, in turns.

Usage: python bench/bench_rivals.py [NAME=PYTHON ...] [--repeats N] [--only original|wavelet]

NAME is pyradiomics, fastrad, flash or mirp; PYTHON an interpreter that has it (they do not install beside one another).
mtdlr (of these sources; mtdlr=PYTHON: as it is installed there) and PyRadiomics 3.1.4 (extra [oracles]) run from here.
The nine images are those of bench_radiomics.py, resampled beforehand; each engine extracts firstorder, glcm, glrlm,
glszm, ngtdm and shape of the image alone, then also of its eight wavelet bands where it has them. A process for each
engine and image, one thread: the least CPU time of N calls after a first one (MIRP: of one), and the process's peak
memory. MIRP reads files, and its definitions are the IBSI's: intensities and shape alone are compared with it.
Differences are relative to PyRadiomics' value, or to 1e-9.
"""
# ruff: noqa: E402  (thread counts must be set before the libraries are imported)

from __future__ import annotations

import argparse
import json
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

CLASSES = ("firstorder", "glcm", "glrlm", "glszm", "ngtdm", "shape")
ENGINES = ("mtdlr", "pyradiomics", "flash", "fastrad", "mirp")
LIMIT_S = 240
Call = Callable[[], dict[str, float]]
MIRP_NAMES = {
    "stat_mean": "firstorder_Mean", "stat_skew": "firstorder_Skewness", "stat_median": "firstorder_Median",
    "stat_min": "firstorder_Minimum", "stat_p10": "firstorder_10Percentile", "stat_p90": "firstorder_90Percentile",
    "stat_max": "firstorder_Maximum", "stat_range": "firstorder_Range", "stat_mad": "firstorder_MeanAbsoluteDeviation",
    "stat_energy": "firstorder_Energy", "stat_rms": "firstorder_RootMeanSquared", "stat_var": "firstorder_Variance",
    "morph_volume": "shape_MeshVolume", "morph_area_mesh": "shape_SurfaceArea", "morph_sphericity": "shape_Sphericity",
}


def by_names(kind: str, case: Path, width: float, wavelet: bool) -> Call:
    """PyRadiomics' own calls, on its class or on one that takes its place."""
    import logging

    import SimpleITK as sitk

    if kind == "mtdlr":
        from mtdlr.radiomics import RadiomicsFeatureExtractor
    elif kind == "flash":
        from flash_radiomics.featureextractor import RadiomicsFeatureExtractor
    else:
        from radiomics.featureextractor import RadiomicsFeatureExtractor
        logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    held = np.load(case / "case.npz")
    images = [sitk.GetImageFromArray(held["image"]), sitk.GetImageFromArray(held["mask"].astype(np.uint8))]
    for image in images:
        image.SetSpacing(held["spacing"][::-1].tolist())
    extractor = RadiomicsFeatureExtractor(binWidth=width, additionalInfo=False)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**{one: [] for one in CLASSES})
    extractor.disableAllImageTypes()
    extractor.enableImageTypes(**({"Original": {}, "Wavelet": {}} if wavelet else {"Original": {}}))

    def call() -> dict[str, float]:
        found = extractor.execute(*images)
        return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics")}

    return call


def by_fastrad(case: Path, width: float) -> Call:
    """fastrad on the processor."""
    import torch
    from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

    torch.set_num_threads(1)
    held = np.load(case / "case.npz")
    spacing = tuple(map(float, held["spacing"]))
    image, mask = (make(torch.from_numpy(held[name].astype(np.float32)), spacing)
                   for make, name in ((MedicalImage, "image"), (Mask, "mask")))
    extractor = FeatureExtractor(FeatureSettings(feature_classes=list(CLASSES), bin_width=width, device="cpu"))

    def call() -> dict[str, float]:
        found = extractor.extract(image, mask)
        return dict(found)

    return call


def by_mirp(case: Path, width: float) -> Call:
    """MIRP on files; its names are translated where both define the same."""
    from mirp import extract_features

    def call() -> dict[str, float]:
        (table,) = extract_features(
            image=str(case / "image.nii.gz"), mask=str(case / "mask.nii.gz"), base_discretisation_bin_width=width,
            base_discretisation_method="fixed_bin_size_pyradiomics", ibsi_compliant=False,
            base_feature_families=["statistics", "morphology", "glcm", "glrlm", "glszm", "ngtdm"])
        return {f"original_{MIRP_NAMES[k]}": float(table[k].iloc[0]) for k in table.columns if k in MIRP_NAMES}

    return call


def child(kind: str, case: Path, width: float, wavelet: bool, repeats: int) -> None:
    """Print one engine's figures and values of one image as JSON."""
    started = time.process_time()
    call = {"fastrad": by_fastrad, "mirp": by_mirp}[kind](case, width) if kind in ("fastrad", "mirp") else by_names(
        kind, case, width, wavelet)
    values = call()
    first, cpu, wall, same = time.process_time() - started, [], [], True
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        same &= call() == values
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print("RESULT" + json.dumps({"cpu": min(cpu), "wall": min(wall), "first": first, "peak": peak,
                                 "same": same, "values": values}))


def ask(python: str, kind: str, case: Path, width: float, wavelet: bool, repeats: int) -> dict | str:
    """What a child says, or the last line of its complaint."""
    words = [python, __file__, "--child", kind, str(case), str(width), str(int(wavelet)), str(repeats)]
    sources = {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    environment = dict(os.environ) | (sources if kind == "mtdlr" and python == sys.executable else {})
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_S} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(lines[0][6:]) if lines else (done.stderr.strip().splitlines() or ["ended without a word"])[-1]


def plain(name: str) -> str:
    """A name without its spelling: glcm:idm_normalized is original_glcm_IdmNormalized."""
    return name.removeprefix("original").replace("_", "").replace(":", "").lower()


def difference(found: dict[str, float], expected: dict[str, float]) -> tuple[float, str, int]:
    """(largest relative difference, its feature, features that both have)."""
    found = {plain(name): value for name, value in found.items()}
    both = [name for name in expected if plain(name) in found]
    off = [abs(found[plain(k)] - expected[k]) / max(abs(expected[k]), 1e-9) for k in both]
    worst = int(np.nanargmax(off)) if off else 0
    return (off[worst], both[worst], len(both)) if off else (float("nan"), "", 0)


def write_case(folder: Path, patient: str, modality: str, spacing: float) -> Path:
    """One resampled image as arrays and as files."""
    import SimpleITK as sitk
    from bench_radiomics import load

    case = folder / f"{patient}-{modality}-{spacing:g}"
    case.mkdir(exist_ok=True)
    image, mask = load(patient, modality, spacing)
    np.savez(case / "case.npz", image=sitk.GetArrayFromImage(image), mask=sitk.GetArrayFromImage(mask) > 0,
             spacing=np.array(image.GetSpacing()[::-1]))
    for name, one in (("image", image), ("mask", mask)):
        sitk.WriteImage(one, str(case / f"{name}.nii.gz"))
    return case


def main(pythons: dict[str, str], repeats: int, wavelets: list[bool]) -> None:
    """Print a table for each of the two feature sets: engines in turns, image by image."""
    from bench_radiomics import CASES

    with tempfile.TemporaryDirectory() as name:
        cases = [(write_case(Path(name), *case), width) for *case, width in CASES]
        for wavelet in wavelets:
            known = ENGINES[:3] if wavelet else ENGINES
            told: dict[str, list] = {kind: [] for kind in known}
            for case, width in cases:
                for kind in known:
                    found = ask(pythons.get(kind, sys.executable), kind, case, width, wavelet,
                                1 if kind == "mirp" else repeats)
                    told[kind].append(found)
                    print(f"{case.name} {kind}: " + (found if isinstance(found, str) else f"{found['cpu']:.3f} s"),
                          file=sys.stderr, flush=True)
            report(told, "image and eight wavelet bands" if wavelet else "image alone")


def report(told: dict[str, list], what: str) -> None:
    """One row an engine: sums over the images that it did, beside PyRadiomics' on the same images."""
    print(f"\n{what}\n\n| engine | images | CPU s | wall s | PyRadiomics' CPU / its | peak MB | of PyRadiomics' peak | "
          "largest difference (features compared) | same again |\n|---|---|---|---|---|---|---|---|---|")
    oracle = told["pyradiomics"]
    for kind, rows in told.items():
        done = [(row, other) for row, other in zip(rows, oracle, strict=True) if isinstance(row, dict)]
        if not done:
            print(f"| {kind} | 0 | {rows[0]} |")
            continue
        cpu, theirs = (sum(pair[i]["cpu"] for pair in done) for i in (0, 1))
        shares = [row["peak"] / other["peak"] for row, other in done]
        worst = max((difference(row["values"], other["values"]) for row, other in done), key=lambda one: one[0])
        print(f"| {kind} | {len(done)} | {cpu:.3f} | {sum(row['wall'] for row, _ in done):.3f} | {theirs / cpu:.2f} | "
              f"{max(row['peak'] for row, _ in done):.0f} | {min(shares):.2f} to {max(shares):.2f} | {worst[0]:.0e} "
              f"{worst[1]} ({worst[2]}) | {'yes' if all(row['same'] for row, _ in done) else 'no'} |")
        for row in rows:
            if isinstance(row, str):
                print(f"|  | failed | {row} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, kind, case, width, wavelet, repeats = sys.argv[1:]
        child(kind, Path(case), float(width), wavelet == "1", int(repeats))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("pythons", nargs="*", metavar="NAME=PYTHON")
        parser.add_argument("--repeats", type=int, default=2)
        parser.add_argument("--only", choices=["original", "wavelet"])
        given = parser.parse_args()
        main(dict(one.split("=", 1) for one in given.pythons), given.repeats,
             [kind for kind in (False, True) if given.only in (None, ("original", "wavelet")[kind])])
