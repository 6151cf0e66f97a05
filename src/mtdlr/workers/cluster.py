"""A run on many machines by engines that are there already: job scripts for SLURM and plain shell, and Dask.

The parts are shards of `mtdlr run`: every n-th patient is prepared, scored and measured by a job of its own, the
networks of each fold are trained by another, and one job joins them. Any of them may be killed, run twice or run in
another order: results are named by what made them, so the bytes are those of one process.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mtdlr.errors import MtdlrError, Problem, StudyError

SLURM, SHELL = "slurm", "shell"
SCHEMES = ("dask",)


@dataclass(frozen=True)
class Plan:
    """How a study is cut into jobs.

    Args:
        command: how mtdlr is called, e.g. `/opt/env/bin/mtdlr`.
        study: the study file.
        folds: how many folds there are.
        shards: jobs that the patients are shared by.
        overrides: `--set` values that each job gets.
        gpu, cpu: options of sbatch for the trainings, and for everything else.
    """

    command: str
    study: Path
    folds: int
    shards: int
    overrides: tuple[str, ...] = ()
    gpu: str = "--gres=gpu:1 --cpus-per-task=4 --mem=24G --time=24:00:00"
    cpu: str = "--cpus-per-task=1 --mem=8G --time=8:00:00"

    @property
    def run(self) -> str:
        """`mtdlr run STUDY`, for one worker a job."""
        settings = [part for value in (*self.overrides, "run.workers=1") for part in ("--set", value)]
        return shlex.join([*shlex.split(self.command), "run", str(self.study), *settings])


def job_script(plan: Plan, engine: str) -> str:
    """The script of a whole run: `bash FILE` submits every job (slurm), or runs them here side by side (shell).

    Args:
        plan: run folder, study file, numbers of folds and shards, and what each job may use.
        engine: "slurm" or "shell".
    """
    return _BODY.format(run=plan.run, folds=plan.folds, last=plan.folds - 1, shards=plan.shards, gpu=plan.gpu,
                        cpu=plan.cpu, title=plan.study.stem) + (_SLURM if engine == SLURM else _SHELL)


_BODY = r"""#!/bin/bash
# Written by `mtdlr cluster`; change what your machines need. Every job may be killed and given again.
set -uo pipefail
export OMP_NUM_THREADS=1
RUN=({run})
SHARDS={shards}
FOLDS={folds}
CPU="{cpu}"
GPU="{gpu}"
TITLE="{title}"

part() {{ # part STAGE [NUMBER]: the command of one job; exit status 1 only says that some patients failed
  case "$1" in
    prepare)   "${{RUN[@]}}" --until prepare --shard "$2/$SHARDS" ;;
    prepared)  "${{RUN[@]}}" --until prepare ;;
    train)     "${{RUN[@]}}" --until train --fold "$2" ;;
    radiomics) "${{RUN[@]}}" --until radiomics --shard "$2/$SHARDS" ;;
    finish)    "${{RUN[@]}}" ;;
  esac
}}
"""

_SLURM = r"""
if [ $# -gt 0 ]; then # inside a job: SLURM sends SIGTERM before it takes the node away; the job goes back to the queue
  again() {
    kill -TERM "$child" 2>/dev/null
    wait "$child"
    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
    exit 143
  }
  trap again TERM
  part "$1" "${SLURM_ARRAY_TASK_ID:-}" & child=$!
  wait "$child"; status=$?
  [ $status -le 1 ] && exit 0
  exit $status
fi

submit() { # submit OPTIONS... : the number of the job
  sbatch --parsable --requeue --open-mode=append --signal=B:TERM@120 --output="$TITLE-%x-%A_%a.log" "$@"
}
set -e
me=$(realpath "$0")
prepare=$(submit --job-name=prepare $CPU --array=1-$SHARDS "$me" prepare)
prepared=$(submit --job-name=prepared $CPU --dependency=afterany:${prepare%%;*} "$me" prepared)
train=$(submit --job-name=train $GPU --array=0-$((FOLDS - 1)) --dependency=afterok:${prepared%%;*} "$me" train)
radiomics=$(submit --job-name=radiomics $CPU --array=1-$SHARDS --dependency=afterok:${train%%;*} "$me" radiomics)
finish=$(submit --job-name=finish $CPU --dependency=afterany:${radiomics%%;*} "$me" finish)
echo "submitted: prepare $prepare, prepared $prepared, train $train, radiomics $radiomics, finish $finish"
"""

_SHELL = r"""
all() { # all STAGE NUMBER...: the jobs of a stage side by side
  stage=$1; shift
  for number in "$@"; do part "$stage" "$number" & done
  wait
}
all prepare $(seq 1 $SHARDS)
part prepared; [ $? -le 1 ] || exit $?
all train $(seq 0 $((FOLDS - 1)))
all radiomics $(seq 1 $SHARDS)
part finish
"""


@contextmanager
def executor(address: str) -> Iterator[Executor]:
    """The executor of `dask:ADDRESS`, for `Workers`.

    Raises:
        StudyError: E-EXECUTOR for another scheme, or where nobody answers.
        MtdlrError: E-EXTRA when dask is not installed.
    """
    scheme, _, place = address.partition(":")
    if scheme not in SCHEMES or not place:
        raise StudyError(Problem("E-EXECUTOR", "there is no such executor", found=address,
                                 expected="dask:ADDRESS, e.g. dask:tcp://10.0.0.1:8786"))
    try:
        from distributed import Client
    except ImportError:
        raise MtdlrError(Problem("E-EXTRA", "dask is not installed", where="--executor",
                                 remedy="pip install 'mtdlr[cluster]'")) from None
    try:
        client = Client(place, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise StudyError(Problem("E-EXECUTOR", "no Dask scheduler answers", found=address,
                                 remedy="Is it running, and can this machine reach it?")) from error
    with client:
        yield client.get_executor(retries=1, pure=False)
