"""Every image fault that is known to happen has its test: the list, and that what it names is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parent
# FAULTS: number -> (what happens, its code, its test).
FAULTS = {
    15: (".nii.gz cut in half", "E-TRUNCATED", "test_imaging_nifti.py::test_cut_in_half"),
    16: ("gzip trailer cut", "E-TRUNCATED", "test_imaging_nifti.py::test_gzip_trailer_cut"),
    17: ("bit flip", "E-GZIP", "test_imaging_nifti.py::test_every_flipped_byte_is_seen"),
    18: ("empty file, html as nii", "E-NOTNIFTI", "test_imaging_nifti.py::test_not_an_image"),
    19: ("header 32000^3", "E-TOOBIG", "test_imaging_nifti.py::test_huge_header_is_refused_before_memory_is_taken"),
    20: ("negative dims", "E-DIMS", "test_imaging_nifti.py::test_impossible_dimensions"),
    21: ("4-D", "E-4D", "test_imaging_nifti.py::test_fourth_axis"),
    22: ("NaN or Inf voxels", "E-NONFINITE", "test_imaging_nifti.py::test_voxels_that_are_no_numbers"),
    23: ("scl_slope NaN", "E-SCLSLOPE", "test_imaging_nifti.py::test_scaling_that_is_no_number"),
    24: ("qform = sform = 0", "E-NOFORM", "test_imaging_nifti.py::test_no_orientation"),
    25: ("sform and qform disagree", "W-FORMS", "test_imaging_nifti.py::test_forms_that_disagree"),
    26: ("CT and PET do not overlap", "E-NOOVERLAP", "test_imaging_dicom.py::test_no_overlap"),
    27: ("mask on another grid", "W-MASKGRID", "test_imaging_nifti.py::test_mask_on_another_grid"),
    28: ("empty mask", "W-MASKEMPTY", "test_imaging_nifti.py::test_masks_that_are_read"),
    29: ("one-voxel mask", "W-MASKSMALL", "test_imaging_nifti.py::test_one_voxel_mask"),
    30: ("mask with 0/255 or 0.5", "E-MASKVALUES", "test_imaging_nifti.py::test_masks_that_are_refused"),
    31: ("two labels", "W-MASKLABELS", "test_imaging_nifti.py::test_masks_that_are_read"),
    32: ("int64 mask", "W-MASKVALUES", "test_imaging_nifti.py::test_masks_that_are_read"),
    33: ("PET in Bq/ml given as SUV", "E-PETUNITS", "test_imaging_nifti.py::test_activity_given_as_suv"),
    34: ("CT offset 1024", "W-CTOFFSET", "test_imaging_nifti.py::test_ct_with_an_offset"),
    35: ("LR-flipped, RAS/LPS, permuted", "", "test_prepare.py::test_storage_order_changes_nothing"),
    36: ("anisotropic 5 mm slices", "", "test_prepare.py::test_thick_slices_are_ordinary"),
    37: ("head missing from the crop", "E-HEAD",
         "test_prepare.py::test_the_middle_of_a_tall_scan_without_its_head_is_an_error"),
    38: ("the bad PET series of SUV.md", "", "test_imaging_suv.py::test_bad_series_is_an_error"),
}
# Bad PET series: row -> code and case in ERRORS or WARNINGS of test_imaging_suv, or a test of its own.
SERIES = {
    "weight absent": "E-WEIGHT", "weight 0": "E-WEIGHT", "weight 500 kg": "E-WEIGHTRANGE",
    "weight in grams": "W-WEIGHTGRAMS", "weight and size swapped": "E-SWAP", "size in centimetres": "W-SIZECM",
    "dose in MBq": "W-DOSEMBQ", "dose 10 mCi": "E-DOSE", "dose 370000 kBq": "E-DOSE", "dose absent": "E-DOSE",
    "dose 0": "E-DOSE", "half-life from the code": "W-HALFLIFE", "half-life and code absent": "E-HALFLIFE",
    "half-life in minutes": "W-HALFLIFEMIN", "half-life of Ga-68 with code of F-18": "E-HALFLIFE",
    "no injection time at all": "E-NOINJECTION", "injection after the scan": "E-NEGUPTAKE",
    "series shifted, injection not": "W-DATESHIFT", "time contradicts date-time": "W-STARTTIMES",
    "time 25:61": "E-TIMETAG", "series time after acquisition": "W-SERIESLATE",
    "no series and acquisition time": "E-NOTIME", "beds an hour apart": "W-BEDTIMES",
    "decay correction absent": "E-DECAY", "START without DECY": "W-DECY", "CorrectedImage absent": "W-CORRECTED",
    "NAC": "E-NAC", "counts without factor": "E-PHILIPS", "counts with factor 0": "E-PHILIPS",
    "counts under a foreign creator": "E-PHILIPS", "PROPCNTS": "E-UNITS", "CPS": "E-UNITS",
    "lean SUV without size": "E-SIZE", "slope 0 in a slice": "E-SLOPE", "intercept -100": "E-SLOPE",
    "slices missing at the end": "W-SLICES", "no radiopharmaceutical sequence": "E-RADIOPHARM",
    "mixed units": "E-MIXED",
}  # fmt: skip
OWN_TESTS = {
    "only StartTime / only StartDateTime": "test_imaging_suv.py::test_good_series_gives_the_same_suv",
    "23:30 -> 00:30": "test_imaging_suv.py::test_midnight", "uptake 20 min": "test_imaging_suv.py::test_unusual_uptake",
    "late series time and no FrameReferenceTime": "test_imaging_suv.py::test_late_series_without_frame_reference",
    "beds: seconds": "test_imaging_suv.py::test_beds_that_disagree_tell_by_how_much",
    "NONE": "test_imaging_suv.py::test_uncorrected_activity",
    "ADMIN": "test_imaging_suv.py::test_admin_corrected_activity",
    "chooser skips NAC, GATED, DYNAMIC, MIP": "test_imaging_dicom.py::test_unfit_series_is_never_taken_silently",
    "CNTS with (7053,1000) / (7053,1009)": "test_imaging_suv.py::test_philips_counts",
    "GML without SUVType": "test_imaging_suv.py::test_gml_without_type_is_body_weight",
    "IBW sex O": "test_imaging_suv.py::test_sex_other_takes_the_mean",
    "slice missing inside": "test_imaging_dicom.py::test_missing_slice_inside",
    "duplicate, tilted, empty, short": "test_imaging_dicom.py::test_broken_stack_is_an_error",
    "two series": "test_imaging_dicom.py::test_two_series_given_as_one",
    "CT given as PET": "test_imaging_dicom.py::test_ct_given_as_pet",
    "gantry tilt, two spacings, no decoder": "test_imaging_dicom.py::test_broken_stack_is_an_error",
    "Enhanced PET": "test_imaging_dicom.py::test_enhanced_pet",
    "frames": "test_imaging_dicom.py::test_other_frame_of_reference",
    "frames, registered": "test_prepare.py::test_frames_of_reference_may_differ_where_they_are_registered",
    "WB + HN": "test_imaging_dicom.py::test_whole_body_and_neck_series",
    "brain only": "test_imaging_dicom.py::test_brain_scan_is_short",
    "brain only, region": "test_prepare.py::test_a_region_outside_the_scan_is_an_error",
    "--series": "test_imaging_dicom.py::test_unfit_series_can_be_asked_for",
}  # fmt: skip


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _body(named: str) -> str:
    """The source of a test, its decorators included."""
    file, _, function = named.partition("::")
    source = (TESTS / file).read_text()
    assert re.search(rf"^def {function}\(", source, re.MULTILINE), named
    return source


@pytest.mark.parametrize("number", range(15, 39))
def test_each_image_fault_has_a_test(number: int) -> None:
    """The test is there, and its file speaks of the code."""
    _, code, named = FAULTS[number]
    assert code in _body(named)


def test_each_bad_series_has_a_case() -> None:
    """Each row is a case of the two tables, under the code listed here; rows beyond them have tests of their own."""
    suv = _module("test_imaging_suv")
    cases = {name: code for name, (code, _) in (suv.ERRORS | suv.WARNINGS).items()}
    assert {row: cases.get(row) for row in SERIES} == SERIES
    assert len(SERIES) + len(OWN_TESTS) >= 59
    for named in OWN_TESTS.values():
        _body(named)
