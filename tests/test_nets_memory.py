"""Memory that runs out: batches are cut as by hand, the training goes on; what cannot be cut is an error in words."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import CASES, SINGLE

import mtdlr.explain
import mtdlr.train
from mtdlr.errors import FitError
from mtdlr.explain import gradients
from mtdlr.infer import score
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.feed import Feed
from mtdlr.nets.memory import cut_until_it_fits, is_out_of_memory
from mtdlr.nets.weights import Checkpoint, build
from mtdlr.train import train
from mtdlr.workers import run_jobs
from mtdlr.workers.planning import cut_batches
from mtdlr.workers.pool import Workers

SHORT = SINGLE.model_copy(update={"steps_per_epoch": 2})
BACKWARD = mtdlr.train.backward


def _losses(folder: Path) -> list[list[str]]:
    """Every column of the log but seconds and memory."""
    return [line.split(",")[:-2] for line in (folder / "log.csv").read_text().splitlines()]


def _card_for(monkeypatch: pytest.MonkeyPatch, patients: int, *, from_step: int = 0) -> None:
    """A card that holds so many patients at a time; before some step it holds any number."""
    done = [0]

    def step(model, micro_batches, *rest, **more):
        if done[0] >= from_step and max(len(one.places) for one in micro_batches) > patients:
            weights = next(model.parameters())
            weights.grad = torch.ones_like(weights)  # a step that was begun leaves something behind
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        done[0] += 1
        return BACKWARD(model, micro_batches, *rest, **more)

    monkeypatch.setattr(mtdlr.train, "backward", step)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_cut_as_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    """Losses and weights are those of `accumulate = 2`; W-MEMORY says so at once, and later from the model folder."""
    train(CASES, "csn-only", SHORT.model_copy(update={"accumulate": 2}), tmp_path / "hand", seed=0)
    _card_for(monkeypatch, 2)
    with caplog.at_level(logging.WARNING):
        cut = train(CASES, "csn-only", SHORT, tmp_path / "cut", seed=0)
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "hand")
    assert (tmp_path / "cut/weights.safetensors").read_bytes() == (tmp_path / "hand/weights.safetensors").read_bytes()
    assert cut.facts["recipe"]["accumulate"] == 1, "the recipe is what was asked for"
    assert ["W-MEMORY network csn-only" in one.getMessage() for one in caplog.records] == [True]
    told = cut_batches({"csn-only": [tmp_path / "hand", tmp_path / "cut"]})
    assert [(one.code, one.where, one.found) for one in told] == [
        ("W-MEMORY", "network csn-only, fold 1", "2 micro-batches of each batch")]


@pytest.mark.slow
def test_a_training_goes_on_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in the second epoch costs that epoch alone: the first stays as it was."""
    train(CASES, "csn-only", SHORT, tmp_path / "whole", seed=0)
    _card_for(monkeypatch, 2, from_step=3)
    train(CASES, "csn-only", SHORT, tmp_path / "cut", seed=0)
    whole, cut = _losses(tmp_path / "whole"), _losses(tmp_path / "cut")
    assert cut[:2] == whole[:2] and cut[2] != whole[2] and len(cut) == len(whole)
    assert json.loads((tmp_path / "cut/model.json").read_text())["micro_batches"] == 2


def test_a_card_without_room_for_two_patients_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two patients at a time are the fewest that a step takes; where they do not fit, E-MEMORY says what to do."""
    _card_for(monkeypatch, 1)
    with pytest.raises(FitError, match=r"E-MEMORY network csn-only: .*prepare\.size.*run\.device") as caught:
        train(CASES, "csn-only", SHORT, tmp_path, seed=0)
    assert len(caught.value.problems) == 1 and not (tmp_path / "model.json").exists()


def test_room_is_made_before_anything_is_cut() -> None:
    """First the cohort leaves the card, which changes no number; only then is the batch cut, in two, four and six."""
    tried: list[int] = []
    told: list[int] = []
    room = [True]

    def work(parts: int) -> int:
        tried.append(parts)
        if parts < 6:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return parts

    assert cut_until_it_fits(work, where="", most=6, make_room=lambda: bool(room) and room.pop(), told=told.append) == 6
    assert tried == [1, 1, 2, 4, 6] and told == [2, 4, 6]


def test_another_error_is_not_taken_for_it() -> None:
    """An error of torch that is not about memory passes through."""
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        cut_until_it_fits(lambda _: torch.zeros(2, 3) @ torch.zeros(2, 3), where="", most=4)


def test_a_cohort_that_leaves_the_device_gives_the_same_batches() -> None:
    """After `make_room` the batches come from the processor's memory, with the same numbers."""
    feed, rows = Feed(CASES, torch.device("cpu"), room=1 << 40), np.array([3, 0, 7])
    before = feed.batch(rows)
    assert feed.make_room() and not feed.is_resident and not feed.make_room()
    assert all(torch.equal(a, b) for a, b in zip(before, feed.batch(rows), strict=True))


@pytest.mark.slow
def test_an_explanation_takes_fewer_points_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the points on the way do not fit together they go one by one, and the map is the same."""
    torch.manual_seed(0)
    network = Checkpoint(build(DeepmtsConfig(width=0.25)).eval(), {}, "")
    image, start = np.random.default_rng(0).random((2, 2, 32, 32, 32), np.float32)
    together, one = gradients(network, image, start, steps=2), mtdlr.explain._gradient

    def small(scorer, points):
        if len(points) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return one(scorer, points)

    monkeypatch.setattr(mtdlr.explain, "_gradient", small)
    assert np.allclose(gradients(network, image, start, steps=2), together, rtol=1e-3, atol=1e-6)


def _full(_: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def _score_without_memory(_: int) -> None:
    full = SimpleNamespace(scorer=_full, place=torch.device("cpu"))
    score(full, np.zeros((2, 32, 32, 32), np.float32))  # type: ignore[arg-type]


def test_a_patient_that_cannot_be_scored_is_the_machines_failure() -> None:
    """Scoring has nothing to cut: E-MEMORY, which is tried once more and is not held against the patient's data."""
    outcome = run_jobs(_score_without_memory, [0], Workers(), label="score")[0]
    assert [problem.code for problem in outcome.problems] == ["E-MEMORY"] and outcome.machine_failed
