"""The quality-control page of a patient: what was seen, what was read, and nothing that names anybody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread

from mtdlr.cohort import Cohort
from mtdlr.imaging import grid, nifti
from mtdlr.imaging.layout import discover
from mtdlr.prepare import Prepared, prepare, read_patient
from mtdlr.prepared import PatientScore
from mtdlr.report.figures import quality_figure, save
from mtdlr.report.masks import mask_table
from mtdlr.report.patients import Page, geometry_of, pages_of, write_pages
from mtdlr.report.pictures import draw_attribution, draw_patient, page_name, write_patients
from mtdlr.report.results import Results
from mtdlr.report.write import _template
from mtdlr.study import PrepareSettings, Study
from mtdlr.synthetic import SyntheticPatient, make_patient
from mtdlr.synthetic.dicom_writer import write_dicom_patient
from mtdlr.volume import Volume

SETTINGS = PrepareSettings(size=32, spacing_mm=4.0)
CANARY, BIRTHDAY = "ZZPHI^CANARY", "19410203"
PLAIN, ODD = "P001", "../a <b>"


@pytest.fixture(scope="module")
def patient() -> SyntheticPatient:
    return make_patient(center="B", voxel_scale=2.0, seed=8)


@pytest.fixture(scope="module")
def results(patient: SyntheticPatient, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A study of two: DICOM with a dose in MBq and a canary in its tags, and NIfTI under an id that is no file name."""
    folder = tmp_path_factory.mktemp("study")
    write_dicom_patient(folder / "export" / PLAIN, patient, contour="seg", seed=3)
    for path in (folder / "export").rglob("*.dcm"):
        ds = dcmread(path)
        ds.PatientName, ds.PatientBirthDate, ds.AccessionNumber = CANARY, BIRTHDAY, CANARY
        if ds.Modality == "PT":
            tracer = ds.RadiopharmaceuticalInformationSequence[0]
            tracer.RadionuclideTotalDose = float(tracer.RadionuclideTotalDose) / 1e6
        ds.save_as(path)
    nifti.write(folder / "A__PT.nii.gz", patient.pet), nifti.write(folder / "A__CT.nii.gz", patient.ct)
    scans = {PLAIN: discover(folder / "export")[0], ODD: discover(folder, layout="hecktor")[0]}
    for number, (name, scan) in enumerate(scans.items()):
        made = prepare(read_patient(scan, SETTINGS), SETTINGS, patient_id=name)
        made.save(folder / f"prepared{number}")
        agreement = {"dice": 0.8, "hausdorff95_mm": 4.0, "volume_ml": 12.0, "reference_ml": 10.0}
        (folder / f"scored{number}").mkdir()
        PatientScore({}, grid.mask_onto(patient.manual_mask, made.region), agreement if made.mask is not None else {},
                     ()).save(folder / f"scored{number}")
    table = pd.DataFrame({"split": ["training", "external"], "center": ["A", "all"], "event": [True, False],
                          "time_months": [12.0, 60.0]}, index=[PLAIN, ODD])
    findings = SimpleNamespace(risks={"mtdlr": pd.Series([0.5, -1.0], index=[PLAIN, ODD])})
    pictures = {name: folder / f"picture{n}" for n, name in enumerate(scans)}
    for number, drawn in enumerate(pictures.values()):
        drawn.mkdir()
        draw_patient(folder / f"prepared{number}", folder / f"scored{number}", drawn / "picture.jpg")
    pet = pd.DataFrame({"suv_max": [9.0, np.nan], "tlg_g_2_5": [40.0, np.nan]}, index=[PLAIN, ODD])
    (folder / "explained").mkdir()
    (folder / "explained" / "attribution.json").write_text(json.dumps({
        "share": {f"{c} {p}": 1 / 6 for c in ("pet", "ct") for p in ("tumour", "near", "elsewhere")},
        "adds": {f"{c} {p}": 0.5 for c in ("pet", "ct") for p in ("tumour", "near", "elsewhere")},
        "outside": 2 / 3, "tumour_volume": 0.02}))
    draw_attribution(made, made.region, np.zeros((2, 32, 32, 32), np.float32), folder / "explained" / "attribution.jpg")
    return SimpleNamespace(study=Study(), cohort=Cohort(table, scans), findings=findings,  # type: ignore[return-value]
                           pictures=pictures, explained={PLAIN: folder / "explained"},
                           pet_parameters={"manual": pet, "auto": pet * 1.1},
                           prepared={name: folder / f"prepared{n}" for n, name in enumerate(scans)},
                           scored={name: folder / f"scored{n}" for n, name in enumerate(scans)})


@pytest.fixture(scope="module")
def written(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "patients"
    write_patients(results, folder)
    write_pages(pages_of(results, mask_table(results)), _template("patient"), folder, "A study")
    return folder


def page(results: Results, name: str) -> Page:
    return next(p for p in pages_of(results, mask_table(results)) if p.id == name)


@pytest.mark.slow
def test_each_patient_has_a_page_and_a_picture(written: Path) -> None:
    """Two files a patient and a third of the explained one, together below 250 kB a patient; every link and picture of
    a page is there."""
    names = sorted(p.name for p in written.iterdir())
    assert names == sorted([f"{page_name(i)}{suffix}" for i in (PLAIN, ODD) for suffix in (".html", ".jpg")]
                           + [f"{PLAIN}-risk.jpg"])
    assert sum(p.stat().st_size for p in written.iterdir()) < 2 * 250_000
    for file in written.glob("*.html"):
        links = set(re.findall(r'(?:href|src)="([^"#]+)', file.read_text())) - {"../report.html"}
        assert links and all((written / link).exists() for link in links), links


@pytest.mark.slow
def test_the_page_tells_the_whole_audit(written: Path, results: Results) -> None:
    """Tags as stated, facts as used, every candidate for the reference time, the choice of series, the warning."""
    text = (written / f"{PLAIN}.html").read_text()
    used = dict(page(results, PLAIN).used)
    assert used["units"] == "BQML" and used["injected activity"].endswith("MBq") and used["half-life"] == "109.77 min"
    for told in ("RadionuclideTotalDose (0018,1074)", "series time (used)", "+0.00 %", "attenuation corrected",
                 "in the PET&#39;s frame of reference", "W-DOSEMBQ", "Dice 0.80", "event at 12 months", "centre A"):
        assert told in text, told


@pytest.mark.slow
def test_geometry_is_told_in_words(results: Results) -> None:
    """Grids, distance and angle of PET and CT, trust in the region, and the mask: each with its unit."""
    groups = dict(page(results, PLAIN).geometry)
    assert dict(groups["Grids"])["angle between the grids"] == "0.00 degrees"
    assert "mm: (" in dict(groups["PET against CT"])["PET and CT lie apart"]
    assert "sure from 0.50" in dict(groups["Region of the networks"])["confidence"]
    assert dict(groups["Uptake and manual mask"])["share of it in the region"] == "100.0%"
    assert "manual mask on its own grid" in dict(groups["Uptake and manual mask"])  # the table's is the network grid's
    assert geometry_of({}) == []


@pytest.mark.slow
def test_masks_and_risk_are_told_where_they_are_known(results: Results) -> None:
    """Volume and SUV parameters of both masks with their difference, and the shares of the risk; else nothing."""
    shown, odd = page(results, PLAIN), page(results, ODD)
    assert shown.masks == [("Volume on the network grid (ml)", "12.00", "10.00", "+20.0"),
                           ("SUVmax (g/ml)", "9.90", "9.00", "+10.0"),
                           ("TLG, SUV 2.5 and above (g)", "44.00", "40.00", "+10.0")]
    assert shown.shares[1] == ("within 10 mm of it", "16.7%", "16.7%", "+0.50", "+0.50")
    assert (odd.masks, odd.shares) == ([], [])


@pytest.mark.slow
def test_a_patient_without_mask_or_header_has_a_page(written: Path, results: Results) -> None:
    """NIfTI says that its SUV is as given; an id that is markup and a path is shown as text and stays in the folder."""
    shown = page(results, ODD)
    assert shown.dice == "no manual mask" and shown.suv == [] and dict(shown.used) == {"units": "SUVbw as given"}
    text = (written / f"{page_name(ODD)}.html").read_text()
    assert "<b>" not in text and "../a &lt;b&gt;" in text


@pytest.mark.slow
def test_an_older_run_without_audit_has_pages(results: Results, tmp_path: Path) -> None:
    """Facts stored before audits were kept give a page that says so."""
    folder = tmp_path / "old"
    Prepared.load(results.prepared[PLAIN]).save(folder)
    header = json.loads((folder / "facts.json").read_text())
    header.pop("audit")
    (folder / "facts.json").write_text(json.dumps(header))
    for flat in folder.glob("projection_*.npy"):
        flat.unlink()
    old = SimpleNamespace(**vars(results) | {"prepared": dict(results.prepared) | {PLAIN: folder}})
    draw_patient(folder, results.scored[PLAIN], tmp_path / f"{PLAIN}.jpg")
    write_pages(pages_of(old, mask_table(results)), _template("patient"), tmp_path, "t")  # type: ignore[arg-type]
    assert "kept no audit" in (tmp_path / f"{PLAIN}.html").read_text()


@pytest.mark.slow
def test_nobody_is_named(written: Path, results: Results) -> None:
    """FAULTS 66: no page, picture (its metadata included) or prepared file holds a name, birth date or UID."""
    slices = dcmread(next(iter(results.cohort.scans[PLAIN].pet)), stop_before_pixels=True)  # type: ignore[arg-type]
    secrets = [text.encode() for text in (CANARY, "ZZPHI", BIRTHDAY, slices.StudyInstanceUID, slices.SeriesInstanceUID,
                                          slices.PatientID, slices.SOPInstanceUID, slices.FrameOfReferenceUID)]
    files = [p for folder in (written, *results.prepared.values()) for p in folder.iterdir()]
    assert len(files) > 12
    for path in files:
        assert not [secret for secret in secrets if secret in path.read_bytes()], path


def test_the_whole_body_is_shown_with_the_region(tmp_path: Path, patient: SyntheticPatient) -> None:
    """The projections keep the whole height of a whole-body PET; region and contour lie where the tumour is."""
    body = np.pad(patient.pet.array, ((100, 0), (20, 20), (20, 20)))
    affine = patient.pet.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ (100, 20, 20)
    coronal, sagittal = (Volume(body.max(axis=axis, keepdims=True), affine) for axis in (1, 2))
    center = grid.mask_center_mm(patient.manual_mask)
    region = grid.cube(center, size=32, spacing_mm=4.0)
    figure = quality_figure(patient.pet, patient.ct, (coronal, sagittal), {"manual": patient.manual_mask}, region)
    save(figure, tmp_path / "a.jpg", dpi=60)
    for axes, across in zip(figure.axes[:2], (0, 1), strict=True):
        low, high = axes.get_ylim()
        assert high - low == pytest.approx(body.shape[0] * affine[2, 0])
        assert axes.get_xlim()[1] - axes.get_xlim()[0] < body.shape[1] * affine[1, 1]
        *outlines, box = axes.lines
        assert np.mean(box.get_xdata()[:4]) == pytest.approx(center[across], abs=0.1)
        assert np.mean(box.get_ydata()[:4]) == pytest.approx(center[2], abs=0.1)
        middle = np.nanmean(np.concatenate([line.get_xydata() for line in outlines]), axis=0)
        assert np.abs(middle - (center[across], center[2])).max() < 15.0
