"""The nomogram's cost: fitting, reading 100,000 patients off it, drawing it; beside lifelines where it does the same.

Run: python bench/bench_nomogram.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter

from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.calculator import calculator_html
from mtdlr.report.figures import nomogram_figure, save
from mtdlr.survival import Survival

MONTHS = [36.0, 60.0]
VARIABLES = ["tnm_stage", "auto_radio", "deepmts"]


def cohort(n: int, seed: int = 0) -> pd.DataFrame:
    """n patients with the effects of the paper's Table 3."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"tnm_stage": rng.choice(["III", "IVa"], n, p=[0.8, 0.2]), "auto_radio": rng.normal(0, 1.5, n),
                          "deepmts": rng.normal(0, 0.8, n)})
    risk = 0.381 * (table.tnm_stage == "IVa") + 0.399 * table.auto_radio + 1.433 * table.deepmts
    event_time, censored = rng.exponential(250.0 / np.exp(risk)), rng.uniform(40.0, 120.0, n)
    return table.assign(time=np.minimum(event_time, censored) + 0.1, event=event_time <= censored)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median CPU seconds of a few runs, after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def main() -> None:
    """Print the table."""
    train, many = cohort(522), cohort(100_000, seed=1)
    surv = Survival(train.time, train.event)
    nomogram = Nomogram.fit(train, surv, VARIABLES, MONTHS)
    coded = [pd.get_dummies(t, columns=["tnm_stage"], drop_first=True, dtype=float) for t in (train, many)]
    peer = CoxPHFitter().fit(coded[0], "time", "event")
    patient = train.iloc[0].to_dict()
    folder = Path(tempfile.mkdtemp())
    rows: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
        ("fit, n = 522", lambda: Nomogram.fit(train, surv, VARIABLES, MONTHS),
         lambda: CoxPHFitter().fit(coded[0], "time", "event")),
        ("survival at 2 months, n = 100,000",
         lambda: nomogram.cox.survival(nomogram.design.matrix({v: many[v].to_numpy() for v in VARIABLES}), MONTHS),
         lambda: peer.predict_survival_function(coded[1], times=MONTHS)),
        ("the same with intervals", lambda: nomogram.survival(many), None),
        ("points of each variable, n = 100,000", lambda: nomogram.points(many), None),
        ("figure, drawn", lambda: nomogram_figure(nomogram), None),
        ("figure, drawn with a patient and 522 others, saved as PDF",
         lambda: save(nomogram_figure(nomogram, patient=patient, cohort=train), folder / "n.pdf"), None),
        ("calculator page", lambda: calculator_html(nomogram), None),
        ("JSON, there and back", lambda: Nomogram.from_json(nomogram.to_json()), None),
    ]
    print("| task | ours, s | lifelines, s | ratio |\n|---|---|---|---|")
    for name, ours, theirs in rows:
        a, b = seconds(ours), seconds(theirs) if theirs else None
        print(f"| {name} | {a:.4f} |" + (f" {b:.4f} | {b / a:.1f} |" if b else " - | - |"))
    page, text = calculator_html(nomogram), nomogram.to_json()
    print(f"\ncalculator {len(page.encode())} bytes, nomogram.json {len(text)} bytes")


if __name__ == "__main__":
    main()
