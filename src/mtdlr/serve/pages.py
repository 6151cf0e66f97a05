"""The pages: templates filled with a model's facts and a job. Everything from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtdlr.errors import Problem
from mtdlr.serve.jobs import DICOM_ZIP, Job
from mtdlr.serve.upload import Limits

STATES = {"uploading": "being sent", "waiting": "waits for its turn", "running": "is being computed", "done": "done",
          "failed": "refused", "cancelled": "cancelled"}
STATIC = {
    "calculator.css": ("nomogram", "text/css"), "calculator.js": ("nomogram", "text/javascript"),
    "style.css": ("serve/static", "text/css"), "upload.js": ("serve/static", "text/javascript"),
    "job.js": ("serve/static", "text/javascript"), "viewer.js": ("serve/static", "text/javascript"),
    "niivue.umd.js": ("serve/static", "text/javascript"), "NIIVUE-LICENSE.txt": ("serve/static", "text/plain"),
}
"""Every file that is served as it is: where it lies in the package, and its type."""
LABELS = {
    "report.html": "Report of this patient", "report.pdf": "Report as PDF", "prediction.json": "Numbers (JSON)",
    "mask.nii.gz": "Tumour mask on the CT (NIfTI)", "mask_network.nii.gz": "Tumour mask on the network's grid (NIfTI)",
    "nomogram.svg": "Nomogram (SVG)", "overview.png": "Overview (PNG)",
}
_TEMPLATES = Environment(loader=PackageLoader("mtdlr", "serve/templates"), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True)


def static_file(name: str) -> tuple[Path, str] | None:
    """(file, type) of a static file; None for any other name."""
    if name not in STATIC:
        return None
    folder, kind = STATIC[name]
    return Path(str(files("mtdlr"))) / folder / name, kind


def upload_page(facts: Mapping[str, Any], jobs: Sequence[Job], limits: Limits) -> str:
    """The first page: the form with the model's covariates, and the jobs.

    Args:
        facts: of the model.
        jobs: newest first.
        limits: that the page tells before anything is sent.
    """
    return _render("upload", facts=facts, jobs=[_row(facts, job) for job in jobs], limits=limits)


def job_page(facts: Mapping[str, Any], job: Job, ahead: int) -> str:
    """The page of a job that has no result: its progress, or why it failed.

    Args:
        facts: of the model.
        job: not done.
        ahead: jobs that are done before it.
    """
    return _render("job", facts=facts, job=job, row=_row(facts, job), ahead=ahead)


def result_page(facts: Mapping[str, Any], job: Job, home: Path) -> str:
    """The page of a result: the answer, the viewer, the nomogram to change, and the files.

    Args:
        facts: of the model.
        job: done.
        home: folder of the job.
    """
    view = json.loads((home / "view" / "view.json").read_text(encoding="utf-8"))
    prediction = json.loads((home / "result" / "prediction.json").read_text(encoding="utf-8"))
    problems = [Problem(**problem) for problem in view["problems"]]
    parts = {name: Markup((home / "view" / name).read_text(encoding="utf-8"))
             for name in ("nomogram.html", "model.json")}
    held = {path.name for path in (home / "result").iterdir()}
    named = [(name, LABELS.get(name, name)) for name in (*LABELS, *sorted(held - set(LABELS))) if name in held]
    return _render("result", facts=facts, job=job, row=_row(facts, job), view=view, prediction=prediction,
                   problems=problems, nomogram=parts["nomogram.html"], model=parts["model.json"], results=named,
                   archive=(home / "dicom" / DICOM_ZIP).is_file(),
                   from_dicom=prediction["scan"].get("layout") == "dicom")


def refusal_page(problem: Problem) -> str:
    """The page of a request that is refused."""
    return _render("refusal", problem=problem)


def _row(facts: Mapping[str, Any], job: Job) -> dict[str, str]:
    """How a job stands in a list."""
    made = datetime.fromtimestamp(job.created).strftime("%Y-%m-%d %H:%M:%S")
    labels = {field["name"]: field["label"] for field in facts["fields"]}
    return {"id": job.id, "name": f"{made} ({job.id[:6]})", "state": STATES[job.state],
            "values": ", ".join(f"{labels.get(name, name)} {value}" for name, value in job.clinical.items())}


def _render(name: str, **values: Any) -> str:
    return _TEMPLATES.get_template(f"{name}.html.j2").render(**values)
