"""Imports point one way: a module imports only its own row or a lower one, and heavy packages have one home each."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "mtdlr"
ROWS = [
    {"errors", "estimate", "volume", "survival", "versions", "spreadsheet"},
    {"study", "store", "workers"},
    {"imaging", "nets", "texture", "stats"},
    {"cohort", "prepare", "prepared", "train", "infer", "explain", "radiomics", "signature", "nomogram", "model",
     "associate", "evaluate", "shift"},
    {"report", "bundle", "predict", "dicom_out", "pacs"},
    {"jobs", "pipeline", "validate"},
    {"cli", "serve", "synthetic", "__main__", "__init__"},
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
HOMES = {
    "pydicom": {"imaging", "synthetic", "dicom_out", "pacs"}, "highdicom": {"imaging", "synthetic", "dicom_out"},
    "dicomweb_client": {"pacs"}, "requests": {"pacs"}, "SimpleITK": {"imaging"},
    "nibabel": {"imaging"}, "torch": {"nets", "train", "infer", "explain"}, "safetensors": {"nets"},
    "matplotlib": {"report/figures"}, "typer": {"cli"}, "pywt": {"texture"},
    "jinja2": {"report", "nomogram", "validate", "serve"},
    "starlette": {"serve"}, "uvicorn": {"serve"},
    "rich": {"workers/progress"}, "distributed": {"workers/cluster"},
    "weasyprint": {"report/pdf"},
}
MAY_IMPORT_INSIDE = {"cli", "workers/cluster", "spreadsheet", "jobs", "report/documents", "report/pdf", "__init__",
                     "imaging/itk", "synthetic/dicom_writer", "serve/dicom_results"}
WIDE = {"nets/norm_gpu.py:_settle"}  # a Triton kernel takes each array by itself, and one launch settles seven
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Statement:
    """A statement with what it stands in."""

    node: ast.AST
    function: str | None  # that it stands in, however deep
    runs: bool  # not under `if TYPE_CHECKING`


@dataclass(frozen=True)
class Module:
    """What the rules ask of one file, without its syntax tree: a million objects that each look for garbage counts."""

    text: str
    imports: list[tuple[str, str | None, bool]]  # what is imported, inside which function, whether it runs
    statistics: list[str]  # `scipy.stats` for `from scipy import stats`
    lengths: list[tuple[str, int]]  # lines without docstring of each function
    widths: list[tuple[str, int]]  # parameters of each function


@cache
def _modules() -> dict[Path, Module]:
    """Every module of the package: read once, judged by every rule."""
    return {path: _module(path.read_text()) for path in sorted(SRC.rglob("*.py"))}


def _module(text: str) -> Module:
    found = _statements(ast.parse(text))
    return Module(text, [(name, one.function, one.runs) for one in found for name in _imports(one.node)],
                  [name for one in found if one.runs for name in (*_imports(one.node), *_imported_from(one.node))],
                  [(one.node.name, _length(one.node)) for one in found if isinstance(one.node, Function)],
                  [(one.node.name, _width(one.node)) for one in found if isinstance(one.node, Function)])


def _statements(tree: ast.Module) -> list[Statement]:
    """Every statement; expressions are left out, they import and define nothing that the rules ask for."""
    found, todo = [], [Statement(tree, None, True)]
    while todo:
        one = todo.pop()
        found.append(one)
        function = one.node.name if isinstance(one.node, Function) else one.function
        runs = one.runs and not _is_type_checking(one.node)
        todo += [Statement(child, function, runs) for field in ("body", "orelse", "finalbody", "handlers", "cases")
                 for child in getattr(one.node, field, ())]
    return found


def _unit(path: Path) -> str:
    """`imaging` for src/mtdlr/imaging/grid.py, `store` for src/mtdlr/store.py."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def _is_in(path: Path, homes: set[str]) -> bool:
    """Whether a module is one of `homes` or lies in one of them."""
    name = path.relative_to(SRC).with_suffix("").as_posix()
    return any(name == home or name.startswith(f"{home}/") for home in homes)


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "mtdlr" else [node.module]
    return []


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported_from(node: ast.AST) -> list[str]:
    """`scipy.stats` for `from scipy import stats`."""
    return [f"{node.module}.{one.name}" for one in node.names] if isinstance(node, ast.ImportFrom) else []


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno if body else 0


def _width(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters, `*args` and `**kwargs` among them, without `self` and `cls`."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return sum(one is not None and one.arg not in ("self", "cls") for one in every)


def _name(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def test_imports_point_down() -> None:
    """No module imports from a higher row, and the folders of knowledge do not import one another."""
    wrong = []
    for path, module in _modules().items():
        unit = _unit(path)
        for name, _, runs in module.imports:
            if runs and name.startswith("mtdlr.") and (target := name.split(".")[1]) in ROW_OF and (
                    ROW_OF[target] > ROW_OF[unit] or (target != unit and {unit, target} <= ROWS[2])):
                wrong.append(f"{_name(path)} imports {target}")
    assert not wrong


def test_heavy_packages_have_one_home() -> None:
    """Each heavy dependency is imported in one file or folder, so that it can be replaced there."""
    assert not [f"{_name(path)} imports {name}" for path, module in _modules().items()
                for name, _, runs in module.imports
                if runs and not _is_in(path, HOMES.get(name.split(".")[0], {_unit(path)}))]


def test_one_file_imports_the_statistics_of_scipy() -> None:
    """scipy.stats costs each process 40 MB and half a second: it loads with tests of samples, which no verb uses."""
    assert not [f"{_name(path)} imports {name}" for path, module in _modules().items() for name in module.statistics
                if name.startswith(("scipy.stats", "scipy.spatial")) and _name(path) != "stats/sample_tests.py"]


def test_no_import_inside_a_function() -> None:
    """Only the command line, the jobs and the optional document writers import where they run."""
    assert not [f"{_name(path)}:{function} imports {name}" for path, module in _modules().items()
                if not _is_in(path, MAY_IMPORT_INSIDE) for name, function, _ in module.imports if function]


def test_patients_are_a_field() -> None:
    """A patient on a problem is `Problem.patients`, never written into or parsed out of `where`."""
    told = re.compile(r"""where=f?"patients? |\.at\(f?"patients? |where\.(startswith|split|partition)\(""")
    assert not [_name(path) for path, module in _modules().items()
                if path.name != "errors.py" and told.search(module.text)]


def test_every_module_has_a_row() -> None:
    """A new module must say where it stands."""
    assert {_unit(path) for path in _modules()} <= set(ROW_OF)


def test_files_and_functions_are_short() -> None:
    """A file has at most 400 lines, a function at most 60."""
    wrong = [f"{_name(path)} has more than 400 lines" for path, module in _modules().items()
             if module.text.count("\n") > 400]
    wrong += [f"{_name(path)}:{function} has more than 60 lines" for path, module in _modules().items()
              for function, lines in module.lengths if lines >= 60]
    assert not wrong


def test_functions_take_at_most_seven_parameters() -> None:
    """Every function, `*args` and `**kwargs` counted and `self` not, but those that are named above."""
    assert {f"{_name(path)}:{function}" for path, module in _modules().items()
            for function, parameters in module.widths if parameters > 7} == WIDE


def test_no_function_is_excused_from_the_limits() -> None:
    """The linter measures parameters and complexity everywhere but in what `WIDE` names."""
    ignored = tomllib.loads((SRC.parents[1] / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    ours = {pattern: codes for pattern, codes in ignored.items() if pattern.startswith("src/")}
    assert not ours
    excused = {f"{_name(path)}:{one}" for path, module in _modules().items()
               for one in re.findall(r"def (\w+)\(.*# noqa: ?\S*(?:PLR0913|C901)", module.text)}
    assert excused == WIDE
