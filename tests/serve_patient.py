"""A predictor that gives every scan the prediction of one synthetic patient: for what a browser shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from bedside_pictures import synthetic
from one_prediction import card, nomogram, prediction

from mtdlr.predict import Bundle, Prediction
from mtdlr.serve.predictor import predictor_of
from mtdlr.serve.worker import Predictor
from mtdlr.study import MAIN


def load() -> Predictor:
    """The predictor."""
    made = synthetic(prediction())

    def predict(scan: Any, *, clinical: Any, **_: Any) -> Prediction:
        assert dict(clinical) == dict(made.clinical), clinical
        return made

    frozen = SimpleNamespace(nomograms={MAIN: nomogram()}, cutoffs={MAIN: card().cutoff}, digest=card().digest,
                             harmonised_centers=(), study=SimpleNamespace(nomogram_covariates=("tnm_stage",)))
    return predictor_of(cast(Bundle, SimpleNamespace(networks={"none": ()}, frozen=frozen, predict=predict)))
