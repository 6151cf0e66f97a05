"""mtdlr: from FDG-PET/CT, a clinical table and follow-up to a validated radiomic nomogram. For research only.

Public names load on first use, so that `import mtdlr` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Bundle": "mtdlr.predict", "Estimate": "mtdlr.estimate", "MtdlrError": "mtdlr.errors",
    "Nomogram": "mtdlr.nomogram", "Problem": "mtdlr.errors", "Run": "mtdlr.pipeline", "Study": "mtdlr.study",
    "Survival": "mtdlr.survival", "Volume": "mtdlr.volume", "auc_at": "mtdlr.stats.time_roc",
    "calibrate": "mtdlr.stats.calibration", "compare_concordance": "mtdlr.stats.concordance",
    "concordance": "mtdlr.stats.concordance", "delong": "mtdlr.stats.roc",
    "extract_features": "mtdlr.radiomics.frame", "fit_cox": "mtdlr.stats.cox",
    "kaplan_meier": "mtdlr.stats.kaplan_meier", "log_rank": "mtdlr.stats.log_rank", "roc": "mtdlr.stats.roc",
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mtdlr' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from mtdlr.errors import MtdlrError
        from mtdlr.versions import missing_extra

        problem = missing_extra(error)
        if problem is None:
            raise
        raise MtdlrError(problem) from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
