"""Scores and stage -> the study's models: one risk a patient for each, the three nomograms, and their evaluation.

Cross-fitting: a training patient's score comes from networks and signatures that never saw the patient, another
patient's from all of them. The nomograms are fitted on such training scores only; the same nomogram fitted on in-sample
scores is kept beside them, so that the optimism is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mtdlr.cohort import impute
from mtdlr.cohort.clinical import label_of, read_csv_text
from mtdlr.errors import FitError, Problem, TableError
from mtdlr.evaluate import MODELS, NOMOGRAMS, STAGE, Evaluation, evaluate
from mtdlr.nomogram import Nomogram
from mtdlr.signature import Signature
from mtdlr.stats.terms import Continuous, Factor, Term
from mtdlr.store import digest
from mtdlr.study import Study
from mtdlr.survival import Survival

SCORE_LABELS = {"manual_radio": "ManualRadio-Score", "single_task": "SingleTask-Score", "deepmts": "DeepMTS-Score",
                "auto_radio": "AutoRadio-Score"}
"""The four scores and the names they are printed with."""
IN_SAMPLE = "_in_sample"


@dataclass(frozen=True)
class Scale:
    """What puts one network's risks on the common scale: their mean and SD in its own held-out fold."""

    mean: float
    sd: float

    def __call__(self, risk: float) -> float:
        return (risk - self.mean) / self.sd


@dataclass(frozen=True, eq=False)
class Scores:
    """Deep scores of every patient: columns deepmts, single_task, each with `_sd` and `_in_sample` beside.

    `_sd` is the spread over the networks that speak for the patient (nan for one), `_in_sample` what the networks that
    trained on the patient say (training cohort only).
    """

    table: pd.DataFrame
    scales: Mapping[str, tuple[Scale, ...]]


@dataclass(frozen=True, eq=False)
class Models:
    """Everything fitted after the networks, and how it does.

    Args:
        scores: (patients, scores) the four scores, their in-sample versions, and the imputed stage.
        risks: (patients, models) log-hazards, NaN where a score is missing.
        predicted: survival of every patient at the horizons, by nomogram.
        nomograms: by model name; `mtdlr_in_sample` is the same model fitted on in-sample scores, for comparison only.
        signatures: `auto` and `manual`.
        scales: of the networks, by name.
        evaluations: by (model, cohort).
        problems: warnings of every fit and evaluation.
    """

    scores: pd.DataFrame
    risks: pd.DataFrame
    predicted: Mapping[str, pd.DataFrame]
    nomograms: Mapping[str, Nomogram]
    signatures: Mapping[str, Signature]
    scales: Mapping[str, tuple[Scale, ...]]
    evaluations: Mapping[tuple[str, str], Evaluation]
    problems: tuple[Problem, ...]

    @property
    def digest(self) -> str:
        """Stands for every number a report prints."""
        return digest([self.frozen_digest, self.risks.to_csv(), self.scores.to_csv()])

    @property
    def frozen_digest(self) -> str:
        """Stands for what a bundle freezes: nothing of any cohort but the training one enters."""
        return digest([{name: n.to_json() for name, n in self.nomograms.items()},
                       {name: str(s) for name, s in self.signatures.items()}, str(self.scales)])


def combine_scores(
    raw: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], folds: pd.Series, single: str,
    frozen: Mapping[str, tuple[Scale, ...]] | None = None,
) -> Scores:
    """Deep scores from the risks that every network gave every patient.

    Args:
        raw: {patient: {"risks": {network: [risk of network 0, 1, ...]}}}.
        folds: the fold of each training patient (none for new patients); network k never saw fold k.
        single: name of the single-task network.
        frozen: the scales of a finished study; by default they come from the held-out folds.
    """
    columns, scales = {}, dict(frozen or {})
    for column, network in (("deepmts", "deepmts"), ("single_task", single)):
        risks = pd.DataFrame({i: values["risks"][network] for i, values in raw.items()}).T
        if frozen is None:
            scales[network] = tuple(_scale(risks[k], folds, k) for k in range(risks.shape[1]))
        scaled = pd.DataFrame({k: (risks[k] - s.mean) / s.sd for k, s in enumerate(scales[network])})
        columns.update(_speak(scaled, folds, column))
    return Scores(pd.DataFrame(columns), scales)


def fit_models(
    table: pd.DataFrame, deep: Scores, features: Mapping[str, pd.DataFrame],
    signatures: Mapping[str, tuple[Signature, pd.Series]], study: Study,
) -> Models:
    """The study's models, fitted on the training rows of `table`, and their evaluation in every cohort."""
    table, problems = impute(table, [study.cohort.stage])
    scores = deep.table.loc[table.index].copy()
    for source, (signature, out_of_fold) in signatures.items():
        scores[f"{source}_radio"] = signature.score(features[source].loc[table.index])
        scores[f"{source}_radio{IN_SAMPLE}"] = scores[f"{source}_radio"].where(table["split"] == "training")
        scores.loc[out_of_fold.index, f"{source}_radio"] = out_of_fold
        problems += signature.problems
    rows = table.join(scores)
    nomograms = {name: fit_nomogram(rows, parts, study) for name, parts in NOMOGRAMS.items()}
    for nomogram in nomograms.values():
        problems += nomogram.cox.problems
    risks, predicted = _predictions(rows, nomograms, study)
    evaluations = evaluate(risks, predicted, table, study.nomogram.months, study.evaluate)
    problems += [p for e in evaluations.values() for p in e.problems]
    if study.score.training == "out_of_fold":
        nomograms["mtdlr" + IN_SAMPLE] = fit_nomogram(_in_sample(rows), NOMOGRAMS["mtdlr"], study)
    return Models(scores, risks, predicted, nomograms, {s: pair[0] for s, pair in signatures.items()}, deep.scales,
                  evaluations, tuple(dict.fromkeys(problems)))


def fit_nomogram(rows: pd.DataFrame, parts: tuple[str, ...], study: Study) -> Nomogram:
    """The nomogram of the stage and the given scores, fitted on the training rows that have all of them.

    A score that is the same for everybody (an empty signature) and a stage with one level take no part.

    Raises:
        FitError: E-NOMODEL when nothing varies; what `Nomogram.fit` raises.
    """
    training = rows[(rows["split"] == "training") & rows[list(parts)].notna().all(axis=1)]
    surv = Survival(training["time_months"].to_numpy(float), training["event"].to_numpy(bool))
    varying = [Continuous(name) for name in parts if training[name].nunique() > 1]
    terms: list[Term] = [*_stage_term(training, study), *varying]
    if not terms:
        raise FitError(Problem("E-NOMODEL", "neither the stage nor a score varies in the training cohort",
                               where=" + ".join(parts)))
    labels = SCORE_LABELS | {study.cohort.stage: label_of(study.cohort.stage)}
    return _finite(lambda firth: Nomogram.fit(training, surv, terms, study.nomogram.months, ties=study.nomogram.ties,
                                              labels=labels, endpoint=study.cohort.endpoint, firth=firth))


def _finite(fit: Callable[[bool], Nomogram]) -> Nomogram:
    """The nomogram; where the events are separated, by Firth's method, with a warning that says so."""
    try:
        return fit(False)
    except FitError as error:
        if error.code != "E-SEPARATION":
            raise
        nomogram, separated = fit(True), error.problems[0]
    notice = Problem("W-FIRTH", "no finite maximum of the likelihood: the nomogram is fitted by Firth's method",
                     where=separated.where, remedy="Join the level without events with another")
    return replace(nomogram, cox=replace(nomogram.cox, problems=(*nomogram.cox.problems, notice)))


def _stage_term(training: pd.DataFrame, study: Study) -> list[Factor]:
    """The stage with the levels that the training cohort has; nothing if it has one."""
    stage = study.cohort.stage
    levels = tuple(level for level in study.cohort.factors[stage] if (training[stage] == level).any())
    reference = study.cohort.references.get(stage, levels[0])
    return [Factor(stage, levels, reference if reference in levels else levels[0])] if len(levels) > 1 else []


def model_inputs(rows: pd.DataFrame, study: Study) -> dict[str, pd.Series]:
    """The risk of every model that is not a nomogram: the stage in its printed order, and the four scores."""
    levels = {level: float(k) for k, level in enumerate(study.cohort.factors[study.cohort.stage])}
    return {STAGE: rows[study.cohort.stage].map(levels).astype(float), **{name: rows[name] for name in SCORE_LABELS}}


def _predictions(
    rows: pd.DataFrame, nomograms: Mapping[str, Nomogram], study: Study
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """(log-hazards of every model, survival by nomogram); NaN for patients who lack a score."""
    risks, predicted = model_inputs(rows, study), {}
    for name, nomogram in nomograms.items():
        risks[name], predicted[name] = nomogram_predictions(nomogram, rows)
    if study.evaluate.known_risk is not None:
        risks["truth"] = read_known_risk(study.evaluate.known_risk).reindex(rows.index)
    return pd.DataFrame(risks)[[name for name in MODELS if name in risks]], predicted


def read_known_risk(path: Path) -> pd.Series:
    """The true log-hazard of every simulated patient.

    Raises:
        TableError: E-COLUMN when the file lacks patient_id or log_hazard.
    """
    table = read_csv_text(path)
    if not {"patient_id", "log_hazard"} <= set(table.columns):
        raise TableError(Problem("E-COLUMN", "the table of known risks needs patient_id and log_hazard",
                                 where=path.name, found=", ".join(table.columns)))
    return pd.Series(table["log_hazard"].astype(float).to_numpy(), index=table["patient_id"])


def nomogram_predictions(nomogram: Nomogram, rows: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """(log-hazard, survival at the horizons) of each row; NaN where a variable is missing or a level is unknown."""
    known = np.ones(len(rows), dtype=bool)
    for term in nomogram.design.terms:
        assert isinstance(term, Factor | Continuous)
        column = rows[term.name]
        known &= (column.isin(term.levels) if isinstance(term, Factor) else column.notna()).to_numpy()
    risk = pd.Series(np.nan, index=rows.index)
    survival = pd.DataFrame(np.nan, index=rows.index, columns=list(nomogram.months))
    if known.any():
        risk[known] = nomogram.log_hazard(rows[known])
        survival.loc[known] = nomogram.survival(rows[known]).value
    return risk, survival


def _scale(risks: pd.Series, folds: pd.Series, fold: int) -> Scale:
    """From the network's own held-out fold; none (the raw risk) where one network saw everybody."""
    if folds.nunique() < 2:
        return Scale(0.0, 1.0)
    held_out = risks[folds.index[folds == fold]]
    sd = float(held_out.std())
    return Scale(float(held_out.mean()), sd if sd > 0 else 1.0)


def _speak(scaled: pd.DataFrame, folds: pd.Series, column: str) -> dict[str, pd.Series]:
    """Score, spread and in-sample score of every patient from the networks' scaled risks."""
    fold = folds.reindex(scaled.index)
    unseen = pd.DataFrame({k: (fold == k) | fold.isna() for k in scaled}) if scaled.shape[1] > 1 else scaled.notna()
    outside, inside = scaled.where(unseen), scaled.where(~unseen if scaled.shape[1] > 1 else unseen)
    return {column: outside.mean(axis=1), f"{column}_sd": outside.std(axis=1),
            f"{column}{IN_SAMPLE}": inside.mean(axis=1).where(fold.notna())}


def _in_sample(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every score replaced by its in-sample version, where there is one."""
    return rows.assign(**{name: rows[f"{name}{IN_SAMPLE}"] for name in ("deepmts", "auto_radio")})
