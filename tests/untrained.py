"""A whole model folder whose networks are not trained and mark everything: small, made in a second, predicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mtdlr.bundle import save_bundle
from mtdlr.model import FrozenModel
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import build, save_network, weights_of
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.scores import Scale
from mtdlr.prepared import MEAN_IMAGE
from mtdlr.signature import Signature
from mtdlr.study import Study
from mtdlr.survival import Survival

SETTINGS = {"preset": "quick", "cohort": {"factors": {"tnm_stage": ["III", "IVa"]}}, "prepare": {"size": 32},
            "score": {"mask_threshold": 0.01}}
FEATURE = "PET_original_firstorder_Mean"


def save_untrained_bundle(folder: Path, scratch: Path) -> None:
    """Write the model.

    Args:
        folder: an empty folder that exists.
        scratch: likewise.
    """
    torch.manual_seed(0)
    rng, networks = np.random.default_rng(0), {}
    for name, config in (("deepmts", DeepmtsConfig(width=0.25)), ("no-mask", SingletaskConfig("no-mask", width=0.25))):
        (scratch / name).mkdir()
        save_network(weights_of(build(config).eval()), config, scratch / name, {})
        networks[name] = (scratch / name,)
    np.save(scratch / MEAN_IMAGE, np.zeros((2, 32, 32, 32), np.float32))
    table = pd.DataFrame({"tnm_stage": rng.choice(["III", "IVa"], 60), "auto_radio": rng.normal(size=60),
                          "deepmts": rng.normal(size=60)})
    surv = Survival(rng.exponential(40.0, 60) + 0.1, rng.random(60) < 0.7)
    signature = Signature((FEATURE,), (1.0,), (2.0,), (0.4,), 0.1, (1.0,), 60, 40, 10)
    save_bundle(FrozenModel(
        Study.of(SETTINGS), {"mtdlr": Nomogram.fit(table, surv, list(table), [12, 24])},
        {"auto": signature, "manual": signature}, networks, {name: (Scale(0.1, 1.5),) for name in networks},
        {"mtdlr": 0.2, "deepmts": 0.0}, scratch, {"tnm_stage": "III"}, {"n": 60, "events": surv.n_events}), folder)
