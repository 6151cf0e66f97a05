"""Name a release: python .ci/release.py VERSION YYYY-MM-DD.

The version stands in src/mtdlr/__init__.py, from where pyproject.toml takes it. This script writes it, with the date,
into the files that cannot read it, and closes the changelog's part of what is unreleased.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "src/mtdlr/__init__.py": [(r'^__version__ = ".*"$', '__version__ = "{version}"')],
    "CITATION.cff": [(r"^version: .*$", "version: {version}"), (r"^date-released: .*$", "date-released: {date}")],
    ".zenodo.json": [(r'^  "version": ".*",$', '  "version": "{version}",')],
    "README.md": [(r"mtdlr-[\w.]+-py3-none-any\.whl", "mtdlr-{version}-py3-none-any.whl")],
    "CHANGELOG.md": [(r"^## \S+ \(unreleased\)$", "## {version} ({date})")],
}


def name_release(root: Path, version: str, date: str) -> None:
    """Write a version and its date into every file that shows them.

    Args:
        root: the repository.
        version: as 0.2.0, 0.2.0rc1.
        date: of the release, YYYY-MM-DD.

    Raises:
        SystemExit: for a version or date of another form, or a file without its line; then no file is changed.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version) or not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        sys.exit(f"not a version and a date: {version} {date}")
    written = {}
    for name, lines in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        for pattern, line in lines:
            text, found = re.subn(pattern, line.format(version=version, date=date), text, flags=re.MULTILINE)
            if not found:
                sys.exit(f"{name}: no line like {pattern}")
        written[name] = text
    for name, text in written.items():
        (root / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    name_release(ROOT, *sys.argv[1:])
