"""Radiomics of a study: features inside a mask, their robustness and agreement, and tables of many patients."""

from __future__ import annotations

from importlib import import_module
from typing import Any

PET_LABELS = {"max_diameter_cm": "Maximum diameter (cm)", "suv_max": "SUVmax (g/ml)", "suv_mean_2_5": "SUVmean (g/ml)",
              "mtv_ml_2_5": "MTV (ml)", "tlg_g_2_5": "TLG (g)"}
"""The PET parameters of the paper's Tables 1 and 2; SUVmean, MTV and TLG at SUV >= 2.5."""


def __getattr__(name: str) -> Any:
    """`RadiomicsFeatureExtractor`, loaded on first use so that the names above cost nothing."""
    if name == "RadiomicsFeatureExtractor":
        return import_module("mtdlr.radiomics.featureextractor").RadiomicsFeatureExtractor
    raise AttributeError(f"module 'mtdlr.radiomics' has no attribute {name!r}")
