"""The objects of one prediction, written side by side."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from mtdlr.dicom_out.document import document
from mtdlr.dicom_out.fhir import risk_assessment
from mtdlr.dicom_out.measurements import measurement_report
from mtdlr.dicom_out.segmentation import segmentation
from mtdlr.dicom_out.source import Source
from mtdlr.imaging.dicom_tags import quiet
from mtdlr.imaging.grid import mask_onto
from mtdlr.report.prediction import Prediction

_SAID = ("model", "version", "endpoint", "risk", "group", "points", "survival", "mask_ml", "uptake", "problems")


def write_dicom(prediction: Prediction, source: Source, folder: Path, *, pdf: bytes | None = None) -> list[Path]:
    """Write tumour.dcm (SEG), measurements.dcm (SR), report.dcm (PDF) and risk_assessment.json (FHIR); their paths.

    The same prediction of the same examination gives the same bytes under the same UIDs, so that an archive that
    receives it twice holds it once. Dates are those of the examination. The folder appears when all is written.

    Args:
        prediction: of the examination.
        source: its headers, from `read_source`; patient and study are taken from there.
        folder: one that does not exist yet.
        pdf: the report; None leaves report.dcm out.

    Raises:
        ScanError: E-DICOMOUT where the mask does not lie on the grid of this CT.
    """
    voxels = source.on_ct(mask_onto(prediction.mask, prediction.prepared.ct_hu))
    content = _content(prediction, source, voxels.tobytes(), pdf or b"")
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True)
    try:
        with quiet():
            tumour = segmentation(source, voxels, model=prediction.model, content=content)
            report = measurement_report(prediction, source, tumour, content=content)
            objects = {"tumour.dcm": tumour, "measurements.dcm": report}
            if pdf is not None:
                objects["report.dcm"] = document(source, pdf, model=prediction.model, content=content)
            for name, dataset in objects.items():
                _save(dataset, part / name, source)
        assessment = risk_assessment(prediction, source, str(report.SOPInstanceUID))
        (part / "risk_assessment.json").write_text(json.dumps(assessment, indent=1, allow_nan=False), encoding="utf-8")
    except BaseException:  # a full disk
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(folder)
    return [folder / name for name in (*objects, "risk_assessment.json")]


def _content(prediction: Prediction, source: Source, voxels: bytes, pdf: bytes) -> str:
    """Stands for everything that the objects say and refer to."""
    whole = prediction.as_dict()
    said = json.dumps([{name: whole[name] for name in _SAID}, _uids(source.ct), _uids(source.pet)], sort_keys=True)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (said.encode(), voxels, pdf))).hexdigest()


def _uids(headers: Sequence[Dataset]) -> list[str]:
    return [str(ds.SOPInstanceUID) for ds in headers]


def _save(dataset: Dataset, path: Path, source: Source) -> None:
    """Write an object whose times are those of the examination, not of the clock."""
    date, time = source.date_time
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    for item in dataset.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
    dataset.save_as(path, enforce_file_format=True)
