"""Vendor, model, reconstruction, kernel and year of a series: closed lists, so that no free text passes."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from mtdlr.imaging.scanner import scanner_facts


def _header(**tags: object) -> Dataset:
    ds = Dataset()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


@pytest.mark.parametrize(("stated", "vendor"), [
    ("SIEMENS", "Siemens"), ("Siemens Healthineers", "Siemens"), ("CPS", "Siemens"), ("GE MEDICAL SYSTEMS", "GE"),
    ("Philips Medical Systems", "Philips"), ("TOSHIBA", "Canon"), ("UIH", "United Imaging"), ("Dr. Doe", "other"),
])
def test_a_vendor_is_one_of_a_list(stated: str, vendor: str) -> None:
    """Every spelling of a vendor is one name; a maker that no list knows is "other"."""
    assert scanner_facts(_header(Manufacturer=stated)) == {"vendor": vendor}


@pytest.mark.parametrize(("stated", "model"), [
    ("Biograph64", "Biograph 64"), ("Biograph 64_mCT 4R TrueV", "Biograph 64 mCT 4 TrueV"), ("1080", "1080"),
    ("Discovery ST", "Discovery ST"), ("Discovery 690", "Discovery 690"), ("GEMINI TF TOF 64", "GEMINI TF 64"),
    ("uMI 780", "uMI 780"), ("ECAT HR+", "ECAT HR+"), ("Biograph Jane Doe 19540812", "Biograph"), ("Doe^Jane", ""),
    ("St. Mary's PET room 2", "St PET 2"),
])
def test_a_model_keeps_the_words_that_models_are_called_by(stated: str, model: str) -> None:
    """Words of scanners and short numbers stay; names of people and long numbers go."""
    assert scanner_facts(_header(ManufacturerModelName=stated)).get("model", "") == model


@pytest.mark.parametrize("kernel", ["B30f", "Br38", "I31f", "B19f", "STANDARD", "SOFT", "FC08", "C", "LUNG"])
def test_a_kernel_is_spelled_as_those_of_a_vendor(kernel: str) -> None:
    """Kernels of five vendors pass as they stand; anything else is "other"."""
    assert scanner_facts(_header(Modality="CT", ConvolutionKernel=kernel))["kernel"] == kernel
    assert scanner_facts(_header(Modality="CT", ConvolutionKernel=f"{kernel} J Doe"))["kernel"] == "other"


@pytest.mark.parametrize(("method", "kernel", "found"), [
    ("PSF+TOF 2i21s", "XYZ Gauss2.00", "PSF TOF 2i21s XYZ Gauss2.00"), ("OSEM3D 4i8s", "XYZDOE5.00", "OSEM3D 4i8s"),
    ("VPFX-S", "", "VPFX S"), ("BLOB-OS-TF", "", "BLOB OS TF"), ("3D IR", "", "3D IR"),
    ("OSEM Doe 3i24s", "", "OSEM 3i24s"),
])
def test_a_reconstruction_keeps_the_words_of_its_art(method: str, kernel: str, found: str) -> None:
    """Method, iterations, subsets and filter of a PET stay; other words go."""
    header = _header(Modality="PT", ReconstructionMethod=method, ConvolutionKernel=kernel)
    assert scanner_facts(header)["reconstruction"] == found


def test_a_date_is_a_year_and_a_changed_one_is_none() -> None:
    """Of a date the year is kept; dates that the file calls modified or removed, and no dates, give none."""
    assert scanner_facts(_header(SeriesDate="20140302")) == {"year": "2014"}
    assert scanner_facts(_header(StudyDate="20091231")) == {"year": "2009"}
    assert scanner_facts(_header(SeriesDate="20140302", LongitudinalTemporalInformationModified="MODIFIED")) == {}
    assert scanner_facts(_header(SeriesDate="19000101")) == {} and scanner_facts(Dataset()) == {}
