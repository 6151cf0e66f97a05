"""The figures of the gallery, from a made-up cohort at the paper's size: python docs/gallery.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from mtdlr import Nomogram, Survival, calibrate, kaplan_meier, log_rank
from mtdlr.report import figures
from mtdlr.stats.decision import decision_curve
from mtdlr.synthetic import simulate_study

MONTH = 36


def draw(folder: Path) -> None:
    """Write the five figures as SVG."""
    clinical, truth = simulate_study(seed=0)
    table = clinical.merge(truth[["patient_id", "volume_ml"]], on="patient_id")
    train, other = (table[table.center == center] for center in ("A", "B"))
    surv = {name: Survival(rows.time_months, rows.event) for name, rows in (("train", train), ("other", other))}
    nomogram = Nomogram.fit(train, surv["train"], ["tnm_stage", "age", "volume_ml"], [MONTH, 60], endpoint="PFS",
                            labels={"tnm_stage": "TNM stage", "age": "Age, years", "volume_ml": "Volume, ml"})
    risk, predicted = nomogram.log_hazard(other), nomogram.survival(other).value[:, 0]
    high = risk > nomogram.log_hazard(train).mean()
    groups = {name: Survival(other.time_months[rows], other.event[rows])
              for name, rows in (("Low risk", ~high), ("High risk", high))}
    patient = {"tnm_stage": "IVa", "age": 52.0, "volume_ml": 30.0}
    drawn = {
        "nomogram": figures.nomogram_figure(nomogram, patient=patient, cohort=train, width="double"),
        "calibration": figures.calibration_figure({MONTH: calibrate(predicted, surv["other"], MONTH)},
                                                  endpoint="PFS"),
        "kaplan-meier": figures.kaplan_meier_figure({name: kaplan_meier(one) for name, one in groups.items()},
                                                    p=log_rank(high, surv["other"]).p, endpoint="PFS"),
        "decision": figures.decision_figure({"Nomogram": decision_curve(predicted, surv["other"], MONTH)}),
        "patient": figures.survival_curve_figure(nomogram, patient),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.svg")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
