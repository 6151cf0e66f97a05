"""The page of one patient: its numbers are those of prediction.json, warnings come first, nothing is loaded."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from math import nan
from pathlib import Path

import bedside_pictures
import numpy as np
import pytest
from one_prediction import card, outside, prediction
from PIL import Image

from mtdlr.errors import Problem, StudyError
from mtdlr.estimate import Estimate
from mtdlr.explain import attribution
from mtdlr.predict import write_prediction
from mtdlr.radiomics.extract import patient_pet_parameters
from mtdlr.report import patient_page as module
from mtdlr.report import pdf
from mtdlr.report.patient_page import patient_page

RESEARCH = "For research only; not a medical device."


class _Read(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose figures keep their words and are not drawn: drawing takes a hundred times as long as the rest."""
    for name in ("scan_figure", "survival_curve_figure", "nomogram_figure", "standing_figure", "attribution_figure"):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(module, "embedded", lambda *_: "data:,")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each survival, the points, the total and the risk of the page are the numbers of prediction.json."""
    monkeypatch.setattr("mtdlr.predict.can_write_pdf", lambda: False)
    made = prediction()
    write_prediction(made, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "prediction.json").read_text())
    page = _Read((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    shown = [float(str(one["value"])) for one in page.all("data")]
    points = [stored["points"][name] for name in ("tnm_stage", "auto_radio", "deepmts", "total")]
    assert shown == [*(one["value"] for one in stored["survival"].values()), *points, stored["risk"]]
    for month, one in stored["survival"].items():
        assert f"PFS at {month} months {100 * one['value']:.0f} % 95 % interval {100 * one['low']:.0f}" in page.text
    assert f"{stored['mask_ml']:.1f} ml" in page.text and f"{stored['uptake']['suv_max']:.1f} / " in page.text
    assert f"{stored['training']['n']} patients with {stored['training']['events']} events" in page.text
    assert f"About {100 * stored['training']['share_below']:.0f} of 100 training patients" in page.text
    assert f"until {stored['lower_bound_months']:g} months at least" in page.text


def test_nothing_is_loaded_and_every_picture_has_words() -> None:
    """No script, no handler, no style attribute, no address but `data:`; each picture has an alternative text."""
    page = patient_page(prediction())
    read = _Read(page)
    assert not read.all("script") and not read.all("link") and not read.all("iframe")
    for _, attributes in read.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page
    pictures = read.all("img")
    assert len(pictures) == 4 and all(len(str(one["alt"])) > 20 for one in pictures)


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_warnings_says_so() -> None:
    """Where nothing was noticed the page says it, and how like the training scans the scan is."""
    text = _Read(patient_page(prediction())).text
    assert "No warnings. The scan looks like the training scans: 72 % of them lie closer to their mean." in text
    assert "Before you use" not in text and RESEARCH in text


@pytest.mark.usefixtures("undrawn")
def test_a_scan_outside_comes_first() -> None:
    """An accepted refusal is the first thing on the page, in words, before any number; other warnings follow it."""
    page = patient_page(outside())
    text = _Read(page).text
    assert text.index("Do not rely on these numbers") < text.index("W-SHIFT") < text.index("W-UPTAKE") < \
        text.index("PFS at 36 months")
    assert "made on request" in text and "They do not hold" in text and text.count("do not rely on it") == 2
    assert "the model expects about" not in text and "patient patient" not in text
    assert 'class="answer doubtful"' in page


@pytest.mark.usefixtures("undrawn")
def test_warnings_come_before_the_answer() -> None:
    """Warnings are counted and stand before the numbers, with what to do."""
    problem = Problem("W-RANGE", "a value lies outside the range the model was built on", where="row 0, column age",
                      remedy="Read the prediction as an extrapolation")
    text = _Read(patient_page(prediction(problems=(problem,)))).text
    places = [text.index(words) for words in ("Before you use the numbers: 1 thing", "Read the prediction as an "
                                              "extrapolation.", "PFS at 36 months")]
    assert places == sorted(places)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("endpoint", "title", "state"), [
    ("OS", "Overall survival predicted from PET/CT", "to be alive."),
    ("overall survival", "Overall survival predicted from PET/CT", "to be alive."),
    ("LRRFS", "LRRFS predicted from PET/CT", "to be free of the event."),
])
def test_words_follow_the_endpoint(endpoint: str, title: str, state: str) -> None:
    """The page speaks of the study's own endpoint, and never of progression where it is another."""
    text = _Read(patient_page(prediction(endpoint))).text
    assert title in text and state in text and f"{endpoint} at 36 months" in text
    assert "progression" not in text.lower() and "PFS" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_group_near_the_cut_off_says_little() -> None:
    """A patient within a twentieth of the training patients of the cut-off is told that the group says little."""
    near = replace(card(), cutoff=prediction().risk - 0.01)
    assert "the group alone says little" in _Read(patient_page(prediction(card=near))).text
    assert "the group alone says little" not in _Read(patient_page(prediction())).text


@pytest.mark.usefixtures("undrawn")
def test_what_a_model_lacks_is_said() -> None:
    """Without a cut-off, a bound, risks, C or a description of the scans the page claims none of them."""
    bare = replace(card(), cutoff=nan, c={}, risks=None)
    page = patient_page(prediction(card=bare, group="", lower_bound_months=nan, shift=None))
    text = _Read(page).text
    assert "no risk group" in text and "conformal" not in text and "not recorded in this model" in text
    assert "nobody checked whether this scan is like them" in text and len(_Read(page).all("img")) == 3


@pytest.mark.slow
def test_an_explained_prediction_shows_where_the_risk_comes_from() -> None:
    """With an attribution the page has its maps and its shares."""
    made = prediction()
    maps = made.prepared.image * 0.01
    found = attribution(maps, made.mask.array, spacing_mm=made.mask.spacing_mm)
    read = _Read(patient_page(replace(made, attribution=found)))
    assert "Where the risk comes from" in read.text and f"{found.share['pet tumour']:.1%}" in read.text
    assert len(read.all("img")) == 5


@pytest.mark.slow
def test_a_patient_without_a_tumour_or_beyond_the_follow_up_has_a_page() -> None:
    """An empty mask is said in words; a survival that is not known is no number; neither stops the page."""
    made = prediction()
    empty = made.mask.with_array(np.zeros(made.mask.shape, bool))
    read = _Read(patient_page(replace(made, mask=empty, uptake=patient_pet_parameters(made.prepared, empty),
                                      survival={36.0: made.survival[36.0], 120.0: Estimate(nan)})))
    assert "none was seen" in read.text and "PFS at 120 months not known" in read.text and "nan" not in read.text
    assert len(read.all("data")) == 6


@pytest.mark.usefixtures("undrawn")
def test_nothing_of_a_model_is_taken_for_markup() -> None:
    """A model's words are text on the page, whatever they are."""
    made = prediction("<script>alert(1)</script>", problems=(Problem("W-X", "<img src=x>", remedy='"><b>'),))
    page = patient_page(made)
    read = _Read(page)
    assert not read.all("script") and not read.all("b")[2:] and len(read.all("img")) == 4
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_the_same_prediction_gives_the_same_bytes() -> None:
    """Page and PDF hold no time and no name of this machine: made twice they are equal."""
    page = patient_page(prediction())
    assert page == patient_page(prediction())
    if not pdf.can_write_pdf():
        pytest.skip("no PDF can be written here")
    assert pdf.pdf_bytes(page) == pdf.pdf_bytes(page)


@pytest.mark.slow
def test_the_pdf_has_text_and_research_only_on_every_page() -> None:
    """The PDF is text that can be searched, and no page of it can be taken for a clinical document."""
    if not pdf.can_write_pdf():
        pytest.skip("no PDF can be written here")
    from pypdf import PdfReader

    pages = PdfReader(BytesIO(pdf.pdf_bytes(patient_page(outside())))).pages
    texts = [" ".join(page.extract_text().split()) for page in pages]
    assert len(texts) >= 2 and all(RESEARCH in text for text in texts)
    assert "Do not rely on these numbers" in texts[0] and "PFS at 36 months" in texts[0]
    assert f"page 1 of {len(texts)}" in texts[0]


@pytest.mark.slow
def test_without_weasyprint_a_pdf_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where WeasyPrint is absent `--pdf` names the extra, and a prediction is written without the PDF."""
    monkeypatch.setitem(__import__("sys").modules, "weasyprint", None)
    with pytest.raises(StudyError, match=r"^E-PDF .*mtdlr\[docs-out\].*$"):
        pdf.require_pdf()
    write_prediction(prediction(), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "report.html" in names and "report.pdf" not in names


def test_a_prediction_is_short_in_a_notebook() -> None:
    """Its repr is one line and its HTML a small table: survival, group and warnings, escaped."""
    made = outside()
    assert len(repr(made)) < 120 and "36 months" in repr(made) and "2 warnings" in repr(made)
    assert len(made._repr_html_()) < 1500 and RESEARCH in made._repr_html_()
    assert not re.search("<script", prediction(problems=(Problem("W-X", "<script>"),))._repr_html_())


def test_a_prediction_is_a_frame_and_a_summary() -> None:
    """to_frame holds the numbers of prediction.json with their limits, summary the words of the terminal."""
    made = outside()
    frame, values = made.to_frame(), made.as_dict()
    assert list(frame.columns) == ["value", "low", "high"] and made.summary() == str(made)
    for month, numbers in values["survival"].items():
        row = frame.loc[f"{values['endpoint']} at {month} months"]
        assert row.tolist() == [numbers["value"], numbers["low"], numbers["high"]]
    assert frame.loc["log hazard", "value"] == values["risk"] and frame.loc["points", "value"] == made.points["total"]
    assert frame.loc["deepmts", "value"] == values["scores"]["deepmts"]


def test_the_pictures_of_the_documentation_are_small() -> None:
    """docs/bedside.md shows the pictures that the script makes, each with words, together under 300 kB."""
    text = (bedside_pictures.DOCS / "bedside.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"!\[([^]]+)\]\(([^)]+)\)", text))
    assert set(shown.values()) == set(bedside_pictures.PICTURES) and all(len(words) > 40 for words in shown)
    assert sum((bedside_pictures.DOCS / name).stat().st_size for name in shown.values()) < 300_000


@pytest.mark.slow
@pytest.mark.skipif(bedside_pictures.browser() is None, reason="no Chromium here")
def test_the_pictures_can_be_made_anew(tmp_path: Path) -> None:
    """The script draws each page in a browser: the size is that of the documentation, and it is not empty."""
    bedside_pictures.make(tmp_path)
    for name, size in bedside_pictures.PICTURES.items():
        with Image.open(tmp_path / name) as made, Image.open(bedside_pictures.DOCS / name) as shown:
            assert made.size == shown.size == size
            assert len(made.convert("RGB").getcolors(100_000)) > 60


@pytest.mark.slow
@pytest.mark.skipif(bedside_pictures.browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_style_and_pictures(width: int, tmp_path: Path) -> None:
    """Under the page's own content security policy a browser applies the style and shows every picture; nothing is
    wider than the screen."""
    probe = ("<script>addEventListener('load', () => document.title = [getComputedStyle(document.querySelector('h2'))"
             ".borderBottomWidth, [...document.images].every(i => i.naturalWidth > 10), "
             "document.documentElement.scrollWidth <= innerWidth].join(' '))</script>")
    page = patient_page(prediction()).replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (tmp_path / "page.html").write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [str(bedside_pictures.browser()), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", (tmp_path / "page.html").as_uri()],
        check=True, capture_output=True, text=True, timeout=120)
    assert re.search("<title>2px true true</title>", done.stdout), re.search("<title>.*</title>", done.stdout)
