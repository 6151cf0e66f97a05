"""What a PET header states about the patient and the dose, each fact checked: kilograms, metres, becquerel, seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.suv_time import Clock

HALF_LIFE_S = MappingProxyType({
    "F-18": 6586.2, "Ga-68": 4057.7, "C-11": 1221.8, "N-13": 597.9, "O-15": 122.24, "Rb-82": 75.45, "Cu-64": 45723.6,
    "Zr-89": 282240.0, "I-124": 360806.4, "Cu-62": 580.2, "Y-86": 53064.0, "Br-76": 58320.0,
})  # fmt: skip
_SEX = "PatientSex (0010,0040)"
_WEIGHT = "PatientWeight (0010,1030)"
_SIZE = "PatientSize (0010,1020)"
_DOSE = "RadionuclideTotalDose (0018,1074)"
_HALF_LIFE = "RadionuclideHalfLife (0018,1075)"


@dataclass(frozen=True)
class PetHeader:
    """What a PET series states about its numbers; None or empty where the header lacks it.

    Args:
        units: (0054,1001), suv_type: (0054,1006), decay_correction: (0054,1102).
        corrected: (0028,0051), None where the tag is absent.
        weight: (0010,1030) as it stands, kilograms by the standard; size: (0010,1020), metres; sex: (0010,0040).
        dose: (0018,1074) as it stands, becquerel by the standard; half_life_s: (0018,1075).
        nuclide: name in `HALF_LIFE_S` that (0054,0300) stands for.
        has_radiopharmaceutical: whether (0054,0016) is there; several_tracers: whether it holds several items of
            different dose, half-life or injection time.
        philips_suv, philips_activity: (7053,1000) and (7053,1009) under Philips' own creator.
        foreign_private: whether another creator holds that block; ownerless_private: whether private tags were read
            though no creator is named, because the file is of their maker.
        clock: times of the series.
    """

    units: str | None = None
    suv_type: str | None = None
    decay_correction: str | None = None
    corrected: tuple[str, ...] | None = None
    weight: float | None = None
    size: float | None = None
    sex: str | None = None
    dose: float | None = None
    half_life_s: float | None = None
    nuclide: str | None = None
    has_radiopharmaceutical: bool = True
    several_tracers: bool = False
    philips_suv: float | None = None
    philips_activity: float | None = None
    foreign_private: bool = False
    ownerless_private: bool = False
    clock: Clock = field(default_factory=Clock)


def patient_weight_kg(header: PetHeader) -> tuple[float, tuple[Problem, ...]]:
    """Body weight in kg, with W-WEIGHTGRAMS where the header holds grams.

    Raises:
        ScanError: E-WEIGHT (absent or 0), E-SWAP (weight and size exchanged), E-WEIGHTRANGE (outside 2 to 350 kg).
    """
    weight, size = header.weight, header.size
    if weight is None or weight == 0:
        raise ScanError(Problem("E-WEIGHT", "the patient's weight is missing", where=_WEIGHT,
                                found="nothing" if weight is None else "0", expected="kilograms",
                                remedy="Add it to the headers, or export the series in SUVbw"))
    if size is not None and _exchanged(weight, size):
        raise ScanError(Problem("E-SWAP", "weight and size look exchanged", where=f"{_WEIGHT}, {_SIZE}",
                                found=f"{weight:g} kg and {size:g} m", remedy="Correct the headers"))
    grams = weight > 1000.0
    weight_kg = weight / 1000.0 if grams else weight
    if not 2.0 <= weight_kg <= 350.0:
        raise ScanError(Problem("E-WEIGHTRANGE", "the patient's weight is impossible", where=_WEIGHT,
                                found=f"{weight:g}", expected="2 to 350 kg", remedy="Correct the headers"))
    if not grams:
        return weight_kg, ()
    return weight_kg, (Problem("W-WEIGHTGRAMS", "the weight was taken as grams", where=_WEIGHT, found=f"{weight:g}",
                               expected="kilograms"),)


def _exchanged(weight: float, size: float) -> bool:
    """Whether only the exchanged pair is a human body (size in metres or centimetres)."""
    metres, body = (s / 100.0 if s > 3.0 else s for s in (size, weight))
    as_stated = weight / max(metres, 1e-6) ** 2
    exchanged = size / max(body, 1e-6) ** 2
    return not 7.0 <= as_stated <= 150.0 and 10.0 <= exchanged <= 80.0 and 0.3 <= body <= 2.5


def patient_size_cm(header: PetHeader, weight_kg: float) -> tuple[float, tuple[Problem, ...]]:
    """Height in cm, with W-SIZECM where the header gives centimetres instead of metres.

    Args:
        header: of the PET.
        weight_kg: the patient's weight, which the height must go with (body mass index 7 to 150 kg/m2).

    Raises:
        ScanError: E-SIZE where the height is absent or impossible.
    """
    size = header.size
    if not size:
        raise ScanError(Problem("E-SIZE", "this SUV type needs the patient's size", where=_SIZE, expected="metres",
                                remedy="Add it, or export the series in Bq/ml"))
    size_cm = size if size > 3.0 else size * 100.0
    if not 30.0 <= size_cm <= 250.0 or not 7.0 <= weight_kg / (size_cm / 100.0) ** 2 <= 150.0:
        raise ScanError(Problem("E-SIZE", "the patient's size is impossible", where=_SIZE, found=f"{size:g}",
                                expected="0.3 to 2.5 m that goes with the weight", remedy="Correct the headers"))
    return size_cm, size_warning(header)


def size_warning(header: PetHeader) -> tuple[Problem, ...]:
    """W-SIZECM where the size was taken as centimetres."""
    if header.size is None or header.size <= 3.0:
        return ()
    return (Problem("W-SIZECM", "the size was taken as centimetres", where=_SIZE, found=f"{header.size:g}",
                    expected="metres"),)


def injected_dose_bq(header: PetHeader) -> tuple[float, tuple[Problem, ...]]:
    """Injected activity in Bq, with W-DOSEMBQ where the header holds MBq.

    Raises:
        ScanError: E-RADIOPHARM where the sequence is absent, E-TRACERS where its items contradict one another, E-DOSE
            where the number is absent or neither Bq nor MBq.
    """
    if not header.has_radiopharmaceutical:
        raise ScanError(Problem("E-RADIOPHARM", "the radiopharmaceutical sequence is missing",
                                where="RadiopharmaceuticalInformationSequence (0054,0016)",
                                remedy="Export the series again without removing it, or export it in SUVbw"))
    if header.several_tracers:
        raise ScanError(Problem("E-TRACERS", "several injections of different dose or time are described",
                                where="RadiopharmaceuticalInformationSequence (0054,0016)", expected="one item",
                                remedy="Keep the item that was imaged, or export the series in SUVbw"))
    dose = header.dose
    if dose is not None and 37.0 <= dose <= 1500.0:
        return dose * 1e6, (Problem("W-DOSEMBQ", "the injected dose was taken as MBq", where=_DOSE, found=f"{dose:g}",
                                    expected="Bq"),)
    if dose is None or not 1e7 <= dose <= 2e9:
        raise ScanError(Problem("E-DOSE", "the injected dose is missing or impossible", where=_DOSE,
                                found="nothing" if dose is None else f"{dose:g}",
                                expected="1e7 to 2e9 Bq, or 37 to 1500 MBq", remedy="Correct the headers"))
    return dose, ()


def decay_constant_per_s(header: PetHeader) -> tuple[float, tuple[Problem, ...]]:
    """Decay constant in 1/s from the half-life or the nuclide's code, which must not contradict each other.

    Raises:
        ScanError: E-HALFLIFE.
    """
    stated, known = header.half_life_s, HALF_LIFE_S.get(header.nuclide or "")
    if stated is None or stated <= 0:
        if known is None:
            raise ScanError(Problem("E-HALFLIFE", "the half-life is missing, and no nuclide code gives it",
                                    where=_HALF_LIFE, expected="6586.2 s for F-18", remedy="Add it to the headers"))
        from_code = Problem("W-HALFLIFE", "the half-life was taken from the nuclide's code", where=_HALF_LIFE,
                            found=f"{header.nuclide}, {known:g} s")
        return math.log(2.0) / known, (from_code,)
    likely = [known] if known is not None else list(HALF_LIFE_S.values())
    if any(abs(stated - h) <= 0.01 * h for h in likely):
        return math.log(2.0) / stated, _not_fluorine(stated)
    if any(abs(stated * 60.0 - h) <= 0.01 * h for h in likely):
        minutes = Problem("W-HALFLIFEMIN", "the half-life was taken as minutes", where=_HALF_LIFE,
                          found=f"{stated:g}", expected="seconds")
        return math.log(2.0) / (stated * 60.0), (minutes, *_not_fluorine(stated * 60.0))
    expected = f"{known:g} s" if known else "that of a PET nuclide"
    raise ScanError(Problem("E-HALFLIFE", "the half-life contradicts the nuclide", where=_HALF_LIFE,
                            found=f"{stated:g} s for {header.nuclide or 'an unknown nuclide'}", expected=expected,
                            remedy="Correct the headers"))


def _not_fluorine(half_life_s: float) -> tuple[Problem, ...]:
    """W-NUCLIDE where the tracer cannot be FDG."""
    if abs(half_life_s - HALF_LIFE_S["F-18"]) <= 0.01 * HALF_LIFE_S["F-18"]:
        return ()
    return (Problem("W-NUCLIDE", "the nuclide is not F-18: this is not an FDG scan", where=_HALF_LIFE,
                    found=f"half-life {half_life_s:g} s"),)


def normalisation(kind: str, weight_kg: float, size_cm: float, sex: str | None) -> tuple[float, tuple[Problem, ...]]:
    """What a SUV type divides by: lean or ideal mass in kg, or body surface in cm2.

    Args:
        kind: LBM, LBMJAMES128, LBMJANMA, IBW (kg) or BSA (cm2).
        weight_kg: the patient's weight.
        size_cm: the patient's height.
        sex: "M", "F"; "O" takes the mean of both, with W-SEX.

    Raises:
        ScanError: E-SEX where the formula needs it and it is absent.

    References:
        James 1976 (LBM; 128 is the corrected male constant); Janmahasatian 2005; Sugawara 1999 (IBW); Du Bois 1916.

    >>> round(normalisation("BSA", 70.0, 175.0, None)[0])
    18481
    """
    if kind == "BSA":
        return 1e4 * 0.007184 * size_cm**0.725 * weight_kg**0.425, ()
    both = {s: _lean_mass_kg(kind, weight_kg, size_cm, s) for s in ("M", "F")}
    if sex in both:
        return both[sex], ()
    if sex == "O":
        mean = Problem("W-SEX", "sex is O: the mean of both formulae was taken", where=_SEX,
                       found=f"M {both['M']:.1f} kg, F {both['F']:.1f} kg")
        return (both["M"] + both["F"]) / 2.0, (mean,)
    raise ScanError(Problem("E-SEX", f"SUV type {kind} needs the patient's sex", where=_SEX, expected="M, F or O",
                            remedy="Add it, or export the series in Bq/ml"))


def _lean_mass_kg(kind: str, weight_kg: float, size_cm: float, sex: str) -> float:
    """Lean or ideal body mass by one formula for one sex."""
    male = sex == "M"
    if kind == "LBMJANMA":
        bmi = weight_kg / (size_cm / 100.0) ** 2
        return 9270.0 * weight_kg / ((6680.0 + 216.0 * bmi) if male else (8780.0 + 244.0 * bmi))
    if kind == "IBW":
        return 48.0 + 1.06 * (size_cm - 152.0) if male else 45.5 + 0.91 * (size_cm - 152.0)
    ratio2 = (weight_kg / size_cm) ** 2
    if male:
        return 1.10 * weight_kg - (128.0 if kind == "LBMJAMES128" else 120.0) * ratio2
    return 1.07 * weight_kg - 148.0 * ratio2


