"""What users see: public names, start-up time's causes, codes, documented examples."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtdlr

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"\"([EW]-[A-Z0-9]+)\"")


def test_public_names_are_these() -> None:
    """The public names are listed once, sorted, and each can be had."""
    assert mtdlr.__all__ == [
        "Bundle", "Estimate", "MtdlrError", "Nomogram", "Problem", "Run", "Study", "Survival", "Volume", "auc_at",
        "calibrate", "compare_concordance", "concordance", "delong", "extract_features", "fit_cox", "kaplan_meier",
        "log_rank", "roc"]
    for name in mtdlr.__all__:
        assert getattr(mtdlr, name) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("statement", "absent"), [
    ("import mtdlr", ("numpy", "torch", "pandas")),
    ("import mtdlr.cli", ("numpy", "torch", "SimpleITK", "pydantic", "matplotlib")),
    ("import mtdlr.cohort.check", ("torch", "SimpleITK", "matplotlib")),
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


@pytest.mark.slow
def test_documented_examples_hold() -> None:
    """Every example in a docstring gives what it says."""
    names = sorted(m.name for m in pkgutil.walk_packages(mtdlr.__path__, "mtdlr.") if not m.name.endswith("__main__"))
    if not importlib.util.find_spec("triton"):  # comes with torch for CUDA
        names.remove("mtdlr.nets.norm_gpu")
    found = {name: doctest.testmod(importlib.import_module(name)) for name in names}
    assert [name for name, one in found.items() if one.failed] == []
    assert sum(one.attempted for one in found.values()) > 100
