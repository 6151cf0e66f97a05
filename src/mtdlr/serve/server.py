"""Run the service on a port: slow clients are cut, files are deleted at the end, one server a folder."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mtdlr.errors import MtdlrError, Problem, StoreError
from mtdlr.serve.app import Service, application
from mtdlr.serve.queue import Queue
from mtdlr.serve.security import loopback_gate
from mtdlr.serve.upload import Limits
from mtdlr.serve.worker import Predictor
from mtdlr.store import take_lock

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADER_BYTES = 1 << 14
_LOCK = "lock"
_BACKLOG = 512


class _Timed(H11Protocol):
    """uvicorn's HTTP, which waits forever for a request that never ends: here its head has a time limit."""

    head_s = 10.0
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_s, self._cut)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waits = self.cycle is None or self.cycle.response_complete
        if not waits and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waits and self._head is None:
            self._head = self.loop.call_later(self.head_s, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _cut(self) -> None:
        self._head = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Args:
        host: address of this machine.
        port: 0 for a free one.
        remote: names under which other machines reach this one; needed for an address that others reach.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    remote: tuple[str, ...] = ()


def serve(
    load: Callable[[], Predictor], folder: Path, address: Address, *, keep: bool = False,
    limits: Limits | None = None, token: str | None = None, ready: Callable[[str], None] = print,
) -> None:
    """Serve a model until the process is stopped.

    Args:
        load: makes the predictor in the worker; importable by name.
        folder: of the jobs.
        address: where it listens.
        keep: leave the jobs in the folder at the end.
        limits: of an upload.
        token: by default a new one.
        ready: told the address to open.

    Raises:
        MtdlrError: E-REMOTE; E-PORT where the port is taken; E-LOCKED where another server works in the folder; what
            loading the model raises.
    """
    host, remote = address.host, address.remote
    if host not in LOOPBACK and not remote:
        raise MtdlrError(Problem("E-REMOTE", "other machines would reach this address", found=host,
                                 expected="127.0.0.1", remedy="Give --allow-remote with the name they reach it by"))
    with ExitStack() as stack:
        bound = stack.enter_context(_bound(host, address.port))
        _hold(folder, stack)
        queue = Queue(folder / "jobs", load)
        facts = queue.start()
        try:
            at = int(bound.getsockname()[1])
            gate = loopback_gate(at, remote, token)
            app = application(Service(queue, facts, gate, limits or Limits()))
            name = remote[0] if remote else "127.0.0.1" if host != "::1" else "[::1]"
            _end_in_order()
            ready(f"http://{name}:{at}/?token={gate.token}")
            uvicorn.Server(configured(app)).run([bound])
        finally:
            queue.close(keep=keep)


def _end_in_order() -> None:
    """Let uvicorn alone answer to signals that end us, and nothing once it has: the files are deleted after it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a closed terminal; not nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def configured(app: Any) -> uvicorn.Config:
    """uvicorn's settings: limits on heads and idle connections, no log of requests."""
    return uvicorn.Config(app, http=_Timed, ws="none", lifespan="off", access_log=False, log_level="warning",
                          h11_max_incomplete_event_size=_HEADER_BYTES, timeout_keep_alive=10, server_header=False,
                          timeout_graceful_shutdown=3, date_header=False, proxy_headers=False, backlog=_BACKLOG)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        MtdlrError: E-PORT.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(_BACKLOG)  # now, so that a port that is taken is found before the model is loaded
    except (OSError, OverflowError) as error:
        made.close()
        raise MtdlrError(Problem("E-PORT", "the server cannot listen there", where=f"{host}:{port}", found=str(
            getattr(error, "strerror", "") or error), remedy="Choose another with --port")) from None
    return made


def _hold(folder: Path, stack: ExitStack) -> None:
    """Keep other servers out of the folder.

    Raises:
        StoreError: E-LOCKED, E-READONLY.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = stack.enter_context((folder / _LOCK).open("w"))
    except OSError as error:
        raise StoreError(Problem("E-READONLY", "the server's folder cannot be written", where=folder.name,
                                 found=error.strerror or "", remedy="Choose another with --folder")) from None
    if not take_lock(handle):
        raise StoreError(Problem("E-LOCKED", "another server works in this folder", where=folder.name,
                                 remedy="Choose another with --folder"))
