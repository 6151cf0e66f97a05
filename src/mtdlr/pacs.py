"""Send a prediction's DICOM objects to an archive, and pull one examination from it, by DICOMweb (extra `dicom`).

An archive may answer 200 and store nothing, or give half a series. So what was sent is read back and compared, and
what was pulled is counted. No message holds a name, a number, a UID or a password.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import ExplicitVRLittleEndian

from mtdlr.errors import PacsError, Problem, StoreError
from mtdlr.imaging.dicom_tags import quiet
from mtdlr.store.files import require_writable, room_on

T = TypeVar("T")
_READ = ("PT", "CT")  # modalities that a prediction reads
_AS_STORED = (("application/dicom", "*"),)  # in the archive's own compression
_AS_SENT = (("application/dicom", ExplicitVRLittleEndian),)  # whatever the archive made of it
_TIMEOUT_S = (10.0, 120.0)  # to connect, and between two parts of an answer
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
_WHERE = "Put USER:PASSWORD or Bearer TOKEN into MTDLR_PACS_CREDENTIALS or the file of --credentials"


@dataclass(frozen=True)
class Archive:
    """An archive's DICOMweb service.

    Args:
        url: its address, without user and password: "https://pacs.example.org/dicom-web".
        authorization: value of the HTTP header, as `authorization` makes it; "" for none.
        pauses_s: seconds to wait before each new try of what may pass; as many tries are added to the first.
        wait: what waits.

    Raises:
        PacsError: E-OPTION for an address that is none, or that holds a password.
    """

    url: str
    authorization: str = field(default="", repr=False)
    pauses_s: tuple[float, ...] = (1.0, 5.0, 20.0)
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise PacsError(Problem("E-OPTION", "no address of a DICOMweb service",
                                    expected="https://HOST/dicom-web or the like"))
        if "@" in parts.netloc:
            raise PacsError(Problem("E-OPTION", "an address, which others can read, holds no user and password",
                                    remedy=_WHERE))


def authorization(credentials: str) -> str:
    """The HTTP header's value for USER:PASSWORD or "Bearer TOKEN"; "" for "".

    Args:
        credentials: one line.

    Raises:
        PacsError: E-PACSLOGIN for anything else; it is not repeated.

    >>> authorization("user:secret")
    'Basic dXNlcjpzZWNyZXQ='
    """
    line = credentials.strip()
    if not line or (line.startswith("Bearer ") and "\n" not in line):
        return line
    if ":" not in line or "\n" in line:
        raise PacsError(Problem("E-PACSLOGIN", "the credentials cannot be read",
                                expected="one line, USER:PASSWORD or Bearer TOKEN"))
    return "Basic " + b64encode(line.encode()).decode()


def send(folder: Path, archive: Archive) -> dict[str, str]:
    """Store the objects of a prediction in an archive, and read them back.

    Objects that are there already stay as they are: their UIDs follow from their content.

    Args:
        folder: written by `predict --dicom`; its folder dicom/ is sent.
        archive: where to.

    Returns:
        File name -> SHA-256 of its content, which the archive's copy has too.

    Raises:
        PacsError: E-PACSNONE where the folder holds no objects; E-PACSLOST where the archive answers
            well but does not hold what was sent; E-PACSDOWN, E-PACSLOGIN, E-PACSANSWER.
    """
    objects = _objects(folder)
    digests = {name: content_sha256(dataset) for name, dataset in objects.items()}
    client = _client(archive)
    _ask(archive, partial(client.store_instances, list(objects.values())))
    lost = list(objects)
    for pause in (0.0, *archive.pauses_s):  # an archive may need a while to list what it took
        if pause:
            archive.wait(pause)
        lost = [name for name in lost if _held(archive, client, objects[name]) != digests[name]]
        if not lost:
            return digests
    raise PacsError(Problem("E-PACSLOST", "the archive accepted the objects but does not hold them as they were sent",
                            where=archive.url, found=f"{', '.join(lost)} absent or different",
                            remedy="Look into the archive's log; a rule or a full disk may drop or change objects"))


def fetch(study_uid: str, folder: Path, archive: Archive) -> dict[str, int]:
    """Pull PET and CT of one study into a folder that `predict` reads: all of each series, or nothing.

    Args:
        study_uid: StudyInstanceUID.
        folder: empty or not there yet.
        archive: where from.

    Returns:
        Series, by modality and number ("CT2") -> number of images.

    Raises:
        PacsError: E-PACSNONE where the archive lists no PET or no CT of the study; E-PACSHALF where it gives fewer
            images than it lists, or lists more afterwards; E-PACSDOWN, E-PACSLOGIN, E-PACSANSWER; E-OPTION for a
            study_uid that is no UID.
        StoreError: E-EXISTS for a folder that holds something; E-DISKFULL, E-READONLY.
    """
    if not _UID.fullmatch(study_uid):
        raise PacsError(Problem("E-OPTION", "a study is named by its StudyInstanceUID (0020,000D)", found="no UID"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(Problem("E-EXISTS", "the folder is not empty: it may hold another patient", where=folder.name,
                                 remedy="Choose another with -o, or empty it"))
    require_writable(folder / "study")  # before anything is asked
    client = _client(archive)
    listed = _listed(archive, client, study_uid)
    if {modality for modality, _ in listed.values()} != set(_READ):
        raise PacsError(Problem("E-PACSNONE", "the archive lists no PET with a CT of this study", where=archive.url,
                                found=", ".join(sorted({m for m, _ in listed.values()})) or "nothing",
                                remedy="Check the StudyInstanceUID, and whether these credentials may see it"))
    images = {}
    with room_on(folder.parent), _beside(folder) as place:
        for k, (series, (modality, expected)) in enumerate(listed.items(), 1):
            target = place / "study" / f"{modality}{k}"
            images[target.name] = _ask(archive, partial(_pull, client, study_uid, series, target))
            if images[target.name] != expected:
                raise _half(archive, f"{images[target.name]} images of {target.name}", str(expected))
        if _listed(archive, client, study_uid) != listed:
            raise _half(archive, "a study that grew while it was read", "one that is complete")
        if folder.exists():
            folder.rmdir()
        (place / "study").rename(folder)
    return images


def content_sha256(dataset: Dataset) -> str:
    """SHA-256 of what an object shows: pixels, document or tree of content; an archive may change headers.

    Args:
        dataset: an image, segmentation, encapsulated document or structured report.
    """
    digest = hashlib.sha256()
    for keyword in ("PixelData", "EncapsulatedDocument", "ContentSequence"):
        value = dataset.get(keyword)
        if value is not None:
            shown = value if isinstance(value, bytes) else json.dumps([item.to_json_dict() for item in value]).encode()
            digest.update(keyword.encode() + shown)
    return digest.hexdigest()


def _objects(folder: Path) -> dict[str, Dataset]:
    """The prediction's objects, by file name."""
    paths = sorted((folder / "dicom").glob("*.dcm"))
    if not paths:
        raise PacsError(Problem("E-PACSNONE", "the folder holds no DICOM result", where=folder.name,
                                found="no dicom/*.dcm", remedy="Make it with `mtdlr predict --dicom`"))
    return {path.name: pydicom.dcmread(path) for path in paths}


def _client(archive: Archive) -> DICOMwebClient:
    """A client that follows no redirection, so that a patient's data go nowhere else, and that logs nothing."""
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # its warnings quote the archive
    session = requests.Session()
    session.max_redirects = 0
    if archive.authorization:
        session.auth = partial(_authorized, archive.authorization)  # a header alone would lose against ~/.netrc
    client = DICOMwebClient(archive.url.rstrip("/"), session=session, timeout=_TIMEOUT_S)
    client.set_http_retry_params(retry=False)
    return client


def _authorized(value: str, request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["Authorization"] = value
    return request


def _listed(archive: Archive, client: DICOMwebClient, study_uid: str) -> dict[str, tuple[str, int]]:
    """Series of PET and CT -> modality and number of images."""
    def search() -> dict[str, tuple[str, int]]:
        found = client.search_for_series(study_uid, fields=["NumberOfSeriesRelatedInstances"])
        read = [item for item in found if _value(item, "Modality") in _READ]
        return {_value(item, "SeriesInstanceUID"): (
            _value(item, "Modality"), int(_value(item, "NumberOfSeriesRelatedInstances"))) for item in read}

    return dict(sorted(_ask(archive, search).items()))


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A place for a folder's content until it is whole, gone afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as place:
        yield Path(place)


def _pull(client: DICOMwebClient, study_uid: str, series_uid: str, folder: Path) -> int:
    """Write a series, one file an image; how many different, whole images of it came."""
    shutil.rmtree(folder, ignore_errors=True)  # of a try before
    folder.mkdir(parents=True)
    seen: set[str] = set()
    instances: Iterator[Dataset] = client.iter_series(study_uid, series_uid, media_types=_AS_STORED)
    for dataset in instances:
        if dataset.SeriesInstanceUID == series_uid and dataset.SOPInstanceUID not in seen and _is_whole(dataset):
            seen.add(dataset.SOPInstanceUID)
            dataset.save_as(folder / f"{len(seen):05d}.dcm", enforce_file_format=True)
    return len(seen)


def _is_whole(image: Dataset) -> bool:
    """Whether no pixels are missing at the end, as where the answer was cut."""
    compressed = image.file_meta.TransferSyntaxUID.is_compressed  # then pydicom takes none without the end
    return "PixelData" in image and (compressed or len(image.PixelData) >= get_expected_length(image))


def _held(archive: Archive, client: DICOMwebClient, sent: Dataset) -> str:
    """SHA-256 of the archive's copy of an object, "" where its series does not hold this one object alone."""
    place = (sent.StudyInstanceUID, sent.SeriesInstanceUID)
    found = _ask(archive, partial(client.search_for_instances, *place))
    if [_value(item, "SOPInstanceUID") for item in found] != [sent.SOPInstanceUID]:
        return ""
    return content_sha256(_ask(archive, partial(client.retrieve_instance, *place, sent.SOPInstanceUID,
                                                media_types=_AS_SENT)))


def _value(item: dict[str, Any], keyword: str) -> Any:
    """First value of a tag in DICOM JSON."""
    return item[DICOMwebClient.lookup_tag(keyword)]["Value"][0]


def _ask(archive: Archive, work: Callable[[], T]) -> T:
    """What the archive answers; what may pass (no connection, 5xx, 429) is asked again after each pause."""
    for pause in (*archive.pauses_s, None):
        try:
            with quiet():
                return work()
        except requests.RequestException as error:
            if pause is None or not _may_pass(error):
                raise PacsError(_problem(archive, error)) from None
        except OSError:  # of the own disk
            raise
        except Exception as error:  # an answer that is no DICOMweb can raise anything inside the client
            raise PacsError(_no_dicomweb(archive, type(error).__name__)) from None
        archive.wait(pause)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: requests.RequestException) -> bool:
    return isinstance(error, _BROKEN) if error.response is None else (
        error.response.status_code >= 500 or error.response.status_code == 429)


def _problem(archive: Archive, error: requests.RequestException) -> Problem:
    status = None if error.response is None else error.response.status_code
    if status in (401, 403):
        return Problem("E-PACSLOGIN", "the archive refuses these credentials", where=archive.url,
                       found=f"HTTP {status}", remedy=_WHERE)
    if status is not None:
        return Problem("E-PACSANSWER", "the archive does not do what it was asked for", where=archive.url,
                       found=f"HTTP {status}", remedy="Check the address of its DICOMweb service, and its log")
    if isinstance(error, _BROKEN):
        return Problem("E-PACSDOWN", "the archive does not answer, or the connection broke", where=archive.url,
                       found=type(error).__name__, remedy="Check address, network and certificate, and try again")
    return _no_dicomweb(archive, type(error).__name__)


def _no_dicomweb(archive: Archive, found: str) -> Problem:
    return Problem("E-PACSANSWER", "the answer is no DICOMweb", where=archive.url, found=found,
                   remedy="Check the address of the DICOMweb service")


def _half(archive: Archive, found: str, expected: str) -> PacsError:
    return PacsError(Problem("E-PACSHALF", "the archive gave a part of the examination; nothing was kept",
                             where=archive.url, found=found, expected=expected,
                             remedy="Wait until the scanner has sent everything, and fetch again"))
