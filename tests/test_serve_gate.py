"""Who is let in, which addresses there are, and who may be slow: FAULTS 70 to 72, 78 to 80, 82, 83."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import serve_fake
from serving import EDGE, LIMITS, SCAN, TOKEN, Served, form, problem, serving

from mtdlr.serve import server
from mtdlr.serve.queue import MAX_OPEN


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of this file."""
    with serving(tmp_path_factory.mktemp("jobs"), serve_fake.load, LIMITS) as running:
        yield running


# Who is let in: FAULTS 70 to 72.

@pytest.mark.parametrize("value", ["", "Bearer wrong", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Basic " + TOKEN,
                                   "Bearer \xff", "Bearer"])
def test_a_missing_or_wrong_token_is_401(served: Served, value: str) -> None:
    """FAULTS 70: without the token nothing is told, not even which paths there are."""
    for path in ("/", "/jobs/0", "/static/style.css", "/nowhere"):
        assert problem(served.ask("GET", path, Authorization=value)) == (401, "E-TOKEN")


def test_the_address_with_the_token_sets_a_cookie_and_hides_the_token(served: Served) -> None:
    """The cookie is HttpOnly and SameSite=Strict, and the token leaves the address bar."""
    answer = served.ask("GET", f"/?token={TOKEN}", Authorization="")
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 303 and answer.headers["Location"] == "/"
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    pair = cookie.partition(";")[0]
    assert served.ask("GET", "/", Authorization="", Cookie=pair).status == 200
    own = f"http://127.0.0.1:{served.port}"
    assert problem(served.ask("POST", "/jobs/0/delete", Authorization="", Cookie=pair)) == (403, "E-ORIGIN")
    assert problem(served.ask("POST", "/jobs/0/delete", Authorization="", Cookie=pair, Origin=own)) == (404, "E-NOJOB")


@pytest.mark.parametrize("query", ["token=wrong", "token=", "token=%0d%0aSet-Cookie:x", "token=a&token=" + TOKEN,
                                   "token=%00"])
def test_a_wrong_token_in_the_address_sets_nothing(served: Served, query: str) -> None:
    """A wrong token is 401 without a cookie, whatever letters it holds."""
    answer = served.ask("GET", f"/?{query}", Authorization="")
    assert problem(answer) == (401, "E-TOKEN") and answer.headers["Set-Cookie"] is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1.evil.example:{port}",
                                  "localhost", "127.0.0.1:{port}@evil"])
def test_a_foreign_host_is_421(served: Served, host: str) -> None:
    """FAULTS 71: a name that was rebound to this address is not this server, even with the token."""
    assert problem(served.ask("GET", "/", Host=host.format(port=served.port))) == (421, "E-HOST")


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1"},
                                     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}])
def test_a_foreign_origin_is_403(served: Served, headers: dict[str, str]) -> None:
    """FAULTS 72: another site's page can neither read nor write, even with the token."""
    for method in ("GET", "POST", "DELETE"):
        assert problem(served.ask(method, "/jobs/0", **headers)) == (403, "E-ORIGIN")


# Addresses and words: FAULTS 78 to 80.

@pytest.mark.parametrize("path", ["/jobs/../../etc/passwd", "/jobs/%2e%2e", "/jobs/..%2f..%2fetc", "/jobs/" + "0" * 32,
                                  "/jobs/%00", "/jobs/.making-1", "/static/../server.py", "/static/%2e%2e%2fserver.py",
                                  "/static/..%5cserver.py", "/static/", "/static/nothing.js", "//etc/passwd"])
def test_a_path_that_climbs_is_404(served: Served, path: str) -> None:
    """FAULTS 78, 79: no address leads to a file that is not meant."""
    answer = served.ask("GET", path)
    assert answer.status in (404, 405) and "root:" not in answer.text


@pytest.mark.parametrize("rest", ["result/../job.json", "result/%2e%2e%2fjob.json", "upload/scan.zip", "./job.json",
                                  "view/..", "result/%2e%2e", "result/nothing"])
def test_only_the_files_of_a_result_are_given(served: Served, rest: str) -> None:
    """FAULTS 78: the state file, the upload and other folders are 404."""
    job = served.done(SCAN)
    assert served.ask("GET", f"/jobs/{job}/{rest}").status == 404


def test_markup_in_values_is_shown_as_text(served: Served) -> None:
    """FAULTS 80: a clinical value with a script in it is escaped on every page that shows it."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    job = served.done(SCAN, {"clinical.age": evil})
    for path in ("/", f"/jobs/{job}"):
        page = served.ask("GET", path, Accept="text/html").text
        assert "<script>alert" not in page and "<img src=x" not in page
    page = served.ask("POST", "/jobs", form(SCAN, {evil: "1"}), Accept="text/html",
                      Content_Type=f"multipart/form-data; boundary={EDGE}").text
    assert "<script>alert" not in page and "<img src=x" not in page


@pytest.mark.parametrize(("method", "path"), [("PUT", "/"), ("POST", "/"), ("PATCH", "/jobs"), ("GET", "/jobs"),
                                              ("TRACE", "/"), ("OPTIONS", "/jobs"), ("GET", "/jobs/0/cancel"),
                                              ("DELETE", "/static/style.css"), ("BREW", "/")])
def test_a_verb_that_is_not_meant_is_refused(served: Served, method: str, path: str) -> None:
    """Verbs other than a route's own do nothing; no GET changes anything."""
    assert served.ask(method, path).status in (404, 405)


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_a_job_that_is_not_there_is_not_touched(served: Served, verb: str) -> None:
    """Guessed ids are 404, and no job is lost by them."""
    job = served.done(SCAN)
    for guess in ("0" * 32, job[:-1], job.upper() + "x", "*", "."):
        assert served.ask("POST", f"/jobs/{guess}/{verb}").status == 404
    assert job in served.folders()


# Slow and many: FAULTS 82, 83.

def test_a_huge_header_is_refused(served: Served) -> None:
    """A head beyond 16 KB ends the connection with an error."""
    try:
        answer = served.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 17))
    except ConnectionError:  # closed while we were still sending
        return
    assert b" 400 " in answer.splitlines()[0]


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"\r\n" * 10 + b"x\r\n\r\n",
                                  b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                                  b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"])
def test_garbage_is_refused(served: Served, data: bytes) -> None:
    """Bytes that are no HTTP, two hosts or a negative length get 400 and a closed connection."""
    assert b" 400 " in served.raw(data).splitlines()[0]


def test_a_head_that_never_ends_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: a connection without a whole head is closed when its time is over."""
    monkeypatch.setattr(server._Timed, "head_s", 0.2)
    assert served.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX-a: ") == b""
    assert served.raw(b"") == b""


def test_a_body_that_stands_still_is_408(served: Served) -> None:
    """An upload that sends nothing for a while is refused, and its slot is free again."""
    before = served.folders()
    head = (f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Connection: close\r\nContent-Type: multipart/form-data; boundary={EDGE}\r\n"
            f"Content-Length: 1000\r\n\r\n--{EDGE}\r\n").encode()
    assert b" 408 " in served.raw(head).splitlines()[0]
    assert served.folders() == before


def test_a_hundred_idle_connections_keep_nobody_out(served: Served) -> None:
    """FAULTS 82: the server answers beside 100 connections that say nothing."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        assert served.ask("GET", "/", Accept="text/html").status == 200


def test_two_uploads_at_once(served: Served) -> None:
    """FAULTS 83: two scans whose bytes come in turns are both taken, each whole."""
    body = form(SCAN, {"clinical.stage": "III"})
    head = (f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Connection: close\r\nContent-Type: multipart/form-data; boundary={EDGE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    with ExitStack() as stack:
        links = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(2)]
        for piece in (head, body[:100], body[100:]):
            for link in links:
                link.sendall(piece)
        answers = [b"".join(iter(lambda one=link: one.recv(65536), b"")) for link in links]
    for answer in answers:
        job = json.loads(answer.partition(b"\r\n\r\n")[2])["id"]
        served.queue.wait(job, 60.0)
        numbers = json.loads(served.ask("GET", f"/jobs/{job}/result/prediction.json").text)
        assert [name for name in numbers["files"] if name.endswith("dcm")] == sorted(SCAN)


def test_the_queue_is_bounded(served: Served) -> None:
    """FAULTS 83: uploads are taken side by side while one is computed; one too many is 429."""
    held = [json.loads(served.send(SCAN, {"clinical.stage": "hold"}).text)["id"] for _ in range(MAX_OPEN)]
    assert problem(served.send(SCAN)) == (429, "E-BUSY")
    assert {served.queue.job(job).state for job in held} <= {"waiting", "running"}
    for job in reversed(held):
        assert served.ask("DELETE", f"/jobs/{job}").status == 204
    assert served.queue.job(served.done(SCAN)).state == "done"
