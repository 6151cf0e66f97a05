"""Which software and what machine: for reports, bundles and bug reports. No patient data, no user name, no path."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from mtdlr.errors import MtdlrError, Problem

PACKAGES = ("mtdlr", "numpy", "scipy", "pandas", "numba", "torch", "nibabel", "pydicom", "matplotlib")
EXTRAS = {
    "networks": ("torch", "safetensors"), "dicom": ("highdicom", "dicomweb_client"),
    "cluster": ("dask", "distributed"), "docs-out": ("docx", "openpyxl", "weasyprint"), "jpeg": ("imagecodecs",),
    "itk": ("SimpleITK",), "web": ("starlette", "uvicorn", "python_multipart"),
}
"""The packages, by the name they are imported under, that each extra of `pip install` adds."""


def versions() -> dict[str, str]:
    """Name -> version, and the machine in a line.

    >>> versions()["numpy"] != ""
    True
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
             "cores": str(usable_cores())}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def is_installed(extra: str) -> bool:
    """Whether every package of an extra, a key of `EXTRAS`, is installed."""
    return all(find_spec(name) for name in EXTRAS[extra])


def require_extra(extra: str, purpose: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: a key of `EXTRAS`.
        purpose: what needs them, as the message begins: "training".

    Raises:
        MtdlrError: E-EXTRA, with the line that installs them.
    """
    absent = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if absent:
        raise MtdlrError(_not_installed(extra, absent[0], purpose))


def missing_extra(error: ImportError) -> Problem | None:
    """E-EXTRA for an import that failed because an extra is not installed; None where the import failed otherwise.

    >>> missing_extra(ModuleNotFoundError("No module named 'torch'", name="torch")).remedy
    "pip install 'mtdlr[networks]'"
    >>> missing_extra(ModuleNotFoundError("No module named 'numpy'", name="numpy")) is None
    True
    """
    package = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    return None if extra is None else _not_installed(extra, package, "")


def _not_installed(extra: str, package: str, purpose: str) -> Problem:
    what = f"{purpose} needs the package {package}" if purpose else f"the package {package} is needed"
    return Problem("E-EXTRA", f"{what}, which is not installed", remedy=f"pip install 'mtdlr[{extra}]'")


def package_version() -> str:
    """The version of mtdlr; "not installed" when it runs from a checkout that was not installed."""
    try:
        return version("mtdlr")
    except PackageNotFoundError:
        return "not installed"


def usable_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def memory_gb() -> float | None:
    """The machine's memory in GB; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None


def free_disk_gb(folder: Path) -> float:
    """Free space where a folder is, or would be, in GB."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e9
