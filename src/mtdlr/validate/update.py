"""A frozen nomogram updated on the new centre's patients, and what the update is worth on patients it did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from mtdlr.errors import Problem
from mtdlr.nomogram import Nomogram
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.lasso import stratified_folds
from mtdlr.stats.updating import (
    METHODS,
    ClosedTest,
    Method,
    Performance,
    Update,
    UpdateOptimism,
    calibration_at,
    closed_test,
    effective_sample_size,
    performance,
    update_cox,
    update_optimism,
)
from mtdlr.survival import Survival

Choice = Literal["none", "baseline", "slope", "refit"]
FOLDS = 10
FOLLOWED = 5
"""Patients followed to a horizon below which left-out patients are not judged at it."""


@dataclass(frozen=True, eq=False)
class NomogramUpdate:
    """A nomogram after its update, beside the nomogram as received.

    Args:
        nomogram: the updated one; the original is unchanged.
        update: what was estimated, from how many patients and events.
        month: horizon of the figures below.
        received: performance as received.
        cross_validated: performance on patients left out of the update, by method, in ten folds.
        optimism: of the chosen method, by the bootstrap.
        test: which update the patients demand.
        effective_n: median effective sample size of a patient's prediction, before and after; nan where unknown.
        problems: few events, an update that the test does not ask for, a refit that a smaller update beats.
    """

    nomogram: Nomogram
    update: Update
    month: float
    received: Performance
    cross_validated: Mapping[str, Performance]
    optimism: UpdateOptimism
    test: ClosedTest
    effective_n: tuple[float, float]
    problems: tuple[Problem, ...]


def update_nomogram(
    nomogram: Nomogram, table: pd.DataFrame, surv: Survival, method: Method, *, month: float | None = None,
    resamples: int = 200, seed: int = 0,
) -> NomogramUpdate:
    """The nomogram updated on other patients, with what the update is worth on patients it did not see.

    Args:
        nomogram: as received.
        table: the nomogram's columns, no value missing.
        surv: follow-up of the same rows.
        method: "baseline", "slope" or "refit".
        month: of calibration and Brier score; by default the nomogram's last horizon that the follow-up reaches.
        resamples: of the bootstrap.
        seed: of the bootstrap and of the folds.

    Raises:
        FitError: as `update_cox`.
    """
    x = nomogram.design.matrix({name: table[name].to_numpy(dtype=object) for name in nomogram.design.variables})
    at = _reached(nomogram, surv) if month is None else month
    updated = update_cox(nomogram.cox, x, surv, method)
    test = closed_test(nomogram.cox, x, surv, at)
    left_out: dict[str, Performance] = {each: _left_out(nomogram, x, surv, each, at, seed) for each in METHODS}
    optimism = update_optimism(nomogram.cox, x, surv, method, at, resamples=resamples, seed=seed)
    centred = updated.fit.log_hazard(x) - updated.fit.center
    new = replace(nomogram, cox=updated.fit, log_hazard_range=(float(centred.min()), float(centred.max())))
    middle = tuple(float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else float("nan")
                   for sizes in (effective_sample_size(fit, x, at) for fit in (nomogram.cox, updated.fit)))
    return NomogramUpdate(new, updated, at, performance(nomogram.cox, x, surv, at), left_out, optimism, test,
                          (middle[0], middle[1]), (*updated.problems, *_advice(method, test, left_out)))


def update_numbers(found: NomogramUpdate) -> dict[str, Any]:
    """Every number of an update as plain values for JSON."""
    return {
        "method": found.update.method, "n": found.update.n, "events": found.update.n_events,
        "slope": found.update.slope, "shrinkage": _finite(found.update.shrinkage), "month": found.month,
        "as_received": _plain(found.received),
        "left_out": {name: _plain(judged) for name, judged in found.cross_validated.items()},
        "optimism": {"apparent": _plain(found.optimism.apparent), "corrected": _plain(found.optimism.corrected),
                     "resamples": found.optimism.resamples, "failed": found.optimism.failed},
        "closed_test": {"chosen": found.test.chosen, **{
            name: _finite(getattr(found.test, name).p) for name in ("against_none", "against_baseline",
                                                                    "against_slope")}},
        "effective_n": [_finite(n) for n in found.effective_n],
    }


def _reached(nomogram: Nomogram, surv: Survival) -> float:
    """The last horizon with an event before it and enough patients followed to it that each fold keeps one; the first
    where there is none.
    """
    fit = [month for month in nomogram.months if (surv.time_months >= month).sum() >= FOLLOWED
           and (surv.event & (surv.time_months <= month)).any()]
    return fit[-1] if fit else nomogram.months[0]


def _left_out(nomogram: Nomogram, x: Any, surv: Survival, method: Method, month: float, seed: int) -> Performance:
    """Performance on patients whom the update did not see, in folds even in events."""
    folds = stratified_folds(surv.event, min(FOLDS, max(2, surv.n_events // 2)), seed)
    relative, survival = np.empty(len(surv)), np.empty(len(surv))
    for k in np.unique(folds):
        fit = update_cox(nomogram.cox, x[folds != k], surv.take(folds != k), method).fit
        survival[folds == k] = fit.survival(x[folds == k], [month])[:, 0]
        relative[folds == k] = fit.log_hazard(x[folds == k])
    slope = float("nan")
    if np.isfinite(survival).all():
        cloglog = np.log(-np.log(np.clip(survival, 1e-9, 1.0 - 1e-9)))
        slope = float(fit_cox(cloglog - cloglog.mean(), surv).coef[0])
    # Ranks by the log hazard: the folds' own baselines would mix into a C-index of predicted survival.
    return Performance(concordance(relative, surv).c.value, slope, *calibration_at(survival, surv, month))


def _advice(method: Method, test: ClosedTest, left_out: Mapping[str, Performance]) -> list[Problem]:
    """Warnings about the choice of the update."""
    problems = []
    order = ("none", *METHODS)
    if order.index(method) > order.index(test.chosen):
        problems.append(Problem("W-UPDATEMORE", "the update is larger than the closed test chose", found=method,
                                expected=test.chosen, remedy="Report the smaller update beside it"))
    smaller = [name for name in METHODS[: METHODS.index(method)] if left_out[name].ipa >= left_out[method].ipa]
    if smaller:
        problems.append(Problem(
            "W-UPDATEWORSE", f"on patients left out of the update, '{smaller[0]}' does at least as well as '{method}'",
            found=f"IPA {left_out[method].ipa:.3f}", expected=f"above {left_out[smaller[0]].ipa:.3f}",
            remedy=f"Take --update {smaller[0]}"))
    return problems


def _plain(judged: Performance) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in vars(judged).items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
