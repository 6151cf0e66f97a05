"""A server on a free port, and a client that sends what a browser would not."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from mtdlr.serve.app import Service, application
from mtdlr.serve.queue import Queue
from mtdlr.serve.security import loopback_gate
from mtdlr.serve.server import configured
from mtdlr.serve.upload import Limits
from mtdlr.serve.worker import Predictor

TOKEN = "t" * 43
EDGE = "edge"
SCAN = {"B001/PET/1.dcm": b"pet", "B001/CT/1.dcm": b"ct"}
LIMITS = Limits(bytes=1 << 20, files=20, unpacked=1 << 22, stall_s=1.0)


@dataclass(frozen=True, eq=False)
class Served:
    """A server that runs."""

    queue: Queue
    port: int

    @property
    def address(self) -> str:
        """To open in a browser."""
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The answer to a request; an empty header is left out. The body is read already: `answer.text`."""
        given = {"Authorization": f"Bearer {TOKEN}", "Host": f"127.0.0.1:{self.port}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None and "Content-Length" not in given:
            given["Content-Length"] = str(len(body))
        for name, value in given.items():
            if value:
                link.putheader(name, value)
        link.endheaders()
        if body:
            try:
                link.send(body)
            except OSError:
                pass  # refused before all was sent
        answer: Any = link.getresponse()
        answer.text = answer.read().decode("utf-8", "replace")
        link.close()
        return answer

    def send(self, files: Mapping[str, bytes], values: Mapping[str, str] | None = None, **headers: str
             ) -> Any:
        """The answer to an upload."""
        kind = f"multipart/form-data; boundary={EDGE}"
        return self.ask("POST", "/jobs", form(files, values or {}), **{"Content_Type": kind} | headers)

    def done(self, files: Mapping[str, bytes], values: Mapping[str, str] | None = None) -> str:
        """The id of a job that is accepted and finished."""
        answer = self.send(files, values)
        assert answer.status == 201, answer.text
        job_id = str(json.loads(answer.text)["id"])
        self.queue.wait(job_id, 60.0)
        return job_id

    def folders(self) -> set[str]:
        """Names of what lies in the folder of the jobs."""
        return {path.name for path in self.queue.folder.iterdir()}

    def raw(self, data: bytes) -> bytes:
        """What comes back for bytes as they are, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as link:
            link.sendall(data)
            return b"".join(iter(lambda: link.recv(65536), b""))


def form(files: Mapping[str, bytes], values: Mapping[str, str]) -> bytes:
    """A multipart form; a name may hold any bytes."""
    parts = [f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in values.items()]
    for name, data in files.items():
        head = f'--{EDGE}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{EDGE}--\r\n".encode()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip of these members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return packed.getvalue()


def problem(answer: Any) -> tuple[int, str]:
    """(status, code) of a refusal."""
    return answer.status, json.loads(answer.text)["problems"][0]["code"]


@contextmanager
def serving(folder: Path, load: Callable[[], Predictor], limits: Limits) -> Iterator[Served]:
    """A server with its own queue, for as long as the block runs."""
    queue = Queue(folder, load)
    facts = queue.start()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        server = uvicorn.Server(configured(application(Service(queue, facts, loopback_gate(port, (), TOKEN), limits))))
        bound.listen(512)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        try:
            yield Served(queue, port)
        finally:
            server.should_exit = True
            thread.join(30)
            queue.close(keep=False)
