"""A frozen model in the formats of others, each judged by what those others wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from mtdlr.bundle import read_bundle
from mtdlr.cli import app
from mtdlr.errors import MtdlrError
from mtdlr.model import FrozenModel
from mtdlr.report.export.bids import bids_files
from mtdlr.report.export.card import NOT_STATED, Card, Terms, card_of
from mtdlr.report.export.fhir import fhir_bundle
from mtdlr.report.export.hugging_face import hugging_face_readme
from mtdlr.report.export.monai import SCHEMA, monai_files
from mtdlr.report.export.write import Form, export_model

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "bundle"
TERMS = Terms("CC-BY-4.0", ("Ada Lovelace", "Grace Hopper"))
C = {"training": [0.782, 0.698, 0.866], "external": [0.669, None, None]}


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    """A stored model that has figures of two cohorts."""
    stored = read_bundle(GOLDEN)
    return replace(stored, facts={**stored.facts, "c": C})


@pytest.fixture(params=["whole", "bare"])
def card(request: pytest.FixtureRequest, model: FrozenModel) -> Card:
    """A card with terms and figures, and one of a model that keeps neither and no reference either."""
    return card_of(model, TERMS) if request.param == "whole" else card_of(
        replace(model, facts={"n": 60, "events": 41}, aggregates=None, cutoffs={}), Terms())


@pytest.mark.parametrize("form", get_args(Form))
def test_a_copy_of_the_model_goes_along(form: Form, tmp_path: Path) -> None:
    """The copy in every format but FHIR, which has none, is a whole model with the same digest."""
    export_model(GOLDEN, tmp_path / "out", form, terms=TERMS)
    copies = [path.parent for path in (tmp_path / "out").rglob("mean_image.npy")]
    assert [read_bundle(copy).digest for copy in copies] == ([] if form == "fhir" else [read_bundle(GOLDEN).digest])


def test_monai_accepts_the_metadata(card: Card) -> None:
    """MONAI's own schema for metadata.json accepts it, and refuses it without the task."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((TESTS / "reference" / SCHEMA.rpartition("/")[2]).read_text())
    values = monai_files(card)["configs/metadata.json"]
    jsonschema.Draft201909Validator(schema).validate(values)
    with pytest.raises(jsonschema.ValidationError, match="task"):
        jsonschema.Draft201909Validator(schema).validate({k: v for k, v in values.items() if k != "task"})


def test_hugging_face_reads_the_header(card: Card) -> None:
    """huggingface_hub's parser finds licence, library and the C-index of each cohort, and none where none is known."""
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(hugging_face_readme(card)).data
    assert data.library_name == "mtdlr" and data.license == (card.terms.licence.lower() or "unknown")
    found = {one.dataset_name: one.metric_value for one in data.eval_results or ()}
    assert found == {f"{name} cohort": c.value for name, c in card.c_index.items()}


def test_bids_accepts_the_derivative(card: Card, tmp_path: Path) -> None:
    """The schema of BIDS knows every file name; dataset_description.json has what it requires of a derivative."""
    validator, schema = (pytest.importorskip(f"bidsschematools.{name}") for name in ("validator", "schema"))
    export_model(GOLDEN, tmp_path / "out", "bids", terms=card.terms)
    shown = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "code" not in path.parts]
    assert not validator.validate_bids([str(path) for path in shown])["path_tracking"]
    rules = schema.load_schema().rules.json.dataset
    required = [name for rule in (rules.dataset_description, rules.derivative_description)
                for name, level in rule.fields.items() if "required" in str(getattr(level, "level", level)).split()[:1]]
    values = bids_files(card)["dataset_description.json"]
    assert {"Name", "BIDSVersion"} <= set(required) <= set(values)


def test_fhir_accepts_the_resources(card: Card) -> None:
    """fhir.resources, which nobody here wrote, accepts the bundle; device and library name the model's digest."""
    standard = pytest.importorskip("fhir.resources.R4B.bundle").Bundle
    made = standard.model_validate_json(json.dumps(fhir_bundle(card)))
    assert {entry.resource.identifier[0].value for entry in made.entry} == {card.facts.digest}


def test_the_card_answers_what_a_reader_asks(model: FrozenModel) -> None:
    """Data, use, performance by cohort, limits, foreign scans, licence, citation and hash each have their section."""
    text = card_of(model, TERMS).text()
    parts: dict[str, Any] = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert "60 patients, 41 with the event" in parts["Training data"]
    assert "tnm_stage" in parts["Intended use"] and "not a medical device" in parts["Intended use"]
    assert "| training | 0.782 | 0.698 to 0.866 |" in parts["Performance by cohort"]
    assert "| external validation | 0.669 | not known |" in parts["Performance by cohort"]
    last = max(model.nomograms["mtdlr"].months)
    assert f"beyond {last:g} months" in parts["Limits"]
    assert "percentile 99.9" in parts["Scans unlike the training scans"]
    assert "CC-BY-4.0" in parts["Licence"] and "Ada Lovelace" in parts["Licence"] and "10.1007" in parts["Citation"]
    assert model.digest in parts["Identity"]


def test_what_is_not_known_is_said() -> None:
    """A model without figures, terms or a reference says so in each place instead of an empty one."""
    bare = replace(read_bundle(GOLDEN), aggregates=None)
    text = card_of(bare, Terms()).text()
    assert text.count(NOT_STATED) == 2 and "holds no figure" in text and "any scan without a warning" in text


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """A folder with a file is refused and keeps only it."""
    (tmp_path / "mine.txt").touch()
    with pytest.raises(MtdlrError, match="E-EXISTS"):
        export_model(GOLDEN, tmp_path, "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_verb(tmp_path: Path) -> None:
    """`mtdlr export` writes what the function writes and names the files; a format that is none is one line."""
    runner = pytest.importorskip("typer.testing").CliRunner()
    words = ["export", str(GOLDEN), "-o", str(tmp_path / "out"), "--licence", "CC-BY-4.0", "--json", "--to"]
    done = runner.invoke(app, [*words, "monai"])
    assert done.exit_code == 0 and json.loads(done.stdout)["files"] == [
        "configs/inference.json", "configs/metadata.json", "docs/README.md"]
    wrong = runner.invoke(app, [*words, "onnx"])
    assert isinstance(wrong.exception, MtdlrError) and wrong.exception.problems[0].code == "E-OPTION"
