"""The routes: a scan goes in, a job is followed, a result is looked at, everything can be deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mtdlr.errors import Problem
from mtdlr.serve.jobs import PARTS, Job
from mtdlr.serve.pages import job_page, refusal_page, result_page, static_file, upload_page
from mtdlr.serve.queue import Queue
from mtdlr.serve.refusal import Refusal, our_bug
from mtdlr.serve.security import DOCUMENT_POLICY, Gate, guarded
from mtdlr.serve.upload import Limits, check_archives, receive_form, too_large

_CLINICAL = "clinical."
_OPTIONS = ("series", "uptake_min", "center", "accept", "dicom")
_TYPES = {".html": "text/html", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
          ".pdf": "application/pdf", ".gz": "application/gzip",
          ".zip": "application/zip"}


@dataclass(frozen=True, eq=False)
class Service:
    """What the routes work with.

    Args:
        queue: of the jobs.
        facts: of the model.
        gate: who passes.
        limits: of an upload.
    """

    queue: Queue
    facts: Mapping[str, Any]
    gate: Gate
    limits: Limits


def application(service: Service) -> ASGIApp:
    """The application of a service, guarded."""
    def bound(view: Callable[[Service, Request], Awaitable[Response]]) -> Any:
        async def endpoint(request: Request) -> Response:
            return await view(service, request)
        return endpoint

    routes = [
        Route("/", bound(_home), methods=["GET"]), Route("/jobs", bound(_receive), methods=["POST"]),
        Route("/jobs/{job}", bound(_job), methods=["GET"]), Route("/jobs/{job}", bound(_delete), methods=["DELETE"]),
        Route("/jobs/{job}/state", bound(_state), methods=["GET"]),
        Route("/jobs/{job}/cancel", bound(_cancel), methods=["POST"]),
        Route("/jobs/{job}/delete", bound(_delete), methods=["POST"]),
        Route("/jobs/{job}/{part:str}/{name}", bound(_file), methods=["GET"]),
        Route("/static/{name}", bound(_static), methods=["GET"]),
    ]
    handlers: Any = {Refusal: _refused, HTTPException: _not_found, Exception: _failed}
    return guarded(Starlette(routes=routes, exception_handlers=handlers), service.gate, _answer)


async def _home(service: Service, _: Request) -> Response:
    return HTMLResponse(upload_page(service.facts, service.queue.jobs(), service.limits))


async def _receive(service: Service, request: Request) -> Response:
    """Take a scan in: acknowledged when it lies on the disk and waits for its turn."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > service.limits.bytes:
        raise too_large(service.limits)
    queue = service.queue
    job = await run_in_threadpool(_opened, queue)
    try:
        upload = queue.folder / job.id / "upload"
        values = await receive_form(request.headers.get("content-type", ""), request.receive, upload, service.limits)
        await run_in_threadpool(check_archives, upload, service.limits)
        await run_in_threadpool(queue.accept, _described(job, values))
    except BaseException:  # also a request that is cancelled: nothing was acknowledged
        queue.drop(job.id)
        raise
    return _done(request, service, job.id, 201)


async def _job(service: Service, request: Request) -> Response:
    job = service.queue.job(request.path_params["job"])
    if job.state == "done":
        return HTMLResponse(await run_in_threadpool(result_page, service.facts, job, service.queue.folder / job.id))
    return HTMLResponse(job_page(service.facts, job, service.queue.ahead_of(job)))


async def _state(service: Service, request: Request) -> Response:
    return JSONResponse(_state_of(service, request.path_params["job"]))


async def _cancel(service: Service, request: Request) -> Response:
    job = await run_in_threadpool(service.queue.cancel, request.path_params["job"])
    return _done(request, service, job.id, 200)


async def _delete(service: Service, request: Request) -> Response:
    await run_in_threadpool(service.queue.delete, request.path_params["job"])
    return Response(status_code=204) if _wants_json(request.headers) else RedirectResponse("/", 303)


async def _file(service: Service, request: Request) -> Response:
    """A file of a result, by a name that stands in its folder's list; no path is built from what was asked."""
    job, part, name = (request.path_params[key] for key in ("job", "part", "name"))
    home = service.queue.folder / service.queue.job(job).id
    held = {path.name: path for path in (home / part).iterdir()} if part in PARTS and (
        home / part).is_dir() else {}
    if name not in held:
        raise _nothing()
    kind = _TYPES.get(held[name].suffix, "application/octet-stream")
    shown = part == "view" or held[name].suffix in (".html", ".png", ".pdf", ".svg")
    policy = {"Content-Security-Policy": DOCUMENT_POLICY} if part == "result" and kind != _TYPES[".pdf"] else {}
    return FileResponse(held[name], media_type=kind, headers=policy, filename=None if shown else name)


async def _static(service: Service, request: Request) -> Response:
    found = static_file(request.path_params["name"])
    if found is None:
        raise _nothing()
    return FileResponse(found[0], media_type=found[1])


def _opened(queue: Queue) -> Job:
    """A new job.

    Raises:
        Refusal: as `Queue.open_job`; 507 E-DISKFULL.
    """
    try:
        return queue.open_job()
    except OSError:
        raise Refusal(507, Problem("E-DISKFULL", "the server's disk takes nothing more",
                                   remedy="Delete jobs that are no longer needed")) from None


def _described(job: Job, values: Mapping[str, str]) -> Job:
    """The job with the values of the form.

    Raises:
        Refusal: 400 E-OPTION for a value that is unknown or no number.
    """
    clinical = {name.removeprefix(_CLINICAL): value.strip() for name, value in values.items()
                if name.startswith(_CLINICAL) and value.strip()}
    unknown = [name for name in values if not name.startswith(_CLINICAL) and name not in _OPTIONS]
    if unknown:
        raise Refusal(400, Problem("E-OPTION", "the form has a value that is not known", found=unknown[0][:80],
                                   expected=f"{_CLINICAL}NAME, " + ", ".join(_OPTIONS)))
    typed = values.get("uptake_min", "").strip().replace(",", ".")
    try:
        uptake = float(typed) if typed else None
    except ValueError:
        uptake = 0.0
    if uptake is not None and not 1.0 <= uptake <= 1000.0:
        raise Refusal(400, Problem("E-OPTION", "minutes from injection to scan are a number", found=repr(typed[:80]),
                                   expected="1 to 1000"))
    series = tuple(line.strip() for line in values.get("series", "").splitlines() if line.strip())
    return replace(job, clinical=clinical, series=series, uptake_min=uptake, accept_shift="accept" in values,
                   center=values.get("center", "").strip(), dicom="dicom" in values)


def _state_of(service: Service, job_id: str) -> dict[str, Any]:
    """The state of a job, for the JSON answer."""
    job = service.queue.job(job_id)
    return {"id": job.id, "state": job.state, "ahead": service.queue.ahead_of(job),
            "problems": [problem.as_dict() for problem in job.problems], "page": f"/jobs/{job.id}"}


def _done(request: Request, service: Service, job_id: str, status: int) -> Response:
    """The state for a program, the job's page for a person."""
    if _wants_json(request.headers):
        return JSONResponse(_state_of(service, job_id), status)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def _wants_json(headers: Headers) -> bool:
    return "text/html" not in headers.get("accept", "")


def _nothing() -> Refusal:
    return Refusal(404, Problem("E-NOPAGE", "there is no such page", remedy="Go back to the first page"))


def _answer(refusal: Refusal, headers: Headers) -> Response:
    """A refusal as JSON for a program, as a page for a person."""
    more = {"Retry-After": "10"} if refusal.status == 429 else {}
    if _wants_json(headers):
        return JSONResponse({"problems": [refusal.problem.as_dict()]}, refusal.status, more)
    return HTMLResponse(refusal_page(refusal.problem), refusal.status, more)


def _refused(request: Request, error: Refusal) -> Response:
    return _answer(error, request.headers)


def _not_found(request: Request, error: HTTPException) -> Response:
    refusal = _nothing() if error.status_code == 404 else Refusal(
        error.status_code, Problem("E-METHOD", "this method is not allowed at this address", found=request.method[:20]))
    return _answer(refusal, request.headers)


def _failed(request: Request, error: Exception) -> Response:
    return _answer(Refusal(500, our_bug(error)), request.headers)
