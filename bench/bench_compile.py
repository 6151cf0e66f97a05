"""What the first use of an installation compiles, loop by loop, in CPU seconds.

    OMP_NUM_THREADS=1 python bench/bench_compile.py lasso|cox|bootstrap|features|fisher [--loops 20]

Each run uses an empty kernel cache of its own. A loop's seconds are its own: what the loops that it calls take is
theirs. The same loop compiled for several kinds of arguments is listed once a kind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np


def lasso() -> Callable[[], object]:
    """A Lasso path with cross-validation, as the signature stage fits it."""
    from bench_stats_fit import radiomics

    from mtdlr.stats import Penalties, cross_validate_lasso

    x, surv, _ = radiomics(n=120, p=60)
    return lambda: cross_validate_lasso(x, surv, n_folds=3, penalties=Penalties(n=5))


def cox() -> Callable[[], object]:
    """A Cox model."""
    from bench_stats_fit import radiomics

    from mtdlr.stats import fit_cox

    x, surv, _ = radiomics(n=120, p=60)
    return lambda: fit_cox(x[:, :3], surv)


def bootstrap() -> Callable[[], object]:
    """Validation and calibration by the bootstrap."""
    from bench_stats_fit import radiomics

    from mtdlr.stats import calibrate_bootstrap, validate_bootstrap

    x, surv, _ = radiomics(n=120, p=60)
    return lambda: (validate_bootstrap(x[:, :3], surv, n_resamples=3),
                    calibrate_bootstrap(x[:, :3], surv, 36.0, n_resamples=3))


def fisher() -> Callable[[], object]:
    """Fisher's exact test of a table."""
    from mtdlr.stats import fisher_exact

    return lambda: fisher_exact([[8, 2, 5], [1, 5, 9]])


def features() -> Callable[[], object]:
    """The paper's 1456 features, of PET and CT."""
    from mtdlr.texture import extract, paper1456

    random = np.random.default_rng(0)
    image = random.normal(size=(20, 20, 20)).astype(np.float32) * 40.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[4:16, 5:15, 3:17] = True
    return lambda: extract(image, mask, (3.0, 3.0, 3.0), profile=paper1456(25.0))


def watched(work: Callable[[], object]) -> list[tuple[float, str, str]]:
    """Own CPU seconds, name and argument types of each loop that `work` compiles."""
    from numba.core import event

    open_, found = [], []

    class Watch(event.Listener):
        def on_start(self, happening: event.Event) -> None:
            open_.append([time.process_time(), 0.0])

        def on_end(self, happening: event.Event) -> None:
            start, inner = open_.pop()
            whole = time.process_time() - start
            if open_:
                open_[-1][1] += whole
            dispatcher, args = happening.data["dispatcher"], happening.data["args"]
            found.append((whole - inner, f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__name__}", str(args)))

    with event.install_listener("numba:compile", Watch()):
        work()
    return found


def main(name: str, loops: int) -> None:
    """Compile in an empty cache, tell the loops by their seconds, and call again."""
    work = {"lasso": lasso, "cox": cox, "bootstrap": bootstrap, "features": features, "fisher": fisher}[name]()
    start = time.process_time()
    found = watched(work)
    first = time.process_time() - start
    start = time.process_time()
    work()
    second = time.process_time() - start
    print(f"{name}: first call {first:.1f} CPU s, of which {sum(f[0] for f in found):.1f} compile {len(found)} loops "
          f"({len({f[1] for f in found})} functions); second call {second:.3f}")
    for own, function, args in sorted(found, reverse=True)[:loops]:
        print(f"{own:7.2f}  {function}  {args[:150]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["lasso", "cox", "bootstrap", "features", "fisher"])
    parser.add_argument("--loops", type=int, default=20)
    asked = parser.parse_args()
    if "MTDLR_BENCH_CACHE" not in os.environ:
        folder = tempfile.mkdtemp()
        again = subprocess.run([sys.executable, *sys.argv], env={**os.environ, "NUMBA_CACHE_DIR": folder,
                                                                 "MTDLR_BENCH_CACHE": "empty"}, check=False)
        shutil.rmtree(folder)
        sys.exit(again.returncode)
    main(asked.work, asked.loops)
