"""The command line: each error one line with its code and exit status, never a traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mtdlr import cli
from mtdlr.errors import MtdlrError
from mtdlr.imaging import nifti
from mtdlr.volume import Volume
from mtdlr.workers.progress import Teller

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mtdlr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command in this process, from its arguments to its exit status: an import of everything costs seconds."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:resource_tracker")
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mtdlr", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.mark.slow  # a process
def test_the_command_is_there() -> None:
    """`python -m mtdlr` in a process of its own: a mistake exits 2 with one line on standard error."""
    done = subprocess.run([sys.executable, "-m", "mtdlr", "run", "nowhere.toml"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("E-NOSTUDY") and done.stderr.count("\n") == 1


def test_help_names_every_verb(mtdlr: Callable[..., Done]) -> None:
    """`--help` lists the verbs and says that this is for research only."""
    done = mtdlr("--help")
    assert done.returncode == 0 and "not a medical device" in " ".join(done.stdout.split())
    for verb in ("demo", "init", "check", "run", "status", "predict", "features", "doctor"):
        assert verb in done.stdout


def test_init_writes_a_study_that_check_understands(tmp_path: Path, mtdlr: Callable[..., Done]) -> None:
    """The study file of `init` is valid; `check` then says what is missing, in one line, and writes nothing."""
    assert mtdlr("init", str(tmp_path)).returncode == 0
    before = sorted(tmp_path.rglob("*"))
    done = mtdlr("check", str(tmp_path / "study.toml"))
    assert done.returncode == 2 and "E-NOTABLE" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert mtdlr("init", str(tmp_path)).returncode == 2


@pytest.mark.parametrize(("arguments", "code"), [
    (("run", "nowhere.toml"), "E-NOSTUDY"), (("check", "nowhere.toml"), "E-NOSTUDY"),
    (("predict", "nowhere", "nobody"), "E-NOBUNDLE"), (("run", "nowhere.toml", "--until", "lunch"), "E-STAGENAME"),
    (("predict", "nowhere", "nobody", "--clinical", "stage"), "E-"),
])
def test_each_mistake_is_one_line(arguments: tuple[str, ...], code: str, tmp_path: Path, mtdlr: Callable[..., Done],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's mistake exits 2 with one line that holds the code, and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    done = mtdlr(*arguments)
    assert done.returncode == 2
    lines = (done.stderr + (done.stdout if arguments[0] == "check" else "")).strip().splitlines()
    assert code in lines[2 if arguments[0] == "check" else 0] and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_json_is_json(tmp_path: Path, mtdlr: Callable[..., Done]) -> None:
    """`--json` prints JSON and nothing else on standard output."""
    assert json.loads(mtdlr("doctor", "--json").stdout)["mtdlr"]
    found = json.loads(mtdlr("check", str(tmp_path / "no.toml"), "--json").stdout)
    assert found["problems"][0]["code"] == "E-NOSTUDY"


def test_status_before_anything_ran(tmp_path: Path, mtdlr: Callable[..., Done]) -> None:
    """`status` of a study that never ran says so."""
    (tmp_path / "study.toml").write_text("")
    done = mtdlr("status", str(tmp_path / "study.toml"))
    assert done.returncode == 0 and "not started" in done.stdout


@pytest.mark.slow
def test_the_sts_example_is_clean(mtdlr: Callable[..., Done]) -> None:
    """The real study of 36 patients passes `check` with its two missing grades and its few events as warnings."""
    if not (ROOT.parent / "shared" / "data" / "sts").is_dir():
        pytest.skip("the real patients of ../shared/data/sts are not here")
    done = mtdlr("check", str(ROOT / "examples" / "sts.toml"))
    assert done.returncode == 0, done.stdout
    assert "W-MISSING" in done.stdout and "STS_040, STS_051" in done.stdout


def test_sample_sizes_for_development_are_printed(mtdlr: Callable[..., Done]) -> None:
    """`samplesize development` prints pmsampsize's numbers, and a value out of range is one line with its code."""
    arguments = ("samplesize", "development", "--parameters", "25", "--rate", "0.065", "--horizon", "2",
                 "--follow-up", "2.07")
    done = mtdlr(*arguments, "--r2", "0.051")
    assert done.returncode == 0 and "4,286" in done.stdout and "866" in done.stdout and "23.07" in done.stdout
    wrong = mtdlr(*arguments, "--r2", "0.9")
    assert wrong.returncode == 2 and wrong.stderr.startswith("E-SAMPLESIZE") and wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_sample_sizes_for_validation_are_written(tmp_path: Path, mtdlr: Callable[..., Done]) -> None:
    """`samplesize validation` prints JSON and writes a table with a row a size, and the figure."""
    done = mtdlr("samplesize", "validation", "--c", "0.75", "--risk", "0.3", "--json", "-o", str(tmp_path))
    found = json.loads(done.stdout)
    assert found["widths"]["c"][0] > found["widths"]["c"][-1]
    assert 200 < found["needed"]["c"] < 500
    assert (tmp_path / "validation_size.csv").read_text().count("\n") == 1 + len(found["sizes"])
    assert "<svg" in (tmp_path / "validation_size.svg").read_text()


def test_version_and_short_help(mtdlr: Callable[..., Done]) -> None:
    """`--version` prints the version, `-h` is `--help`, and completion can be installed."""
    assert mtdlr("--version").stdout.startswith("mtdlr ")
    done = mtdlr("run", "-h")
    assert done.returncode == 0 and "--shard" in done.stdout and "--fold" in done.stdout
    assert "--install-completion" in mtdlr("-h").stdout


def test_errors_are_json_too(tmp_path: Path, mtdlr: Callable[..., Done]) -> None:
    """With --json a mistake is JSON on standard output, beside its line on standard error, and exits 2."""
    done = mtdlr("run", str(tmp_path / "no.toml"), "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["problems"][0]["code"] == "E-NOSTUDY"
    assert done.stderr.startswith("E-NOSTUDY")


def test_doctor_knows_the_machine(mtdlr: Callable[..., Done]) -> None:
    """`doctor` names memory, free disk, cores and device, and no folder of this machine."""
    done = mtdlr("doctor", "--json")
    facts = json.loads(done.stdout)
    assert {"memory", "free disk here", "cores", "device"} <= facts.keys() and str(Path.home()) not in done.stdout


@pytest.mark.parametrize(("arguments", "code"), [
    (("--shard", "0/4"), "E-SHARD"), (("--shard", "5/4"), "E-SHARD"),
    (("--shard", "1/4", "--until", "report"), "E-SHARD"),
    (("--shard", "1/4", "--fold", "0"), "E-SHARD"), (("--executor", "slurm:here"), "E-EXECUTOR"),
    (("--until", "prepared"), "E-STAGENAME")])
def test_bad_parts_are_refused(arguments: tuple[str, ...], code: str, tmp_path: Path) -> None:
    """A shard outside its range, a stage that has no parts, an executor or a stage that is not there: one line."""
    study = tmp_path / "study.toml"
    study.write_text("")
    done = CliRunner().invoke(cli.app, ["run", str(study), *arguments])
    assert isinstance(done.exception, MtdlrError) and done.exception.code == code


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output below something that is no folder is one line before any work, for `init`, `check --csv`, `cluster`."""
    monkeypatch.setattr("mtdlr.cohort.check.check_study", lambda *_, **__: pytest.fail("it was checked before"))
    study, within = tmp_path / "study.toml", tmp_path / "study.toml" / "within"
    study.write_text("")
    for arguments in (["init", str(within)], ["check", str(study), "--csv", str(within)],
                      ["cluster", str(study), "-o", str(within)]):
        done = CliRunner().invoke(cli.app, arguments)
        assert isinstance(done.exception, MtdlrError) and done.exception.code == "E-READONLY"


HIDDEN = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import os, signal
for module, names in ((os, ("sched_getaffinity", "sysconf", "getuid", "mkfifo", "killpg", "getpgid", "fork")),
                      (signal, ("SIGHUP", "SIGKILL", "SIGALRM", "setitimer", "pause"))):
    for name in names:
        delattr(module, name)
import mtdlr.predict
from mtdlr.store import Recipe, open_store
from pathlib import Path
with open_store(Path(sys.argv.pop(1))) as store:
    store.make(Recipe("stage", {}), lambda folder: (folder / "a").write_text("x"))
from mtdlr.cli import main
for words in " ".join(sys.argv[1:]).split(" + "):
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as ended:
        print("exit", ended.code or 0)
"""


@pytest.mark.slow  # torch is imported
def test_the_package_works_without_posix_modules(tmp_path: Path) -> None:
    """Where fcntl, resource, pwd and termios are not there (Windows), in a folder whose name has spaces, a store is
    made and found, and check, features, predict and status give their answers."""
    here = tmp_path / "my studies"
    here.mkdir()
    (here / "study.toml").write_text("")
    (here / "images.csv").write_text("name\nP1\n")
    verbs = "status study.toml + check study.toml + features images.csv + predict nowhere nobody"
    done = subprocess.run([sys.executable, "-c", HIDDEN, "store", verbs], capture_output=True, text=True, cwd=here,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said and done.returncode == 0, said
    assert [text for text in ("not started", "E-NOTABLE", "E-MANIFEST", "E-NOBUNDLE") if text not in said] == []
    assert re.findall(r"exit (\d)", done.stdout) == ["0", "2", "2", "2"]


@pytest.mark.slow  # processes are started
def test_real_scans_are_read_without_posix_modules(tmp_path: Path) -> None:
    """As on Windows, `check` passes twelve patients that nothing is wrong with and `features` measures one of them."""
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[3:9, 3:9, 3:9] = 1
    (tmp_path / "images").mkdir()
    for n in range(12):
        for kind, low, high in (("PT", 0.0, 9.0), ("CT", -1000.0, 1000.0)):
            array = rng.uniform(low, high, (12, 12, 12)).astype(np.float32)
            nifti.write(tmp_path / "images" / f"P{n:02d}__{kind}.nii.gz", Volume.on_grid(array, (3.0, 2.0, 2.0)))
        nifti.write(tmp_path / "images" / f"P{n:02d}.nii.gz", Volume.on_grid(mask, (3.0, 2.0, 2.0)))
    rows = "".join(f"P{n:02d},{20 + n},1,III\n" for n in range(12))
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + rows)
    (tmp_path / "study.toml").write_text('preset = "quick"\n[cohort]\nstage = "stage"\nsplit = "center"\n'
                                         'factors = { stage = ["III", "IVa"] }\n')
    (tmp_path / "one.csv").write_text("patient_id,pet,ct,mask\nP00,images/P00__PT.nii.gz,images/P00__CT.nii.gz,"
                                      "images/P00.nii.gz\n")
    verbs = "check study.toml + features one.csv -o features.csv"
    done = subprocess.run([sys.executable, "-c", HIDDEN, "store", verbs], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False)
    assert re.findall(r"exit (\d)", done.stdout) == ["0", "0"], done.stdout + done.stderr
    assert "12 patients can be used" in done.stdout and "wrote features.csv" in done.stdout
    (header, row) = (tmp_path / "features.csv").read_text().splitlines()
    assert row.startswith("P00,") and len(row.split(",")) == len(header.split(",")) > 1456


@pytest.mark.slow
def test_the_server_needs_no_posix_module() -> None:
    """`serve`'s modules load where fcntl is not there; the folder's lock is then the system's own or none."""
    pytest.importorskip("uvicorn")
    code = "import sys\nsys.modules['fcntl'] = None\nimport mtdlr.serve.server as s\nprint(s.LOOPBACK[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    assert done.stdout.strip() == "127.0.0.1", done.stderr


def test_a_bug_tells_its_places_and_not_its_text(monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """An uncaught error exits 3 with the lines of our code; its text, which may name a patient's file, is not said."""
    def broken() -> None:
        raise ValueError("ZZPHI^CANARY")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 3 and "E-INTERNAL ValueError" in said and "test_cli.py" in said and "CANARY" not in said


def test_progress_counts_and_never_goes_back(tmp_path: Path) -> None:
    """Elsewhere than on a terminal: a line when a stage begins and ends and one a minute; each with the time that is
    left, never negative; the log file has the same lines."""
    now, out = [0.0], io.StringIO()
    teller = Teller(False, tmp_path / "logs" / "a.log", out, clock=lambda: now[0])
    for second, done in ((0, 0), (10, 1), (61, 2), (80, 2.5), (130, 4), (131, 4)):
        now[0] = float(second)
        teller("train", done, 4)
    assert out.getvalue().splitlines() == ["train: 0/4", "train: 2/4, about 61 s left", "train: 4/4"]
    assert [line[20:] for line in (tmp_path / "logs" / "a.log").read_text().splitlines()] == out.getvalue().splitlines()


def test_the_bar_shows_the_time_left() -> None:
    """On a terminal a stage is a bar with what is done and the time that is left."""
    now, out = [0.0], io.StringIO()
    teller = Teller(True, None, out, clock=lambda: now[0])
    for second, done in ((0, 0), (30, 1), (60, 4)):
        now[0] = float(second)
        teller("prepare", done, 4)
    teller.close()
    assert "prepare" in out.getvalue() and "4/4" in out.getvalue()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E-DISKFULL"), (errno.EROFS, "E-READONLY")])
def test_a_full_disk_is_one_line_of_any_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str], number: int, code: str) -> None:
    """Wherever a verb meets a disk that is full or read-only, it says so with the folder and ends with 2; the name of
    the file, which may be a patient's, is not told."""
    def fail() -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "new" / "CANARY.csv"))

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"{code} {tmp_path}") and said.count("\n") == 1
    assert "CANARY" not in said
