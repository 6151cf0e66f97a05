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

from mtdlr.cli.compiling import LOOPS


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
    work = LOOPS[name]()
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
    parser.add_argument("work", choices=list(LOOPS))
    parser.add_argument("--loops", type=int, default=20)
    asked = parser.parse_args()
    if "MTDLR_BENCH_CACHE" not in os.environ:
        folder = tempfile.mkdtemp()
        again = subprocess.run([sys.executable, *sys.argv], env={**os.environ, "NUMBA_CACHE_DIR": folder,
                                                                 "MTDLR_BENCH_CACHE": "empty"}, check=False)
        shutil.rmtree(folder)
        sys.exit(again.returncode)
    main(asked.work, asked.loops)
