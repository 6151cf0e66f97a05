"""The prediction error of a frozen nomogram over the whole follow-up as one number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtdlr.nomogram import Nomogram
from mtdlr.stats.decision import IntegratedBrier, integrated_brier
from mtdlr.survival import Survival


def integrated_error(nomogram: Nomogram, rows: pd.DataFrame, month: float) -> dict[str, IntegratedBrier]:
    """The Brier score of a nomogram integrated over the whole months up to a horizon, by cohort with an event.

    Args:
        nomogram: frozen.
        rows: split, time_months, event and the nomogram's columns, complete.
        month: the last month; a cohort that is not followed so far has nan.
    """
    months = np.unique(np.append(np.arange(1.0, month), month))
    parts = {str(split): part for split, part in rows.groupby("split", sort=False) if part["event"].any()}
    return {split: integrated_brier(nomogram.survival(part, months).value, Survival(
        part["time_months"].to_numpy(float), part["event"].to_numpy(bool)), months)
            for split, part in parts.items() if months.size > 1}
