"""Speed of all of mtdlr.stats against its peers, in one run on one core: the two halves, one after the other.

    OMP_NUM_THREADS=1 python bench/bench_stats.py

The first half is bench_stats_fit.py (lasso, Cox, bootstrap), the second bench_stats_eval.py (concordance, curves,
scores, tables); each runs alone too. Needs the extra `oracles`.
"""

from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    del sys.argv[1:]
    for half in ("bench_stats_fit.py", "bench_stats_eval.py"):
        runpy.run_path(str(Path(__file__).with_name(half)), run_name="__main__")
