"""The result page of one patient: what is to be doubted stands before the numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from one_prediction import outside, prediction
from serve_fake import FACTS

from mtdlr.errors import Problem
from mtdlr.predict import Prediction
from mtdlr.serve.jobs import new_job
from mtdlr.serve.pages import result_page
from mtdlr.serve.predictor import write_view

Shown = Callable[[Prediction], str]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """The page of a prediction, as the server makes it."""
    def page(made: Prediction) -> str:
        write_view(made, tmp_path / "view", None)
        (tmp_path / "result").mkdir()
        (tmp_path / "result" / "prediction.json").write_text(json.dumps(made.as_dict(), default=str))
        return result_page(FACTS, replace(new_job(), state="done"), tmp_path)
    return page


def _in_order(page: str, *texts: str) -> bool:
    places = [page.index(text) for text in texts]
    return places == sorted(places)


def test_a_scan_outside_the_training_scans_is_said_before_every_number(shown: Shown) -> None:
    """Not to rely on it comes first, then the likeness, the warnings with the scan's own first, then grey numbers."""
    page = shown(outside())
    survival = f"{100 * outside().survival[36].value:.1f} %"
    assert _in_order(page, "Do not rely on these numbers", "more than 99.9 % of them", "E-SHIFT" if "E-SHIFT" in page
                     else "W-SHIFT", "W-UPTAKE", 'class="wide doubtful" id="answer"', survival, 'id="viewer"')
    assert survival not in page.partition('id="answer"')[0]


def test_warnings_are_counted_before_the_numbers(shown: Shown) -> None:
    """One warning is one thing to look at, above risk and interval."""
    made = prediction(problems=(Problem("W-UPTAKE", "the uptake time is unusual", found="130 min"),))
    assert _in_order(shown(made), "Before you use the numbers: 1 thing to look at", "W-UPTAKE", "95 % interval")


def test_no_warning_is_said_too(shown: Shown) -> None:
    """Where nothing was noticed the page says so, and how like the training scans the scan is."""
    page = shown(prediction())
    assert _in_order(page, "No warnings", "The scan looks like the training scans: 72 % of them", "95 % interval")
    assert "doubtful" not in page
