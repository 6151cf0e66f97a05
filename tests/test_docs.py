"""The documentation: pages are reached, links lead somewhere, examples run, the site builds strictly."""

from __future__ import annotations

import ast
import gzip
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mtdlr
from mtdlr.imaging import nifti
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.calculator import write_calculator
from mtdlr.report.figures import nomogram_figure, save

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
Names = dict[str, Any]


def _nomogram_page() -> Names:
    """What the page of the nomogram takes for granted: a cohort and one patient."""
    with gzip.open(ROOT / "tests" / "reference" / "npc_train.csv.gz", "rt") as file:
        table = pd.read_csv(file)
    table = table.rename(columns={"autoradio_score": "auto_radio", "deepmts_score": "deepmts"})
    return {"Nomogram": Nomogram, "table": table, "surv": mtdlr.Survival(table.time_months, table.event), "save": save,
            "patient": table.iloc[:1], "patients": table.iloc[:3], "nomogram_figure": nomogram_figure,
            "write_calculator": write_calculator}


def _radiomics_page() -> Names:
    """Arrays, and a table of one image in this folder."""
    image = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32) * 50
    for name, array in (("image", image), ("mask", np.abs(image) < 60)):
        nifti.write(f"{name}.nii.gz", mtdlr.Volume.on_grid(array, (3.0, 1.0, 1.0)))
    Path("cases.csv").write_text("ID,Image,Mask\nP0,image.nii.gz,mask.nii.gz\n")
    return {"image": image, "mask": np.abs(image) < 60}


RUN: dict[str, Callable[[], Names]] = {"from-pyradiomics.md": dict, "second-centre.md": dict,
                                       "nomogram.md": _nomogram_page, "radiomics.md": _radiomics_page}
"""Pages whose blocks run here, and what they start with."""
SHOWN = {"README.md", "bedside.md", "preparation.md", "synthetic.md", "your-data.md"}
"""Pages whose blocks need a trained model, scans or a whole study: here only their names are looked up; the tests of
the pipeline, the patient page, preparation, the synthetic study and the layouts run the same calls."""


def _blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def test_every_page_with_code_is_listed() -> None:
    """A new block of code is run, or it is said why not."""
    assert {page.name for page in PAGES if _blocks(page)} == set(RUN) | SHOWN


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "nomogram.md"))
                                  for name in sorted(RUN)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names = RUN[name]()
    for block in _blocks(DOCS / name):
        exec(compile(block, name, "exec"), names)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_examples_name_what_there_is(name: str) -> None:
    """What a block that cannot run here imports, and takes from `mtdlr`, exists."""
    for block in _blocks(ROOT / name if name == "README.md" else DOCS / name):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                home = importlib.import_module(str(node.module))
                for one in node.names:
                    assert hasattr(home, one.name) or importlib.import_module(f"{node.module}.{one.name}")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mtdlr":
                assert hasattr(mtdlr, node.attr), node.attr


def test_what_examples_import_is_in_the_reference() -> None:
    """Every module that pages and notebooks import from, and the home of every name of `mtdlr`, is in the reference."""
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    listed = next(ast.literal_eval(node.value) for node in ast.parse(conf).body
                  if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_API")
    texts = [page.read_text(encoding="utf-8") for page in (*PAGES, *(ROOT / "examples" / "notebooks").glob("*.ipynb"))]
    named = {name for text in texts for name in re.findall(r"from (mtdlr\.[\w.]+) import", text)}
    named |= set(mtdlr._HOME.values())
    assert len(named) > 15
    assert [name for name in sorted(named) if not any(f"{one}.".startswith(f"{name}.") or name.startswith(one)
                                                      for one in listed)] == []


def _anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link between files names a file that is there, and a heading of it."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        if name.startswith("_generated/"):
            continue  # made by the build, which checks it
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_page_is_in_the_contents() -> None:
    """The first page leads to every other one."""
    contents = set("".join(re.findall(r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)).split())
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= contents


class _Site(HTMLParser):
    """The links, pictures and visible words of a page as they stand without JavaScript."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for key, value in attrs if value and (tag, key) in (("a", "href"), ("img", "src"))]


@pytest.mark.slow
def test_the_site(tmp_path: Path) -> None:
    """The site builds without a warning, stays under 30 MB, and every local link and picture of it is there."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="the extra [docs] is not installed")
    words = ["-W", "-n", "--keep-going", "-q", "-t", "quick", "-b", "html", "-d", str(tmp_path / "trees")]
    made = subprocess.run([sys.executable, "-m", "sphinx", *words, str(DOCS), str(tmp_path / "site")],
                          capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert sum(path.stat().st_size for path in (tmp_path / "site").rglob("*") if path.is_file()) < 30e6
    assert "Can I trust it?" in (tmp_path / "site" / "index.html").read_text()
    for page in pages:
        for link in _Site(page).links:
            name = link.partition("#")[0].partition("?")[0]
            if name and not re.match(r"\w+:", name):
                assert (page.parent / name).exists(), f"{page.name}: {link}"
