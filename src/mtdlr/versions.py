"""Which software and what machine: for reports, bundles and bug reports. No patient data, no user name, no path."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mtdlr", "numpy", "scipy", "pandas", "numba", "torch", "nibabel", "pydicom", "matplotlib")


def versions() -> dict[str, str]:
    """Name -> version, and the machine in a line.

    >>> versions()["numpy"] != ""
    True
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
             "cores": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
