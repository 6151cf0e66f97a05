"""The prediction for one patient as a value: numbers for JSON, words for a terminal, a table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Any

import pandas as pd

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.nomogram import Nomogram
from mtdlr.prepared import Prepared
from mtdlr.report.figures import percent
from mtdlr.report.model_card import ModelCard
from mtdlr.shift import Shift
from mtdlr.versions import package_version
from mtdlr.volume import Volume

if TYPE_CHECKING:
    from mtdlr.explain import Attribution  # torch

RESEARCH = "For research only; not a medical device."


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a frozen model says of one patient.

    Args:
        risk: log-hazard of the MTDLR nomogram; higher is worse.
        survival: by horizon in months, with its interval.
        group: "high" or "low" at the frozen cut-off; "" where the model has none.
        points: nomogram points by factor, and `total`.
        scores: deepmts, deepmts_sd (spread of the fold ensemble), single_task, auto_radio.
        clinical: the values that went in.
        mask: the predicted tumour on the network grid.
        prepared: the patient as the networks saw it.
        problems: warnings of every step.
        attribution: where the DeepMTS-Score came from, if that was asked for.
        shift: how far the scan lies from the training scans; None where the model keeps no reference.
        lower_bound_months: free of the event until then, for 90 % of patients; nan where the model keeps no bound.
        model: digest of the frozen model; two models with one digest predict the same.
        card: who trained the model and how well it does; None where that is not known.
        uptake: SUV, MTV and TLG of the predicted tumour, as `radiomics.extract.pet_parameters`.
    """

    risk: float
    survival: Mapping[float, Estimate]
    group: str
    points: Mapping[str, float]
    scores: Mapping[str, float]
    clinical: Mapping[str, Any]
    mask: Volume
    prepared: Prepared
    nomogram: Nomogram
    problems: tuple[Problem, ...]
    attribution: Attribution | None = None
    shift: Shift | None = None
    lower_bound_months: float = nan
    model: str = ""
    card: ModelCard | None = None
    uptake: Mapping[str, float] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Of mtdlr."""
        return package_version()

    @property
    def mask_ml(self) -> float:
        """Volume of the predicted tumour, ml."""
        return float(self.mask.array.sum() * self.mask.voxel_ml)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; no images."""
        return {
            "model": self.model, "version": self.version, "endpoint": self.nomogram.endpoint,
            "risk": self.risk, "group": self.group, "points": dict(self.points),
            "scores": {name: _finite(value) for name, value in self.scores.items()},
            "survival": {f"{month:g}": {name: _finite(getattr(e, name)) for name in ("value", "low", "high")}
                         for month, e in self.survival.items()},
            "clinical": dict(self.clinical), "mask_ml": self.mask_ml,
            "uptake": {name: _finite(value) for name, value in self.uptake.items()},
            **({} if self.card is None else {"training": self.card.as_dict(self.risk)}),
            **({} if self.attribution is None else {"attribution": self.attribution.as_dict()}),
            **({} if self.shift is None else {"shift": self.shift.as_dict()}),
            "lower_bound_months": None if isnan(self.lower_bound_months) else self.lower_bound_months,
            "scan": self.prepared.audit, "problems": [p.as_dict() for p in self.problems], "note": RESEARCH,
        }

    def __repr__(self) -> str:
        survival = ", ".join(f"{month:g} months {percent(e.value)}" for month, e in self.survival.items())
        return f"Prediction({self.nomogram.endpoint}: {survival}; group {self.group or 'none'}; " \
               f"{len(self.problems)} warnings)"

    def summary(self) -> str:
        """Every warning, survival at each horizon, risk group and points, a line each."""
        return str(self)

    def to_frame(self) -> pd.DataFrame:
        """One row a number with value, low and high: the endpoint at each horizon, log hazard, points, each score."""
        rows = {f"{self.nomogram.endpoint} at {month:g} months": (e.value, e.low, e.high)
                for month, e in self.survival.items()}
        alone = {"log hazard": self.risk, "points": self.points["total"], **self.scores}
        rows |= {name: (value, nan, nan) for name, value in alone.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"], dtype=float)

    def _repr_html_(self) -> str:
        """A small table for a notebook; `report.patient_page` is the whole page."""
        rows = [(f"{self.nomogram.endpoint} at {month:g} months", f"{percent(e.value)} ({percent(e.low)} to "
                 f"{percent(e.high)})" if isfinite(e.low) else percent(e.value)) for month, e in self.survival.items()]
        rows += [("risk group", self.group or "none"), ("points", f"{self.points['total']:.0f}"),
                 *((problem.code, problem.what) for problem in self.problems), ("", RESEARCH)]
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
        return f"<table>{cells}</table>"

    def __str__(self) -> str:
        lines = [f"{self.nomogram.endpoint} at {month:g} months: {100 * e.value:.1f} % "
                 f"({100 * e.low:.1f}-{100 * e.high:.1f})" for month, e in self.survival.items()]
        lines += [f"risk group: {self.group or 'none'}", f"points: {self.points['total']:.0f}", RESEARCH]
        return "\n".join([*map(str, self.problems), *lines])


def _finite(value: float) -> float | None:
    """The number, or None for one that JSON does not know."""
    return float(value) if isfinite(value) else None
