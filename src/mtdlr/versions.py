"""Which software and what machine: for reports, bundles and bug reports. No patient data, no user name, no path."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("mtdlr", "numpy", "scipy", "pandas", "numba", "torch", "nibabel", "pydicom", "matplotlib")


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
