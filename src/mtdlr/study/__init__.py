"""Every setting of a study: `sections` defines them, `presets` names sets of defaults, `load` reads TOML,
`models` lists the models that follow from it.
"""

from mtdlr.study.load import Study, field_of
from mtdlr.study.models import KNOWN, MAIN, REFERENCE, SCORES, TRUTH, Model, Score, models_of
from mtdlr.study.presets import PRESETS
from mtdlr.study.sections import (
    CohortSettings,
    DeepmtsSettings,
    EvaluateSettings,
    NetworkName,
    NomogramSettings,
    PrepareSettings,
    RadiomicsSettings,
    ReportSettings,
    RunSettings,
    ScoreSettings,
    SignatureSettings,
    SingletaskNetwork,
    SingletaskSettings,
)

__all__ = [
    "KNOWN", "MAIN", "PRESETS", "REFERENCE", "SCORES", "TRUTH", "CohortSettings", "DeepmtsSettings",
    "EvaluateSettings", "Model", "NetworkName", "NomogramSettings", "PrepareSettings", "RadiomicsSettings",
    "ReportSettings", "RunSettings", "Score", "ScoreSettings", "SignatureSettings", "SingletaskNetwork",
    "SingletaskSettings", "Study", "field_of", "models_of",
]
