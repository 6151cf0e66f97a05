"""Run: which stage needs what. The only file that joins the stages to the store; everything flows downwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import pandas as pd

from mtdlr import jobs
from mtdlr.associate import study_associations
from mtdlr.cohort import Cohort, HeaderReader, impute, leakage, read_cohort, require_events, shared_images, unreadable
from mtdlr.cohort.characteristics import characteristics
from mtdlr.cohort.check import few_steps, require_named_centers
from mtdlr.cohort.cost import at_once
from mtdlr.cohort.folds import given_to, training_folds, training_subfolds
from mtdlr.errors import CohortError, MtdlrError, Problem
from mtdlr.evaluate import Evaluation, Findings, Rivals, judge, study_arms, study_rivals
from mtdlr.model import FrozenModel, fit_model, study_scores, with_aggregates
from mtdlr.nomogram.scores import Scores, combine_scores
from mtdlr.radiomics import PET_LABELS
from mtdlr.radiomics.stored import perturbed_of, table_of
from mtdlr.report.results import Results
from mtdlr.shift import images_of
from mtdlr.signature import Signature, unharmonised
from mtdlr.store import Recipe, Store, digest, open_store, without_paths, write_atomic
from mtdlr.study import MAIN, NetworkName, Study
from mtdlr.workers import Workers, parts, planning, values_of
from mtdlr.workers.progress import summary

REPORTED, SOURCES = ("cohort", "nomogram", "evaluate", "report"), ("auto", "manual")
"""Sections that a report depends on; the masks of the radiomics: predicted (auto) and manual."""


class Run:
    """One study in one run folder. Each stage is a property that does its work once; what is stored is not done again.

    Args:
        study: the settings.
        folder: the run folder; by default `study.run.folder`, else `runs/study`.
        workers: where jobs run; by default local processes as in `study.run`.
        shard: the part of the work that is done here, of a run that several machines share.
        output: where report, bundle and tables are shown; by default the run folder.
    """

    def __init__(self, study: Study, folder: str | Path | None = None, workers: Workers | None = None, *,
                 shard: parts.Shard | None = None, output: Path | None = None) -> None:
        self.study, self.shard = study, shard
        self.folder = Path(folder or study.run.folder or "runs/study")
        self.output = output or self.folder
        self.workers = workers or Workers(study.run.workers, study.run.threads)
        self._run = study.run.model_copy(update={"threads": self.workers.threads})  # what a job on networks is told
        self._held, self._alone = ExitStack(), False

    def __repr__(self) -> str:
        return f"Run({self.folder}, {planning.done_words(self.__dict__)}; .summary() once it is done)"

    def summary(self) -> str:
        """What the run came to, as `mtdlr run` prints it: who was left out and why, C, slope and O/E by cohort."""
        return "\n".join(summary(self)[1])

    def to_frame(self) -> pd.DataFrame:
        """Every number of every model and cohort, one a row, as `findings.to_frame`; does what it needs first."""
        return self.findings.to_frame()

    def _repr_html_(self) -> str:
        return planning.done_html(repr(self), self.__dict__)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the run folder."""
        self._held.close()
        self.__dict__ = {name: one for name, one in self.__dict__.items() if name not in ("store", "_desk")}

    def all(self) -> Run:
        """Everything, to the report and the bundle."""
        return self.until("bundle")

    def until(self, stage: str) -> Run:
        """Every stage up to and with `stage`, a name of `STEPS`.

        Raises:
            StudyError: E-STAGENAME; E-SHARD for a stage that cannot be done in parts; E-TEMPLATE.
        """
        parts.require_part(self.shard, stage, self.study)
        self._alone = self.shard is not None and stage == "prepare"
        for name in list(parts.STEPS)[: list(parts.STEPS).index(stage) + 1]:
            getattr(self, parts.STEPS[name])
        return self

    @cached_property
    def store(self) -> Store:
        """The run folder, held by this process until `close`."""
        store = self._held.enter_context(open_store(self.folder, shared=self.shard is not None))
        parts.agree_on_settings(self.folder, self.study.model_dump(mode="json", exclude={"run"}), self.shard)
        return store

    @cached_property
    def _desk(self) -> planning.Desk:
        mine = None if self.shard is None else frozenset(self.shard.mine(self.cohort.ids))
        return planning.Desk(self.store, self.workers, mine)

    # ---- 1 cohort -------------------------------------------------------------------------------------------------

    @cached_property
    def cohort(self) -> Cohort:
        """Every patient with a clinical row and scans, none of them twice."""
        require_named_centers(self.study)
        cohort = read_cohort(self.study.cohort, HeaderReader(self.workers, self.folder, join=not self.shard))
        require_events(cohort)
        return cohort

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The content hash of each patient's scans; of a shard that prepares, of its own patients.

        Raises:
            CohortError: E-SAMEIMAGE where two patients have the same.
        """
        ids = self.shard.mine(self.cohort.ids) if self._alone and self.shard else set(self.cohort.ids)
        known = self._desk.hashes({i: self.cohort.scans[i] for i in sorted(ids)}, jobs.hash_scan)
        hashes, shared = leakage(self.cohort.only(ids), {i: known.get(i) or unreadable(i) for i in sorted(ids)})
        if shared and not self._alone:
            raise CohortError(shared)
        return hashes

    @cached_property
    def prepared(self) -> planning.Stored:
        """Each prepared patient; those that fail are named in the problems and left out of everything below."""
        settings = without_paths(self.study.recipe("prepare"))
        work = {p.id: jobs.Prepare(self.store, Recipe("prepare", settings, {"scan": self.hashes[p.id]}), p.id, p.scan,
                                   self.study.prepare) for p in self.cohort if p.id in self.hashes}
        stored = self._desk.patients(jobs.prepare, work, "prepare", "facts.json")
        planning.require_machine(stored)
        return stored

    @cached_property
    def included(self) -> Cohort:
        """The cohort less the patients that could not be prepared; written to cohort.csv.

        Raises:
            MtdlrError: E-NOTREADY where other shards have not prepared all patients.
            CohortError: E-SAMEIMAGE where two patients have the same voxels, however their files differ.
        """
        parts.require_all(self.prepared.absent, "prepare")
        cohort = self.cohort.only(list(self.prepared.folders))
        if shared := shared_images(cohort.split, images_of(self.prepared.folders)):
            raise CohortError(shared)
        require_events(cohort)
        if self.shard is None:
            self.output.mkdir(parents=True, exist_ok=True)
            write_atomic(self.output / "cohort.csv", cohort.to_csv())
        return cohort

    @cached_property
    def judged(self) -> Cohort:
        """The included patients that have scores."""
        return self.included.only(list(self.scored.folders))

    @property
    def training(self) -> pd.DataFrame:
        """The rows of the training cohort."""
        return self.included.of("training").table

    # ---- 3 train --------------------------------------------------------------------------------------------------

    @cached_property
    def folds(self) -> pd.Series:
        """The fold of every training patient: network k never saw fold k."""
        return training_folds(self.training, self.study.score)

    @cached_property
    def subfolds(self) -> pd.Series:
        """The subfold of every training patient: no fit to outcomes that scores the patient saw it."""
        return training_subfolds(self.training, self.folds, self.study.score)

    @cached_property
    def networks(self) -> dict[str, list[Path]]:
        """The checkpoints of each network, one a fold; of a shard for one fold, those that it trains.

        Raises:
            MtdlrError: what stopped a training, with its network and fold; E-NOTREADY; E-FOLD for no such fold.
        """
        folds = sorted({int(fold) for fold in self.folds})
        work = [self._training_job(name, fold) for name in self.study.sections for fold in folds]
        if self.shard and self.shard.fold is not None:
            work = parts.of_fold(work, self.shard.fold)
        elif self.shard:
            parts.require_all([job.place for job in work if self.store.find(job.recipe) is None], "train")
        count = at_once(self.study.prepare.size, len(folds), self.workers.count)
        outcomes = self._desk.outcomes(jobs.train, work, "train", count)
        failed = [p.at(job.place) for job, outcome in zip(work, outcomes, strict=True) for p in outcome.problems]
        if failed:
            raise MtdlrError(failed)
        return {name: [o.value for o, job in zip(outcomes, work, strict=True) if job.network == name and o.value]
                for name in self.study.sections}

    def _training_job(self, network: NetworkName, fold: int) -> jobs.Train:
        """One network of one fold: it learns from every training patient outside the fold."""
        settings, seed = getattr(self.study, self.study.sections[network]), self.study.score.seed * 1000 + fold
        table, held = given_to(fold, self.training, self.subfolds, self.folds.nunique(), solved=settings.solved)
        inputs = {i: self.prepared.keys[i] for i in table.index} | {"outcome": planning.outcome_digest(table)}
        recipe = Recipe("train", self.study.recipe(self.study.sections[network]) | {"network": network, "seed": seed},
                        inputs | ({"held_out": digest(held)} if held else {}), True)
        cases = [(str(i), self.prepared.folders[str(i)], float(row["time_months"]), bool(row["event"]),
                  str(row["center"]), held.get(str(i))) for i, row in table.iterrows()]
        return jobs.Train(self.store, recipe, network, cases, settings, seed, self._run, fold)

    # ---- 4 score --------------------------------------------------------------------------------------------------

    @cached_property
    def scored(self) -> planning.Stored:
        """Each patient's risks from every network, and the predicted mask."""
        networks = tuple((name, tuple(folders)) for name, folders in self.networks.items())
        recipes = {i: planning.score_recipe(self.study, self.networks, self._fold_of(i), self.prepared.keys[i])
                   for i in self.included.ids}
        work = {i: jobs.ScorePatient(self.store, recipe, self.prepared.folders[i], self._fold_of(i), networks,
                                     self.study.score, self._run) for i, recipe in recipes.items()}
        return self._desk.patients(jobs.score, work, "score", "score.json")

    def _fold_of(self, patient: str) -> int | None:
        """The subfold that never entered the patient's scores; None for those that no network (or every one) saw."""
        known = patient in self.subfolds.index and self.study.score.training == "out_of_fold"
        return int(self.subfolds[patient]) if known else None

    @cached_property
    def scores(self) -> Scores:
        """Deep scores of every patient on their common scale, their spread, and the in-sample figures beside."""
        raw = {i: json.loads((folder / "score.json").read_text()) for i, folder in self.scored.folders.items()}
        return combine_scores(raw, self.folds[self.folds.index.isin(list(raw))], self.study.singletask.network)

    # ---- 5 radiomics ----------------------------------------------------------------------------------------------

    @cached_property
    def features(self) -> dict[str, planning.Stored]:
        """Each patient's features, by source of the mask."""
        return {source: self._extract(source) for source in SOURCES}

    def _extract(self, source: str) -> planning.Stored:
        training, work = set(self.training.index), {}
        settings = without_paths(self.study.recipe("radiomics")) | {"source": source}
        for i in self.judged.ids:
            again = self.study.radiomics.perturbations if i in training else 0
            inputs = {"prepared": self.prepared.keys[i]} | ({"mask": self.scored.keys[i]} if source == "auto" else {})
            work[i] = jobs.Extract(self.store, Recipe("radiomics", settings | {"perturbations": again}, inputs),
                                   self.prepared.folders[i], self.scored.folders[i] if source == "auto" else None,
                                   self.study.radiomics, again)
        return self._desk.patients(jobs.extract, work, f"radiomics-{source}", "problems.json")

    @cached_property
    def feature_tables(self) -> dict[str, pd.DataFrame]:
        """(patients, features) by source of the mask; a row of NaN where extraction failed."""
        return {source: table_of(one.folders, "features", self.judged.ids) for source, one in self.features.items()}

    # ---- 6, 7, 8 signature, nomogram, evaluation ------------------------------------------------------------------

    @cached_property
    def signatures(self) -> dict[str, tuple[Signature, pd.Series]]:
        """Of each mask source: the signature of the training cohort, and its out-of-fold training scores."""
        rows, work = self.judged.of("training").table, []
        for source, table in self.feature_tables.items():
            again = ([] if not self.study.radiomics.perturbations
                     else perturbed_of(self.features[source].folders, table.loc[rows.index]))
            recipe = planning.signature_recipe(self.study, self.features[source], rows, self.subfolds[rows.index])
            work.append(jobs.FitSignature(self.store, recipe, table.loc[rows.index], rows, self.subfolds[rows.index],
                                          self.study.signature, again))
        folders = values_of(self._desk.outcomes(jobs.fit_signature, work, "signature"))
        return {source: jobs.load_signature(folder) for source, folder in zip(SOURCES, folders, strict=True)}

    @cached_property
    def score_table(self) -> pd.DataFrame:
        """(patients, scores): the four scores, their in-sample versions and the spread of the networks'."""
        return study_scores(self.judged.table, self.scores, self.feature_tables, self.signatures)

    @cached_property
    def model(self) -> FrozenModel:
        """The frozen model: nomograms and cut-offs, fitted on the training cohort (seconds, made from the store)."""
        fitted = fit_model(self.judged.table, self.score_table, self.scores,
                           {source: signature for source, (signature, _) in self.signatures.items()}, self.study,
                           networks=self.networks, mean_image=self.mean_image)
        return with_aggregates(fitted, self.training.join(self.score_table), self.prepared.folders,
                               self.feature_tables["auto"], scored=self.scored.folders, deep=self.scores)

    @cached_property
    def findings(self) -> Findings:
        """Risks and survival of everybody, and how every model does in every cohort."""
        selected = self.study.nomogram.select != "off" and self.folds.nunique() > 1
        return judge(self.model, self.judged.table, self.score_table, self.study.evaluate,
                     self.subfolds if selected else None, rivals=self.rivals)

    @cached_property
    def rivals(self) -> Rivals:
        """What simple models find in the same patients."""
        return study_rivals(
            self.store, self.study, self.judged.table, self.subfolds, radiomics=self.feature_tables["auto"],
            stored={"prepared": self.prepared, "scored": self.scored, "radiomics": self.features["auto"]})

    @property
    def evaluations(self) -> Mapping[tuple[str, str], Evaluation]:
        """Evaluation by (model, cohort): `run.evaluations["mtdlr", "external"].c`."""
        return self.findings.evaluations

    @property
    def problems(self) -> list[Problem]:
        """Everything that was wrong or noticed in the stages done so far, errors first."""
        done = self.__dict__
        sources: list[Sequence[Problem]] = [
            done["cohort"].problems if "cohort" in done else (), planning.cut_batches(done.get("networks", {})),
            few_steps(self.study, self.training) if "included" in done else (),
            *(stored.problems for stage, stored in planning.per_patient(done) if stage not in ("pictures", "explain")),
            unharmonised(self.judged.table, self.feature_tables, self.model.signatures) if "model" in done else (),
            self.model.problems if "model" in done else (), self.findings.problems if "findings" in done else (),
            self._desk.store_problems() if "_desk" in done else (), planning.noticed(done, self.output)]
        return sorted(dict.fromkeys(p for problems in sources for p in problems), key=lambda p: not p.is_error)

    @property
    def failed(self) -> dict[str, str]:
        """The first stage in which each patient failed."""
        return planning.failures(self.__dict__)

    # ---- 9, 10 report, bundle -------------------------------------------------------------------------------------

    @cached_property
    def _drawn(self) -> planning.Stored:
        """The picture of every patient that has a page, or, where no pages are asked for, that the report shows."""
        shown = self.study.report
        ids = self.judged.ids if shown.pages else self.judged.some_of_each(shown.thumbnails)
        return self._desk.patients(jobs.draw, {i: jobs.drawing(self.store, self.prepared, self.scored, i) for i in ids},
                                   "pictures", None)

    @cached_property
    def mean_image(self) -> Path:
        """The folder of the training cohort's mean image, with which the explanation compares a patient."""
        ids = [str(i) for i in self.training.index]
        recipe = Recipe("mean", {}, {i: self.prepared.keys[i] for i in ids})
        return jobs.average(self.store, recipe, [self.prepared.folders[i] for i in ids])

    @cached_property
    def _explained(self) -> planning.Stored:
        """Where the risk of each patient that the report shows came from."""
        networks, mean = (("deepmts", tuple(self.networks["deepmts"])),), (self.mean_image.name, self.mean_image)
        work = {i: jobs.explaining(self.store, (self.prepared, self.scored), i, fold=self._fold_of(i), mean=mean,
                                   run=self._run, deep=(networks, self.scores.deep_scales(i)))
                for i in self.judged.some_of_each(self.study.report.thumbnails)}
        return self._desk.patients(jobs.explain, work, "explain", None)

    @cached_property
    def results(self) -> Results:
        """Everything that tables, figures and report are made from, as numbers."""
        pictures, explained = self._drawn.folders, self._explained.folders  # what they notice is among the problems
        write_atomic(self.output / "problems.json", json.dumps([p.as_dict() for p in self.problems], indent=1))
        pet = {source: table_of(self.features[source].folders, "pet_parameters", self.judged.ids) for source in SOURCES}
        rows = impute(self.judged.table, self.model.imputed)[0].join(self.score_table).join(pet["manual"])
        arms = study_arms(self.store, self.study, self.judged.table, self.subfolds, stored=self.features,
                          features=self.feature_tables, scores=self.score_table)
        return Results(
            self.study, self.judged, self.model, self.score_table, self.findings,
            characteristics(self.judged.table, self.study.cohort, pet["manual"], PET_LABELS),
            study_associations(rows, self.study, pet["manual"].columns), self.feature_tables, pet,
            self.prepared.folders, self.scored.folders, tuple(self.problems), pictures, explained, arms)

    def table(self, number: int) -> pd.DataFrame:
        """Table `number` of the report, its cells as printed; does what it needs first. Raises E-NOTSHOWN."""
        return jobs.shown_table(self.results, number)

    def figure(self, name: str) -> jobs.Figure:
        """A figure of the report by its name there, as "2a", to look at or save; as `table`."""
        return jobs.shown_figure(self.results, name)

    @cached_property
    def report(self) -> Path:
        """report.html, tables/ and figures/, also copied to the run folder."""
        recipe = Recipe("report", without_paths({s: self.study.recipe(s) for s in REPORTED}), {
            "scored": digest(self.scored.keys), "prepared": digest(self.prepared.keys),
            "features": digest({s: stored.keys for s, stored in self.features.items()}),
            "model": self.model.digest, "risks": digest([self.findings.risks.to_csv(), self.score_table.to_csv()]),
            "pictures": digest([sorted(self._drawn.folders), sorted(self._explained.folders)]),
            "problems": digest([str(p) for p in self.problems])})
        return self._desk.publish(recipe, lambda: jobs.report(self.store, recipe, self.results), self.output)

    @cached_property
    def bundle(self) -> Path:
        """The frozen model: what predict and validate need, and no patient's row."""
        settings = without_paths(self.study.model_dump(mode="json", exclude={"run", "report", "evaluate"}))
        c = self.findings.concordance_of(MAIN)
        recipe = Recipe("bundle", settings, {
            "model": self.model.digest, "mean": self.mean_image.name, "c": digest(c),
            "networks": digest([f.name for fs in self.networks.values() for f in fs])})
        return self._desk.publish(recipe, lambda: jobs.bundle(self.store, recipe, self.model, c),
                                  self.output / "bundle")
