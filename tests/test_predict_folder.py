"""Where a prediction is written: one folder, one patient."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from one_prediction import prediction

from mtdlr.errors import StoreError
from mtdlr.estimate import Estimate
from mtdlr.predict import Prediction, claim_folder, write_prediction
from mtdlr.volume import Volume


def test_a_folder_with_another_patient_is_refused(tmp_path: Path) -> None:
    """FAULTS 93: a folder that is not empty is refused before anything is written, and keeps what it holds."""
    (tmp_path / "attribution.png").write_bytes(b"another patient")
    with pytest.raises(StoreError, match="E-EXISTS"):
        write_prediction(None, tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["attribution.png"]
    claim_folder(tmp_path / "new" / "place")
    assert (tmp_path / "new" / "place").is_dir()


def test_a_place_that_is_a_file_is_refused_in_words(tmp_path: Path) -> None:
    """A path that cannot become a folder is an error of one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="E-READONLY"):
        claim_folder(tmp_path / "file")


def _prediction(**changes: Any) -> Prediction:
    mask = Volume(np.ones((2, 2, 2), bool), np.eye(4))
    values: dict[str, Any] = {
        "risk": 0.5, "survival": {36.0: Estimate(0.8, float("nan"), float("nan"))}, "group": "high",
        "points": {"total": 40.0}, "scores": {"deepmts": 0.1, "deepmts_sd": float("nan")}, "clinical": {}, "mask": mask,
        "prepared": SimpleNamespace(audit={"pet": "series 1"}),
        "nomogram": SimpleNamespace(endpoint="overall survival"),
        "problems": (), "model": "abc"}
    return Prediction(**(values | changes))


def test_a_prediction_is_json_and_says_what_made_it() -> None:
    """One network has no spread: that is null, not NaN. Model, version, endpoint and scan stand beside the numbers."""
    values = json.loads(json.dumps(_prediction().as_dict(), allow_nan=False))
    assert values["scores"] == {"deepmts": 0.1, "deepmts_sd": None} and values["survival"]["36"]["low"] is None
    assert values["model"] == "abc" and values["version"] and values["scan"] == {"pet": "series 1"}


def test_the_endpoint_is_named() -> None:
    """The text says what survival means in this study, not progression-free survival whatever it is."""
    assert "overall survival at 36 months: 80.0 %" in str(_prediction())


@pytest.mark.parametrize(("error", "code"), [
    (OSError(errno.ENOSPC, "No space left on device"), "E-DISKFULL"),
    (OSError(errno.EROFS, "Read-only file system"), "E-READONLY"),
    (PermissionError(errno.EACCES, "Permission denied"), "E-READONLY")])
def test_half_a_prediction_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: str) -> None:
    """A disk that fills while a prediction is written is one line, and the folder is empty again: with room, the same
    command works."""
    def fail(path: Path, _: Any) -> None:
        assert (path.parent / "prediction.json").exists(), "half of it was there"
        raise error

    monkeypatch.setattr("mtdlr.predict.patient_page", lambda _: "the page")
    monkeypatch.setattr("mtdlr.predict.can_write_pdf", lambda: False)
    monkeypatch.setattr("mtdlr.predict.nifti.write", fail)
    with pytest.raises(StoreError, match=f"{code} out: ") as caught:
        write_prediction(prediction(), tmp_path / "out")
    assert "\n" not in str(caught.value) and list((tmp_path / "out").iterdir()) == []
    claim_folder(tmp_path / "out")
