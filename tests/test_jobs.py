"""What runs in a worker process: each job's folder holds what its stage gives, is made once, and refuses damage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mtdlr import jobs
from mtdlr.errors import MtdlrError, StoreError
from mtdlr.imaging import grid, nifti
from mtdlr.imaging.layout import given_files
from mtdlr.infer import load_networks, score_patient
from mtdlr.model import Scale
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build, save_network, weights_of
from mtdlr.prepared import Prepared, load_mask, load_mean_image
from mtdlr.radiomics.extract import patient_features
from mtdlr.shift import DESCRIPTION
from mtdlr.store import TRAINING, Recipe, Store, open_store
from mtdlr.study import (
    PrepareSettings,
    RadiomicsSettings,
    RunSettings,
    ScoreSettings,
    SignatureSettings,
    SingletaskSettings,
)
from mtdlr.volume import Volume

RUN, SCORE = RunSettings(threads=1, device="cpu"), ScoreSettings(mask_threshold=0.01)
RADIOMICS = RadiomicsSettings(profile="ibsi", spacing_mm=6.0)
REGION = grid.cube((0.0, 0.0, 0.0), size=32, spacing_mm=4.0)


def patient(number: int) -> Prepared:
    """A ball of uptake in a head of soft tissue, on the networks' grid and on grids of its own."""
    rng = np.random.default_rng(number)
    far = np.linalg.norm(np.stack(np.mgrid[:32, :32, :32]) - 15.5, axis=0)
    ball = far < 4.0 + number % 3
    pet = np.where(ball, 8.0, 1.0) + rng.normal(0.0, 0.2, ball.shape)
    ct = np.where(far < 14.0, 40.0, -1000.0) + rng.normal(0.0, 5.0, ball.shape)
    image = np.stack([pet / 10.0, (ct + 1000.0) / 1200.0]).clip(0.0, 1.0).astype(np.float32)
    return Prepared(f"P{number}", image, REGION.affine, ball, Volume(pet.astype(np.float32), REGION.affine),
                    Volume(ct.astype(np.float32), REGION.affine), Volume(ball, REGION.affine),
                    {"suv_max": float(pet.max())})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with open_store(tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def prepared(store: Store) -> dict[str, Path]:
    """Four prepared patients in the store."""
    return {one.id: store.make(Recipe("prepare", {"id": one.id}), one.save) for one in map(patient, range(4))}


@pytest.fixture
def networks(store: Store) -> jobs.Networks:
    """An untrained DeepMTS of two folds and a single-task network of one, in the store."""
    def checkpoint(config: DeepmtsConfig | SingletaskConfig, seed: int) -> Path:
        torch.manual_seed(seed)
        model = build(config).eval()
        return store.make(Recipe("train", {"seed": seed}), lambda folder: save_network(
            weights_of(model), config, folder, {}))

    deep = tuple(checkpoint(DeepmtsConfig(width=0.25), seed) for seed in (1, 2))
    return ("deepmts", deep), ("csn-only", (checkpoint(SingletaskConfig(width=0.25), 3),))


def scoring(store: Store, place: Path, networks: jobs.Networks, fold: int | None) -> jobs.ScorePatient:
    return jobs.ScorePatient(store, Recipe("score", {"fold": fold}, {"prepared": place.name}), place, fold, networks,
                             SCORE, RUN)


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_prepared_patient_comes_with_its_description(store: Store, tmp_path: Path) -> None:
    """Two NIfTI images become a prepared patient on the network grid and the numbers that describe it."""
    one = patient(0)
    for name, volume in (("pet", one.pet_suv), ("ct", one.ct_hu), ("mask", one.manual_mask)):
        assert volume is not None
        nifti.write(tmp_path / f"{name}.nii.gz", Volume(volume.array.astype(np.float32), volume.affine))
    scan = given_files("P0", *(tmp_path / f"{name}.nii.gz" for name in ("pet", "ct", "mask")))
    settings = PrepareSettings(size=32, spacing_mm=4.0, pet_units="suv", roi="center", alignment="off")
    job = jobs.Prepare(store, Recipe("prepare", {}), "P0", scan, settings)
    found = Prepared.load(folder := jobs.prepare(job))
    assert found.id == "P0" and found.image.shape == (2, 32, 32, 32)
    assert found.mask is not None and found.mask.sum() * 0.064 == pytest.approx(
        one.mask.sum() * 0.064, rel=0.1)  # type: ignore[union-attr]
    assert set(json.loads((folder / DESCRIPTION).read_text())) == {"numbers", "physical", "images", "labels"}
    assert jobs.prepare(job) == folder


@pytest.mark.slow
def test_a_score_is_the_networks_own(store: Store, prepared: dict[str, Path], networks: jobs.Networks) -> None:
    """Risks and mask in the folder are those of `score_patient`; a second call makes nothing."""
    job = scoring(store, prepared["P1"], networks, None)
    folder = jobs.score(job)
    expected = score_patient(patient(1), load_networks({name: list(places) for name, places in networks}), None, SCORE)
    risks = json.loads((folder / "score.json").read_text())["risks"]
    assert risks.keys() >= {"deepmts", "csn-only"} and len(risks["deepmts"]) == 2
    for name, values in expected.risks.items():
        assert risks[name] == pytest.approx(list(values), abs=1e-5)
    np.testing.assert_array_equal(load_mask(folder).array, expected.mask.array)
    made = (folder / "score.json").stat().st_mtime_ns
    assert jobs.score(job) == folder and (folder / "score.json").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_training_patients_mask_is_of_the_network_that_never_saw_it(store: Store, prepared: dict[str, Path],
                                                                      networks: jobs.Networks) -> None:
    """Of fold 0 the mask is that of network 0 alone; outside training it is that of both."""
    (_, (first, _)), single = networks
    masks = {name: load_mask(jobs.score(scoring(store, prepared["P2"], some, fold))).array for name, some, fold in (
        ("of fold 0", networks, 0), ("alone", (("deepmts", (first,)), single), None))}
    np.testing.assert_array_equal(masks["of fold 0"], masks["alone"])


@pytest.mark.parametrize("what", ["image", "weights"])
def test_damage_in_what_a_score_rests_on_is_no_score(store: Store, prepared: dict[str, Path], networks: jobs.Networks,
                                                     what: str) -> None:
    """A flipped bit in the prepared image or in a network's weights ends in E-CORRUPT, and nothing is stored."""
    jobs._loaded.cache_clear()
    damage(prepared["P0"] / "image.npy" if what == "image" else networks[0][1][0] / "weights.safetensors")
    job = scoring(store, prepared["P0"], networks, None)
    with pytest.raises(StoreError) as caught:
        jobs.score(job)
    assert caught.value.code == "E-CORRUPT" and store.find(job.recipe) is None


def extraction(store: Store, prepared: Path, scored: Path | None, again: int = 0) -> jobs.Extract:
    inputs = {"prepared": prepared.name, "mask": scored.name if scored else ""}
    return jobs.Extract(store, Recipe("radiomics", {"again": again}, inputs), prepared, scored, RADIOMICS, again)


def test_features_are_those_inside_the_mask(store: Store, prepared: dict[str, Path]) -> None:
    """The manual mask's features, PET parameters and warnings lie in the folder; nothing is perturbed unasked."""
    folder = jobs.extract(extraction(store, prepared["P1"], None))
    kept, one = json.loads((folder / "features.json").read_text()), patient(1)
    expected, problems = patient_features(one, one.manual_mask, RADIOMICS)
    assert kept["features"] == pytest.approx(expected, nan_ok=True) and kept["perturbed"] == []
    assert kept["pet_parameters"] and json.loads((folder / "problems.json").read_text()) == {
        "problems": [p.as_dict() for p in problems]}


def test_perturbed_features_vary(store: Store, prepared: dict[str, Path]) -> None:
    """Two perturbations are two other feature sets, of the same features."""
    folder = jobs.extract(extraction(store, prepared["P0"], None, again=2))
    kept = json.loads((folder / "features.json").read_text())
    assert len(kept["perturbed"]) == 2 and kept["perturbed"][0] != kept["perturbed"][1]
    assert kept["perturbed"][0].keys() == kept["features"].keys()


@pytest.fixture
def cohort() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Features, follow-up and folds of 60 patients; the first feature is the risk."""
    rng = np.random.default_rng(5)
    ids = [f"{k:03d}" for k in range(60)]  # ids that look like numbers
    names = [f"PET_original_firstorder_F{k}" for k in range(6)]
    features = pd.DataFrame(rng.normal(size=(60, 6)), index=ids, columns=names)
    months = rng.exponential(30.0 * np.exp(-1.2 * features.iloc[:, 0].to_numpy()))
    table = pd.DataFrame({"time_months": np.ceil(np.minimum(months, 60.0)) + 1.0, "event": months < 60.0,
                          "center": "A", "split": "training"}, index=ids)
    return features, table, pd.Series(np.arange(60) % 2, index=ids)


def test_a_stored_signature_is_read_back_whole(store: Store, cohort: tuple[pd.DataFrame, pd.DataFrame, pd.Series]
                                               ) -> None:
    """Signature and out-of-fold scores come back with every bit, the ids as text; the risk's feature is selected."""
    features, table, folds = cohort
    settings = SignatureSettings(repeats=1, folds=3, lambdas=10)
    job = jobs.FitSignature(store, Recipe("signature", {}), features, table, folds, settings)
    signature, scores = jobs.load_signature(folder := jobs.fit_signature(job))
    assert list(scores.index) == list(features.index) and scores.notna().all()
    assert "PET_original_firstorder_F0" in signature.features
    assert signature.coef[signature.features.index("PET_original_firstorder_F0")] > 0
    (folder / "training_scores.csv").rename(folder / "moved.csv")
    scores.rename("score").to_csv(folder / "training_scores.csv", index_label="patient_id")
    assert (folder / "training_scores.csv").read_bytes() == (folder / "moved.csv").read_bytes()


def test_the_mean_image_is_the_mean(store: Store, prepared: dict[str, Path]) -> None:
    """The mean image of the patients is their mean, voxel by voxel."""
    folder = jobs.average(store, Recipe("mean", {}), list(prepared.values()))
    expected = np.mean([patient(k).image for k in range(4)], axis=0)
    np.testing.assert_allclose(load_mean_image(folder), expected, atol=1e-6)


def _stored(prepared: dict[str, Path]) -> Any:
    return SimpleNamespace(folders=prepared, keys={i: folder.name for i, folder in prepared.items()})


@pytest.mark.slow
def test_a_patient_is_drawn_and_explained(store: Store, prepared: dict[str, Path], networks: jobs.Networks) -> None:
    """The picture is a JPEG; the explanation's parts add up, and its picture lies beside it."""
    scored = {"P0": jobs.score(scoring(store, prepared["P0"], networks, None))}
    picture = jobs.draw(jobs.drawing(store, _stored(prepared), _stored(scored), "P0"))
    (path,) = [path for path in picture.iterdir() if path.suffix == ".jpg"]
    with Image.open(path) as image:
        assert min(image.size) > 200
    mean = jobs.average(store, recipe := Recipe("mean", {}), list(prepared.values()))
    job = jobs.explaining(store, (_stored(prepared), _stored(scored)), "P0", fold=None,
                          deep=(networks[:1], (Scale(0.0, 1.0), Scale(0.1, 2.0))), mean=(recipe.key, mean), run=RUN)
    assert job.recipe.inputs == {"prepared": prepared["P0"].name, "mask": scored["P0"].name, "mean": recipe.key}
    found = json.loads((jobs.explain(job) / "attribution.json").read_text())
    assert sum(found["share"].values()) == pytest.approx(1.0) and found["share"].keys() == found["adds"].keys()


def test_other_scales_are_another_explanation(store: Store, prepared: dict[str, Path], tmp_path: Path) -> None:
    """The recipe of an explanation names the scales of the risks: with others it is made again."""
    stored = (_stored(prepared), _stored(prepared))
    keys = {jobs.explaining(store, stored, "P0", fold=None, deep=((), (Scale(0.0, sd),)), mean=("m", tmp_path),
                            run=RUN).recipe.key for sd in (1.0, 2.0)}
    assert len(keys) == 2


def _training(store: Store, prepared: dict[str, Path]) -> jobs.Train:
    cases = [(i, folder, 10.0 + 5 * k, k % 2 == 0, "A", None) for k, (i, folder) in enumerate(prepared.items())]
    settings = SingletaskSettings(width=0.25, epochs=1, batch_size=2, steps_per_epoch=1)
    return jobs.Train(store, Recipe("train", {}, {}, True), "csn-only", cases, settings, 1, RUN, fold=3)


def test_a_training_that_cannot_begin_names_its_place(store: Store, prepared: dict[str, Path]) -> None:
    """Network and fold are named as people read them; a training patient that was damaged stops it."""
    job = _training(store, prepared)
    assert job.place == "network csn-only, fold 3"
    damage(prepared["P3"] / "image.npy")
    with pytest.raises(MtdlrError, match="E-CORRUPT"):
        jobs.train(job)
    assert store.find(job.recipe) is None


def test_a_training_tells_how_far_it_is(store: Store, prepared: dict[str, Path], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Every two seconds the share and the last epoch's figures are written, in words; more often they are not."""
    now = [10.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    tell = jobs._teller(_training(store, prepared), tmp_path)
    row = {"dice_loss": 0.25, "survival_loss": 1.5, "val_c_index": 0.625}
    progress: Any = SimpleNamespace(epoch=1, epochs=4, step=1, steps=2, row=row)
    tell(progress)
    told = json.loads((tmp_path / TRAINING).read_text())
    assert told["share"] == pytest.approx(1.5 / 4)
    assert told["words"] == "network csn-only, fold 3: epoch 2 of 4, Dice loss 0.250, survival loss 1.500, C 0.625"
    now[0] = 11.9
    tell(SimpleNamespace(**{**vars(progress), "epoch": 3}))  # type: ignore[arg-type]
    assert json.loads((tmp_path / TRAINING).read_text()) == told
    now[0] = 12.0
    tell(SimpleNamespace(**{**vars(progress), "epoch": 4, "row": None}))  # type: ignore[arg-type]
    assert json.loads((tmp_path / TRAINING).read_text()) == {
        "share": 1.0, "words": "network csn-only, fold 3: epoch 4 of 4"}


def test_the_bundle_knows_its_c(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen model is saved with the C-index of its cohorts among its facts, and the model given is not changed."""
    saved: list[Any] = []
    monkeypatch.setattr("mtdlr.bundle.save_bundle", lambda model, folder: saved.append(model) or (
        folder / "bundle.json").write_text("{}"))

    @dataclass(frozen=True)
    class Model:
        facts: dict[str, Any]

    model: Any = Model({"n": 60})
    jobs.bundle(store, Recipe("bundle", {}), model, {"external": [0.7, 0.6, 0.8]})
    assert saved[0].facts == {"n": 60, "c": {"external": [0.7, 0.6, 0.8]}} and model.facts == {"n": 60}
