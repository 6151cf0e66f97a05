"""The report of one patient as an Encapsulated PDF object."""

from __future__ import annotations

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from mtdlr.dicom_out.segmentation import MAKER
from mtdlr.dicom_out.source import UTF8, Source, uid_of
from mtdlr.versions import package_version

SERIES_NUMBER = 9103
TITLE = "mtdlr: report (research only)"
_OF_PATIENT = ("PatientID", "PatientName", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
               "PatientIdentityRemoved", "DeidentificationMethod", "AccessionNumber", "StudyID", "StudyDescription",
               "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "TimezoneOffsetFromUTC")


def document(source: Source, pdf: bytes, *, model: str, content: str) -> Dataset:
    """The PDF as a DICOM object of the examination.

    Args:
        source: the examination.
        pdf: the file's bytes.
        model: digest of the frozen model.
        content: as `segmentation`.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = UTF8
    for keyword in _OF_PATIENT:
        if keyword in source.patient:
            setattr(dataset, keyword, source.patient[keyword].value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EncapsulatedPDFStorage, uid_of(content, "pdf", len(pdf))
    dataset.SeriesInstanceUID, dataset.SeriesNumber = uid_of(content, "pdf series"), SERIES_NUMBER
    dataset.Modality, dataset.SeriesDescription, dataset.InstanceNumber = "DOC", TITLE, 1
    dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = package_version(), model
    dataset.ConversionType, dataset.BurnedInAnnotation = "WSD", "NO"
    date, time = source.date_time
    dataset.ContentDate = dataset.SeriesDate = date
    dataset.ContentTime = dataset.SeriesTime = time
    dataset.AcquisitionDateTime, dataset.DocumentTitle = "", TITLE
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.VerificationFlag = "UNVERIFIED"
    return dataset
