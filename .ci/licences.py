"""Print the licence of every package that mtdlr imports with all its extras, and fail on one that is not permissive.

Usage: python .ci/licences.py. It follows what is installed beside the interpreter; a package that is not installed is
named, and fails the check.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("networks", "dicom", "docs-out", "cluster", "web", "jpeg", "itk")
"""Extras whose packages the code imports; docs, oracles and dev are tools beside it."""
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Zlib|CC0)\b", re.IGNORECASE)
RECIPROCAL = re.compile(r"\b[AL]?GPL|General Public|\bMPL|Mozilla|EUPL|CeCILL|proprietary", re.IGNORECASE)
ALLOWED = {
    "pyphen": "GPL 2+, LGPL 2.1+ or MPL 1.1 at choice; WeasyPrint takes it under MPL, unchanged",
    "certifi": "MPL 2.0: a list of certificates, unchanged, which requests brings",
}
"""Packages whose licence text names a reciprocal one, each argued."""


def licence_of(metadata: PackageMetadata) -> str:
    """The licence in a line: the SPDX expression, the classifiers or the first line of the licence field."""
    classifiers = metadata.get_all("Classifier") or ()
    listed = [name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License ::")]
    text = metadata.get("License-Expression") or "; ".join(listed) or metadata.get("License") or ""
    return text.strip().split("\n")[0]


def verdict(name: str, licence: str) -> str:
    """`permissive`, `argued` or `not permissive`.

    >>> verdict("x", "BSD-3-Clause"), verdict("x", "GPL-3.0-only"), verdict("pyphen", "GPL-2.0-or-later")
    ('permissive', 'not permissive', 'argued')
    """
    if PERMISSIVE.search(licence) and not RECIPROCAL.search(licence):
        return "permissive"
    return "argued" if name in ALLOWED else "not permissive"


def needed(requirements: list[str]) -> tuple[dict[str, str], set[str]]:
    """({package: licence} of all that requirements bring, transitively; names that are not installed)."""
    found: dict[str, str] = {}
    absent: set[str] = set()
    todo = [(Requirement(text), "") for text in requirements]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        wanted = requirement.marker is None or requirement.marker.evaluate(default_environment() | {"extra": extra})
        if not wanted or key in seen:
            continue
        seen.add(key)
        try:
            held = distribution(requirement.name)
        except PackageNotFoundError:
            absent.add(name)
            continue
        found[name] = licence_of(held.metadata)
        todo += [(Requirement(text), one) for text in held.requires or () for one in ("", *requirement.extras)]
    return found, absent


def main() -> None:
    """Print the table; the exit status is 1 where something is not permissive or not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    found, absent = needed(asked)
    rows = {name: verdict(name, licence) for name, licence in found.items()}
    for name in sorted(found):
        print(f"{name:<28} {rows[name]:<15} {found[name][:80] or 'nothing stated'}"
              + (f"  [{ALLOWED[name]}]" if rows[name] == "argued" else ""))
    bad = sorted({name for name, row in rows.items() if row == "not permissive"} | absent)
    print(f"{len(found)} packages; not permissive or not installed: {', '.join(bad) or 'none'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
