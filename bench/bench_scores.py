"""What a nomogram makes of cross-fitted scores, and what that is worth to new patients: simulated, no images.

    python bench/bench_scores.py [--repeats 25] [--patients 300] [--events 73] [--folds 3] [--rules] [--chance]

Draws `--patients` patients with 140 correlated numbers, some of which carry a part of the log-hazard, and follow-up.
Ridge Cox heads are fitted without each fold, as a run does. A Cox model of the cross-fitted score gives the
coefficient; 4,000 new patients tell what it should be for one head and for the mean of all. Printed for a strong and a
weak signal: the three coefficients, their ratio (the calibration slope to expect outside) before and after the mean is
divided by `shared_variance`, and the correlation of heads that it estimates, beside the true one.

With --rules: a stage and two scores of known information, and with each rule of `score_gains` (or every score whatever
its sign) the C-index of the nomogram in 900 new patients, the share of trials that fall more than .02 below the stage,
and the share in which any score enters.

With --chance: how far a score of pure noise goes by chance, when nobody fitted it and when it is cross-fitted in
`--folds` folds or three times as many parts, with heads on one scale: mean and SD of the signed root of its likelihood
ratio (0 and 1 where nobody fitted it), how often its P is below .05 and .025, and mean and SD of its C-index.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.nomogram.scores import shared_variance
from mtdlr.stats.concordance import concordance
from mtdlr.stats.gain import score_gains
from mtdlr.stats.ridge import cross_validate_ridge, ridge_path
from mtdlr.survival import Survival

Matrix = NDArray[np.float64]
PENALTIES = np.geomspace(60.0, 0.5, 6)
NUMBERS, NEW, HAZARD_SD = 140, 4000, 1.5
RULES = {"every score": (2.0, 1.0), "P < .10": (0.2, 0.1), "first .10": (0.1, 0.1), "first .05": (0.05, 0.1),
         "first .025": (0.025, 0.1), "P < .025": (0.05, 0.025)}
"""`first` and `level` of `score_gains`: of two scores the first needs P below half of `first`."""
TRUTHS = {"noise": (0.0, 0.0, 0.0), "stage only": (0.6, 0.0, 0.0), "one weak score": (0.15, 0.45, 0.0),
          "two weak scores": (0.2, 0.4, 0.4), "one good score": (0.3, 0.9, 0.0), "two good scores": (0.3, 0.7, 0.6)}
"""SD of the log-hazard that the stage and what each score sees carry."""
SEEN, AGREEING = 0.75, 0.7  # of a score's shared part, what is not chance; the correlation of networks
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
    columns = []
    for k in range(folds):
        weights, constant = head(x[:n][fold != k], surv.take(fold != k))
        risk = x @ weights + constant
        own = risk[:n][fold == k]
        columns.append((risk - own.mean()) / own.std(ddof=1))
    risks = np.column_stack(columns)
    new = risks[n:]
    shared = shared_variance(pd.DataFrame(risks[:n]), pd.Series(fold))
    return {"cross-fitted": coefficient(risks[np.arange(n), fold], surv),
            "one head, new": float(np.mean([coefficient(one, later) for one in new.T])),
            "mean, new": coefficient(new.mean(axis=1), later),
            "r": (shared * folds - 1) / (folds - 1), "true r": np.corrcoef(new.T)[np.triu_indices(folds, 1)].mean(),
            "shared": shared}


def scored(n: int, truth: tuple[float, float, float], networks: int, rng: np.random.Generator
           ) -> tuple[Matrix, Matrix]:
    """(stage and two scores (n, 3), log-hazard): each score by the mean of so many networks, divided by v."""
    stage = (rng.random(n) < 0.4).astype(float)
    stage = (stage - stage.mean()) / stage.std()
    seen = rng.standard_normal((2, n))
    hazard = truth[0] * stage + np.array(truth[1:]) @ seen
    hazard = hazard + rng.standard_normal(n) * np.sqrt(HAZARD_SD**2 - np.square(truth).sum())
    shared = SEEN * seen + np.sqrt(1 - SEEN**2) * rng.standard_normal((2, n))
    own = rng.standard_normal((2, networks, n)).mean(axis=1)
    score = np.sqrt(AGREEING) * shared + np.sqrt(1 - AGREEING) * own
    return np.column_stack([stage, *score / (AGREEING + (1 - AGREEING) / networks)]), hazard


def rules(asked: argparse.Namespace) -> None:
    """A line a truth: each rule's C in new patients, falls below the stage, and how often a score enters."""
    for label, truth in TRUTHS.items():
        rng, found = np.random.default_rng(11), []
        for _ in range(asked.repeats):
            x, hazard = scored(asked.patients, truth, 1, rng)
            surv = follow_up(hazard, asked.events, rng)
            new, later = scored(900, truth, asked.folds, rng)
            known = follow_up(later, 250, rng)
            row = []
            for first, level in ((0.0, 0.0), *RULES.values()):
                gains = score_gains(x[:, :1], {"1": x[:, 1], "2": x[:, 2]}, surv, first=first, level=level)
                kept = [0, *sorted(int(gain.name) for gain in gains if gain.enters or level == 1.0)]
                coef = ridge_path(x[:, kept], surv, [1.0, 0.01])[-1]
                row.append((concordance(new[:, kept] @ coef, known).c.value, len(kept) > 1))
            found.append(row)
        c, entered = np.moveaxis(np.array(found, dtype=float), 2, 0)
        print(f"{label}: stage {c[:, 0].mean():.3f}; " + "; ".join(
            f"{rule} C {c[:, k].mean():.3f}, below {(c[:, k] < c[:, 0] - 0.02).mean():.0%}, any "
            f"{entered[:, k].mean():.0%}" for k, rule in enumerate(RULES, 1)), flush=True)


def noise(n: int, events: int, parts: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """(signed root, P, C-index) of a score that knows nothing, cross-fitted in so many parts; with 0 not fitted."""
    x, surv = rng.standard_normal((n, NUMBERS)) * np.linspace(1.0, 0.1, NUMBERS), follow_up(np.zeros(n), events, rng)
    score, part = x[:, 0].copy(), np.arange(n) % max(parts, 1)
    for k in range(parts):
        risk = x @ head(x[part != k], surv.take(part != k))[0]
        score[part == k] = ((risk - risk[part != k].mean()) / risk[part != k].std())[part == k]
    gain = score_gains(np.zeros((n, 0)), {"score": score}, surv)[0]
    return float(np.copysign(np.sqrt(gain.chi_square), gain.coefficient)), gain.p, concordance(score, surv).c.value


def chance(asked: argparse.Namespace) -> None:
    """A line each: not fitted, in folds, in parts of folds."""
    for parts in (0, asked.folds, 3 * asked.folds):
        rng = np.random.default_rng(3)
        root, p, c = np.array([noise(asked.patients, asked.events, parts, rng) for _ in range(asked.repeats)]).T
        print(f"{parts or 'no'} parts: root {root.mean():.2f}, SD {root.std():.2f}; P < .05 {(p < 0.05).mean():.1%}, "
              f"< .025 {(p < 0.025).mean():.1%}; C {c.mean():.3f}, SD {c.std():.3f}", flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repeats", 25), ("patients", 300), ("events", 73), ("folds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--chance", action="store_true")
    asked = parser.parse_args()
    if asked.rules or asked.chance:
        (rules if asked.rules else chance)(asked)
        return
    for label, signal in SIGNALS.items():
        rng = np.random.default_rng(5)
        means = pd.DataFrame([trial(asked.patients, asked.events, asked.folds, signal, rng)
                              for _ in range(asked.repeats)]).mean()
        slope = means["mean, new"] / means["cross-fitted"]
        print(f"{label} signal: " + ", ".join(f"{name} {value:.2f}" for name, value in means.items())
              + f"; slope outside {slope:.2f}, after the division {slope * means['shared']:.2f}", flush=True)


if __name__ == "__main__":
    main()
