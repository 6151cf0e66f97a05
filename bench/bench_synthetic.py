"""CPU seconds and peak memory of making and writing synthetic patients. Run: `python bench/bench_synthetic.py`."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mtdlr.synthetic import make_patient
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.synthetic.nifti_writer import write_nifti_patient


def cpu_seconds(work: Callable[[int], object], repeats: int) -> float:
    """Median CPU seconds of `work(seed)`."""
    spent = []
    for seed in range(repeats):
        start = time.process_time()
        work(seed)
        spent.append(time.process_time() - start)
    return sorted(spent)[len(spent) // 2]


def main() -> None:
    """Print one row a task."""
    patient = make_patient(center="B", seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = {
            "make, centre A (CT 81x110x110)": cpu_seconds(lambda seed: make_patient(seed=seed), 15),
            "make, centre B (CT 65x100x100)": cpu_seconds(lambda seed: make_patient(center="B", seed=seed), 15),
            "write NIfTI": cpu_seconds(lambda _: write_nifti_patient(folder, patient), 9),
            "write DICOM + RTSTRUCT": cpu_seconds(
                lambda _: write_dicom_patient(folder, patient, contour="rtstruct"), 9),
            "write DICOM + SEG": cpu_seconds(lambda _: write_dicom_patient(folder, patient, contour="seg"), 9),
            "make, near clinical voxels (scale 0.5)": cpu_seconds(lambda s: make_patient(voxel_scale=0.5, seed=s), 3),
            "make, whole body (CT 300x512x512)": cpu_seconds(lambda s: make_patient(field="whole_body", seed=s), 1),
        }
    print("| task | CPU s |\n|---|---|")
    for task, seconds in rows.items():
        print(f"| {task} | {seconds:.2f} |")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
