"""Each fact of a PET header at the ends of what is believed, and the order in which times are believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np
import pytest

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.suv import SuvScale, range_warning, suv_scale
from mtdlr.imaging.suv_bids import bids_scale, sidecar_of
from mtdlr.imaging.suv_facts import (
    HALF_LIFE_S,
    PetHeader,
    decay_constant_per_s,
    injected_dose_bq,
    normalisation,
    patient_size_cm,
    patient_weight_kg,
)
from mtdlr.imaging.suv_time import (
    Acquisition,
    Clock,
    first_start,
    injection_time,
    mean_decay_s,
    nearest_day,
    reference_time,
    suv_change_percent,
    uptake_warning,
)

AT = datetime(2020, 3, 2, 11)
DECAY = math.log(2) / 6586.2


def after(minutes: float) -> datetime:
    return AT + timedelta(minutes=minutes)


def header(**changes: object) -> PetHeader:
    """An FDG series in Bq/ml of 70 kg and 370 MBq, injected an hour before it starts."""
    facts = {"units": "BQML", "decay_correction": "START", "corrected": ("ATTN", "DECY"), "weight": 70.0, "size": 1.75,
             "sex": "M", "dose": 370e6, "half_life_s": 6586.2, "nuclide": "F-18",
             "clock": Clock(series=AT, injection=after(-60))}
    return PetHeader(**{**facts, **changes})  # type: ignore[arg-type]


def factor(**changes: object) -> float:
    return float(suv_scale(header(**changes), [Acquisition(AT)]).factors[0])


def codes(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.code for problem in problems}


def refused(work: Callable[[], object]) -> Problem:
    with pytest.raises(ScanError) as caught:
        work()
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(("weight", "kg", "code"), [
    (2.0, 2.0, ""), (1.99, None, "E-WEIGHTRANGE"), (350.0, 350.0, ""), (350.1, None, "E-WEIGHTRANGE"),
    (1000.0, None, "E-WEIGHTRANGE"), (1001.0, None, "E-WEIGHTRANGE"), (3500.0, 3.5, "W-WEIGHTGRAMS"),
    (350000.0, 350.0, "W-WEIGHTGRAMS"), (350100.0, None, "E-WEIGHTRANGE"), (-70.0, None, "E-WEIGHTRANGE"),
    (None, None, "E-WEIGHT"), (0.0, None, "E-WEIGHT")])
def test_weight(weight: float | None, kg: float | None, code: str) -> None:
    """2 to 350 kg are a weight, more than 1000 are grams within the same limits, nothing else is."""
    facts = header(weight=weight, size=None)
    if kg is None:
        problem = refused(lambda: patient_weight_kg(facts))
        assert problem.code == code and "(0010,1030)" in problem.where and problem.remedy
        return
    found, problems = patient_weight_kg(facts)
    assert found == kg and codes(problems) == ({code} if code else set())


@pytest.mark.parametrize(("weight", "size", "swapped"), [
    (1.75, 70.0, True), (175.0, 70.0, True), (60.0, 160.0, False), (100.0, 100.0, False), (70.0, 1.75, False),
    (3.4, 0.5, False), (250.0, 1.6, False), (1.2, 90.0, True)])
def test_weight_and_size_exchanged(weight: float, size: float, swapped: bool) -> None:
    """E-SWAP where only the exchanged pair is a body, and not for a newborn, a heavy patient or a size in cm."""
    facts = header(weight=weight, size=size)
    if swapped:
        problem = refused(lambda: patient_weight_kg(facts))
        assert problem.code == "E-SWAP" and problem.found == f"{weight:g} kg and {size:g} m"
    else:
        assert patient_weight_kg(facts)[0] == weight


@pytest.mark.parametrize(("size", "weight", "cm"), [
    (1.75, 70.0, 175.0), (175.0, 70.0, 175.0), (0.3, 2.5, 30.0), (0.29, 2.5, None), (2.5, 100.0, 250.0),
    (251.0, 100.0, None), (1.75, 20.0, None), (1.0, 151.0, None), (None, 70.0, None), (0.0, 70.0, None)])
def test_size(size: float | None, weight: float, cm: float | None) -> None:
    """30 to 250 cm with a body mass index of 7 to 150 are a size; more than 3 are centimetres, with W-SIZECM."""
    if cm is None:
        assert refused(lambda: patient_size_cm(header(size=size), weight)).code == "E-SIZE"
        return
    found, problems = patient_size_cm(header(size=size), weight)
    assert found == pytest.approx(cm) and codes(problems) == ({"W-SIZECM"} if size == 175.0 else set())


@pytest.mark.parametrize(("dose", "bq"), [
    (1e7, 1e7), (2e9, 2e9), (37.0, 37e6), (1500.0, 1500e6), (36.9, None), (1500.1, None), (9.99e6, None),
    (2.01e9, None), (-370e6, None), (None, None)])
def test_dose(dose: float | None, bq: float | None) -> None:
    """1e7 to 2e9 is Bq and 37 to 1500 MBq; mCi, kBq and nothing are E-DOSE, never a guess."""
    if bq is None:
        problem = refused(lambda: injected_dose_bq(header(dose=dose)))
        assert problem.code == "E-DOSE" and problem.found == ("nothing" if dose is None else f"{dose:g}")
        return
    found, problems = injected_dose_bq(header(dose=dose))
    assert found == bq and codes(problems) == ({"W-DOSEMBQ"} if dose is not None and dose < 1e4 else set())


def test_dose_needs_one_tracer() -> None:
    """Without the sequence the dose is E-RADIOPHARM, with several tracers E-TRACERS, whatever number is there."""
    assert refused(lambda: injected_dose_bq(header(has_radiopharmaceutical=False))).code == "E-RADIOPHARM"
    assert refused(lambda: injected_dose_bq(header(several_tracers=True))).code == "E-TRACERS"


@pytest.mark.parametrize(("stated", "nuclide", "seconds", "warned"), [
    (6586.2, "F-18", 6586.2, set()), (6650.0, "F-18", 6650.0, set()), (109.77, "F-18", 6586.2, {"W-HALFLIFEMIN"}),
    (None, "F-18", 6586.2, {"W-HALFLIFE"}), (0.0, "F-18", 6586.2, {"W-HALFLIFE"}),
    (4057.7, None, 4057.7, {"W-NUCLIDE"}), (4057.7, "Ga-68", 4057.7, {"W-NUCLIDE"}),
    (67.63, "Ga-68", 4057.8, {"W-HALFLIFEMIN", "W-NUCLIDE"})])
def test_half_life(stated: float | None, nuclide: str | None, seconds: float, warned: set[str]) -> None:
    """A half-life within 1 % of its nuclide's is taken as stated; minutes, the code alone and other tracers warn."""
    found, problems = decay_constant_per_s(header(half_life_s=stated, nuclide=nuclide))
    assert math.log(2) / found == pytest.approx(seconds, rel=1e-5) and codes(problems) == warned


@pytest.mark.parametrize(("stated", "nuclide"), [(6500.0, "F-18"), (4057.7, "F-18"), (1300.0, None), (None, None),
                                                 (None, "Xx-99")])
def test_half_life_that_contradicts(stated: float | None, nuclide: str | None) -> None:
    """More than 1 % from the nuclide's, of no PET nuclide, or not given at all: E-HALFLIFE."""
    assert refused(lambda: decay_constant_per_s(header(half_life_s=stated, nuclide=nuclide))).code == "E-HALFLIFE"


def test_published_half_lives() -> None:
    """Half-lives are those of the decay tables: F-18 109.77 min, Ga-68 67.6, C-11 20.4, N-13 9.97, O-15 2.04, Cu-64
    12.7 h, Zr-89 78.4 h, I-124 4.18 d."""
    hours = {"F-18": 109.77 / 60, "Ga-68": 67.63 / 60, "C-11": 20.36 / 60, "N-13": 9.965 / 60, "O-15": 2.037 / 60,
             "Rb-82": 1.2575 / 60, "Cu-64": 12.70, "Zr-89": 78.4, "I-124": 100.2}
    for name, value in hours.items():
        assert HALF_LIFE_S[name] / 3600 == pytest.approx(value, rel=5e-3), name


def test_body_surface_of_du_bois() -> None:
    """Du Bois' surface is 0.007184 H^.725 W^.425 m2, here in cm2, and needs no sex."""
    assert normalisation("BSA", 80.0, 180.0, None)[0] == pytest.approx(1.9964e4, rel=1e-3)


def test_sex_other_is_the_mean_of_both() -> None:
    """For sex O every mass is the mean of the male and the female one, with W-SEX that says both."""
    for kind in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        male, female = (normalisation(kind, 80.0, 180.0, sex)[0] for sex in "MF")
        found, problems = normalisation(kind, 80.0, 180.0, "O")
        assert found == pytest.approx((male + female) / 2) and male > female and codes(problems) == {"W-SEX"}
        assert problems[0].found == f"M {male:.1f} kg, F {female:.1f} kg"


def test_body_weight_over_the_dose_left() -> None:
    """Bq/ml becomes SUV by grams over the dose left at the reference: at 370 MBq, 70 kg and an hour, 2.763e-4."""
    assert factor() == pytest.approx(70e3 / (370e6 * math.exp(-DECAY * 3600)))
    assert factor(decay_correction="ADMIN") == pytest.approx(70e3 / 370e6)
    assert factor(clock=Clock(series=AT, injection=after(-60 - 109.77))) == pytest.approx(2 * factor(), rel=1e-5)


def test_planes_without_decay_correction() -> None:
    """Each plane is corrected from its own start and mean decay back to the injection; all need start and duration."""
    planes = [Acquisition(AT, None, 180.0), Acquisition(after(20), None, 300.0)]
    facts = header(decay_correction="NONE", corrected=("ATTN",))
    found = suv_scale(facts, planes)
    by_hand = [70e3 / 370e6 * DECAY * d / (1 - math.exp(-DECAY * d)) * math.exp(DECAY * 60 * m)
               for d, m in ((180.0, 60.0), (300.0, 80.0))]
    assert found.factors.tolist() == pytest.approx(by_hand) and "W-DECAYNONE" in codes(found.problems)
    for spoiled in (Acquisition(None, None, 300.0), Acquisition(AT), Acquisition(AT, None, 0.0)):
        assert refused(lambda plane=spoiled: suv_scale(facts, [planes[0], plane])).code == "E-NOTIME"


def test_philips_factors() -> None:
    """Counts with an SUV factor become SUV at once, with an activity factor Bq/ml first; a foreign block is neither."""
    assert factor(units="CNTS", philips_suv=0.0005) == 0.0005
    assert factor(units="CNTS", philips_activity=2.5) == pytest.approx(2.5 * factor())
    assert factor(units="CNTS", philips_suv=0.0, philips_activity=2.5) == pytest.approx(2.5 * factor())
    problem = refused(lambda: factor(units="CNTS", philips_activity=2.5, philips_suv=0.1, foreign_private=True))
    assert (problem.code, problem.found) == ("E-PHILIPS", "a private block of another creator")


def test_units_that_do_not_go_with_their_type() -> None:
    """Body surface belongs to CM2ML and masses to GML; a wrong pair is E-SUVTYPE that names both."""
    assert factor(units="CM2ML") == factor(units="CM2ML", suv_type="BSA") == pytest.approx(70e3 / 18481, rel=1e-4)
    for units, kind in (("GML", "BSA"), ("CM2ML", "LBM"), ("CM2ML", "BW"), ("GML", "?")):
        problem = refused(lambda u=units, k=kind: factor(units=u, suv_type=k))
        assert (problem.code, problem.found) == ("E-SUVTYPE", f"{kind} with {units}")


def test_attenuation_is_never_optional() -> None:
    """A series without ATTN is E-NAC in every unit, also in SUV; only an absent tag is a doubt."""
    for units in ("BQML", "GML", "CNTS"):
        assert refused(lambda u=units: factor(units=u, corrected=("DECY", "SCAT"))).code == "E-NAC"
    scale = suv_scale(header(corrected=None), [Acquisition(AT)])
    assert "W-CORRECTED" in codes(scale.problems)


def sources(clock: Clock, *planes: Acquisition) -> tuple[list[str], set[str]]:
    found = reference_time(clock, planes, DECAY)
    return [source for source, _ in found.candidates], codes(found.problems)


def test_the_order_of_reference_times() -> None:
    """The standard's tag comes before GE, Siemens, the series time, the one computed back, the first acquisition."""
    back_s = mean_decay_s(DECAY, 300.0)
    clock = Clock(decay_reference=AT, ge=AT, siemens=AT, series=AT)
    listed, doubts = sources(clock, Acquisition(AT, back_s, 300.0))
    assert [s.split()[0] for s in listed] == ["DecayCorrectionDateTime", "GE", "Siemens", "series", "acquisition",
                                              "first"] and not doubts
    assert reference_time(Clock(siemens=after(3), ge=after(4)), [], DECAY).moment == after(4)
    assert refused(lambda: reference_time(Clock(), [Acquisition(None)], DECAY)).code == "E-NOTIME"


def test_a_series_time_after_the_first_acquisition_comes_last() -> None:
    """A late series time is used by nobody while another is there, and W-SERIESLATE says what was."""
    plane = Acquisition(AT, mean_decay_s(DECAY, 300.0) + 600.0, 300.0)
    found = reference_time(Clock(series=after(5)), [plane], DECAY)
    assert found.moment == after(-10) and found.candidates[-1][0] == "series time"
    assert codes(found.problems) == {"W-SERIESLATE"}


def test_the_frame_reference_counts_from_the_mean_decay() -> None:
    """The time computed back is start + mean decay - FrameReferenceTime; of several beds the earliest, a zero none."""
    planes = [Acquisition(after(m), 60.0 * m + mean_decay_s(DECAY, d), d) for m, d in ((2, 120.0), (7, 300.0))]
    found = reference_time(Clock(), planes, DECAY)
    assert found.source == "acquisition time minus FrameReferenceTime"
    assert abs((found.moment - AT).total_seconds()) < 1e-3 and not found.problems
    listed, doubts = sources(Clock(), Acquisition(AT, 0.0, 300.0))
    assert listed == ["first acquisition"] and doubts == {"W-FRAMEREF", "W-REFACQ"}


def test_reference_times_agree_within_a_minute() -> None:
    """A contradiction of 60 s is none; of 61 s it is W-REFTIMES with seconds and the per cent of SUV."""
    for seconds, doubt in ((60, set()), (61, {"W-REFTIMES"}), (-300, {"W-REFTIMES"})):
        clock = Clock(decay_reference=AT, ge=AT + timedelta(seconds=seconds))
        found = reference_time(clock, [], DECAY)
        assert codes(found.problems) == doubt, seconds
    percent = suv_change_percent(AT, after(-5), DECAY)
    assert percent == pytest.approx(100 * (2 ** (-300 / 6586.2) - 1)) and percent < 0
    assert f"-300 s, which would change SUV by {percent:+.1f} %" in found.problems[0].found


def test_dates_that_were_shifted() -> None:
    """More than 12 h apart the time of day counts, on the nearest day: W-DATESHIFT and the same moment."""
    found = reference_time(Clock(ge=datetime(2015, 7, 14, 10, 58)), [Acquisition(AT)], DECAY)
    assert found.moment == after(-2) and "W-DATESHIFT" in codes(found.problems)
    midnight = datetime(2020, 3, 2, 0, 10)
    assert nearest_day(datetime(1999, 1, 1, 23, 50), midnight) == datetime(2020, 3, 1, 23, 50)
    assert nearest_day(datetime(1999, 1, 1, 0, 20), datetime(2020, 3, 2, 23, 50)) == datetime(2020, 3, 3, 0, 20)


@pytest.mark.parametrize(("clock", "minutes", "code"), [
    (Clock(injection=after(-60)), 60, ""), (Clock(injection=after(-60), injection_time=time(10, 1)), 60, ""),
    (Clock(injection=after(-60), injection_time=time(10, 2)), 60, "W-STARTTIMES"),
    (Clock(injection_time=time(10)), 60, ""), (Clock(injection=after(-360)), 360, ""),
    (Clock(injection=after(-60) + timedelta(days=90)), 60, "W-DATESHIFT"), (Clock(injection=AT), 0, "")])
def test_injection_times(clock: Clock, minutes: float, code: str) -> None:
    """The date-time is believed before the time, both agree within a minute, shifted dates leave the time of day."""
    found = injection_time(clock, AT)
    assert (AT - found.moment) == timedelta(minutes=minutes) and codes(found.problems) == ({code} if code else set())


def test_injection_before_midnight() -> None:
    """A time of day later than the scan lies on the evening before, up to six hours ago; else it is after the scan."""
    scan = datetime(2020, 3, 2, 0, 30)
    found = injection_time(Clock(injection_time=time(18, 30)), scan)
    assert scan - found.moment == timedelta(hours=6) and codes(found.problems) == {"W-MIDNIGHT"}
    assert refused(lambda: injection_time(Clock(injection_time=time(18, 29)), scan)).code == "E-NEGUPTAKE"


def test_impossible_uptakes() -> None:
    """A minute after the scan is E-NEGUPTAKE, a minute over six hours E-LONGUPTAKE; both say how many."""
    problem = refused(lambda: injection_time(Clock(injection=after(1)), AT))
    assert (problem.code, problem.found, problem.expected) == ("E-NEGUPTAKE", "-1 min", "30 to 120 min")
    problem = refused(lambda: injection_time(Clock(injection=after(-361)), AT))
    assert (problem.code, problem.found) == ("E-LONGUPTAKE", "361 min")
    assert refused(lambda: injection_time(Clock(), AT)).code == "E-NOINJECTION"
    assert refused(lambda: injection_time(Clock(injection=after(-60)), AT, uptake_min=-5.0)).code == "E-NEGUPTAKE"


def test_an_uptake_that_is_given() -> None:
    """A given uptake replaces the header; W-UPTAKEGIVEN only where the header differs by more than a minute."""
    for minutes, doubt in ((60.0, set()), (61.0, set()), (62.0, {"W-UPTAKEGIVEN"})):
        found = injection_time(Clock(injection=after(-60)), AT, uptake_min=minutes)
        assert found.moment == after(-minutes) and codes(found.problems) == doubt, minutes


def test_limits_of_the_warnings() -> None:
    """30 to 120 minutes and a largest SUV of 0.5 to 200 are usual, both ends included."""
    assert [bool(uptake_warning(m)) for m in (29.9, 30.0, 120.0, 120.1)] == [True, False, False, True]
    assert [bool(range_warning(s)) for s in (0.49, 0.5, 200.0, 200.1)] == [True, False, False, True]
    assert first_start([Acquisition(None), Acquisition(after(5)), Acquisition(AT)]) == AT
    assert first_start([Acquisition(None)]) is None


SIDECAR = {"Units": "Bq/mL", "InjectedRadioactivity": 370, "InjectedRadioactivityUnits": "MBq", "BodyWeight": 70,
           "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 3600, "InjectionStart": 0,
           "FrameTimesStart": [3600], "FrameDuration": [300], "TracerRadionuclide": "F18",
           "AttenuationCorrection": "CT"}


def sidecar(folder: Path, **changes: object) -> SuvScale:
    path = folder / "sub-1_pet.json"
    path.write_text(json.dumps({k: v for k, v in {**SIDECAR, **changes}.items() if v is not None}))
    return bids_scale(path)


def test_a_bids_sidecar_gives_the_factor_of_the_same_headers(tmp_path: Path) -> None:
    """MBq or Bq, kBq/ml or Bq/ml, 18F or F-18: one examination has one factor; the audit names BIDS' own fields."""
    scale = sidecar(tmp_path)
    assert scale.factors.tolist() == pytest.approx([factor()])
    assert scale.audit["injection_from"] == "InjectionStart"
    assert scale.audit["reference_from"] == "ImageDecayCorrectionTime"
    for changes, times in (({"Units": "kBq/mL"}, 1000.0), ({"InjectedRadioactivity": 370e6,
                           "InjectedRadioactivityUnits": "Bq"}, 1.0), ({"TracerRadionuclide": "18F"}, 1.0),
                           ({"BodyWeight": 35}, 0.5), ({"Units": "g/ml"}, 1 / factor())):
        assert sidecar(tmp_path, **changes).factors.tolist() == pytest.approx([times * factor()]), changes


@pytest.mark.parametrize(("field", "value"), [
    ("Units", "counts"), ("Units", None), ("InjectedRadioactivity", None), ("InjectedRadioactivity", "370"),
    ("InjectedRadioactivityUnits", "mCi"), ("ImageDecayCorrected", "yes"), ("InjectionStart", 1e6),
    ("BodyWeight", True)])
def test_a_sidecar_that_lacks_a_fact(tmp_path: Path, field: str, value: object) -> None:
    """A field that is absent, of another kind or in another unit is E-SIDECAR under its name, never a guess."""
    problem = refused(lambda: sidecar(tmp_path, **{field: value}))
    assert problem.code == "E-SIDECAR" and field in problem.where and problem.expected and problem.remedy


def test_a_sidecar_without_attenuation_correction(tmp_path: Path) -> None:
    """`none` is E-NAC as in DICOM; an absent field is the doubt W-CORRECTED; a broken file is E-SIDECAR."""
    assert refused(lambda: sidecar(tmp_path, AttenuationCorrection="none")).code == "E-NAC"
    assert "W-CORRECTED" in codes(sidecar(tmp_path, AttenuationCorrection=None).problems)
    (tmp_path / "sub-1_pet.json").write_text("[1, 2")
    assert refused(lambda: bids_scale(tmp_path / "sub-1_pet.json")).code == "E-SIDECAR"


def test_the_sidecar_lies_beside_its_image(tmp_path: Path) -> None:
    """The sidecar has the image's name with .json, compressed or not; without one there is none."""
    (tmp_path / "sub-1_pet.json").write_text("{}")
    for name in ("sub-1_pet.nii.gz", "sub-1_pet.nii"):
        assert sidecar_of(tmp_path / name) == tmp_path / "sub-1_pet.json"
    assert sidecar_of(tmp_path / "sub-2_pet.nii.gz") is None


def test_every_plane_has_a_factor() -> None:
    """One factor a plane, equal where the scanner corrected them all to one moment."""
    scale = suv_scale(header(), [Acquisition(after(m)) for m in (0, 3, 6)])
    assert scale.factors.shape == (3,) and np.ptp(scale.factors) == 0
