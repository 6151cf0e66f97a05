"""A predictor without networks, for the tests of the server; importable in the worker's process.

`python serve_fake.py FOLDER [--keep]` serves it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import threading
from pathlib import Path

from mtdlr.errors import BundleError, Problem, ScanError
from mtdlr.serve.jobs import Job
from mtdlr.serve.server import Address, serve
from mtdlr.serve.worker import Predictor

FACTS = {"endpoint": "PFS", "months": [36.0], "digest": "0123456789abcdef", "n": 60, "events": 30,
         "fields": [{"name": "stage", "label": "Stage", "levels": [["III", "III"], ["IVa", "IVa"]], "hint": ""},
                    {"name": "age", "label": "Age", "levels": [], "hint": "Model built on 20 to 80."}],
         "centers": ["A", "B"], "dicom": True}

KEPT: list[bytearray] = []
MAPPED: list[mmap.mmap] = []


def load() -> Predictor:
    """The predictor."""
    return Predictor(FACTS, predict)


def load_whole() -> Predictor:
    """A predictor that a copy of its process could not use."""
    return Predictor(FACTS, predict, copies=False)


def load_libraries() -> Predictor:
    """A predictor with two mapped files: one as it is on the disk, one that was written to before it was locked."""
    for _ in range(2):
        with open(__file__, "rb") as source:
            MAPPED.append(mmap.mmap(source.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    MAPPED[1][:7] = b"written"
    for one in MAPPED:
        place = ctypes.addressof(ctypes.c_char.from_buffer(one))
        assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(place), ctypes.c_size_t(len(one)), mmap.PROT_READ)
    assert MAPPED[0][:3] == b'"""'
    return Predictor(FACTS, predict)


def refuse() -> Predictor:
    """A model that cannot be loaded."""
    raise BundleError(Problem("E-NOBUNDLE", "this is not a model folder"))


def predict(scan: Path, job: Job, folder: Path) -> None:
    """Do what the stage says: hold, die, refuse, fail, fill the memory; else write a result."""
    stage = job.clinical.get("stage", "")
    if stage == "fill":
        KEPT.append(bytearray(os.urandom(1 << 20) * 64))
    if stage == "hold":
        while not (folder.parents[1] / "go").exists():
            threading.Event().wait(0.02)
    if stage == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if stage == "two":
        raise ScanError(Problem("E-MANYPATIENTS", "one patient's PET and CT are needed", found="2 patients"))
    if stage == "bug":
        raise KeyError("ZZPHI^CANARY")
    (folder / "result").mkdir()
    (folder / "view").mkdir()
    values = {"problems": [], "clinical": dict(job.clinical), "endpoint": "PFS", "group": "low", "mask_ml": 3.0,
              "survival": {"36": {"value": 0.9, "low": 0.8, "high": 0.95}}, "scan": {"layout": "dicom"},
              "sent": scan.name, "mapped": [one[:7].decode() for one in MAPPED],
              "center": job.center, "process": os.getpid(),
              "files": sorted(path.relative_to(scan).as_posix() for path in scan.rglob("*"))}
    (folder / "result" / "prediction.json").write_text(json.dumps(values))
    if job.dicom:
        (folder / "dicom").mkdir()
        (folder / "dicom" / "dicom.zip").write_bytes(b"PK")
    (folder / "result" / "report.html").write_text("<p>report</p>")
    view = {"planes": {"axial": {"n": 1, "start": 0}}, "suv_top": 5.0, "empty": False, "outside": False, "problems": [],
            "likeness": "The scan looks like the training scans."}
    (folder / "view" / "view.json").write_text(json.dumps(view))
    (folder / "view" / "nomogram.html").write_text("<section>nomogram</section>")
    (folder / "view" / "model.json").write_text("{}")


if __name__ == "__main__":
    serve(load, Path(sys.argv[1]), Address(port=0), keep="--keep" in sys.argv)
