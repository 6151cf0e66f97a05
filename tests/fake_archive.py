"""A DICOMweb archive in memory, with the faults that archives have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import pydicom

_BOUNDARY = "0f3cf5c0boundary"


@dataclass
class Faults:
    """What the archive does wrong; `statuses` are answered one by one before it works, `asked` counts requests.

    Args:
        statuses: of the next answers, instead of what was asked for.
        forgets: answers 200 and stores nothing.
        changes: stores other pixels than it was sent.
        holds_back: images that it lists and does not give.
        repeats: gives every image twice.
        grows: lists one image more at each search.
        cuts: bytes that are missing at the end of an answer whose length is right.
        says: answers every question with this text.
        token: what the Authorization header must be.
    """

    statuses: list[int] = field(default_factory=list)
    forgets: bool = False
    changes: bool = False
    holds_back: int = 0
    repeats: bool = False
    grows: bool = False
    cuts: int = 0
    says: str = ""
    token: str = ""
    asked: int = 0
    searched: int = 0
    held: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    def hold(self, paths: Iterator[Path]) -> None:
        """Put files into the archive."""
        for path in paths:
            self.take(path.read_bytes())

    def take(self, data: bytes) -> None:
        """Put an object into the archive, once."""
        ds = pydicom.dcmread(BytesIO(data))
        if self.changes:
            ds[next(k for k in ("PixelData", "EncapsulatedDocument", "ContentSequence") if k in ds)].value = []
            buffer = BytesIO()
            ds.save_as(buffer)
            data = buffer.getvalue()
        self.held.setdefault((str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)), data)


@contextmanager
def fake_archive(**faults: object) -> Iterator[tuple[str, Faults]]:
    """The archive's address, and its faults, which can be changed while it runs."""
    wrong = Faults(**faults)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"wrong": wrong}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", wrong
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    wrong: Faults

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        """STOW-RS."""
        body = self._body()
        if self._refused():
            return
        boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])
        assert boundary is not None
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            if not self.wrong.forgets:
                self.wrong.take(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        self._answer(b"{}", "application/dicom+json")

    def do_GET(self) -> None:
        """QIDO-RS of series and instances, WADO-RS of a series or an instance."""
        if self._refused():
            return
        names = re.match(r"/dicom-web/studies/([^/]+)/series(?:/([^/?]+)(?:/instances(?:/([^/?]+))?)?)?",
                         self.path)
        assert names is not None, self.path
        study, series, sop = names.groups()
        found = {key: data for key, data in self.wrong.held.items()
                 if key[0] == study and series in (None, key[1]) and sop in (None, key[2])}
        path = self.path.partition("?")[0]
        if path.endswith("/series") or path.endswith("/instances"):
            self._list(found, path.endswith("/series"))
        elif not found:
            self.send_error(404)
        else:
            parts = list(found.values())[self.wrong.holds_back:] * (2 if self.wrong.repeats else 1)
            head = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            body = b"".join(head + part for part in parts) + f"\r\n--{_BOUNDARY}--".encode()
            self._answer(body[:len(body) - self.wrong.cuts],
                         f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}')

    def _list(self, found: dict[tuple[str, str, str], bytes], of_series: bool) -> None:
        items = {}
        for key, data in found.items():
            number = sum(other[1] == key[1] for other in found) + self.wrong.searched * self.wrong.grows
            ds = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
            items[key[1] if of_series else key[2]] = {
                "00080060": {"vr": "CS", "Value": [ds.Modality]}, "00080018": {"vr": "UI", "Value": [key[2]]},
                "0020000E": {"vr": "UI", "Value": [key[1]]}, "00201209": {"vr": "IS", "Value": [number]}}
        self.wrong.searched += 1
        self._answer(json.dumps(list(items.values())).encode(), "application/dicom+json")

    def _refused(self) -> bool:
        """Whether a fault was the answer."""
        self.wrong.asked += 1
        if self.wrong.statuses:
            status = self.wrong.statuses.pop(0)
            self.send_response(status)
            if status // 100 == 3:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.wrong.token and self.headers["Authorization"] != self.wrong.token:
            self.send_error(401)
        elif self.wrong.says:
            self._answer(self.wrong.says.encode(), "text/html")
        else:
            return False
        return True

    def _body(self) -> bytes:
        """The request's body, of a known length or in chunks."""
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
