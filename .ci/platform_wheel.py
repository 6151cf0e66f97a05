"""The wheel of this platform and Python, from the pure wheel: the same files, and the texture engine's loops compiled.

    python .ci/platform_wheel.py dist/mtdlr-0.1.0-py3-none-any.whl dist

numba compiles the loops that Python calls, for the oldest processor of this architecture and to the same bits as on a
user's machine. The extension module needs numpy, not numba. It holds the number of the sources that it was made of.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

CPUS = {"x86_64": "x86-64"}


def loops(folder: Path) -> list[Any]:
    """The loops that Python calls, as numba holds them, of the package in an unpacked wheel."""
    sys.path.insert(0, str(folder))
    modules = [import_module(f"mtdlr.texture.{path.stem}") for path in sorted((folder / "mtdlr/texture").glob("*.py"))]
    assert all(Path(str(module.__file__)).is_relative_to(folder) for module in modules)
    held = [(module.__name__, one) for module in modules for one in vars(module).values() if hasattr(one, "py_func")]
    return [one for name, one in held if one.__module__ == name and hasattr(one.py_func, "arguments")]


def compile_loops(folder: Path) -> None:
    """Put `_loops` beside the loops' sources."""
    found = loops(folder)
    from numba.core.compiler import Flags
    from numba.pycc import CC, compiler

    compiled = import_module("mtdlr.texture.compiled")
    number = compiled.source_number()

    def source_number() -> int:
        return int(number)

    def unlocked() -> Flags:
        """numba's choices, but other threads run beside a loop, as they do beside one compiled at its first call."""
        flags = Flags()
        flags.release_gil = True
        return flags

    made = CC("_loops")
    made.output_dir, made.target_cpu = str(folder / "mtdlr" / "texture"), os.environ["NUMBA_CPU_NAME"]
    made.export("source_number", "i8()")(source_number)
    for loop in found:
        made.export(compiled.export_name(loop.py_func), f"({loop.py_func.arguments},)")(loop.py_func)
    with mock.patch.object(compiler, "Flags", unlocked):
        made.compile()
    assert len(found) >= 19 and b"PyEval_SaveThread" in (Path(made.output_dir) / made.output_file).read_bytes()


def platform_wheel(pure: Path, place: Path) -> Path:
    """Write the wheel into a folder."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{python}-{python}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    with tempfile.TemporaryDirectory() as name:
        os.environ["NUMBA_CACHE_DIR"] = f"{name}/cache"
        _wheel("unpack", pure, name)
        (folder,) = Path(name).glob("mtdlr-*")
        compile_loops(folder)
        (about,) = folder.glob("*.dist-info/WHEEL")
        about.write_text(about.read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false").replace(
            "Tag: py3-none-any", f"Tag: {tag}"))
        _wheel("pack", folder, place)
    return place / pure.name.replace("py3-none-any", tag)


def _wheel(verb: str, thing: Path, place: str | Path) -> None:
    """Unpack a wheel into a folder, or pack one."""
    subprocess.run([sys.executable, "-m", "wheel", verb, "-d", str(place), str(thing)], check=True, capture_output=True)


if __name__ == "__main__":
    if sys.platform != "linux" or platform.machine() not in CPUS or not shutil.which("cc"):
        print("the pure wheel alone: the other one was tried on Linux with x86-64 only, and needs a C compiler")
        sys.exit()
    sys.dont_write_bytecode = True
    # For the loops and for what they call. Debugging symbols would name the folders of this build.
    os.environ |= {"NUMBA_CPU_NAME": CPUS[platform.machine()], "NUMBA_CPU_FEATURES": "",
                   "CFLAGS": "-g0", "LDFLAGS": "-s"}
    print(platform_wheel(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
