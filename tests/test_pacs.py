"""An archive's faults: nothing is believed, nothing half is kept, nothing secret is shown."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from imaging_series import write_ct, write_pet
from one_prediction import prediction, prepared
from typer.testing import CliRunner

from mtdlr.cli import app
from mtdlr.errors import MtdlrError, PacsError, StoreError
from mtdlr.predict import one_scan
from mtdlr.volume import Volume

pytest.importorskip("dicomweb_client")
pytest.importorskip("highdicom")

from fake_archive import Faults, fake_archive

from mtdlr.dicom_out import read_source, write_dicom
from mtdlr.pacs import Archive, authorization, content_sha256, fetch, send

SLICES, STUDY, SECRET = 40, "1.2.3", "user:geheim"


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PET/CT as DICOM files."""
    folder = tmp_path_factory.mktemp("examination")
    write_ct(folder / "CT", SLICES, PatientName="Zyxwv^Quentin")
    write_pet(folder / "PET", SLICES, PatientName="Zyxwv^Quentin")
    return folder


@pytest.fixture(scope="module")
def predicted(examination: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a prediction of it, with its DICOM objects."""
    folder = tmp_path_factory.mktemp("prediction")
    source = read_source(one_scan(examination, None, None))
    mask = Volume(np.random.default_rng(3).random(source.shape) < 0.3, source.affine)
    made = prediction(mask=mask, prepared=replace(prepared()[0], ct_hu=mask))
    write_dicom(made, source, folder / "dicom", pdf=b"%PDF-1.7\n%%EOF")
    return folder


class Waits(list[float]):
    """The pauses that an archive was given, in place of waiting."""

    def archive(self, url: str, credentials: str = "") -> Archive:
        return Archive(url, authorization(credentials), wait=self.append)


def _holds(wrong: Faults, folder: Path) -> None:
    wrong.hold(path for path in sorted(folder.rglob("*.dcm")))


def test_what_was_sent_is_read_back(predicted: Path) -> None:
    """Three objects go in, and the archive's copies have their content; sent again, it holds no more of them."""
    with fake_archive() as (url, wrong):
        digests = send(predicted, Archive(url))
        assert send(predicted, Archive(url)) == digests
    assert list(digests) == ["measurements.dcm", "report.dcm", "tumour.dcm"] and len(set(digests.values())) == 3
    assert len(wrong.held) == 3


@pytest.mark.slow
def test_what_was_fetched_is_the_examination(examination: Path, predicted: Path, tmp_path: Path) -> None:
    """PET and CT come out pixel for pixel; results that the archive holds beside them do not."""
    with fake_archive() as (url, wrong):
        _holds(wrong, examination)
        _holds(wrong, predicted)
        assert fetch(STUDY, tmp_path / "out", Archive(url)) == {"PT1": SLICES, "CT2": SLICES}
    found, given = ({ds.SOPInstanceUID: content_sha256(ds) for ds in map(pydicom.dcmread, folder.rglob("*.dcm"))}
                    for folder in (tmp_path / "out", examination))
    assert found == given and len(set(found.values())) == 2 * SLICES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


Work = Callable[[Path, Path, Path, Archive], object]
WORK: list[Work] = [lambda _, predicted, out, archive: send(predicted, archive),
                    lambda examination, _, out, archive: fetch(STUDY, out, archive)]


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK, ids=["send", "fetch"])
@pytest.mark.parametrize(("statuses", "code", "pauses"), [
    ([500, 503, 429], "", 3), ([500, 500, 500, 500], "E-PACSANSWER .*HTTP 500", 3),
    ([401], "E-PACSLOGIN .*HTTP 401", 0), ([403], "E-PACSLOGIN .*HTTP 403", 0), ([404], "E-PACSANSWER .*HTTP 404", 0),
    ([409], "E-PACSANSWER .*HTTP 409", 0), ([307], "E-PACSANSWER .*HTTP 307", 0)])
def test_what_may_pass_is_tried_again(
    work: Work, statuses: list[int], code: str, pauses: int, examination: Path, predicted: Path, tmp_path: Path
) -> None:
    """A busy archive gets three new tries after longer and longer pauses; a refusal or redirection gets none."""
    waits = Waits()
    with fake_archive(statuses=[*statuses]) as (url, wrong):
        _holds(wrong, examination)
        if code:
            with pytest.raises(PacsError, match=code):
                work(examination, predicted, tmp_path / "out", waits.archive(url))
            assert wrong.asked == pauses + 1 and not (tmp_path / "out").exists()
        else:
            work(examination, predicted, tmp_path / "out", waits.archive(url))
    assert waits == [1.0, 5.0, 20.0][:pauses]


@pytest.mark.parametrize("work", WORK, ids=["send", "fetch"])
def test_an_archive_that_is_down(work: Work, examination: Path, predicted: Path, tmp_path: Path) -> None:
    """Nobody listens: four tries, then one line with the address."""
    with fake_archive() as (url, _):
        pass  # its port is closed again
    waits = Waits()
    with pytest.raises(PacsError, match="E-PACSDOWN http://127.0.0.1.*found ConnectionError"):
        work(examination, predicted, tmp_path / "out", waits.archive(url))
    assert len(waits) == 3 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fault", "lost"), [
    ({"forgets": True}, "measurements.dcm, report.dcm, tumour.dcm"),
    ({"changes": True}, "measurements.dcm, report.dcm, tumour.dcm")])
def test_an_archive_that_says_yes_and_does_not(fault: dict[str, bool], lost: str, predicted: Path) -> None:
    """An archive that answers 200 and stores nothing, or something else, is found out; it gets time to list it."""
    waits = Waits()
    with fake_archive(**fault) as (url, _), pytest.raises(PacsError, match=f"E-PACSLOST .*found {lost} absent"):
        send(predicted, waits.archive(url))
    assert waits == [1.0, 5.0, 20.0]


def test_another_object_under_our_uid(predicted: Path) -> None:
    """An archive that keeps what it had under the same UID does not hold what was sent."""
    with fake_archive() as (url, wrong):
        ds = pydicom.dcmread(predicted / "dicom" / "tumour.dcm")
        key = (str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID))
        wrong.changes = True
        wrong.take((predicted / "dicom" / "tumour.dcm").read_bytes())
        wrong.changes = False
        assert key in wrong.held
        with pytest.raises(PacsError, match="found tumour.dcm absent or different"):
            send(predicted, Waits().archive(url))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "code"), [
    ({"holds_back": 1}, "E-PACSHALF .*found 39 images of PT1; expected 40"),
    ({"grows": True}, "E-PACSHALF .*found a study that grew"),
    ({"cuts": 60}, "E-PACSHALF .*found 39 images of PT1"),
    ({"cuts": 300}, "E-PACSHALF .*found 39 images of PT1"),
    ({"says": "<html>Welcome</html>"}, "E-PACSANSWER .*no DICOMweb"),
    ({"says": "{}"}, "E-PACSANSWER .*no DICOMweb"),
    ({"says": "[]"}, "E-PACSNONE .*found nothing")])
def test_half_an_examination_is_not_kept(
    fault: dict[str, object], code: str, examination: Path, tmp_path: Path
) -> None:
    """Fewer images than listed, a series that still grows, a cut answer or no DICOMweb at all leave nothing behind."""
    with fake_archive(**fault) as (url, wrong):
        _holds(wrong, examination)
        with pytest.raises(PacsError, match=code):
            fetch(STUDY, tmp_path / "out", Waits().archive(url))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_image_that_comes_twice_counts_once(examination: Path, tmp_path: Path) -> None:
    """An archive that gives every image twice gives the examination."""
    with fake_archive(repeats=True) as (url, wrong):
        _holds(wrong, examination)
        assert set(fetch(STUDY, tmp_path / "out", Archive(url)).values()) == {SLICES}
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2 * SLICES


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Another patient's folder is not written to, and the archive is not asked."""
    (tmp_path / "old").write_text("")
    with fake_archive() as (url, wrong), pytest.raises(StoreError, match="E-EXISTS"):
        fetch(STUDY, tmp_path, Archive(url))
    assert wrong.asked == 0


def test_a_folder_without_results_is_not_sent(examination: Path) -> None:
    """A folder without results of `predict --dicom`, such as the examination itself, is refused; nobody is asked."""
    with fake_archive() as (url, wrong), pytest.raises(PacsError, match=r"E-PACSNONE .*found no dicom/\*.dcm"):
        send(examination, Archive(url))
    assert wrong.asked == 0


def test_a_disk_that_is_full_is_not_the_archives_fault(
    examination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an image cannot be written, the disk is named, nothing is asked again and nothing is kept."""
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    waits = Waits()
    with fake_archive() as (url, wrong):
        _holds(wrong, examination)
        monkeypatch.setattr(pydicom.Dataset, "save_as", full)
        with pytest.raises(StoreError, match="E-DISKFULL"):
            fetch(STUDY, tmp_path / "out", waits.archive(url))
    assert waits == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["pacs.example.org", "ftp://pacs", "https://", "https://pacs/x?token=geheim",
                                 f"https://{SECRET}@pacs/dicom-web"])
def test_an_address_is_checked(url: str) -> None:
    """What is no address, or holds a password, is refused without being repeated."""
    with pytest.raises(PacsError, match="E-OPTION") as caught:
        Archive(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("line", ["nobody", "Token geheim", "a:b\nc:d"])
def test_credentials_are_checked(line: str) -> None:
    """What is neither a password nor a token is refused without being repeated."""
    with pytest.raises(PacsError, match="E-PACSLOGIN") as caught:
        authorization(line)
    assert line not in str(caught.value)


@pytest.mark.slow
def test_credentials_come_from_a_file_or_the_environment(
    examination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both open the archive; neither they nor the patient stand in output, log, error or the archive's repr."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "pass").write_text(f"{SECRET}\n")
    said = ""
    with fake_archive(token=authorization(SECRET)) as (url, wrong):
        _holds(wrong, examination)
        fetching = ["fetch", STUDY, "--dicomweb", url, "-o"]
        refused = CliRunner().invoke(app, [*fetching, str(tmp_path / "a")])
        assert isinstance(refused.exception, MtdlrError) and refused.exception.code == "E-PACSLOGIN"
        by_file = CliRunner().invoke(app, [*fetching, str(tmp_path / "b"), "--credentials", str(tmp_path / "pass")])
        monkeypatch.setenv("MTDLR_PACS_CREDENTIALS", SECRET)
        by_environment = CliRunner().invoke(app, [*fetching, str(tmp_path / "c"), "--json"])
        assert by_file.exit_code == by_environment.exit_code == 0
        said = "".join([str(refused.exception), refused.output, by_file.output, by_environment.output, caplog.text,
                        repr(Archive(url, authorization(SECRET)))])
    assert f"PT1 {SLICES} images" in said
    for secret in ("geheim", authorization(SECRET)[6:], "Zyxwv"):
        assert secret not in said
    missing = CliRunner().invoke(app, [*fetching, str(tmp_path / "d"), "--credentials", str(tmp_path / "none")])
    assert isinstance(missing.exception, MtdlrError) and missing.exception.code == "E-PACSLOGIN"


def test_the_verb_sends(predicted: Path) -> None:
    """`mtdlr send` names the files that the archive holds."""
    with fake_archive() as (url, _):
        done = CliRunner().invoke(app, ["send", str(predicted), "--dicomweb", url])
    assert done.output == "3 objects sent, read back and equal: measurements.dcm, report.dcm, tumour.dcm\n"
