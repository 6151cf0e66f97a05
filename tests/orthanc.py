"""A real Orthanc with its DICOMweb plugin, started and ended here."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen

import pydicom

from mtdlr.pacs import Archive, authorization

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
CREDENTIALS = "engineer:geheim"


@dataclass(frozen=True)
class Orthanc:
    """A running archive: the address of its own interface."""

    root: str

    @property
    def archive(self) -> Archive:
        """Its DICOMweb service."""
        return Archive(f"{self.root}/dicom-web/", authorization(CREDENTIALS))

    def ask(self, path: str, data: bytes | None = None) -> bytes:
        """An answer of its own interface, past everything of ours."""
        request = Request(f"{self.root}/{path}", data, {"Authorization": authorization(CREDENTIALS)})
        with urlopen(request) as answer:
            return bytes(answer.read())

    def store(self, dataset: pydicom.Dataset) -> None:
        """Put one object in, past everything of ours."""
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        self.ask("instances", buffer.getvalue())

    def instances(self) -> dict[str, bytes]:
        """SOPInstanceUID -> the file that it holds."""
        files = [self.ask(f"instances/{name}/file") for name in json.loads(self.ask("instances"))]
        return {str(pydicom.dcmread(BytesIO(file)).SOPInstanceUID): file for file in files}


@contextmanager
def running_orthanc(place: Path) -> Iterator[Orthanc]:
    """An empty Orthanc on this machine alone, with a password, whose files lie in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "orthanc.json").write_text(json.dumps({
        "StorageDirectory": str(place / "db"), "IndexDirectory": str(place / "db"), "HttpPort": port,
        "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": dict([CREDENTIALS.split(":")]), "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True}}))
    assert ORTHANC is not None
    with subprocess.Popen([ORTHANC, str(place / "orthanc.json")], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("Orthanc has started" in line for line in process.stderr)
            yield Orthanc(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.communicate()
