"""`mtdlr check` on thousands of whole study folders with something wrong in them: how many end in a traceback.

    python bench/bench_fuzz.py [--cases 3000] [--first 0]

Prints each case that raised, by its number (`tests/folder_fuzz.py` makes it again), and a count of all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import folder_fuzz as folders


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    seen: Counter[str] = Counter()
    began, longest, raised = time.monotonic(), (0.0, 0), 0
    with tempfile.TemporaryDirectory() as place:
        bases = folders.bases(Path(place) / "bases")
        for seed in range(asked.first, asked.first + asked.cases):
            start = time.monotonic()
            try:
                seen[folders.run_one(bases[seed % 3], Path(place) / "case", seed)] += 1
            except Exception as error:
                raised += 1
                where = " < ".join(f"{Path(f.filename).name}:{f.lineno}"
                                   for f in traceback.extract_tb(error.__traceback__)[::-1][:5])
                print(f"case {seed}: {type(error).__name__}: {str(error)[:120]} {where}", flush=True)
            longest = max(longest, (time.monotonic() - start, seed))
    print(f"{asked.cases} cases, {raised} uncaught, {len(seen)} different outcomes, {seen['fine']} fine, "
          f"{time.monotonic() - began:.0f} s, longest {longest[0]:.1f} s (case {longest[1]})")


if __name__ == "__main__":
    main()
