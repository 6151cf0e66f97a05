"""docs/extending.md names what exists."""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from mtdlr.nets.weights import SINGLE_TASK
from mtdlr.report.figures.page import _METADATA, FORMATS
from mtdlr.study import Study
from mtdlr.study.sections import SingletaskNetwork

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "mtdlr"
PLACES = sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py):([\w.]+)`", PAGE)))


def names_of(body: list[ast.stmt]) -> dict[str, ast.AST]:
    """What a module or a class defines, by name."""
    found: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_a_name_stands_in_the_file_that_the_page_gives(file, name):
    """Every function, class and method that the page sends a reader to is defined in the file it names."""
    body = ast.parse((SOURCE / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        node = names_of(body).get(part)
        assert node is not None, f"{file} has no {name}"
        body = getattr(node, "body", [])


def test_the_page_leads_to_every_step():
    """The page gives places for at least the six steps from scans to a risk."""
    assert len(PLACES) >= 20


def test_files_and_folders_of_the_page_exist():
    """A file or folder that the page names without a function is there."""
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|js|md)|(?:[a-z_]+/)+)`", PAGE))
    assert named
    for name in named:
        assert (SOURCE / name).exists() or (ROOT / name).exists(), name


def test_the_covariates_of_the_example_are_a_study():
    """The example of a new clinical covariate is accepted as it stands, splines and reference level included."""
    (block,) = re.findall(r"(?s)```toml\n(.*?)```", PAGE)
    told = tomllib.loads(block)
    study = Study.of({**told, "cohort": {**told["cohort"], "images": "images", "table": "clinical.csv"}})
    assert set(told["nomogram"]["covariates"]) == set(study.nomogram.covariates) >= set(study.nomogram.splines)
    assert study.cohort.factors["smoking"][0] == "never"


def test_a_network_is_known_by_one_list():
    """The steps of another network name two places: what the settings allow is what can be built."""
    assert set(get_args(SingletaskNetwork)) == set(SINGLE_TASK)


def test_a_figures_format_has_its_metadata():
    """Each suffix in which every figure is written has its metadata."""
    assert set(FORMATS) <= set(_METADATA)


@pytest.mark.parametrize("key", ["univariate", "characteristics", "multivariate", "performance"])
def test_keys_of_evaluation_json_are_written(key):
    """The keys that the page points to are those that the report's numbers are written under."""
    assert f"`{key}`" in PAGE and json.dumps(key) in (SOURCE / "report" / "numbers.py").read_text(encoding="utf-8")
