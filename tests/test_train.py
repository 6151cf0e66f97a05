"""Training learns, survives kills, repeats itself to the byte, and looks at nobody but its own patients."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import ndimage

from mtdlr.errors import FitError, StoreError
from mtdlr.nets.weights import Checkpoint
from mtdlr.study import DeepmtsSettings, SingletaskSettings, Study
from mtdlr.train import Case, Progress, _judge, _Run, learning_rate, train

TINY = DeepmtsSettings(width=0.25, epochs=3, segmentation_epochs=1, batch_size=4, learning_rate=3e-3, near_voxels=1,
                       pooling="regional")
SINGLE = SingletaskSettings(width=0.25, epochs=2, batch_size=4, learning_rate=3e-3)


def ball_cases(n: int, seed: int = 0) -> list[Case]:
    """Heads with a bright ball each; the larger the ball, the earlier the event."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[:32, :32, :32]).astype(np.float32)
    cases = []
    for k in range(n):
        radius = rng.uniform(2.5, 6.5)
        middle = 15.5 + rng.uniform(-3, 3, 3)
        mask = ((grid - middle[:, None, None, None]) ** 2).sum(0) < radius**2
        head = ((grid - 15.5) ** 2).sum(0) < 14**2
        pet = ndimage.gaussian_filter(0.05 * head + 0.4 * mask, 0.7) + rng.normal(0, 0.01, mask.shape)
        ct = np.where(head, 0.05, -1.0) + rng.normal(0, 0.02, mask.shape)
        months = float(rng.exponential(60.0 * np.exp(-1.5 * (radius - 4.5))))
        cases.append(Case(f"P{k:03d}", np.stack([pet, ct]).astype(np.float32), mask, np.ceil(min(months, 40.0) / 5) * 5,
                          months < 40.0))
    return cases


CASES = ball_cases(14)


@pytest.mark.slow
@pytest.mark.parametrize(("scores", "error", "kept"), [
    ((0.5, 0.9, 0.85, 0.8), 0.3, 3), ((0.5, 0.9, 0.2, 0.2), 0.05, 1), ((0.5, 0.6, 0.7, 0.7), 0.0, 3),
    ((0.5, 1.0, 0.9, 0.8), 0.2, 3)])  # perfect order in one epoch: its own error is 0
def test_the_latest_epoch_that_is_no_worse_is_kept(scores: tuple[float, ...], error: float, kept: int):
    """Weights are those of the last epoch whose smoothed score is within a standard error of the best one's."""
    run = _Run(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]))  # type: ignore[arg-type]
    for run.epoch, score in enumerate(scores):
        with torch.no_grad():
            run.model.weight.fill_(run.epoch)
        row = {"val_c_index": score, "val_c_se": 0.0 if score == 1.0 else error}
        _judge(run, row, joint=True)
        run.log.append(row)
    assert run.best_epoch == kept == run.best["weight"].item()


@pytest.mark.slow
@pytest.mark.parametrize("survival_loss", ["cox-breslow", "discrete"])
def test_the_other_single_task_network_trains(survival_loss: str, tmp_path: Path):
    """densenet121-3d goes through the same loop, with either loss, and is read back as it was."""
    settings = SINGLE.model_copy(update={"network": "densenet121-3d", "epochs": 1, "survival_loss": survival_loss})
    trained = train(CASES[:8], "densenet121-3d", settings, tmp_path, seed=0)
    log = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert trained.model.config.network == "densenet121-3d" and np.isfinite(float(log[0]["survival_loss"]))
    assert Checkpoint.load(tmp_path).digest == trained.digest


@pytest.mark.slow
def test_a_training_leaves_weights_description_and_log_and_nothing_else(tmp_path: Path):
    """Three files at the end; the log has a row an epoch; the description says what was chosen from whom."""
    seen: list[Progress] = []
    checkpoint = train(CASES, "deepmts", TINY, tmp_path, seed=0, report=seen.append)
    left = sorted(p.name for p in tmp_path.iterdir() if p.name != "tensorboard")  # where that is installed
    assert left == ["log.csv", "model.json", "weights.safetensors"]
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(r["joint"]) for r in rows] == [0.0, 1.0, 1.0]
    assert {"dice_loss", "survival_loss", "val_c_index", "val_dice", "learning_rate", "seconds",
            "memory_mb"} <= rows[0].keys()
    assert float(rows[0]["survival_loss"]) == 0.0 < float(rows[1]["survival_loss"])
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["network"] == "deepmts" and facts["n_patients"] + facts["n_validation"] == 14
    assert facts["epoch"] in (1, 2), "an epoch without survival loss is never chosen"
    assert checkpoint.facts["epoch"] == facts["epoch"]
    assert seen[-1].epoch == 3 and seen[-1].row is not None and [p.step for p in seen[:3]] == [1, 2, 3]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_patients(tmp_path: Path):
    """Weights and description are equal to the byte for shuffled patients, and differ for another seed."""
    def files(name: str, cases: list[Case], seed: int) -> tuple[bytes, bytes]:
        train(cases, "csn-only", SINGLE, tmp_path / name, seed=seed)
        return tuple((tmp_path / name / f).read_bytes() for f in ("weights.safetensors", "model.json"))
    first = files("a", CASES, 0)
    assert files("b", CASES[::-1], 0) == first
    assert files("c", CASES, 1)[0] != first[0]


@pytest.mark.slow
def test_a_finished_training_is_loaded_not_repeated(tmp_path: Path):
    """The second call returns the same network without a step; another recipe trains again."""
    first = train(CASES, "csn-only", SINGLE, tmp_path, seed=0)
    steps: list[Progress] = []
    again = train(CASES, "csn-only", SINGLE, tmp_path, seed=0, report=steps.append)
    assert again.digest == first.digest and steps == []
    assert train(CASES, "csn-only", SINGLE, tmp_path, seed=1, report=steps.append).digest != first.digest and steps


@pytest.fixture(scope="module")
def plain_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of an unbroken single-task training."""
    return train(CASES, "csn-only", SINGLE, tmp_path_factory.mktemp("plain"), seed=0).digest


class Stop(BaseException):
    """What a user's Ctrl-C is to a callback."""


@pytest.mark.slow
@pytest.mark.parametrize(("network", "settings"), [
    pytest.param("deepmts", TINY, marks=pytest.mark.slow),
    ("csn-only", SINGLE.model_copy(update={"survival_loss": "discrete"}))])
def test_a_training_stopped_at_any_step_ends_in_the_same_bytes(tmp_path: Path, network, settings):
    """Stopped again and again, at every third step, and called again: the bytes of an unbroken run."""
    train(CASES, network, settings, tmp_path / "whole", seed=0)
    count = 0

    def stop(_: Progress) -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise Stop

    for _ in range(40):
        try:
            train(CASES, network, settings, tmp_path / "broken", seed=0, report=stop)
            break
        except Stop:
            assert (tmp_path / "broken" / "resume.safetensors").exists()
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "broken" / "resume.safetensors").exists() and count > 6


@pytest.mark.slow
def test_resuming_with_other_settings_is_refused_with_their_names(tmp_path: Path):
    """E-RESUME names the settings that differ."""
    def stop(_: Progress) -> None:
        raise Stop
    with pytest.raises(Stop):
        train(CASES, "csn-only", SINGLE, tmp_path, seed=0, report=stop)
    with pytest.raises(StoreError, match="learning_rate") as caught:
        train(CASES, "csn-only", SINGLE.model_copy(update={"learning_rate": 1e-3}), tmp_path, seed=0)
    assert caught.value.code == "E-RESUME"


@pytest.mark.slow
def test_the_callers_random_state_and_threads_are_left_alone(tmp_path: Path):
    """Training neither reads nor moves torch's global generator."""
    import torch
    torch.manual_seed(5)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    first = train(CASES, "csn-only", SINGLE, tmp_path / "a", seed=0)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.manual_seed(99)
    assert train(CASES, "csn-only", SINGLE, tmp_path / "b", seed=0).digest == first.digest


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    {"survival_loss": "cox-efron"}, {"survival_loss": "discrete", "intervals": 4}, {"sampling": "paper"},
    {"sampling": "uniform"}, {"augmentation": "paper"}, {"augmentation": "none"}, {"schedule": "paper"},
    {"risk_memory": 0}, {"pooling": "average"}, {"accumulate": 2}, {"steps_per_epoch": 1}])
def test_every_setting_trains_and_tells(tmp_path: Path, plain_digest: str, change):
    """Each option runs, is written into the description, and changes the weights."""
    other = train(CASES, "csn-only", SINGLE.model_copy(update=change), tmp_path, seed=0)
    assert other.facts["recipe"].items() >= change.items() and other.digest != plain_digest


@pytest.mark.slow
def test_patients_without_a_mask_still_teach_survival(tmp_path: Path):
    """DeepMTS takes patients without a contour; with none at all it refuses."""
    some = [Case(c.id, c.image, c.mask if k % 2 else None, c.time_months, c.event) for k, c in enumerate(CASES)]
    checkpoint = train(some, "deepmts", TINY.model_copy(update={"epochs": 2}), tmp_path, seed=0)
    assert np.isfinite(checkpoint.facts["validation"]["val_c_index"])


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_a_remedy(tmp_path: Path):
    """A learning rate of 1e18 ends in E-DIVERGED, not in a network of nan."""
    with pytest.raises(FitError, match="Lower learning_rate") as caught:
        train(CASES, "csn-only", SINGLE.model_copy(update={"learning_rate": 1e18, "epochs": 30}), tmp_path, seed=0)
    assert caught.value.code == "E-DIVERGED"


@pytest.mark.slow
def test_early_stopping_ends_a_training_that_no_longer_improves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a patience of two, a run of 40 epochs whose third is its best ends with the fifth, and keeps the third."""
    told = iter([0.6, 0.7, 0.8, 0.5, 0.4])  # C of the inner validation, which otherwise hangs on the processor
    monkeypatch.setattr("mtdlr.train._validate", lambda run, plan: {"val_c_index": next(told), "val_c_se": 0.0})
    settings = SINGLE.model_copy(update={"epochs": 40, "patience": 2, "steps_per_epoch": 1})
    checkpoint = train(CASES, "csn-only", settings, tmp_path, seed=0)
    assert checkpoint.facts["epochs_run"] == 5 and checkpoint.facts["epoch"] == 2


def test_learning_rates_rise_fall_and_step():
    """One-cycle peaks at a tenth and ends at 1 %; the paper's steps are at epochs 50, 100 and 200."""
    modern = DeepmtsSettings(epochs=10, learning_rate=1.0)
    rates = [learning_rate(modern, epoch=e, step=s, steps=10) for e in range(10) for s in range(10)]
    assert max(rates) == rates[9] == pytest.approx(1.0) and rates[-1] == pytest.approx(0.01)
    assert all(a <= b for a, b in pairwise(rates[:10]))
    assert all(a >= b for a, b in pairwise(rates[10:]))
    paper = Study.of({"preset": "paper"}).deepmts
    assert [learning_rate(paper, epoch=e, step=0, steps=50) for e in (0, 49, 50, 100, 200)] == pytest.approx(
        [1e-4, 1e-4, 5e-5, 1e-5, 1e-6])


def test_the_paper_preset_is_the_published_training():
    """Batch 8, 50 steps an epoch, L2 0.1, no detaching, no segmentation phase, grid averages: METHOD 3c-3e."""
    s = Study.of({"preset": "paper"}).deepmts
    assert (s.batch_size, s.steps_per_epoch, s.head_l2, s.epochs * 50) == (8, 50, 0.1, 15_000)
    assert not s.detach_probability and s.segmentation_epochs == 0 and s.pooling == "average"
    assert (s.sampling, s.augmentation, s.weight_decay, s.risk_memory, s.norm_momentum) == ("paper", "paper", 0.0, 0,
                                                                                           0.01)


SCRIPT = """
import os, signal, sys; sys.path[:0] = {path!r}
from test_train import CASES, SINGLE, train
from pathlib import Path
import mtdlr.train
mtdlr.train.SAVE_EVERY_S = 0.0
save = mtdlr.train.save_state
def training(after):
    def save_and_be_killed(*arguments):
        nonlocal after
        save(*arguments)
        if after:
            signal.setitimer(signal.ITIMER_REAL, after)  # nobody handles the alarm: the system ends the process
            after = 0.0
    mtdlr.train.save_state = save_and_be_killed
    train(CASES, "csn-only", SINGLE, Path(sys.argv[1]), seed=0)
for line in sys.stdin:
    pid = os.fork()  # each training is a process of its own; what all import is imported once
    if not pid:
        try:
            training(float(line))
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_killed_trainings_leave_no_torn_file_and_end_in_the_same_bytes(tmp_path: Path):
    """Killed at odd moments, while a state is written after every step: each file is whole, the end is the same."""
    whole = train(CASES, "csn-only", SINGLE, tmp_path / "whole", seed=0).digest
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")]
    command = [sys.executable, "-c", SCRIPT.format(path=paths), str(tmp_path / "killed")]
    kills, rng, state = 0, np.random.default_rng(0), tmp_path / "killed" / "resume.safetensors"
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as trainings:
        assert trainings.stdin and trainings.stdout
        for attempt in range(6):
            print(f"{rng.uniform(0.001, 0.1):.4f}" if attempt < 5 else "0", file=trainings.stdin, flush=True)
            ended = int(trainings.stdout.readline())
            if ended == 0:
                break
            assert ended == -signal.SIGALRM
            kills += 1
            with safe_open(state, framework="np") as file:
                assert file.metadata() and len(file.keys()) > 100
        trainings.stdin.close()
    assert kills >= 3
    assert Checkpoint.load(tmp_path / "killed").digest == whole


@pytest.mark.slow
def test_deepmts_learns_masks_and_risk_that_hold_on_new_patients(tmp_path: Path):
    """On heads with a ball, Dice on new patients exceeds 0.6 and the C-index 0.65 after a minute's training."""
    from mtdlr.infer import score
    settings = Study.of({"preset": "quick"}).deepmts.model_copy(
        update={"width": 0.25, "epochs": 14, "segmentation_epochs": 7, "near_voxels": 1})
    checkpoint = train(ball_cases(48, seed=1), "deepmts", settings, tmp_path, seed=0)
    new = ball_cases(40, seed=2)
    scores = [score(checkpoint, case.image) for case in new]
    dice = [2 * ((s.probability > 0.5) & c.mask).sum() / ((s.probability > 0.5).sum() + c.mask.sum())
            for s, c in zip(scores, new, strict=True)]
    risk, time_, event = (np.array(v) for v in ([s.risk for s in scores], [c.time_months for c in new],
                                                [c.event for c in new]))
    pairs = event[:, None] & (time_[:, None] < time_[None])
    concordance = (risk[:, None] > risk[None])[pairs].mean()
    assert np.mean(dice) > 0.6
    assert concordance > 0.65


@pytest.mark.slow
def test_trainings_in_threads_of_one_process_do_not_disturb_one_another(tmp_path: Path):
    """Two networks trained side by side in threads (as on a Dask worker) are those that each gives alone, to the byte;
    torch's threads and random numbers are the caller's again afterwards."""
    def work(name: str) -> str:
        return train(CASES[:8], "csn-only", SINGLE, tmp_path / name, seed=int(name[-1])).digest

    alone = [work("alone0"), work("alone1")]
    torch.manual_seed(7)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, ["beside0", "beside1"])) == alone
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_saved_state_begins_the_training_again(damage: str, tmp_path: Path,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    """A state with a flipped bit, half a state or an empty one is thrown away with a warning, and the training ends in
    the bytes of an unbroken one."""
    def stop(now: Progress) -> None:
        if now.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CASES[:8], "csn-only", SINGLE, tmp_path / "stopped", seed=0, report=stop)
    state = tmp_path / "stopped" / "resume.safetensors"
    data = bytearray(state.read_bytes())
    data[-1000] ^= 1
    state.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    again = train(CASES[:8], "csn-only", SINGLE, tmp_path / "stopped", seed=0)
    assert "W-RESUME" in caplog.text
    assert again.digest == train(CASES[:8], "csn-only", SINGLE, tmp_path / "whole", seed=0).digest
