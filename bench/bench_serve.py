"""What `mtdlr serve` costs: start, memory, time from upload to result, 100 idle connections, a bomb of 2 GB.

    python bench/bench_serve.py BUNDLE tnm_stage=III B001.zip B002.zip ... [--times 3]

Each upload is paired with the same prediction, page and PDF made in this process, whose model is loaded and warm: wall
and processor seconds of both, in turn. On a machine with other work the wall says little; what of it lies before and
after the served prediction itself says more. The first upload comes right after the start. Memory is that of all
processes of the server, MB: private (anonymous pages), proportional (PSS) and resident.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mtdlr.predict import Bundle, write_prediction

EDGE = "edge"


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in below for one in processes(int(child)))]


def memory_mb(pid: int) -> dict[str, int]:
    """Memory of a process and all below it."""
    found = {"private": 0, "proportional": 0, "resident": 0}
    for one in processes(pid):
        lines = [line.split() for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]]
        sizes = {words[0].rstrip(":"): int(words[1]) for words in lines}
        for name, row in zip(found, ("Anonymous", "Pss", "Rss"), strict=True):
            found[name] += sizes[row] // 1024
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all below it, those that have ended too."""
    ticks = 0
    for one in processes(pid):
        after_name = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(word) for word in after_name[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def ask(address: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, body) of an answer."""
    host, token = address.removeprefix("http://").split("/?token=")
    link = http.client.HTTPConnection(host, timeout=300)
    link.request(method, path, body, {"Authorization": f"Bearer {token}",
                                      "Content-Type": f"multipart/form-data; boundary={EDGE}"})
    answer = link.getresponse()
    data = answer.read()
    link.close()
    return answer.status, data


def form(scan: bytes, values: list[str]) -> bytes:
    """An upload."""
    parts = [f'--{EDGE}\r\nContent-Disposition: form-data; name="clinical.{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in (pair.split("=") for pair in values)]
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="file"; filename="scan.zip"\r\n\r\n'.encode()
    return b"".join(parts) + head + scan + f"\r\n--{EDGE}--\r\n".encode()


def bomb(path: Path) -> bytes:
    """A zip of 2 GB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("a.dcm", "w", force_zip64=True) as out:
        for _ in range(1 << 7):
            out.write(bytes(1 << 24))
    return path.read_bytes()


def alone(model: Bundle, scan: Path, clinical: dict[str, str], folder: Path) -> tuple[float, float]:
    """(wall, processor) seconds of a prediction with its page and PDF in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    write_prediction(model.predict(scan, clinical=clinical), folder)
    return time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class Served:
    """Seconds of an upload: to its acknowledgement, to its result, of these before and after the prediction with its
    page and PDF, of the processor; and its prediction.json."""

    acknowledged: float
    result: float
    before: float
    after: float
    cpu: float
    numbers: bytes


def served(address: str, pid: int, upload: bytes, jobs: Path) -> Served:
    """Send a scan and wait for its result, asking ten times a second."""
    wall, cpu, state, begun = time.time(), cpu_s(pid), "waiting", 0.0
    job = json.loads(ask(address, "POST", "/jobs", upload)[1])["id"]
    acknowledged = time.time() - wall
    while state in ("waiting", "running"):
        time.sleep(0.1)
        state = json.loads(ask(address, "GET", f"/jobs/{job}/state")[1])["state"]
        begun = (jobs / job / "job.json").stat().st_mtime if state == "running" else begun
    numbers = ask(address, "GET", f"/jobs/{job}/result/prediction.json")[1]
    ended, last = time.time(), (jobs / job / "result" / "overview.png").stat().st_mtime
    return Served(acknowledged, ended - wall, begun - wall, ended - last, cpu_s(pid) - cpu, numbers)


def pairs(address: str, pid: int, args: argparse.Namespace, model: Bundle, place: Path) -> None:
    """Print what each upload took beside the prediction alone."""
    clinical, more = dict(pair.split("=") for pair in args.clinical.split(",")), []
    for k in range(args.times):
        for scan in args.scans:
            upload = form(scan.read_bytes(), args.clinical.split(","))
            one, folder = served(address, pid, upload, place / "served" / "jobs"), place / f"{scan.stem}-{k}"
            wall, cpu = alone(model, scan, clinical, folder)
            more.append((one.result - wall, one.cpu - cpu, one.before + one.after))
            same = one.numbers == (folder / "prediction.json").read_bytes()
            print(f"{scan.stem}: acknowledged {one.acknowledged:.2f} s; upload to result {one.result:.2f} s "
                  f"({one.cpu:.2f} CPU), {one.before:.2f} of it before and {one.after:.2f} after the prediction; "
                  f"alone {wall:.2f} ({cpu:.2f} CPU); more {more[-1][0]:+.2f} "
                  f"({more[-1][1]:+.2f} CPU); same {same}", flush=True)
    for name, values in zip(("more, wall", "more, CPU", "before and after"), zip(*more, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.2f} s, most {max(values):.2f} s of {len(values)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("clinical", help="NAME=VALUE, with commas between")
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place, model = Path(name), Bundle.load(args.bundle)
        alone(model, args.scans[0], dict(pair.split("=") for pair in args.clinical.split(",")), place / "warm")
        begun = time.perf_counter()
        words = [sys.executable, "-m", "mtdlr", "serve", str(args.bundle), "--port", "0", "--folder", f"{place}/served"]
        server = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        address = server.stdout.readline().split()[1]
        print(f"start {time.perf_counter() - begun:.1f} s ({cpu_s(server.pid):.1f} CPU); idle {memory_mb(server.pid)}")
        pairs(address, server.pid, args, model, place)
        print(f"idle after {args.times * len(args.scans)} predictions {memory_mb(server.pid)}")
        host, port = address.removeprefix("http://").split("/")[0].split(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(100)]
        begun = time.perf_counter()
        status, _ = ask(address, "GET", "/")
        print(f"beside {len(idle)} idle connections: {status} in {time.perf_counter() - begun:.3f} s")
        packed = form(bomb(place / "bomb.zip"), args.clinical.split(","))
        before, begun = memory_mb(server.pid), time.perf_counter()
        status, answer = ask(address, "POST", "/jobs", packed)
        took, peak = time.perf_counter() - begun, Path(f"/proc/{server.pid}/status").read_text()
        high = next(int(line.split()[1]) // 1024 for line in peak.splitlines() if line.startswith("VmHWM"))
        print(f"bomb of 2 GB ({len(packed) >> 20} MB sent): {status} {json.loads(answer)['problems'][0]['code']} in "
              f"{took:.2f} s; memory {before} -> {memory_mb(server.pid)}, highest of the server's own process {high}")


if __name__ == "__main__":
    main()
