"""The command line: each error one line with its code and exit status, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _mtdlr(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-m", "mtdlr", *arguments], capture_output=True, text=True, cwd=cwd,
                          env=environment, check=False)


def test_help_names_every_verb() -> None:
    """`--help` lists the verbs and says that this is for research only."""
    done = _mtdlr("--help")
    assert done.returncode == 0 and "not a medical device" in " ".join(done.stdout.split())
    for verb in ("demo", "init", "check", "run", "status", "predict", "features", "doctor"):
        assert verb in done.stdout


def test_init_writes_a_study_that_check_understands(tmp_path: Path) -> None:
    """The study file of `init` is valid; `check` then says what is missing, in one line, and writes nothing."""
    assert _mtdlr("init", str(tmp_path)).returncode == 0
    before = sorted(tmp_path.rglob("*"))
    done = _mtdlr("check", str(tmp_path / "study.toml"))
    assert done.returncode == 2 and "E-NOTABLE" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert _mtdlr("init", str(tmp_path)).returncode == 2


@pytest.mark.slow  # five processes
@pytest.mark.parametrize(("arguments", "code"), [
    (("run", "nowhere.toml"), "E-NOSTUDY"), (("check", "nowhere.toml"), "E-NOSTUDY"),
    (("predict", "nowhere", "nobody"), "E-NOBUNDLE"), (("run", "nowhere.toml", "--until", "lunch"), "E-STAGENAME"),
    (("predict", "nowhere", "nobody", "--clinical", "stage"), "E-"),
])
def test_each_mistake_is_one_line(arguments: tuple[str, ...], code: str, tmp_path: Path) -> None:
    """A user's mistake exits 2 with one line that holds the code, and leaves nothing behind."""
    done = _mtdlr(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    lines = (done.stderr + (done.stdout if arguments[0] == "check" else "")).strip().splitlines()
    assert code in lines[2 if arguments[0] == "check" else 0] and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_json_is_json(tmp_path: Path) -> None:
    """`--json` prints JSON and nothing else on standard output."""
    assert json.loads(_mtdlr("doctor", "--json").stdout)["mtdlr"]
    found = json.loads(_mtdlr("check", str(tmp_path / "no.toml"), "--json").stdout)
    assert found["problems"][0]["code"] == "E-NOSTUDY"


def test_status_before_anything_ran(tmp_path: Path) -> None:
    """`status` of a study that never ran says so."""
    (tmp_path / "study.toml").write_text("")
    done = _mtdlr("status", str(tmp_path / "study.toml"))
    assert done.returncode == 0 and "not started" in done.stdout


def test_the_sts_example_is_clean() -> None:
    """The real study of 36 patients passes `check` with its two missing grades and its few events as warnings."""
    if not (ROOT.parent / "shared" / "data" / "sts").is_dir():
        pytest.skip("the real patients of ../shared/data/sts are not here")
    done = _mtdlr("check", str(ROOT / "examples" / "sts.toml"))
    assert done.returncode == 0, done.stdout
    assert "W-MISSING" in done.stdout and "STS_040, STS_051" in done.stdout


def test_sample_sizes_for_development_are_printed() -> None:
    """`samplesize development` prints pmsampsize's numbers, and a value out of range is one line with its code."""
    arguments = ("samplesize", "development", "--parameters", "25", "--rate", "0.065", "--horizon", "2",
                 "--follow-up", "2.07")
    done = _mtdlr(*arguments, "--r2", "0.051")
    assert done.returncode == 0 and "4,286" in done.stdout and "866" in done.stdout and "23.07" in done.stdout
    wrong = _mtdlr(*arguments, "--r2", "0.9")
    assert wrong.returncode == 2 and wrong.stderr.startswith("E-SAMPLESIZE") and wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_sample_sizes_for_validation_are_written(tmp_path: Path) -> None:
    """`samplesize validation` prints JSON and writes a table with a row a size, and the figure."""
    done = _mtdlr("samplesize", "validation", "--c", "0.75", "--risk", "0.3", "--json", "-o", str(tmp_path))
    found = json.loads(done.stdout)
    assert found["widths"]["c"][0] > found["widths"]["c"][-1]
    assert 200 < found["needed"]["c"] < 500
    assert (tmp_path / "validation_size.csv").read_text().count("\n") == 1 + len(found["sizes"])
    assert "<svg" in (tmp_path / "validation_size.svg").read_text()
