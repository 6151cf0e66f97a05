"""Speed of the evaluating statistics against lifelines and scikit-survival, in one run on one core.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python bench/bench_stats_eval.py

CPU seconds of the fastest of a few runs, after one run to compile. Peers give the bare statistic; ours hold interval,
standard error and p as well. A peer that would take more than about a minute is left out at that size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index
from sksurv.compare import compare_survival
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from mtdlr.stats import (
    auc_at,
    brier_score,
    calibrate,
    compare_concordance,
    concordance,
    decision_curve,
    delong,
    fisher,
    integrated_brier,
    kaplan_meier,
    log_rank,
    roc,
)
from mtdlr.survival import Survival

SKSURV_PAIRS, SKSURV_LOG_RANK = 10**4, 10**5  # above this: minutes, or more memory than there is


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, Survival]:
    """A risk and follow-up with about 60 % events by 36 months."""
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=n)
    time, censor = generator.exponential(36 * np.exp(-risk)), generator.uniform(10, 120, n)
    return risk, Survival(np.minimum(time, censor) + 1e-9, time <= censor)


def seconds(call: Callable[..., object], *arguments: object, **keywords: object) -> float:
    """CPU seconds of the fastest of three runs; of one when it is long."""
    best = np.inf
    for _ in range(3):
        started = process_time()
        call(*arguments, **keywords)
        best = min(best, process_time() - started)
        if best > 5:
            break
    return float(best)


def line(what: str, n: int, ours: float, peer: str = "", theirs: float | None = None) -> None:
    """One row of the table."""
    ratio = f"{theirs / ours:,.1f}" if theirs else ""
    print(f"| {what} | {n:,} | {ours:.4f} | {peer} | {'' if theirs is None else f'{theirs:.4f}'} | {ratio} |")


def discrimination(n: int) -> None:
    """Concordance, its comparisons and ROC curves."""
    risk, surv = cohort(n)
    time, event, other = surv.time_months, surv.event, -np.abs(risk)
    y = Surv.from_arrays(event, time)
    ours = seconds(concordance, risk, surv)
    line("Harrell's C", n, ours, "lifelines", seconds(concordance_index, time, -risk, event))
    uno = seconds(concordance, risk, surv, weighting="uno", tau=60)
    if n <= SKSURV_PAIRS:
        line("Harrell's C", n, ours, "sksurv", seconds(concordance_index_censored, event, time, risk))
        line("Uno's C", n, uno, "sksurv", seconds(concordance_index_ipcw, y, y, risk, tau=60))
    else:
        line("Uno's C", n, uno)
    line("C comparison, jackknife", n, seconds(compare_concordance, risk, other, surv, method="jackknife"))
    line("C comparison, compareC", n, seconds(compare_concordance, risk, other, surv))
    line("AUC at 36 months", n, seconds(auc_at, risk, surv, 36), "sksurv (no error)",
         seconds(cumulative_dynamic_auc, y, y, risk, [36.0]))
    line("ROC with DeLong", n, seconds(roc, risk, event))
    line("DeLong's paired test", n, seconds(delong, risk, other, event))


def curves(n: int) -> None:
    """Kaplan-Meier and log-rank."""
    risk, surv = cohort(n)
    time, event = surv.time_months, surv.event
    km = seconds(kaplan_meier, surv)
    line("Kaplan-Meier", n, km, "lifelines", seconds(KaplanMeierFitter().fit, time, event))
    line("Kaplan-Meier", n, km, "sksurv", seconds(kaplan_meier_estimator, event, time, conf_type="log-log"))
    group = (risk > 0).astype(int) + (risk > 1)
    test = seconds(log_rank, group, surv)
    line("log-rank, 3 groups", n, test, "lifelines", seconds(multivariate_logrank_test, time, group, event))
    if n <= SKSURV_LOG_RANK:
        line("log-rank, 3 groups", n, test, "sksurv", seconds(compare_survival, Surv.from_arrays(event, time), group))


def prediction(n: int) -> None:
    """Brier, calibration, usefulness."""
    risk, surv = cohort(n)
    months = np.linspace(6, 60, 100)
    table, predicted = np.exp(-np.exp(risk)[:, None] * months / 36), np.exp(-np.exp(risk))
    y = Surv.from_arrays(surv.event, surv.time_months)
    line("integrated Brier, 100 months", n, seconds(integrated_brier, table, surv, months), "sksurv",
         seconds(integrated_brier_score, y, y, table, months))
    line("Brier with error", n, seconds(brier_score, predicted, surv, 36))
    line("calibrate, all of it", n, seconds(calibrate, predicted, surv, 36))
    line("decision curve, 99 thresholds", n, seconds(decision_curve, predicted, surv, 36))
    if n < 10**4:
        line("C comparison, 1,000 resamples", n, seconds(
            compare_concordance, risk, -np.abs(risk), surv, method="bootstrap"))


def tables() -> None:
    """Fisher's exact test of the 4 x 3 tables of the paper's Table 1 (886 patients)."""
    counts = json.loads((Path(__file__).parents[1] / "tests/reference/paper_table1_categorical.json").read_text())
    for name in ("ebv", "t_stage", "n_stage"):
        line(f"Fisher's exact, {name}", 886, seconds(fisher, counts[name]["counts"]))


if __name__ == "__main__":
    warm_risk, warm = cohort(200)
    compare_concordance(warm_risk, -warm_risk, warm)
    calibrate(np.exp(-np.exp(warm_risk)), warm, 36)
    fisher([[3, 1], [1, 3]])
    print("| statistic | patients | ours, s | peer | peer, s | peer / ours |\n|---|---|---|---|---|---|")
    for size in (10**3, 10**4, 10**5, 10**6):
        discrimination(size)
        curves(size)
    for size in (522, 10**4):
        prediction(size)
    tables()
