"""How often a score that knows nothing has P < .05, for C and AUC(t), with few events.

Sixty patients, exponential times, so many of them with the event; 600 samples each. Samples without a P are left out.
"""

from __future__ import annotations

import numpy as np

from mtdlr.errors import MtdlrError
from mtdlr.stats import auc_at, concordance
from mtdlr.survival import Survival


def main(patients: int = 60, samples: int = 600) -> None:
    """Print one line for each number of events."""
    random = np.random.default_rng(1)
    for events in (2, 3, 5, 10, 19):
        found: dict[str, list[float]] = {"C": [], "AUC(t)": []}
        for _ in range(samples):
            time, event = random.exponential(1.0, patients), np.zeros(patients, bool)
            event[random.choice(patients, events, replace=False)] = True
            surv, risk = Survival(time + 0.01, event), random.normal(size=patients)
            found["C"].append(concordance(risk, surv).c.p)
            try:
                found["AUC(t)"].append(auc_at(risk, surv, float(np.quantile(time, 0.6))).auc.p)
            except MtdlrError:
                continue
        print(events, "events:", ", ".join(
            f"{name} {np.mean(np.array(p)[np.isfinite(p)] < 0.05):.1%} of {np.isfinite(p).sum()}"
            for name, p in found.items()))


if __name__ == "__main__":
    main()
