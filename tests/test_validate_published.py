"""A model typed in from its publication, judged on a table by the command line: no scan is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from mtdlr.cli import app
from mtdlr.errors import MtdlrError, StoreError
from mtdlr.nomogram import Nomogram
from mtdlr.survival import Survival
from mtdlr.validate import numbers, validate_table
from mtdlr.validate.published import read_published

MODEL = """
endpoint = "PFS"
[coefficients]
"stage=IVa" = 0.6
score = 0.9
[baseline_survival]
24 = 0.85
48 = 0.70
[levels]
stage = ["III", "IVa"]
[ranges]
score = [-3, 3]
"""
STUDY = """
preset = "quick"
[cohort]
table = "table.csv"
id = "who"
time = "followed"
event = "relapse"
center = "site"
[cohort.factors]
stage = ["III", "IVa", "IVb"]
"""


def _table(n: int = 160) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    score, stage = rng.normal(size=n), np.where(rng.random(n) < 0.4, "IVa", "III")
    time = rng.exponential(60.0 * np.exp(-0.8 * score - 0.5 * (stage == "IVa")))
    end = rng.uniform(20, 90, n)
    return pd.DataFrame({"who": [f"P{k}" for k in range(n)], "followed": np.minimum(time, end).round(2) + 0.1,
                         "relapse": (time <= end).astype(int), "stage": stage,
                         "site": np.where(np.arange(n) % 3 == 0, "North", "South"), "score": score.round(4)})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model, the study file and the table."""
    monkeypatch.chdir(tmp_path)
    Path("model.toml").write_text(MODEL)
    Path("study.toml").write_text(STUDY)
    _table().to_csv("table.csv", index=False)
    return tmp_path


def _call(*more: str, model: str = "model.toml") -> Result:
    return CliRunner().invoke(app, ["validate", model, "study.toml", "-o", "out", *more])


def _read(name: str = "evaluation.json") -> Any:
    return json.loads((Path("out") / name).read_text())


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `out` of a validation with `--update slope`, written once."""
    place = tmp_path_factory.mktemp("updated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("model.toml").write_text(MODEL)
        Path("study.toml").write_text(STUDY)
        _table().to_csv("table.csv", index=False)
        assert _call("--update", "slope").exit_code == 0
        assert Path("model.toml").read_text() == MODEL
    return place / "out"


@pytest.mark.slow
def test_the_command_gives_the_numbers_of_the_function(place: Path) -> None:
    """C, AUC(t), calibration, Brier score and centres are those of `validate_table` on the same rows; the page, its
    tables and figures are written."""
    done = _call()
    assert done.exit_code == 0, done.output
    table = _table().set_index("who")
    surv = Survival(table["followed"].to_numpy(), table["relapse"].to_numpy(bool))
    expected = numbers(validate_table(read_published(Path("model.toml")), table, surv, centers=list(table["site"])))
    assert _read()["main"] == json.loads(json.dumps(expected)) and expected["pooled"]["c"]["centers"] == 2
    page = (Path("out") / "report.html").read_text()
    assert "Calibration and accuracy" in page and "By centre" in page and "data:image/svg+xml" in page
    assert len(pd.read_csv("out/scores.csv")) == 160 and Path("out/tables/table2.csv").is_file()


@pytest.mark.slow
def test_an_update_is_a_file_of_its_own_that_can_be_judged_again(place: Path, updated: Path) -> None:
    """`--update slope` leaves the model file as it is and writes the updated nomogram, which `validate` reads."""
    shutil.copytree(updated, "out")
    assert _read()["update"]["method"] == "slope"
    assert "Effective sample size" in (Path("out") / "report.html").read_text()
    assert Path("out/tables/table3.csv").is_file()
    assert _call(model="out/updated-nomogram.json").exit_code == 0
    assert not Path("out/tables/table3.csv").exists()  # the table of the update is not this validation's
    assert Path("out/updated-nomogram.json").is_file()  # the model that was judged is
    assert _read()["main"]["months"]["48"]["slope"]["value"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_an_update_never_overwrites_another_one(place: Path, updated: Path) -> None:
    """A folder with another updated nomogram is refused and stays as it was; the same update again is fine."""
    shutil.copytree(updated, "out")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    refused = _call("--update", "baseline").exception
    assert isinstance(refused, StoreError) and refused.code == "E-EXISTS"
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before
    assert _call("--update", "slope").exit_code == 0


@pytest.mark.parametrize(("text", "found"), [
    ("not = toml = x", "TOMLDecodeError"), ("[coefficients]", "too_short"), (MODEL + "[extra]\n", "extra_forbidden"),
    (MODEL.replace("score = 0.9", 'score = "much"'), "float_parsing"),
])
def test_a_file_that_is_no_model_is_one_line(place: Path, text: str, found: str) -> None:
    """Another syntax, a part missing, a key too many, a word for a number: E-PUBLISHED."""
    Path("model.toml").write_text(text)
    error = _call().exception
    assert isinstance(error, MtdlrError) and error.code == "E-PUBLISHED" and found in str(error)
    Path("other.json").write_text("{}")
    assert isinstance(_call(model="other.json").exception, MtdlrError)


@pytest.mark.slow
def test_bad_tables_are_named_and_leave_the_others_unharmed(place: Path) -> None:
    """A level that the model has not seen, a missing value and a bad cell leave their patients out; days are suspected;
    a missing column ends it."""
    table = _table().astype({"stage": object, "score": object})
    table.loc[0, "stage"], table.loc[1, "score"], table.loc[2, "score"] = "IVb", None, "high"
    table.to_csv("table.csv", index=False)
    done = _call()
    assert done.exit_code == 1 and "E-NUMBER" in done.output and _read()["main"]["n"] == 157
    page = (Path("out") / "report.html").read_text()
    assert "W-NEWLEVEL" in page and "W-NOCOVARIATE" in page
    days = _table()
    days["followed"] *= 30.4
    days.to_csv("table.csv", index=False)
    assert _call().exit_code == 0 and "W-TIMEUNIT" in (Path("out") / "report.html").read_text()
    _table().drop(columns=["score"]).to_csv("table.csv", index=False)
    error = _call().exception
    assert isinstance(error, MtdlrError) and "E-COLUMN" in str(error) and "score" in str(error)


@pytest.mark.slow
def test_a_table_without_an_event_and_a_centre_of_one_patient(place: Path) -> None:
    """No event: scores, W-NOEVENTS and a page. One patient in a centre: shown, not pooled."""
    table = _table()
    table.assign(relapse=0).to_csv("table.csv", index=False)
    assert _call("--update", "baseline").exit_code == 0
    assert "W-NOEVENTS" in (Path("out") / "report.html").read_text() and _read()["update"] is None
    table.loc[0, "site"] = "Alone"
    table.to_csv("table.csv", index=False)
    assert _call().exit_code == 0
    found = _read()["main"]
    assert next(c["n"] for c in found["centers"]) == 1 and found["pooled"]["c"]["centers"] == 2


@pytest.mark.slow
def test_json_of_a_run_is_read_too(place: Path) -> None:
    """A nomogram as `Nomogram.to_json` writes it."""
    model = Nomogram.from_coefficients({"score": 1.0}, baseline_survival={24: 0.8}, ranges={"score": (-3, 3)})
    Path("run.json").write_text(model.to_json())
    assert _call(model="run.json").exit_code == 0 and list(_read()["main"]["months"]) == ["24"]
