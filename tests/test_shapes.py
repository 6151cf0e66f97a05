"""One shape notation: what the docstrings of volume, nets and stats say is the shape that the arrays have."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtdlr import stats
from mtdlr.nets import losses
from mtdlr.nets.augment import augment_paper
from mtdlr.nets.blocks import conv_of_doubled, pointwise
from mtdlr.nets.cases import Case
from mtdlr.nets.cells import strided_convolution
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build
from mtdlr.stats.auc_curve import auc_curve
from mtdlr.stats.concordance_pairs import count_pairs
from mtdlr.stats.cox_residuals import cox_residuals
from mtdlr.stats.hazard_trend import hazard_trends
from mtdlr.stats.net_benefit import net_benefit
from mtdlr.survival import Survival
from mtdlr.volume import Volume

SRC = Path(__file__).parents[1] / "src" / "mtdlr"
FILES = [SRC / "volume.py", *sorted((SRC / "stats").glob("*.py")), *sorted((SRC / "nets").glob("*.py"))]
DIMENSION = r"\d*[a-zA-Z_]*(?:/\d)?(?: [+-] (?:\d|[a-z]))?"
SHAPE = re.compile(rf"\(({DIMENSION}(?:, {DIMENSION})*,?)\)")
OTHER = re.compile(r"(?m)^ +\w+: (\[[a-z]\b[^\]]*\]|\([a-z]\)(?! =)|[a-z] x [a-z]\b|shape\b|array of shape)")
ENTRY = re.compile(rf"^    ([a-z_0-9]+(?:, [a-z_0-9]+)*): {SHAPE.pattern}", re.MULTILINE)


def shapes_of(documented: Any) -> dict[str, tuple[str, ...]]:
    """By the name of an argument or field: the letters and numbers of its shape, as the docstring has them."""
    found = {}
    for names, shape in ENTRY.findall(inspect.getdoc(documented) or ""):
        dimensions = tuple(part.strip() for part in shape.split(",") if part.strip())
        if shape.endswith(",") or len(dimensions) > 1:
            found |= {name: dimensions for name in names.split(", ")}
    return found


def bind(name: str, shape: tuple[int, ...], dimensions: tuple[str, ...], known: dict[str, int]) -> None:
    """Compare one array's shape with its letters; a letter that is new takes its size."""
    assert len(shape) == len(dimensions), f"{name}: {shape} is not ({', '.join(dimensions)})"
    for size, dimension in zip(shape, dimensions, strict=True):
        if dimension.isdigit():
            assert size == int(dimension), f"{name}: {shape} is not ({', '.join(dimensions)})"
        elif dimension.isidentifier():
            assert known.setdefault(dimension, size) == size, f"{name}: {dimension} is {known[dimension]}, not {size}"
        else:
            factor, letter, divisor, more = re.fullmatch(  # type: ignore[union-attr]
                r"(\d*)([a-z]+)(?:/(\d))?(?: ([+-] \d))?", dimension).groups()
            expected = known[letter] * int(factor or 1) // int(divisor or 1) + int((more or "0").replace(" ", ""))
            assert size == expected, f"{name}: {dimension} is {expected}, not {size}"


def check(values: Iterator[tuple[str, Any]], shapes: dict[str, tuple[str, ...]], known: dict[str, int]) -> int:
    """Compare every array that has a documented shape; how many there were."""
    compared = 0
    for name, value in values:
        if name in shapes and value is not None:
            bind(name, tuple(np.shape(value)), shapes[name], known)
            compared += 1
    return compared


@cache
def patients() -> tuple[np.ndarray, Survival]:
    """Sixty patients with three covariates, of which the first matters."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 3))
    time = rng.exponential(40.0 / np.exp(x[:, 0]))
    censored = rng.uniform(20.0, 90.0, 60)
    return x, Survival(np.minimum(time, censored) + 0.1, time <= censored)


def of(function: Callable[..., Any], *more: Any, **options: Any) -> Callable[[], Any]:
    """A call on the sixty patients' covariates and follow-up."""
    return lambda: function(*patients(), *more, **options)


def predicted() -> np.ndarray:
    """Survival that the first covariate predicts, strictly between 0 and 1."""
    return np.asarray(1.0 / (1.0 + np.exp(patients()[0][:, 0])))


RESULTS: dict[str, Callable[[], Any]] = {
    "kaplan_meier": lambda: stats.kaplan_meier(patients()[1]),
    "cumulative_incidence": lambda: stats.cumulative_incidence(patients()[1].time_months, np.arange(60) % 3),
    "gray_test": lambda: stats.gray_test(np.arange(60) % 2, patients()[1].time_months, np.arange(60) % 3),
    "fit_cox": of(stats.fit_cox),
    "baseline": lambda: stats.fit_cox(*patients()).baseline,
    "cox_residuals": lambda: cox_residuals(stats.fit_cox(*patients()), *patients()),
    "hazard_trends": lambda: next(iter(hazard_trends(stats.fit_cox(*patients()), *patients()).values())),
    "log_rank": lambda: stats.log_rank(np.arange(60) % 3, patients()[1]),
    "roc": lambda: stats.roc(patients()[0][:, 0], patients()[1].event),
    "auc_at": lambda: stats.auc_at(patients()[0][:, 0], patients()[1], 24.0),
    "auc_curve": lambda: auc_curve(patients()[0][:, 0], patients()[1], [12.0, 24.0]),
    "decision_curve": lambda: stats.decision_curve(predicted(), patients()[1], 24.0, thresholds=[0.1, 0.2, 0.3]),
    "net_benefit": lambda: net_benefit(predicted(), patients()[1], 24.0, [0.1, 0.2, 0.3]),
    "calibration groups": lambda: stats.calibrate(predicted(), patients()[1], 24.0).groups,
    "combat": lambda: stats.fit_combat(patients()[0], np.arange(60) % 2),
    "calibrate_bootstrap": of(stats.calibrate_bootstrap, 24.0, n_resamples=2),
    "volume": lambda: Volume.on_grid(np.zeros((2, 3, 4)), (1.0, 2.0, 3.0)),
    "case": lambda: Case("P1", np.zeros((2, 3, 4, 5), np.float32), np.zeros((3, 4, 5), bool), 12.0, True),
    "deepmts": lambda: run_network(DeepmtsConfig()),
    "singletask": lambda: run_network(SingletaskConfig("csn-only")),
}


def run_network(config: Any) -> Any:
    """What a network without training returns for two patients."""
    with torch.no_grad():
        return build(config).eval()(torch.rand(2, 2, 32, 32, 32))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "deepmts"))
                                  for name in RESULTS])
def test_results_have_the_shapes_of_their_fields(name: str) -> None:
    """One letter has one size in all fields of a result, a number in a shape is that size."""
    result = RESULTS[name]()
    fields = ((key, getattr(result, key)) for key in shapes_of(type(result)))
    assert check(fields, shapes_of(type(result)), {}) >= 1


B, I, O = 2, 3, 4
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "conv_of_doubled": (conv_of_doubled, {"low": (B, I, 4, 5, 6), "weight": (O, I, 3, 3, 3)}, "b, o, 2z, 2y, 2x"),
    "pointwise": (pointwise, {"x": (B, I, 4, 5, 6), "weight": (O, I, 1, 1, 1), "bias": (O,)}, "b, o, z, y, x"),
    "strided_convolution": (strided_convolution, {"x": (B, I, 8, 6, 10), "weight": (O, I, 3, 3, 3), "bias": (O,)},
                            "b, o, z/2 - 1, y/2 - 1, x/2 - 1"),
}


@pytest.mark.parametrize("name", CALLS)
def test_convolutions_return_the_shape_of_their_docstring(name: str) -> None:
    """Arguments of the documented shapes give a result of the documented shape."""
    function, sizes, returned = CALLS[name]
    assert f"({returned})" in (inspect.getdoc(function) or "")
    known: dict[str, int] = {}
    arrays = {key: torch.rand(size) for key, size in sizes.items()}
    assert check(iter(arrays.items()), shapes_of(function), known) == len(arrays)
    bind("result", tuple(function(**arrays).shape), tuple(returned.split(", ")), known)


def test_augmented_images_keep_their_shapes() -> None:
    """Image and mask come back in the shapes that the docstring gives the arguments."""
    known: dict[str, int] = {}
    given = {"image": torch.rand(2, 3, 16, 16, 16), "mask": (torch.rand(2, 16, 16, 16) > 0.5).float()}
    check(iter(given.items()), shapes_of(augment_paper), known)
    moved = augment_paper(**given, generator=torch.Generator().manual_seed(0))
    assert check(iter(zip(given, moved, strict=True)), shapes_of(augment_paper), known) == 2


def test_losses_are_one_number_of_the_documented_arrays() -> None:
    """The risk sets of four patients fit the loss that is taken of them, letter by letter."""
    event = torch.tensor([True, False, True, True])
    log_weights, who = losses.risk_sets(torch.tensor([3.0, 2.0, 4.0, 1.0]), event, "breslow")
    given = {"risk": torch.zeros(4), "log_weights": log_weights, "who": who}
    assert check(iter(given.items()), shapes_of(losses.cox_loss_of_sets), {}) == 3
    assert losses.cox_loss_of_sets(**given).shape == ()


@pytest.mark.parametrize(("shape", "dimensions"), [((3, 4), ("n",)), ((3, 4), ("n", "n")), ((3, 4), ("n", "5"))])
def test_a_wrong_shape_is_found(shape: tuple[int, ...], dimensions: tuple[str, ...]) -> None:
    """Another number of axes, one letter with two sizes and a wrong number fail the comparison."""
    with pytest.raises(AssertionError, match="is not|not 4"):
        bind("x", shape, dimensions, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shapes_are_written_in_one_way(path: Path) -> None:
    """Shapes stand in round brackets with commas, a vector's with a trailing one: no `[n]`, `n x p` or `shape n`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            text = ast.get_docstring(node) or ""
            other = OTHER.search(text)
            assert other is None, f"{node.name}: {other and other.group(0).strip()}"


def test_counts_of_pairs_take_vectors_of_one_length() -> None:
    """The four vectors of a concordance are documented with one letter, and so is what comes back."""
    shapes = shapes_of(count_pairs)
    assert len(shapes) >= 2 and set(shapes.values()) == {("n",)}
