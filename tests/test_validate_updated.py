"""The updated model of a validation stays where it is: another one is refused its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from untrained import save_untrained_bundle

from mtdlr.bundle import HEADER, read_bundle
from mtdlr.errors import StoreError
from mtdlr.model import FrozenModel
from mtdlr.survival import Survival
from mtdlr.validate.update import update_nomogram
from mtdlr.validate.updated import UPDATED, require_free, require_same, save_updated, updated_model


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
    with pytest.raises(StoreError, match="E-EXISTS"):
        require_same(tmp_path, made("baseline"))
