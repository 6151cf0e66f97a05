"""What the files of one patient said and how they were read (`Scan.audit`), in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = list[tuple[str, str]]
_STATED = (
    ("units", "Units (0054,1001)"), ("suv_type", "SUVType (0054,1006)"),
    ("decay_correction", "DecayCorrection (0054,1102)"), ("corrected_image", "CorrectedImage (0028,0051)"),
    ("weight_as_stated", "PatientWeight (0010,1030)"), ("size_as_stated", "PatientSize (0010,1020)"),
    ("sex", "PatientSex (0010,0040)"), ("dose_as_stated", "RadionuclideTotalDose (0018,1074)"),
    ("half_life_as_stated_s", "RadionuclideHalfLife (0018,1075)"), ("nuclide", "RadionuclideCodeSequence (0054,0300)"),
    ("sidecar_units", "Units in the BIDS sidecar"),
)  # fmt: skip
_USED = (
    ("units_used", "units", "{}"), ("method", "method", "{}"), ("weight_kg", "weight", "{:g} kg"),
    ("dose_mbq", "injected activity", "{:.4g} MBq"), ("half_life_min", "half-life", "{:.2f} min"),
    ("injection_from", "injection time from", "{}"), ("reference_from", "decay reference time from", "{}"),
    ("uptake_min", "uptake time", "{:.1f} min"), ("factor", "SUV of one stored unit after rescaling", "{:.6g}"),
)  # fmt: skip


def choice_of(audit: Mapping[str, Any]) -> tuple[str, ...]:
    """Why these files were read, a sentence each."""
    if audit.get("choice"):
        return tuple(str(audit["choice"]).split("; "))
    if audit.get("layout") == "files":
        return ("the files that were named were read",)
    return (f"layout {audit['layout']}: the files it names were read",) if audit.get("layout") else ()


def suv_stated(suv: Mapping[str, Any]) -> Rows:
    """What the header holds, absent tags included, where there was a header."""
    if "decay_correction" not in suv:
        return []
    return [(tag, _plain(suv[key])) for key, tag in _STATED if key in suv]


def _plain(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, float):
        return f"{value:.10g}"
    return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


def suv_used(suv: Mapping[str, Any]) -> Rows:
    """What SUV was computed from, as far as it is known."""
    known = dict(suv)
    if "dose_bq" in suv:
        known |= {"dose_mbq": suv["dose_bq"] / 1e6, "half_life_min": suv["half_life_s"] / 60.0}
    return [(label, form.format(known[key])) for key, label, form in _USED if known.get(key) is not None]


def suv_candidates(suv: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Times that decay may refer to, and what each would change: (source, seconds, percent)."""
    return [(c["source"], f"{c['seconds']:+.0f} s", f"{c['suv_change_percent']:+.2f} %")
            for c in suv.get("reference_candidates", ())]


def suv_line(suv: Mapping[str, Any]) -> str:
    """The SUV in one line: from what it was computed.

    >>> suv_line({"units_used": "BQML", "dose_bq": 2.7e8, "half_life_s": 6586.2, "weight_kg": 60, "uptake_min": 67.9})
    'BQML; injected 270 MBq, 68 min before the scan, 60 kg'
    """
    parts = [f"injected {suv['dose_bq'] / 1e6:.0f} MBq"] if suv.get("dose_bq") else []
    parts += [f"{suv['uptake_min']:.0f} min before the scan"] if suv.get("uptake_min") is not None else []
    parts += [f"{suv['weight_kg']:g} kg"] if suv.get("weight_kg") else []
    heads = [str(suv[key]) for key in ("units_used", "method") if suv.get(key)]
    return "; ".join([*heads, ", ".join(parts)] if parts else heads) or "not recorded"
