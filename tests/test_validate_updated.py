"""What a validation leaves: an updated model that no other one replaces, and a Table 1 that explains its dashes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from untrained import save_untrained_bundle

from mtdlr.bundle import HEADER, read_bundle
from mtdlr.errors import StoreError
from mtdlr.model import FrozenModel
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.validate.update import update_nomogram
from mtdlr.validate.updated import UPDATED, require_free, require_same, save_updated, updated_model
from mtdlr.validate.write import cohort_table


@pytest.mark.slow
def test_an_updated_model_is_never_overwritten_by_another(tmp_path: Path) -> None:
    """The same update may be made again; another method, another parent, other patients or something that is no model
    in its place are E-EXISTS, and what lies there stays."""
    received, scratch = tmp_path / "received", tmp_path / "scratch"
    for folder in (received, scratch):
        folder.mkdir()
    save_untrained_bundle(received, scratch)
    model, rng = read_bundle(received), np.random.default_rng(5)
    rows = pd.DataFrame({"tnm_stage": rng.choice(["III", "IVa"], 60), "auto_radio": rng.normal(size=60),
                         "deepmts": rng.normal(size=60)})
    surv = Survival(rng.exponential(30.0, 60) + 0.1, np.ones(60))

    def made(method: str, n: int = 60) -> FrozenModel:
        update = update_nomogram(model.nomograms["mtdlr"], rows.head(n), surv.take(np.arange(60) < n), method,
                                 resamples=3)  # type: ignore[arg-type]
        return updated_model(model, update)

    require_free(tmp_path, model, "baseline")
    require_same(tmp_path, made("baseline"))
    save_updated(tmp_path, made("baseline"))
    before = (tmp_path / UPDATED / HEADER).read_bytes()
    for again in (lambda: require_free(tmp_path, model, "baseline"), lambda: require_same(tmp_path, made("baseline")),
                  lambda: save_updated(tmp_path, made("baseline")), lambda: require_free(tmp_path, model, "none")):
        again()
    for refused in (lambda: require_free(tmp_path, model, "slope"), lambda: require_same(tmp_path, made("slope")),
                    lambda: require_free(tmp_path, read_bundle(tmp_path / UPDATED), "baseline"),
                    lambda: require_same(tmp_path, made("baseline", 50))):
        with pytest.raises(StoreError, match="E-EXISTS"):
            refused()
    assert (tmp_path / UPDATED / HEADER).read_bytes() == before
    (tmp_path / UPDATED / HEADER).write_text("{}")
    require_free(tmp_path, model, "none")  # nothing will be written there
    with pytest.raises(StoreError, match="E-EXISTS"):
        require_same(tmp_path, made("baseline"))


def test_a_dash_in_table_1_says_how_to_fill_it() -> None:
    """A column of the training cohort that the new study does not name stands as a dash, and a note says so; named, it
    is described, and there is no note."""
    rows = pd.DataFrame({"age": np.arange(40.0, 60.0), "event": [0, 1] * 10})
    margin = {"name": "age", "label": "Age", "n": 120, "quartiles": [37, 45, 53]}

    def table(**cohort: Any) -> Any:
        found = SimpleNamespace(model=SimpleNamespace(aggregates=SimpleNamespace(margins=[margin]), facts={"n": 120}),
                                cohort=type("Cohort", (), {"table": rows, "__len__": lambda self: len(rows)})(),
                                study=Study.of({"cohort": {"factors": {"tnm_stage": ["III", "IVa"]}} | cohort}))
        return cohort_table(cast(Any, found))

    bare, named = table(), table(continuous=["age"])
    assert ("Age", "-", "45 (37-53)") in bare.rows and "Name it under [cohort]" in bare.footnotes[-1]
    assert ("Age", "49.5 (44.75-54.25)", "45 (37-53)") in named.rows and len(named.footnotes) == 1
