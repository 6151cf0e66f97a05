"""The server as a process of its own: killed, stopped, and with a model that has networks."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import torch
from serving import EDGE, SCAN, form
from untrained import save_untrained_bundle

from mtdlr.imaging import nifti
from mtdlr.synthetic import make_patient

FAKE = Path(__file__).with_name("serve_fake.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class _Server:
    """A process that serves."""

    process: subprocess.Popen[str]
    host: str
    token: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer."""
        link = http.client.HTTPConnection(self.host, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": f"multipart/form-data; boundary={EDGE}"}
        link.request(method, path, body, headers)
        answer = link.getresponse().read()
        link.close()
        return answer

    def send(self, files: Mapping[str, bytes], values: Mapping[str, str]) -> str:
        """The id of an acknowledged job."""
        return str(json.loads(self.ask("POST", "/jobs", form(files, values)))["id"])

    def until(self, job: str, *states: str) -> dict[str, Any]:
        """What is told of a job when it has come to one of these states."""
        end = time.monotonic() + 300.0
        while time.monotonic() < end:
            found = json.loads(self.ask("GET", f"/jobs/{job}/state"))
            if found["state"] in states:
                return dict(found)
            threading.Event().wait(0.05)  # the server has the other core
        raise TimeoutError(f"{found['state']} and not {states}")


Start = Callable[[Sequence[str]], _Server]


@pytest.fixture
def start() -> Any:
    """Start a server by its command; it is killed when the test ends."""
    with ExitStack() as stack:
        def begin(words: Sequence[str]) -> _Server:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-u", *words], stdout=subprocess.PIPE,
                                                           text=True, env=ENVIRONMENT))
            stack.callback(process.kill)
            assert process.stdout is not None
            address, _, token = process.stdout.readline().strip().removeprefix("open ").partition("/?token=")
            return _Server(process, address.removeprefix("http://"), token)
        yield begin


def _below(pid: int) -> list[int]:
    """The processes that a process began, and those that they began."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(one for child in children for one in _below(child))]


def _memory_mb(pid: int, kind: str = "Anonymous:") -> int:
    """Memory of a process and of those below it, MB: its own, or with its share of the libraries."""
    rows = [line.split() for one in (pid, *_below(pid))
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] == kind) // 1024


@pytest.mark.slow
def test_a_kill_in_mid_job_loses_nothing_that_was_acknowledged(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """kill -9 while one job is computed, one waits and one is done: the next server finds all three and ends them, and
    the worker does not outlive its server.
    """
    first = start([str(FAKE), str(tmp_path)])
    done = first.send(SCAN, {"clinical.stage": "III"})
    numbers = first.ask("GET", f"/jobs/{first.until(done, 'done')['id']}/result/prediction.json")
    held = first.send(SCAN, {"clinical.stage": "hold"})
    waits = first.send(SCAN, {"clinical.stage": "IVa"})
    first.until(held, "running")
    children = [os.pidfd_open(pid) for pid in _below(first.process.pid)]
    first.process.kill()
    first.process.wait(60)
    for child in children:
        assert select.select([child], [], [], 60.0)[0], "the worker outlives its server"
        os.close(child)
    assert capfd.readouterr().err == ""
    second = start([str(FAKE), str(tmp_path)])
    (tmp_path / "jobs" / "go").touch()
    assert second.until(held, "done", "failed")["state"] == "done"
    assert second.until(waits, "done", "failed")["state"] == "done"
    assert second.ask("GET", f"/jobs/{done}/result/prediction.json") == numbers


@pytest.fixture
def hang_up_heard() -> Iterator[None]:
    """A process of this test hears a closed terminal, though the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.usefixtures("hang_up_heard")
@pytest.mark.parametrize(("options", "kept"), [([], 0), (["--keep"], 1)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_a_stop_leaves(
    start: Start, tmp_path: Path, options: list[str], kept: int, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C, a stop by the system and a closed terminal delete every job, a waiting one too, unless they are kept."""
    server = start([str(FAKE), str(tmp_path), *options])
    server.until(server.send(SCAN, {"clinical.stage": "III"}), "done")
    held = server.send(SCAN, {"clinical.stage": "hold"})
    server.until(held, "running")
    server.process.send_signal(number)
    assert server.process.wait(60) == 0 and capfd.readouterr().err == ""
    left = [path for path in (tmp_path / "jobs").iterdir() if path.is_dir()]
    assert len(left) == 2 * kept and len(list((tmp_path / "jobs").glob("*/result"))) == kept


@pytest.mark.slow
def test_the_numbers_are_those_of_predict(start: Start, tmp_path: Path) -> None:
    """The prediction.json of `mtdlr serve` is that of `mtdlr predict`, byte for byte; its memory goes back, and is
    below 400 MB before and after.
    """
    for name in ("bundle", "parts", "scan"):
        (tmp_path / name).mkdir()
    save_untrained_bundle(tmp_path / "bundle", tmp_path / "parts")
    patient = make_patient(voxel_scale=1.5, seed=5)
    nifti.write(tmp_path / "scan" / "PET_image.nii.gz", patient.pet)
    nifti.write(tmp_path / "scan" / "CT_image.nii.gz", patient.ct)
    bundle = str(tmp_path / "bundle")
    server = start(["-m", "mtdlr", "serve", bundle, "--port", "0", "--folder", str(tmp_path / "served")])
    idle = _memory_mb(server.process.pid)
    assert torch.version.cuda is not None or _memory_mb(server.process.pid, "Pss:") < 400
    job = server.send({f"P1/{path.name}": path.read_bytes() for path in (tmp_path / "scan").iterdir()},
                      {"clinical.tnm_stage": "IVa"})
    found = server.until(job, "done", "failed")
    assert found["state"] == "done", found
    assert _memory_mb(server.process.pid) < idle + 32
    assert torch.version.cuda is not None or _memory_mb(server.process.pid, "Pss:") < 400
    out = tmp_path / "predicted"
    words = ["predict", bundle, str(tmp_path / "scan"), "-o", str(out), "--clinical", "tnm_stage=IVa"]
    subprocess.run([sys.executable, "-m", "mtdlr", *words], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    assert server.ask("GET", f"/jobs/{job}/result/prediction.json") == (out / "prediction.json").read_bytes()
