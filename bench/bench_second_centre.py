"""What each update of a received model is worth at a synthetic second centre, on patients it was not made from.

    python bench/bench_second_centre.py [--patients 400] [--seeds 4] [--resamples 100]
    python bench/bench_second_centre.py --bundle demo/runs/study/bundle --folder /tmp/second

400 patients of the second hospital (76 or 77 events) update a nomogram, in ten folds. Without `--bundle` the scores
are drawn from the synthetic truth, and a training cohort of 522 makes the nomogram: the question is statistical. With
it the patients have scans of the second scanner, which go through the model's networks and radiomics as in `validate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mtdlr.bundle import read_bundle
from mtdlr.cohort import impute
from mtdlr.nomogram import Nomogram
from mtdlr.stats.concordance import concordance
from mtdlr.stats.terms import Continuous, Factor
from mtdlr.study import MAIN, Study
from mtdlr.survival import Survival
from mtdlr.synthetic import write_study
from mtdlr.synthetic.truth import simulate_cohort
from mtdlr.validate.performance import validate_table
from mtdlr.validate.run import validate_cohort
from mtdlr.validate.update import update_nomogram
from mtdlr.workers import Workers

STAGE = Factor("tnm_stage", ("III", "IVa"), "III")
TERMS = (STAGE, Continuous("auto_radio"), Continuous("deepmts"))
Given = tuple[Nomogram, pd.DataFrame, Survival]


def scored(split: str, n: int, seed: int) -> tuple[pd.DataFrame, Survival]:
    """A cohort with the scores that networks and radiomics might give: parts of the truth, and noise."""
    rng = np.random.default_rng([seed, 90, n])
    clinical, truth = simulate_cohort(split, n, rng)
    inside = truth["volume"] + truth["heterogeneity"]
    table = clinical.assign(auto_radio=inside + 0.8 * rng.standard_normal(n),
                            deepmts=inside + truth["invasion"] + truth["nodes"] + 1.0 * rng.standard_normal(n))
    return table, Survival(clinical["time_months"].to_numpy(float), clinical["event"].to_numpy(bool))


def from_truth(n: int, seed: int) -> Given:
    """A nomogram of drawn scores, and the second centre's."""
    table, surv = scored("training", 522, seed)
    return Nomogram.fit(table, surv, TERMS, [36, 60]), *scored("external", n, seed)


def from_images(bundle: Path, folder: Path, n: int, seed: int) -> Given:
    """A received model's nomogram, and the second centre's patients scored from their scans; what is there stays."""
    place = folder / f"seed{seed}"
    if not (place / "study.toml").exists():
        write_study(place, n_training=0, n_internal=0, n_external=n, seed=seed, workers=Workers(2, 1))
    model = read_bundle(bundle)
    found = validate_cohort(model, Study.load(place / "study.toml"), place / "out", workers=Workers(2, 1))
    rows = impute(found.cohort.table, model.imputed)[0].join(found.scores)
    print(f"seed {seed}: {len(rows)} of {n} judged", flush=True)
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    return model.nomograms[MAIN], rows, surv


def worth(given: Given, seed: int, resamples: int) -> list[dict[str, object]]:
    """Of each update: calibration, C and IPA on left-out patients, and whether C stays what it was."""
    nomogram, new, follow_up = given
    received, kept = validate_table(nomogram, new, follow_up), []
    for method in ("baseline", "slope", "refit"):
        found = update_nomogram(nomogram, new, follow_up, method, month=60, resamples=resamples, seed=seed)
        judged = found.cross_validated[method]
        same = concordance(found.nomogram.log_hazard(new), follow_up).c.value == received.c.value
        kept.append({"seed": seed, "events": follow_up.n_events, "method": method, "oe as received": found.received.oe,
                     "slope as received": found.received.slope, "C as received": received.c.value, "oe": judged.oe,
                     "slope": judged.slope, "C": judged.c, "IPA": judged.ipa, "C unchanged": same,
                     "corrected slope": found.optimism.corrected.slope, "closed test": found.test.chosen})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in kept[-1].items()}, flush=True)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("patients", 400), ("seeds", 4), ("resamples", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bundle", type=Path, help="a model folder, whose networks score made-up scans")
    parser.add_argument("--folder", type=Path, default=Path("second-centre"), help="where scans and results go")
    asked = parser.parse_args()
    kept = []
    for seed in range(asked.seeds):  # the demo's own second centre has seed 0
        given = (from_images(asked.bundle, asked.folder, asked.patients, seed + 1) if asked.bundle
                 else from_truth(asked.patients, seed))
        kept += worth(given, seed, asked.resamples)
    print(pd.DataFrame(kept).groupby("method")[["oe", "slope", "C", "IPA"]].mean().round(3))


if __name__ == "__main__":
    main()
