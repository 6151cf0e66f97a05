"""What is handed out: the wheel is the same bytes whenever it is made, and holds licence, types and templates."""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import mtdlr

ROOT = Path(__file__).parents[1]
HELD = ("mtdlr/py.typed", "mtdlr/nomogram/calculator.js", "mtdlr/report/templates/report.html.j2",
        "mtdlr/report/checklists.tsv", "mtdlr/validate/validation.html.j2", "mtdlr/serve/static/NIIVUE-LICENSE.txt",
        f"mtdlr-{mtdlr.__version__}.dist-info/licenses/LICENSE")


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


def test_the_version_stands_in_one_place() -> None:
    """What cites and archives the software names the package's own version; pyproject.toml reads it."""
    version = mtdlr.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    assert json.loads((ROOT / ".zenodo.json").read_text())["version"] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"mtdlr-{version}-py3-none-any.whl" in (ROOT / "README.md").read_text()


def test_a_release_is_named_everywhere(tmp_path: Path) -> None:
    """The script of `make release` changes version and date in every file that has them, or no file at all."""
    release: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "release.py"))
    for name in release["PLACES"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with pytest.raises(SystemExit):
        release["name_release"](tmp_path, "0.2", "2027-01-31")
    release["name_release"](tmp_path, "0.2.0", "2027-01-31")
    assert '__version__ = "0.2.0"' in (tmp_path / "src" / "mtdlr" / "__init__.py").read_text()
    cited = yaml.safe_load((tmp_path / "CITATION.cff").read_text())
    assert cited["version"] == "0.2.0" and str(cited["date-released"]) == "2027-01-31"
    assert cited["cff-version"] == "1.2.0" and json.loads((tmp_path / ".zenodo.json").read_text())["version"] == "0.2.0"
    assert "## 0.2.0 (2027-01-31)" in (tmp_path / "CHANGELOG.md").read_text()
    kept = {name: (tmp_path / name).read_bytes() for name in release["PLACES"]}
    with pytest.raises(SystemExit, match="CHANGELOG"):  # nothing is unreleased now
        release["name_release"](tmp_path, "0.3.0", "2027-02-28")
    assert kept == {name: (tmp_path / name).read_bytes() for name in release["PLACES"]}


def test_every_licence_is_permissive() -> None:
    """No package that mtdlr brings, as far as it is installed, is under a licence that is not argued for."""
    licences: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "licences.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for extra in licences["EXTRAS"] for text in project["optional-dependencies"][extra]]
    found, _ = licences["needed"](project["dependencies"] + extras)
    verdicts = {name: licences["verdict"](name, licence) for name, licence in found.items()}
    assert len(found) > 20 and [name for name, one in verdicts.items() if one == "not permissive"] == []
    assert licences["verdict"]("x", "MIT AND GPL-3.0-only") == licences["verdict"]("x", "") == "not permissive"


def test_the_citation_follows_the_format() -> None:
    """The fields that CITATION.cff 1.2.0 requires are there; every author has a name."""
    values = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert values["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(values)
    people = values["authors"] + values["references"][0]["authors"]
    assert all({"name"} <= set(one) or {"family-names", "given-names"} <= set(one) for one in people)
