"""The calculator page: alone, without patients, and computing what the nomogram computes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.calculator import _variables, calculator_html, write_calculator
from mtdlr.stats.terms import Continuous, Factor, Interaction, Spline
from mtdlr.survival import Survival

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to run the page's script in")


def cohort() -> tuple[pd.DataFrame, Survival]:
    rng = np.random.default_rng(5)
    n = 300
    table = pd.DataFrame({"stage": rng.choice(["III", "IVa"], n), "score": rng.normal(size=n).round(7),
                          "age": rng.integers(18, 84, n), "site": rng.choice(list("ABCDEFG"), n)},
                         index=[f"ZZPHI-CANARY-{i}" for i in range(n)])
    time = rng.exponential(60.0 / np.exp(0.5 * (table.stage == "IVa") + 0.8 * table.score))
    censored = rng.uniform(20.0, 99.0, n)
    return table, Survival(np.minimum(time, censored) + 0.0123, time <= censored)


@pytest.fixture(scope="module")
def nomogram() -> Nomogram:
    """A spline, a factor with many levels and an interaction."""
    table, surv = cohort()
    stage, score = Factor("stage", ("III", "IVa"), "III"), Continuous("score")
    terms = [Spline("age", (25.0, 45.0, 60.0, 75.0)), "site", stage, score, Interaction(stage, score)]
    return Nomogram.fit(table, surv, terms, [36, 60], endpoint="PFS",
                        labels={"stage": "TNM stage <8th>", "site": "Site & side"})


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


class TestPage:
    """What is in the file."""

    def test_it_is_small_and_loads_nothing(self, nomogram: Nomogram) -> None:
        """The page is under 100 KB, names no address, and its security policy allows only its own style and script."""
        html = calculator_html(nomogram)
        assert len(html.encode()) < 100_000
        page = Page(html)
        used = {key for _, attributes in page.tags for key in attributes}
        assert not used & {"src", "href", "action", "style"} and not any(key.startswith("on") for key in used)
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html) == []
        policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy and policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert policy.count("sha256-") == 2

    def test_no_patient_is_in_it(self, nomogram: Nomogram) -> None:
        """No patient id, no follow-up time and no score of a patient is in the page; the curve is at whole months."""
        table, surv = cohort()
        html = calculator_html(nomogram)
        assert "CANARY" not in html
        model = json.loads(Page(html).scripts[0])
        assert all(month == int(month) for month, _ in model["curve"])
        written = {number for number in _numbers(model)}
        assert not written & set(surv.time_months.tolist())
        assert written & set(table.score) == {table.score.min(), table.score.max()}  # the printed range

    def test_words_are_escaped(self, nomogram: Nomogram) -> None:
        """Names and titles are shown, never run."""
        html = calculator_html(nomogram, title="<script>alert(1)</script>", note="</script><b>")
        assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html
        assert "TNM stage &lt;8th&gt;" in html and "TNM stage <8th>" not in html
        assert [tag for tag, _ in Page(html).tags].count("script") == 2

    def test_every_input_has_a_name_for_the_ear(self, nomogram: Nomogram) -> None:
        """Each control is a native one with a label, each group of buttons has a legend, results are announced."""
        html = calculator_html(nomogram)
        tags = Page(html).tags
        labelled = {attributes["for"] for tag, attributes in tags if tag == "label" and "for" in attributes}
        for tag, attributes in tags:
            if tag in ("input", "select") and attributes.get("type") != "radio":
                assert attributes.get("id") in labelled or attributes.get("aria-label")
        assert html.count("<legend>") == 1 and 'aria-live="polite"' in html
        assert "research use only" in html

    def test_same_nomogram_same_page(self, nomogram: Nomogram, tmp_path: Path) -> None:
        """Written twice, or from the nomogram read back from JSON, the page is the same byte for byte."""
        first = write_calculator(nomogram, tmp_path / "a.html").read_bytes()
        again = write_calculator(Nomogram.from_json(nomogram.to_json()), tmp_path / "b.html").read_bytes()
        assert first == again

    def test_published_models_have_a_page(self) -> None:
        """A model typed in from a paper has a page without intervals and without a curve."""
        published = Nomogram.from_coefficients({"x": 0.5}, baseline_survival={36: 0.8}, ranges={"x": (0.0, 4.0)})
        html = calculator_html(published)
        assert 'id="curve"' not in html and "no intervals" in html
        assert json.loads(Page(html).scripts[0])["covariance"] is None


PATIENTS: list[dict[str, Any]] = [
    {"age": 30, "site": "A", "stage": "III", "score": -0.5},
    {"age": 61.5, "site": "D", "stage": "IVa", "score": 1.2345},
    {"age": 90, "site": "G", "stage": "IVa", "score": -3.5},
]


@in_browser
@pytest.mark.slow
class TestBrowser:
    """The page in headless Chromium."""

    def test_the_page_computes_what_python_computes(self, nomogram: Nomogram, tmp_path: Path) -> None:
        """Points, total, survival and its limits are Python's to 1e-10, for patients inside and outside the range."""
        html = calculator_html(nomogram)
        script = f"""<script>
        const out = [];
        for (const patient of {json.dumps(PATIENTS)}) {{
          for (const [name, value] of Object.entries(patient)) {{
            const control = document.forms[0].elements["v-" + name];
            control.value = value;
            const node = control.length && !control.options ? control[0] : control;
            node.dispatchEvent(new Event("input", {{bubbles: true}}));
          }}
          out.push({{ points: [...document.querySelectorAll("#points tr")].map(line => Number(line.dataset.value)),
            survival: [0, 1].map(i => JSON.parse(document.getElementById("horizon-" + i).dataset.values)),
            out: [...document.querySelectorAll(".hint.out:not(#message)")].length,
            marks: document.querySelectorAll("#nomogram .mark").length }});
        }}
        document.title = JSON.stringify(out);</script>"""
        page = tmp_path / "page.html"
        open_to_tests = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        page.write_text(open_to_tests.replace("</body>", f"{script}</body>"))
        shown = json.loads(re.search(r"<title>(\[.*?\])</title>", _dom(page), re.S).group(1))  # type: ignore[union-attr]
        table = pd.DataFrame(PATIENTS)
        points, curve = nomogram.points(table), nomogram.survival(table)
        for row, answer in enumerate(shown):
            np.testing.assert_allclose(answer["points"], points.iloc[row], rtol=0, atol=1e-10)
            expected = np.stack([curve.value[row], curve.low[row], curve.high[row]], axis=1)
            np.testing.assert_allclose(answer["survival"], expected, rtol=0, atol=1e-10)
            assert answer["marks"] == len(nomogram.groups) + 1 + len(nomogram.months)
        assert [answer["out"] for answer in shown] == [0, 0, 2]

    def test_it_runs_under_its_own_policy(self, nomogram: Nomogram, tmp_path: Path) -> None:
        """As shipped, with its security policy, the page opens with the typical patient's total and survival, values
        rounded to the sliders' steps."""
        dom = _dom(write_calculator(nomogram, tmp_path / "page.html"))
        typical = {v["name"]: v["start"] if v["levels"] else float(v["start"]) for v in _variables(nomogram)}
        total = float(re.search(r'id="total"[^>]*data-value="([^"]+)"', dom).group(1))  # type: ignore[union-attr]
        assert total == pytest.approx(nomogram.points(typical)["total"].iloc[0], abs=1e-3)
        assert f"{100 * nomogram.survival(typical).value[0, 0]:.0f}%" in dom


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def _dom(page: Path) -> str:
    """The document after its scripts have run."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}",
               "--dump-dom", page.as_uri()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               start_new_session=True)
    try:
        return process.communicate(timeout=80)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
