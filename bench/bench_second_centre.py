"""What each update of a received model is worth at a synthetic second centre, on patients it was not made from.

    python bench/bench_second_centre.py [--patients 400] [--seeds 4] [--resamples 100]

Scores are drawn from the synthetic truth instead of from trained networks, for the question is statistical: a training
cohort of 522 makes the nomogram, 400 patients of the second hospital (76 or 77 events) update it, in ten folds.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from mtdlr.nomogram import Nomogram
from mtdlr.stats.concordance import concordance
from mtdlr.stats.terms import Continuous, Factor
from mtdlr.survival import Survival
from mtdlr.synthetic.truth import simulate_cohort
from mtdlr.validate.performance import validate_table
from mtdlr.validate.update import update_nomogram

STAGE = Factor("tnm_stage", ("III", "IVa"), "III")
TERMS = (STAGE, Continuous("auto_radio"), Continuous("deepmts"))


def scored(split: str, n: int, seed: int) -> tuple[pd.DataFrame, Survival]:
    """A cohort with the scores that networks and radiomics might give: parts of the truth, and noise."""
    rng = np.random.default_rng([seed, 90, n])
    clinical, truth = simulate_cohort(split, n, rng)
    inside = truth["volume"] + truth["heterogeneity"]
    table = clinical.assign(auto_radio=inside + 0.8 * rng.standard_normal(n),
                            deepmts=inside + truth["invasion"] + truth["nodes"] + 1.0 * rng.standard_normal(n))
    return table, Survival(clinical["time_months"].to_numpy(float), clinical["event"].to_numpy(bool))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("patients", 400), ("seeds", 4), ("resamples", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    kept = []
    for seed in range(asked.seeds):
        table, surv = scored("training", 522, seed)
        nomogram = Nomogram.fit(table, surv, TERMS, [36, 60])
        new, follow_up = scored("external", asked.patients, seed)
        received = validate_table(nomogram, new, follow_up)
        for method in ("baseline", "slope", "refit"):
            found = update_nomogram(nomogram, new, follow_up, method, month=60, resamples=asked.resamples, seed=seed)
            judged = found.cross_validated[method]
            same = concordance(found.nomogram.log_hazard(new), follow_up).c.value == received.c.value
            kept.append({"seed": seed, "events": follow_up.n_events, "method": method, "oe as received":
                         found.received.oe, "slope as received": found.received.slope, "oe": judged.oe,
                         "slope": judged.slope, "C": judged.c, "IPA": judged.ipa, "C unchanged": same,
                         "corrected slope": found.optimism.corrected.slope, "closed test": found.test.chosen})
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in kept[-1].items()}, flush=True)
    table = pd.DataFrame(kept)
    print(table.groupby("method")[["oe", "slope", "C", "IPA"]].mean().round(3))


if __name__ == "__main__":
    main()
