"""SUV from a BIDS-PET sidecar, by the same rules as from DICOM headers."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import archive
from mtdlr.imaging.suv import SuvScale, suv_scale
from mtdlr.imaging.suv_facts import HALF_LIFE_S, PetHeader
from mtdlr.imaging.suv_time import Acquisition, Clock

_BQ = {"Bq": 1.0, "kBq": 1e3, "MBq": 1e6, "GBq": 1e9}
_BQ_PER_ML = {"Bq/mL": 1.0, "Bq/ml": 1.0, "kBq/mL": 1e3, "kBq/ml": 1e3}
_ANY_DAY = datetime(2000, 1, 1, 12)  # BIDS counts seconds from TimeZero: the day does not matter
_MAX_SIDECAR_BYTES = 1 << 24
_FIELDS = {"DecayCorrectionDateTime (0018,9701)": "ImageDecayCorrectionTime",  # what the rules' sources are called here
           "RadiopharmaceuticalStartDateTime (0018,1078)": "InjectionStart"}


def sidecar_of(image: Path) -> Path | None:
    """The JSON file beside a BIDS PET image, None where there is none."""
    sidecar = image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    return sidecar if sidecar.is_file() else None


def bids_scale(sidecar: Path, *, uptake_min: float | None = None) -> SuvScale:
    """The factor (one for the volume) from the image's numbers to SUVbw, with audit and warnings.

    Args:
        sidecar: JSON of the PET image.
        uptake_min: minutes from injection to the decay reference; replaces the sidecar's.

    Raises:
        ScanError: E-SIDECAR (unreadable, or a field that is missing), and the errors of `suv_scale`.
    """
    facts = _facts(sidecar)
    units = str(facts.get("Units"))
    if units.lower() in ("g/ml", "suv", "suvbw"):
        return suv_scale(PetHeader(units="GML", suv_type="BW", corrected=_corrected(facts)), [Acquisition(None)])
    if units not in _BQ_PER_ML:
        raise _bad("Units", "Bq/mL or kBq/mL")
    scale = suv_scale(_header(facts), [_acquisition(facts)], uptake_min=uptake_min)
    audit = {key: _FIELDS.get(str(value), value) for key, value in scale.audit.items() if key.endswith("_from")}
    return SuvScale(scale.factors * _BQ_PER_ML[units], {**scale.audit, **audit, "sidecar_units": units}, scale.problems)


def _facts(sidecar: Path) -> dict[str, object]:
    for _, stream in archive.open_all([sidecar]):
        try:
            found = json.loads(stream.read(_MAX_SIDECAR_BYTES))
        except (ValueError, RecursionError):
            break
        if isinstance(found, dict):
            return found
    raise ScanError(Problem("E-SIDECAR", "the PET's JSON sidecar cannot be read", where=sidecar.name,
                            remedy="Check that it is valid JSON"))


def _bad(field: str, expected: str) -> ScanError:
    return ScanError(Problem("E-SIDECAR", "the PET's JSON sidecar lacks a fact that SUV needs", where=field,
                             expected=expected, remedy="Add the field, or store the image in SUV"))


def _number(facts: dict[str, object], field: str) -> float | None:
    """A finite number, the first of a list; None where the field is absent."""
    value = facts.get(field)
    value = value[0] if isinstance(value, list) and value else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        raise _bad(field, "a number")
    return float(value)


def _corrected(facts: dict[str, object]) -> tuple[str, ...] | None:
    """The corrections as DICOM lists them."""
    stated = facts.get("AttenuationCorrection")
    if stated is None:
        return None
    attenuation = () if str(stated).strip().lower() in ("", "none", "no", "n/a", "false") else ("ATTN",)
    return (*attenuation, "DECY") if facts.get("ImageDecayCorrected") is True else (*attenuation, "NONE")


def _header(facts: dict[str, object]) -> PetHeader:
    dose, per = _number(facts, "InjectedRadioactivity"), _BQ.get(str(facts.get("InjectedRadioactivityUnits")))
    if dose is None or per is None:
        raise _bad("InjectedRadioactivity, InjectedRadioactivityUnits", "an activity in Bq, kBq, MBq or GBq")
    if not isinstance(facts.get("ImageDecayCorrected"), bool):
        raise _bad("ImageDecayCorrected", "true or false")
    stated = str(facts.get("TracerRadionuclide") or "").upper()
    letters, digits = ("".join(c for c in stated if test(c)) for test in (str.isalpha, str.isdigit))
    nuclide = next((n for n in HALF_LIFE_S if n.upper() == f"{letters}-{digits}"), None)
    reference = _moment(facts, "ImageDecayCorrectionTime")
    return PetHeader(
        units="BQML", decay_correction="START" if facts["ImageDecayCorrected"] else "NONE", corrected=_corrected(facts),
        weight=_number(facts, "BodyWeight"), dose=dose * per, nuclide=nuclide,
        clock=Clock(decay_reference=reference, injection=_moment(facts, "InjectionStart")),
    )  # fmt: skip


def _moment(facts: dict[str, object], field: str) -> datetime | None:
    """Seconds from TimeZero as a moment of an arbitrary day."""
    seconds = _number(facts, field)
    if seconds is None:
        return None
    if abs(seconds) > 86400.0 or not math.isfinite(seconds):
        raise _bad(field, "seconds from TimeZero, within a day")
    return _ANY_DAY + timedelta(seconds=seconds)


def _acquisition(facts: dict[str, object]) -> Acquisition:
    start = _moment(facts, "FrameTimesStart") or _moment(facts, "ScanStart")
    return Acquisition(start, None, _number(facts, "FrameDuration"))
