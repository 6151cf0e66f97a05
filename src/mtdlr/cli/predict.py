"""The verb `predict`: one new patient through a frozen model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mtdlr.cli.words import Json, options_of, print_result, usage


@dataclass(frozen=True)
class Options:
    """Of `mtdlr predict`."""

    bundle: Annotated[Path, typer.Argument(help="A model folder made by `mtdlr run`.", show_default=False)]
    patient: Annotated[Path | None, typer.Argument(help="DICOM folder, zip, or a folder with NIfTI PET and CT; or "
                                                        "give --pet and --ct.", show_default=False)] = None
    pet: Annotated[Path | None, typer.Option(help="The PET: a NIfTI file, or a DICOM folder or zip.",
                                             show_default=False)] = None
    ct: Annotated[Path | None, typer.Option(help="The CT, as --pet.", show_default=False)] = None
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the result.")] = Path("prediction")
    clinical: Annotated[list[str] | None, typer.Option("--clinical", metavar="NAME=VALUE",
                                                       help="A clinical value, e.g. tnm_stage=IVa.")] = None
    series: Annotated[list[str] | None, typer.Option(help="DICOM series to take instead: UID, key or pattern of the "
                                                          "description; repeatable.")] = None
    uptake_min: Annotated[float | None, typer.Option(help="Minutes from injection to scan, where the headers lack "
                                                          "them.", min=1)] = None
    center: Annotated[str, typer.Option(help="The patient's centre, where it is one of the training centres of a model "
                                             "with harmonised features.", show_default=False)] = ""
    explain: Annotated[bool, typer.Option("--explain", help="Also show where in the images the risk came from: seconds "
                                                            "on the quick grid, minutes on the full one.")] = False
    accept: Annotated[bool, typer.Option("--accept-out-of-distribution", help="Predict a scan unlike the training "
                                         "scans too; the output records it.")] = False
    pdf: Annotated[bool, typer.Option("--pdf", help="Insist on report.pdf, which is otherwise written only where the "
                                                    "extra `docs-out` is installed.")] = False
    dicom: Annotated[bool, typer.Option("--dicom", help="Also write dicom/: segmentation, measurements and report as "
                                        "DICOM of the same examination, and a FHIR RiskAssessment. These files name "
                                        "the patient. DICOM input only; extra `dicom`.")] = False
    as_json: Json = False


@options_of(Options)
def predict(options: Options) -> None:
    """Predict one patient with a frozen model: mask, risk, survival at the horizons, nomogram points, report.html."""
    # Before torch is loaded: threads that wait for one another sleep. Spinning takes 2 to 3 times the CPU where other
    # programs run, and gains nothing where none do.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from mtdlr.predict import Bundle, one_scan, require_empty, require_one_scan, write_prediction
    from mtdlr.report.pdf import require_pdf
    from mtdlr.versions import require_extra

    scan, output = (options.patient, options.pet, options.ct), options.output
    require_one_scan(*scan)
    require_empty(output)  # before minutes of work
    if options.pdf:
        require_pdf()
    if options.dicom:
        require_extra("dicom", "--dicom")
        from mtdlr.dicom_out import read_source, write_dicom

        source = read_source(one_scan(*scan), series=options.series or ())
    prediction = Bundle.load(options.bundle).predict(
        options.patient, pet=options.pet, ct=options.ct, clinical=_pairs(options.clinical or []),
        series=options.series or (), uptake_min=options.uptake_min, explain=options.explain,
        accept_shift=options.accept, center=options.center)
    write_prediction(prediction, output)
    if options.dicom:
        page = output / "report.pdf"
        write_dicom(prediction, source, output / "dicom", pdf=page.read_bytes() if page.exists() else None)
    print_result(prediction.as_dict(), options.as_json, f"{prediction}\nwrote {output}: open report.html" + (
        "; dicom/ is for the archive and names the patient" if options.dicom else ""))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs, strict=True):
        if not (name and equals and value):
            raise usage("E-CLINICAL", "a clinical value reads NAME=VALUE", text, "e.g. --clinical tnm_stage=IVa")
    return {name: value for name, _, value in pairs}
