"""Every setting of a study: `sections` defines them, `presets` names sets of defaults, `load` reads and writes TOML."""

from mtdlr.study.load import Study, field_of
from mtdlr.study.presets import PRESETS
from mtdlr.study.sections import (
    CohortSettings,
    DeepmtsSettings,
    EvaluateSettings,
    NomogramSettings,
    PrepareSettings,
    RadiomicsSettings,
    ReportSettings,
    RunSettings,
    ScoreSettings,
    SignatureSettings,
    SingletaskSettings,
)

__all__ = [
    "PRESETS", "CohortSettings", "DeepmtsSettings", "EvaluateSettings", "NomogramSettings", "PrepareSettings",
    "RadiomicsSettings", "ReportSettings", "RunSettings", "ScoreSettings", "SignatureSettings", "SingletaskSettings",
    "Study", "field_of",
]
