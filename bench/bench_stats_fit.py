"""Speed of the fitting half of mtdlr.stats against its peers, in one run on one core.

    OMP_NUM_THREADS=1 python bench/bench_stats_fit.py [lasso] [cox] [bootstrap] [ridge]

CPU seconds of this process (other work on the machine disturbs them less than the clock). Peers: scikit-survival's
Coxnet and lifelines' CoxPHFitter (extra `oracles`); rms has no Python peer, so its R time is quoted in RESULTS.md.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

from mtdlr.stats import Penalties, calibrate_bootstrap, cross_validate_lasso, fit_cox, lasso_path, validate_bootstrap
from mtdlr.stats.ridge import blockwise_ridge
from mtdlr.survival import Survival


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The smallest CPU time of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def radiomics(n: int = 522, p: int = 1456, seed: int = 12) -> tuple[np.ndarray, Survival, np.ndarray]:
    """Features of correlated groups, a third of them skewed, follow-up with a quarter of events, and ten folds."""
    random = np.random.default_rng(seed)
    groups, load = random.integers(0, p // 30, p), random.uniform(0.3, 0.95, p)
    x = random.normal(size=(n, p // 30))[:, groups] * load + random.normal(size=(n, p)) * np.sqrt(1 - load**2)
    skewed = random.choice(p, p // 3, replace=False)
    x[:, skewed] = np.exp(0.5 * x[:, skewed])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    active = random.choice(p, 12, replace=False)
    risk = z[:, active] @ (random.choice([-1, 1], 12) * random.uniform(0.15, 0.4, 12))
    event_time = 300 * random.exponential(np.exp(-risk))
    censored = np.minimum(120, 44 * random.random(n) ** 0.05 + random.exponential(20, n))
    time_months = np.maximum(0.1, np.round(np.minimum(event_time, censored), 1))
    return x, Survival(time_months, event_time <= censored), random.permutation(np.arange(n) % 10)


def broken(x: np.ndarray, surv: Survival, coef: np.ndarray, lam: float) -> float:
    """The largest departure from the optimality conditions, as a share of the penalty; coef per standard deviation."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    relative = np.exp(z @ coef - (z @ coef).max())
    later = surv.time_months[None, :] >= surv.time_months[surv.event, None]
    slope = z.T @ (surv.event - (later * relative / (later @ relative)[:, None]).sum(axis=0)) / len(surv)
    return float(np.where(coef != 0, np.abs(slope - lam * np.sign(coef)), np.abs(slope) - lam).max() / lam)


def lasso() -> None:
    """Ten folds of a hundred penalties, ours with the full path and the deviance, the peer's with fits only."""
    from sksurv.linear_model import CoxnetSurvivalAnalysis
    from sksurv.util import Surv

    x, surv, folds = radiomics()
    y, sd = Surv.from_arrays(surv.event, surv.time_months), x.std(axis=0)
    options = {"penalties": Penalties(ratio=0.05)}
    cross_validate_lasso(x[:90, :9], surv.take(np.arange(90)), n_folds=3, penalties=Penalties(n=5))

    def peer(rows: np.ndarray, **more: object) -> object:
        z = (x[rows] - x[rows].mean(axis=0)) / x[rows].std(axis=0)
        return CoxnetSurvivalAnalysis(l1_ratio=1.0, n_alphas=100, alpha_min_ratio=0.05, **more).fit(z, y[rows])

    turns = [(seconds(lambda: cross_validate_lasso(x, surv, folds=folds, **options), 1),
              seconds(lambda: [peer(folds != k) for k in range(10)], 1)) for _ in range(5)]
    ours, theirs = min(turn[0] for turn in turns), min(turn[1] for turn in turns)
    print(f"lasso  522 x 1456, {surv.n_events} events, 10 folds x 100 penalties, ratio 0.05")
    print(f"  ours, with full path and deviance {ours:6.2f} s   scikit-survival, fits only {theirs:6.2f} s   "
          f"ratio {theirs / ours:5.1f}")
    everyone, last = np.ones(len(surv), dtype=bool), lasso_path(x, surv, **options)
    for tol in (1e-7, 1e-12):
        model = peer(everyone, tol=tol, max_iter=1_000_000)
        one = seconds(lambda tol=tol: peer(everyone, tol=tol, max_iter=1_000_000), 1)
        mine = seconds(lambda: lasso_path(x, surv, **options))
        print(f"  one path: scikit-survival tol {tol:g} {one:6.2f} s, conditions broken by "
              f"{broken(x, surv, model.coef_[:, -1], model.alphas_[-1]):.0e} of lambda; ours {mine:6.3f} s, "
              f"{broken(x, surv, last.coef[-1] * sd, last.lambdas[-1]):.0e}; ratio {one / mine:5.1f}")


def cox() -> None:
    """A Cox fit of a hundred thousand patients and twenty columns: distinct times, and times in whole months."""
    import pandas as pd
    from lifelines import CoxPHFitter

    random = np.random.default_rng(0)
    n, p = 100_000, 20
    x = random.normal(size=(n, p))
    beta = random.normal(size=p) * 0.2
    event_time, censored = random.exponential(np.exp(-x @ beta)), random.exponential(2, n)
    followed, event = np.minimum(event_time, censored) + 1e-9, event_time <= censored
    fit_cox(x[:500], Survival(followed, event).take(np.arange(500)))
    for words, months in (("distinct times", followed), ("whole months", np.ceil(40.0 * followed))):
        surv = Survival(months, event)
        table = pd.DataFrame(x).assign(T=surv.time_months, E=surv.event)
        table.columns = table.columns.astype(str)
        print(f"cox    n = {n:,}, p = {p}, {surv.n_events:,} events, {words}: {np.unique(months).size:,} times")
        ours = seconds(lambda surv=surv: fit_cox(x, surv))
        start = time.process_time()
        peer = CoxPHFitter().fit(table, "T", "E")
        theirs = time.process_time() - start
        gap = np.abs(peer.params_.to_numpy() - fit_cox(x, surv).coef).max()
        print(f"  ours {ours:.2f} s   lifelines {theirs:.2f} s   ratio {theirs / ours:.1f}   "
              f"largest difference {gap:.0e}")


def bootstrap() -> None:
    """Validation and calibration with a thousand resamples each at the size of the paper's training cohort."""
    x, surv, _ = radiomics()
    x = x[:, :3]
    validate_bootstrap(x, surv, n_resamples=3)
    calibrate_bootstrap(x, surv, 36.0, n_resamples=3)
    first = seconds(lambda: validate_bootstrap(x, surv))
    second = seconds(lambda: [calibrate_bootstrap(x, surv, month) for month in (36.0, 60.0)])
    print(f"bootstrap  n = 522, p = 3, 1,000 resamples: validate {first:.2f} s, calibrate at two months "
          f"{second:.2f} s, together {first + second:.2f} s")


def ridge() -> None:
    """The weights of a deep score: 146 numbers in eight blocks, at the size of a fold of a study and of the paper's."""
    for n in (200, 348):
        random = np.random.default_rng(0)
        x = random.normal(size=(n, 146))
        time_months = random.exponential(np.exp(-x[:, :4] @ [0.8, -0.6, 0.5, 0.4]))
        surv = Survival(np.minimum(time_months, 0.3), time_months < 0.3)
        x, blocks = x / np.sqrt(x.var(axis=0).sum()), np.array_split(np.arange(146), 8)
        spent = seconds(lambda x=x, surv=surv, blocks=blocks: blockwise_ridge(x, surv, blocks))
        print(f"ridge  n = {n}, {surv.n_events} events, p = 146 in 8 blocks: {spent:.2f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:] or ["lasso", "cox", "bootstrap", "ridge"]
    for name in chosen:
        {"lasso": lasso, "cox": cox, "bootstrap": bootstrap, "ridge": ridge}[name]()
