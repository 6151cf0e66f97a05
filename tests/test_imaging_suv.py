"""SUV: the reference objects, the definition, and every bad input of the field."""

from __future__ import annotations

import math
import tarfile
from datetime import datetime
from pathlib import Path

import imaging_series as series
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.images import Image, read_pet
from mtdlr.imaging.layout import discover
from mtdlr.imaging.suv import range_warning, suv_scale
from mtdlr.imaging.suv_facts import PetHeader, normalisation
from mtdlr.imaging.suv_time import Acquisition, Clock, mean_decay_s, suv_change_percent

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PHILIPS = "Philips PET Private Group"


def read(folder: Path, **options: object) -> Image:
    return read_pet(tuple(sorted(folder.iterdir())), **options)


def codes(image: Image) -> set[str]:
    return {p.code for p in image.problems}


def expected_suv(slices: int, factor: float) -> np.ndarray:
    slopes = np.array([float(series.slope(k)) for k in range(slices)])
    return series.stored(slices) * slopes[:, None, None] * factor


def close(image: Image, factor: float, slices: int = 4) -> None:
    np.testing.assert_allclose(image.volume.array, expected_suv(slices, factor), rtol=2e-6)


# --- the reference objects -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = SHARED / "suv" / "suv_dro.tar.xz"
    if not packed.exists():
        pytest.skip("the SUV digital reference objects (../shared/data/suv) are not here")
    folder = tmp_path_factory.mktemp("dro")
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    return folder / "suv_dro" / "DRO"


OBJECTS = ["0_0", "1_0", *(f"2_{n}" for n in range(6)), *(f"3_{n}" for n in range(5)), "4_0", "4_1", "4_2", "5_0"]


@pytest.mark.parametrize("name", OBJECTS)
def test_reference_object(reference_objects: Path, name: str) -> None:
    """Each of the 17 digital reference objects gives SUVbw 0.20, 1.00 and 4.00 through the public reader."""
    folder = reference_objects / f"DRO_{name}"
    (scan,) = discover(folder)
    image = read_pet(scan.pet)
    mask, _ = nifti.read(folder / "mask" / "DRO_mask.nii.gz")
    assert image.volume.same_grid(mask)
    inside = image.volume.array[mask.array > 0]
    # Object 2_3 stores 5, 26 and 105 hundredths, so a right formula lands up to 0.023 away.
    tolerance = 0.025 if name == "2_3" else 0.005
    assert (inside.min(), np.median(inside), inside.max()) == pytest.approx((0.2, 1.0, 4.0), abs=tolerance)


def test_all_reference_objects_are_listed() -> None:
    """The list above holds all 17 objects."""
    assert len(set(OBJECTS)) == 17


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
def test_bqml_equals_gml(patient: str) -> None:
    """A real GE series in Bq/ml with its own dose and weight gives the SUV that the scanner stored."""
    folder = SHARED / "dicom"
    if not folder.exists():
        pytest.skip("the real DICOM series (../shared/data/dicom) are not here")
    given_suv, computed = (read_pet(discover(folder / kind / patient / "PET")[0].pet).volume
                           for kind in ("sts_real", "sts_bqml"))
    assert given_suv.same_grid(computed)
    error = np.abs(given_suv.array - computed.array).max(axis=(1, 2)) / given_suv.array.max(axis=(1, 2))
    assert error.max() <= 1.6e-5


# --- the definition --------------------------------------------------------------------------------------------------


def test_start_corrected_activity(tmp_path: Path) -> None:
    """Bq/ml corrected to the scan's start is divided by the dose left an hour after injection, slope by slope."""
    series.write_pet(tmp_path)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0))
    assert codes(image) == set() or codes(image) == {"W-SUVRANGE"}


def test_admin_corrected_activity(tmp_path: Path) -> None:
    """Bq/ml corrected to the injection is divided by the dose that was injected."""
    series.write_pet(tmp_path, DecayCorrection="ADMIN")
    close(read(tmp_path), series.activity_factor(0.0))


def test_uncorrected_activity(tmp_path: Path) -> None:
    """Planes without decay correction are corrected one by one, for their own start and duration."""
    def later_bed(k: int, ds: Dataset) -> None:
        ds.AcquisitionTime = "110000" if k < 2 else "113000"

    series.write_pet(tmp_path, edit=later_bed, DecayCorrection="NONE", CorrectedImage=["ATTN"])
    image = read(tmp_path)
    x = math.log(2) / series.HALF_LIFE_S * 300.0
    mean = x / (1.0 - math.exp(-x))
    factors = [series.activity_factor(60.0 if k < 2 else 90.0) * mean for k in range(4)]
    np.testing.assert_allclose(image.volume.array, expected_suv(4, 1.0) * np.array(factors)[:, None, None], rtol=2e-6)
    assert "W-DECAYNONE" in codes(image)


@pytest.mark.parametrize(("kind", "sex", "norm"), [
    ("LBM", "M", 1.10 * 70 - 120 * 0.16), ("LBM", "F", 1.07 * 70 - 148 * 0.16),
    ("LBMJAMES128", "M", 1.10 * 70 - 128 * 0.16), ("LBMJAMES128", "F", 1.07 * 70 - 148 * 0.16),
    ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.75**2)),
    ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.75**2)),
    ("IBW", "M", 48.0 + 1.06 * 23), ("IBW", "F", 45.5 + 0.91 * 23),
])  # fmt: skip
def test_other_normalisations(tmp_path: Path, kind: str, sex: str, norm: float) -> None:
    """SUV by lean or ideal mass becomes SUVbw by the quotient of weight and that mass, with a notice."""
    series.write_pet(tmp_path, Units="GML", SUVType=kind, PatientSex=sex)
    image = read(tmp_path)
    close(image, 70.0 / norm)
    assert "W-SUVTYPE" in codes(image)


def test_body_surface(tmp_path: Path) -> None:
    """SUV by body surface (Du Bois, 18481 cm2 at 70 kg and 175 cm) becomes SUVbw by grams over square centimetres."""
    series.write_pet(tmp_path, Units="CM2ML", SUVType="BSA")
    close(read(tmp_path), 70000.0 / (71.84 * 175**0.725 * 70**0.425))


@pytest.mark.parametrize(("offset", "unit", "factor"), [(0x00, "suv", 0.0005), (0x09, "activity", 0.5)])
def test_philips_counts(tmp_path: Path, offset: int, unit: str, factor: float) -> None:
    """Philips counts become SUV by (7053,1000), or Bq/ml by (7053,1009), when Philips' creator owns the block."""
    def philips(_: int, ds: Dataset) -> None:
        ds.private_block(0x7053, PHILIPS, create=True).add_new(offset, "DS", str(factor))

    series.write_pet(tmp_path, edit=philips, Units="CNTS", Manufacturer="Philips Medical Systems")
    close(read(tmp_path), factor if unit == "suv" else factor * series.activity_factor(60.0))


@given(weight=st.floats(30, 200), dose=st.floats(5e7, 1e9), minutes=st.floats(1, 359))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_scaling_property(weight: float, dose: float, minutes: float) -> None:
    """SUV is proportional to the weight, inversely to the dose, and doubles with every half-life of uptake."""
    clock = Clock(series=datetime(2020, 3, 2, 18), injection=datetime(2020, 3, 2, 17, 59))

    def factor(w: float, d: float, m: float) -> float:
        header = PetHeader(units="BQML", decay_correction="START", corrected=("ATTN", "DECY"), weight=w, dose=d,
                           half_life_s=6586.2, clock=clock)
        return float(suv_scale(header, [Acquisition(datetime(2020, 3, 2, 18))], uptake_min=m).factors[0])

    base = factor(weight, dose, minutes)
    assert factor(weight * 1.5, dose, minutes) == pytest.approx(1.5 * base)
    assert factor(weight, dose * 1.5, minutes) == pytest.approx(base / 1.5)
    assert base == pytest.approx(factor(weight, dose, 0.0) * 2 ** (minutes * 60 / 6586.2), rel=1e-6)


def test_mean_decay_time_limits() -> None:
    """A short frame's mean decay lies at its middle, a longer one's before its middle."""
    decay = math.log(2) / 6586.2
    assert mean_decay_s(decay, 1e-3) == pytest.approx(5e-4, rel=1e-3)
    assert 0.49 * 3600 > mean_decay_s(decay, 3600) > 0.4 * 3600


def test_a_minute_is_worth_063_per_cent() -> None:
    """A reference time one minute later raises SUV by 0.63 %."""
    at = datetime(2020, 1, 1, 11)
    assert suv_change_percent(at, at.replace(minute=1), math.log(2) / 6586.2) == pytest.approx(0.633, abs=1e-3)


# --- errors: one row each of the table of bad inputs ----------------------------------------------------------------


def two_nuclides(_: int, ds: Dataset) -> None:
    ds.RadiopharmaceuticalInformationSequence[0].RadionuclideHalfLife = "4057.7"


def foreign_creator(_: int, ds: Dataset) -> None:
    ds.private_block(0x7053, "ACME SCANNERS", create=True).add_new(0x00, "DS", "0.5")


def zero_factor(_: int, ds: Dataset) -> None:
    block = ds.private_block(0x7053, PHILIPS, create=True)
    block.add_new(0x00, "DS", "0")
    block.add_new(0x09, "DS", "0")


def one_slope_zero(k: int, ds: Dataset) -> None:
    ds.RescaleSlope = "0" if k == 2 else "1"


def mixed_units(k: int, ds: Dataset) -> None:
    ds.Units = "GML" if k == 2 else "BQML"


def mixed_weight(k: int, ds: Dataset) -> None:
    ds.PatientWeight = "71" if k == 2 else "70"


NO_START = {"RadiopharmaceuticalStartTime": None}
ERRORS = {
    "weight absent": ("E-WEIGHT", {"PatientWeight": None}),
    "weight 0": ("E-WEIGHT", {"PatientWeight": "0"}),
    "weight 500 kg": ("E-WEIGHTRANGE", {"PatientWeight": "500"}),
    "weight 1 kg": ("E-WEIGHTRANGE", {"PatientWeight": "1", "PatientSize": "0.4"}),
    "weight and size swapped": ("E-SWAP", {"PatientWeight": "1.75", "PatientSize": "70"}),
    "weight and size in cm swapped": ("E-SWAP", {"PatientWeight": "175", "PatientSize": "70"}),
    "dose 10 mCi": ("E-DOSE", {"dose": {"RadionuclideTotalDose": "10"}}),
    "dose 370000 kBq": ("E-DOSE", {"dose": {"RadionuclideTotalDose": "370000"}}),
    "dose absent": ("E-DOSE", {"dose": {"RadionuclideTotalDose": None}}),
    "dose 0": ("E-DOSE", {"dose": {"RadionuclideTotalDose": "0"}}),
    "half-life and code absent": ("E-HALFLIFE", {"dose": {"RadionuclideHalfLife": None,
                                                          "RadionuclideCodeSequence": None}}),
    "half-life of Ga-68 with code of F-18": ("E-HALFLIFE", {"edit": two_nuclides}),
    "no injection time at all": ("E-NOINJECTION", {"dose": NO_START}),
    "injection after the scan": ("E-NEGUPTAKE", {"dose": {"RadiopharmaceuticalStartTime": "113000"}}),
    "injection 7 h before the scan": ("E-LONGUPTAKE", {"dose": {"RadiopharmaceuticalStartTime": "040000"}}),
    "time 25:61": ("E-TIMETAG", {"dose": {"RadiopharmaceuticalStartTime": "256100"}}),
    "date 31 June": ("E-TIMETAG", {"SeriesDate": "20200631"}),
    "no series and acquisition time": ("E-NOTIME", {"SeriesTime": None, "AcquisitionTime": None}),
    "decay correction absent": ("E-DECAY", {"DecayCorrection": None}),
    "decay correction of no known kind": ("E-DECAY", {"DecayCorrection": "LATER"}),
    "NAC": ("E-NAC", {"CorrectedImage": ["DECY", "SCAT"]}),
    "counts without factor": ("E-PHILIPS", {"Units": "CNTS"}),
    "counts with factor 0": ("E-PHILIPS", {"Units": "CNTS", "edit": zero_factor}),
    "counts under a foreign creator": ("E-PHILIPS", {"Units": "CNTS", "edit": foreign_creator}),
    "PROPCNTS": ("E-UNITS", {"Units": "PROPCNTS"}),
    "CPS": ("E-UNITS", {"Units": "CPS"}),
    "units absent": ("E-UNITS", {"Units": None}),
    "lean SUV without size": ("E-SIZE", {"Units": "GML", "SUVType": "LBM", "PatientSize": None}),
    "lean SUV with size 20 cm": ("E-SIZE", {"Units": "GML", "SUVType": "LBM", "PatientSize": "0.2"}),
    "lean SUV without sex": ("E-SEX", {"Units": "GML", "SUVType": "LBM", "PatientSex": None}),
    "lean SUV without weight": ("E-WEIGHT", {"Units": "GML", "SUVType": "LBM", "PatientWeight": None}),
    "SUV of no known kind": ("E-SUVTYPE", {"Units": "GML", "SUVType": "XYZ"}),
    "body surface in g/ml": ("E-SUVTYPE", {"Units": "GML", "SUVType": "BSA"}),
    "slope 0 in a slice": ("E-SLOPE", {"edit": one_slope_zero}),
    "slope absent": ("E-SLOPE", {"RescaleSlope": None}),
    "intercept -100": ("E-SLOPE", {"RescaleIntercept": "-100"}),
    "no radiopharmaceutical sequence": ("E-RADIOPHARM", {"RadiopharmaceuticalInformationSequence": None}),
    "mixed units": ("E-MIXED", {"edit": mixed_units}),
    "mixed weights": ("E-MIXED", {"edit": mixed_weight}),
    "uncorrected planes without duration": ("E-NOTIME", {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"],
                                                         "ActualFrameDuration": None}),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_bad_series_is_an_error(tmp_path: Path, case: str) -> None:
    """Each bad PET series stops with one typed error under its stable code that says where and what to do."""
    code, changes = ERRORS[case]
    series.write_pet(tmp_path, **changes)
    with pytest.raises(ScanError) as caught:
        read(tmp_path)
    assert caught.value.code == code
    (problem,) = caught.value.problems
    assert problem.where.startswith("PET") and problem.remedy


def test_weight_that_is_no_number(tmp_path: Path) -> None:
    """A tag whose value is no number is E-TAG, which names the tag and does not repeat the value."""
    for path in series.write_pet(tmp_path):
        tag = b"\x10\x00\x30\x10DS\x04\x00"
        path.write_bytes(path.read_bytes().replace(tag + b"70.0", tag + b"ZZ?9"))
    with pytest.raises(ScanError) as caught:
        read(tmp_path)
    assert caught.value.code == "E-TAG"
    assert "PatientWeight (0010,1030)" in str(caught.value) and "ZZ?9" not in str(caught.value)


def test_missing_injection_names_the_option(tmp_path: Path) -> None:
    """The error for a lost injection time names --uptake-min, and that option then gives the SUV."""
    series.write_pet(tmp_path, dose=NO_START)
    with pytest.raises(ScanError, match="--uptake-min"):
        read(tmp_path)
    image = read(tmp_path, uptake_min=75.0)
    close(image, series.activity_factor(75.0))
    assert image.audit["suv"]["injection_from"] == "uptake time given"


# --- warnings --------------------------------------------------------------------------------------------------------


def kept_reference(k: int, ds: Dataset) -> None:
    """Acquired from 11:02, in two beds, all corrected to 11:00."""
    after = 120.0 if k < 2 else 420.0
    ds.AcquisitionTime = "110200" if k < 2 else "110700"
    ds.FrameReferenceTime = series.frame_reference_ms(300.0, after)


def beds_apart(k: int, ds: Dataset) -> None:
    ds.FrameReferenceTime = series.frame_reference_ms(300.0, 0.0 if k < 2 else -3600.0)


def late_series(k: int, ds: Dataset) -> None:
    kept_reference(k, ds)
    ds.SeriesTime = "113000"


def ge_tag(_: int, ds: Dataset) -> None:
    ds.Manufacturer = "GE MEDICAL SYSTEMS"
    ds.SeriesTime = ds.AcquisitionTime = "113000"
    ds.FrameReferenceTime = series.frame_reference_ms(300.0, 1800.0)
    ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200302110000.00")


def siemens_tag(_: int, ds: Dataset) -> None:
    ds.Manufacturer, ds.SeriesTime, ds.AcquisitionTime = "SIEMENS", "113000", "113000"
    ds.FrameReferenceTime = series.frame_reference_ms(300.0, 1800.0)
    ds.private_block(0x0071, "SIEMENS MED PT", create=True).add_new(0x22, "DT", "20200302110000.000000")


DATED = {"RadiopharmaceuticalStartDateTime": "20200302100000", "RadiopharmaceuticalStartTime": None}
WARNINGS = {
    "weight in grams": ("W-WEIGHTGRAMS", {"PatientWeight": "70000"}),
    "size in centimetres": ("W-SIZECM", {"PatientSize": "175"}),
    "dose in MBq": ("W-DOSEMBQ", {"dose": {"RadionuclideTotalDose": "370"}}),
    "half-life from the code": ("W-HALFLIFE", {"dose": {"RadionuclideHalfLife": None}}),
    "half-life in minutes": ("W-HALFLIFEMIN", {"dose": {"RadionuclideHalfLife": "109.77"}}),
    "series shifted, injection not": ("W-DATESHIFT", {"dose": DATED, "SeriesDate": "20190714",
                                                      "AcquisitionDate": "20190714"}),
    "time contradicts date-time": ("W-STARTTIMES", {"dose": {**DATED, "RadiopharmaceuticalStartTime": "093000"}}),
    "series time after acquisition": ("W-SERIESLATE", {"edit": late_series}),
    "beds an hour apart": ("W-BEDTIMES", {"edit": beds_apart}),
    "START without DECY": ("W-DECY", {"CorrectedImage": ["ATTN"]}),
    "CorrectedImage absent": ("W-CORRECTED", {"CorrectedImage": None}),
    "slices missing at the end": ("W-SLICES", {"NumberOfSlices": 9}),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_doubtful_series_is_read_with_a_warning(tmp_path: Path, case: str) -> None:
    """Each doubtful series gives the SUV of the good one, and its doubt under a stable code."""
    code, changes = WARNINGS[case]
    series.write_pet(tmp_path, **changes)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0 + 1e-9 if case != "half-life in minutes" else 60.0))
    assert code in codes(image)


QUIET = {
    "only StartTime": {},
    "only StartDateTime": {"dose": DATED},
    "both agree": {"dose": {**DATED, "RadiopharmaceuticalStartTime": "100000"}},
    "beds with their own times": {"edit": kept_reference},
    "Siemens tag": {"edit": siemens_tag},
    "GE tag": {"edit": ge_tag},
    "decay reference of the standard": {"DecayCorrectionDateTime": "20200302110000"},
    "date-time with time zone": {"dose": {**DATED, "RadiopharmaceuticalStartDateTime": "20200302090000+0000"},
                                 "TimezoneOffsetFromUTC": "+0100"},
    "date-time with time zone, file without": {
        "dose": {**DATED, "RadiopharmaceuticalStartDateTime": "20200302100000+0100"}},
}  # fmt: skip


@pytest.mark.parametrize("case", QUIET)
def test_good_series_gives_the_same_suv(tmp_path: Path, case: str) -> None:
    """However a scanner states injection and reference time, the same examination gives the same SUV."""
    series.write_pet(tmp_path, **QUIET[case])
    close(read(tmp_path), series.activity_factor(60.0))


def test_beds_that_disagree_tell_by_how_much(tmp_path: Path) -> None:
    """Reference times of two beds that lie an hour apart are said in seconds."""
    series.write_pet(tmp_path, edit=beds_apart)
    (doubt,) = [p for p in read(tmp_path).problems if p.code == "W-BEDTIMES"]
    assert doubt.found == "3600 s"


def test_midnight(tmp_path: Path) -> None:
    """An injection at 23:30 and a scan at 00:30, times only, is an hour's uptake with W-MIDNIGHT."""
    series.write_pet(tmp_path, dose={"RadiopharmaceuticalStartTime": "233000"}, SeriesTime="003000",
                     AcquisitionTime="003000")
    image = read(tmp_path)
    close(image, series.activity_factor(60.0))
    assert "W-MIDNIGHT" in codes(image)


def test_late_series_without_frame_reference(tmp_path: Path) -> None:
    """With a late series time and no FrameReferenceTime the first acquisition is used, with W-REFACQ."""
    series.write_pet(tmp_path, SeriesTime="113000", FrameReferenceTime=None)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0))
    assert {"W-REFACQ", "W-SERIESLATE"} <= codes(image)


@pytest.mark.parametrize(("minutes", "warned"), [(20, True), (29, True), (31, False), (119, False), (130, True)])
def test_unusual_uptake(tmp_path: Path, minutes: int, warned: bool) -> None:
    """An uptake time outside 30 to 120 minutes is a warning, also where it changes no number."""
    start = f"{(660 - minutes) // 60:02d}{(660 - minutes) % 60:02d}00"
    for name, tags in (("start", {}), ("admin", {"DecayCorrection": "ADMIN"}), ("gml", {"Units": "GML"})):
        series.write_pet(tmp_path / name, dose={"RadiopharmaceuticalStartTime": start}, **tags)
        assert ("W-UPTAKE" in codes(read(tmp_path / name))) == warned


def test_given_uptake_replaces_the_header(tmp_path: Path) -> None:
    """An uptake time that was given wins over the header's and says so."""
    series.write_pet(tmp_path)
    image = read(tmp_path, uptake_min=90.0)
    close(image, series.activity_factor(90.0))
    assert "W-UPTAKEGIVEN" in codes(image)


def test_gml_without_type_is_body_weight(tmp_path: Path) -> None:
    """GML without SUVType is SUVbw, as the standard says, and needs neither weight nor dose."""
    series.write_pet(tmp_path, Units="GML", PatientWeight=None, RadiopharmaceuticalInformationSequence=None)
    image = read(tmp_path)
    close(image, 1.0)
    assert image.audit["suv"]["method"] == "already SUVbw (SUVType absent means BW)"
    assert {"W-SUVRANGE", "W-NOINJECTION"} <= codes(image)


def test_sex_other_takes_the_mean(tmp_path: Path) -> None:
    """Ideal body weight for sex O is the mean of both formulae, with W-SEX."""
    series.write_pet(tmp_path, Units="GML", SUVType="IBW", PatientSex="O")
    image = read(tmp_path)
    close(image, 70.0 / ((48.0 + 1.06 * 23 + 45.5 + 0.91 * 23) / 2))
    assert "W-SEX" in codes(image)


def test_other_nuclide_is_named(tmp_path: Path) -> None:
    """A series of another nuclide is read by its own half-life, with W-NUCLIDE."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "35337001", "SCT", "^68^Gallium"
    series.write_pet(tmp_path, dose={"RadionuclideHalfLife": "4057.7", "RadionuclideCodeSequence": Sequence([code])},
                     FrameReferenceTime=None)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0, 4057.7))
    assert "W-NUCLIDE" in codes(image)


@pytest.mark.parametrize(("units", "factor"), [("suv", 1.0), ("bqml", None)])
def test_units_that_are_given(tmp_path: Path, units: str, factor: float | None) -> None:
    """Units that are given replace the header's, with a warning."""
    series.write_pet(tmp_path, Units="PROPCNTS")
    image = read(tmp_path, pet_units=units)
    close(image, factor or series.activity_factor(60.0))
    assert "W-UNITSGIVEN" in codes(image)


@pytest.mark.parametrize(("high", "count"), [(0.4, 1), (0.6, 0), (199.0, 0), (201.0, 1)])
def test_implausible_range(high: float, count: int) -> None:
    """A largest SUV below 0.5 or above 200 is a warning."""
    assert len(range_warning(high)) == count


# --- the audit -------------------------------------------------------------------------------------------------------


def test_audit_tells_what_each_reference_time_would_change(tmp_path: Path) -> None:
    """The audit lists every candidate for the reference time, its distance in seconds and in per cent of SUV."""
    def ge_with_other_series_time(k: int, ds: Dataset) -> None:
        ge_tag(k, ds)
        ds.SeriesTime, ds.AcquisitionTime = "110500", "113000"

    series.write_pet(tmp_path, edit=ge_with_other_series_time)
    image = read(tmp_path)
    suv = image.audit["suv"]
    assert suv["reference_from"] == "GE (0009,100D)"
    by_source = {c["source"]: c for c in suv["reference_candidates"]}
    assert by_source["series time"]["seconds"] == pytest.approx(300.0)
    assert by_source["series time"]["suv_change_percent"] == pytest.approx(100 * (2 ** (300 / 6586.2) - 1))
    assert suv["uptake_min"] == pytest.approx(60.0)
    assert suv["weight_kg"] == 70.0 and suv["dose_bq"] == 370e6
    (doubt,) = [p for p in image.problems if p.code == "W-REFTIMES"]
    assert "+300 s" in doubt.found and "+3.2 %" in doubt.found


def test_private_tags_need_their_creator(tmp_path: Path) -> None:
    """A GE reference time under a foreign creator is no candidate."""
    def foreign(_: int, ds: Dataset) -> None:
        ds.Manufacturer = "GE MEDICAL SYSTEMS"
        ds.private_block(0x0009, "ACME", create=True).add_new(0x0D, "DT", "20200302101500")

    series.write_pet(tmp_path, edit=foreign)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0))
    assert image.audit["suv"]["reference_from"] == "series time"


def test_private_tags_without_any_creator(tmp_path: Path) -> None:
    """Private tags whose creator was stripped are read in files of their maker with W-NOCREATOR, in others refused."""
    def stripped(_: int, ds: Dataset) -> None:
        ds.add_new(0x70531000, "DS", "0.0005")

    series.write_pet(tmp_path / "own", edit=stripped, Units="CNTS", Manufacturer="Philips Medical Systems")
    image = read(tmp_path / "own")
    close(image, 0.0005)
    assert "W-NOCREATOR" in codes(image)
    series.write_pet(tmp_path / "other", edit=stripped, Units="CNTS", Manufacturer="ACME")
    with pytest.raises(ScanError) as caught:
        read(tmp_path / "other")
    assert caught.value.code == "E-PHILIPS"


@pytest.mark.parametrize("dose", [{}, DATED])
def test_removed_dates(tmp_path: Path, dose: dict[str, object]) -> None:
    """Where de-identification removed all dates of the scan, times of day give the same SUV."""
    series.write_pet(tmp_path, dose=dose, SeriesDate=None, AcquisitionDate=None, StudyDate=None)
    close(read(tmp_path), series.activity_factor(60.0))


def test_normalisation_needs_sex() -> None:
    """A lean mass without a sex is E-SEX, a body surface needs none."""
    with pytest.raises(ScanError) as caught:
        normalisation("IBW", 70.0, 175.0, None)
    assert caught.value.code == "E-SEX"
    assert normalisation("BSA", 70.0, 175.0, None)[0] == pytest.approx(18481, abs=1)


# --- what scanners and de-identification leave behind -----------------------------------------------------------------


@pytest.mark.parametrize("series_time", ["110000", "120000"])
def test_frame_reference_time_of_zero(tmp_path: Path, series_time: str) -> None:
    """FrameReferenceTime 0 in a frame that lasts is not known, not the frame's middle: same SUV, W-FRAMEREF."""
    series.write_pet(tmp_path, FrameReferenceTime="0", SeriesTime=series_time)
    image = read(tmp_path)
    close(image, series.activity_factor(60.0))
    assert codes(image) >= {"W-FRAMEREF"} and "W-REFTIMES" not in codes(image)


def blank_times(**tags: object) -> dict[str, object]:
    return {"SeriesTime": "000000", "AcquisitionTime": "000000", "dose": {"RadiopharmaceuticalStartTime": "000000.00"},
            **tags}


def test_times_that_were_removed(tmp_path: Path) -> None:
    """Injection and scan both at 00:00:00 are E-NOINJECTION, not an uptake of 0 min; a given uptake time stands in."""
    series.write_pet(tmp_path, **blank_times())
    with pytest.raises(ScanError) as caught:
        read(tmp_path)
    assert caught.value.code == "E-NOINJECTION"
    close(read(tmp_path, uptake_min=60.0), series.activity_factor(60.0))


def test_two_injections(tmp_path: Path) -> None:
    """Two radiopharmaceutical items of different dose or time are E-TRACERS; the same one twice is fine."""
    def twice(**tags: object) -> series.Edit:
        def edit(_: int, ds: Dataset) -> None:
            ds.RadiopharmaceuticalInformationSequence = Sequence([series.tracer(), series.tracer(**tags)])
        return edit

    series.write_pet(tmp_path / "same", edit=twice())
    close(read(tmp_path / "same"), series.activity_factor(60.0))
    for n, tags in enumerate([{"RadionuclideTotalDose": "300000000"}, {"RadiopharmaceuticalStartTime": "093000"}]):
        series.write_pet(tmp_path / str(n), edit=twice(**tags))
        with pytest.raises(ScanError) as caught:
            read(tmp_path / str(n))
        assert caught.value.code == "E-TRACERS"
