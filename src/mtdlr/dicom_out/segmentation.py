"""The predicted tumour as a binary DICOM Segmentation on the CT's own grid."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from mtdlr.dicom_out.source import UTF8, Source, uid_of
from mtdlr.versions import package_version

CATEGORY = Code("49755003", "SCT", "Morphologically Abnormal Structure")
KIND = Code("372087000", "SCT", "Neoplasm, Primary")
REGION = Code("774007", "SCT", "Head and Neck")
FAMILY = Code("123110", "DCM", "Artificial Intelligence")
MAKER = "mtdlr"
SERIES_NUMBER = 9101


def segmentation(source: Source, voxels: NDArray[np.uint8], *, model: str, content: str) -> Dataset:
    """The SEG object.

    Args:
        source: the examination.
        voxels: (z, y, x) of the whole CT, 0 or 1, slices in the order of `source.ct`.
        model: digest of the frozen model.
        content: stands for all that the result consists of; UIDs follow from it.
    """
    algorithm = hd.AlgorithmIdentificationSequence(
        name=MAKER, family=FAMILY, version=package_version(), source=MAKER, parameters={"model": model})
    segment = hd.seg.SegmentDescription(
        1, "Predicted tumour", CATEGORY, KIND, hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm,
        tracking_uid=uid_of(content, "tumour"), tracking_id="predicted tumour", anatomic_regions=[REGION],
        display_color=hd.color.CIELabColor(62.0, 60.0, 60.0))
    date, time = source.date_time
    dataset = hd.seg.Segmentation(
        list(source.ct), voxels, hd.seg.SegmentationTypeValues.BINARY, [segment],
        series_instance_uid=uid_of(content, "seg series"), series_number=SERIES_NUMBER,
        sop_instance_uid=uid_of(content, "seg"), instance_number=1, manufacturer=MAKER, manufacturer_model_name=MAKER,
        software_versions=package_version(), device_serial_number=model, content_label="TUMOUR",
        content_description="Tumour predicted by mtdlr; for research only", content_creator_name=MAKER,
        series_description="mtdlr: predicted tumour (research only)", specific_character_set=UTF8, content_date=date,
        content_time=time, series_date=date, series_time=time, omit_empty_frames=bool(voxels.any()))
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid_of(content, "dimensions")
    return dataset
