"""The scanner behind a DICOM series as closed lists know it: vendor, model, reconstruction, year.

Headers are free text, and some exports put people into them. A word that is in no list here is dropped, never repeated.
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from mtdlr.imaging.dicom_tags import text

_VENDORS = (
    ("siemens", "Siemens"), ("cps", "Siemens"), ("cti", "Siemens"), ("ge ", "GE"), ("ge", "GE"),
    ("general electric", "GE"), ("philips", "Philips"), ("adac", "Philips"), ("canon", "Canon"), ("toshiba", "Canon"),
    ("uih", "United Imaging"), ("united imaging", "United Imaging"), ("hitachi", "Hitachi"), ("shimadzu", "Shimadzu"),
    ("mediso", "Mediso"), ("neusoft", "Neusoft"), ("minfound", "MinFound"), ("sinounion", "Sinounion"),
)  # fmt: skip
"""The beginning of Manufacturer in small letters, and the vendor it stands for."""
_MODELS = frozenset("""
    ACCEL ADVANCE ALLEGRO AQUILION ASTEION AS BIG BIOGRAPH BIOGRAPHMMR BODY BORE BRIGHTSPEED BRILLIANCE CARDIAC
    CARTESION CELESTEION CT CT750 DEFINITION DISCOVERY DST DUO ECAT EDGE ELITE EMOTION EMI EVO EXACT FLASH FLOW FORCE
    GEMINI GEMINIGXL GUARDIAN GXL HD HIREZ HORIZON HR HR+ ICT INFINITY INGENIA INGENUITY IQ LARGE LEGEND LIGHTSPEED
    LS MCT MEDICAL MI MMR MX8000 NEUSIGHT NEUVIZ OMNI ONE OPEN OPTIMA PET PETCT PLUS PRECEDENCE PRIME PRISM PRO
    QUADRA REVEAL REVOLUTION RX SCENARIO SCENIA SENSATION SIGNA SOMATOM SPIRIT ST STE SYSTEM SYSTEMS TF TIME TRUE
    TRUEFLIGHT TRUEPOINT TRUEV UCT UEXPLORER UMI UPMR VCT VEREOS VISION X XL XTREAM
    """.split())
_RECONSTRUCTION = frozenset("""
    2D 3D ALL ALLPASS ASIR ATTENUATION AWOSEM BACKPROJECTION BLOB BUTTERWORTH DIFT DYNAMIC FBP FBP3DRP FORE FX GAUSS
    GAUSSIAN HANN HANNING HD HYPER ITERATIVE IR LOR METZ NON NONE OP OS OSEM OSEM2D OSEM3D OSM PASS POINT POST PSF Q
    QCFX QCHD RAMLA RAMP REGULARIZED S SHARPIR STANDARD TF TOF TRUEX ULTRAHD UW VPFX VPFXS VPHD VUE W XYZ Z
    """.split())
_STEPS = re.compile(r"\d{1,2}[IS]\d{1,2}[IS]|\d{1,2}(\.\d{1,2})?(MM)?|(GAUSS|XYZGAUSS)\d{1,2}(\.\d{1,2})?")
"""Iterations and subsets such as 4i8s; the width of a filter in mm, alone or behind its name."""
_KERNEL = re.compile(r"[ABDHIJQSTU][a-z]?\d{2}[a-z]{0,3}|FC\d{2}|[A-F]|L|SB|UB|EB|YA|YB|YC|"
                     r"STANDARD|STND|SOFT|DETAIL|BONE|BONEPLUS|LUNG|EDGE|CHEST|ULTRA|HD STND|BODY|HEAD|B_SOFT_[A-C]")
"""Kernels of Siemens (B30f, Br38, I31f), Canon (FC08), Philips (one or two letters), GE and United Imaging (words)."""
_MODIFIED = ("MODIFIED", "REMOVED")


def scanner_facts(ds: Dataset) -> dict[str, str]:
    """Vendor, model, reconstruction (of a PET), kernel (of a CT) and year of a series, those that can be told.

    Year is of the series, else of the study, and left out where the file states that its dates were changed or
    removed.

    Args:
        ds: the header of one of its files.

    >>> ds = Dataset()
    >>> ds.Manufacturer, ds.ManufacturerModelName, ds.Modality = "SIEMENS", "Biograph64 Mr. Doe", "CT"
    >>> ds.ConvolutionKernel, ds.SeriesDate = "B30f", "20140302"
    >>> scanner_facts(ds)
    {'vendor': 'Siemens', 'model': 'Biograph 64', 'kernel': 'B30f', 'year': '2014'}
    """
    found = {"vendor": _vendor(_stated(ds, "Manufacturer")), "model": _model(_stated(ds, "ManufacturerModelName"))}
    if _stated(ds, "Modality") == "PT":
        found["reconstruction"] = _reconstruction(_stated(ds, "ReconstructionMethod"), _stated(ds, "ConvolutionKernel"))
    else:
        found["kernel"] = _kernel(_stated(ds, "ConvolutionKernel"))
    found["year"] = _year(ds)
    return {name: value for name, value in found.items() if value}


def _stated(ds: Dataset, keyword: str) -> str:
    """The first value of a tag; empty where it is absent or cannot be read."""
    try:
        return text(ds, keyword) or ""
    except Exception:  # a fact that nobody needs stops no patient
        return ""


def _vendor(stated: str) -> str:
    """The vendor, "other" for one that is in no list, nothing where none is stated."""
    low = stated.lower().strip()
    return next((name for start, name in _VENDORS if low.startswith(start)), "other" if low else "")


def _model(stated: str) -> str:
    """The words and numbers of a model's name that a list knows."""
    pieces = re.findall(r"[^\W\d_]+\+?|\d+", _spaced(stated))
    return " ".join(piece for piece in pieces if piece.upper() in _MODELS or (piece.isdigit() and len(piece) <= 4))


def _spaced(stated: str) -> str:
    """The name with blanks between letters and a number that follows, unless both are one word of the list."""
    words = re.split(r"[\s_/,()-]+", stated)
    return " ".join(word if word.upper() in _MODELS else re.sub(r"(?<=[^\W\d_])(?=\d)", " ", word) for word in words)


def _reconstruction(method: str, kernel: str) -> str:
    """Method and filter of a PET, the words that a list knows."""
    words = [word for word in re.split(r"[\s_/,()+-]+", f"{method} {kernel}") if word]
    return " ".join(word for word in words if word.upper() in _RECONSTRUCTION or _STEPS.fullmatch(word.upper()))


def _kernel(stated: str) -> str:
    """The kernel of a CT if it is spelled as those of a vendor, "other" if not."""
    if not stated:
        return ""
    return stated if _KERNEL.fullmatch(stated) or _KERNEL.fullmatch(stated.upper()) else "other"


def _year(ds: Dataset) -> str:
    if _stated(ds, "LongitudinalTemporalInformationModified").upper() in _MODIFIED:
        return ""
    dates = (_stated(ds, name) for name in ("SeriesDate", "StudyDate"))
    return next((date[:4] for date in dates if re.fullmatch(r"(19[89]|20\d)\d(0[1-9]|1[0-2])\d{2}", date)), "")
