"""What a score adds: a useful one enters, a useless, reversed or repeated one does not."""

from __future__ import annotations

import numpy as np
import pytest

from mtdlr.stats.cox import fit_cox
from mtdlr.stats.gain import score_gains
from mtdlr.survival import Survival


def _sample(n: int = 250, seed: int = 0) -> tuple[np.ndarray, Survival, np.random.Generator]:
    rng = np.random.default_rng(seed)
    risk = rng.standard_normal(n)
    time = rng.exponential(size=n) * np.exp(-risk) * 60
    return risk, Survival(np.minimum(time, 40.0) + 0.01, time < 40.0), rng


def test_a_useful_score_enters_and_the_others_do_not() -> None:
    """The risk enters; noise, the risk turned round and a copy of the risk do not, and are still reported."""
    risk, surv, rng = _sample()
    scores = {"noise": rng.standard_normal(250), "turned": -risk, "copy": risk + 1e-3 * rng.standard_normal(250),
              "risk": risk}
    gains = score_gains(np.zeros((250, 0)), scores, surv)
    assert {gain.name for gain in gains} == set(scores)
    assert sum(gain.enters for gain in gains) == 1
    assert gains[0].name in ("risk", "copy") and gains[0].enters and gains[0].p < 1e-6


def test_the_test_is_the_likelihood_ratio_test() -> None:
    """The statistic beside the base columns is that of two Cox models, to the ridge's 1e-2."""
    risk, surv, rng = _sample()
    base = rng.standard_normal((250, 2))
    gain = score_gains(base, {"risk": risk}, surv)[0]
    both, alone = (fit_cox(x, surv, names=[f"x{k}" for k in range(x.shape[1])], ties="breslow")
                   for x in (np.column_stack([base, risk]), base))
    assert abs(gain.chi_square - 2 * (both.loglik - alone.loglik)) < 0.05


def _share_in(information: float, n_trials: int) -> float:
    """Share of trials in which a score enters beside a stage: 300 patients, 73 or so events, the score cross-fitted
    with so much of a hazard ratio a SD."""
    entered = 0
    for seed in range(n_trials):
        rng = np.random.default_rng([seed, 7])
        stage, score = (rng.random(300) < 0.4).astype(float), rng.standard_normal(300)
        time = rng.exponential(size=300) * np.exp(-0.3 * stage - information * score - rng.standard_normal(300)) * 100
        surv = Survival(np.minimum(time, 25.0) + 0.01, time < 25.0)
        entered += score_gains(stage[:, None], {"score": score}, surv)[0].enters
    return entered / n_trials


@pytest.mark.parametrize(("information", "low", "high"), [(-0.6, 0.0, 0.0), (0.0, 0.0, 0.15), (0.3, 0.4, 0.9),
                                                           (0.7, 1.0, 1.0)])
def test_a_score_enters_by_what_it_knows(information: float, low: float, high: float) -> None:
    """Of useless scores one in forty enters, of weak ones about half, of good ones all, of reversed ones none."""
    assert low <= _share_in(information, 40) <= high


def _any_enters(informed: bool, n_trials: int) -> float:
    """Share of trials in which noise enters: either of two scores, or the second beside one that knows the risk."""
    entered = 0
    for seed in range(n_trials):
        risk, surv, rng = _sample(150, seed)
        noise = rng.standard_normal((2, 150))
        gains = score_gains(np.zeros((150, 0)), {"first": risk if informed else noise[0], "second": noise[1]}, surv)
        entered += any(gain.enters for gain in gains if not (informed and gain.name == "first"))
    return entered / n_trials


@pytest.mark.parametrize(("informed", "low", "high"), [(False, 0.005, 0.055), (True, 0.05, 0.16)])
def test_of_pure_noise_any_score_enters_in_one_study_of_forty(informed: bool, low: float, high: float) -> None:
    """Two useless scores: one of them enters in about .025 of studies; beside a score that is in, one in about .10."""
    assert low <= _any_enters(informed, 200) <= high


def test_the_p_value_is_one_sided() -> None:
    """A score and the same score turned round have p values that sum to 1."""
    risk, surv, rng = _sample(n=100)
    score = 0.1 * risk + rng.standard_normal(100)
    found = [score_gains(np.zeros((100, 0)), {"s": sign * score}, surv)[0].p for sign in (1, -1)]
    assert sum(found) == pytest.approx(1.0, abs=1e-6) and found[0] < 0.5


def test_constant_scores_stay_out() -> None:
    """A score that is the same for everybody adds nothing and breaks nothing."""
    risk, surv, _ = _sample()
    gains = {gain.name: gain for gain in score_gains(np.zeros((250, 0)), {"same": np.ones(250), "risk": risk}, surv)}
    assert gains["risk"].enters and not gains["same"].enters and gains["same"].p == 1.0
