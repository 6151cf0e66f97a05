"""A frozen model on another centre's cohort: the run's own numbers, refusals, leakage, no follow-up, an update."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mtdlr.bundle import read_bundle
from mtdlr.cli.validate import check_for
from mtdlr.errors import CohortError, ScanError
from mtdlr.model import FrozenModel
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build, save_network, weights_of
from mtdlr.pipeline import Run
from mtdlr.predict import Bundle
from mtdlr.prepared import load_bottlenecks
from mtdlr.shift.network import network_groups
from mtdlr.study import Study
from mtdlr.synthetic import write_study
from mtdlr.validate.run import validate_cohort
from mtdlr.validate.write import write_validation
from mtdlr.workers import Workers

pytestmark = pytest.mark.slow
SMALL = ("preset=quick", "score.folds=2", "signature.repeats=1", "signature.lambdas=12", "signature.folds=3",
         "prepare.size=32", "prepare.spacing_mm=5.0", "radiomics.spacing_mm=8.0", "radiomics.profile=ibsi",
         "report.pages=false", "singletask.network=csn-only")


def _networks(folder: Path) -> dict[str, list[Path]]:
    """Untrained networks: what is tested is what is done with their risks."""
    torch.manual_seed(3)
    found: dict[str, list[Path]] = {"deepmts": [], "csn-only": []}
    for fold in (0, 1):
        for name, config in (("deepmts", DeepmtsConfig(width=0.25)), ("csn-only", SingletaskConfig(width=0.25))):
            place = folder / name / f"{name}-{fold}"
            place.mkdir(parents=True)
            save_network(weights_of(build(config).eval()), config, place, {})
            found[name].append(place)
    return found


def _write(study_file: Path, name: str, table: pd.DataFrame) -> Study:
    """The study of some rows of the clinical table."""
    path = study_file.parent / f"{name}.csv"
    table.to_csv(path, index=False)
    return Study.load(study_file, [f"cohort.table={path}", *SMALL])


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study of 22 training and 8 external patients, half of them with the event."""
    path = write_study(tmp_path_factory.mktemp("study"), n_training=22, n_internal=0, n_external=8, seed=4,
                       voxel_scale=2.0)
    table = pd.read_csv(path.parent / "clinical.csv", dtype=str)
    table["event"] = (np.arange(len(table)) % 2).astype(str)
    table.to_csv(path.parent / "clinical.csv", index=False)
    return path


@pytest.fixture(scope="module")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The study, run to its frozen model with untrained networks."""
    folder = tmp_path_factory.mktemp("runs")
    with Run(Study.load(study_file, SMALL), folder / "run", Workers(1)) as run:
        run.__dict__["networks"] = _networks(folder)
        assert run.findings.evaluations and run.bundle.is_dir()
    return run


@pytest.fixture(scope="module")
def model(finished: Run) -> FrozenModel:
    """The model as a second centre receives it."""
    return read_bundle(finished.bundle)


def _external(study_file: Path) -> pd.DataFrame:
    table = pd.read_csv(study_file.parent / "clinical.csv", dtype=str)
    return table[table["split"] == "external"]


def test_on_the_runs_own_external_cohort_it_gives_the_runs_numbers(
    finished: Run, model: FrozenModel, study_file: Path, tmp_path: Path
) -> None:
    """Scores, risks and every evaluation of the external cohort are those of the run, also on shuffled rows."""
    rows = _external(study_file).sample(frac=1, random_state=1)
    found = validate_cohort(model, _write(study_file, "shuffled", rows), tmp_path, accept=True, workers=Workers(1))
    ids = list(rows["patient_id"])
    pd.testing.assert_frame_equal(found.scores.loc[ids, ["deepmts", "single_task", "auto_radio"]],
                                  finished.score_table.loc[ids, ["deepmts", "single_task", "auto_radio"]], rtol=1e-9)
    assert found.findings is not None and all("scores" in found.shifts[i].percentiles for i in ids)
    for key, mine in found.findings.evaluations.items():
        theirs = finished.evaluations[key]
        assert (mine.n, mine.n_events) == (theirs.n, theirs.n_events)
        assert mine.concordance is not None and theirs.concordance is not None
        assert mine.concordance.c.value == pytest.approx(theirs.concordance.c.value, abs=1e-9)
        for month, judged in mine.calibration.items():
            assert judged.predicted == pytest.approx(theirs.calibration[month].predicted, abs=1e-9)
    write_validation(found, tmp_path / "out")
    for name in ("report.html", "evaluation.json", "scores.csv", "shift.json", "tables/table1.csv"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert numbers["patients"] == 8 and numbers["model"] == model.digest


def test_a_harmonised_model_gives_the_runs_numbers_and_says_what_was_done(
    finished: Run, study_file: Path, tmp_path: Path
) -> None:
    """With signature.harmonise = "combat" the external scores are the run's, the table names policy and number, and one
    patient of that centre is predicted as measured, with a warning."""
    combat = (*SMALL, "signature.harmonise=combat", "signature.harmonise_patients=8")
    with Run(Study.load(study_file, combat), finished.folder, Workers(1)) as run:
        run.__dict__["networks"] = finished.networks
        bundle, theirs = run.bundle, run.score_table
        assert "W-TRANSDUCTIVE" in {p.code for p in run.problems}
    model = read_bundle(bundle)
    kept = model.signatures["auto"].harmonisation
    assert kept is not None and set(kept.combat.batches) == {"A"} == set(model.harmonised_centers)
    rows = _external(study_file)
    found = validate_cohort(model, _write(study_file, "again", rows), tmp_path, accept=True, workers=Workers(1))
    ids = list(rows["patient_id"])
    np.testing.assert_allclose(found.scores.loc[ids, "auto_radio"], theirs.loc[ids, "auto_radio"], rtol=1e-9)
    assert [(one.center, one.policy, one.n) for one in found.harmonised["auto"]] == [("B", "transductive", 8)]
    assert [p.code for p in found.problems if "HARMONISED" in p.code or p.code == "W-TRANSDUCTIVE"]
    write_validation(found, tmp_path / "out")
    done = json.loads((tmp_path / "out" / "evaluation.json").read_text())["harmonisation"]
    assert {"quantity": "Features of the predicted mask, centre B", "policy": "transductive", "n": "8"}.items() <= next(
        row for row in done if "predicted" in row["quantity"]).items()
    one = rows.iloc[0]
    alone = Bundle(model).predict(study_file.parent / "centerB" / one["patient_id"], accept_shift=True, center="B",
                                  clinical={"tnm_stage": one["tnm_stage"]})
    assert "W-NOTHARMONISED" in {p.code for p in alone.problems}


def test_what_the_networks_see_can_refuse(finished: Run, model: FrozenModel, study_file: Path, tmp_path: Path) -> None:
    """A patient whose bottlenecks lie far outside is refused by `validate` and `predict`, after scoring, by name; where
    it is accepted the percentile and a warning stay."""
    rows = _external(study_file).head(3)
    kept = {i: load_bottlenecks(finished.scored.folders[i]) for i in rows["patient_id"]}
    assert {one.shape for one in kept.values() if one is not None} == {(2, 32)} and model.aggregates is not None
    rng = np.random.default_rng(0)
    elsewhere = {f"P{i}": (rng.normal(size=(2, 32)) * 1e-3 + 9.0).astype(np.float32) for i in range(60)}
    strict = replace(model.aggregates.reference, groups=network_groups(elsewhere, {f"P{i}": i % 2 for i in range(60)}))
    other = replace(model, aggregates=replace(model.aggregates, reference=strict))
    with pytest.raises(CohortError, match="E-SHIFT") as caught:
        validate_cohort(other, _write(study_file, "seen", rows), tmp_path / "a", workers=Workers(1))
    assert caught.value.problems[-1].code == "E-NOPATIENTS"
    found = validate_cohort(other, _write(study_file, "seen", rows), tmp_path / "b", accept=True, workers=Workers(1))
    assert all(one.percentiles["network"] > 0.999 and not one.refused for one in found.shifts.values())
    assert "what the networks see" in " ".join(str(p) for p in found.problems if p.code == "W-SHIFT")
    scan = study_file.parent / "centerB" / rows["patient_id"].iloc[0]
    with pytest.raises(ScanError, match="what the networks see"):
        Bundle(other).predict(scan, clinical={"tnm_stage": rows["tnm_stage"].iloc[0]})


def test_patients_of_training_are_refused(model: FrozenModel, study_file: Path, tmp_path: Path) -> None:
    """A patient whose scan was in training is left out with E-TRAINED; a cohort of such patients ends with an error."""
    table = pd.read_csv(study_file.parent / "clinical.csv", dtype=str)
    mixed = pd.concat([table[table["split"] == "training"].head(1), _external(study_file)])
    found = validate_cohort(model, _write(study_file, "mixed", mixed), tmp_path, accept=True, workers=Workers(1))
    assert [p.patients for p in found.problems if p.code == "E-TRAINED"] == [(mixed["patient_id"].iloc[0],)]
    assert len(found.cohort) == 8
    with pytest.raises(CohortError, match="E-TRAINED"):
        validate_cohort(model, _write(study_file, "known", mixed.head(1)), tmp_path, workers=Workers(1))


def test_without_follow_up_there_are_scores_alone(model: FrozenModel, study_file: Path, tmp_path: Path) -> None:
    """A table without time and event gives risks, distances and refusals, and no performance."""
    rows = _external(study_file).drop(columns=["time_months", "event"]).head(2)
    found = validate_cohort(model, _write(study_file, "unfollowed", rows), tmp_path, accept=True, workers=Workers(1))
    assert not found.followed and found.main is None and found.findings is None
    assert found.risks["mtdlr"].notna().all() and set(found.shifts) == set(rows["patient_id"])
    write_validation(found, tmp_path / "out")
    assert "no follow-up" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("columns", [[], ["time_months", "event"], ["tnm_stage"]])
def test_check_asks_what_validation_needs(finished: Run, study_file: Path, columns: list[str]) -> None:
    """`check --for` asks for the model's covariates, not for follow-up, events or a training cohort."""
    path = study_file.parent / "asked.csv"
    _external(study_file).drop(columns=columns).to_csv(path, index=False)
    checked = check_for(finished.bundle, study_file, [f"cohort.table={path}", *SMALL], Workers(1))
    codes = {p.code for p in checked.problems if p.is_error}
    assert codes == ({"E-COLUMN"} if columns == ["tnm_stage"] else set()) and checked.is_fine == (not codes)


def test_a_bundle_keeps_aggregates_and_no_row(finished: Run, model: FrozenModel) -> None:
    """Reference distributions, margins and salted hashes are in the bundle; no id of a training patient is."""
    assert model.aggregates is not None and model.aggregates.reference.n == 22
    assert len(model.aggregates.images) == 44
    features = model.signatures["auto"].features
    kept = model.aggregates.reference.groups
    assert kept["scores"].n == 22 and ("features" in kept) == bool(features)
    assert not features or kept["features"].names == features
    text = "".join(p.read_text() for p in finished.bundle.glob("*.json"))
    assert not [i for i in finished.training.index if f'"{i}"' in text]


def test_predict_says_how_far_a_scan_lies_outside(finished: Run, model: FrozenModel, study_file: Path) -> None:
    """One patient from DICOM has the run's risk, a distance from the training scans, and a lower bound or none."""
    row = _external(study_file).iloc[0]
    found = Bundle(model).predict(study_file.parent / "centerB" / row["patient_id"], accept_shift=True,
                                  clinical={"tnm_stage": row["tnm_stage"]})
    assert found.risk == pytest.approx(finished.findings.risks.at[row["patient_id"], "mtdlr"], abs=1e-6)
    assert found.shift is not None and {"uptake", "anatomy", "together", "scores"} <= set(found.shift.percentiles)
    assert json.dumps(found.as_dict()["shift"])
