"""Layouts: which patients lie in a folder, however they are arranged."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import imaging_series as series
import numpy as np
import pytest

from mtdlr.errors import ScanError
from mtdlr.imaging import nifti
from mtdlr.imaging.layout import ScanSet, content_hash, discover, given_files, with_series
from mtdlr.imaging.reading import inspect_scan, read_scan
from mtdlr.volume import Volume

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def image(path: Path, seed: int = 1, low: float = 0.0, high: float = 9.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).uniform(low, high, (6, 5, 4)).astype(np.float32)
    nifti.write(path, Volume.on_grid(array, (3.0, 2.0, 2.0)))
    return path


def ct(path: Path) -> Path:
    return image(path, 2, -1000.0, 1000.0)


def mask(path: Path) -> Path:
    array = np.zeros((6, 5, 4), np.uint8)
    array[1:4, 1:4, 1:4] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, Volume.on_grid(array, (3.0, 2.0, 2.0)))
    return path


def summary(found: tuple[ScanSet, ...]) -> dict[str, tuple[str, bool]]:
    return {s.patient_id: (s.kind, s.mask is not None) for s in found}


def codes(scan: ScanSet) -> set[str]:
    return {p.code for p in scan.problems}


def test_hecktor_2022(tmp_path: Path) -> None:
    """imagesTr/<ID>__PT, <ID>__CT and labelsTr/<ID>: every patient, with planning CT and dose left out."""
    for name in ("CHUM-001", "MDA-020"):
        image(tmp_path / "imagesTr" / f"{name}__PT.nii.gz")
        ct(tmp_path / "imagesTr" / f"{name}__CT.nii.gz")
    image(tmp_path / "imagesTr" / "CHUM-001__dosimetry_CT.nii.gz")
    mask(tmp_path / "labelsTr" / "CHUM_001.nii.gz")
    found = discover(tmp_path)
    assert summary(found) == {"CHUM-001": ("hecktor", True), "MDA-020": ("hecktor", False)}
    assert read_scan(found[0]).mask is not None


def test_hecktor_2025(tmp_path: Path) -> None:
    """One folder a patient inside each task's folder: the same images in two tasks are read once, others refused."""
    for task in ("Task 1", "Task 2"):
        for name in ("CHUM-001", "CHUM-002"):
            seed = 7 if name == "CHUM-001" else int(task[-1])
            image(tmp_path / task / name / f"{name}__PT.nii.gz", seed=seed)
            ct(tmp_path / task / name / f"{name}__CT.nii.gz")
    image(tmp_path / "Task 2" / "CHUM-001" / "CHUM-001__RTDOSE.nii.gz")
    mask(tmp_path / "Task 1" / "CHUM-001" / "CHUM-001.nii.gz")
    same, other = discover(tmp_path)
    assert same.mask is not None and codes(same) == {"W-COPIES"}
    assert codes(other) == {"E-DUPLICATEID"}


def test_patient_folders(tmp_path: Path) -> None:
    """<ID>/{PET_image,CT_image,CT_mask,PET_mask}: the CT's mask is taken, or the one whose name is asked for."""
    folder = tmp_path / "images" / "P1"
    image(folder / "PET_image.nii.gz")
    ct(folder / "CT_image.nii.gz")
    for name in ("CT_mask", "PET_mask", "nodes"):
        mask(folder / f"{name}.nii.gz")
    (scan,) = discover(tmp_path / "images")
    assert (scan.patient_id, scan.kind, scan.mask.name) == ("P1", "patient-folders", "CT_mask.nii.gz")
    assert discover(tmp_path, mask_pattern="NOD*")[0].mask.name == "nodes.nii.gz"


def test_real_patient_folders() -> None:
    """All 36 real sarcoma patients are found and read without a doubt."""
    folder = SHARED / "sts" / "images"
    if not folder.exists():
        pytest.skip("the real images (../shared/data/sts) are not here")
    found = discover(folder)
    assert len(found) == 36 and not any(s.problems for s in found)
    assert all(inspect_scan(s) == () for s in found)
    assert read_scan(found[0]).mask is not None


def write_bids(root: Path, units: str, **facts: object) -> None:
    image(root / "sub-01" / "ses-1" / "pet" / "sub-01_ses-1_trc-FDG_pet.nii.gz")
    ct(root / "sub-01" / "ses-1" / "ct" / "sub-01_ses-1_ct.nii.gz")
    mask(root / "derivatives" / "manual" / "sub-01" / "sub-01_desc-tumour_mask.nii.gz")
    sidecar = {
        "Units": units, "TracerName": "FDG", "TracerRadionuclide": "F18", "InjectedRadioactivity": 370,
        "InjectedRadioactivityUnits": "MBq", "BodyWeight": 70, "TimeZero": "10:00:00", "InjectionStart": 0,
        "ScanStart": 3600, "FrameTimesStart": [3600], "FrameDuration": [600], "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 3600, "AttenuationCorrection": "measured", **facts,
    }  # fmt: skip
    path = root / "sub-01" / "ses-1" / "pet" / "sub-01_ses-1_trc-FDG_pet.json"
    path.write_text(json.dumps({k: v for k, v in sidecar.items() if v is not None}))


def test_bids(tmp_path: Path) -> None:
    """BIDS-PET: images by suffix, a mask from the derivatives, and SUV from the sidecar's dose, weight and times."""
    write_bids(tmp_path, "kBq/mL")
    (scan,) = discover(tmp_path)
    assert (scan.patient_id, scan.kind) == ("sub-01", "bids") and scan.mask is not None
    activity, _ = nifti.read(scan.pet)
    read = read_scan(scan)
    np.testing.assert_allclose(read.pet.array, activity.array * 1000 * series.activity_factor(60.0), rtol=1e-5)
    suv = read.audit["pet"]["suv"]
    assert suv["uptake_min"] == pytest.approx(60.0)
    assert (suv["injection_from"], suv["reference_from"]) == ("InjectionStart", "ImageDecayCorrectionTime")


@pytest.mark.parametrize(("facts", "code"), [
    ({"BodyWeight": None}, "E-WEIGHT"), ({"InjectedRadioactivity": None}, "E-SIDECAR"),
    ({"InjectedRadioactivityUnits": "mCi"}, "E-SIDECAR"), ({"ImageDecayCorrected": None}, "E-SIDECAR"),
    ({"InjectionStart": None}, "E-NOINJECTION"), ({"TracerRadionuclide": None}, "E-HALFLIFE"),
    ({"AttenuationCorrection": "none"}, "E-NAC"), ({"Units": "counts"}, "E-SIDECAR"),
    ({"InjectionStart": "soon"}, "E-SIDECAR"), ({"InjectionStart": 1e9}, "E-SIDECAR"),
    ({"InjectionStart": 7200}, "E-NEGUPTAKE"),
])  # fmt: skip
def test_bids_sidecar_that_is_not_enough(tmp_path: Path, facts: dict[str, object], code: str) -> None:
    """A sidecar without a fact that SUV needs stops with an error that names it."""
    write_bids(tmp_path, "Bq/mL", **facts)
    (scan,) = discover(tmp_path)
    with pytest.raises(ScanError) as caught:
        read_scan(scan)
    assert caught.value.code == code
    assert [p.code for p in inspect_scan(scan)] == [code]


def test_bids_sidecar_in_suv_or_broken(tmp_path: Path) -> None:
    """A sidecar in g/mL leaves the image as it is; one that is no JSON is E-SIDECAR."""
    write_bids(tmp_path, "g/mL")
    (scan,) = discover(tmp_path)
    np.testing.assert_array_equal(read_scan(scan).pet.array, nifti.read(scan.pet)[0].array)
    next(tmp_path.rglob("*.json")).write_text("[1, 2")
    with pytest.raises(ScanError) as caught:
        read_scan(scan)
    assert caught.value.code == "E-SIDECAR"


def test_bids_with_two_sessions(tmp_path: Path) -> None:
    """Two PET images of one subject are E-SERIESTIE: which one is meant must be said in a manifest."""
    write_bids(tmp_path, "g/mL")
    image(tmp_path / "sub-01" / "ses-2" / "pet" / "sub-01_ses-2_pet.nii.gz")
    assert "E-SERIESTIE" in codes(discover(tmp_path)[0])


def write_manifest(folder: Path, *rows: str, header: str = "patient_id,pet,ct,mask") -> Path:
    (folder / "manifest.csv").write_text("\n".join([header, *rows]), encoding="utf-8-sig")
    return folder


def test_manifest(tmp_path: Path) -> None:
    """A manifest describes any layout: NIfTI files, DICOM folders and zips, relative to itself, in any mixture."""
    image(tmp_path / "x" / "suv.nii.gz"), ct(tmp_path / "y.nii.gz"), mask(tmp_path / "m.nii.gz")
    series.write_pet(tmp_path / "d" / "all", 12)
    series.write_ct(tmp_path / "d" / "all", 12)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as packed:
        for path in (tmp_path / "d" / "all").iterdir():
            packed.write(path, path.name)
    write_manifest(tmp_path, "A, x/suv.nii.gz ,y.nii.gz,m.nii.gz", "B,d,d,", "C,d.zip,d.zip,")
    found = discover(tmp_path)
    assert summary(found) == {"A": ("manifest", True), "B": ("manifest", False), "C": ("manifest", False)}
    scans = [read_scan(s) for s in found]
    np.testing.assert_array_equal(scans[1].pet.array, scans[2].pet.array)
    assert content_hash(found[1]) == content_hash(found[2])
    assert summary(discover(tmp_path / "manifest.csv")) == summary(found)


def test_manifest_with_faults(tmp_path: Path) -> None:
    """Missing files, empty cells and repeated ids are told with their line; the other patients are read."""
    image(tmp_path / "p.nii.gz"), ct(tmp_path / "c.nii.gz")
    write_manifest(tmp_path, "A,p.nii.gz,c.nii.gz,", "B,gone.nii.gz,c.nii.gz,", "C,,c.nii.gz,", ",p.nii.gz,c.nii.gz,",
                   "D,p.nii.gz,c.nii.gz,", "D,p.nii.gz,c.nii.gz,gone.nii.gz")
    found = {(s.patient_id, n): codes(s) for n, s in enumerate(discover(tmp_path))}
    assert found == {
        ("A", 0): set(), ("B", 1): {"E-NOFILE"}, ("C", 2): {"E-MANIFEST"}, ("D", 3): {"E-DUPLICATEID"},
        ("D", 4): {"E-DUPLICATEID", "E-NOFILE"}, ("line 5", 5): {"E-MANIFEST"},
    }  # fmt: skip
    assert "line 3" in str(discover(tmp_path)[1].problems[0])


def test_manifest_cells_that_no_path_can_be(tmp_path: Path) -> None:
    """A name longer than any system's and an empty folder cost their own row, by its line; the others are read."""
    image(tmp_path / "p.nii.gz"), ct(tmp_path / "c.nii.gz")
    (tmp_path / "empty").mkdir()
    write_manifest(tmp_path, f"A,{'x' * 300},c.nii.gz,", "B,empty,c.nii.gz,", "C,p.nii.gz,c.nii.gz,")
    first, second, third = discover(tmp_path)
    assert codes(first) == {"E-NOFILE"} and "line 2" in str(first.problems[0]) and codes(third) == set()
    assert any(p.is_error for p in (*second.problems, *inspect_scan(second)))


@pytest.mark.parametrize("content", [b"", b"id,pet,ct\n1,a,b\n", b"\xff\xfe\x00bad", b"patient_id,pet\nA,b\n"])
def test_unusable_manifest(tmp_path: Path, content: bytes) -> None:
    """A manifest without the columns, or that is no text, is E-MANIFEST."""
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(ScanError) as caught:
        discover(tmp_path)
    assert caught.value.code == "E-MANIFEST"


def test_mixed_folder(tmp_path: Path) -> None:
    """NIfTI and DICOM patients, and a zip of a patient, lie side by side."""
    image(tmp_path / "N1" / "PET_image.nii.gz"), ct(tmp_path / "N1" / "CT_image.nii.gz")
    series.write_pet(tmp_path / "D1", 12), series.write_ct(tmp_path / "D1", 12)
    with zipfile.ZipFile(tmp_path / "Z1.zip", "w") as packed:
        for path in (tmp_path / "D1").iterdir():
            packed.write(path, f"deep/{path.name}")
    assert summary(discover(tmp_path)) == {"D1": ("dicom", False), "N1": ("patient-folders", False),
                                           "Z1": ("dicom", False)}


def test_zip_of_nifti(tmp_path: Path) -> None:
    """A zip of NIfTI files is read without being unpacked."""
    plain = image(tmp_path / "src" / "A__PT.nii.gz"), ct(tmp_path / "src" / "A__CT.nii.gz")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for path in plain:
            packed.write(path, f"images/{path.name}")
    (scan,) = discover(tmp_path / "all.zip")
    np.testing.assert_array_equal(read_scan(scan).pet.array, nifti.read(plain[0])[0].array)
    assert inspect_scan(scan) == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.zip", "src"]


def test_zip_written_by_windows(tmp_path: Path) -> None:
    """Windows' own zips name their members with backslashes: their folders are folders all the same."""
    for name in ("P1", "P2"):
        image(tmp_path / "src" / name / "PET_image.nii.gz"), ct(tmp_path / "src" / name / "CT_image.nii.gz")
    for joint in ("/", "\\"):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
            for path in sorted((tmp_path / "src").rglob("*.nii.gz")):
                packed.write(path, joint.join(path.relative_to(tmp_path / "src").parts))
        found = discover(tmp_path / "all.zip")
        assert summary(found) == {"P1": ("patient-folders", False), "P2": ("patient-folders", False)}
        assert inspect_scan(found[0]) == () and read_scan(found[0]).ct.shape == (6, 5, 4)


def test_single_patient_folder(tmp_path: Path) -> None:
    """A folder whose subfolders hold one patient's PET and CT apart is that patient."""
    series.write_pet(tmp_path / "case" / "a", 12), series.write_ct(tmp_path / "case" / "b", 12)
    (scan,) = discover(tmp_path / "case")
    assert scan.patient_id == "case" and not scan.problems[1:]


def test_papers_beside_the_scans_are_no_patient(tmp_path: Path) -> None:
    """A folder of papers inside one patient's, or beside patients, is nobody unless it is asked for."""
    series.write_pet(tmp_path / "case" / "a", 12), series.write_ct(tmp_path / "case" / "b", 12)
    (tmp_path / "case" / "papers").mkdir()
    (tmp_path / "case" / "papers" / "letter.pdf").write_bytes(b"%PDF")
    assert [s.patient_id for s in discover(tmp_path / "case")] == ["case"]
    (tmp_path / "papers").mkdir()
    assert [s.patient_id for s in discover(tmp_path)] == ["case"]
    assert [s.patient_id for s in discover(tmp_path, empty=True)] == ["case", "papers"]


def test_patient_without_ct_among_others(tmp_path: Path) -> None:
    """In a cohort of DICOM folders a patient without CT keeps its folder's name and is E-NOCT."""
    for name in ("P1", "P2"):
        series.write_pet(tmp_path / name, 12, PatientID=name)
    series.write_ct(tmp_path / "P1", 12, PatientID="P1")
    assert {s.patient_id: "E-NOCT" in codes(s) for s in discover(tmp_path)} == {"P1": False, "P2": True}


def test_given_files(tmp_path: Path) -> None:
    """PET and CT given one by one may be files or folders; what is missing is said."""
    series.write_pet(tmp_path / "pet", 12), series.write_ct(tmp_path / "ct", 12)
    scan = given_files("x", tmp_path / "pet", tmp_path / "ct")
    assert read_scan(scan).pet.shape == (12, 9, 7)
    assert "E-NOFILE" in codes(given_files("x", tmp_path / "pet", tmp_path / "gone"))
    swapped = given_files("x", tmp_path / "ct", tmp_path / "pet")
    assert swapped.pet is None and swapped.ct is None
    with pytest.raises(ScanError):
        read_scan(swapped)


def test_folders_in_a_scan_set_are_searched(tmp_path: Path) -> None:
    """A scan set whose PET and CT are folders is read like one that discover made."""
    series.write_pet(tmp_path / "pet", 12), series.write_ct(tmp_path / "ct", 12)
    scan = ScanSet("x", tmp_path / "pet", tmp_path / "ct", None, "files")
    assert read_scan(scan).ct.shape == (12, 9, 7)
    assert not [p for p in inspect_scan(scan) if p.is_error]


def test_choosing_again(tmp_path: Path) -> None:
    """with_series changes the files, their hash and the problems, and leaves NIfTI patients alone."""
    series.write_pet(tmp_path / "a", 12), series.write_ct(tmp_path / "b", 12)
    series.write_pet(tmp_path / "c", 12, SeriesInstanceUID="1.2.3.70", SeriesDescription="late", PatientWeight="71")
    (tied,) = discover(tmp_path)
    assert "E-SERIESTIE" in codes(tied) and tied.pet is None
    late = with_series(tied, ["late"])
    assert "E-SERIESTIE" not in codes(late) and late.pet is not None
    assert content_hash(late) != content_hash(with_series(tied, ["PT WB"]))
    plain = given_files("n", image(tmp_path / "n.nii.gz"), ct(tmp_path / "n2.nii.gz"))
    assert with_series(plain, ["late"]) == plain


def test_nothing_there(tmp_path: Path) -> None:
    """An empty folder is E-LAYOUT with the way out, a missing one E-NOFILE, an unknown layout E-LAYOUT."""
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(ScanError, match=r"manifest\.csv") as caught:
        discover(tmp_path)
    assert caught.value.code == "E-LAYOUT"
    for folder, layout, code in ((tmp_path / "gone", "auto", "E-NOFILE"), (tmp_path, "tiff", "E-LAYOUT")):
        with pytest.raises(ScanError) as caught:
            discover(folder, layout=layout)
        assert caught.value.code == code


def test_forced_layout(tmp_path: Path) -> None:
    """A forced layout looks for nothing else."""
    image(tmp_path / "N1" / "PET_image.nii.gz"), ct(tmp_path / "N1" / "CT_image.nii.gz")
    image(tmp_path / "H__PT.nii.gz"), ct(tmp_path / "H__CT.nii.gz")
    assert set(summary(discover(tmp_path))) == {"H", "N1"}
    assert set(summary(discover(tmp_path, layout="hecktor"))) == {"H"}
    assert set(summary(discover(tmp_path, layout="patient-folders"))) == {"N1"}


# --- hostile zips ----------------------------------------------------------------------------------------------------


def code_of(path: Path) -> str:
    with pytest.raises(ScanError) as caught:
        for scan in discover(path):
            read_scan(scan)
    return caught.value.code


def test_zip_that_is_none(tmp_path: Path) -> None:
    """A file that only bears the name of a zip is E-ZIP."""
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 nonsense")
    assert code_of(tmp_path / "a.zip") == "E-ZIP"


@pytest.mark.slow
def test_zip_bomb(tmp_path: Path) -> None:
    """A member that expands a thousandfold is E-ZIP, without being expanded."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.dcm", bytes(1 << 26))
    assert code_of(tmp_path / "a.zip") == "E-ZIP"


def test_zip_whose_members_together_are_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten members, each within bounds, that together expand too far are E-ZIP before any of them is read."""
    monkeypatch.setattr("mtdlr.imaging.archive._SMALL_BYTES", 60_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        for k in range(10):
            bomb.writestr(f"{k}.dcm", b"\0" * 60_000)
    with pytest.raises(ScanError, match="E-ZIP.*members that expand too far"):
        discover(tmp_path / "bomb.zip")


def test_zip_slip(tmp_path: Path) -> None:
    """Members that point out of the archive are not files of it."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name in ("../evil__PT.nii.gz", "/etc/evil__PT.nii.gz", "C:\\evil__PT.nii.gz", "a/../../evil__PT.nii.gz"):
            packed.writestr(name, "x")
    assert code_of(tmp_path / "a.zip") == "E-LAYOUT"


def test_damaged_member(tmp_path: Path) -> None:
    """A member whose content does not match its CRC is E-ZIP."""
    source = image(tmp_path / "A__PT.nii.gz"), ct(tmp_path / "A__CT.nii.gz")
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in source:
            packed.write(path, path.name)
    data = bytearray(archive.read_bytes())
    data[200] ^= 0xFF
    archive.write_bytes(data)
    assert code_of(archive) == "E-ZIP"


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    """A link to a file outside the folder is not followed."""
    image(tmp_path / "outside" / "A__PT.nii.gz"), ct(tmp_path / "outside" / "A__CT.nii.gz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "A__PT.nii.gz").symlink_to(tmp_path / "outside" / "A__PT.nii.gz")
    assert code_of(tmp_path / "in") == "E-LAYOUT"
