"""The loops' machine code: the wheel's where it fits sources and arguments, else numba's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mtdlr
from mtdlr.texture.compiled import Loop, _kinds, made_of_these_sources, source_number

FOREIGN = """
import sys
from types import ModuleType
class Foreign(ModuleType):
    def source_number(self): return sys.modules["mtdlr.texture.compiled"].source_number() + {off}
    def __getattr__(self, name): return (lambda *args: name) if "_" in name.strip("_") else super().__getattr__(name)
sys.modules["mtdlr.texture._loops"] = Foreign("mtdlr.texture._loops")
import numpy as np
from mtdlr.texture import is_compiled
from mtdlr.texture.discretise import _assign
found = np.ones(2, np.int32)
print("numba" in sys.modules, _assign(np.zeros(2), np.array([0.0, 1.0, 2.0]), found) if {call} else is_compiled())
"""


@pytest.mark.parametrize("extension", [None, SimpleNamespace(), SimpleNamespace(source_number=lambda: 1)])
def test_machine_code_of_other_sources_is_not_used(extension: Any) -> None:
    """An extension of another program or of other sources counts as none; one of these sources is used."""
    assert made_of_these_sources(extension) is None
    ours = SimpleNamespace(source_number=source_number)
    assert made_of_these_sources(ours) is ours  # type: ignore[arg-type]
    assert 0 <= source_number() < 2**56


def test_every_source_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change in any module of the folder changes the number, for a loop may use another module's constants."""
    for name in ("compiled.py", "one.py"):
        (tmp_path / name).write_text("A = 1\n")
    monkeypatch.setattr("mtdlr.texture.compiled.__file__", str(tmp_path / "compiled.py"))
    before = source_number()
    (tmp_path / "one.py").write_text("A = 2\n")
    assert source_number() != before
    (tmp_path / "one.py").write_text("A = 1\n")
    assert source_number() == before


@pytest.mark.parametrize(("array", "number"), [
    (np.zeros((2, 3), np.float32), 1), (np.zeros((3, 2)).T, 1), (np.zeros((2, 3))[:, ::2], 1), (np.zeros(3), 1),
    (np.zeros((2, 3), ">f8"), 1), (np.zeros((2, 3)).tolist(), 1), (np.zeros((2, 3)), 1.5),
    (np.frombuffer(bytes(49), np.uint8)[1:].view(np.float64).reshape(2, 3), 1)])
def test_arguments_that_the_wheel_does_not_know_go_to_numba(array: Any, number: float) -> None:
    """For an array of another type, layout or dimension, a list, or a fraction in place of a whole number."""
    loop = Loop(lambda *args: "Python", lambda *args: "wheel", _kinds("f8[:,::1], i8"))
    vars(loop)["by_numba"] = lambda *args: "numba"
    assert loop(array, number) == "numba"
    assert loop(np.zeros((2, 3)), 1) == loop(np.zeros((0, 3)), np.int32(1)) == "wheel"


def test_a_loop_that_only_loops_call_has_no_code_of_its_own() -> None:
    """Called from Python, it is compiled by numba."""
    inner = Loop(lambda *args: "Python")
    vars(inner)["by_numba"] = lambda *args: "numba"
    assert inner(1) == "numba"


def test_kinds() -> None:
    """Types as numba writes them, as (dtype, dimensions)."""
    assert _kinds("u1[:,:,::1], i8[::1], f8, b1, f4[:,::1]") == (
        ("u1", 3), ("i8", 1), ("f8", 0), ("b1", 0), ("f4", 2))


@pytest.mark.parametrize(("off", "call", "expected"), [(0, True, "False discretise__assign"), (0, False, "False True"),
                                                       (1, True, "True None")])
def test_numba_is_loaded_only_where_it_compiles(off: int, call: bool, expected: str) -> None:
    """With the machine code of these sources numba is not loaded; with that of others it is, and its code is called."""
    done = subprocess.run([sys.executable, "-c", FOREIGN.format(off=off, call=call)], capture_output=True, text=True,
                          check=True, env=os.environ | {"PYTHONPATH": str(Path(mtdlr.__file__).parents[1])})
    assert done.stdout.strip() == expected
