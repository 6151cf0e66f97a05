"""The conformance table of docs/radiomics.md: each row is made by the tests it names, and checked by them.

A test tells the fixture `conforms` how many values agreed. When every case of a row has run, the row must stand in the
page as counted; `pytest tests/test_texture_*.py tests/test_radiomics_diagnostics.py --conformance` writes it instead.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "radiomics.md"
START, END = "<!-- conformance -->\n", "<!-- /conformance -->"
HEAD = "| compared with | values that agree | allowed | test |\n|---|---|---|---|\n"
IBSI = "consensus tolerance; to the three printed digits where it is 0"
ROWS: dict[str, tuple[int, str]] = {
    "IBSI 1, digital phantom, all six aggregations": (1, IBSI),
    **{f"IBSI 1, configuration {letter} of the CT phantom": (1, IBSI) for letter in "ABCDE"},
    "IBSI 2, response maps of LoG (3) and separable wavelets (6)": (9, "1 % of the map's range"),
    "nine teams' medians, 4 real patients, PET and CT": (8, "1 %"),
    "the same": (8, "0.1 %"),
    "PyRadiomics 3.1.4, 720 + 16 of `paper1456`, three dtypes, two bin widths": (6, "1e-6 relative"),
    "PyRadiomics 3.1.4, all 846 of original and wavelet and 17 of shape, deprecated ones too": (1, "1e-6 relative"),
    "PyRadiomics 3.1.4, its default set (837 + 14), three odd regions": (3, "1e-6 relative"),
    "PyRadiomics 3.1.4, 24 settings of parameter files": (24, "1e-6 relative"),
    "PyRadiomics 3.1.4, 9 filters, three dtypes": (27, "1e-6 relative; LoG 1e-5"),
    "PyRadiomics 3.1.4, its 8 example parameter files": (
        8, "1e-6 relative, Mean and Median of a tenth of the range; LoG 1e-5"),
    "PyRadiomics 3.1.4, maps voxel by voxel, 4 settings": (4, "1e-6 relative, at every voxel"),
    "PyRadiomics 3.1.4, `diagnostics_Image-*` and `diagnostics_Mask-*`, 4 settings": (4, "1e-6 relative; hashes exact"),
}
"""Row -> (cases that must have run, what is allowed)."""
_counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
_made: dict[str, str] = {}


def count(label: str, agreeing: int, compared: int, *, test: str, writing: bool) -> None:
    """Add one case to a row; when it is complete, hold the page to it."""
    cases, allowed = ROWS[label]
    _counts[label].append((agreeing, compared))
    if len(_counts[label]) < cases:
        return
    agree, of = (sum(column) for column in zip(*_counts.pop(label), strict=True))
    _made[label] = f"| {label} | {agree} of {of} | {allowed} | {test} |\n"
    if not writing:
        assert _made[label] in table(), f"docs/radiomics.md is stale, write it with --conformance: {_made[label]}"


def table() -> str:
    """The table as it stands in the page."""
    return PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]


def labels() -> list[str]:
    """What the page's rows are about."""
    return [line.split(" | ")[0].removeprefix("| ") for line in table().splitlines()[2:]]


def write() -> None:
    """Put the rows that were made into the page; rows that did not run stay as they are."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    old = dict(zip(labels(), table().splitlines(keepends=True)[2:], strict=True))
    rows = [_made.get(label) or old[label] for label in ROWS if label in _made or label in old]
    PAGE.write_text(before + START + HEAD + "".join(rows) + END + rest.split(END)[1], encoding="utf-8")
