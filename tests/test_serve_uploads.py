"""What may be sent: FAULTS 73 to 77."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import serve_fake
from serving import EDGE, LIMITS, SCAN, TOKEN, Served, form, problem, serving, zipped

from mtdlr.serve import upload
from mtdlr.serve.refusal import Refusal
from mtdlr.serve.upload import Limits, check_archives, safe_path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of this file."""
    with serving(tmp_path_factory.mktemp("jobs"), serve_fake.load, LIMITS) as running:
        yield running


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x.dcm", "..\\\\x.dcm", "a/../../x", "\x01.dcm",
                                  "a" * 300, "/".join("a" * 20), "\x7f", "a:b"])
def test_a_file_name_that_is_not_safe_is_refused(served: Served, name: str) -> None:
    """FAULTS 73: nothing is written for a name that leaves the folder or cannot be kept."""
    before = served.folders()
    assert problem(served.send({name: b"x"})) == (400, "E-UPLOAD")
    assert served.folders() == before


def test_a_drive_in_a_file_name_is_dropped(served: Served) -> None:
    """FAULTS 73: of `C:\\folder\\x.dcm` in a form the last part is kept, inside the upload."""
    job = served.done({"C:\\\\folder\\\\x.dcm": b"x"})
    assert json.loads(served.ask("GET", f"/jobs/{job}/result/prediction.json").text)["files"] == ["x.dcm"]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "..", "a/..", "/"])
def test_names_that_no_form_can_carry_are_refused_too(name: str) -> None:
    """NUL, half a letter and empty names are refused."""
    with pytest.raises(Refusal):
        safe_path(name)


@pytest.mark.parametrize("name", ["/etc/x.dcm", "../x.dcm", "..\\x.dcm", "\\x.dcm", "C:/x.dcm", "C:\\x.dcm",
                                  "inner.zip", "more.tar.gz", "a\x07b"])
def test_a_member_that_leaves_the_zip_or_is_an_archive_is_refused(served: Served, name: str) -> None:
    """FAULTS 73: zip slip and zips in zips are 400, and the job's folder is gone."""
    before = served.folders()
    assert problem(served.send({"a.zip": zipped({name: b"x"})})) == (400, "E-ZIP")
    assert served.folders() == before


def test_a_link_in_a_zip_is_refused(served: Served) -> None:
    """FAULTS 73: a symbolic link is 400."""
    link = zipfile.ZipInfo("scan.dcm")
    link.external_attr = 0o120777 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr(link, "/etc/passwd")
    assert problem(served.send({"a.zip": packed.getvalue()})) == (400, "E-ZIP")


def _bomb(path: Path, size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("a.dcm", "w", force_zip64=True) as out:
        for _ in range(size >> 24):
            out.write(bytes(1 << 24))


@pytest.mark.slow
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """FAULTS 74: refused by its ratio, in memory that hardly grows; one within the ratio by its total."""
    _bomb(tmp_path / "scan.zip", 1 << 28)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refusal, match="E-ZIP"):
        check_archives(tmp_path, Limits())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    (tmp_path / "scan.zip").write_bytes(zipped({"a": os.urandom(1 << 12) + bytes(1 << 18)}))
    with pytest.raises(Refusal, match="expand too far"):
        check_archives(tmp_path, Limits(unpacked=1 << 16))
    check_archives(tmp_path, Limits())


def test_a_zip_that_lies_about_its_sizes_is_refused(served: Served) -> None:
    """FAULTS 74: a member whose directory entry says less than it holds is damaged, and no more is read of it."""
    whole = bytearray(zipped({"a.dcm": bytes(1 << 20)}))
    place = whole.rfind(b"PK\1\2")
    whole[place + 24:place + 28] = struct.pack("<L", 10)
    assert problem(served.send({"a.zip": bytes(whole)})) == (400, "E-ZIP")


def test_a_zip_with_an_endless_list_of_members_is_refused(served: Served) -> None:
    """A list of members that would fill the memory is refused unread."""
    whole = bytearray(zipped(SCAN))
    place = whole.rfind(b"PK\5\6")
    whole[place + 12:place + 16] = struct.pack("<L", 1 << 30)
    assert problem(served.send({"a.zip": bytes(whole)})) == (400, "E-ZIP")


@pytest.mark.parametrize("spoil", ["cut", "crc", "encrypted", "text", "twice", "many"])
def test_a_broken_zip_is_refused_and_its_folder_removed(served: Served, spoil: str) -> None:
    """FAULTS 76, 77: cut, CRC, encrypted, not a zip, two members of one name, too many members: 400."""
    good = zipped(SCAN)
    data = bytearray(good)
    if spoil == "cut":
        data = data[:len(data) // 2]
    elif spoil == "crc":
        for mark in (b"PK\1\2", b"PK\3\4"):
            data[data.find(mark) + (16 if mark == b"PK\1\2" else 14)] ^= 255
    elif spoil == "encrypted":
        data[data.find(b"PK\1\2") + 8] |= 1
        data[data.find(b"PK\3\4") + 6] |= 1
    elif spoil == "text":
        data = bytearray(b"not a zip")
    elif spoil == "many":
        data = bytearray(zipped({f"{k}.dcm": b"" for k in range(21)}))
    else:
        data = bytearray(zipped({"a.dcm": b"1", "b.dcm": b"2"}).replace(b"b.dcm", b"a.dcm"))
    before = served.folders()
    assert problem(served.send({"a.zip": bytes(data)})) == (400, "E-ZIP")
    assert served.folders() == before


def test_a_body_that_is_too_large_is_413(served: Served) -> None:
    """FAULTS 75: by its announced length before a byte is read, and by its bytes where none is announced."""
    assert problem(served.ask("POST", "/jobs", b"x", Content_Length=str(1 << 40))) == (413, "E-TOOLARGE")
    head = (f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Connection: close\r\nContent-Type: multipart/form-data; boundary={EDGE}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    start = form({"a.dcm": b""}, {}).split(f"\r\n--{EDGE}--".encode())[0]
    chunks = [start, *[bytes(1 << 16)] * 17]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert b" 413 " in served.raw(head + body).splitlines()[0]


def test_too_many_files_are_refused(served: Served) -> None:
    """FAULTS 76: one file more than allowed is 400, and nothing is kept."""
    assert problem(served.send({f"{k}.dcm": b"" for k in range(21)})) == (400, "E-UPLOAD")


@pytest.mark.parametrize("kind", ["text/plain", "", "multipart/form-data", f"multipart/form-data; boundary={'x' * 400}",
                                  "multipart/form-data; boundary=other"])
def test_a_form_that_is_none_is_refused(served: Served, kind: str) -> None:
    """A wrong type, no boundary, a boundary that is too long or another than the body's: 400."""
    assert problem(served.send(SCAN, Content_Type=kind)) == (400, "E-UPLOAD")


@pytest.mark.parametrize(("files", "values", "code"), [
    ({}, {"clinical.stage": "III"}, "E-UPLOAD"), (SCAN, {"clinical.stage": "x" * 2000}, "E-UPLOAD"),
    (SCAN, {f"clinical.{k}": "1" for k in range(65)}, "E-UPLOAD"), (SCAN, {"__proto__": "1"}, "E-OPTION"),
    (SCAN, {"uptake_min": "nan"}, "E-OPTION"), (SCAN, {"uptake_min": "an hour"}, "E-OPTION"),
    ({"a": b"", "a/b": b""}, {}, "E-UPLOAD"),
])
def test_odd_values_of_the_form_are_refused(
    served: Served, files: dict[str, bytes], values: dict[str, str], code: str
) -> None:
    """No file, a long value, many values, unknown names, odd numbers, a file that is also a folder: 400."""
    before = served.folders()
    assert problem(served.send(files, values)) == (400, code) and served.folders() == before


def test_a_form_with_one_name_twice_is_refused(served: Served) -> None:
    """Two files of one name, or one value twice, are not settled by the last: 400."""
    kind = f"multipart/form-data; boundary={EDGE}"
    one = form({"a.dcm": b"1"}, {"clinical.age": "1"}).replace(f"--{EDGE}--\r\n".encode(), b"")
    for again in (form({"a.dcm": b"2"}, {}), form({}, {"clinical.age": "2"})):
        assert problem(served.ask("POST", "/jobs", one + again, Content_Type=kind)) == (400, "E-UPLOAD")


def test_a_cut_upload_leaves_nothing(served: Served) -> None:
    """A body that ends before its form does is 400, and its folder is gone."""
    before, body = served.folders(), form(SCAN, {})
    kind = f"multipart/form-data; boundary={EDGE}"
    assert problem(served.ask("POST", "/jobs", body[:-20], Content_Type=kind)) == (400, "E-UPLOAD")
    assert served.folders() == before


def test_a_full_disk_is_507_and_leaves_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that finds no room is E-DISKFULL."""
    def full(parts: upload._Parts) -> None:
        parts.files.add("a")
        parts.out = Path("/dev/full").open("wb", buffering=0)
    monkeypatch.setattr(upload, "_begin_part", full)
    before = served.folders()
    assert problem(served.send(SCAN)) == (507, "E-DISKFULL") and served.folders() == before
