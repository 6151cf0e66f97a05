"""What users see: public names, start-up time's causes, codes, documented examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import mtdlr
from mtdlr import Nomogram, Survival
from mtdlr.stats import calibrate_bootstrap

ROOT = Path(__file__).parents[1]
NEEDS_TORCH = {"Bundle"}
CODE = re.compile(r"\"([EW]-[A-Z0-9]+)\"")


def test_public_names_are_these() -> None:
    """The public names are listed once, sorted, and each can be had."""
    assert mtdlr.__all__ == [
        "Bundle", "Estimate", "MtdlrError", "Nomogram", "Problem", "Run", "Study", "Survival", "Volume", "auc_at",
        "calibrate", "compare_concordance", "concordance", "delong", "extract_features", "fit_cox", "kaplan_meier",
        "log_rank", "roc"]
    for name in sorted({*mtdlr.__all__} - NEEDS_TORCH):
        assert getattr(mtdlr, name) is not None


@pytest.mark.parametrize("name", sorted(NEEDS_TORCH))
def test_a_name_that_needs_torch_says_so(name: str) -> None:
    """With torch it can be had; without, one line names the extra."""
    if importlib.util.find_spec("torch"):
        assert getattr(mtdlr, name) is not None
    else:
        with pytest.raises(mtdlr.MtdlrError, match=r"E-EXTRA .*pip install 'mtdlr\[networks\]'"):
            getattr(mtdlr, name)


@pytest.mark.slow
@pytest.mark.parametrize(("statement", "absent"), [
    ("import mtdlr", ("numpy", "torch", "pandas")),
    ("import mtdlr.cli", ("numpy", "torch", "SimpleITK", "pydantic", "matplotlib")),
    ("import mtdlr.cohort.check", ("torch", "SimpleITK", "matplotlib")),
    ("import mtdlr.jobs", ("torch", "pandas", "numba", "pydicom", "matplotlib")),  # what every worker begins with
    ("import mtdlr.store", ("torch", "SimpleITK", "matplotlib", "numpy")),
    ("import mtdlr.stats", ("torch", "SimpleITK", "matplotlib", "pandas")),
    ("import mtdlr.texture", ("scipy.special", "scipy.ndimage", "pandas", "pydantic", "nibabel")),
    ("import mtdlr.radiomics.featureextractor", ("scipy.ndimage", "scipy.sparse", "pandas", "pydantic", "nibabel")),
    ("import mtdlr.radiomics.table", ("torch", "SimpleITK", "matplotlib", "pandas")),
])
def test_imports_stay_light(statement: str, absent: tuple[str, ...]) -> None:
    """Help, checks and statistics never load what they do not need."""
    code = f"import sys; {statement}; print(' '.join(m for m in {absent!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_code_is_documented() -> None:
    """Each error and warning code in the source has one row in docs/codes.md, and no row is left over."""
    used = {c for path in (ROOT / "src").rglob("*.py") for c in CODE.findall(path.read_text())}
    rows = re.findall(r"^\| `?([EW]-[A-Z0-9]+)`? ", (ROOT / "docs" / "codes.md").read_text(), re.MULTILINE)
    documented = set(rows)
    assert sorted(documented) == sorted(rows), "a code has two rows"
    assert used - documented <= {"W-MASK"}, "W-MASK is the beginning of several"
    assert all(code.replace("W-", "E-") in used for code in documented - used), "a warning made from an error"


KEYWORDS = {
    "mtdlr:Bundle.predict": lambda **more: mtdlr.Bundle(None).predict("nowhere", **more),  # type: ignore[arg-type]
    "mtdlr:Bundle.predict_prepared": lambda **more: mtdlr.Bundle(None).predict_prepared(None, {}, **more),
    "mtdlr:Nomogram.fit": lambda **more: Nomogram.fit({}, None, ["no column"], [36], **more),
    "mtdlr:Nomogram.from_coefficients": lambda **more: Nomogram.from_coefficients({}, baseline_survival={}, **more),
    "mtdlr.stats:calibrate_bootstrap": lambda **more: calibrate_bootstrap([], Survival(np.ones(3), np.ones(3)), 36.0,
                                                                          **more),
    "mtdlr.synthetic:write_study": lambda **more: importlib.import_module("mtdlr.synthetic").write_study("x", **more),
}
"""Public functions some of whose keywords stand in a typed dictionary."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KEYWORDS)
def test_every_keyword_is_documented_and_no_other_is_taken(name: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Args names each keyword, and a misspelt one is a TypeError that names it, before any work."""
    monkeypatch.chdir(tmp_path)
    function: Callable[..., Any] = pkgutil.resolve_name(name)
    (gathered,) = (one for one in inspect.signature(function).parameters.values() if one.kind is one.VAR_KEYWORD)
    (keywords,) = get_args(get_type_hints(function)[gathered.name])
    documented = re.findall(r"^ +(\w+): ", inspect.getdoc(function) or "", re.MULTILINE)
    assert keywords.__annotations__ and set(keywords.__annotations__) <= set(documented)
    with pytest.raises(TypeError, match="misspelt"):
        KEYWORDS[name](misspelt=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_documented_examples_hold() -> None:
    """Every example in a docstring gives what it says."""
    names = sorted(m.name for m in pkgutil.walk_packages(mtdlr.__path__, "mtdlr.") if not m.name.endswith("__main__"))
    if not importlib.util.find_spec("triton"):  # comes with torch for CUDA
        names.remove("mtdlr.nets.norm_gpu")
    found = {name: doctest.testmod(importlib.import_module(name)) for name in names}
    assert [name for name, one in found.items() if one.failed] == []
    assert sum(one.attempted for one in found.values()) > 100
