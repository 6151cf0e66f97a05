"""FrozenModel: everything a new patient needs, one value. Fitting returns it, `bundle` reads and writes it, `predict`
and `validate` take it.

Cross-fitting: a training patient's score comes from networks and signatures that never saw the patient, another
patient's from all of them. The nomograms are fitted on such training scores only; the same nomogram fitted on in-sample
scores is kept beside them, so that the optimism is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtdlr.cohort import imputation
from mtdlr.cohort.clinical import read_csv_text
from mtdlr.errors import Problem, TableError
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.covariates import clinical_values
from mtdlr.nomogram.fit import competing_notice, fit_nomogram
from mtdlr.nomogram.scores import IN_SAMPLE, Scale, Scores
from mtdlr.prepared import load_bottlenecks
from mtdlr.shift import TrainingRisks, load_description
from mtdlr.shift.aggregates import Aggregates, margins, salted, training_bound, training_reference
from mtdlr.signature import Signature
from mtdlr.stats.roc import roc, youden
from mtdlr.stats.terms import Continuous, Factor, Spline
from mtdlr.store import digest, file_hash
from mtdlr.study import MAIN, REFERENCE, Model, Study, models_of

GUARANTEE = 0.9
"""Share of patients for whom the lower bound holds."""


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """A fitted study: what scores, judges and predicts patients it has never seen. No patient's row is in it.

    Args:
        study: the settings that preparation, scoring and radiomics follow.
        nomograms: by name of the model; `mtdlr_in_sample` is the same model fitted on in-sample scores, kept for the
            report alone and not written into a bundle.
        signatures: by mask source, `auto` and `manual`.
        networks: folders of the checkpoints, by network and fold.
        scales: of each network's risks.
        cutoffs: risk-group cut-off of each model, a log-hazard; a model that separates nobody has none.
        imputed: what a missing clinical value takes, by column, from the training cohort.
        mean_image: folder of the training cohort's mean image.
        facts: who trained it: numbers of patients and events, versions, the parent model of an update, and where they
            are known `c`: the C-index of the main model by cohort as [value, low, high].
        problems: warnings of the fits.
        aggregates: of the training patients: how their scans look, and what a lower bound rests on.
    """

    study: Study
    nomograms: Mapping[str, Nomogram]
    signatures: Mapping[str, Signature]
    networks: Mapping[str, tuple[Path, ...]]
    scales: Mapping[str, tuple[Scale, ...]]
    cutoffs: Mapping[str, float]
    mean_image: Path
    imputed: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    aggregates: Aggregates | None = None

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model of the study."""
        return models_of(self.study)

    @property
    def harmonised_centers(self) -> tuple[str, ...]:
        """The training centres whose features have a stored transform; empty where features are not harmonised."""
        kept = self.signatures["auto"].harmonisation if "auto" in self.signatures else None
        return () if kept is None else tuple(sorted(kept.combat.batches))

    @cached_property
    def digest(self) -> str:
        """Stands for all that a risk rests on, the settings included: two models with one digest predict the same."""
        weights = {f"{name}/{k}": file_hash(folder / "weights.safetensors") for name, folders in self.networks.items()
                   for k, folder in enumerate(folders) if (folder / "weights.safetensors").exists()}
        return digest([{name: n.to_json() for name, n in self.nomograms.items() if not name.endswith(IN_SAMPLE)},
                       {name: s.identity if s.harmonisation is None else [s.identity, s.harmonisation.as_dict()]
                        for name, s in self.signatures.items()},
                       {name: str(scales) for name, scales in self.scales.items()}, dict(self.cutoffs),
                       {name: str(value) for name, value in self.imputed.items()}, self._settings(), weights])

    def _settings(self) -> dict[str, Any]:
        """The settings that a prediction follows; a radiomics parameter file by its content."""
        settings = self.study.model_dump(mode="json", include={"prepare", "score", "radiomics", "nomogram"})
        profile = Path(self.study.radiomics.profile)
        if profile.is_file():
            settings["radiomics"]["profile"] = file_hash(profile)
        return settings | {"network": self.study.singletask.network, "stage": self.study.cohort.stage}

    def risks(self, rows: pd.DataFrame) -> pd.DataFrame:
        """(patients, models) log-hazards; NaN where a score or a covariate is missing.

        Args:
            rows: clinical covariates and scores of any patients.
        """
        found = {}
        for model in self.models:
            if model.name in self.nomograms:
                found[model.name] = nomogram_predictions(self.nomograms[model.name], rows)[0]
            elif model.name == REFERENCE:
                found[model.name] = self._stage(rows)
            elif model.scores and model.scores[0] in rows:
                found[model.name] = rows[model.scores[0]]
        return pd.DataFrame(found, index=rows.index)

    def predicted(self, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Of each nomogram, (patients, months) survival probabilities; NaN where a score or covariate is missing."""
        return {name: nomogram_predictions(nomogram, rows)[1] for name, nomogram in self.nomograms.items()}

    def clinical(self, given: Mapping[str, Any], model: str = MAIN) -> dict[str, Any]:
        """The clinical values that a nomogram needs, spelled as the nomogram knows them.

        Args:
            given: by column name, as the user wrote them.
            model: name of the nomogram.

        Raises:
            TableError: as `clinical_values`.
        """
        return clinical_values(self.nomograms[model], self.study.nomogram_covariates, given)

    def _stage(self, rows: pd.DataFrame) -> pd.Series:
        """The stage as a risk: the place of its level in the printed order."""
        stage = self.study.cohort.stage
        levels = {level: float(k) for k, level in enumerate(self.study.cohort.factors[stage])}
        return rows[stage].map(levels).astype(float)


def study_scores(
    table: pd.DataFrame, deep: Scores, features: Mapping[str, pd.DataFrame],
    signatures: Mapping[str, tuple[Signature, pd.Series]],
) -> pd.DataFrame:
    """Every score of every patient, and its in-sample version for training patients.

    Args:
        table: (patients) with their cohort in `split`, and `center`; each cohort's new centres are harmonised apart.
        deep: the networks' scores.
        features: (patients, features) by mask source.
        signatures: of each mask source, the signature of the training cohort and its out-of-fold training scores.
    """
    scores = deep.table.loc[table.index].copy()
    for source, (signature, out_of_fold) in signatures.items():
        name = f"{source}_radio"
        scores[name] = pd.concat([signature.score(features[source].loc[rows.index], rows["center"])
                                  for _, rows in table.groupby("split")])
        scores[f"{name}{IN_SAMPLE}"] = scores[name].where(table["split"] == "training")
        scores.loc[out_of_fold.index, name] = out_of_fold
    return scores


def fit_model(
    table: pd.DataFrame, scores: pd.DataFrame, deep: Scores, signatures: Mapping[str, Signature], study: Study, *,
    networks: Mapping[str, Sequence[Path]], mean_image: Path,
) -> FrozenModel:
    """The frozen model of a study: nomograms and cut-offs, fitted on the training rows alone.

    Args:
        table: (patients) split, time_months, event and the clinical columns; rows of other cohorts take no part.
        scores: (patients, scores) of `study_scores`.
        deep: the scales of the networks and the folds.
        signatures: by mask source.
        study: its settings.
        networks: checkpoint folders of each network, one a fold.
        mean_image: folder of the training cohort's mean image.

    Raises:
        FitError: E-NOMODEL when neither a covariate nor a score of a nomogram varies; what `Nomogram.fit` raises.
    """
    training = table[table["split"] == "training"]
    imputed = imputation(training, list(study.nomogram_covariates))
    rows = training.join(scores).assign(**{name: training[name].fillna(value) for name, value in imputed.items()})
    nomograms = {model.name: fit_nomogram(rows, model, study) for model in models_of(study) if model.is_nomogram}
    problems = [p for s in signatures.values() for p in s.problems]
    problems += [p for nomogram in nomograms.values() for p in nomogram.cox.problems]
    problems += competing_notice(study.cohort.competing)
    if study.score.training == "out_of_fold":
        main = next(model for model in models_of(study) if model.name == MAIN)
        nomograms[MAIN + IN_SAMPLE] = fit_nomogram(_in_sample(rows, main), main, study)
    frozen = FrozenModel(
        study, nomograms, dict(signatures), {name: tuple(folders) for name, folders in networks.items()}, deep.scales,
        {}, mean_image, imputed, {"n": len(training), "events": int(training["event"].sum())},
        tuple(dict.fromkeys(problems)))
    cutoffs = {name: training_cutoff(risk, rows) for name, risk in frozen.risks(rows).items()}
    return replace(frozen, cutoffs={str(name): cutoff for name, cutoff in cutoffs.items() if np.isfinite(cutoff)})


def with_aggregates(
    model: FrozenModel, rows: pd.DataFrame, prepared: Mapping[str, Path], features: pd.DataFrame, *,
    scored: Mapping[str, Path], deep: Scores
) -> FrozenModel:
    """The model with the aggregates of its training patients.

    Args:
        model: just fitted.
        rows: training patients with follow-up, covariates and out-of-fold scores.
        prepared: the folder of each prepared patient, which holds its description.
        features: (patients, features) of the predicted masks.
        scored: the folder of each scored patient, which holds its bottlenecks.
        deep: the networks' scores.
    """
    found = {str(i): load_description(prepared[str(i)]) for i in rows.index}
    seen = {i: one for i in found if i in scored and (one := load_bottlenecks(scored[i])) is not None}
    filled = rows.assign(**{name: rows[name].fillna(value) for name, value in model.imputed.items() if name in rows})
    images = sorted({salted(model.digest, image) for one in found.values() for image in one.images})
    measured = model.signatures["auto"].measured(features.reindex(rows.index), rows["center"])
    return replace(model, aggregates=Aggregates(
        training_reference(found, deep.spread_as_new(rows, model.study.singletask.network), measured, bottlenecks=seen,
                           folds={str(i): int(k) for i, k in deep.folds.items()}),
        training_bound(model.nomograms[MAIN], filled), margins(rows, model.study.cohort),
        model.digest, tuple(images), TrainingRisks.fit(model.risks(filled)[MAIN])))


def lower_bounds(model: FrozenModel, rows: pd.DataFrame) -> pd.Series:
    """Months free of the event that hold for 90 % of patients; nan where the model keeps no bound or a variable is
    missing.

    Args:
        model: the frozen model.
        rows: one row a patient, with the covariates and scores of the main nomogram.
    """
    nomogram, bounds = model.nomograms[MAIN], pd.Series(np.nan, index=rows.index)
    bound = None if model.aggregates is None else model.aggregates.bound
    known = rows[list(nomogram.design.variables)].notna().all(axis=1).to_numpy()
    if bound is None or not known.any():
        return bounds
    times = np.unique(nomogram.cox.baseline.time_months)
    bounds[known] = bound.months(times, nomogram.survival(rows[known], times).value, GUARANTEE)
    return bounds


def cross_fitted(
    rows: pd.DataFrame, folds: pd.Series, study: Study
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Log-hazards and survival of the training patients from nomograms that never saw their fold.

    Where the terms of a nomogram are selected by their P, its risk of its own training patients is too good. Selection
    and fit are done again without each fold.

    Args:
        rows: (patients) split, follow-up, covariates and scores.
        folds: the fold of each training patient.
        study: the models and how they are fitted.
    """
    risks: dict[str, pd.Series] = {}
    predicted: dict[str, pd.DataFrame] = {}
    own = folds[folds.index.isin(rows.index)]  # a patient who could not be scored is in no row
    for model in models_of(study):
        if model.is_nomogram:
            parts = []
            for fold in sorted(set(own)):
                inside, left_out = (rows.loc[own.index[mine]] for mine in (own != fold, own == fold))
                parts.append(nomogram_predictions(fit_nomogram(inside, model, study), left_out))
            risks[model.name] = pd.concat([risk for risk, _ in parts])
            predicted[model.name] = pd.concat([survival for _, survival in parts])
    return pd.DataFrame(risks), predicted


def training_cutoff(risk: pd.Series, table: pd.DataFrame) -> float:
    """The Youden cut-off of the event-status ROC in the training cohort; nan where no score separates anybody.

    Args:
        risk: (n,), higher is worse; nan leaves a patient out.
        table: the same n patients, with `split` and `event`.
    """
    rows = ((table["split"] == "training") & risk.notna()).to_numpy()
    values, status = risk.to_numpy(float)[rows], table["event"].to_numpy(bool)[rows]
    if np.unique(values).size < 2 or status.all() or not status.any():
        return float("nan")
    return youden(roc(values, status)).threshold


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
    """(log-hazard, survival at the horizons) of each row; nan where a variable is missing or a level is unknown.

    Args:
        nomogram: of one model.
        rows: one row a patient, with the nomogram's variables.

    Returns:
        (n,) log-hazards and (n, m) probabilities, one column a month.
    """
    known = np.ones(len(rows), dtype=bool)
    for term in nomogram.design.terms:
        assert isinstance(term, Factor | Continuous | Spline)
        column = rows[term.name]
        known &= (column.isin(term.levels) if isinstance(term, Factor) else column.notna()).to_numpy()
    risk = pd.Series(np.nan, index=rows.index)
    survival = pd.DataFrame(np.nan, index=rows.index, columns=list(nomogram.months))
    if known.any():
        risk[known] = nomogram.log_hazard(rows[known])
        survival.loc[known] = nomogram.survival(rows[known]).value
    return risk, survival


def _in_sample(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """The rows with every score of a model replaced by its in-sample version."""
    return rows.assign(**{name: rows[f"{name}{IN_SAMPLE}"] for name in model.scores})
