"""A frozen model on another centre's cohort: the stages of a run with networks, signatures and nomograms given.

Order: who is in, who was in training (refused), preparation, how the scans look (refused where they are unfit), scores,
radiomics, and the numbers of the model as received. An update, where it is asked for, comes after them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from mtdlr.cohort import Cohort, HeaderReader, impute, read_cohort
from mtdlr.cohort.clinical import read_csv_text
from mtdlr.errors import CohortError, Problem
from mtdlr.evaluate import Findings, judge
from mtdlr.model import FrozenModel, lower_bounds
from mtdlr.nomogram.scores import combine_scores
from mtdlr.pipeline import SOURCES, Run
from mtdlr.prepared import load_bottlenecks
from mtdlr.radiomics.harmonise import CenterPolicy
from mtdlr.shift import Description, Reference, Shift, load_description
from mtdlr.shift.aggregates import Aggregates
from mtdlr.shift.network import judge_networks
from mtdlr.signature import harmonised, unharmonised
from mtdlr.study import MAIN, CohortSettings, Study
from mtdlr.survival import Survival
from mtdlr.validate.performance import TableValidation, validate_table
from mtdlr.validate.update import Choice, NomogramUpdate, update_nomogram
from mtdlr.versions import require_extra
from mtdlr.workers import Workers

_SPLIT = "external"


@dataclass(frozen=True, eq=False)
class CohortValidation:
    """An external validation of a frozen model on a cohort with images.

    Args:
        model: as received.
        study: the model's settings with the new cohort's.
        cohort: the patients that were judged.
        followed: whether the table has follow-up; without it there are scores, shift and refusals only.
        shifts: how far each prepared patient lies from the training patients, refused ones included.
        scores: (patients, scores) with the spread of the networks.
        bounds: (patients,) months free of the event that hold for 90 % of patients; nan where the model keeps no bound.
        findings: every model's numbers, as in a run; None without follow-up.
        main: every number of the main nomogram, by centre and pooled; None without follow-up.
        update: None where none was asked for.
        problems: errors first.
        harmonised: by source of the mask, what was done with the features of each centre; empty where the model
            harmonises none.
    """

    model: FrozenModel
    study: Study
    cohort: Cohort
    followed: bool
    shifts: Mapping[str, Shift]
    scores: pd.DataFrame
    bounds: pd.Series
    findings: Findings | None
    main: TableValidation | None
    update: NomogramUpdate | None
    problems: tuple[Problem, ...]
    harmonised: Mapping[str, tuple[CenterPolicy, ...]] = field(default_factory=dict)

    @property
    def risks(self) -> pd.DataFrame:
        """(patients, models) log-hazards."""
        return self.model.risks(_rows(self.model, self.cohort, self.scores))

    @property
    def predicted(self) -> pd.DataFrame:
        """(patients, months) predicted survival of the main nomogram."""
        return self.model.predicted(_rows(self.model, self.cohort, self.scores))[MAIN]


def validate_cohort(
    model: FrozenModel, study: Study, folder: Path, *, update: Choice = "none", accept: bool = False,
    workers: Workers | None = None,
) -> CohortValidation:
    """A frozen model judged on a cohort; what is stored in `folder` is not computed again.

    Args:
        model: from `read_bundle`.
        study: the new centre's study; its cohort, evaluate, report and run sections are used, the rest is the model's.
        folder: where results are stored.
        update: "none", "baseline", "slope" or "refit".
        accept: judge scans outside the training distribution too; the refusals stay as warnings.
        workers: where jobs run; by default local processes as in `study.run`.

    Raises:
        TableError, ScanError: as `read_cohort`.
        CohortError: E-NOPATIENTS when nobody is left.
        FitError: as `update_nomogram`.
    """
    require_extra("networks", "a validation with scans")
    merged, followed = merge(model, study), has_follow_up(study.cohort)
    with Run(merged, folder / "work" / model.digest[:12], workers) as run:
        cohort = _read(merged.cohort, followed, run)
        run.__dict__.update(cohort=cohort, folds=pd.Series(dtype=int), model=model,
                            networks={name: list(folders) for name, folders in model.networks.items()},
                            signatures={source: (model.signatures[source], pd.Series(dtype=float))
                                        for source in SOURCES if source in model.signatures})
        looks = {i: load_description(folder) for i, folder in run.prepared.folders.items()}
        leaked = _trained_on(looks, model.aggregates)
        shifts = _shifts(looks, model.aggregates, accept)
        refused = {i for i, shift in shifts.items() if shift.refused} | {i for p in leaked for i in p.patients}
        problems = [*model.problems, *cohort.problems, *run.prepared.problems, *leaked,
                    *(p.of_patient(i) for i, shift in shifts.items() for p in shift.problems)]
        run.__dict__["included"] = _some(cohort.only([i for i in run.prepared.folders if i not in refused]),
                                         len(cohort), problems)
        seen = _by_networks(run.scored.folders, model.aggregates, accept)
        shifts = {i: shift.joined(seen[i]) if i in seen else shift for i, shift in shifts.items()}
        problems += [p.of_patient(i) for i, shift in seen.items() for p in shift.problems]
        kept = {i: folder for i, folder in run.scored.folders.items() if not (i in seen and seen[i].refused)}
        run.__dict__["scored"] = replace(run.scored, folders=kept)
        run.__dict__["included"] = included = _some(cohort.only(list(kept)), len(cohort), problems)
        raw = {i: json.loads((f / "score.json").read_text()) for i, f in run.scored.folders.items()}
        run.__dict__["scores"] = combine_scores(raw, run.folds, merged.singletask.network, model.scales)
        scores = run.score_table
        problems += run.scored.problems
        problems += [p for p in run.features["auto"].problems]
        late = _late(model, scores, model.signatures["auto"].measured(
            run.feature_tables["auto"].loc[scores.index], run.judged.table.loc[scores.index, "center"]))
        shifts = {i: shift.joined(late[i]) if i in late else shift for i, shift in shifts.items()}
        problems += [p.of_patient(i) for i, shift in late.items() for p in shift.problems]
        signatures = {source: signature for source, (signature, _) in run.signatures.items()}
        policies = harmonised(run.judged.table, run.feature_tables, signatures)
        problems += unharmonised(run.judged.table, run.feature_tables, signatures)
    found = CohortValidation(model, merged, included, followed, shifts, scores,
                             lower_bounds(model, _rows(model, included, scores)), None, None, None,
                             _errors_first(problems), policies)
    return _judged(found, update) if followed else found


def merge(model: FrozenModel, study: Study) -> Study:
    """The model's settings with the cohort, evaluation, report and run of a new study.

    Args:
        model: the frozen model.
        study: the new study.
    """
    factors = dict(model.study.cohort.factors)
    stage = model.study.cohort.stage
    needed = {name: factors[name] for name in model.study.nomogram_covariates if name in factors}
    kept = {name: tuple(dict.fromkeys((*needed.get(name, ()), *levels)))
            for name, levels in study.cohort.factors.items()}
    cohort = study.cohort.model_copy(update={
        "stage": stage, "factors": {**needed, **kept}, "split": "random", "external_centers": (),
        "continuous": tuple(dict.fromkeys((*study.cohort.continuous, *(
            name for name in model.study.nomogram_covariates if name in model.study.cohort.continuous))))})
    return model.study.model_copy(update={"cohort": cohort, "evaluate": study.evaluate, "report": study.report,
                                          "run": study.run})


def settings_of(model: FrozenModel, study: Study, folder: Path) -> Study:
    """The settings under which a frozen model judges a study, with a table in `folder` where follow-up is missing.

    Args:
        model: the frozen model.
        study: the new study.
        folder: where the table goes.
    """
    merged = merge(model, study)
    if has_follow_up(study.cohort):
        return merged
    table = _without_follow_up(merged.cohort, folder)
    return merged.model_copy(update={"cohort": merged.cohort.model_copy(update={"table": table})})


def has_follow_up(settings: CohortSettings) -> bool:
    """Whether the clinical table has the columns of time and event."""
    return {settings.time, settings.event} <= set(read_csv_text(settings.table).columns)


def _read(settings: CohortSettings, followed: bool, run: Run) -> Cohort:
    """Every patient of the new centre, in one cohort; without follow-up nobody has the event."""
    if not followed:
        settings = settings.model_copy(update={"table": _without_follow_up(settings, run.folder)})
    cohort = read_cohort(settings, HeaderReader(run.workers, run.folder, join=True))
    return replace(cohort, table=cohort.table.assign(split=_SPLIT))


def _without_follow_up(settings: CohortSettings, folder: Path) -> Path:
    """A copy of the table with one month of follow-up and no event, which nothing that is judged reads."""
    table = read_csv_text(settings.table).assign(**{settings.time: "1", settings.event: "0"})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clinical.csv"
    table.to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    return path


def _trained_on(looks: Mapping[str, Description], aggregates: Aggregates | None) -> list[Problem]:
    """E-TRAINED for every patient whose PET or CT the model was trained on."""
    if aggregates is None:
        return []
    return [Problem("E-TRAINED", "the model was trained on this patient's scan: it cannot be validated on it",
                    patients=(i,), remedy="Leave the patient out of the validation")
            for i, one in looks.items() if aggregates.holds(one.images)]


def _shifts(looks: Mapping[str, Description], aggregates: Aggregates | None, accept: bool) -> dict[str, Shift]:
    """How far each prepared patient lies outside; without a reference in the model, the physical ranges alone."""
    reference = Reference({}, {}, 0) if aggregates is None else aggregates.reference
    judged = {i: reference.judge(one.numbers, one.physical, one.labels) for i, one in looks.items()}
    return {i: shift.accepted() if accept else shift for i, shift in judged.items()}


def _by_networks(scored: Mapping[str, Path], aggregates: Aggregates | None, accept: bool) -> dict[str, Shift]:
    """How far what the networks see of each scored patient lies outside."""
    if aggregates is None:
        return {}
    judged = {i: judge_networks(aggregates.reference, load_bottlenecks(folder)) for i, folder in scored.items()}
    return {i: shift.accepted() if accept else shift for i, shift in judged.items()}


def _some(cohort: Cohort, came: int, problems: Sequence[Problem]) -> Cohort:
    """The cohort, where somebody is left in it.

    Raises:
        CohortError: E-NOPATIENTS, behind what refused everybody.
    """
    if not len(cohort):
        raise CohortError([*(p for p in problems if p.is_error), Problem(
            "E-NOPATIENTS", "no patient is left to be judged", found=f"{came} patients came in")])
    return cohort


def _rows(model: FrozenModel, cohort: Cohort, scores: pd.DataFrame) -> pd.DataFrame:
    """Covariates, with the training cohort's value where one is missing, and scores."""
    return impute(cohort.table, model.imputed)[0].join(scores)


def _judged(received: CohortValidation, update: Choice) -> CohortValidation:
    """With the numbers of the model as received, then of its update."""
    model, cohort = received.model, received.cohort
    findings = judge(model, cohort.table, received.scores, received.study.evaluate)
    rows, centers = _rows(model, cohort, received.scores), list(cohort.table["center"].astype(str))
    surv = Survival(rows["time_months"].to_numpy(float), rows["event"].to_numpy(bool))
    main = validate_table(model.nomograms[MAIN], rows, surv, centers=centers,
                          cutoff=model.cutoffs.get(MAIN, float("nan")))
    said = {f"{month:g} months" for month in main.months}  # the findings say the same of every nomogram
    problems = [*received.problems, *findings.problems, *(p for p in main.problems if p.where not in said
                                                          or p.code not in {one.code for one in findings.problems})]
    updated = None
    if update != "none" and surv.n_events:
        known = rows.index.isin(main.risk.index)
        updated = update_nomogram(model.nomograms[MAIN], rows[known], surv.take(known), update)
        problems += updated.problems
    return replace(received, findings=findings, main=main, update=updated, problems=_errors_first(problems))


def _errors_first(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Each problem once, errors first."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: not p.is_error))


def _late(model: FrozenModel, scores: pd.DataFrame, measured: pd.DataFrame) -> dict[str, Shift]:
    """How far the scores and the signature's features of each patient lie outside: warnings, no refusal."""
    if model.aggregates is None:
        return {}
    return dict(zip(map(str, scores.index), model.aggregates.later(scores, measured), strict=True))
