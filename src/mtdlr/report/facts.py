"""What this run recorded, in sentences: the facts that fill the checklists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.evaluate.appraise import Subgroup
from mtdlr.evaluate.competing import CAUSE
from mtdlr.report import facts_data as data
from mtdlr.report.checklist import Fact
from mtdlr.report.results import Results
from mtdlr.report.summary import Judged
from mtdlr.report.tables import SPLIT_LABELS, estimate_text, p_text
from mtdlr.stats.ranks import spearman
from mtdlr.stats.sample_size import development_size
from mtdlr.store import digest
from mtdlr.study import MAIN, REFERENCE, models_of
from mtdlr.versions import versions

KEY_LENGTH = 8
Finder = Callable[[Results], str]


def facts_of(results: Results) -> dict[str, Fact]:
    """Every fact of this run by name; the value is empty where the run did not do it."""
    keys = _keys(results)
    return {name: Fact(find(results), stage, anchor, keys[stage]) for name, (stage, anchor, find) in FACTS.items()}


def review_facts(results: Results, *, judged: Judged, parts: Sequence[Subgroup]) -> dict[str, Fact]:
    """What the appraisal found: by centre, in subgroups, net benefit; empty where it found nothing.

    Args:
        results: of a finished run.
        judged: the appraisals of all models.
        parts: the main nomogram in parts of the cohorts.
    """
    known = [one for one in parts if isfinite(one.c.value)]
    centres, others = ([one for one in known if (one.variable == "center") == own] for own in (True, False))
    told = [f"{one.split} {one.level} C {estimate_text(one.c)}, O/E {estimate_text(one.oe)}" for one in centres]
    columns = ", ".join(dict.fromkeys(one.variable for one in others))
    ranged = f"{min(one.c.value for one in others):.3f} to {max(one.c.value for one in others):.3f}" if others else ""
    benefit = [f"{SPLIT_LABELS[split].lower()} at " + " and ".join(f"{month:g}" for month in one.benefit) + " months"
               for (model, split), one in judged.appraisals.items() if model == judged.main and one.benefit]
    key = digest([[repr(one) for one in parts], benefit])[:KEY_LENGTH]
    subgroups = f"C from {ranged} in {len(others)} subgroups with ten events, by {columns}" if others else ""
    values = {"by_centre": "; ".join(told) if len({one.level for one in centres}) > 1 else "", "subgroups": subgroups,
              "decision": "net benefit, with its difference to treating everybody: " + ", ".join(benefit) if benefit
              else ""}
    return {name: Fact(value, "evaluate", "review", key) for name, value in values.items()}


def _keys(results: Results) -> dict[str, str]:
    """A short hash of what each stage made."""
    folders = {"prepare": sorted(path.name for path in results.prepared.values()),
               "train": {name: [path.name for path in paths] for name, paths in results.model.networks.items()},
               "score": sorted(path.name for path in results.scored.values())}
    sources: dict[str, Any] = {
        "settings": results.study.model_dump(mode="json"), "cohort": results.cohort.table.to_csv(), **folders,
        "radiomics": {name: table.shape for name, table in results.features.items()}
        | {name: table.to_csv() for name, table in results.pet_parameters.items()},
        "nomogram": results.model.digest, "signature": str(results.model.signatures),
        "evaluate": results.digest, "report": [results.digest, len(results.problems)]}
    return {stage: digest([source])[:KEY_LENGTH] for stage, source in sources.items()}


def _network(results: Results) -> str:
    d = results.study.deepmts
    nets = ", ".join(f"{name} x {len(paths)}" for name, paths in results.model.networks.items())
    return f"{nets}; width {d.width:g}, {d.survival_loss}, seed {results.study.score.seed}" if nets else ""


def _training(results: Results) -> str:
    d = results.study.deepmts
    written = [path / "log.csv" for paths in results.model.networks.values() for path in paths]
    logs = [len(path.read_text().splitlines()) - 1 for path in written if path.exists()]
    return (f"at most {d.epochs} epochs of batches of {d.batch_size}, peak rate {d.learning_rate:g}; "
            f"{min(logs)} to {max(logs)} epochs trained; loss curves shown" if logs else "")


def _folds(results: Results) -> str:
    s = results.study.score
    if s.training == "in_sample":
        return ""
    cut = "leave-one-centre-out" if s.folds == "center" else f"{s.folds}-fold"
    table = results.cohort.of("training").table
    parts = s.n_subfolds(int(table["event"].sum()), s.n_folds(table["center"].nunique()))
    without = f"; what is fitted to outcomes leaves out one of {parts} parts of a fold at a time" if parts > 1 else ""
    return f"{cut} cross-fitting, seed {s.seed}{without}"


def _scaling(results: Results) -> str:
    n = {source: len(s.features) for source, s in results.model.signatures.items()}
    scales = sum(len(s) for s in results.model.scales.values())
    return f"z-scores with the training cohort's mean and SD: features {n}, {scales} network scales"


def _selection(results: Results) -> str:
    return "; ".join(f"{source}: {s.n_candidates} candidates, lasso penalty {s.penalty:.4g}, {len(s.features)} kept"
                     for source, s in results.model.signatures.items())


def _stability(results: Results) -> str:
    return "; ".join(f"{source}: " + ", ".join(f"{n} {often:.0%}" for n, often in
                                              zip(s.features, s.selected_in, strict=True))
                     for source, s in results.model.signatures.items() if s.features)


def _candidates(results: Results) -> str:
    c = results.study.cohort
    most = max((s.n_candidates for s in results.model.signatures.values()), default=0)
    return f"{most} features by lasso, {len(c.continuous) + len(c.factors)} clinical columns" if most else ""


def _coding(results: Results) -> str:
    c = results.study.cohort
    factors = [f"{n} ({', '.join(levels)})" for n, levels in c.factors.items()]
    return "; ".join([*factors, *(f"{n} per unit" for n in c.continuous)])


def _nomogram(results: Results) -> str:
    nomogram, named = results.model.nomograms[MAIN], next(m for m in models_of(results.study) if m.name == MAIN)
    out = [name for name in (*named.covariates, *named.scores) if name not in nomogram.design.variables]
    said = ", ".join(f"{n} {b:+.3f}" for n, b in zip(nomogram.cox.names, nomogram.cox.coef, strict=True))
    return said + (f"; candidates without a weight: {', '.join(out)}" if out else "")


def _signature(results: Results) -> str:
    return "; ".join(f"{source}: {len(s.features)} features" for source, s in results.model.signatures.items())


def _cutoff(results: Results) -> str:
    groups = results.findings.evaluations[MAIN, "training"].groups
    return "" if groups is None else f"log hazard {groups.cutoff:.3f}, Youden's index in the training cohort"


def _epp(results: Results) -> str:
    training = results.cohort.of("training").survival
    cox = results.model.nomograms[MAIN].cox
    return f"{training.n_events / len(cox.names):.1f} events per parameter of the nomogram ({len(cox.names)})"


def _sample_size(results: Results) -> str:
    """What the development criterion asks for with the features as candidates, and with the nomogram's parameters."""
    training, horizon = results.cohort.of("training").survival, max(results.study.nomogram.months)
    mean, candidates = float(training.time_months.mean()), [len(results.model.nomograms[MAIN].cox.names)]
    candidates += [max((s.n_candidates for s in results.model.signatures.values()), default=0)]
    if not training.n_events:
        return ""
    sizes = [development_size(p, rate=training.n_events / float(training.time_months.sum()), horizon=horizon,
                              mean_follow_up=mean) for p in candidates if p]
    told = ", ".join(f"{s.n:,} for {s.parameters:,} parameters" for s in sizes)
    return f"{len(training)} patients; the criteria of Riley et al. ask for {told} (R2 of 15 % of the largest)"


def _model(results: Results) -> str:
    return f"frozen model {results.model.digest}"


def _performance(results: Results) -> str:
    return "; ".join(f"{SPLIT_LABELS[s].lower()} C {estimate_text(results.findings.evaluations[MAIN, s].c)}"
                     for s in results.cohort.splits)


def _internal_performance(results: Results) -> str:
    return _performance(results) if _folds(results) or "internal" in results.cohort.splits else ""


def _external(results: Results) -> str:
    if "external" not in results.cohort.splits:
        return ""
    e = results.findings.evaluations[MAIN, "external"]
    return f"{e.n} patients, {e.n_events} events, C {estimate_text(e.c)}"


def _calibration(results: Results) -> str:
    parts = [f"{SPLIT_LABELS[s].lower()} {month:g} months O/E {estimate_text(c.oe)}, slope {estimate_text(c.slope)}"
             for s in results.cohort.splits
             for month, c in results.findings.evaluations[MAIN, s].calibration.items() if isfinite(c.oe.value)]
    return "; ".join(parts)


def _comparison(results: Results) -> str:
    parts = []
    for split in results.cohort.splits:
        versus = results.findings.evaluations[MAIN, split].concordance_vs_stage
        if versus is not None and isfinite(versus.value):
            parts.append(f"{SPLIT_LABELS[split].lower()} C {versus.value:+.3f} against the stage, P {p_text(versus.p)}")
    return "; ".join(parts)


def _simple_models(results: Results) -> str:
    return "; ".join(f"Stage {SPLIT_LABELS[s].lower()} C {estimate_text(e.c)}" for s in results.cohort.splits
                     if (e := results.findings.evaluations.get((REFERENCE, s))))


def _arms(results: Results) -> str:
    """C of the signatures of one modality, and what the full one has more; empty where none was fitted."""
    return "; ".join(f"{arm.source} {arm.modality} alone, {SPLIT_LABELS[arm.split].lower()} C {estimate_text(arm.c)}, "
                     f"full less it {estimate_text(arm.lost)}" for arm in results.arms)


def _measures(results: Results) -> str:
    e = results.study.evaluate
    return (f"Harrell's C ({e.comparison}), AUC ({e.roc}), calibration slope, O/E and curve ({e.calibration_test}), "
            f"hazard ratio of the groups ({e.group_hr})")


def _volume_correlation(results: Results) -> str:
    """Rank correlation of the risk with the volume of the manual mask."""
    pet = results.pet_parameters.get("manual", pd.DataFrame())
    if "mtv_ml_2_5" not in pet:
        return ""
    pair = pd.concat([results.findings.risks[MAIN], pet["mtv_ml_2_5"]], axis=1).dropna().to_numpy(float)
    if len(pair) < 5 or (np.ptp(pair, axis=0) == 0).any():
        return ""
    rho, p = spearman(pair[:, 0], pair[:, 1])
    return f"rank correlation of the MTDLR risk with MTV {rho:.2f} (P {p_text(p)})"


def _limits(results: Results) -> str:
    events = {s: results.cohort.of(s).survival.n_events for s in results.cohort.splits}
    told = [f"{n} events in the {SPLIT_LABELS[s].lower()}" for s, n in events.items() if n < 100]
    told += [] if results.cohort.table["center"].nunique() > 1 else ["one centre"]
    told += [] if "external" in events else ["no external cohort"]
    return "; ".join(told)


def _separated(results: Results) -> str:
    """Levels of Tables 2 and 3 whose hazard ratio is Firth's; empty without."""
    found = {f"{one.label} {level}".strip(): None for one in (*results.associations.univariate,
                                                              *results.associations.multivariate)
             for level in one.penalised}
    return ", ".join(found)


def _competing(results: Results) -> str:
    """Competing events by cohort; empty where the study names none."""
    table = results.cohort.table
    if CAUSE not in table:
        return ""
    return ", ".join(f"{int((table.loc[table['split'] == s, CAUSE] > 1).sum())} in the {SPLIT_LABELS[s].lower()}"
                     for s in results.cohort.splits)


def _settings(results: Results) -> str:
    default, changed = type(results.study)().model_dump(mode="json"), []
    for section, keys in results.study.model_dump(mode="json", exclude={"run"}).items():
        if isinstance(keys, dict):
            changed += [f"{section}.{k}" for k, v in keys.items() if v != default[section][k]]
    return f"preset {results.study.preset}; changed: {', '.join(changed) or 'none'}; all others default"


def _month_text(results: Results) -> str:
    return ", ".join(f"{m:g}" for m in results.study.nomogram.months) + " months"


FACTS: dict[str, tuple[str, str, Finder]] = {
    "purpose": ("settings", "summary", lambda r: ("development and evaluation" if len(r.cohort.splits) > 1 else
                                                  "development") + f" of a model of {r.study.cohort.endpoint}"),
    "endpoint": ("settings", "summary", lambda r: str(r.study.cohort.endpoint)),
    "horizons": ("settings", "nomogram", _month_text), "patients": ("cohort", "flow", data.patients),
    "centres": ("cohort", "flow", data.centres), "multicentre": ("cohort", "flow", data.multicentre),
    "follow_up": ("cohort", "flow", data.follow_up), "censoring": ("cohort", "flow", data.censoring),
    "left_out": ("report", "flow", data.left_out), "missing": ("cohort", "flow", data.missing),
    "split": ("cohort", "flow", data.split), "treatments": ("cohort", "tables", data.treatments),
    "characteristics": ("cohort", "tables", lambda r: f"Table 1: {data.patients(r)}"),
    "differences": ("cohort", "tables", data.differences), "acquisition": ("prepare", "review", data.acquisition),
    "scan_dates": ("prepare", "review", data.scan_dates),
    "preparation": ("prepare", "settings", data.preparation), "warnings": ("report", "warnings", data.warnings),
    "automatic": ("score", "masks", data.automatic), "mask_overlap": ("score", "masks", data.mask_overlap),
    "blind": ("score", "masks", data.blind), "features": ("radiomics", "signatures", data.features),
    "feature_classes": ("radiomics", "signatures", data.feature_classes),
    "image_types": ("radiomics", "signatures", data.image_types),
    "resampling": ("radiomics", "settings", data.resampling),
    "discretisation": ("radiomics", "settings", data.discretisation),
    "robustness": ("radiomics", "settings", data.robustness),
    "feature_tables": ("radiomics", "signatures", data.feature_tables), "network": ("train", "training", _network),
    "training": ("train", "training", _training), "folds": ("settings", "optimism", _folds),
    "scaling": ("signature", "signatures", _scaling), "selection": ("signature", "signatures", _selection),
    "stability": ("signature", "signatures", _stability), "candidates": ("signature", "signatures", _candidates),
    "coding": ("settings", "settings", _coding), "nomogram": ("nomogram", "nomogram", _nomogram),
    "signature": ("signature", "signatures", _signature), "cutoff": ("evaluate", "groups", _cutoff),
    "events_per_parameter": ("nomogram", "summary", _epp), "sample_size": ("cohort", "summary", _sample_size),
    "model": ("nomogram", "nomogram", _model), "calculator": ("nomogram", "nomogram", _model),
    "performance": ("evaluate", "discrimination", _performance),
    "internal_performance": ("evaluate", "optimism", _internal_performance),
    "external": ("evaluate", "discrimination", _external), "calibration": ("evaluate", "optimism", _calibration),
    "comparison": ("evaluate", "discrimination", _comparison),
    "arms": ("signature", "review", _arms), "simple_models": ("evaluate", "discrimination", _simple_models),
    "measures": ("settings", "discrimination", _measures),
    "volume_correlation": ("evaluate", "masks", _volume_correlation), "limits": ("cohort", "summary", _limits),
    "settings": ("settings", "settings", _settings), "separated": ("cohort", "tables", _separated),
    "competing": ("cohort", "review", _competing),
    "version": ("settings", "settings", lambda r: f"mtdlr {versions()['mtdlr']}"),
    "inputs": ("settings", "nomogram", lambda r: f"PET, CT and {r.study.cohort.stage}"),
    "explained": ("report", "explained", lambda r: f"{len(r.explained)} patients" if r.explained else ""),
    "pipeline": ("settings", "flow", lambda r: (
        f"{len(r.prepared)} prepared, {len(r.scored)} scored, {sum(map(len, r.model.networks.values()))} networks"
        if r.prepared else "")),
    "lists": ("report", "checklists", lambda r: f"filled for run {r.digest}"),
}
"""Stage, section of the report and finder of each fact."""
