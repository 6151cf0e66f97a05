"""Run: which stage needs what. The only file that joins the stages to the store; everything flows downwards."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mtdlr import jobs
from mtdlr.associate import study_associations
from mtdlr.cohort import Cohort, impute, leakage, read_cohort, require_events
from mtdlr.cohort.characteristics import characteristics
from mtdlr.cohort.check import few_steps
from mtdlr.errors import CohortError, Problem
from mtdlr.evaluate import Evaluation, Findings, judge
from mtdlr.model import FrozenModel, Scores, combine_scores, fit_model, study_scores
from mtdlr.radiomics import PET_LABELS
from mtdlr.radiomics.robustness import perturbed_tables
from mtdlr.report.results import Results
from mtdlr.signature import Signature
from mtdlr.stats.lasso import stratified_folds
from mtdlr.store import Recipe, Store, digest, file_hash, open_store, write_atomic
from mtdlr.study import Study
from mtdlr.workers import Outcome, Workers, run_jobs, values_of

log = logging.getLogger(__name__)
STAGES = ("cohort", "prepared", "networks", "scored", "features", "signatures", "model", "report", "bundle")
"""Every stage in order; `Run.until` takes one of them."""
SOURCES = ("auto", "manual")
"""Where the mask of the radiomics comes from: the network, or the observer."""


class Run:
    """One study in one run folder. Each stage is a property that does its work once; what is stored is not done again.

    Args:
        study: the settings.
        folder: the run folder; by default `study.run.folder`, else `runs/study`.
        workers: where jobs run; by default local processes as in `study.run`.
    """

    def __init__(self, study: Study, folder: str | Path | None = None, workers: Workers | None = None) -> None:
        self.study = study
        self.folder = Path(folder or study.run.folder or "runs/study")
        self.workers = workers or Workers(study.run.workers, study.run.threads)
        self._held = ExitStack()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the run folder."""
        self._held.close()
        self.__dict__.pop("store", None)

    def all(self) -> Run:
        """Everything, to the report and the bundle."""
        return self.until(STAGES[-1])

    def until(self, stage: str) -> Run:
        """Every stage up to and with `stage`, one of `STAGES`."""
        for name in STAGES[: STAGES.index(stage) + 1]:
            log.info("stage: %s", name)
            getattr(self, name)
        return self

    @cached_property
    def store(self) -> Store:
        """The run folder, held by this process until `close`."""
        return self._held.enter_context(open_store(self.folder))

    # ---- 1 cohort -------------------------------------------------------------------------------------------------

    @cached_property
    def cohort(self) -> Cohort:
        """Every patient with a clinical row and scans, none of them twice."""
        cohort = read_cohort(self.study.cohort)
        require_events(cohort)
        return cohort

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The content hash of each patient's scans.

        Raises:
            CohortError: E-SAMEIMAGE where two patients have the same.
        """
        hashes, shared = leakage(self.cohort)
        if shared:
            raise CohortError(shared)
        return hashes

    # ---- 2 prepare ------------------------------------------------------------------------------------------------

    @cached_property
    def prepared(self) -> jobs.Stored:
        """Each prepared patient; those that fail are named in the problems and left out of everything below."""
        settings = self.study.recipe("prepare")
        recipes = {id_: Recipe("prepare", settings, {"scan": scan}, version=2) for id_, scan in self.hashes.items()}
        work = [jobs.Prepare(self.store, recipes[p.id], p.id, p.scan, self.study.prepare) for p in self.cohort]
        return self._per_patient(jobs.prepare, work, recipes, "prepare")

    @cached_property
    def included(self) -> Cohort:
        """The cohort less the patients that could not be prepared; written to cohort.csv."""
        cohort = self.cohort.only(list(self.prepared.folders))
        require_events(cohort)
        write_atomic(self.folder / "cohort.csv", cohort.table.to_csv())
        return cohort

    @property
    def training(self) -> pd.DataFrame:
        """The rows of the training cohort."""
        return self.included.of("training").table

    # ---- 3 train --------------------------------------------------------------------------------------------------

    @cached_property
    def folds(self) -> pd.Series:
        """The fold of every training patient, stratified by event and centre; one fold only for in-sample scores."""
        table = self.training
        if self.study.score.training == "in_sample":
            return pd.Series(0, index=table.index)
        return pd.Series(stratified_folds(table["event"].to_numpy(bool), self.study.score.folds, self.study.score.seed,
                                          strata=table["center"].to_numpy(str)), index=table.index)

    @cached_property
    def networks(self) -> dict[str, list[Path]]:
        """The checkpoints of each network, one a fold."""
        work = [self._training_job(name, fold) for name in self._sections for fold in sorted(set(self.folds))]
        folders = values_of(self._do(jobs.train, work, "train"))
        return {name: [f for f, job in zip(folders, work, strict=True) if job.network == name]
                for name in self._sections}

    @property
    def _sections(self) -> dict[jobs.NetworkName, str]:
        """The section of settings that each network follows."""
        return {"deepmts": "deepmts", self.study.singletask.network: "singletask"}

    def _training_job(self, network: jobs.NetworkName, fold: int) -> jobs.Train:
        """One network of one fold: it sees every training patient outside the fold."""
        table, seed = self.training, self.study.score.seed * 1000 + fold
        seen = table[(self.folds != fold).to_numpy()] if self.folds.nunique() > 1 else table
        section = self._sections[network]
        recipe = Recipe("train", self.study.recipe(section) | {"network": network, "seed": seed},
                        {i: self.prepared.keys[i] for i in seen.index} | {"outcome": _outcome(seen)},
                        version=2, resumable=True)
        cases = [(str(i), self.prepared.folders[str(i)], float(row["time_months"]), bool(row["event"]),
                  str(row["center"])) for i, row in seen.iterrows()]
        return jobs.Train(self.store, recipe, network, cases, getattr(self.study, section), seed, self.workers.threads)

    # ---- 4 score --------------------------------------------------------------------------------------------------

    @cached_property
    def scored(self) -> jobs.Stored:
        """Each patient's risks from every network, and the predicted mask."""
        recipes = {id_: self._score_recipe(id_) for id_ in self.included.ids}

        def job(patients: Sequence[str]) -> jobs.Score:
            return jobs.Score(self.store, [(recipes[i], self.prepared.folders[i], self._fold_of(i)) for i in patients],
                              self.networks, self.study.score, self.workers.threads)

        folders = self._in_shares(jobs.score, job, recipes, "score")
        return jobs.Stored(folders, {i: r.key for i, r in recipes.items()}, jobs.left_with(folders, "score.json"))

    def _score_recipe(self, patient: str) -> Recipe:
        networks = {f"{name}/{k}": folder.name for name, folders in self.networks.items()
                    for k, folder in enumerate(folders)}
        return Recipe("score", self.study.recipe("score") | {"fold": self._fold_of(patient)},
                      networks | {"prepared": self.prepared.keys[patient]}, version=2)

    def _fold_of(self, patient: str) -> int | None:
        """The fold whose networks never saw the patient; None for those that no network (or every one) saw."""
        if self.study.score.training == "in_sample" or patient not in self.folds.index:
            return None
        return int(self.folds[patient])

    @cached_property
    def scores(self) -> Scores:
        """Deep scores of every patient on their common scale, their spread, and the in-sample figures beside."""
        raw = {i: json.loads((folder / "score.json").read_text()) for i, folder in self.scored.folders.items()}
        return combine_scores(raw, self.folds, self.study.singletask.network)

    # ---- 5 radiomics ----------------------------------------------------------------------------------------------

    @cached_property
    def features(self) -> dict[str, jobs.Stored]:
        """Each patient's features, by source of the mask."""
        return {source: self._extract(source) for source in SOURCES}

    def _extract(self, source: str) -> jobs.Stored:
        recipes, training = {}, set(self.training.index)
        again = {i: self.study.radiomics.perturbations if i in training else 0 for i in self.included.ids}
        settings = self.study.recipe("radiomics") | {"source": source}
        if Path(self.study.radiomics.profile).is_file():
            settings["profile"] = file_hash(Path(self.study.radiomics.profile))
        for i in self.included.ids:
            inputs = {"prepared": self.prepared.keys[i]} | ({"mask": self.scored.keys[i]} if source == "auto" else {})
            recipes[i] = Recipe("radiomics", settings | {"perturbations": again[i]}, inputs)
        work = [jobs.Extract(self.store, recipes[i], self.prepared.folders[i],
                             self.scored.folders[i] if source == "auto" else None, self.study.radiomics, again[i])
                for i in recipes]
        return self._per_patient(jobs.extract, work, recipes, f"radiomics ({source} masks)", facts="features.json")

    @cached_property
    def feature_tables(self) -> dict[str, pd.DataFrame]:
        """(patients, features) by source of the mask; a row of NaN where extraction failed."""
        return {source: self._table_of(stored, "features") for source, stored in self.features.items()}

    def _table_of(self, stored: jobs.Stored, what: str) -> pd.DataFrame:
        rows = {i: json.loads((f / "features.json").read_text())[what] for i, f in stored.folders.items()}
        return pd.DataFrame.from_dict(rows, orient="index").reindex(self.included.ids)

    # ---- 6, 7, 8 signature, nomogram, evaluation ------------------------------------------------------------------

    @cached_property
    def signatures(self) -> dict[str, tuple[Signature, pd.Series]]:
        """Of each mask source: the signature of the training cohort, and its out-of-fold training scores."""
        work = [jobs.FitSignature(self.store, self._signature_recipe(source), self._training_features(source),
                                  self.training, self.folds, self.study.signature, self._training_perturbed(source))
                for source in SOURCES]
        folders = values_of(self._do(jobs.fit_signature, work, "signature"))
        return {source: jobs.load_signature(folder) for source, folder in zip(SOURCES, folders, strict=True)}

    def _training_features(self, source: str) -> pd.DataFrame:
        return self.feature_tables[source].loc[self.training.index]

    def _training_perturbed(self, source: str) -> list[pd.DataFrame]:
        """The training cohort's features under each perturbation; none where none was asked for."""
        if not self.study.radiomics.perturbations:
            return []
        table, folders = self._training_features(source), self.features[source].folders
        rows = {str(i): json.loads((folders[str(i)] / "features.json").read_text())["perturbed"]
                for i in table.index if str(i) in folders}
        return [again.reindex(table.index) for again in perturbed_tables(rows, list(table.columns))]

    def _signature_recipe(self, source: str) -> Recipe:
        keys = self.features[source].keys
        return Recipe("signature", self.study.recipe("signature"), {
            "features": digest({i: keys.get(i) for i in self.training.index}), "outcome": _outcome(self.training),
            "folds": digest(self.folds.tolist())}, version=2)

    @cached_property
    def score_table(self) -> pd.DataFrame:
        """(patients, scores): the four scores, their in-sample versions and the spread of the networks'."""
        return study_scores(self.included.table, self.scores, self.feature_tables, self.signatures)

    @cached_property
    def model(self) -> FrozenModel:
        """The frozen model: nomograms and cut-offs, fitted on the training cohort (seconds, made from the store)."""
        return fit_model(self.included.table, self.score_table, self.scores,
                         {source: signature for source, (signature, _) in self.signatures.items()}, self.study,
                         networks=self.networks, mean_image=self.mean_image)

    @cached_property
    def findings(self) -> Findings:
        """Risks and survival of everybody, and how every model does in every cohort."""
        selected = self.study.nomogram.select != "off" and self.folds.nunique() > 1
        return judge(self.model, self.included.table, self.score_table, self.study.evaluate,
                     self.folds if selected else None)

    @property
    def evaluations(self) -> Mapping[tuple[str, str], Evaluation]:
        """Evaluation by (model, cohort): `run.evaluations["mtdlr", "external"].c`."""
        return self.findings.evaluations

    @property
    def problems(self) -> list[Problem]:
        """Everything that was wrong or noticed on the way, errors first."""
        sources: Sequence[Sequence[Problem]] = (
            self.cohort.problems, few_steps(self.study, len(self.training)), self.prepared.problems,
            self.scored.problems, *(stored.problems for stored in self.features.values()), self.model.problems,
            self.findings.problems)
        return sorted(dict.fromkeys(p for problems in sources for p in problems), key=lambda p: not p.is_error)

    # ---- 9, 10 report, bundle -------------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """The picture of every patient that has a page, or, where no pages are asked for, that the report shows."""
        recipes = {i: Recipe("picture", {}, {"prepared": self.prepared.keys[i], "mask": self.scored.keys[i]})
                   for i in (self.included.ids if self.study.report.pages else self._shown)}
        work = [jobs.Draw(self.store, recipe, self.prepared.folders[i], self.scored.folders[i])
                for i, recipe in recipes.items()]
        return dict(zip(recipes, values_of(self._do(jobs.draw, work, "pictures")), strict=True))

    @property
    def _shown(self) -> list[str]:
        """The patients that the report shows."""
        return self.included.some_of_each(self.study.report.thumbnails)

    @property
    def _mean_recipe(self) -> Recipe:
        return Recipe("mean", {}, {str(i): self.prepared.keys[str(i)] for i in self.training.index})

    @cached_property
    def mean_image(self) -> Path:
        """The folder of the training cohort's mean image, with which the explanation compares a patient."""
        return jobs.average(self.store, self._mean_recipe, [self.prepared.folders[str(i)] for i in self.training.index])

    @cached_property
    def explained(self) -> dict[str, Path]:
        """Where the risk of each patient that the report shows came from."""
        scales = self.scores.scales["deepmts"]
        recipes = {i: Recipe("explain", {"scales": [asdict(scale) for scale in scales]},
                             {"prepared": self.prepared.keys[i], "mask": self.scored.keys[i],  # that of its networks
                              "mean": self._mean_recipe.key}, version=2)
                   for i in self._shown}

        def job(patients: Sequence[str]) -> jobs.Explain:
            return jobs.Explain(self.store, [(recipes[i], self.prepared.folders[i], self.scored.folders[i],
                                              self._fold_of(i)) for i in patients],
                                self.networks["deepmts"], scales, self.mean_image, self.workers.threads)

        return self._in_shares(jobs.explain, job, recipes, "explain")

    @cached_property
    def results(self) -> Results:
        """Everything that tables, figures and report are made from, as numbers."""
        write_atomic(self.folder / "problems.json", json.dumps([p.as_dict() for p in self.problems], indent=1))
        pet = {source: self._table_of(self.features[source], "pet_parameters") for source in SOURCES}
        rows = impute(self.included.table, self.model.imputed)[0].join(self.score_table).join(pet["manual"])
        return Results(
            self.study, self.included, self.model, self.score_table, self.findings,
            characteristics(self.included.table, self.study.cohort, pet["manual"], PET_LABELS),
            study_associations(rows, self.study, pet["manual"].columns), self.feature_tables, pet,
            self.prepared.folders, self.scored.folders, tuple(self.problems), self.pictures, self.explained)

    @cached_property
    def report(self) -> Path:
        """report.html, tables/ and figures/, also copied to the run folder."""
        settings = {s: self.study.recipe(s) for s in ("cohort", "nomogram", "evaluate", "report")}
        recipe = Recipe("report", settings, {
            "scored": digest(self.scored.keys), "prepared": digest(self.prepared.keys),
            "features": digest({s: stored.keys for s, stored in self.features.items()}),
            "model": self.model.digest,
            "risks": digest([self.findings.risks.to_csv(), self.score_table.to_csv()]),
            "problems": digest([str(p) for p in self.problems])}, version=4)
        return self._publish(jobs.report(self.store, recipe, self.results), self.folder)

    @cached_property
    def bundle(self) -> Path:
        """The frozen model: what predict and validate need, and no patient's row."""
        settings = self.study.model_dump(mode="json", exclude={"run", "report", "evaluate"})
        recipe = Recipe("bundle", settings, {
            "model": self.model.digest, "mean": self._mean_recipe.key,
            "networks": digest([str(f) for fs in self.networks.values() for f in fs])}, version=3)
        return self._publish(jobs.bundle(self.store, recipe, self.model), self.folder / "bundle")

    def _per_patient(
        self, function: Any, work: Sequence[Any], recipes: Mapping[str, Recipe], label: str, facts: str = "facts.json"
    ) -> jobs.Stored:
        """Run one job a patient; a patient that fails is left out, by name."""
        outcomes = dict(zip(recipes, self._do(function, work, label), strict=True))
        folders = {i: outcome.value for i, outcome in outcomes.items() if outcome.value is not None}
        failed = tuple(p.of_patient(i) for i, outcome in outcomes.items() for p in outcome.problems)
        return jobs.Stored(folders, {i: recipes[i].key for i in folders}, failed + jobs.left_with(folders, facts))

    def _do(self, function: Any, work: Sequence[Any], label: str) -> list[Outcome[Path]]:
        """The outcome of every job; one whose result is stored whole starts no process."""
        found = [self.store.find(job.recipe) for job in work]
        todo = [job for job, folder in zip(work, found, strict=True) if folder is None]
        outcomes = iter(run_jobs(function, todo, self.workers, label=label))
        return [Outcome(folder) if folder else next(outcomes) for folder in found]

    def _in_shares(
        self, function: Any, job: Callable[[Sequence[str]], Any], recipes: Mapping[str, Recipe], label: str
    ) -> dict[str, Path]:
        """Each patient's folder, of jobs that take a share of the patients each, so that networks are loaded once."""
        todo = [i for i, recipe in recipes.items() if self.store.find(recipe) is None]
        count = min(self.workers.count, len(todo))
        values_of(run_jobs(function, [job(todo[k::count]) for k in range(count)], self.workers, label=label))
        return {i: self.store.folder(recipe) for i, recipe in recipes.items()}

    def _publish(self, folder: Path, target: Path) -> Path:
        """The stored result as plain files where the user looks for them."""
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        return target


def _outcome(table: pd.DataFrame) -> str:
    """Hash of what the patients' follow-up says."""
    return digest([table["time_months"].tolist(), table["event"].astype(int).tolist()])
