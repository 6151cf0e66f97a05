"""A prediction as DICOM, in new series of the examination that it was made from, and as a FHIR resource."""

from mtdlr.dicom_out.source import Source, read_source
from mtdlr.dicom_out.write import write_dicom

__all__ = ["Source", "read_source", "write_dicom"]
