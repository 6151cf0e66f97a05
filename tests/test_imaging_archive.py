"""Folders and zips as one kind of place: what is listed, what is passed over and why, and streams that break."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from pydicom import Dataset

from mtdlr.errors import ScanError
from mtdlr.imaging.archive import exists, is_archive, list_files, open_each, walk
from mtdlr.imaging.dicom_tags import items


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file, a hidden file, a zip of two files, a damaged zip and an archive of a foreign kind."""
    root = tmp_path / "export"
    (root / "P1").mkdir(parents=True)
    (root / "P1" / "a.dcm").write_bytes(b"alpha")
    (root / "P1" / ".hidden").write_bytes(b"no")
    with zipfile.ZipFile(root / "P2.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x/b.dcm", b"beta" * 500)
        packed.writestr("c.dcm", b"gamma")
    (root / "P3.zip").write_bytes(b"PK no zip")
    (root / "P4.tar.gz").write_bytes(b"\x1f\x8b")
    return root


def test_a_walk_looks_into_zips_and_names_what_it_passes(place: Path) -> None:
    """Files of folders and zips are found; a damaged zip and a foreign archive cost nothing but themselves."""
    found = walk(place)
    assert [path.relative_to(place).as_posix() for path in found.files] == [
        "P1/a.dcm", "P2.zip/c.dcm", "P2.zip/x/b.dcm"]
    assert {path.name: problem.code for path, problem in found.passed}.keys() == {"P3.zip", "P4.tar.gz"}


def test_a_list_of_a_folder_holds_zips_as_files(place: Path) -> None:
    """`list_files` looks into the zip that it is given and into no other."""
    assert {path.name for path in list_files(place)} == {"a.dcm", "P2.zip", "P3.zip", "P4.tar.gz"}
    assert list_files(place / "P1" / "a.dcm") == (place / "P1" / "a.dcm",)
    assert [path.name for path in list_files(place / "P2.zip")] == ["c.dcm", "b.dcm"]


@pytest.mark.parametrize(("name", "code"), [("nowhere", "E-NOFILE"), ("P3.zip", "E-ZIP")])
def test_a_root_that_cannot_be_read_is_refused(place: Path, name: str, code: str) -> None:
    """A place that is not there, or a zip that is none, is an error with its code."""
    with pytest.raises(ScanError, match=code):
        list_files(place / name)


def test_a_place_no_system_could_hold_is_not_there(place: Path) -> None:
    """A name with a zero byte, or of ten thousand letters, is no file and no archive, and raises nothing."""
    for name in ("a\0b", "x" * 10_000, "a\0b.zip", "P1/none"):
        assert not exists(place / name) and not is_archive(place / name)
    assert exists(place / "P2.zip" / "x" / "b.dcm")
    assert is_archive(place / "P2.zip") and not is_archive(place / "P3.zip")


def test_a_link_out_of_the_folder_is_not_followed(place: Path, tmp_path: Path) -> None:
    """A link that leads out is passed over: an error where it stands for a patient, a warning below."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.dcm").write_bytes(b"secret")
    (place / "P9").symlink_to(outside)
    (place / "P1" / "link.dcm").symlink_to(outside / "secret.dcm")
    found = walk(place)
    assert not any("secret" in path.name or path.is_symlink() for path in found.files)
    codes = {path.name: problem.code for path, problem in found.passed}
    assert (codes["P9"], codes["link.dcm"]) == ("E-LINK", "W-LINK")


def test_streams_are_read_as_files_are(place: Path) -> None:
    """A member of a zip can be read in parts, into a buffer, and from its start again."""
    member = place / "P2.zip" / "x" / "b.dcm"
    for path, stream in open_each([member]):
        assert path == member
        assert not isinstance(stream, ScanError)
        assert stream.readable() and stream.seekable() and stream.read(4) == b"beta"
        buffer = bytearray(4)
        assert stream.readinto(buffer) == 4 and bytes(buffer) == b"beta" and stream.tell() == 8  # type: ignore[attr-defined]
        assert stream.seek(0) == 0 and len(stream.read()) == 2000


def test_a_member_that_is_damaged_says_so_where_it_is_read(place: Path) -> None:
    """A flipped byte of packed data is E-ZIP when the member is read; its neighbour is read whole."""
    path = place / "P2.zip"
    data = bytearray(path.read_bytes())
    at = data.find(b"x/b.dcm") + len("x/b.dcm") + 2
    data[at] ^= 0xFF
    path.write_bytes(data)
    outcomes = {}
    for member, stream in open_each([path / "c.dcm", path / "x" / "b.dcm"]):
        try:
            outcomes[member.name] = stream.code if isinstance(stream, ScanError) else len(stream.read())
        except ScanError as error:
            outcomes[member.name] = error.code
    assert outcomes == {"c.dcm": 5, "b.dcm": "E-ZIP"}


def test_opening_goes_on_after_an_error(place: Path) -> None:
    """A damaged zip and a file that is gone are errors of their own; what follows is opened."""
    paths = [place / "P3.zip" / "x.dcm", place / "P1" / "gone.dcm", place / "P1" / "a.dcm"]
    found = [stream.code if isinstance(stream, ScanError) else stream.read() for _, stream in open_each(paths)]
    assert found[0] in ("E-ZIP", "E-NOFILE") and found[1] == "E-NOFILE" and found[2] == b"alpha"


def test_a_sequence_that_is_absent_has_no_items() -> None:
    """No item, not an error; items in their order where there are some."""
    held, one = Dataset(), Dataset()
    one.PatientID = "1"
    assert items(held, "RadiopharmaceuticalInformationSequence") == []
    held.RadiopharmaceuticalInformationSequence = [one, Dataset()]
    assert [len(item) for item in items(held, "RadiopharmaceuticalInformationSequence")] == [1, 0]
