"""What `mtdlr serve` costs: start, memory, time from upload to result, 100 idle connections, a bomb of 2 GB.

    python bench/bench_serve.py BUNDLE B001.zip tnm_stage=III [--times 3]

Compares with `mtdlr predict` as a command. Memory is that of all processes of the server, MB: resident (libraries
too), and private.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

EDGE = "edge"


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in below for one in processes(int(child)))]


def memory_mb(pid: int) -> dict[str, int]:
    """Memory of a process and all below it."""
    found = {"resident": 0, "private": 0}
    for one in processes(pid):
        lines = [line.split() for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]]
        sizes = {words[0].rstrip(":"): int(words[1]) for words in lines}
        found["resident"] += sizes["Rss"] // 1024
        found["private"] += sizes["Anonymous"] // 1024
    return found


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("clinical", nargs="*")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    given = [word for pair in args.clinical for word in ("--clinical", pair)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        begun = time.perf_counter()
        words = [sys.executable, "-m", "mtdlr", "serve", str(args.bundle), "--port", "0", "--folder", f"{place}/served"]
        server = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        address = server.stdout.readline().split()[1]
        print(f"start {time.perf_counter() - begun:.1f} s; idle {memory_mb(server.pid)}")
        upload = form(args.scan.read_bytes(), args.clinical)
        for k in range(args.times):
            begun = time.perf_counter()
            status, answer = ask(address, "POST", "/jobs", upload)
            job = json.loads(answer)["id"]
            acknowledged = time.perf_counter() - begun
            while json.loads(ask(address, "GET", f"/jobs/{job}/state")[1])["state"] in ("waiting", "running"):
                time.sleep(0.05)
            served = time.perf_counter() - begun
            numbers = ask(address, "GET", f"/jobs/{job}/result/prediction.json")[1]
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-m", "mtdlr", "predict", str(args.bundle), str(args.scan), *given, "-o",
                            str(place / f"p{k}")], check=True, stdout=subprocess.DEVNULL)
            command = time.perf_counter() - begun
            same = numbers == (place / f"p{k}" / "prediction.json").read_bytes()
            print(f"acknowledged {acknowledged:.2f} s, result {served:.2f} s; command {command:.2f} s; same {same}")
        print(f"idle after {args.times} predictions {memory_mb(server.pid)}")
        host, port = address.removeprefix("http://").split("/")[0].split(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(100)]
        begun = time.perf_counter()
        status, _ = ask(address, "GET", "/")
        print(f"beside {len(idle)} idle connections: {status} in {time.perf_counter() - begun:.3f} s")
        packed = form(bomb(place / "bomb.zip"), args.clinical)
        before, begun = memory_mb(server.pid), time.perf_counter()
        status, answer = ask(address, "POST", "/jobs", packed)
        took, peak = time.perf_counter() - begun, Path(f"/proc/{server.pid}/status").read_text()
        high = next(int(line.split()[1]) // 1024 for line in peak.splitlines() if line.startswith("VmHWM"))
        print(f"bomb of 2 GB ({len(packed) >> 20} MB sent): {status} {json.loads(answer)['problems'][0]['code']} in "
              f"{took:.2f} s; memory {before} -> {memory_mb(server.pid)}, highest of the server's own process {high}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
