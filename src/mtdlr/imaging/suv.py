"""From rescaled PET voxels to SUVbw, by the header's facts alone: a missing fact is an error, never a guess.

Sources: QIBA vendor-neutral SUV pseudo-code; IBSI SUV manual (2026); DICOM PS3.3 C.8.9.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging.suv_facts import (
    PetHeader,
    decay_constant_per_s,
    injected_dose_bq,
    normalisation,
    patient_size_cm,
    patient_weight_kg,
    size_warning,
)
from mtdlr.imaging.suv_time import (
    Acquisition,
    Injection,
    Reference,
    first_start,
    injection_time,
    mean_decay_s,
    reference_time,
    suv_change_percent,
    uptake_warning,
)

_LBM_TYPES = ("LBM", "LBMJAMES128", "LBMJANMA", "IBW")
_UNITS = "Units (0054,1001)"
_DECAY = "DecayCorrection (0054,1102)"


@dataclass(frozen=True, eq=False)
class SuvScale:
    """Factors (one a plane) from rescaled voxels to SUVbw, what they rest on, and warnings."""

    factors: NDArray[np.float64]
    audit: dict[str, object]
    problems: tuple[Problem, ...]


def suv_scale(
    header: PetHeader, acquisitions: Sequence[Acquisition], *, units: str = "auto", uptake_min: float | None = None
) -> SuvScale:
    """The factor of each plane that turns stored * RescaleSlope into SUVbw (g/ml).

    Args:
        header: facts of the series.
        acquisitions: one for each plane.
        units: "auto" takes the header's; "suv" and "bqml" replace them.
        uptake_min: minutes from injection to the decay reference; replaces the headers' injection time.

    Raises:
        ScanError: E-NAC, E-UNITS, E-SUVTYPE, E-PHILIPS, E-WEIGHT, E-WEIGHTRANGE, E-SWAP, E-SIZE, E-SEX, E-DOSE,
            E-HALFLIFE, E-DECAY, E-RADIOPHARM, E-NOTIME, E-NOINJECTION, E-NEGUPTAKE, E-LONGUPTAKE.
    """
    stated = {"suv": "GML", "bqml": "BQML"}.get(units, header.units or "")
    problems = [*_corrections(header), *_ownerless(header)]
    if units != "auto" and stated != header.units:
        problems.append(Problem("W-UNITSGIVEN", "the units given replace the header's", where=_UNITS,
                                found=str(header.units), expected=stated))
    n, audit = len(acquisitions), _stated_facts(header)
    no_problems: tuple[Problem, ...] = ()
    if stated == "GML" and units == "suv":
        factor, how, more = 1.0, "taken as SUVbw", no_problems
    elif stated in ("GML", "CM2ML"):
        factor, how, more = _renormalise(header, stated)
    elif stated == "CNTS" and header.philips_suv and not header.foreign_private:
        factor, how, more = header.philips_suv, "Philips SUV scale factor (7053,1000)", no_problems
    elif stated in ("BQML", "CNTS"):
        scale = _from_activity(header, acquisitions, uptake_min)
        factor = _philips_activity(header) if stated == "CNTS" else 1.0
        return SuvScale(scale.factors * factor, {**audit, **scale.audit, "units_used": stated},
                        (*problems, *scale.problems))
    else:
        raise ScanError(Problem("E-UNITS", "SUV cannot be derived from these units", where=_UNITS,
                                found=stated or "nothing", expected="BQML, GML, CM2ML or Philips CNTS",
                                remedy="Export the series in Bq/ml, or, if they are SUV, set prepare.pet_units"))
    facts = {**audit, "units_used": stated, "method": how, "factor": float(factor)}
    return SuvScale(np.full(n, factor), facts, (*problems, *more, *_uptake_facts(header, acquisitions, facts)))


def _stated_facts(header: PetHeader) -> dict[str, object]:
    """The header's facts that SUV rests on, as they stand."""
    return {
        "units": header.units, "suv_type": header.suv_type, "decay_correction": header.decay_correction,
        "corrected_image": None if header.corrected is None else list(header.corrected),
        "weight_as_stated": header.weight, "size_as_stated": header.size, "sex": header.sex,
        "dose_as_stated": header.dose, "half_life_as_stated_s": header.half_life_s, "nuclide": header.nuclide,
    }  # fmt: skip


def _corrections(header: PetHeader) -> list[Problem]:
    """Attenuation must be corrected; doubts about decay correction are warnings."""
    if header.corrected is None:
        return [Problem("W-CORRECTED", "CorrectedImage is absent: attenuation correction was not verified",
                        where="CorrectedImage (0028,0051)")]
    if "ATTN" not in header.corrected:
        raise ScanError(Problem("E-NAC", "the PET series is not corrected for attenuation",
                                where="CorrectedImage (0028,0051)", expected="ATTN",
                                remedy="Choose the attenuation-corrected series"))
    if "DECY" not in header.corrected and header.decay_correction in ("START", "ADMIN"):
        return [Problem("W-DECY", "DecayCorrection says corrected, CorrectedImage does not list DECY",
                        where="CorrectedImage (0028,0051)", found=header.decay_correction)]
    return []


def _ownerless(header: PetHeader) -> list[Problem]:
    """W-NOCREATOR where private tags were read whose creator was stripped."""
    if not header.ownerless_private:
        return []
    return [Problem("W-NOCREATOR", "private tags without their creator were read, as the file is of their maker",
                    where="Manufacturer (0008,0070)", remedy="Keep private creators when exporting")]


def _renormalise(header: PetHeader, units: str) -> tuple[float, str, tuple[Problem, ...]]:
    """(factor, how, problems) from another SUV normalisation to body weight."""
    kind = header.suv_type or ("BW" if units == "GML" else "BSA")
    if units == "GML" and kind == "BW":
        return 1.0, "already SUVbw" if header.suv_type else "already SUVbw (SUVType absent means BW)", ()
    if (units == "GML") != (kind in _LBM_TYPES) or (units == "CM2ML" and kind != "BSA"):
        raise ScanError(Problem("E-SUVTYPE", "this SUV type does not go with its units", where="SUVType (0054,1006)",
                                found=f"{kind} with {units}", expected=f"BW, {', '.join(_LBM_TYPES)} with GML, "
                                "BSA with CM2ML", remedy="Export the series in Bq/ml"))
    weight_kg, weight_problems = patient_weight_kg(header)
    size_cm, size_problems = patient_size_cm(header, weight_kg)
    norm, sex_problems = normalisation(kind, weight_kg, size_cm, header.sex)
    body = weight_kg * 1000.0 if kind == "BSA" else weight_kg
    notice = Problem("W-SUVTYPE", f"SUV normalised by {kind} was converted to body weight", where="SUVType (0054,1006)",
                     found=f"factor {body / norm:.4f}")
    return body / norm, f"SUV {kind} to body weight", (*weight_problems, *size_problems, *sex_problems, notice)


def _philips_activity(header: PetHeader) -> float:
    """Bq/ml for one count in a Philips series."""
    if header.foreign_private or not header.philips_activity:
        found = "a private block of another creator" if header.foreign_private else "no factor or 0"
        raise ScanError(Problem("E-PHILIPS", "counts need Philips' scale factor", where="(7053,1000), (7053,1009)",
                                found=found, expected='a factor under "Philips PET Private Group"',
                                remedy="Export the series in Bq/ml, or keep the private tags"))
    return header.philips_activity


def _from_activity(
    header: PetHeader, acquisitions: Sequence[Acquisition], uptake_min: float | None
) -> SuvScale:
    """Factors for Bq/ml: weight in grams over the dose left at the moment the scanner corrected to."""
    if header.decay_correction not in ("START", "ADMIN", "NONE"):
        raise ScanError(Problem("E-DECAY", "the header does not say whether decay was corrected", where=_DECAY,
                                found=header.decay_correction or "nothing", expected="START, ADMIN or NONE",
                                remedy="Add the tag"))
    dose_bq, dose_problems = injected_dose_bq(header)
    weight_kg, weight_problems = patient_weight_kg(header)
    decay, decay_problems = decay_constant_per_s(header)
    undecayed = weight_kg * 1000.0 / dose_bq
    problems = (*dose_problems, *weight_problems, *size_warning(header), *decay_problems)
    audit: dict[str, object] = {"weight_kg": weight_kg, "dose_bq": dose_bq, "half_life_s": math.log(2.0) / decay}
    if header.decay_correction == "ADMIN":
        audit |= {"method": "decay corrected to the injection", "factor": undecayed}
        timing = _uptake_facts(header, acquisitions, audit)
        return SuvScale(np.full(len(acquisitions), undecayed), audit, (*problems, *timing))
    if header.decay_correction == "NONE":
        factors, timing = _uncorrected(header, acquisitions, decay, undecayed, uptake_min, audit)
    else:
        reference = reference_time(header.clock, acquisitions, decay)
        injection = injection_time(header.clock, reference.moment, uptake_min=uptake_min)
        uptake_s = (reference.moment - injection.moment).total_seconds()
        factors = np.full(len(acquisitions), undecayed * math.exp(decay * uptake_s))
        audit |= {"method": "decay corrected to the scan", "factor": float(factors[0]),
                  **_timing(reference, injection, decay)}
        timing = (*reference.problems, *injection.problems, *uptake_warning(uptake_s / 60.0))
    return SuvScale(factors, audit, (*problems, *timing))


def _uncorrected(
    header: PetHeader, acquisitions: Sequence[Acquisition], decay: float, undecayed: float,
    uptake_min: float | None, audit: dict[str, object],
) -> tuple[NDArray[np.float64], tuple[Problem, ...]]:  # fmt: skip
    """Factors of planes that were not corrected for decay: each from its own start and duration."""
    started = first_start(acquisitions)
    if started is None or any(a.start is None or not a.duration_s or a.duration_s <= 0 for a in acquisitions):
        raise ScanError(Problem("E-NOTIME", "planes without decay correction need their own start and duration",
                                where="AcquisitionTime (0008,0032), ActualFrameDuration (0018,1242)",
                                remedy="Export the series again without removing times"))
    injection = injection_time(header.clock, started, uptake_min=uptake_min)
    delays = [mean_decay_s(decay, a.duration_s or 0.0) + (a.start - injection.moment).total_seconds()
              for a in acquisitions if a.start is not None]
    uptake = (started - injection.moment).total_seconds() / 60.0
    audit |= {"method": "decay corrected here, plane by plane", "uptake_min": uptake}
    audit |= {"injection_from": injection.source}
    notice = Problem("W-DECAYNONE", "the scanner did not correct for decay; it was corrected here", where=_DECAY,
                     found="NONE")
    factors = undecayed * np.exp(decay * np.array(delays))
    return factors, (notice, *injection.problems, *uptake_warning(uptake))


def _timing(reference: Reference, injection: Injection, decay: float) -> dict[str, object]:
    """The reference time's candidates as seconds and per cent SUV against the one used; no dates."""
    return {
        "uptake_min": (reference.moment - injection.moment).total_seconds() / 60.0,
        "injection_from": injection.source,
        "reference_from": reference.source,
        "reference_candidates": [
            {"source": source, "seconds": (moment - reference.moment).total_seconds(),
             "suv_change_percent": suv_change_percent(reference.moment, moment, decay)}
            for source, moment in reference.candidates
        ],
    }  # fmt: skip


def _uptake_facts(
    header: PetHeader, acquisitions: Sequence[Acquisition], audit: dict[str, object]
) -> tuple[Problem, ...]:
    """Uptake time where it changes no number: put into the audit, with warnings instead of errors."""
    started = first_start(acquisitions) or header.clock.series
    if started is None:
        return ()
    try:
        injection = injection_time(header.clock, started)
    except ScanError as error:
        return tuple(Problem("W-" + p.code[2:], p.what, p.where, p.found, p.expected) for p in error.problems)
    uptake = (started - injection.moment).total_seconds() / 60.0
    audit |= {"uptake_min": uptake, "injection_from": injection.source}
    return (*injection.problems, *uptake_warning(uptake))


def range_warning(suv_max: float) -> tuple[Problem, ...]:
    """W-SUVRANGE where the largest SUV is below 0.5 or above 200: units or times are likely wrong."""
    if 0.5 <= suv_max <= 200.0:
        return ()
    return (Problem("W-SUVRANGE", "the largest SUV is implausible", found=f"{suv_max:.4g}", expected="0.5 to 200",
                    remedy="Check units, dose, weight and times in the SUV audit"),)
