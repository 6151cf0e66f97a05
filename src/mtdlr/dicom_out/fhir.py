"""Risk and survival as a FHIR R4 RiskAssessment."""

from __future__ import annotations

from math import isfinite
from typing import Any

from mtdlr.dicom_out.source import Source
from mtdlr.report.prediction import RESEARCH, Prediction
from mtdlr.versions import package_version

_LEVELS = "http://terminology.hl7.org/CodeSystem/risk-probability"


def risk_assessment(prediction: Prediction, source: Source, report_uid: str) -> dict[str, Any]:
    """The resource as plain values for JSON.

    Args:
        prediction: risk and survival.
        source: the examination; patient and study are named by their identifiers.
        report_uid: SOPInstanceUID of the structured report with the same numbers.
    """
    patient, endpoint = source.patient, prediction.nomogram.endpoint
    date = source.patient.StudyDate
    group = {"qualitativeRisk": {"coding": [{"system": _LEVELS, "code": prediction.group}]}} if prediction.group else {}
    return {
        "resourceType": "RiskAssessment", "status": "preliminary", "identifier": [_dicom(report_uid)],
        "subject": {"type": "Patient", "identifier": {"value": str(patient.PatientID or "unknown")}},
        **({"occurrenceDateTime": f"{date[:4]}-{date[4:6]}-{date[6:]}"} if date else {}),
        "method": {"text": "MTDLR nomogram (Gu, Meng et al., EJNMMI 2023)"},
        "performer": {"type": "Device", "display": f"mtdlr {package_version()}, model {prediction.model}"},
        "basis": [{"type": "ImagingStudy", "identifier": _dicom(str(patient.StudyInstanceUID))}],
        "prediction": [{
            "outcome": {"text": f"{endpoint}: event within {month:g} months"},
            "probabilityDecimal": 1.0 - estimate.value, **group,
            "whenRange": {"low": _months(0.0), "high": _months(month)},
            **({"rationale": f"95 % interval {1 - estimate.high:.3f} to {1 - estimate.low:.3f}"}
               if isfinite(estimate.low + estimate.high) else {}),
        } for month, estimate in prediction.survival.items()],
        "note": [{"text": RESEARCH}, {"text": f"Log-hazard of the nomogram {prediction.risk:.4f}, points "
                                              f"{prediction.points['total']:.1f}; higher is worse."},
                 *({"text": str(problem)} for problem in prediction.problems)],
    }


def _dicom(uid: str) -> dict[str, str]:
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}


def _months(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "months", "system": "http://unitsofmeasure.org", "code": "mo"}
