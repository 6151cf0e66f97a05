"""The nomogram as a page to open in a browser: one offline file, frozen coefficients, no patient in it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from mtdlr.nomogram.axes import Axis, Value, by_importance, is_even, main_terms, runs_back, tick_text
from mtdlr.nomogram.model import Nomogram
from mtdlr.stats.terms import Continuous, Factor, Interaction, Spline, Term

_TEMPLATES = Environment(loader=PackageLoader("mtdlr", "nomogram"), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True)
_AT_RISK = 10  # patients from which a curve is worth drawing
_CURVE_MONTHS = 1.0  # the curve is given at whole months: event times of single patients stay out of the file


def calculator_html(
    nomogram: Nomogram, *, title: str = "Nomogram", note: str = "", study: str = "", cutoff: float | None = None
) -> str:
    """The page: inputs, points, survival at the horizons with intervals, the survival curve and the nomogram itself.

    It loads nothing and sends nothing (a content security policy forbids it), and works with the keyboard alone.

    Args:
        nomogram: what to compute; only coefficients, their covariance and the baseline hazard are written.
        title: heading of the page.
        note: a sentence on where the model comes from, under the heading.
        study: the study's name, above it.
        cutoff: log hazard (X beta) from which on a patient's risk group is high, as in `predict`; none shows no group.
    """
    nomogram = nomogram.frozen()
    styles, script = (_TEMPLATES.get_template(name).render() for name in ("calculator.css", "calculator.js"))
    return _TEMPLATES.get_template("calculator.html.j2").render(
        title=title, note=note, variables=_variables(nomogram), months=nomogram.months, endpoint=nomogram.endpoint,
        styles=Markup(styles), script=Markup(script), style_hash=_hash(styles), script_hash=_hash(script),
        study=study, grouped=cutoff is not None,
        model=Markup(_text({**_model(nomogram), "cutoff": cutoff})),
        n=nomogram.cox.n, at_risk=_AT_RISK, events=nomogram.cox.n_events,
    )


def calculator_parts(
    nomogram: Nomogram, values: Mapping[str, Any], *, cutoff: float | None = None
) -> tuple[str, str]:
    """(form, results and nomogram as HTML, the model as JSON) for a page that brings calculator.css and calculator.js.

    Args:
        nomogram: what to compute, as `calculator_html`.
        values: a patient's values by variable, with which the form begins.
        cutoff: as `calculator_html`.
    """
    nomogram = nomogram.frozen()
    variables = [row | {"start": values[row["name"]] if row["levels"] else f"{float(values[row['name']]):.6g}"}
                 if row["name"] in values else row for row in _variables(nomogram)]
    page = _TEMPLATES.get_template("calculator_main.html.j2").render(
        variables=variables, months=nomogram.months, endpoint=nomogram.endpoint, grouped=cutoff is not None,
        n=nomogram.cox.n, at_risk=_AT_RISK)
    return page, _text({**_model(nomogram), "cutoff": cutoff})


def write_calculator(
    nomogram: Nomogram, path: str | Path, *, title: str = "Nomogram", note: str = "", study: str = "",
    cutoff: float | None = None,
) -> Path:
    """Write the page of `calculator_html`; returns the path.

    Args:
        nomogram: the fitted or published nomogram.
        path: the file.
        title: heading of the page.
        note: as `calculator_html`.
        study: as `calculator_html`.
        cutoff: as `calculator_html`.
    """
    target = Path(path)
    html = calculator_html(nomogram, title=title, note=note, study=study, cutoff=cutoff)
    target.write_text(html, encoding="utf-8")
    return target


def _hash(text: str) -> str:
    """The content security policy's name of a script or style."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _text(values: dict[str, Any]) -> str:
    """JSON in which no "<" can end the data block early."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _variables(nomogram: Nomogram) -> list[dict[str, Any]]:
    """What the form asks."""
    rows: list[dict[str, Any]] = []
    for name, term in main_terms(nomogram.design).items():
        limits, label = nomogram.limits[name], nomogram.label(name)
        if isinstance(term, Factor):
            levels = [(level, nomogram.label(name, level)) for level in term.levels]
            rows.append({"name": name, "label": label, "levels": levels, "start": limits.typical})
        else:
            ticks = np.array(limits.ticks, dtype=np.float64)
            step = _step(ticks, bool(limits.values))
            start = ticks[0] + step * round((float(limits.typical) - ticks[0]) / step)  # where the slider can stand
            rows.append({"name": name, "label": label, "levels": (), "start": tick_text(start),
                         "low": f"{limits.low:.4g}", "high": f"{limits.high:.4g}", "least": tick_text(ticks[0]),
                         "most": tick_text(ticks[-1]), "step": tick_text(step)})
    return rows


def _model(nomogram: Nomogram) -> dict[str, Any]:
    """What the script computes with."""
    cox = nomogram.cox
    return {
        "terms": [_term(term) for term in nomogram.design.terms],
        "coef": cox.coef.tolist(), "means": cox.means.tolist(),
        "center": cox.center, "covariance": None if nomogram.published else cox.covariance.tolist(),
        "scale": nomogram.points_per_log_hazard, "months": list(nomogram.months), "endpoint": nomogram.endpoint,
        "groups": [{"low": group.low, "columns": np.flatnonzero(group.columns).tolist(),
                    "label": " \N{MULTIPLICATION SIGN} ".join(nomogram.label(name) for name in group.variables),
                    "variables": list(group.variables), "axes": [_axis(nomogram, axis) for axis in group.axes]}
                   for group in nomogram.groups],
        "total": list(nomogram.total_points_axis.values),
        "horizons": [_horizon(nomogram, month) for month in nomogram.months], "curve": _curve(nomogram),
        "limits": {name: [limits.low, limits.high] for name, limits in nomogram.limits.items()
                   if np.isfinite(limits.low)},
    }


def _term(term: Term) -> dict[str, Any]:
    """A term as the script knows it."""
    if isinstance(term, Interaction):
        return {"a": _term(term.a), "b": _term(term.b)}
    if isinstance(term, Factor):
        return {"name": term.name, "contrasts": list(term.contrasts)}
    if isinstance(term, Spline):
        return {"name": term.name, "knots": list(term.knots)}
    assert isinstance(term, Continuous)
    return {"name": term.name}


def _axis(nomogram: Nomogram, axis: Axis) -> dict[str, Any]:
    """An axis with its ticks: [label, points, whether its label stands above]."""
    def text(name: str, value: Value) -> str:
        return nomogram.label(name, value) if isinstance(value, str) else tick_text(value)
    levels, even = isinstance(axis.values[0], str), is_even(axis.points)
    order = range(len(axis.values)) if levels or even else by_importance(axis.values, axis.points)
    back = runs_back(axis.points) if not levels else [False] * len(axis.values)
    given = ", ".join(f"{nomogram.label(name)} {text(name, value)}" for name, value in axis.given)
    return {"label": nomogram.label(axis.variable) + (f" ({given})" if given else ""), "given": dict(axis.given),
            "ticks": [[text(axis.variable, axis.values[i]), axis.points[i], back[i]] for i in order],
            "kind": "levels" if levels else "numbers" if even else "ranked"}


def _horizon(nomogram: Nomogram, month: float) -> dict[str, Any]:
    """Cumulative hazard of the mean patient at a month, what its interval needs, and the ticks of its axis."""
    baseline, ruler = nomogram.cox.baseline, nomogram.survival_axis(month)
    last = int(np.searchsorted(baseline.time_months, month, side="right")) - 1
    known = not nomogram.published and last >= 0
    ticks = sorted(zip(ruler.values, ruler.points, strict=True), key=lambda tick: (_rank(tick[0]), tick[0]))
    log_hazard = float(baseline.log_cumulative_hazard([month])[0])
    return {"log": log_hazard if np.isfinite(log_hazard) else None, "ticks": [list(tick) for tick in ticks],
            "variance": float(baseline.log_variance[last]) if known else None,
            "mean": baseline.mean[last].tolist() if known else None}


def _rank(survival: float) -> int:
    """Which ticks give way when they are crowded: the odd tenths stay, then the even ones, then the ends."""
    return 0 if survival in (0.1, 0.3, 0.5, 0.7, 0.9) else 1 if survival in (0.2, 0.4, 0.6, 0.8) else 2


def _curve(nomogram: Nomogram) -> list[list[float]]:
    """[month, log cumulative hazard of the mean patient] at whole months while ten patients are at risk; empty when the
    model was typed in."""
    baseline = nomogram.cox.baseline
    followed = baseline.time_months[baseline.at_risk >= _AT_RISK]
    if nomogram.published or not followed.size:
        return []
    months = np.arange(1.0, np.floor(followed[-1]) + 1.0, _CURVE_MONTHS)
    return [[float(m), float(h)] for m, h in zip(months, baseline.log_cumulative_hazard(months), strict=True)]


def _step(ticks: NDArray[np.float64], distinct: bool) -> float:
    """The step of a slider: that of the values themselves, or near a hundredth of its length."""
    if distinct:
        return float(np.diff(ticks).min())
    return float(10.0 ** np.floor(np.log10((ticks[-1] - ticks[0]) / 50.0)))
