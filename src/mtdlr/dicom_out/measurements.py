"""Uptake, risk and survival as a DICOM Structured Report (TID 1500, Measurement Report)."""

from __future__ import annotations

from math import isfinite

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from mtdlr.dicom_out.segmentation import CATEGORY, FAMILY, KIND, MAKER, REGION
from mtdlr.dicom_out.source import UTF8, Source, uid_of
from mtdlr.report.prediction import Prediction
from mtdlr.versions import package_version

SERIES_NUMBER = 9102
SCHEME = "99MTDLR"
_PET_CT = Code("443271005", "SCT", "PET/CT FDG imaging of whole body")
_DEVICE, _MEANING = Code("121007", "DCM", "Device"), Code("121050", "DCM", "Equivalent Meaning of Concept Name")
_COMMENT = Code("121106", "DCM", "Comment")
_ML, _GRAM, _ONE = Code("ml", "UCUM", "milliliter"), Code("g", "UCUM", "gram"), Code("1", "UCUM", "no units")
_SUV, _SUV_UNIT = Code("126401", "DCM", "SUVbw"), Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")
_ACTIVE = Code("SUV25", SCHEME, "Voxels of the segment at SUVbw 2.5 or above")
_UPTAKE = {
    "suv_max": (_SUV, _SUV_UNIT, Code("56851009", "SCT", "Maximum"), None),
    "suv_mean": (_SUV, _SUV_UNIT, Code("373098007", "SCT", "Mean"), None),
    "suv_peak": (_SUV, _SUV_UNIT, Code("126031", "DCM", "Peak Value Within ROI"), None),
    "mtv_ml_2_5": (Code("126032", "DCM", "Metabolic Volume"), _ML, None, _ACTIVE),
    "tlg_g_2_5": (Code("126033", "DCM", "Total Lesion Glycolysis"), _GRAM, None, _ACTIVE),
}
"""Concept, unit, derivation and method of each PET parameter of `pet_parameters`."""
_RISK = Code("RISK", SCHEME, "Log-hazard of the MTDLR nomogram")
_POINTS = Code("POINTS", SCHEME, "Total points of the MTDLR nomogram")
_GROUP = Code("GROUP", SCHEME, "Risk group")


def measurement_report(prediction: Prediction, source: Source, tumour: Dataset, *, content: str) -> Dataset:
    """The SR object.

    Args:
        prediction: volume, uptake, risk and survival; what is not defined is left out.
        source: the examination.
        tumour: the SEG object of the predicted tumour.
        content: as `segmentation`.
    """
    device = hd.sr.ObserverContext(hd.sr.CodedConcept.from_code(_DEVICE), hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", prediction.model), name=MAKER, manufacturer_name=MAKER, model_name=MAKER,
        serial_number=prediction.model))
    algorithm = hd.sr.AlgorithmIdentification(MAKER, package_version(), [f"model={prediction.model}"], FAMILY, MAKER)
    report = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer_device_context=device), _PET_CT,
        [_region(source, tumour, algorithm, prediction, content), _prognosis(prediction, algorithm, content)])
    date, time = source.date_time
    dataset = hd.sr.Comprehensive3DSR(
        [*source.ct, *source.pet, tumour], report[0], uid_of(content, "sr series"), SERIES_NUMBER,
        uid_of(content, "sr"), 1, manufacturer=MAKER, is_complete=True,
        series_description="mtdlr: measurements, risk and survival (research only)", specific_character_set=UTF8,
        manufacturer_model_name=MAKER, software_versions=package_version(), device_serial_number=prediction.model,
        content_date=date, content_time=time, series_date=date, series_time=time, coding_schemes=[
            hd.coding_schemes.CodingSchemeIdentificationItem(SCHEME, "mtdlr", package_version(),
                                                 responsible_organization="The mtdlr developers")])
    return dataset


def survival_code(endpoint: str, month: float, part: str = "") -> Code:
    """The private code of survival at a horizon; `part` is "", "LOW" or "HIGH" (ends of the 95 % interval).

    >>> survival_code("PFS", 60, "LOW").value
    'SURV60LOW'
    """
    end = {"": "", "LOW": ", lower 95 % limit", "HIGH": ", upper 95 % limit"}[part]
    return Code(f"SURV{month:g}{part}"[:16], SCHEME, f"{endpoint} beyond {month:g} months{end}"[:64])


def _region(source: Source, tumour: Dataset, algorithm: hd.sr.AlgorithmIdentification,
            prediction: Prediction, content: str) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411: what was measured in the predicted tumour."""
    found = [hd.sr.Measurement(Code("118565006", "SCT", "Volume"), prediction.mask_ml, _ML)]
    for name, (concept, unit, derivation, method) in _UPTAKE.items():
        value = prediction.uptake.get(name, float("nan"))
        if isfinite(value):
            found.append(hd.sr.Measurement(concept, value, unit, derivation=derivation, method=method))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(uid_of(content, "tumour"), "predicted tumour"),
        referenced_segment=hd.sr.ReferencedSegment(
            tumour.SOPClassUID, tumour.SOPInstanceUID, 1,
            source_series=hd.sr.SourceSeriesForSegmentation(source.ct[0].SeriesInstanceUID)),
        finding_type=KIND, finding_category=CATEGORY, finding_sites=[hd.sr.FindingSite(REGION)],
        algorithm_id=algorithm, measurements=found)


def _prognosis(prediction: Prediction, algorithm: hd.sr.AlgorithmIdentification,
               content: str) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: risk, points, survival with intervals, group, and what was noticed."""
    endpoint = prediction.nomogram.endpoint
    numbers = [
        _defined(_RISK, prediction.risk, "Natural logarithm of the hazard relative to a patient with every number at 0 "
                                         "and every factor at its reference (X beta of the model); higher is worse"),
        _defined(_POINTS, prediction.points["total"], "Sum of the points of all factors of the nomogram; higher is "
                                                      "worse")]
    for month, estimate in prediction.survival.items():
        chance = f"Probability (0 to 1) of {endpoint}: no event within {month:g} months after the start of follow-up"
        numbers += [_defined(survival_code(endpoint, month, part), value, chance + end) for part, value, end in (
            ("", estimate.value, ""), ("LOW", estimate.low, "; lower limit of the 95 % confidence interval"),
            ("HIGH", estimate.high, "; upper limit of the 95 % confidence interval")) if isfinite(value)]
    group = [hd.sr.QualitativeEvaluation(_GROUP, Code(prediction.group.upper(), SCHEME, f"{prediction.group} risk"))]
    found = hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(uid_of(content, "prognosis"), "prognosis, for research only"),
        finding_type=Code("PROGNOSIS", SCHEME, "Prognosis by the MTDLR nomogram; for research only"),
        algorithm_id=algorithm, measurements=numbers, qualitative_evaluations=group if prediction.group else None)
    found[0].ContentSequence.extend(
        hd.sr.TextContentItem(_COMMENT, str(problem), hd.sr.RelationshipTypeValues.CONTAINS)
        for problem in prediction.problems)
    return found


def _defined(concept: Code, value: float, definition: str) -> hd.sr.Measurement:
    """A number under a private code, with what the code means beside it."""
    measured = hd.sr.Measurement(concept, value, _ONE)
    meaning = hd.sr.TextContentItem(_MEANING, definition, hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD)
    held = measured[0].get("ContentSequence")
    measured[0].ContentSequence = hd.sr.ContentSequence([*(held or ()), meaning])
    return measured
