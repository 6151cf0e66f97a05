"""The calculator's script, run by node on a page of stand-ins: what it shows for what is typed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.calculator import calculator_html
from mtdlr.survival import Survival

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine to run the page's script in")
PAGE = """
class Part {
  constructor() {
    this.children = []; this.dataset = {}; this.attributes = {}; this.textContent = ""; this.inner = {};
    this.on = new Set();
    this.classList = { toggle: (name, yes) => yes ? this.on.add(name) : this.on.delete(name) };
  }
  setAttribute(key, value) { this.attributes[key] = value; }
  appendChild(part) { this.children.push(part); return part; }
  replaceChildren(...parts) { this.children = parts; }
  querySelector(what) { return this.inner[what] = this.inner[what] || new Part(); }
  querySelectorAll() { return []; }
}
const ids = Object.fromEntries(INPUT.ids.map(id => [id, new Part()]));
for (const id in ids) if (id.startsWith("horizon-")) ids[id].dataset.name = "PFS";
ids.model.textContent = JSON.stringify(INPUT.model);
const fields = INPUT.fields.map(field => Object.assign(new Part(), { dataset: field }));
const listeners = {};
const form = { elements: Object.fromEntries(INPUT.fields.map(f => ["v-" + f.variable, { value: f.start }])),
  querySelectorAll: what => what === "[data-variable]" ? fields : fields.filter(f => f.dataset.kind === "number"),
  addEventListener: (name, listener) => { listeners[name] = listener; } };
globalThis.document = { forms: [form], getElementById: id => ids[id] || null,
  createElementNS: () => new Part(), createElement: tag => tag === "canvas"
    ? { getContext: () => ({ measureText: text => ({ width: 6 * text.length }) }) } : new Part() };
SCRIPT
const out = INPUT.patients.map(patient => {
  for (const name in patient) form.elements["v-" + name].value = patient[name];
  listeners.input({ target: { closest: () => null } });
  return { message: ids.message.textContent, total: ids.total.textContent,
    group: ids.group ? ids.group.textContent : null, curve: ids.curve.children.length,
    rows: ids.points.children.length, marks: ids.nomogram.children.length,
    out: fields.map(f => f.querySelector(".hint").on.has("out")),
    shown: [0, 1].map(i => [ids["horizon-" + i].querySelector("b").textContent,
                            ids["horizon-" + i].querySelector("i").textContent]),
    values: [0, 1].map(i => JSON.parse(ids["horizon-" + i].dataset.values || "null")) };
});
console.log(JSON.stringify(out));
"""


@pytest.fixture(scope="module")
def nomogram() -> Nomogram:
    """A factor and a continuous score."""
    random = np.random.default_rng(5)
    table = pd.DataFrame({"stage": random.choice(["III", "IVa"], 200), "score": random.normal(size=200)})
    time = random.exponential(60.0 / np.exp(0.5 * (table.stage == "IVa") + 0.8 * table.score))
    censored = random.uniform(20.0, 99.0, 200)
    return Nomogram.fit(table, Survival(np.minimum(time, censored) + 0.01, time <= censored), ["stage", "score"],
                        [36, 60], endpoint="PFS")


def _shown(nomogram: Nomogram, patients: list[dict[str, str]], **options: Any) -> list[dict[str, Any]]:
    """What the page shows for each patient, typed one after the other."""
    html = calculator_html(nomogram, **options)
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", html, re.S)
    fields = [{"variable": "stage", "kind": "level", "start": "III"},
              {"variable": "score", "kind": "number", "start": "0", "label": "score"}]
    given = {"ids": re.findall(r'id="([^"]+)"', html), "model": json.loads(data), "fields": fields,
             "patients": patients}
    program = f"const INPUT = {json.dumps(given)};" + PAGE.replace("SCRIPT", script)
    assert NODE is not None
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_the_script_computes_what_python_computes(nomogram: Nomogram) -> None:
    """Survival and both limits are Python's to 1e-10, also far outside the model's range."""
    patients = [{"stage": "III", "score": "-0.5"}, {"stage": "IVa", "score": "1.25"}, {"stage": "IVa", "score": "900"}]
    curve = nomogram.survival(pd.DataFrame(patients).astype({"score": float}))
    for row, answer in enumerate(_shown(nomogram, patients)):
        expected = np.stack([curve.value[row], curve.low[row], curve.high[row]], axis=1)
        np.testing.assert_allclose(answer["values"], expected, rtol=0, atol=1e-10)
        assert answer["rows"] == 3 and answer["curve"] > 0


@pytest.mark.slow
def test_an_emptied_field_leaves_nothing_of_the_patient_before(nomogram: Nomogram) -> None:
    """With a field empty or not a number the page asks for it and shows no points, survival, group, curve or axes."""
    for text in ("", "abc", "1.2.3", "1e5", "--1"):
        full, empty = _shown(nomogram, [{"score": "1"}, {"score": text}], cutoff=0.0)
        assert full["total"] != "\u2013" and full["group"] in ("high", "low")
        assert empty["total"] == empty["group"] == "\u2013" and empty["values"] == [None, None]
        assert empty["shown"] == [["\u2013", ""]] * 2
        assert empty["curve"] == empty["rows"] == empty["marks"] == 0
        assert "score" in empty["message"]


def test_a_decimal_comma_is_a_decimal_comma(nomogram: Nomogram) -> None:
    """1,5 is one and a half, not fifteen."""
    comma, point = _shown(nomogram, [{"score": "1,5"}, {"score": "1.5"}])
    assert comma["values"] == point["values"] and comma["total"] == point["total"]


def test_outside_the_range_is_said_in_place_of_an_interval(nomogram: Nomogram) -> None:
    """A value outside the model's range is named, and the survival is called an extrapolation, not 0 % (0-0 %)."""
    inside, outside = _shown(nomogram, [{"score": "0"}, {"score": "40"}])
    assert inside["message"] == "" and inside["shown"][0][1].startswith("CI ")
    assert "score" in outside["message"] and outside["out"][1]
    assert [text for _, text in outside["shown"]] == ["extrapolated"] * 2


def test_study_and_risk_group_are_shown(nomogram: Nomogram) -> None:
    """The page names its study, and the risk group by the cut-off it is given; without one it shows no group."""
    at = float(nomogram.log_hazard({"stage": "III", "score": 0.3})[0])
    low, high = _shown(nomogram, [{"stage": "III", "score": "0.2"}, {"stage": "III", "score": "0.4"}], cutoff=at)
    assert (low["group"], high["group"]) == ("low", "high")
    assert "NPC of two centres" in calculator_html(nomogram, study="NPC of two centres")
    assert 'id="group"' not in calculator_html(nomogram)


def test_a_risk_at_the_cut_off_is_high(nomogram: Nomogram) -> None:
    """A patient whose risk equals the cut-off is in the high-risk group, as in `predict` and in the report."""
    assert float(nomogram.log_hazard({"stage": "III", "score": 0.0})[0]) == 0.0
    assert [each["group"] for each in _shown(nomogram, [{"stage": "III", "score": "0"}], cutoff=0.0)] == ["high"]


def test_the_curve_ends_where_fewer_than_ten_patients_are_at_risk(nomogram: Nomogram) -> None:
    """The last month of the curve has ten patients at risk or more."""
    data = re.findall(r"<script[^>]*>(.*?)</script>", calculator_html(nomogram), re.S)[0]
    last = json.loads(data)["curve"][-1][0]
    base = nomogram.frozen().cox.baseline
    assert last <= base.time_months[base.at_risk >= 10][-1]
