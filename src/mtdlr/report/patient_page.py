"""One patient's prediction as one page that loads nothing: warnings first, then the answer, then what it rests on.

The same page is printed as PDF (`pdf.write_pdf`). Every number on it stands in prediction.json.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isfinite
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mtdlr.errors import Problem
from mtdlr.report.audit import Rows, choice_of, suv_line
from mtdlr.report.explained import share_rows
from mtdlr.report.figures import (
    attribution_figure,
    embedded,
    nomogram_figure,
    percent,
    scan_figure,
    standing_figure,
    survival_curve_figure,
)
from mtdlr.report.prediction import Prediction
from mtdlr.shift.distance import REFUSE, WARN
from mtdlr.volume import Volume

OUT_OF_DISTRIBUTION = ("W-SHIFT", "W-PHYSICAL")
"""Codes of a scan unlike those of training; a refusal that was accepted on request has the remedy `Accepted ...`."""
_FIRST = (*OUT_OF_DISTRIBUTION, "W-TRAINED", "W-UNSEEN", "W-RANGE", "W-FIELDRISK", "W-FIELD")  # doubt every number
ENDPOINTS = {
    "pfs": ("progression-free survival", "alive without progression"), "os": ("overall survival", "alive"),
    "dfs": ("disease-free survival", "alive without disease"), "efs": ("event-free survival", "alive without an event"),
    "rfs": ("relapse-free survival", "alive without relapse"),
    "dmfs": ("distant metastasis-free survival", "alive without distant metastasis"),
}
"""The usual abbreviations of endpoints: in full, and what a patient is for whom nothing has happened."""
SPLITS = {"training": "training cohort", "internal": "internal validation", "external": "external validation"}
_NEAR = 0.05  # share of the training patients between a patient and the cut-off


@dataclass(frozen=True)
class Horizon:
    """Survival at one horizon: percents as printed, and the numbers behind them."""

    month: float
    value: float
    text: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Picture:
    """A figure with its alternative text and its caption."""

    source: str
    alt: str
    caption: str


def patient_page(prediction: Prediction) -> str:
    """The HTML of one patient's prediction: self-contained, without script, the same bytes for the same prediction.

    Args:
        prediction: of a frozen model.
    """
    p = prediction
    style = (files("mtdlr") / "report" / "templates" / "patient_page.css").read_text(encoding="utf-8")
    name, state = endpoint_words(p.nomogram.endpoint)
    return _template().render(
        style=Markup(style), style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        endpoint=p.nomogram.endpoint, endpoint_name=name, state=state, outside=is_outside(p), notices=notices(p),
        likeness=likeness(p), horizons=_horizons(p, state), group=group_words(p), standing=standing_words(p),
        bound=bound_words(p), points=_points(p), pictures=_pictures(p), uptake=_uptake(p), read=_read(p), card=_card(p),
        shares=() if p.attribution is None else share_rows(p.attribution.share, p.attribution.adds),
        outside_share="" if p.attribution is None else percent(p.attribution.outside),
        model=p.model, version=p.version, risk=p.risk, risk_text=_signed(p.risk, 3), total=p.points["total"])


def endpoint_words(endpoint: str) -> tuple[str, str]:
    """(the endpoint in full, the state of a patient without the event).

    >>> endpoint_words("OS"), endpoint_words("overall survival"), endpoint_words("LRRFS")
    (('overall survival', 'alive'), ('overall survival', 'alive'), ('LRRFS', 'free of the event'))
    """
    known = {name: (name, state) for name, state in ENDPOINTS.values()} | ENDPOINTS
    return known.get(endpoint.strip().lower(), (endpoint, "free of the event"))


def is_outside(prediction: Prediction) -> bool:
    """Whether the scan was predicted on request although it lies outside the training scans."""
    return any(p.code in OUT_OF_DISTRIBUTION and p.remedy.startswith("Accepted") for p in prediction.problems)


def notices(prediction: Prediction) -> list[Problem]:
    """The warnings without the patient's name, those that say how unlike the training scans this one is first."""
    plain = dict.fromkeys(Problem(p.code, p.what, p.place.removeprefix("row 0, "), p.found, p.expected, p.remedy)
                          for p in prediction.problems)
    return sorted(plain, key=lambda p: p.code not in _FIRST)


def likeness(prediction: Prediction) -> str:
    """How like the training scans this one is, in a sentence."""
    shift = prediction.shift
    if shift is None or not isfinite(shift.percentile):
        return "The model keeps no description of its training scans: nobody checked whether this scan is like them."
    if shift.percentile > REFUSE:
        return "The scan lies outside the training scans: more than 99.9 % of them lie closer to their mean."
    share = f"{100.0 * shift.percentile:.0f} % of them lie closer to their mean"
    if shift.percentile > WARN:
        return f"The scan lies at the edge of the training scans: {share}."
    return f"The scan looks like the training scans: {share}."


def group_words(prediction: Prediction) -> tuple[str, str]:
    """(the risk group, what it means); ("", why there is none)."""
    p = prediction
    if not p.group or p.card is None:
        return "", "The model has no cut-off, so it names no risk group."
    side = "at or above" if p.group == "high" else "below"
    meaning = (f"The risk of {_signed(p.risk)} lies {side} the cut-off of {_signed(p.card.cutoff)}, which was chosen "
               "in the training cohort.")
    if p.card.risks is not None:
        apart = abs(p.card.risks.share_below(p.risk) - p.card.risks.share_below(p.card.cutoff))
        meaning += " It lies close to the cut-off: the group alone says little." if apart < _NEAR else ""
    return f"{p.group.capitalize()} risk", meaning


def standing_words(prediction: Prediction) -> str:
    """Where the risk lies among the training patients'."""
    card = prediction.card
    if card is None or card.risks is None:
        return ""
    share = card.risks.share_below(prediction.risk)
    if prediction.risk <= card.risks.means[0]:
        return f"The risk is among the lowest of the {card.n} training patients."
    if prediction.risk >= card.risks.means[-1]:
        return f"The risk is among the highest of the {card.n} training patients."
    return f"About {100 * share:.0f} of 100 training patients had a lower risk."


def bound_words(prediction: Prediction) -> str:
    """The lower bound of the time to the event in a sentence; nothing where the model keeps none."""
    months = prediction.lower_bound_months
    if not isfinite(months):
        return ""
    _, state = endpoint_words(prediction.nomogram.endpoint)
    if months <= 0.0:
        return "No lower bound above 0 months can be given."
    return (f"Lower bound: {state} until {months:g} months at least. Such bounds hold for 9 of 10 patients like those "
            "of the training cohort (conformal).")


def _horizons(prediction: Prediction, state: str) -> list[Horizon]:
    """Survival at each horizon, in print and as a frequency."""
    rows = []
    for month, e in prediction.survival.items():
        known = isfinite(e.value)
        ends = isfinite(e.low) and isfinite(e.high)
        interval = _unbroken(f"{percent(e.low).removesuffix(' %')} to {percent(e.high)}") if ends else ""
        count = min(max(round(100 * e.value), 1), 99) if known else 0
        meaning = f"Of 100 patients with these values, the model expects about {count} to be {state}." if known else \
            "The training patients were not followed that long."
        rows.append(Horizon(month, e.value, _unbroken(percent(e.value)) if known else "not known", interval, meaning))
    return rows


def _unbroken(text: str) -> str:
    """The text on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _points(prediction: Prediction) -> list[tuple[str, str, float]]:
    """(variable, the patient's value, points) of each axis of the nomogram."""
    nomogram, row = prediction.nomogram, _row(prediction)
    rows = []
    for group in nomogram.groups:
        names = list(dict.fromkeys(axis.variable for axis in group.axes))
        values = [nomogram.label(name, str(row[name])) if isinstance(row[name], str) else _signed(float(row[name]))
                  for name in names]
        rows.append((" and ".join(map(nomogram.label, names)), ", ".join(values), prediction.points[group.name]))
    return rows


def _row(prediction: Prediction) -> dict[str, Any]:
    return dict(prediction.clinical) | dict(prediction.scores)


def _pictures(prediction: Prediction) -> dict[str, Picture]:
    """Every figure of the page by name."""
    p, row, months = prediction, _row(prediction), ", ".join(f"{m:g}" for m in prediction.nomogram.months)
    contours, numbers = {"predicted": p.mask}, "; ".join(
        f"{percent(e.value)} at {month:g} months" for month, e in p.survival.items() if isfinite(e.value))
    shown = {
        "scan": Picture(embedded(scan_figure(p.prepared.pet_suv, p.prepared.ct_hu, contours, width="single"), "png"),
                        "PET projection and fused axial, coronal and sagittal planes through the predicted tumour",
                        "PET projection, and PET over CT in three planes through the middle of the predicted tumour."),
        "curve": Picture(embedded(survival_curve_figure(p.nomogram, row)),
                         f"Curve of the predicted {p.nomogram.endpoint} over time: {numbers}",
                         f"Predicted {p.nomogram.endpoint} with its 95 % interval; dots at the horizons."),
        "nomogram": Picture(embedded(nomogram_figure(p.nomogram, patient=row)),
                            f"Nomogram with this patient's lines: {p.points['total']:.0f} points in total",
                            f"The nomogram with this patient's lines; survival at {months} months."),
    }
    if p.card is not None and p.card.risks is not None:
        shown["standing"] = Picture(
            embedded(standing_figure(p.card.risks, p.risk, p.card.cutoff)),
            f"This patient's risk among the training patients' risks: {standing_words(p)}",
            f"Each dot is the mean of five or more training patients. {standing_words(p)}")
    if p.attribution is not None:
        maps = [Volume(one, p.prepared.affine) for one in p.attribution.maps]
        figure = attribution_figure(p.prepared.pet_suv, p.prepared.ct_hu, maps, contours)
        shown["attribution"] = Picture(
            embedded(figure, "png"), "Maps of what raises and what lowers the risk, over PET and CT",
            "What raises (red) and lowers (blue) the DeepMTS-Score, compared with the mean training image.")
    return shown


def _uptake(prediction: Prediction) -> Rows:
    """The predicted tumour in the words of nuclear medicine."""
    values = prediction.uptake
    if not values or not isfinite(values.get("suv_max", float("nan"))):
        return [("Predicted tumour", "none was seen")]
    suv = " / ".join(f"{values[name]:.1f}" for name in ("suv_max", "suv_peak", "suv_mean"))
    return [("Volume of the predicted tumour", f"{prediction.mask_ml:.1f} ml"),
            ("SUVmax, SUVpeak, SUVmean", f"{suv} g/ml"),
            ("MTV and TLG at SUV 2.5 and above", f"{values['mtv_ml_2_5']:.1f} ml and {values['tlg_g_2_5']:.0f} g")]


def _read(prediction: Prediction) -> Rows:
    """What was read: series, SUV in one line, grids, region."""
    audit: Mapping[str, Any] = prediction.prepared.audit
    pet = audit.get("pet")
    suv = (pet.get("suv") or {}) if isinstance(pet, Mapping) else {}
    rows = [("Series", line) for line in choice_of(audit)] + [("SUV", suv_line(suv))]
    for name in ("pet", "ct"):
        facts = audit.get(name)
        if isinstance(facts, Mapping) and "shape_zyx" in facts:
            rows.append((f"{name.upper()} grid", f"{_times(facts['shape_zyx'], 'd')} voxels of "
                                                 f"{_times(facts['spacing_zyx_mm'], '.3g')} mm (z, y, x)"))
    if "roi_how" in prediction.prepared.facts:
        rows.append(("Region of the networks", str(prediction.prepared.facts["roi_how"])))
    return rows


def _times(values: Sequence[float], form: str) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{value:{form}}" for value in values)


def _card(prediction: Prediction) -> Rows:
    """The model behind the numbers."""
    card = prediction.card
    if card is None:
        return [("Model", prediction.model or "not known")]
    rows = [("Model", card.digest), ("Made by", f"mtdlr {card.version}" if card.version else "not recorded"),
            ("Trained on", f"{card.n} patients with {card.events} events"), ("Endpoint", prediction.nomogram.endpoint)]
    how = " (cross-fitted: by networks that never saw the patient)" if card.cross_fitted else " (in sample: too good)"
    for split, c in card.c.items():
        interval = f", 95 % interval {c.low:.2f} to {c.high:.2f}" if isfinite(c.low) else ""
        rows.append((f"C-index, {SPLITS.get(split, split)}", f"{c.value:.2f}{interval}"
                     + (how if split == "training" else "")))
    rows += [] if card.c else [("C-index", "not recorded in this model")]
    return rows + ([("Update of the model", card.parent)] if card.parent else [])


def _signed(value: float, digits: int = 2) -> str:
    """Decimals with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


@cache
def _template() -> Any:
    text = (files("mtdlr") / "report" / "templates" / "patient_page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined).from_string(text)
