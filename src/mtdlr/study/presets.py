"""Named sets of defaults: what `preset = "..."` in a study file stands for."""

from __future__ import annotations

from typing import Any

_PAPER_TRAINING: dict[str, Any] = {
    "epochs": 300, "steps_per_epoch": 50, "learning_rate": 1e-4, "schedule": "paper", "weight_decay": 0.0,
    "head_rate": 1.0, "norm_momentum": 0.01, "pooling": "average", "sampling": "paper", "augmentation": "paper",
    "risk_memory": 0, "patience": 50,
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "modern": {},
    "paper": {
        "prepare": {"spacing_mm": 1.0, "pet_scaling": "zscore"},
        "deepmts": _PAPER_TRAINING | {"segmentation_epochs": 0, "detach_probability": False},
        "singletask": _PAPER_TRAINING | {"network": "densenet121-3d"},
        "score": {"training": "in_sample"},
        "signature": {"repeats": 1, "max_correlation": None},
        "nomogram": {"ties": "breslow", "select": "off"},
        "evaluate": {"roc": "status", "group_hr": "logrank_oe", "calibration_groups": 5,
                     "calibration_test": "hl_binary"},
    },
    "workstation": {  # the whole field of view at twice the voxel, an eighth of the work: processors without a GPU
        "prepare": {"spacing_mm": 4.0, "size": 64},
        "deepmts": {"near_voxels": 2},
    },
    "quick": {
        "prepare": {"spacing_mm": 4.0, "size": 32},
        "deepmts": {"width": 0.5, "epochs": 14, "segmentation_epochs": 8, "learning_rate": 3e-3, "patience": 20,
                    "near_voxels": 2},
        "singletask": {"width": 0.5, "epochs": 16, "learning_rate": 3e-3, "patience": 16, "near_voxels": 2},
        "score": {"folds": 3},
        "radiomics": {"spacing_mm": 4.0, "pet_bin_width": 0.5},
        "signature": {"lambdas": 50, "folds": 5, "repeats": 5},
        "evaluate": {"bootstrap": 100},
    },
}
