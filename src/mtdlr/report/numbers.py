"""evaluation.json: every number that the tables and the report print, for programs."""

from __future__ import annotations

from dataclasses import asdict, fields
from math import isfinite
from typing import Any

from mtdlr.associate import Association
from mtdlr.estimate import Estimate
from mtdlr.evaluate import Evaluation
from mtdlr.evaluate.appraise import follow_up
from mtdlr.evaluate.rivals import BESIDE
from mtdlr.report.results import Results
from mtdlr.stats.calibration import Calibration
from mtdlr.study import models_of

SCHEMA = 2  # 1: a list of evaluations alone


def evaluation_numbers(results: Results) -> dict[str, Any]:
    """The numbers of Tables 1 to 4, of optimism and of calibration, as plain JSON values; None for not estimable."""
    labels = {model.name: model.label for model in models_of(results.study)} | BESIDE
    return {
        "schema": SCHEMA, "model": results.model.digest, "months": list(results.study.nomogram.months),
        "follow_up": {split: estimate_numbers(found) for split, found in follow_up(results.cohort.table).items()},
        "characteristics": [_plain(asdict(one)) for one in results.characteristics],
        "univariate": [_association(one) for one in results.associations.univariate],
        "multivariate": [_association(one) for one in results.associations.multivariate],
        "performance": [_evaluation(one, labels) for one in results.findings.evaluations.values()],
        "optimism": {name: {where: estimate_numbers(c) for where, c in found.items()}
                     for name, found in results.findings.optimism.items()},
        "calibration": [{"scores": kind, "cohort": split, "months": month} | _calibration(one)
                        for kind, found in results.findings.calibrations.items()
                        for (split, month), one in found.items()],
    }


def estimate_numbers(estimate: Estimate) -> dict[str, float | None]:
    """value, low, high and p of an estimate; None for what is not finite."""
    return {each.name: _finite(getattr(estimate, each.name)) for each in fields(estimate)}


def _association(one: Association) -> dict[str, Any]:
    return {"variable": one.name, "label": one.label, "cohort": one.split, "reference": one.reference, "n": one.n,
            "events": one.n_events, "overall_p": _finite(one.overall_p), "firth": list(one.penalised),
            "hazard_ratios": {level: estimate_numbers(ratio) for level, ratio in one.ratios.items()},
            "hazard_ratio_per_sd": one.per_sd and estimate_numbers(one.per_sd)}


def _evaluation(one: Evaluation, labels: dict[str, str]) -> dict[str, Any]:
    groups = one.groups
    return {
        "model": one.model, "label": labels.get(one.model, one.model), "cohort": one.split, "n": one.n,
        "events": one.n_events, "c": estimate_numbers(one.c),
        "c_vs_stage": one.concordance_vs_stage and estimate_numbers(one.concordance_vs_stage),
        "auc": {f"{month:g}": estimate_numbers(curve.auc) for month, curve in one.auc.items()},
        "auc_vs_stage": {f"{month:g}": estimate_numbers(found) for month, found in one.auc_vs_stage.items()},
        "calibration": {f"{month:g}": _calibration(found) for month, found in one.calibration.items()},
        "groups": groups and {"cutoff": groups.cutoff, "hazard_ratio": estimate_numbers(groups.hazard_ratio),
                              "log_rank_p": _finite(groups.log_rank.p)}}


def _calibration(one: Calibration) -> dict[str, Any]:
    return {"slope": estimate_numbers(one.slope), "oe": estimate_numbers(one.oe), "ici": _finite(one.ici),
            "gnd_p": _finite(one.gnd.p), "hl_binary_p": _finite(one.hl_binary.p)}


def _plain(value: Any) -> Any:
    """Nested values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None
