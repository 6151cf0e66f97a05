"""What is handed out: the wheel is the same bytes whenever it is made, and holds licence, types and templates."""

from __future__ import annotations

import io
import json
import os
import platform
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
FIXED = {**os.environ, "SOURCE_DATE_EPOCH": "1764288000"}


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
                       env=FIXED)
        made.append(path.read_bytes())
    assert made[0] == made[1]
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["x/one", "x/two"] and archive.extractfile("x/one").read() == b"abc"  # type: ignore[union-attr]


FEATURES = """
import json, sys
import numpy as np
from mtdlr.texture import FEATURES, Filter, Profile, eigen, extract, feature_maps, spline_along
image = np.random.default_rng(0).normal(size=(9, 10, 11)) * 40
mask = np.zeros(image.shape, bool)
mask[2:7, 2:8, 2:9] = image[2:7, 2:8, 2:9] > -50
names = {key: tuple(value) for key, value in FEATURES.items()}
kinds = ("original", "wavelet", "log", "gradient", "square", "squareroot", "logarithm", "exponential", "lbp2d")
every = Profile(names, filters=tuple(Filter(kind, sigmas_mm=(1.0,) if kind == "log" else ()) for kind in kinds))
plane = mask & (np.arange(9) == 4)[:, None, None]
found = [extract(image.astype(dtype), region, (1.0, 1.5, 2.0), profile=every)
         for dtype in (np.float32, np.float64, np.int16) for region in (mask, plane)]
found += [spline_along(image, axis, np.arange(3) + 0.3).tolist() for axis in range(3)]
loaded = "numba" in sys.modules
other = eigen.second_largest(np.asfortranarray(np.diag([3.0, 2.0, 1.0])))  # of a layout that no wheel was made for
print(json.dumps({"loaded": loaded, "numba": "numba" in sys.modules, "found": found, "other": other}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure wheel of this folder's sources."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    code = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True, env=FIXED)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel(wheel: Path) -> None:
    """The wheel of this folder's sources holds what a bare environment needs, and every package of the sources."""
    held = set(zipfile.ZipFile(wheel).namelist())
    assert set(HELD) <= held and not [name for name in held if name.endswith(".so")]
    assert {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "mtdlr").rglob("*.py")} <= held


@pytest.mark.slow
@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64") or not shutil.which("cc"),
                    reason="the wheel of a platform is made on Linux, x86-64, with a C compiler")
def test_the_wheel_of_this_platform(wheel: Path, tmp_path: Path) -> None:
    """It has this Python's and platform's tags and the pure wheel's files. Its loops give numba's features to the bit,
    and numba is not loaded; what it does not hold, and every loop after a change of a source, is compiled by numba."""
    pytest.importorskip("wheel")
    subprocess.run([sys.executable, str(ROOT / ".ci" / "platform_wheel.py"), str(wheel), str(tmp_path)], check=True,
                   capture_output=True, env=FIXED)
    (made,) = tmp_path.glob("*.whl")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert made.name == f"mtdlr-{mtdlr.__version__}-{python}-{python}-linux_x86_64.whl"
    with zipfile.ZipFile(made) as archive:
        (added,) = set(archive.namelist()) - set(zipfile.ZipFile(wheel).namelist())
        assert added.startswith("mtdlr/texture/_loops.") and added.endswith(".so")
        about = archive.read(f"mtdlr-{mtdlr.__version__}.dist-info/WHEEL").decode()
        assert f"Tag: {python}-{python}-linux_x86_64" in about and "Root-Is-Purelib: false" in about
        assert "none-any" not in about
        archive.extractall(tmp_path / "new")
    ours, new = (_printed(FEATURES, sources) for sources in (ROOT / "src", tmp_path / "new"))
    assert (new.pop("loaded"), ours.pop("loaded")) == (False, True)
    assert json.dumps(new) == json.dumps(ours) and new["numba"] and new["other"] == pytest.approx(2.0)
    with (tmp_path / "new" / "mtdlr" / "texture" / "eigen.py").open("a") as file:
        file.write("# changed\n")
    code = "import json, sys, mtdlr.texture; print(json.dumps({'loaded': 'numba' in sys.modules}))"
    assert _printed(code, tmp_path / "new") == {"loaded": True}


def _printed(code: str, sources: Path) -> dict[str, Any]:
    """What a process with these sources prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(sources)})
    return dict(json.loads(done.stdout))


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
