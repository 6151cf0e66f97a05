"""Runs that are killed, and many machines on one store, end in the bytes of one unbroken process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

from mtdlr.errors import MtdlrError, StudyError
from mtdlr.pipeline import Run
from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers, parts
from mtdlr.workers.cluster import SHELL, SLURM, Plan, executor, job_script
from mtdlr.workers.parts import Shard

SRC = Path(__file__).parents[1] / "src"
SETTINGS = ("deepmts.epochs=1", "deepmts.segmentation_epochs=0", "singletask.epochs=1", "deepmts.width=0.25",
            "singletask.width=0.25", "score.folds=2", "prepare.size=32", "prepare.spacing_mm=5.0",
            "radiomics.spacing_mm=8.0", "radiomics.profile=ibsi", "run.workers=1")
FOLDS, SHARDS = 2, 2


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 15 small patients, ten of 14 in training with the event, in a folder whose name has a space."""
    path = write_study(tmp_path_factory.mktemp("a study"), n_training=14, n_internal=1, n_external=0, voxel_scale=3.0)
    table = pd.read_csv(path.parent / "clinical.csv")
    table.assign(event=[int(k % 7 not in (3, 6)) for k in range(15)]).to_csv(path.parent / "clinical.csv", index=False)
    return path


@pytest.fixture(scope="module")
def alone(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of it."""
    with Run(Study.load(study_file, SETTINGS), tmp_path_factory.mktemp("alone") / "run", Workers(1)) as run:
        run.until("radiomics")
    return _stored(run.folder)


def _stored(folder: Path) -> dict[str, bytes]:
    """Every stored file but the trainings' logs, which hold times, and the manifests, which hold their hashes."""
    return {path.relative_to(folder / "objects").as_posix(): path.read_bytes()
            for path in (folder / "objects").rglob("*")
            if path.is_file() and path.name not in ("log.csv", "manifest.json") and "tensorboard" not in path.parts}


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", ""])
def test_a_shard_outside_its_range_is_refused(text: str) -> None:
    """A shard is i/n with i from 1 to n."""
    with pytest.raises(StudyError, match="E-SHARD"):
        Shard.parse(text)


def test_shards_share_the_patients() -> None:
    """Every patient is in one shard, whatever the order of the table."""
    ids = [f"P{k}" for k in range(11)]
    parts = [Shard(k, 3).mine(ids) for k in (1, 2, 3)]
    assert sorted(i for part in parts for i in part) == sorted(ids)
    assert parts == [Shard(k, 3).mine(ids[::-1]) for k in (1, 2, 3)]


def test_shards_of_other_settings_are_refused(tmp_path: Path) -> None:
    """The first shard's settings hold until a whole run; another study in the same folder is E-OTHERSHARDS."""
    parts.agree_on_settings(tmp_path, {"a": 1}, Shard(1, 2))
    parts.agree_on_settings(tmp_path, {"a": 1}, Shard(2, 2))
    with pytest.raises(StudyError, match="E-OTHERSHARDS"):
        parts.agree_on_settings(tmp_path, {"a": 2}, Shard(2, 2))
    parts.agree_on_settings(tmp_path, {"a": 2}, None)
    parts.agree_on_settings(tmp_path, {"a": 2}, Shard(2, 2))


@pytest.mark.parametrize(("address", "code"), [("dask:", "E-EXECUTOR"), ("ray:here", "E-EXECUTOR")])
def test_an_executor_that_is_not_there(address: str, code: str) -> None:
    """An executor of another kind is one line."""
    with pytest.raises(MtdlrError, match=code), executor(address):
        pass


def test_dask_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, one line names it."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MtdlrError, match=r"E-EXTRA.*mtdlr\[cluster\]"), executor("dask:tcp://127.0.0.1:1"):
        pass


@pytest.mark.parametrize("engine", [SLURM, SHELL])
def test_a_job_script_is_valid_shell(engine: str, tmp_path: Path) -> None:
    """The script parses, also with spaces in the study's path."""
    script = tmp_path / "job.sh"
    script.write_text(job_script(Plan("/opt/my env/bin/mtdlr", Path("/data/my study/study.toml"), 5, 20), engine))
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


HOST = """
import socket, sys
socket.gethostname = lambda: sys.argv[1]
from mtdlr.pipeline import Run
from mtdlr.workers.parts import Shard
from mtdlr.study import Study
from mtdlr.workers import Workers
study = Study.load(sys.argv[2], sys.argv[4:])
for line in sys.stdin:
    stage, shard, fold = line.split()
    part = Shard.parse(shard) if fold == "-" else Shard(fold=int(fold))
    with Run(study, sys.argv[3], Workers(1), shard=part) as run:
        run.until(stage)
    print("done", flush=True)
"""


def _hosts(study_file: Path, folder: Path) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOST]
    return [subprocess.Popen([*command, name, str(study_file), str(folder), *SETTINGS], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env=os.environ | {"PYTHONPATH": str(SRC)}) for name in "AB"]


@pytest.mark.slow
def test_two_hosts_on_one_store_end_in_the_bytes_of_one_process(study_file: Path, alone: dict[str, bytes],
                                                                tmp_path: Path) -> None:
    """Two processes with different host names on one store do every shard and every fold at the same time, each in its
    own random order: the stored files are those of one process, and nothing else is left."""
    hosts, rng = _hosts(study_file, tmp_path), random.Random(0)
    parts = [f"{k}/{SHARDS} -" for k in range(1, SHARDS + 1)]
    for stage, work in (("prepare", parts), ("train", [f"- {k}" for k in range(FOLDS)]), ("radiomics", parts)):
        for host in hosts:
            assert host.stdin
            host.stdin.writelines(f"{stage} {part}\n" for part in rng.sample(work, len(work)))
            host.stdin.flush()
        for host in hosts:
            assert host.stdout and [host.stdout.readline() for _ in work] == ["done\n"] * len(work)
    for host in hosts:
        host.communicate()
    assert _stored(tmp_path) == alone
    assert not list((tmp_path / "scratch").iterdir()) and not list((tmp_path / "running").iterdir())


@pytest.mark.slow
def test_killed_runs_end_like_an_unbroken_one(study_file: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    """kill -9 of a run and its workers in preparation, training, scoring and radiomics, then the same command again:
    every stored file is that of an unbroken run."""
    run = [part for s in (*SETTINGS, f"run.folder={tmp_path}", "run.workers=2") for part in ("--set", s)]
    command = [sys.executable, "-m", "mtdlr", "run", str(study_file), *run, "--until", "radiomics"]
    for stage in ("prepare", "train", "score", "radiomics"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              start_new_session=True, env=os.environ | {"PYTHONPATH": str(SRC)}) as process:
            assert process.stderr is not None
            assert any(line.startswith(stage) for line in process.stderr), f"{stage} was never told of"
            os.killpg(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(SRC)})
    assert done.returncode == 0, done.stderr
    assert _stored(tmp_path) == alone
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.slow
def test_a_part_that_needs_others_first_says_so(study_file: Path, tmp_path: Path) -> None:
    """A fold before the patients are prepared is E-NOTREADY."""
    study = Study.load(study_file, SETTINGS)
    with Run(study, tmp_path, shard=Shard(fold=0)) as run, pytest.raises(MtdlrError, match="E-NOTREADY.*prepare"):
        run.until("train")


@pytest.fixture
def fake_slurm(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """(what was submitted, one JSON a line; an environment in which sbatch and scontrol only write that down)."""
    tools, log = tmp_path / "tools", tmp_path / "submitted"
    tools.mkdir()
    for name in ("sbatch", "scontrol"):
        (tools / name).write_text(f"#!{sys.executable}\nimport json, sys\n"
                                  f"with open({str(log)!r}, 'a') as file:\n"
                                  f"    file.write(json.dumps(['{name}', *sys.argv[1:]]) + '\\n')\n"
                                  f"print(sum(1 for _ in open({str(log)!r})))\n")
        (tools / name).chmod(0o755)
    log.touch()
    yield log, os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(SRC)}


def _numbers(options: list[str]) -> list[str]:
    """The task ids of an array; one job without a number otherwise."""
    array = next((o.removeprefix("--array=") for o in options if o.startswith("--array=")), None)
    if array is None:
        return [""]
    first, _, last = array.partition("-")
    return [str(k) for k in range(int(first), int(last) + 1)]


@pytest.mark.slow
def test_slurm_arrays_in_any_order_with_kills_end_in_the_same_bytes(
    study_file: Path, alone: dict[str, bytes], tmp_path: Path, fake_slurm: tuple[Path, dict[str, str]]
) -> None:
    """The jobs that the script submits, run in random order within each array and stopped by SIGTERM as SLURM does
    before it takes a node away, are put back into the queue and end in the bytes of one process."""
    log, environment = fake_slurm
    script = tmp_path / "job.sh"
    plan = Plan(f"{sys.executable} -m mtdlr", study_file, FOLDS, SHARDS, (*SETTINGS, f"run.folder={tmp_path / 'run'}"))
    script.write_text(job_script(plan, SLURM))
    assert subprocess.run(["bash", str(script)], env=environment, check=False, capture_output=True).returncode == 0
    submitted = [json.loads(line) for line in log.read_text().splitlines()]
    assert [job[-1] for job in submitted] == ["prepare", "prepared", "train", "radiomics", "finish"]
    assert all("--dependency=after" in " ".join(job) for job in submitted[1:])
    rng = random.Random(1)
    for _, *options in submitted[:-1]:
        for number in rng.sample(_numbers(options), len(_numbers(options))):
            task = environment | {"SLURM_JOB_ID": "7"} | ({"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_JOB_ID": "7"}
                                                          if number else {})
            command = ["bash", str(script), options[-1]]
            if (options[-1], number) in (("prepare", "1"), ("train", "0")):
                with subprocess.Popen(command, env=task, stderr=subprocess.PIPE, text=True) as job:
                    assert job.stderr and any(line.startswith(options[-1]) for line in job.stderr)
                    job.send_signal(signal.SIGTERM)
                assert job.returncode == 143
                assert json.loads(log.read_text().splitlines()[-1]) == ["scontrol", "requeue", f"7_{number}"]
            done = subprocess.run(command, env=task, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    assert _stored(tmp_path / "run") == alone


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_ends_in_the_same_bytes(study_file: Path, alone: dict[str, bytes],
                                                                  tmp_path: Path) -> None:
    """On two Dask workers, one of which is killed while patients are prepared, the stored files are those of one
    process."""
    killed: list[int] = []
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, \
            executor(f"dask:{cluster.scheduler_address}") as pool:
        def kill(label: str, done: float, _: int) -> None:
            if label == "prepare" and done >= 3 and not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        with Run(Study.load(study_file, SETTINGS), tmp_path / "run", Workers(progress=kill, executor=pool)) as run:
            run.until("radiomics")
            assert not run.failed
    assert killed and _stored(tmp_path / "run") == alone
