"""What is handed out: the wheel is the same bytes whenever it is made, and holds licence, types and templates."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELD = ("mtdlr/py.typed", "mtdlr/nomogram/calculator.js", "mtdlr/report/templates/report.html.j2",
        "mtdlr/report/checklists.tsv", "mtdlr/validate/validation.html.j2", "mtdlr/serve/static/NIIVUE-LICENSE.txt",
        "mtdlr-0.1.0.dist-info/licenses/LICENSE")


def test_a_source_archive_loses_who_made_it_and_when(tmp_path: Path) -> None:
    """Two archives of the same files, made by others at other times in another order, become the same bytes."""
    made = []
    for owner, names in (("a", ["x/one", "x/two"]), ("b", ["x/two", "x/one"])):
        path = tmp_path / f"{owner}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uname = 3, time.time() + len(made) * 100, owner
                archive.addfile(member, io.BytesIO(b"abc"))
        subprocess.run([sys.executable, str(ROOT / ".ci" / "repack.py"), str(path)], check=True,
                       env={**os.environ, "SOURCE_DATE_EPOCH": "1764288000"})
        made.append(path.read_bytes())
    assert made[0] == made[1]
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["x/one", "x/two"] and archive.extractfile("x/one").read() == b"abc"  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_wheel(tmp_path: Path) -> None:
    """The wheel of this folder's sources holds what a bare environment needs, and every package of the sources."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    code = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True,
                   env={**os.environ, "SOURCE_DATE_EPOCH": "1764288000"})
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert set(HELD) <= held
    assert {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "mtdlr").rglob("*.py")} <= held
