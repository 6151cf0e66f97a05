"""Which jobs of a stage have to run here, and what became of each: `pipeline`'s hands on store and workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mtdlr.errors import MtdlrError, Problem
from mtdlr.spreadsheet import frame_of, notebook_table
from mtdlr.store import (
    STAGES,
    TRAINING,
    Lines,
    Recipe,
    Store,
    digest,
    publish,
    room_on,
    source_of,
    stamp_of_paths,
    write_atomic,
    write_plan,
)
from mtdlr.study import Study
from mtdlr.workers import MACHINE, Outcome, Workers, run_jobs
from mtdlr.workers.parts import STEPS

if TYPE_CHECKING:
    from mtdlr.imaging.layout import ScanSet

FAILED, CUT = "failed", "micro_batches"


@dataclass(frozen=True)
class Stored:
    """Results of a per-patient stage.

    Args:
        folders, keys: of each patient that has a result.
        problems: what went wrong or was noticed.
        failed: the patients without a result.
        absent: patients of other shards whose result is not there yet.
    """

    folders: Mapping[str, Path]
    keys: Mapping[str, str]
    problems: tuple[Problem, ...] = ()
    failed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Desk:
    """Runs the jobs of a stage: those whose result is not stored, and of a shard only its own patients' (`mine`)."""

    store: Store
    workers: Workers
    mine: frozenset[str] | None = None
    other_code: dict[str, int] = field(default_factory=dict)

    def outcomes(self, function: Any, work: Sequence[Any], label: str, side_by_side: int = 0) -> list[Outcome[Path]]:
        """The outcome of every job, in order; a job whose result is stored whole starts no process.

        Args:
            function: module-level function that does one job.
            work: the jobs; each has a `recipe`.
            label: name of the stage.
            side_by_side: how many run at a time, where that is another number than the workers'.
        """
        recipes = [job.recipe for job in work]
        found = [self.store.find(recipe) for recipe in recipes]
        self._note_code(recipes, found)
        if self.mine is None:
            write_plan(self.store.root, label, recipes, sum(folder is not None for folder in found))
        todo = [job for job, folder in zip(work, found, strict=True) if folder is None]
        look = self._trained if label == "train" else None
        workers = replace(self.workers, look=look, count=side_by_side or self.workers.count)
        ran = run_jobs(function, todo, workers, label=label)
        for job, outcome in zip(todo, ran, strict=True):
            if outcome.ok:
                self.store.note(job.recipe)
        outcomes = iter(ran)
        return [Outcome(folder) if folder else next(outcomes) for folder in found]

    def patients(self, function: Any, work: Mapping[str, Any], label: str, facts: str | None) -> Stored:
        """One job a patient; a patient that fails is left out, by name.

        Args:
            function: the job's function.
            work: the job of each patient.
            label: of the stage.
            facts: the file of a result that holds the warnings it left.

        Raises:
            MtdlrError: E-NOTSCORED where the networks can score nobody.
        """
        mine = set(work) if self.mine is None else self.mine
        own = {i: job for i, job in work.items() if i in mine}
        outcomes = dict(zip(own, self.outcomes(function, list(own.values()), label), strict=True))
        folders = {i: outcome.value for i, outcome in outcomes.items() if outcome.value is not None}
        failed = {i: tuple(p.of_patient(i) for p in outcome.problems)
                  for i, outcome in outcomes.items() if not outcome.ok}
        self._remember(label, {i: work[i].recipe for i in own}, failed)
        absent = []
        for i, job in work.items():
            if i in mine:
                continue
            if (folder := self.store.find(job.recipe)) is not None:
                folders[i] = folder
            elif (problems := self._remembered(label, job.recipe)) is not None:
                failed[i] = problems
            else:
                absent.append(i)
        folders = {i: folders[i] for i in work if i in folders}  # in the cohort's order
        problems = tuple(p for i in work for p in failed.get(i, ()))
        if label == "score" and failed and not folders and not absent:
            raise MtdlrError([*problems, Problem("E-NOTSCORED", "no patient could be scored: nothing can be judged",
                                                 where="score", found=f"{len(failed)} failed",
                                                 remedy="See what stopped each patient")])
        return Stored(folders, {i: work[i].recipe.key for i in folders}, problems + left_with(folders, facts),
                      tuple(i for i in work if i in failed), tuple(absent))

    def hashes(self, scans: Mapping[str, ScanSet], function: Any) -> dict[str, tuple[str, str, str]]:
        """The content hashes of each patient's PET, CT and mask.

        The workers read a file only where its size or time of change differs from the previous reading. What is
        remembered holds no name of a file. A patient whose files cannot be read to the end is left out.

        Args:
            scans: files of each patient, by id.
            function: module-level function that reads one scan.

        Raises:
            MtdlrError: where the machine failed, not the files.
        """
        memory = Lines(self.store.root / "scans", join=self.mine is None)
        stamps = {i: _stamp(scan) for i, scan in scans.items()}
        todo = [i for i, stamp in stamps.items() if stamp is None or stamp not in memory.values]
        work = [replace(scans[i], candidates=()) for i in todo]
        found = {i: tuple(memory.values[s]) for i, s in stamps.items() if s is not None and s in memory.values}
        for i, outcome in zip(todo, run_jobs(function, work, self.workers, label="scans"), strict=True):
            if any(p.code in MACHINE for p in outcome.problems):
                raise MtdlrError(p.of_patient(i) for p in outcome.problems)
            if outcome.value is not None:
                found[i] = outcome.value
                if (stamp := stamps[i]) is not None:
                    memory.put(stamp, list(outcome.value))
        memory.close()
        return found

    def publish(self, recipe: Recipe, make: Callable[[], Path], target: Path) -> Path:
        """The stored result as plain files where the user looks for them.

        Args:
            recipe: of the result.
            make: makes it where it is not stored.
            target: folder of the plain files.
        """
        folder = self.store.find(recipe)
        if folder is None:
            tell = self.workers.progress or (lambda *_: None)
            tell(recipe.stage, 0, 1)
            folder = make()
            self.store.note(recipe)
            tell(recipe.stage, 1, 1)
        publish(folder, target, recipe.stage)
        return target

    def _remember(self, label: str, recipes: Mapping[str, Recipe], failed: Mapping[str, tuple[Problem, ...]]) -> None:
        """Keep why patients failed, for shards that need to know who is left out; a machine's failure is not kept."""
        for i, recipe in recipes.items():
            path = self._failure(label, recipe)
            own = [p for p in failed.get(i, ()) if p.code not in MACHINE]
            if own:
                with room_on(self.store.root):
                    path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, json.dumps([p.as_dict() for p in failed[i]]))
            elif path.exists():
                path.unlink(missing_ok=True)

    def _remembered(self, label: str, recipe: Recipe) -> tuple[Problem, ...] | None:
        path = self._failure(label, recipe)
        try:
            return tuple(Problem(**p) for p in json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def _failure(self, label: str, recipe: Recipe) -> Path:
        return self.store.root / FAILED / label / f"{recipe.key}.json"

    def _trained(self) -> float:
        """How many trainings the parts done so far add up to."""
        total = 0.0
        for path in (self.store.root / "scratch").glob(f"train-*/{TRAINING}"):
            try:
                total += float(json.loads(path.read_text())["share"])
            except (OSError, ValueError, KeyError):
                continue
        return total

    def _note_code(self, recipes: Sequence[Recipe], found: Sequence[Path | None]) -> None:
        """Count the stored results that other code made."""
        if self.store.index:
            for recipe, folder in zip(recipes, found, strict=True):
                if folder is not None and self.store.index.source(recipe.name) not in ("", source_of(recipe.stage)):
                    self.other_code[recipe.stage] = self.other_code.get(recipe.stage, 0) + 1

    def store_problems(self) -> list[Problem]:
        """W-CORRUPT for each stage with results that were found damaged, W-OTHERCODE with results of other code."""
        hurt = Counter(name.partition("/")[0] for name in (self.store.index.damaged if self.store.index else ()))
        return [Problem("W-CORRUPT", "stored results were damaged and were made again", where=f"stage {stage}",
                        found=f"{hurt[stage]} results", remedy="Check the disk of the run folder")
                for stage in sorted(hurt)] + [
                Problem("W-OTHERCODE", "stored results were made by other code than today's", where=f"stage {stage}",
                        found=f"{self.other_code[stage]} results",
                        remedy=f"To make them anew, delete objects/{stage} in the run folder")
                for stage in STAGES if self.other_code.get(stage)]


def outcome_digest(table: pd.DataFrame) -> str:
    """Stands for what the patients' follow-up says."""
    return digest([table["time_months"].tolist(), table["event"].astype(int).tolist()])


def score_recipe(study: Study, networks: Mapping[str, Sequence[Path]], fold: int | None, prepared: str) -> Recipe:
    """The recipe of one patient's scores.

    Args:
        study: its settings.
        networks: checkpoint folders by name, one a fold.
        fold: the patient's fold in training; None for everybody else.
        prepared: key of the prepared patient.
    """
    inputs = {f"{name}/{k}": folder.name for name, folders in networks.items() for k, folder in enumerate(folders)}
    return Recipe("score", study.recipe("score") | {"fold": fold}, inputs | {"prepared": prepared})


def signature_recipe(study: Study, features: Stored, rows: pd.DataFrame, folds: pd.Series) -> Recipe:
    """The recipe of a radiomic signature of some training patients.

    Args:
        study: its settings.
        features: the stored features of the cohort.
        rows: follow-up of the training patients.
        folds: their folds.
    """
    harmonised = study.signature.harmonise != "off"
    return Recipe("signature", study.recipe("signature"), {
        "features": digest({i: features.keys.get(i) for i in rows.index}), "outcome": outcome_digest(rows),
        "folds": digest(folds.tolist()),
        **({"centers": digest([str(center) for center in rows["center"]])} if harmonised else {})})


def _stamp(scan: ScanSet) -> str | None:
    """Stands for a patient's files as they are: paths, sizes, times of change; None where one cannot be looked at."""
    rows: list[Any] = [scan.mask_pattern, scan.mask_label]
    for files in (scan.pet, scan.ct, scan.mask):
        found = stamp_of_paths(() if files is None else (files,) if isinstance(files, Path) else files)
        if found is None:
            return None
        rows += [*found, ""]
    return digest(rows)


def require_machine(stored: Stored) -> None:
    """Refuse to train without patients that only the machine, not their data, kept from being prepared.

    Raises:
        MtdlrError: E-UNPREPARED and what happened to each patient.
    """
    broken = [p for p in stored.problems if p.code in MACHINE]
    if broken:
        raise MtdlrError([*broken, Problem(
            "E-UNPREPARED", "the machine failed while it prepared patients; networks are not trained without them",
            found=f"{len(broken)} patients", remedy="Run again; if it is the same patients each time, their scans are "
            "too large for this machine")])


def per_patient(done: Mapping[str, Any]) -> list[tuple[str, Stored]]:
    """The per-patient stages among the properties of a run that were computed, in order."""
    found = [("prepare", done.get("prepared")), ("score", done.get("scored")),
             *(("radiomics", one) for one in done.get("features", {}).values()),
             ("pictures", done.get("_drawn")), ("explain", done.get("_explained"))]
    return [(stage, stored) for stage, stored in found if stored is not None]


def cut_problem(where: str, parts: int) -> Problem:
    """W-MEMORY: memory ran out while a network trained, and its batches were cut.

    Args:
        where: the network, and its fold where that is known.
        parts: micro-batches of each batch.
    """
    return Problem("W-MEMORY", "a batch did not fit into memory and was cut: a norm sees fewer patients at once",
                   where=where, found=f"{parts} micro-batches of each batch",
                   remedy=f"To train the same anywhere, set accumulate = {parts} yourself")


def cut_batches(networks: Mapping[str, Sequence[Path]]) -> list[Problem]:
    """W-MEMORY for each trained network whose batches were cut.

    Args:
        networks: checkpoint folders by name, one a fold.
    """
    found = [(f"network {name}, fold {fold}", json.loads((folder / "model.json").read_text()).get(CUT))
             for name, folders in networks.items() for fold, folder in enumerate(folders)]
    return [cut_problem(where, parts) for where, parts in found if parts]


def done_words(done: Mapping[str, Any]) -> str:
    """The stages among the properties of a run that were computed, in words."""
    found = [stage for stage, name in STEPS.items() if name in done]
    return f"done here: {', '.join(found)}" if found else "nothing done here yet"


def done_html(title: str, done: Mapping[str, Any]) -> str:
    """A run in a notebook: each stage, whether it was computed, and its results; then C by model and cohort.

    Args:
        title: the line above.
        done: the properties of a run that were computed; nothing else is.
    """
    counted: dict[str, int] = {}
    for stage, stored in per_patient(done):
        counted[stage] = max(counted.get(stage, 0), len(stored.folders))
    rows = [("done here" if name in done else "", counted.get(stage, "")) for stage, name in STEPS.items()]
    found = done["findings"]._repr_html_() if "findings" in done else ""
    return notebook_table(title, frame_of(rows, columns=["", "patients"], index=list(STEPS))) + found


def failures(done: Mapping[str, Any]) -> dict[str, str]:
    """The first stage in which each patient failed, of the properties of a run that were computed."""
    problems = done["cohort"].problems if "cohort" in done else ()
    found = {i: "cohort" for p in problems if p.is_error for i in p.patients}
    for stage, stored in per_patient(done):
        for i in stored.failed:
            found.setdefault(i, stage)
    return found


def where_shown(folder: Path, study: Study, file: Study) -> Path:
    """The folder where results are shown.

    It is the run folder, or `tries/<digest>` in it for settings other than the study file's, so that a try with `--set`
    does not replace the report and model of the study.

    Args:
        folder: the run folder.
        study: the settings in use.
        file: the settings of the study file.
    """
    mine, its = (digest(one.model_dump(mode="json", exclude={"run"})) for one in (study, file))
    return folder if mine == its else folder / "tries" / mine


def noticed(done: Mapping[str, Any], output: Path) -> tuple[Problem, ...]:
    """The problems of a finished report, those that were found while it was written among them; none without one.

    Args:
        done: the stages done so far.
        output: the folder where the report is shown, with its problems.json.
    """
    if "report" not in done:
        return ()
    text = (output / "problems.json").read_text(encoding="utf-8")
    return tuple(Problem(**problem) for problem in json.loads(text))


def left_with(folders: Mapping[str, Path], name: str | None) -> tuple[Problem, ...]:
    """Warnings that a stage left with each patient's result.

    Args:
        folders: folder of each patient's result, by id.
        name: name of the JSON file that holds the warnings; None for a stage without one.
    """
    if name is None:
        return ()
    return tuple(Problem(**problem).of_patient(i) for i, folder in folders.items()
                 for problem in json.loads((folder / name).read_text())["problems"])
