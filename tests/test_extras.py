"""What works without the optional packages, and what a user reads where one is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mtdlr
from mtdlr.errors import MtdlrError
from mtdlr.versions import EXTRAS, missing_extra, require_extra

HIDDEN = sorted({name for names in EXTRAS.values() for name in names})
HIDE = f"""
import sys
class Hide:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN!r} else self.finder.find_spec(name, path, target)
sys.meta_path = [Hide(finder) for finder in sys.meta_path]
"""


def _run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE + code, *args], capture_output=True, text=True)


@pytest.mark.slow
def test_a_public_name_that_needs_an_extra_names_it() -> None:
    """`mtdlr.Bundle` without torch is one typed problem with the line that installs it."""
    done = _run("import mtdlr\ntry: mtdlr.Bundle\nexcept mtdlr.MtdlrError as error: print(error)")
    assert done.stdout.startswith("E-EXTRA") and "pip install 'mtdlr[networks]'" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "extra"), [(["predict", "bundle", "patient"], "networks"),
                                             (["demo", "folder"], "networks"), (["serve", "bundle"], "web")])
def test_a_verb_that_needs_an_extra_names_it(verb: list[str], extra: str, tmp_path: Path) -> None:
    """A verb that needs an extra ends with status 2 and one line, and leaves nothing behind."""
    words = [verb[0], *(str(tmp_path / place) for place in verb[1:])]
    done = _run(f"import mtdlr.cli; sys.argv[1:] = {words!r}; mtdlr.cli.main()")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and f"mtdlr[{extra}]" in done.stderr
    assert not list(tmp_path.iterdir())


def test_doctor_answers_without_networks() -> None:
    """`mtdlr doctor` says that networks are not installed instead of failing."""
    done = _run("import mtdlr.cli; sys.argv[1:] = ['doctor']; mtdlr.cli.main()")
    assert done.returncode == 0, done.stderr
    assert "none, without mtdlr[networks]" in done.stdout


def test_a_missing_package_is_an_extra_or_none() -> None:
    """Only the packages of an extra are explained by one; an extra that is there passes."""
    problem = missing_extra(ModuleNotFoundError("", name="highdicom.seg"))
    assert problem is not None and problem.code == "E-EXTRA" and "mtdlr[dicom]" in problem.remedy
    assert missing_extra(ImportError("")) is None
    require_extra("networks", "this test")


def test_require_extra_says_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line begins with what the user wanted to do."""
    monkeypatch.setattr("mtdlr.versions.find_spec", lambda name: None)
    with pytest.raises(MtdlrError, match=r"E-EXTRA the demo needs the package highdicom.*pip install 'mtdlr\[dicom\]'"):
        require_extra("dicom", "the demo")


def test_the_version_is_one() -> None:
    """CITATION.cff and .zenodo.json carry the version of the package, and pyproject.toml reads it there."""
    root = Path(__file__).parents[1]
    assert f"version: {mtdlr.__version__}\n" in (root / "CITATION.cff").read_text()
    assert f'"version": "{mtdlr.__version__}"' in (root / ".zenodo.json").read_text()
    assert 'version = { attr = "mtdlr.__version__" }' in (root / "pyproject.toml").read_text()
