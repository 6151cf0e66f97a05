"""Recipes of jobs: what makes a stored result another one, and what does not; who refuses damage before it builds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from mtdlr import jobs
from mtdlr.model import Scale
from mtdlr.signature import Signature
from mtdlr.store import Recipe
from mtdlr.study import RunSettings, SignatureSettings
from mtdlr.workers.planning import Stored

RUN = RunSettings(threads=1, device="cpu")


class Kept:
    """A store that builds into one folder and remembers the recipes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recipes = folder, []

    def make(self, recipe: Recipe, build: Any) -> Path:
        self.recipes.append(recipe)
        build(self.folder)
        return self.folder


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """The store of one test."""
    return Kept(tmp_path)


def stored(key: str, place: str = "a") -> Stored:
    """One patient's result under a key, in a folder."""
    return Stored({"P1": Path(place) / key}, {"P1": key})


# ---- what a picture and an explanation are made of -------------------------------------------------------------------

def test_a_picture_is_another_with_another_scan_or_mask(kept: Any) -> None:
    """The prepared patient and the mask make the picture; where their folders lie does not."""
    def key(prepared: Stored, scored: Stored) -> str:
        return jobs.drawing(kept, prepared, scored, "P1").recipe.key

    first = key(stored("p"), stored("m"))
    assert first == key(stored("p", "elsewhere"), stored("m", "b"))
    others = {key(stored(a), stored(b)) for a, b in (("q", "m"), ("p", "n"), ("m", "p"))}
    assert len({first, *others}) == 4


def test_a_picture_is_drawn_from_its_own_folders(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared and scored are not exchanged, and the picture has the name that the report looks for."""
    drawn: list[tuple[Path, ...]] = []
    monkeypatch.setattr("mtdlr.report.pictures.draw_patient", lambda *places: drawn.append(places))
    job = jobs.drawing(kept, stored("p"), stored("m", "b"), "P1")
    assert jobs.draw(job) == kept.folder
    assert drawn == [(Path("a/p"), Path("b/m"), kept.folder / "picture.jpg")]


def explaining(kept: Any, prepared: str = "p", scored: str = "m", mean: str = "mean", *, sd: float = 1.0,
               place: str = "a", fold: int | None = None) -> jobs.Explain:
    """The job that explains one patient."""
    return jobs.explaining(kept, (stored(prepared, place), stored(scored, place)), "P1", fold=fold,
                           deep=((("deepmts", (Path("net"),)),), (Scale(0.5, sd),)), mean=(mean, Path(mean)), run=RUN)


def test_an_explanation_is_another_with_each_of_its_inputs(kept: Any) -> None:
    """Scan, mask, mean image and scales make it; folders do not."""
    own = explaining(kept).recipe.key
    assert own == explaining(kept, place="elsewhere").recipe.key
    others = (explaining(kept, prepared="q"), explaining(kept, scored="n"), explaining(kept, mean="other"),
              explaining(kept, sd=2.0))
    assert len({own, *(job.recipe.key for job in others)}) == 5


def test_an_explanation_keeps_what_it_needs(kept: Any) -> None:
    """Its folders are those of its patient, in their places, with the fold, the networks and the scales."""
    job = explaining(kept, fold=2)
    assert (job.prepared, job.scored, job.mean, job.fold) == (Path("a/p"), Path("a/m"), Path("mean"), 2)
    assert job.networks == (("deepmts", (Path("net"),)),) and job.scales == (Scale(0.5, 1.0),) and job.run is RUN


# ---- what a job hands on ---------------------------------------------------------------------------------------------

def test_a_signature_comes_back_with_its_ids_as_text(
    kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id like 007 stays text, a score keeps every bit, and the perturbed features reach the fit."""
    own = Signature(("a",), (0.0,), (1.0,), (0.5,), 0.1, (1.0,), 40, 12, 900)
    scores = pd.Series([0.1 + 0.2, -1.0 / 3.0], index=["007", "1e5"])
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr("mtdlr.signature.fit_with_scores", lambda *given: asked.append(given) or (own, scores))
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=scores.index)
    job = jobs.FitSignature(kept, Recipe("signature", {}), frame, frame, scores, SignatureSettings(), (frame,))
    signature, found = jobs.load_signature(jobs.fit_signature(job))
    assert signature == own and found.index.tolist() == ["007", "1e5"] and found.tolist() == scores.tolist()
    assert asked[0][0] is frame and asked[0][3] is job.settings and asked[0][4] == (frame,)


def test_a_mean_image_is_of_the_patients_given(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders go on as they came, into the folder of the recipe."""
    asked: list[Any] = []
    monkeypatch.setattr("mtdlr.prepared.save_mean_image", lambda patients, folder: asked.append((patients, folder)))
    places, recipe = [Path("a"), Path("b")], Recipe("mean", {})
    assert jobs.average(kept, recipe, places) == kept.folder
    assert asked == [(places, kept.folder)] and kept.recipes == [recipe]


def test_a_scans_hashes_are_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hashed is the scan that was given."""
    scan: Any = SimpleNamespace(id="P1")
    monkeypatch.setattr("mtdlr.imaging.layout.content_hashes", lambda given: (given.id, "pet", "ct"))
    assert jobs.hash_scan(scan) == ("P1", "pet", "ct")


@pytest.mark.parametrize("kind", [jobs.Prepare, jobs.Train, jobs.ScorePatient, jobs.Extract, jobs.FitSignature,
                                  jobs.Draw, jobs.Explain])
def test_a_job_is_a_value(kind: Any) -> None:
    """Every job names its store and its recipe first, and nobody changes one that was planned."""
    names = [one.name for one in dataclasses.fields(kind)]
    assert names[:2] == ["store", "recipe"] and kind.__dataclass_params__.frozen


def test_a_share_is_never_more_than_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that has no steps, and one past its last epoch, have a share from 0 to 1."""
    now = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    job: Any = SimpleNamespace(place="network x, fold 0")
    tell = jobs._teller(job, tmp_path)
    shares = []
    for epoch, step, steps in ((0, 0, 0), (0, 1, 1), (1, 2, 4), (5, 4, 4)):
        now[0] += 2.0
        tell(SimpleNamespace(epoch=epoch, epochs=5, step=step, steps=steps, row=None))  # type: ignore[arg-type]
        shares.append(json.loads(next(tmp_path.iterdir()).read_text())["share"])
    assert shares == pytest.approx([0.0, 0.2, 0.3, 1.0])
