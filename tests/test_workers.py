"""Workers: every job gets its outcome, in order, whatever happens to the others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtdlr.errors import MtdlrError, Problem, ScanError
from mtdlr.workers import Workers, run_jobs, values_of


def _square(x: int) -> int:
    if x == 3:
        raise ScanError(Problem("E-EMPTY", "no scan", where="patient 3"))
    if x == 4:
        raise ZeroDivisionError("a bug")
    return x * x


def _die_on_two(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_here_and_in_processes_agree() -> None:
    """One worker and two give the same outcomes, in the order of the jobs, and failures do not stop the others."""
    told: list[tuple[str, int, int]] = []
    here = run_jobs(_square, range(6), Workers(progress=lambda *t: told.append(t)), label="squares")
    there = run_jobs(_square, range(6), Workers(2), label="squares")
    assert here == there
    assert [o.value for o in here] == [0, 1, 4, None, None, 25]
    assert [o.problems[0].code for o in here if not o.ok] == ["E-EMPTY", "E-INTERNAL"]
    assert "ZeroDivisionError" in str(here[4].problems[0])
    assert told[-1] == ("squares", 6, 6)


def test_a_killed_worker_costs_its_own_job() -> None:
    """FAULTS 13: the job that kills its worker is reported; every other job is done."""
    outcomes = run_jobs(_die_on_two, range(5), Workers(2), label="jobs")
    assert [o.value for o in outcomes] == [0, 1, None, 3, 4]
    assert outcomes[2].problems[0].code == "E-WORKERDIED"


def test_values_of_raises_the_first_failure() -> None:
    """Where every job must succeed, the first failure is raised with its problems."""
    assert values_of(run_jobs(_square, [1, 2], Workers(), label="")) == [1, 4]
    with pytest.raises(MtdlrError, match="E-EMPTY patient 3"):
        values_of(run_jobs(_square, [1, 3], Workers(), label=""))


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    """Workers start from a plain script, and its lines are not run again in them."""
    script = tmp_path / "script.py"
    script.write_text("import math\nfrom mtdlr.workers import Workers, run_jobs\nprint('began')\n"
                      "found = run_jobs(math.sqrt, [4.0, 9.0, 16.0], Workers(2), label='roots')\n"
                      "print([one.value for one in found], __file__ == __import__('sys').argv[0])\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("began\n[2.0, 3.0, 4.0] True\n", "")
