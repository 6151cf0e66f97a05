"""What can be read back from a nomogram that is given away: the attack that reads rows, and that it fails."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import BundleError
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.calculator import calculator_html
from mtdlr.shift import Reference
from mtdlr.shift.aggregates import Aggregates, margins
from mtdlr.stats.conformal import fit_lower_bound
from mtdlr.stats.cox_baseline import Baseline
from mtdlr.study import CohortSettings
from mtdlr.survival import Survival


def _study(n: int = 90) -> tuple[pd.DataFrame, Survival]:
    """Patients with distinct times in days and scores of four digits; few are censored, as an attacker likes it."""
    random = np.random.default_rng(3)
    table = pd.DataFrame({"a": random.normal(size=n).round(4), "b": random.normal(size=n).round(4)})
    time = random.exponential(30.0 * np.exp(-0.6 * table.a - 0.4 * table.b)) + 0.01
    return table, Survival(time, random.random(n) < 0.85)


def _read_back(base: Baseline, covariates: int) -> list[tuple[float, np.ndarray]]:
    """The attack: from one event to the next, the sums over the risk set fall by who left it; (month, row) of each."""
    hazard = np.exp(base.log_hazard)
    steps = np.diff(hazard, prepend=0.0)
    sums = np.diff(base.mean * hazard[:, None], axis=0, prepend=np.zeros((1, covariates)))
    with np.errstate(divide="ignore", invalid="ignore"):
        at_risk = base.events / steps
        weighted = sums / steps[:, None] * at_risk[:, None]
        lost, moved = -np.diff(at_risk), -np.diff(weighted, axis=0)
        return [(float(base.time_months[k]), moved[k] / lost[k]) for k in range(lost.size)]


def _found(nomogram: Nomogram, table: pd.DataFrame, surv: Survival) -> int:
    """How many training patients with an event come back: their time to 0.01 month, or their scores to 1e-3."""
    centred = table.to_numpy() - nomogram.cox.means
    events = np.flatnonzero(surv.event)
    base = nomogram.cox.baseline
    times = np.abs(base.time_months[:, None] - surv.time_months[events]).min(axis=0) < 1e-6
    rows = np.array([row for _, row in _read_back(base, 2)]).reshape(-1, 2)
    rows = rows[np.isfinite(rows).all(axis=1)]
    near = np.abs(rows[:, None, :] - centred[None, events, :]).max(axis=2).min(axis=0, initial=9.0) < 1e-3
    return int((times | near).sum())


def test_the_attack_reads_rows_from_a_baseline_at_every_event() -> None:
    """The attacker of these tests is a real one: it reads all event times and many rows of an unprotected baseline."""
    table, surv = _study()
    exact = Nomogram.fit(table, surv, ["a", "b"], [12.0, 36.0])
    assert _found(exact, table, surv) == surv.n_events
    rows = np.array([row for _, row in _read_back(exact.cox.baseline, 2)])
    centred = table.to_numpy() - exact.cox.means
    near = np.abs(rows[:, None, :] - centred[None]).max(axis=2).min(axis=0) < 1e-3
    assert near.sum() > 20


def test_no_row_and_no_event_time_can_be_read_back_from_the_json() -> None:
    """From the JSON of the same nomogram the attack reads back nobody; each step holds five events or more."""
    table, surv = _study()
    given = Nomogram.from_json(Nomogram.fit(table, surv, ["a", "b"], [12.0, 36.0]).to_json())
    assert _found(given, table, surv) == 0
    base = given.cox.baseline
    assert (base.events[~np.isin(base.time_months, [12.0, 36.0])] >= 5).all() and (base.time_months % 1 == 0).all()
    assert base.last_month[0] == base.time_months[-1] <= surv.time_months.max()


def test_the_horizons_keep_their_survival_and_interval() -> None:
    """Survival and limits at the horizons are those of the fit to 1e-9; between the steps survival is close to it."""
    table, surv = _study(300)
    fitted = Nomogram.fit(table, surv, ["a", "b"], [12.0, 24.5, 36.0])
    given = Nomogram.from_json(fitted.to_json())
    for ours, theirs in zip((fitted.survival(table), ), (given.survival(table), ), strict=True):
        for part in ("value", "low", "high"):
            np.testing.assert_allclose(getattr(theirs, part), getattr(ours, part), rtol=0, atol=1e-9)
    months = np.arange(1.0, given.cox.baseline.last_month[0])
    gap = given.survival(table, months).value - fitted.survival(table, months).value
    assert np.abs(gap).mean() < 0.02 and np.abs(gap).max() < 0.2
    assert given.to_json() == fitted.to_json()


@pytest.mark.parametrize("change", [
    lambda v: v.update(schema=2), lambda v: v.update(more=1), lambda v: v["cox"].pop("means"),
    lambda v: v["cox"]["baseline"].update(rows=[1.0]), lambda v: v["cox"].update(coef=[1e308, 0.1]),
])
def test_a_json_that_is_not_of_this_schema_is_refused(change) -> None:
    """Another schema, a key too many or too few, and a number beyond 1e30 are E-NOMOGRAM."""
    table, surv = _study()
    values = json.loads(Nomogram.fit(table, surv, ["a", "b"], [12.0]).to_json())
    change(values)
    with pytest.raises(BundleError, match="E-NOMOGRAM"):
        Nomogram.from_json(json.dumps(values))


def _numbers(value: object) -> list[float]:
    """Every number of nested JSON values."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [number for part in parts for number in _numbers(part)]
    return [*found, float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else found


def test_no_row_and_no_event_time_can_be_read_from_the_calculator() -> None:
    """The page's data hold no follow-up time and no score of a training patient; its curve bends at whole months only,
    and between two bends lie five events or more."""
    table, surv = _study()
    page = calculator_html(Nomogram.fit(table, surv, ["a", "b"], [12.0, 36.0]))
    model = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S).group(1))
    numbers = np.array(_numbers(model))
    centred = table.to_numpy() - table.to_numpy().mean(axis=0)
    inner = np.array([row for row in table.to_numpy() if (row != table.min()).all() and (row != table.max()).all()])
    for secret in (surv.time_months, inner.ravel(), centred.ravel()):
        assert np.abs(numbers[:, None] - secret).min() > 1e-9
    months, log_hazard = np.array(model["curve"]).T
    assert (months % 1 == 0).all()
    steps = np.diff(np.exp(log_hazard), prepend=0.0)
    bends = months[np.flatnonzero(np.abs(np.diff(steps)) > 1e-9)]
    times = surv.time_months[surv.event]
    behind = [int(((times > low) & (times <= high)).sum()) for low, high in pairwise([0.0, *bends.tolist()])]
    merged = [n for month, n in zip(bends, behind, strict=True) if month not in (12.0, 36.0)]
    assert len(merged) > 3 and min(merged) >= 4


def test_no_group_under_five_stands_in_the_aggregates(tmp_path: Path) -> None:
    """Margins, the counts of the lower bound and the references rest on five patients or more; what is hidden cannot be
    had as the total less the rest."""
    table, surv = _study(60)
    table = table.assign(event=surv.event, grade=["I"] * 2 + ["II"] * 40 + ["III"] * 18, late=[1] + [0] * 59)
    settings = CohortSettings(continuous=("a",), factors={"grade": ("I", "II", "III")}, stage="grade",
                              described=("late",))
    random = np.random.default_rng(0)
    reference = Reference.fit([{"few": random.normal(size=2), **({"rare": random.normal(size=2)} if k < 4 else {})}
                               for k in range(60)], [{"scanner": "A" if k else "B"} for k in range(60)])
    bound = fit_lower_bound(random.random(60), surv)
    Aggregates(reference, bound, margins(table, settings), "salt", ()).save(tmp_path)
    values = json.loads((tmp_path / "aggregates.json").read_text())
    by_name: dict[str, list] = {}
    for row in values["margins"]:
        by_name.setdefault(row["name"], []).append(row["n"])
    assert by_name["grade"] == [None, 40, None] and by_name["late"] == [None, None]
    counts = [n for ns in by_name.values() for n in ns if n is not None] + values["bound"]["early"]
    assert all(n == 0 or n >= 5 for n in counts)
    held = json.loads((tmp_path / "reference.json").read_text())
    assert "rare" not in held["groups"] and all(group["n"] >= 20 for group in held["groups"].values())
    assert all(n >= 5 for kinds in held["counts"].values() for n in kinds.values() if n)
