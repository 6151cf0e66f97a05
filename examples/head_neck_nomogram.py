"""A nomogram of the TCIA Head-Neck-PET-CT cohort: fitted on two centres, validated on two others, at 36 months."""
import sys
from pathlib import Path

import pandas as pd

from mtdlr.nomogram import Nomogram
from mtdlr.report.figures import calibration_figure, nomogram_figure, roc_figure, save
from mtdlr.stats import auc_at, calibrate, concordance
from mtdlr.survival import Survival

path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared/data/head_neck/clinical.csv")
if not path.exists():
    sys.exit(f"No table at {path}: download the clinical data of the collection and give its path.")
out = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
table = pd.read_csv(path).assign(t=lambda d: d.t_stage.str[:2], n=lambda d: d.n_stage.str[:2]).query("t != 'Tx'")
train, external = (table[table.center.isin(centers)] for centers in (["HGJ", "CHUS"], ["HMR", "CHUM"]))
follow_up = {part: Survival(rows.time_months, rows.event) for part, rows in (("train", train), ("ext", external))}
nomogram = Nomogram.fit(train, follow_up["train"], ["age", "t", "n"], [36], endpoint="PFS",
                        labels={"age": "Age, years", "t": "T stage", "n": "N stage"})
risk, predicted = nomogram.log_hazard(external), nomogram.survival(external).value[:, 0]
save(nomogram_figure(nomogram, cohort=train), out / "nomogram.pdf")
save(calibration_figure({36: calibrate(predicted, follow_up["ext"], 36)}, predicted={36: predicted}, endpoint="PFS",
                        width="single"), out / "calibration.pdf")
save(roc_figure({"Nomogram": auc_at(risk, follow_up["ext"], 36)}), out / "roc.pdf")
print("External C-index", concordance(risk, follow_up["ext"]).c)
