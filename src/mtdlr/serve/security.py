"""Who may ask: the right host, the right origin, the right token; and what every answer forbids the browser."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtdlr.errors import Problem
from mtdlr.serve.refusal import Refusal

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
          "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
DOCUMENT_POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
                   "frame-ancestors 'none'; sandbox")
"""Of a result that is a document of its own: it shows, and runs nothing."""
HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin", "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Gate:
    """Who is let in.

    Args:
        token: that a request must bring, in a cookie or as `Authorization: Bearer`.
        hosts: values of the Host header by which this server is meant.
        cookie: name of the cookie; it holds the port, for browsers share cookies between ports.
    """

    token: str
    hosts: frozenset[str]
    cookie: str


def loopback_gate(port: int, names: tuple[str, ...] = (), token: str | None = None) -> Gate:
    """The gate of a server on this machine.

    Args:
        port: it listens on.
        names: further names under which browsers reach it, with or without a port.
        token: by default one that nobody can guess.
    """
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", *names)} | set(names)
    return Gate(token or secrets.token_urlsafe(32), frozenset(host.lower() for host in hosts), f"mtdlr_{port}")


def guarded(app: ASGIApp, gate: Gate, refused: Callable[[Refusal, Headers], Response]) -> ASGIApp:
    """An application behind a gate: nothing reaches it without passing, and every answer carries the headers.

    Args:
        app: what is guarded.
        gate: who passes.
        refused: (refusal, headers of the request) -> the answer.
    """
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                written = MutableHeaders(scope=message)
                for name, value in {"Content-Security-Policy": POLICY, **HEADERS}.items():
                    if name not in written:
                        written[name] = value
            await send(message)

        try:
            entry = _entry(scope, headers, gate)
        except Refusal as refusal:
            entry = refused(refusal, headers)
        with suppress(Exception):  # answered already; uvicorn would log its text, which may name a patient
            await (app if entry is None else entry)(scope, receive, send_with_headers)

    return answer


def _entry(scope: Scope, headers: Headers, gate: Gate) -> Response | None:
    """None for a request that may pass; a redirect that sets the cookie for one that brings the token in its address.

    Raises:
        Refusal: 421 E-HOST, 403 E-ORIGIN, 401 E-TOKEN.
    """
    if headers.get("host", "").lower() not in gate.hosts:
        raise Refusal(421, Problem("E-HOST", "this server is not meant by that name",
                                   remedy="Open the address that `mtdlr serve` printed"))
    _check_origin(scope["method"], headers, gate)
    if scope["path"] == "/" and scope["method"] == "GET":
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _same(given, gate.token):
            home = RedirectResponse("/", 303)
            home.set_cookie(gate.cookie, gate.token, httponly=True, samesite="strict", path="/")
            return home
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    by_cookie = _same(_cookies(headers).get(gate.cookie, ""), gate.token)
    if not by_cookie and not (kind.lower() == "bearer" and _same(bearer.strip(), gate.token)):
        raise Refusal(401, Problem("E-TOKEN", "the token is missing or wrong",
                                   remedy="Open the whole address that `mtdlr serve` printed, with its token"))
    if by_cookie and scope["method"] not in _SAFE and "origin" not in headers:
        raise _foreign()  # a browser says where a form comes from
    return None


def _check_origin(method: str, headers: Headers, gate: Gate) -> None:
    """Refuse what another site's page asks for.

    Raises:
        Refusal: 403 E-ORIGIN.
    """
    origin = headers.get("origin")
    known = {f"{scheme}://{host}" for host in gate.hosts for scheme in ("http", "https")}
    if (origin is not None and origin.lower() not in known) or len(headers.getlist("origin")) > 1:
        raise _foreign()
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise _foreign()


def _foreign() -> Refusal:
    return Refusal(403, Problem("E-ORIGIN", "the request comes from another page",
                                remedy="Paste the server's address into the browser"))


def _same(given: str, token: str) -> bool:
    """Whether two tokens are equal, in a time that tells nothing."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _cookies(headers: Headers) -> Mapping[str, Any]:
    return cookie_parser(headers.get("cookie", ""))
