"""The entry scripts of the container examples, a Grand Challenge algorithm and a BIDS App, and what builds them."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import one_prediction
import pytest

from mtdlr.imaging import nifti
from mtdlr.predict import Bundle

EXAMPLES = Path(__file__).parents[1] / "examples"
COHORT = SimpleNamespace(stage="tnm_stage")
FROZEN = SimpleNamespace(digest="9ed951e73ab313f7", study=SimpleNamespace(cohort=COHORT, nomogram_covariates=("age",)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a model that always answers the same was asked."""
    calls: list[dict[str, Any]] = []

    def predict(**words: Any) -> Any:
        assert all(Path(words[name]).is_file() for name in ("pet", "ct"))
        calls.append(words)
        return one_prediction.prediction()

    monkeypatch.setattr(Bundle, "load", lambda folder: SimpleNamespace(predict=predict, frozen=FROZEN))
    return calls


def _scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, one_prediction.prepared()[1])
    return path


def test_a_grand_challenge_algorithm(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """One patient's images and clinical values go in; the mask and the prognosis of the prediction come out."""
    sitk = pytest.importorskip("SimpleITK")
    script = runpy.run_path(str(EXAMPLES / "grand_challenge" / "run.py"))
    source, target = tmp_path / "input", tmp_path / "output"
    for kind in ("pet", "ct"):
        image = sitk.ReadImage(str(_scan(tmp_path / f"{kind}.nii.gz")))
        (source / "images" / kind).mkdir(parents=True)
        sitk.WriteImage(image, str(source / "images" / kind / "any-uuid.mha"))
    (source / "clinical-information.json").write_text('{"tnm_stage": "IVa"}')
    script["main"](source, target, tmp_path / "model")
    assert [call["clinical"] for call in asked] == [{"tnm_stage": "IVa"}]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(target / "images" / "tumour-segmentation" / "mask.mha")))
    made = one_prediction.prediction()
    assert np.count_nonzero(mask) == np.count_nonzero(made.mask.array) > 0
    assert json.loads((target / "prognosis.json").read_text())["risk"] == made.risk
    (source / "images" / "ct" / "any-uuid.mha").unlink()
    with pytest.raises(SystemExit, match="0 images"):
        script["main"](source, target, tmp_path / "model")


def test_a_bids_app(asked: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Subjects with scans become a derivative whose names BIDS knows; one without is named; group joins the others."""
    script = runpy.run_path(str(EXAMPLES / "bids_app" / "run.py"))
    source, target = tmp_path / "bids", tmp_path / "derivative"
    for name in ("sub-01", "sub-02"):
        for kind in ("pet", "ct"):
            _scan(source / name / "ses-1" / kind / f"{name}_ses-1_{kind}.nii.gz")
    (source / "participants.tsv").write_text(
        "participant_id\ttnm_stage\tage\tsex\nsub-01\tIVa\t50\tF\nsub-02\tIII\tn/a\tM\nsub-03\tIII\t60\tM\n")
    words = [str(source), str(target)]
    assert script["main"]([*words, "participant", "--model", "m"]) == 1
    assert "sub-03: 0 pet images" in capsys.readouterr().err
    assert [call["clinical"] for call in asked] == [{"tnm_stage": "IVa", "age": "50"}, {"tnm_stage": "III"}]
    assert script["main"]([*words, "participant", "--model", "m", "--participant_label", "02"]) == 0
    assert script["main"]([*words, "group"]) == 0
    rows = (target / "group_prediction.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["participant_id", "sub-01", "sub-02"]
    assert nifti.read(target / "sub-01" / "anat" / "sub-01_desc-mtdlr_mask.nii.gz")[0].array.any()
    validator, rules, schema = (pytest.importorskip(f"bidsschematools.{n}") for n in ("validator", "rules", "schema"))
    known = schema.load_schema()
    names = [one for group in (known.rules.files.common, known.rules.files.deriv)
             for one in rules.regexify_filename_rules(group, known, level=2)]
    ignored = {".bidsignore", *(target / ".bidsignore").read_text().split()}
    shown = [str(path) for path in target.rglob("*") if path.is_file() and path.name not in ignored]
    assert len(shown) == 5 and not validator.validate_all(shown, names)["path_tracking"]


def test_the_container_runs_as_an_ordinary_user_and_holds_the_scripts() -> None:
    """Both recipes install the wheel, copy files that exist, and neither ends as root."""
    docker = (EXAMPLES / "container" / "Dockerfile").read_text()
    recipe = (EXAMPLES / "container" / "mtdlr.def").read_text()
    assert re.search(r"^USER 1000", docker, re.MULTILINE) and docker.rstrip().endswith('["/opt/mtdlr/entry"]')
    assert "exec /opt/mtdlr/bin/mtdlr" in (EXAMPLES / "container" / "entry.sh").read_text()
    for text in (docker, recipe):
        named = re.findall(r"(?:COPY|^   ) ((?:examples|constraints)\S+) ", text, re.MULTILINE)
        assert len(named) >= 2 and all((EXAMPLES.parent / name).is_file() for name in named)
