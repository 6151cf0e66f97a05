"""Masks filled, shrunk, opened and drawn: how it is done now beside how it was, in pairs on one synthetic patient.

    python bench/bench_pictures.py [--repeats 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from contourpy import contour_generator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from mtdlr.imaging.slices import eroded, filled_slices, opened
from mtdlr.report.figures.scans import _line_around
from mtdlr.synthetic.patient import make_patient


def pair(name: str, before: Callable[[], object], after: Callable[[], object], repeats: int) -> None:
    """Median processor milliseconds of both, in turns, and the median of the ratios."""
    spent = []
    for _ in range(repeats):
        times = []
        for work in (before, after):
            start = time.process_time()
            work()
            times.append(1e3 * (time.process_time() - start))
        spent.append(times)
    old, new = (statistics.median(column) for column in zip(*spent, strict=True))
    ratio = statistics.median(one[1] / one[0] for one in spent)
    print(f"{name}: before {old:.2f} ms, now {new:.2f} ms, ratio {ratio:.2f}")


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    patient = make_patient(seed=1)
    body = np.asarray(patient.ct.array) > -300
    assert np.array_equal(filled_slices(body), [ndimage.binary_fill_holes(plane) for plane in body])
    pair(f"holes of {len(body)} slices of {body.shape[1]} x {body.shape[2]}",
         lambda: np.stack([ndimage.binary_fill_holes(plane) for plane in body]), lambda: filled_slices(body), repeats)
    assert np.array_equal(eroded(body, 3), ndimage.binary_erosion(body, iterations=3))
    pair("erosion, three times", lambda: ndimage.binary_erosion(body, iterations=3), lambda: eroded(body, 3), repeats)
    assert np.array_equal(opened(body, 2), ndimage.binary_opening(body, iterations=2))
    pair("opening, twice", lambda: ndimage.binary_opening(body, iterations=2), lambda: opened(body, 2), repeats)
    mask = ndimage.gaussian_filter((np.hypot(*np.indices((146, 146)) - 73.0) < 20).astype(float), 1.0)

    def drawn(way: str) -> None:
        figure = Figure(figsize=(2, 2), dpi=150)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(mask)
        start = time.process_time()
        for _ in range(12):
            if way == "contour":
                axes.contour(mask, levels=[0.5], colors=["white"], linewidths=0.8)
            else:
                _line_around(axes, contour_generator(z=mask), "white", "-")
        made[way].append(1e3 * (time.process_time() - start) / 12)
        figure.canvas.draw()

    made: dict[str, list[float]] = {"contour": [], "line": []}
    pair("a picture with twelve contours, made and drawn", lambda: drawn("contour"), lambda: drawn("line"), repeats)
    before, after = (statistics.median(times) for times in made.values())
    print(f"one contour, made alone: before {before:.2f} ms, now {after:.2f} ms, ratio {after / before:.2f}")


if __name__ == "__main__":
    main()
