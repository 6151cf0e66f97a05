"""Multi-frame images (Enhanced and Legacy Converted CT and PET) as if every frame were a file of its own.

A frame's facts lie in its own functional groups, in the shared ones or at the top; they are gathered in that order, and
the few that go by another name in Enhanced PET are given the name they have in single-frame files.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.dicom_tags import first_item, items, number, text, texts, unreadable

_GROUPS = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
    "FrameContentSequence", "PETFrameCorrectionFactorsSequence", "PETFrameAcquisitionSequence",
    "PETFrameTypeSequence", "CTImageFrameTypeSequence", "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence", "RealWorldValueMappingSequence",
)  # fmt: skip
_RENAMED = {"FrameAcquisitionDateTime": "AcquisitionDateTime", "FrameAcquisitionDuration": "ActualFrameDuration"}
_UNITS = {"Bq/ml": ("BQML", ""), "g/ml{SUVbw}": ("GML", "BW"), "{SUVbw}g/ml": ("GML", "BW"),
          "g/ml{SUVlbm}": ("GML", "LBM"), "cm2/ml{SUVbsa}": ("CM2ML", "BSA"), "g/ml{SUVibw}": ("GML", "IBW")}
_MAX_FRAMES = 10_000


def frame_count(ds: Dataset) -> int:
    """How many frames the file holds.

    Raises:
        ScanError: E-MULTIFRAME where there are more than any scan has, or none.
    """
    count = number(ds, "NumberOfFrames")
    if count is None:
        return 1
    if not 1 <= count <= _MAX_FRAMES or count % 1:
        raise ScanError(Problem("E-MULTIFRAME", "the number of frames is impossible",
                                where="NumberOfFrames (0028,0008)", found=f"{count:g}",
                                expected=f"1 to {_MAX_FRAMES}"))
    return int(count)


def frames_of(ds: Dataset) -> Iterator[Dataset]:
    """Each frame's facts in a dataset of its own, without pixels; the file itself where it is single-frame.

    Raises:
        ScanError: E-MULTIFRAME where the frames are not described, E-TAG.
    """
    count = frame_count(ds)
    per_frame = items(ds, "PerFrameFunctionalGroupsSequence")
    if count == 1 and not per_frame:
        yield ds
        return
    if len(per_frame) != count:
        raise ScanError(Problem("E-MULTIFRAME", "the frames of the image are not described",
                                where="PerFrameFunctionalGroupsSequence (5200,9230)", found=str(len(per_frame)),
                                expected=str(count), remedy="Export it as single-frame images"))
    top = Dataset()
    _copy(top, ds, leave_out=(0x52009229, 0x52009230, 0x7FE00010))
    _gather(top, first_item(ds, "SharedFunctionalGroupsSequence"))
    for own in per_frame:
        frame = Dataset()
        _copy(frame, top)
        _gather(frame, own)
        _name_as_single_frame(frame)
        yield frame


def _copy(onto: Dataset, source: Dataset, leave_out: tuple[int, ...] = ()) -> None:
    """Put a dataset's elements, as they were read, into another."""
    try:
        for tag in source.keys():
            if tag not in leave_out:
                onto[tag] = source.get_item(tag)
    except Exception:  # an element that the parser left half-read
        raise unreadable("PerFrameFunctionalGroupsSequence") from None


def _gather(frame: Dataset, groups: Dataset | None) -> None:
    """Put the elements of the functional groups into the frame."""
    if groups is None:
        return
    for name in _GROUPS:
        group = first_item(groups, name)
        if group is not None:
            _copy(frame, group)
            if name == "RealWorldValueMappingSequence":
                _real_world(frame, group)


def _real_world(frame: Dataset, mapping: Dataset) -> None:
    """Units, slope and intercept of a real-world mapping, which stands above the rescale of the frame."""
    code = first_item(mapping, "MeasurementUnitsCodeSequence")
    units = _UNITS.get((text(code, "CodeValue") or "") if code is not None else "")
    slope, intercept = number(mapping, "RealWorldValueSlope"), number(mapping, "RealWorldValueIntercept")
    if units and slope is not None:
        frame.Units, frame.SUVType = units[0], units[1] or None
        frame.RescaleSlope, frame.RescaleIntercept = repr(slope)[:16], repr(intercept or 0.0)[:16]


def _name_as_single_frame(frame: Dataset) -> None:
    """Give Enhanced PET's facts the names that single-frame files use."""
    for enhanced, single in _RENAMED.items():
        if enhanced in frame and single not in frame:
            setattr(frame, single, text(frame, enhanced))
    if "CorrectedImage" not in frame:
        done = [name for name, keyword in (("ATTN", "AttenuationCorrected"), ("DECY", "DecayCorrected"))
                if text(frame, keyword) == "YES"]
        stated = any(k in frame for k in ("AttenuationCorrected", "DecayCorrected"))
        frame.CorrectedImage = (done or ["NONE"]) if stated else None
    if "DecayCorrection" not in frame and "DecayCorrected" in frame:
        frame.DecayCorrection = "START" if text(frame, "DecayCorrected") == "YES" else "NONE"
    kind = texts(frame, "FrameType") or texts(frame, "ImageType") or ()
    if "SeriesType" not in frame and kind:
        frame.SeriesType = ["DYNAMIC" if "DYNAMIC" in kind else "GATED" if "GATED" in kind else "STATIC", "IMAGE"]
