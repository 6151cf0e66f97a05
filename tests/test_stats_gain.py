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
    assert gains[0].name in ("risk", "copy") and gains[0].enters and gains[0].left_out > 0


def test_the_test_is_the_likelihood_ratio_test() -> None:
    """The statistic beside the base columns is that of two Cox models, to the ridge's 1e-2."""
    risk, surv, rng = _sample()
    base = rng.standard_normal((250, 2))
    gain = score_gains(base, {"risk": risk}, surv)[0]
    both, alone = (fit_cox(x, surv, names=[f"x{k}" for k in range(x.shape[1])], ties="breslow")
                   for x in (np.column_stack([base, risk]), base))
    assert abs(gain.chi_square - 2 * (both.loglik - alone.loglik)) < 0.05


@pytest.mark.slow
def test_noise_seldom_enters() -> None:
    """Of 30 scores of pure noise at most 3 enter (a half of 5 % is expected: the direction must be right too)."""
    entered = 0
    for seed in range(10):
        _, surv, rng = _sample(n=100, seed=seed)
        scores = {f"s{k}": rng.standard_normal(100) for k in range(3)}
        entered += sum(gain.enters for gain in score_gains(np.zeros((100, 0)), scores, surv))
    assert entered <= 3


def test_constant_scores_stay_out() -> None:
    """A score that is the same for everybody adds nothing and breaks nothing."""
    risk, surv, _ = _sample()
    gains = {gain.name: gain for gain in score_gains(np.zeros((250, 0)), {"same": np.ones(250), "risk": risk}, surv)}
    assert gains["risk"].enters and not gains["same"].enters and gains["same"].left_out == 0.0
