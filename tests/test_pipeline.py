"""The whole chain on a small synthetic study: run, resume, predict, freeze. One study is made and run for all tests."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from mtdlr.bundle import read_bundle, save_bundle
from mtdlr.errors import BundleError, CohortError, FitError, MtdlrError, Problem, TableError
from mtdlr.explain import gradients
from mtdlr.infer import Checkpoint, score
from mtdlr.pipeline import Run
from mtdlr.predict import Bundle, write_prediction
from mtdlr.prepared import Prepared, load_mask, load_mean_image
from mtdlr.stats.gain import score_gains
from mtdlr.store import run_status
from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.workers import Workers
from mtdlr.workers.progress import summary

pytestmark = pytest.mark.slow
SMALL = ("deepmts.epochs=4", "deepmts.segmentation_epochs=2", "singletask.epochs=2", "deepmts.width=0.25",
         "singletask.width=0.25", "score.folds=2", "report.thumbnails=2", "signature.repeats=2", "signature.lambdas=20",
         "prepare.size=32", "prepare.spacing_mm=5.0", "radiomics.spacing_mm=6.0",
         'nomogram.select="off"')  # scores of so few patients add nothing, and every part of the report shall be there
CANARY, BIRTHDAY = "ZZPHI^CANARY", "19410203"
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "PatientComments",
    "AccessionNumber", "ReferringPhysicianName", "InstitutionName", "InstitutionAddress", "StudyID",
    "PerformingPhysicianName", "OperatorsName", "PatientMotherBirthName", "MedicalRecordLocator", "EthnicGroup",
    "Occupation", "AdditionalPatientHistory", "PatientTelephoneNumbers", "RequestingPhysician", "SeriesDescription",
    "StudyDescription", "ProtocolName", "ImageComments")
TABLES = tuple(f"table{k}.csv" for k in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study of 54 patients, the external ones as DICOM with a canary in identifying tags and file names."""
    path = write_study(tmp_path_factory.mktemp("study"), n_training=42, n_internal=6, n_external=6, seed=4,
                       voxel_scale=1.6)
    for number, file in enumerate(sorted((path.parent / "centerB").rglob("*.dcm"))):
        dataset = pydicom.dcmread(file)
        dataset.PatientIdentityRemoved = "NO"
        for tag in IDENTIFYING:
            setattr(dataset, tag, BIRTHDAY if tag.endswith("Date") else CANARY)
        dataset.save_as(file)
        file.rename(file.with_name(f"{CANARY}_{number}.dcm"))
    return path


@pytest.fixture(scope="module", autouse=True)
def weight_seed(request: pytest.FixtureRequest) -> Iterator[None]:
    """The seed of `--weight-seed` in every run of this file: nothing here may depend on which networks came out."""
    global SMALL
    kept, SMALL = SMALL, (*SMALL, f"score.seed={request.config.getoption('--weight-seed')}")
    yield
    SMALL = kept


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The study, run to its signatures in one process and from there to its end with two workers: two workers import
    again in every stage, and that a number of workers changes no byte is shown by test_cluster."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with Run(Study.load(study_file, SMALL), folder, Workers(1)) as run:
        run.until("signature")
    with Run(Study.load(study_file, SMALL), folder, Workers(2)) as run:
        run.all()
    shutil.copytree(folder / "tables", folder.with_name("tables"))
    return run


def _command(study_file: Path, folder: Path, *more: str) -> list[str]:
    """The run at the command line."""
    settings = [part for s in (*SMALL, f"run.folder={folder}", *more) for part in ("--set", s)]
    return [sys.executable, "-m", "mtdlr", "run", str(study_file), *settings]


def _ends(group: int, seconds: float = 20.0) -> bool:
    """Whether every process of a group is gone within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
    return False


def test_a_run_leaves_everything_it_promises(finished: Run) -> None:
    """Report, tables in every format, figures, nomogram, calculator, scores and the frozen model are there."""
    for name in ("report.html", "nomogram.json", "calculator.html", "scores.csv", "masks.csv", "evaluation.json",
                 "cohort.csv", "problems.json", "bundle/bundle.json", "figures/figure2a.svg", "figures/figure3a.pdf",
                 "figures/figure4a.png"):
        assert (finished.folder / name).stat().st_size > 0, name
    for table in TABLES:
        assert (finished.folder / "tables" / table).read_text().count("\n") > 3
    page = (finished.folder / "report.html").read_text()
    words = re.sub(r"data:[^\"']*|http-equiv|http://www.w3.org", "", page)  # a picture's letters may spell anything
    assert "http" not in words, "the page must stand alone"
    links = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    assert [link for link in links if not (finished.folder / link).exists()] == [] and len(links) > 20
    assert "<h2>Where the risk comes from" in page
    assert page.index("<h2>In ten lines") < page.index("<h2>Errors and warnings") < page.index("<h2>Study flow")


def test_page_file_and_terminal_count_the_same_problems(finished: Run) -> None:
    """What only the report finds (W-OVERLAP) stands in report.html, in problems.json and in the run's last lines."""
    written = json.loads((finished.folder / "problems.json").read_text())
    assert json.loads(json.dumps([p.as_dict() for p in finished.problems])) == written
    assert any(p["code"] == "W-OVERLAP" for p in written)
    page = (finished.folder / "report.html").read_text()
    shown = Counter({code: int(times or 1) for code, times in re.findall(
        r'<span class="code(?: error)?">([EW]-\w+)</span>(?:(\d+) times)?', page.split('id="flow"')[0])})
    assert shown == Counter(p["code"] for p in written)
    values, lines = summary(finished)
    assert len(values["problems"]) == len(written)
    assert any(line.startswith(f"{sum(p['code'].startswith('W-') for p in written)} warnings") for line in lines)


def test_every_patient_is_scored_and_evaluated(finished: Run) -> None:
    """Each of the 54 patients has every score; each model is judged in each of the three cohorts; the truth leads."""
    scores = finished.score_table
    assert len(scores) == 54 and scores[["deepmts", "single_task", "manual_radio"]].notna().all().all()
    assert {split for _, split in finished.evaluations} == {"training", "internal", "external"}
    assert finished.evaluations["truth", "training"].c.value > 0.7
    told = json.loads((finished.output / "evaluation.json").read_text())["performance"]
    assert told and not [one["model"] for one in told if one["label"] == one["model"]]  # names for readers
    assert "W-FEWSTEPS" in {p.code for p in finished.problems}  # four epochs of two


def test_a_training_patient_is_scored_by_what_never_saw_it(finished: Run) -> None:
    """The kept risk of a training patient is that of the network of its fold with the head of its subfold, which is
    another one than new patients get; the heads stay in the run folder."""
    assert finished.subfolds.nunique() == 4 and (finished.subfolds % 2 == finished.folds).all()
    networks = [Checkpoint.load(folder) for folder in finished.networks["deepmts"]]
    assert [sorted(one.heads) for one in networks] == [[0, 2], [1, 3]]
    for subfold in range(4):
        i = str(finished.subfolds.index[finished.subfolds == subfold][0])
        kept = json.loads((finished.scored.folders[i] / "score.json").read_text())["risks"]["deepmts"]
        image = Prepared.load(finished.prepared.folders[i]).image
        own = networks[subfold % 2]
        assert kept[subfold % 2] == pytest.approx(score(own.without(subfold), image).risk, abs=1e-4)
        assert score(own, image).risk != score(own.without(subfold), image).risk
    assert not list((finished.folder / "bundle").rglob("held_out*"))


def test_a_second_run_does_nothing(finished: Run, study_file: Path) -> None:
    """Everything is found in the store: no job runs, and the report is the same file."""
    told: list[str] = []
    before = (finished.folder / "report.html").read_bytes()
    stamps = {p: p.stat().st_mtime_ns for p in (finished.folder / "objects").rglob("manifest.json")}
    with Run(Study.load(study_file, SMALL), finished.folder, Workers(2, progress=lambda *a: told.append(a[0]))) as run:
        run.all()
    assert told == []
    assert {p: p.stat().st_mtime_ns for p in (finished.folder / "objects").rglob("manifest.json")} == stamps
    assert (finished.folder / "report.html").read_bytes() == before


def test_a_changed_nomogram_setting_redoes_only_what_depends_on_it(finished: Run, study_file: Path) -> None:
    """Other horizons: no patient is prepared, no network trained, no feature extracted again."""
    told: list[str] = []
    kept = ("prepare", "train", "score", "radiomics", "signature")
    count = {stage: len(list((finished.folder / "objects" / stage).iterdir())) for stage in kept}
    study = Study.load(study_file, (*SMALL, "nomogram.months=[24, 48]"))
    with Run(study, finished.folder, Workers(2, progress=lambda *a: told.append(a[0]))) as run:
        run.until("model")
        assert set(run.evaluations["mtdlr", "external"].auc) == {24.0, 48.0}
    assert told == []
    assert {stage: len(list((finished.folder / "objects" / stage).iterdir())) for stage in kept} == count


def test_a_study_whose_scores_add_nothing_is_reported_as_such(finished: Run, study_file: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole report and the frozen model are there, the first lines and Table 3 say that no score has a weight, and
    a new patient's risk is that of a nomogram of the stage alone."""
    monkeypatch.setattr("mtdlr.nomogram.fit.score_gains", partial(score_gains, first=0.0))
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    with Run(Study.load(study_file, [one for one in SMALL if "nomogram.select" not in one]), folder, Workers(1)) as run:
        run.until("bundle")
        assert any(p.code == "W-NOGAIN" and p.where == "nomogram MTDLR" for p in run.problems)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "No score has a weight in the nomogram" in page and "Not in the nomogram: " in page
    model, patient = Bundle.load(folder / "bundle"), finished.included.of("external").ids[0]
    own = model.frozen.nomograms["mtdlr"]
    assert [term.name for term in own.design.terms] == ["tnm_stage"]
    found = model.predict(study_file.parent / "centerB" / patient, clinical={"tnm_stage": "IVa"})
    assert found.scores["deepmts"] == pytest.approx(finished.score_table.at[patient, "deepmts"], abs=1e-6)
    assert found.risk == pytest.approx(own.log_hazard(pd.DataFrame({"tnm_stage": ["IVa"]}))[0])


def test_only_robust_features_enter_a_signature(finished: Run, study_file: Path, tmp_path: Path) -> None:
    """With radiomics.perturbations, training patients alone are perturbed, and what changes too much takes no part."""
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    settings = (*SMALL, "radiomics.perturbations=1", "signature.min_icc=0.9")
    with Run(Study.load(study_file, settings), folder, Workers(1)) as run:
        run.until("signature")
        perturbed = {i: len(json.loads((f / "features.json").read_text())["perturbed"])
                     for i, f in run.features["manual"].folders.items()}
        assert {i for i, n in perturbed.items() if n == 1} == set(run.training.index)
        for source, (signature, _) in run.signatures.items():
            assert 0 < signature.n_candidates < finished.signatures[source][0].n_candidates


def test_predict_gives_the_runs_own_scores(finished: Run, study_file: Path) -> None:
    """A patient of the study, predicted from the files with the frozen model, gets the run's scores to 1e-6."""
    model = Bundle.load(finished.folder / "bundle")
    for patient in finished.included.of("external").ids[:2]:
        row = finished.included.table.loc[patient]
        found = model.predict(study_file.parent / "centerB" / patient, clinical={"tnm_stage": row["tnm_stage"]})
        assert found.scores["deepmts"] == pytest.approx(finished.score_table.at[patient, "deepmts"], abs=1e-6)
        assert found.scores["auto_radio"] == pytest.approx(finished.score_table.at[patient, "auto_radio"], abs=1e-9)
        assert found.risk == pytest.approx(finished.findings.risks.at[patient, "mtdlr"], abs=1e-6)
        predicted = finished.findings.predicted["mtdlr"].loc[patient]
        for month, survival in found.survival.items():
            assert survival.value == pytest.approx(predicted[month], abs=1e-6)
        kept = load_mask(finished.scored.folders[patient])
        np.testing.assert_array_equal(found.mask.array, kept.array)
        np.testing.assert_array_equal(found.mask.affine, kept.affine)


def test_predict_explains_as_the_run_does(finished: Run, study_file: Path) -> None:
    """The frozen model's explanation is the run's own, and adds up to the score less that of the mean image."""
    model, patient = Bundle.load(finished.folder / "bundle"), finished.included.of("external").ids[0]
    found = model.predict(study_file.parent / "centerB" / patient, clinical={"tnm_stage": "III"}, explain=True)
    assert found.attribution is not None
    own = json.loads((finished.results.explained[patient] / "attribution.json").read_text())
    assert found.attribution.adds == pytest.approx(own["adds"], abs=1e-5)
    mean = load_mean_image(finished.folder / "bundle")
    expected = []
    for network, scale in zip(model.networks["deepmts"], model.frozen.scales["deepmts"], strict=True):
        rise = (score(network, found.prepared.image).risk - score(network, mean).risk) / scale.sd
        sums = [float(gradients(network, found.prepared.image, mean, steps=steps).sum(dtype=np.float64)) / scale.sd
                for steps in (8, 16, 32, 64)]
        # barely trained networks may find a tumour all at once on the way; where each of these misses, the last counts
        expected.append(rise if min(abs(one - rise) for one in sums) < 0.1 else sums[-1])
    assert sum(found.attribution.adds.values()) == pytest.approx(sum(expected) / len(expected), abs=0.1)


def test_predict_wants_the_stage(finished: Run) -> None:
    """Without the stage, or with one it does not know, the model says what it needs."""
    model = Bundle.load(finished.folder / "bundle")
    for clinical in ({}, {"tnm_stage": "V"}):
        with pytest.raises(TableError, match="E-CLINICAL tnm_stage.*expected III or IVa"):
            model.predict("anywhere", clinical=clinical)


def test_the_bundle_holds_no_patient(finished: Run) -> None:
    """FAULTS 68: no id of the cohort stands in any text file of the frozen model."""
    for path in (finished.folder / "bundle").rglob("*"):
        if path.suffix in (".json", ".md", ".html"):
            text = path.read_text()
            assert not [i for i in finished.included.ids if re.search(rf"\b{i}\b", text)], path.name


def test_a_parameter_file_travels_with_the_model(finished: Run, tmp_path: Path) -> None:
    """The frozen model holds a copy of a radiomics parameter file, and no path of the machine that made it."""
    own, made, moved = (tmp_path / name for name in ("own.yaml", "made", "moved"))
    own.write_text("imageType:\n  Original: {}\n")
    made.mkdir()
    radiomics = finished.study.radiomics.model_copy(update={"profile": str(own)})
    save_bundle(replace(finished.model, study=finished.study.model_copy(update={"radiomics": radiomics})), made)
    own.unlink()
    assert str(tmp_path) not in (made.rename(moved) / "bundle.json").read_text()
    assert Path(read_bundle(moved).study.radiomics.profile).read_text() == "imageType:\n  Original: {}\n"


@pytest.mark.parametrize(("damage", "code"), [("flip", "E-BUNDLEHASH"), ("schema", "E-SCHEMA"), ("none", "E-NOBUNDLE"),
                                              ("pickle", "E-BUNDLEHASH"), ("outside", "E-BUNDLEHASH")])
def test_a_bundle_that_was_changed_is_refused(finished: Run, tmp_path: Path, damage: str, code: str) -> None:
    """FAULTS 60-65: a flipped bit, a newer schema, a foreign folder, a pickle, a path outside: refused by name."""
    folder = tmp_path / "bundle"
    shutil.copytree(finished.folder / "bundle", folder)
    header = json.loads((folder / "bundle.json").read_text())
    weights = next(folder.rglob("weights.safetensors"))
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "pickle":
        weights.write_bytes(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.")
    elif damage == "outside":
        header["files"]["../../etc/hosts"] = "0"
    elif damage == "schema":
        header["schema"] = 99
    (folder / "bundle.json").write_text("{}" if damage == "none" else json.dumps(header))
    with pytest.raises(BundleError, match=code):
        read_bundle(folder)
    assert not Path("canary").exists()


def _unpacked(path: Path) -> list[bytes]:
    """A file's bytes and what is packed in them: gzip, the members of xlsx, docx and npz, the streams of a PDF."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return [gzip.decompress(data)]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [archive.read(name) for name in archive.namelist()]
    if path.suffix == ".pdf":
        streams = re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL)
        return [data, *(zlib.decompressobj().decompress(s) for s in streams if s[:1] == b"x")]
    return [data]


def _secrets(study_file: Path) -> list[bytes]:
    """The canary, the birth date, and every identifier of every series."""
    found = {CANARY, "ZZPHI", BIRTHDAY}
    for file in (study_file.parent / "centerB").rglob("*.dcm"):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        found |= {header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID}
    return [text.encode() for text in found] + [header.SOPInstanceUID.encode()]


def test_no_output_names_the_patient(finished: Run, study_file: Path, tmp_path: Path) -> None:
    """FAULTS 66: a canary in 24 DICOM tags and in file names, birth dates and UIDs are in no file that a run or a
    prediction wrote, in its name or in what is packed in it."""
    secrets = _secrets(study_file)
    patient = study_file.parent / "centerB" / finished.included.of("external").ids[0]
    predicted = Bundle.load(finished.folder / "bundle").predict(patient, clinical={"tnm_stage": "III"}, explain=True)
    write_prediction(predicted, tmp_path / "prediction")
    assert predicted.as_dict()["attribution"]["adds"] and (tmp_path / "prediction" / "attribution.png").is_file()
    files = [p for folder in (finished.folder, tmp_path / "prediction") for p in folder.rglob("*") if p.is_file()]
    assert {".html", ".json", ".csv", ".pdf", ".png", ".jpg", ".svg", ".xlsx", ".docx", ".gz", ".npy"} <= {
        p.suffix for p in files}
    for path in files:
        assert not [s for s in secrets for data in (*_unpacked(path), path.name.encode()) if s in data], path


def _keep(study: Path, chosen: Callable[[pd.DataFrame], pd.Series]) -> int:
    """Leave only some patients in a study's clinical table and manifest; how many they are."""
    clinical = pd.read_csv(study / "clinical.csv", index_col=0)
    few = clinical.index[chosen(clinical)]
    for name in ("clinical.csv", "manifest.csv"):
        pd.read_csv(study / name, index_col=0).loc[few].to_csv(study / name)
    return len(few)


def test_no_message_names_the_patient(finished: Run, study_file: Path, tmp_path: Path) -> None:
    """FAULTS 66: check, its table and a run that leaves out a patient, the one whose files changed, say nothing
    either."""
    copy = tmp_path / "study"
    shutil.copytree(finished.folder, tmp_path / "run")
    shutil.copytree(study_file.parent, copy)
    _keep(copy, lambda table: table["event"].astype(bool) | (table.index == "B001"))
    for file in (copy / "centerB" / "B001" / "PET").iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.PatientWeight
        dataset.save_as(file)
    run = [*_command(copy / "study.toml", tmp_path / "run", "run.workers=1"), "--until", "prepare"]
    check = [*run[:3], "check", str(copy / "study.toml")]
    said = [subprocess.run(words, capture_output=True, text=True, check=False) for words in (
        [*check, "--scans", "--csv", str(tmp_path / "table.csv")], [*check, "--json"], run)]
    assert [done.returncode for done in said] == [2, 2, 1]
    text = "".join(done.stdout + done.stderr for done in said) + (tmp_path / "table.csv").read_text()
    assert "E-WEIGHT" in text and "B001" in text
    assert not [secret for secret in _secrets(study_file) if secret.decode() in text]


def test_ctrl_c_stops_at_once_and_says_how_to_go_on(study_file: Path, tmp_path: Path) -> None:
    """FAULTS 4: Ctrl-C and SIGTERM end the run within seconds, exit 130 and 143, and leave no process behind."""
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(_command(study_file, tmp_path / "run"), stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            assert process.stderr is not None and any(line.startswith("prepare") for line in process.stderr)
            process.send_signal(number)
            _, said = process.communicate(timeout=15)
        assert process.returncode == status
        assert "run the same command again to go on" in said and "Traceback" not in said
        assert _ends(process.pid), "a process was left behind"


def _again(finished: Run, tmp_path: Path, stage: str, keys: list[str]) -> Run:
    """The finished study in a copy of its folder, without some results of a stage."""
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    for key in keys:
        shutil.rmtree(folder / "objects" / stage / key)
    return Run(finished.study, folder, Workers(1))


def _raises(error: Exception) -> Callable[[object], None]:
    def job(_: object) -> None:
        raise error
    return job


def test_a_patient_that_cannot_be_scored_costs_itself_only(finished: Run, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A training patient whose scoring fails is named with the stage and left out of models and report; the others
    have their scores, and risks by nomograms that were chosen without each part."""
    patient = finished.training.index[3]
    monkeypatch.setattr("mtdlr.jobs.score", _raises(ValueError("secret name")))
    with _again(finished, tmp_path, "score", [finished.scored.keys[patient]]) as run:
        run.study = finished.study.model_copy(update={"nomogram": finished.study.nomogram.model_copy(
            update={"select": "gain"})})
        run.until("model")
        assert any(p.code == "W-NOGAIN" and p.where == "nomogram MTDLR" for p in run.problems)
        assert run.failed == {patient: "score"} and patient not in run.score_table.index
        assert len(run.score_table) == 53 and patient not in run.findings.risks.index
        said = next(str(p) for p in run.problems if p.is_error)
        assert said.startswith(f"E-INTERNAL patient {patient}: ValueError") and "secret" not in said


def test_a_picture_that_fails_does_not_cost_the_report(finished: Run, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one patient's picture and explanation the report is written, and the patient is named; tables made again
    from what is stored are the same to the byte."""
    patient = finished.judged.some_of_each(1)[0]
    monkeypatch.setattr("mtdlr.jobs.draw", _raises(MemoryError()))
    with _again(finished, tmp_path, "picture", [finished._drawn.keys[patient]]) as run:
        run.all()
        assert run.failed == {patient: "pictures"} and (run.output / "report.html").is_file()
        assert len(run.score_table) == 54
        for table in TABLES:
            assert (run.output / "tables" / table).read_bytes() == (
                finished.folder.with_name("tables") / table).read_bytes()


def test_a_machines_failure_stops_the_run_before_training(finished: Run, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory while a patient is prepared, twice: the run stops with the patient's name; no network is trained
    without the patient."""
    patient, trained = finished.training.index[0], len(list((finished.folder / "objects" / "train").iterdir()))
    monkeypatch.setattr("mtdlr.jobs.prepare", _raises(MemoryError()))
    with _again(finished, tmp_path, "prepare", [finished.prepared.keys[patient]]) as run:
        with pytest.raises(MtdlrError, match=rf"E-MEMORY patient {patient}(.|\n)*E-UNPREPARED"):
            run.until("train")
        assert len(list((run.folder / "objects" / "train").iterdir())) == trained


def test_a_training_that_fails_names_network_and_fold(finished: Run, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a training says which network of which fold."""
    monkeypatch.setattr("mtdlr.jobs.train", _raises(FitError(Problem("E-DIVERGED", "no number", where="epoch 3"))))
    with _again(finished, tmp_path, "train", [finished.networks["deepmts"][1].name]) as run, \
            pytest.raises(MtdlrError, match="E-DIVERGED network deepmts, fold 1: epoch 3"):
        run.until("train")


def test_results_of_other_code_are_said(finished: Run, tmp_path: Path) -> None:
    """FAULTS 95: a result that other source files made is used, and problems and status say so."""
    with _again(finished, tmp_path, "train", []) as run:
        key = finished.scored.keys[finished.training.index[0]]
        folder = run.folder / "objects" / "score" / key
        assert run.store.index
        run.store.index.add(f"score/{key}", folder, ["score.json", "mask.nii.gz"], "another")
        run.until("score")
        assert "W-OTHERCODE stage score: " in "".join(map(str, run.problems))
    assert run_status(run.folder)["score"] == "54 of 54; 1 made by other code"


def test_no_manifest_holds_a_path_of_this_machine(finished: Run, study_file: Path) -> None:
    """Manifests of stored results name no absolute path, so that a run folder can be handed on."""
    for path in (finished.folder / "objects").rglob("manifest.json"):
        text = path.read_text()
        assert str(study_file.parent) not in text and str(finished.folder) not in text, path


def test_a_damaged_scan_costs_its_patient_only(finished: Run, study_file: Path, tmp_path: Path) -> None:
    """A patient whose scan cannot be read is named and left out; the others are not prepared again."""
    copy = tmp_path / "study"
    told: list[tuple[str, float, int]] = []
    shutil.copytree(finished.folder, tmp_path / "run")
    shutil.copytree(study_file.parent, copy)
    n = _keep(copy, lambda table: table["event"].astype(bool) | (table.index == "A003"))
    scan = copy / "centerA" / "images" / "A003__PT.nii.gz"
    scan.write_bytes(scan.read_bytes()[: scan.stat().st_size // 2])
    with Run(Study.load(copy / "study.toml", SMALL), tmp_path / "run",
             Workers(1, progress=lambda *now: told.append(now))) as run:
        assert "A003" not in run.prepared.folders and len(run.prepared.folders) == n - 1 >= 10
        assert run.prepared.folders.items() <= {i: run.folder / f.relative_to(finished.folder)
                                                for i, f in finished.prepared.folders.items()}.items()
        assert {total for stage, _, total in told if stage == "prepare"} == {1}
        problem = next(p for p in run.prepared.problems if p.is_error)
        assert problem.where.startswith("patient A003") and "\n" not in str(problem)
        assert "A003" not in run.included.ids


def test_the_same_scan_twice_stops_the_run(study_file: Path, tmp_path: Path) -> None:
    """FAULTS 40: leakage by image content is an error before any work."""
    copy = tmp_path / "study"
    shutil.copytree(study_file.parent, copy)
    for kind in ("PT", "CT"):
        shutil.copy(copy / "centerA" / "images" / f"A001__{kind}.nii.gz",
                    copy / "centerA" / "images" / f"A002__{kind}.nii.gz")
    shutil.copy(copy / "centerA" / "labels" / "A001.nii.gz", copy / "centerA" / "labels" / "A002.nii.gz")
    with Run(Study.load(copy / "study.toml", SMALL), tmp_path / "run") as run, \
            pytest.raises(CohortError, match="E-SAMEIMAGE.*A001, A002"):
        run.until("prepare")


def test_prepared_patients_load_without_copying(finished: Run) -> None:
    """A prepared patient is mapped from disk, and its warnings name the patient."""
    patient = Prepared.load(next(iter(finished.prepared.folders.values())))
    assert patient.image.shape == (2, 32, 32, 32) and not patient.image.flags.owndata
    assert all(p.where.startswith(f"patient {patient.id}") for p in patient.problems)


def test_the_cohort_table_is_what_came_in(finished: Run, study_file: Path) -> None:
    """cohort.csv holds the clinical table as it was read, with the split of every patient."""
    given = pd.read_csv(study_file.parent / "clinical.csv", index_col=0)
    written = pd.read_csv(finished.folder / "cohort.csv", index_col=0)
    assert (written["time_months"] == given["time_months"]).all() and (written["split"] == given["split"]).all()
