"""The documentation site: sphinx, furo and myst; `make docs` builds it strictly, offline, into build/docs."""

from __future__ import annotations

import ast
import pkgutil
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import gallery  # noqa: E402  (found by the line above)

import mtdlr  # noqa: E402

project, author, release = "mtdlr", "The mtdlr developers", mtdlr.__version__
project_copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", f"mtdlr {release}"
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
exclude_patterns = ["README.md"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "literal"
autodoc_member_order, autodoc_typehints = "bysource", "none"  # types stand in the signatures' docstrings
nitpick_ignore_regex = [("py:.*", ".*")]  # links between pages are checked, types of other packages not
suppress_warnings = ["myst.header", "ref.python"]  # included files begin at their own level; names occur twice
_API = ("mtdlr.stats", "mtdlr.texture", "mtdlr.radiomics", "mtdlr.nomogram", "mtdlr.report.figures",
        "mtdlr.report.export", "mtdlr.synthetic",
        "mtdlr.imaging.nifti", "mtdlr.imaging.suv", "mtdlr.imaging.itk", "mtdlr.imaging.reading",
        "mtdlr.imaging.layout",
        "mtdlr.survival", "mtdlr.volume", "mtdlr.estimate", "mtdlr.errors", "mtdlr.prepare", "mtdlr.prepared",
        "mtdlr.signature", "mtdlr.study", "mtdlr.pipeline", "mtdlr.predict", "mtdlr.validate", "mtdlr.bundle",
        "mtdlr.model", "mtdlr.report.patient_page", "mtdlr.report.prediction", "mtdlr.report.model_card")
_QUICK = ("mtdlr.survival", "mtdlr.radiomics.featureextractor")  # with `-t quick`, for the tests
_DOCTEST = re.compile(r"\s*(>>>|\.\.\.)")


def _public(module: str) -> list[str]:
    """The public functions and classes that a module defines and documents."""
    path = Path(pkgutil.resolve_name(module).__file__)
    return [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]


def _write_reference(folder: Path, api: tuple[str, ...]) -> None:
    """A page for each module that has public names, and a list of the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    names = [one.name for one in pkgutil.walk_packages(mtdlr.__path__, "mtdlr.") if one.name.startswith(api)]
    listed = []
    for name in filter(_public, names):
        lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :members:", "   :undoc-members:",
                 "   :exclude-members: __init__, __new__", ""]
        (folder / f"{name}.rst").write_text("\n".join(lines), encoding="utf-8")
        listed.append(name)
    head = ["Reference", "=========", "",
            "Functions and classes for use from Python, by module, from their docstrings.",
            "The names in ``mtdlr`` itself: " + ", ".join(f"``{name}``" for name in mtdlr.__all__) + ".", ""]
    tree = [".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in listed), ""]
    (folder / "index.rst").write_text("\n".join(head + tree), encoding="utf-8")


def _generate(app: Sphinx) -> None:
    """What the build makes itself: reference pages and the gallery's figures."""
    _write_reference(HERE / "_generated" / "reference", _QUICK if app.tags.has("quick") else _API)
    gallery.draw(HERE / "_generated" / "gallery")


def _site_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Links of the repository's files to one another, as links between pages."""
    source[0] = source[0].replace("](../bench/RESULTS.md)", "](measurements.md)")


def _plain_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: nothing else in them is markup."""
    for i, line in enumerate(lines):
        if not _DOCTEST.match(line):
            parts = re.split(r"(`+[^`]+`+)", line)
            lines[i] = "".join(f"``{part.strip('`')}``" if part.startswith("`") else re.sub(r"([*|\\_])", r"\\\1", part)
                               for part in parts)


def setup(app: Sphinx) -> None:
    """Join the steps above to the build."""
    app.connect("builder-inited", _generate)
    app.connect("source-read", _site_links)
    app.connect("autodoc-process-docstring", _plain_docstring, priority=400)  # before napoleon reads the sections
