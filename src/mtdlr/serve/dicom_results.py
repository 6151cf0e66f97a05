"""The DICOM results of a job: one zip beside its result, and the only file of it that names the patient."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtdlr.predict import one_scan
from mtdlr.report.prediction import Prediction
from mtdlr.serve.jobs import DICOM_ZIP
from mtdlr.versions import require_extra

if TYPE_CHECKING:
    from mtdlr.dicom_out import Source

_EPOCH = (1980, 1, 1, 0, 0, 0)


def examination(scan: Path, series: Sequence[str]) -> Source:
    """The headers of the examination that results will belong to, read before minutes of work.

    Args:
        scan: folder or zip that was sent.
        series: DICOM series to take, as `predict` has them.

    Raises:
        MtdlrError: E-EXTRA without highdicom; what `read_source` raises, E-DICOMINPUT for NIfTI.
    """
    require_extra("dicom", "DICOM results")
    from mtdlr.dicom_out import read_source

    return read_source(one_scan(scan, None, None), series=series)


def write_zip(prediction: Prediction, source: Source, folder: Path) -> None:
    """Write dicom/dicom.zip of a job: what `mtdlr predict --dicom` writes, the same bytes for the same prediction.

    Args:
        prediction: whose result lies in `folder` already.
        source: of `examination`.
        folder: of the job's files.

    Raises:
        ScanError: as `write_dicom`.
    """
    from mtdlr.dicom_out import write_dicom

    page = folder / "result" / "report.pdf"
    (folder / "dicom").mkdir()
    with (tempfile.TemporaryDirectory(dir=folder) as place,
          zipfile.ZipFile(folder / "dicom" / DICOM_ZIP, "w", zipfile.ZIP_DEFLATED) as packed):
        for path in write_dicom(prediction, source, Path(place) / "dicom",
                                pdf=page.read_bytes() if page.exists() else None):
            packed.writestr(zipfile.ZipInfo(f"dicom/{path.name}", _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
