"""The page in a browser: what a clinician sees and does. Skipped where Chromium is not installed."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import serve_patient
from bedside_pictures import browser
from chromium import Page, chromium
from PIL import Image
from serving import SCAN, Served, serving, zipped

from mtdlr.serve.upload import Limits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser() is None, reason="Chromium is not installed")]
AXE = Path(__file__).parent / "reference" / "axe-core-4.14.1.min.js.gz"
RIGHT, HOME = ("ArrowRight", 39), ("Home", 36)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose model knows one synthetic patient."""
    with serving(tmp_path_factory.mktemp("jobs"), serve_patient.load, Limits()) as running:
        yield running


def _serious(page: Page) -> list[str]:
    """What axe-core finds on the page that keeps people out."""
    page.run(gzip.decompress(AXE.read_bytes()).decode() + ";0")
    found = json.loads(page.run("axe.run().then(r => JSON.stringify(r.violations))"))
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found
            if one["impact"] in ("serious", "critical")]


def _sent(page: Page, served: Served, folder: Path) -> None:
    """Look at the first page, and send a scan."""
    scan = folder / "B001.zip"
    scan.write_bytes(zipped(SCAN))
    page.open(served.address)
    assert _serious(page) == []
    page.send(served.address, scan, "IVa")


def _shown(page: Page, selector: str, target: Path) -> np.ndarray:
    """The pixels of an element."""
    page.picture(target)
    left, top, width, height = json.loads(page.run(
        f"(b => JSON.stringify([b.left + scrollX, b.top + scrollY, b.width, b.height]))"
        f"(document.querySelector('{selector}').getBoundingClientRect())"))
    with Image.open(io.BytesIO(target.read_bytes())) as whole:
        return np.asarray(whole.convert("RGB").crop((int(left), int(top), int(left + width), int(top + height))), float)


def test_a_scan_is_sent_and_its_result_looked_at_with_the_keyboard(served: Served, tmp_path: Path) -> None:
    """Upload, viewer, slider and nomogram work under the strict policy, axe-core finds nothing serious, and nothing is
    asked of another host.
    """
    with chromium(tmp_path / "profile") as page:
        page.size(1280, 900)
        _sent(page, served, tmp_path)
        assert page.run("document.querySelector('[data-viewer]').dataset.viewer") == "webgl"
        assert _serious(page) == []
        before = _shown(page, "#gl", tmp_path / "wide.png")
        assert (before.max(axis=2) > 40).mean() > 0.1, "the viewer is black"
        page.run("document.getElementById('s-axial').focus()")
        page.press(*HOME)
        assert not np.array_equal(_shown(page, "#gl", tmp_path / "moved.png"), before)
        survival = "document.querySelector('#horizon-0 b').textContent"
        was = page.run(survival)
        page.run("document.querySelector('[data-variable=tnm_stage] input:checked').focus()")
        page.press(*RIGHT)
        assert page.run(survival) != was
        page.run("document.querySelector('button[type=reset]').click()")
        page.until(f"{survival} === '{was}'")
        assert page.run("performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))")
        assert page.run("document.body.innerText.includes('Not a medical device')")
        assert page.said == []


def test_without_webgl_the_planes_are_pictures(served: Served, tmp_path: Path) -> None:
    """A browser without WebGL shows the server's planes, and the sliders move them by keyboard."""
    with chromium(tmp_path / "profile", "--disable-3d-apis") as page:
        page.size(820, 1100)
        _sent(page, served, tmp_path)
        assert page.run("document.querySelector('[data-viewer]').dataset.viewer") == "planes"
        assert _serious(page) == []
        page.run("document.getElementById('s-coronal').focus()")
        page.press(*RIGHT)
        page.until("[...document.querySelectorAll('#planes img')].every(i => i.complete && i.naturalWidth > 50)")
        assert (_shown(page, "#coronal", tmp_path / "narrow.png") > 40).mean() > 0.1
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert page.said == []
