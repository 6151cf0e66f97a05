"""CPU seconds and memory of the radiomics engine and of PyRadiomics on real patients, in the same run, one core.

Usage: python bench/bench_radiomics.py [--memory | --commands | --workers | --cache | --first BIN ...] [--repeats N]
       [--page PAGE]

Without an option: the speed table, which --page writes between its marks. --memory: peak of a process that imports one
engine and extracts one case from arrays. --commands: `mtdlr features` and `pyradiomics` on the same files and parameter
file. --workers: two processes against one over all patients, CT at 1 mm. --cache: four first uses at the same moment.
--first: the first `mtdlr features` of an installation and the next, for the `bin` folder of each environment given.

Features and filters of profile paper1456 (720 of the image and 16 of shape) on images that PyRadiomics resampled
(cubic B-spline), float32 arrays in memory; reading files and resampling are left out. Needs ../shared/data/sts and the
extra [oracles]. CPU time is the best of N (default 3) for both.
"""
# ruff: noqa: E402  (thread counts must be set before the libraries are imported)

from __future__ import annotations

import argparse
import json
import logging
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[name] = "1"

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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


def speed(repeats: int, page: Path | None) -> None:
    """Print the speed table, and put it between the marks of a page."""
    rows = ["| patient | image | voxels | ours, CPU s | PyRadiomics, CPU s | ratio | largest relative difference |",
            "|---|---|---|---|---|---|---|"]
    print("\n".join(rows))
    totals = np.zeros(2)
    for patient, modality, spacing, width in CASES:
        image, mask = load(patient, modality, spacing)
        mine, other = ours(image, mask, width), theirs(image, mask, width)
        found, expected = mine(), other()
        difference = max(abs(found[k] - v) / max(abs(v), 1e-9) for k, v in expected.items())
        times = np.array([best(mine, repeats), best(other, repeats)])
        totals += times
        voxels = int((sitk.GetArrayViewFromImage(mask) > 0).sum())
        rows.append(f"| {patient} | {modality} {spacing:g} mm | {voxels} | {times[0]:.3f} | {times[1]:.3f} | "
                    f"{times[1] / times[0]:.1f} | {difference:.0e} |")
        print(rows[-1], flush=True)
    rows.append(f"| all | | | {totals[0]:.3f} | {totals[1]:.3f} | {totals[1] / totals[0]:.1f} | |")
    print(rows[-1])
    if page:
        before, rest = page.read_text().split("<!-- speed -->\n")
        page.write_text(before + "<!-- speed -->\n" + "\n".join(rows) + "\n<!-- /speed -->"
                        + rest.split("<!-- /speed -->")[1])


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
    start, used = time.perf_counter(), time.process_time()
    texture.extract(image, abs(image) > 1, (1.0, 1.0, 1.0), profile=texture.paper1456(25.0))
    print(f"{time.perf_counter() - start:.3f} {time.process_time() - used:.3f}")
"""


def first_call() -> None:
    """Print what the first and the second call in a new process take, with a warm compilation cache."""
    run(CALLS)
    first, first_cpu, second, second_cpu = run(CALLS).split()
    print(f"first call in a new process {first} s, second {second} s (wall); {first_cpu} and {second_cpu} s of CPU")


def command(*words: str, **variables: str) -> tuple[float, float, float]:
    """(wall s, CPU s, peak MB of the largest process) of a command (of this environment, or a path)."""
    start = time.perf_counter()
    child = subprocess.Popen([str(Path(sys.executable).parent / words[0]), *words[1:]], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=os.environ | variables)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, words
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def cases(folder: Path, patients: Sequence[str], times: int = 1) -> Path:
    """A table of CT images and masks; each of `times` modalities is a result of its own."""
    rows = [f"{p}-{k},{DATA / p / 'CT_image.nii.gz'},{DATA / p / 'CT_mask.nii.gz'},{'CT' if k == 0 else f'again {k}'}"
            for k in range(times) for p in patients]
    (folder / "cases.csv").write_text("\n".join(["ID,Image,Mask,Modality", *rows]) + "\n")
    return folder / "cases.csv"


def parameters(folder: Path, spacing: float) -> Path:
    """The features of paper1456 as a parameter file for both."""
    features = {name: list(names) for name, names in texture.paper1456(25.0).features.items()}
    (folder / "own.yaml").write_text(json.dumps({
        "setting": {"binWidth": 25, "resampledPixelSpacing": [spacing] * 3, "additionalInfo": False},
        "imageType": {"Original": {}, "Wavelet": {}}, "featureClass": features}))
    return folder / "own.yaml"


def commands() -> None:
    """Print what both command lines take for one patient's files, from start to table."""
    print("| case | ours, MB | PyRadiomics, MB | ours, CPU s | PyRadiomics, CPU s |\n|---|---|---|---|---|")
    for patient, spacing in (("STS_001", 1.0), ("STS_001", 2.0), ("STS_002", 1.0), ("STS_008", 1.0), ("STS_008", 2.0)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            table, own = str(cases(folder, [patient])), str(parameters(folder, spacing))
            _, mine, our_peak = command("mtdlr", "features", table, "-o", f"{folder}/a.csv", "--profile", own)
            _, other, their_peak = command("pyradiomics", table, "-o", f"{folder}/b.csv", "-f", "csv", "--param", own)
        print(f"| {patient} CT {spacing:g} mm | {our_peak:.0f} | {their_peak:.0f} | {mine:.2f} | {other:.2f} |",
              flush=True)


def first_command(places: Sequence[Path], repeats: int) -> None:
    """Print what the first `mtdlr features` of one patient takes with nothing compiled yet, and what the next does."""
    print("| environment | first: wall s | CPU s | MB | next: wall s | CPU s | MB |\n|---|---|---|---|---|---|---|")
    for place in [*places] * repeats:
        with tempfile.TemporaryDirectory() as name:
            table, row = str(cases(Path(name), ["STS_002"])), []
            for which in ("a", "b"):
                row += command(str(place.resolve() / "mtdlr"), "features", table, "-o", f"{name}/{which}.csv",
                               NUMBA_CACHE_DIR=f"{name}/loops")
        print(f"| {place} | " + " | ".join(f"{value:.{1 if k % 3 < 2 else 0}f}" for k, value in enumerate(row)) + " |",
              flush=True)


def workers(repeats: int) -> None:
    """Print wall and CPU seconds of one process and of two over 108 CT (36 patients, three times) at 1 mm, in turns.

    On a machine where others work, wall says who else was there. The path is what the run would take with a core for
    each process: the CPU seconds of the parent and of its busiest worker, which start one after the other.
    """
    patients = sorted(path.name for path in DATA.iterdir())
    print("| processes | wall s | CPU s, all | CPU s, path | runnable before |\n|---|---|---|---|---|")
    paths: dict[int, list[float]] = {1: [], 2: []}
    for count in (1, 2) * repeats:
        runnable = Path("/proc/loadavg").read_text().split()[3].split("/")[0]
        with tempfile.TemporaryDirectory() as name:
            start = time.perf_counter()
            child = subprocess.Popen([
                str(Path(sys.executable).with_name("mtdlr")), "features", str(cases(Path(name), patients, 3)), "-o",
                f"{name}/a.csv", "--spacing-mm", "1", "--workers", str(count)], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL)
            used: dict[int, float] = {}
            while child.poll() is None:
                used |= family(child.pid)
                time.sleep(0.3)
        wall, parent = time.perf_counter() - start, used.pop(child.pid)
        paths[count].append(parent + max(used.values(), default=0.0))
        print(f"| {count} | {wall:.1f} | {parent + sum(used.values()):.1f} | {paths[count][-1]:.1f} | {runnable} |",
              flush=True)
    print(f"two against one: {min(paths[1]) / min(paths[2]):.2f} times by the least path of each")


def family(pid: int) -> dict[int, float]:
    """CPU seconds so far of a process and of its children."""
    found = {}
    try:
        for one in (str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            words = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            found[int(one)] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:  # it ended between two looks
        pass
    return found


def cache() -> None:
    """Print the wall seconds of four processes that compile everything into one empty cache at the same moment."""
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "NUMBA_CACHE_DIR": name, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        start = time.perf_counter()
        started = [subprocess.Popen([sys.executable, "-c", CALLS], env=environment, stdout=subprocess.DEVNULL)
                   for _ in range(4)]
        codes = [process.wait() for process in started]
        print(f"four first uses together: exit codes {codes}, {time.perf_counter() - start:.0f} s, "
              f"{len(list(Path(name).rglob('*.nbc')))} loops cached")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--memory", "--commands", "--workers", "--cache"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--first", type=Path, nargs="+", metavar="BIN")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    if arguments.memory:
        memory()
        first_call()
    elif arguments.first:
        first_command(arguments.first, arguments.repeats)
    elif arguments.commands:
        commands()
    elif arguments.workers:
        workers(arguments.repeats)
    elif arguments.cache:
        cache()
    else:
        speed(arguments.repeats, arguments.page)
