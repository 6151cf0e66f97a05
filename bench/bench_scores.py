"""What a nomogram's coefficient on cross-fitted scores is worth to new patients: simulated scores, no images.

    python bench/bench_scores.py [--repeats 25] [--patients 300] [--events 73] [--folds 3]

Draws `--patients` patients with 140 correlated numbers, some of which carry a part of the log-hazard, and follow-up.
Ridge Cox heads are fitted without each fold, as a run does. A Cox model of the cross-fitted score gives the
coefficient; 4,000 new patients tell what it should be for one head and for the mean of all. Printed for a strong and a
weak signal: the three coefficients, their ratio (the calibration slope to expect outside) before and after the mean is
divided by `shared_variance`, and the correlation of heads that it estimates, beside the true one.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.nomogram.scores import shared_variance
from mtdlr.stats.ridge import cross_validate_ridge, ridge_path
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]
PENALTIES = np.geomspace(60.0, 0.5, 6)
NUMBERS, NEW, HAZARD_SD = 140, 4000, 1.5
SIGNALS = {"strong": 1.3, "weak": 0.7}  # SD of the log-hazard that the numbers carry, of HAZARD_SD


def follow_up(hazard: Matrix, events: int, rng: np.random.Generator) -> Survival:
    """Weibull follow-up (shape 1.2) with exactly so many events before 44 to 120 months."""
    n = len(hazard)
    waiting = rng.exponential(size=n) * np.exp(-hazard)
    contact = 44.0 + 76.0 * rng.random(n) ** 2
    needed = np.sort(waiting / (contact - 2.0) ** 1.2)
    onset = 2.0 + (waiting / np.sqrt(needed[events - 1] * needed[events])) ** (1 / 1.2)
    return Survival(np.minimum(onset, contact), onset <= contact)


def head(x: Matrix, surv: Survival) -> tuple[Matrix, float]:
    """(weights, constant) of a ridge Cox model, the penalty by cross-validation."""
    center, spread = x.mean(axis=0), x.std(axis=0)
    z = (x - center) / spread
    size = np.sqrt(z.var(axis=0).sum())
    found = cross_validate_ridge(z / size, surv, penalties=PENALTIES, n_folds=5)
    weights = found.coef[found.best] / size / spread
    return weights, float(-center @ weights)


def coefficient(score: Matrix, surv: Survival) -> float:
    """Log-hazard per unit of a score."""
    return float(ridge_path(score[:, None] / score.std(), surv, [1.0, 0.01])[-1][0] / score.std())


def trial(n: int, events: int, folds: int, signal: float, rng: np.random.Generator) -> dict[str, float]:
    """One training cohort and one large cohort of new patients."""
    mixing = rng.standard_normal((NUMBERS, NUMBERS // 6)) / np.sqrt(NUMBERS // 6)
    x = 1.2 * rng.standard_normal((n + NEW, NUMBERS // 6)) @ mixing.T + 0.7 * rng.standard_normal((n + NEW, NUMBERS))
    carried = x @ (rng.standard_normal(NUMBERS) * (rng.random(NUMBERS) < 0.1))
    hazard = signal * carried / carried.std() + np.sqrt(HAZARD_SD**2 - signal**2) * rng.standard_normal(n + NEW)
    surv, later = follow_up(hazard[:n], events, rng), follow_up(hazard[n:], NEW // 5, rng)
    fold = np.arange(n) % folds
    risks = pd.DataFrame({k: x @ w + a for k, (w, a) in enumerate(
        head(x[:n][fold != k], surv.take(fold != k)) for k in range(folds))})
    for k in risks:
        own = risks.loc[:n - 1, k][fold == k]
        risks[k] = (risks[k] - own.mean()) / own.std()
    new = risks.to_numpy()[n:]
    shared = shared_variance(risks.iloc[:n], pd.Series(fold))
    return {"cross-fitted": coefficient(risks.to_numpy()[np.arange(n), fold], surv),
            "one head, new": float(np.mean([coefficient(one, later) for one in new.T])),
            "mean, new": coefficient(new.mean(axis=1), later),
            "r": (shared * folds - 1) / (folds - 1), "true r": np.corrcoef(new.T)[np.triu_indices(folds, 1)].mean(),
            "shared": shared}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repeats", 25), ("patients", 300), ("events", 73), ("folds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    for label, signal in SIGNALS.items():
        rng = np.random.default_rng(5)
        means = pd.DataFrame([trial(asked.patients, asked.events, asked.folds, signal, rng)
                              for _ in range(asked.repeats)]).mean()
        slope = means["mean, new"] / means["cross-fitted"]
        print(f"{label} signal: " + ", ".join(f"{name} {value:.2f}" for name, value in means.items())
              + f"; slope outside {slope:.2f}, after the division {slope * means['shared']:.2f}", flush=True)


if __name__ == "__main__":
    main()
