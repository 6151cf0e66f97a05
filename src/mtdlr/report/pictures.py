"""Figures 2-4 of the paper for a finished run, by the paper's letters, and patients with their contours."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mtdlr.evaluate import Evaluation
from mtdlr.nomogram.fit import competing_notice
from mtdlr.prepared import Prepared, load_mask
from mtdlr.report.figures import (
    Panel,
    attribution_figure,
    calibration_figure,
    kaplan_meier_figure,
    nomogram_figure,
    quality_figure,
    roc_figure,
    save,
    training_figure,
)
from mtdlr.report.figures.page import FORMATS
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS
from mtdlr.stats.calibration import Calibration
from mtdlr.stats.kaplan_meier import KaplanMeier
from mtdlr.stats.roc import Roc
from mtdlr.stats.time_roc import TimeAuc
from mtdlr.study import MAIN, REFERENCE, SCORES, models_of
from mtdlr.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, ATTRIBUTION = "picture.jpg", "attribution.jpg"
PANELS = (MAIN, "manual_radio_stage", "single_task_stage", REFERENCE)
"""The models of Figure 4, a row each."""
TIFF_DPI = 600


def make_figures(results: Results) -> dict[str, tuple[str, Figure]]:
    """(caption, figure) by name: 2a the nomogram, 2b... calibration, 3... ROC, 4... Kaplan-Meier."""
    nomogram = results.model.nomograms[MAIN]
    titles = {score.name: score.title for score in SCORES}
    note = "".join(f" The axis of {titles[name]} runs backwards: its weight is negative (W-NEGATIVEWEIGHT)."
                   for name, beta in zip(nomogram.cox.names, nomogram.cox.coef, strict=True)
                   if beta < 0 and name in titles)
    note += "".join(f" Here {p.what} (W-COMPETING)." for p in competing_notice(results.study.cohort.competing))
    figures = {"2a": (f"The MTDLR nomogram.{note}", nomogram_figure(nomogram))}
    for letter, split in zip("bcd", results.cohort.splits, strict=False):
        by_month = _calibrated(results, split)
        if by_month:
            figures[f"2{letter}"] = (f"Calibration of the MTDLR nomogram, {SPLIT_LABELS[split].lower()}.",
                                     calibration_figure(by_month, predicted=_predicted(results, split),
                                                        endpoint=results.study.cohort.endpoint))
    for number, month in enumerate(_roc_keys(results)):
        curves = {SPLIT_LABELS[split]: _rocs(results, split, month) for split in results.cohort.splits}
        curves = {cohort: by_model for cohort, by_model in curves.items() if by_model}
        name = "event status" if month == 0 else f"event by {month:g} months"
        where = f", {next(iter(curves)).lower()}" if len(curves) == 1 else ""
        if curves:
            figures["3" + "abcdef"[number]] = (f"ROC curves of the {name}{where}.",
                                               roc_figure(curves, emphasised=["MTDLR"], width="double"))
    return figures | _survival_figures(results)


def undrawn(results: Results) -> dict[str, list[str]]:
    """What Figures 2 and 3 do not show, by number, with its reason: cohorts and horizons without an estimate."""
    found: dict[str, list[str]] = {"2": [], "3": []}
    for split in results.cohort.splits:
        evaluation, cohort = results.findings.evaluations[MAIN, split], SPLIT_LABELS[split].lower()
        found["2"] += [f"No calibration at {month:g} months in the {cohort}: {_why(evaluation, month)}."
                       for month in results.study.nomogram.months if month not in _calibrated(results, split)]
        found["3"] += [f"No ROC curve {f'at {month:g} months ' if month else ''}in the {cohort}: "
                       f"{_why(evaluation, month)}."
                       for month in _roc_keys(results) if not _rocs(results, split, month)]
    return found


def _calibrated(results: Results, split: str) -> dict[float, Calibration]:
    """The main nomogram's calibration in one cohort by horizon, where there is one."""
    return {month: one for month, one in results.findings.evaluations[MAIN, split].calibration.items()
            if isfinite(one.oe.value)}


def _rocs(results: Results, split: str, month: float) -> dict[str, Roc | TimeAuc]:
    """The curve of every model in one cohort at one horizon; none where none can be estimated."""
    found = {label: e.auc[month] for label, e in _of(results, split).items() if month in e.auc}
    return found if any(isfinite(one.auc.value) for one in found.values()) else {}


def _why(evaluation: Evaluation, month: float) -> str:
    """Why a cohort has no estimate."""
    if not evaluation.n_events:
        return "no event" if evaluation.n else "no patient has a score"
    if evaluation.concordance is None:
        return "no patient was followed for longer than another with an event"
    return "no event before the horizon, or nobody followed beyond it" if month else "events only"


def write_figures(figures: dict[str, tuple[str, Figure]], folder: Path, *, tiff: bool = False,
                  hand_over: Callable[..., object] | None = None) -> None:
    """Write each figure as SVG, PDF and PNG: `figure2a.svg`.

    Args:
        figures: (caption, figure) by name.
        folder: where the files go; made if missing.
        tiff: whether to write a TIFF of 600 dpi as well.
        hand_over: of `aside`, which prints what takes longest; by default that is done here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {name: figure for name, (_, figure) in figures.items()}
    slow = [".pdf", *([".tiff"] if tiff else [])]  # a PDF holds parts of its fonts, which take long to cut out
    if hand_over is None:
        _print_figures(drawn, folder, slow)
    else:
        hand_over(_print_figures, drawn, folder, slow)
    _print_figures(drawn, folder, [suffix for suffix in FORMATS if suffix not in slow])


def _print_figures(figures: dict[str, Figure], folder: Path, suffixes: Sequence[str]) -> None:
    for name, figure in figures.items():
        for suffix in suffixes:
            save(figure, folder / f"figure{name}{suffix}", dpi=TIFF_DPI if suffix == ".tiff" else 300)


def write_training(results: Results, folder: Path) -> list[tuple[str, Path]]:
    """Write a picture of the course of each network's first fold.

    Args:
        results: of a finished run.
        folder: where the files go; it must exist.

    Returns:
        (network, path) of each network that was trained by steps.
    """
    written = []
    for network, checkpoints in results.model.networks.items():
        with (checkpoints[0] / "log.csv").open() as handle:
            rows = [{name: float(cell) for name, cell in row.items() if cell and name != "learning_rate"}
                    for row in csv.DictReader(handle)]
        if not rows:  # nothing of it was trained by steps
            continue
        written.append((network, save(training_figure(rows), folder / f"training_{network}.svg")))
    return written


def draw_patient(prepared_folder: Path, scored_folder: Path, path: Path) -> None:
    """PET and CT of a patient with the manual and the predicted contour, for the patient's page.

    Args:
        prepared_folder: folder of the prepared patient.
        scored_folder: folder of the scored patient.
        path: the picture's file.
    """
    prepared = Prepared.load(prepared_folder)
    projections = prepared.projections or (prepared.pet_suv, prepared.pet_suv)
    save(quality_figure(prepared.pet_suv, prepared.ct_hu, projections, _contours(scored_folder, prepared),
                        prepared.region), path, dpi=150)


def draw_attribution(prepared: Prepared, mask: Volume, maps: NDArray[np.float32], path: Path) -> None:
    """What raised and lowered a patient's risk, over PET and CT, with the predicted contour.

    Args:
        prepared: the patient's images.
        mask: the predicted mask.
        maps: (2, z, y, x) what each voxel of PET and CT adds to the risk, on the network grid.
        path: the picture's file.
    """
    shown = [Volume(one, prepared.affine) for one in maps]
    save(attribution_figure(prepared.pet_suv, prepared.ct_hu, shown, {"predicted": mask}), path, dpi=110)


def write_patients(results: Results, folder: Path) -> None:
    """The pictures of every patient beside its page: `<name>.jpg`, and `<name>-risk.jpg` of those explained.

    Args:
        results: of a finished run.
        folder: where the files go; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for patient, drawn in results.pictures.items():
        shutil.copyfile(drawn / PICTURE, folder / f"{page_name(patient)}.jpg")
    for patient, explained in results.explained.items():
        shutil.copyfile(explained / ATTRIBUTION, folder / f"{page_name(patient)}-risk.jpg")


def page_name(patient: str) -> str:
    """A patient's id as a file name, different for different ids.

    >>> page_name("P017"), page_name("a/b")
    ('P017', 'a_b-c14cddc0')
    """
    plain = re.sub(r"[^\w.-]", "_", patient).lstrip(".")
    plain = plain[:48]  # file systems end names at 255 bytes
    return plain if plain == patient else f"{plain}-{hashlib.sha256(patient.encode()).hexdigest()[:8]}"


def _contours(scored_folder: Path, prepared: Prepared) -> dict[str, Volume]:
    """The predicted mask, and the manual one where there is one."""
    manual = {} if prepared.manual_mask is None else {"manual": prepared.manual_mask}
    return {"predicted": load_mask(scored_folder)} | manual


def survival_panels(results: Results) -> dict[str, dict[str, Panel]]:
    """Kaplan-Meier curves of the risk groups by model and cohort, by printed names, in the order of Figure 4.

    The groups of the stage are called by the stages in them: nothing is predicted there.
    """
    labels = {model.name: model.label for model in models_of(results.study)}
    stages = _stage_groups(results)
    panels: dict[str, dict[str, Panel]] = {}
    for model in (name for name in PANELS if name in labels):
        for split in results.cohort.splits:
            found = results.findings.evaluations.get((model, split))
            groups = found.groups if found else None
            names = stages if model == REFERENCE else {}
            panels.setdefault(labels[model], {})[SPLIT_LABELS[split]] = _ungrouped(found) if groups is None else Panel(
                {names.get(label, label): curve for label, curve in groups.curves.items()},
                groups.log_rank.p, groups.hazard_ratio)
    return panels


def _ungrouped(found: Evaluation | None) -> Panel:
    """A panel that says why there are no groups to compare."""
    if found is None or found.concordance is not None:
        return Panel({})
    why = _why(found, 0.0)
    return Panel({}, why=f"{why[0].upper()}{why[1:]}.")


def _stage_groups(results: Results) -> dict[str, str]:
    """What the stage's low and high group consist of, such as III and IVa."""
    column, risk = results.study.cohort.stage, results.findings.risks[REFERENCE]
    stage = results.cohort.table[column].dropna()
    high = risk.reindex(stage.index) >= results.model.cutoffs.get(REFERENCE, float("nan"))
    order = [level for level in results.study.cohort.factors.get(column, ()) if level in set(stage)]
    names = {label: [level for level in order if (high[stage == level] == is_high).all()]
             for label, is_high in (("Low risk", False), ("High risk", True))}
    return {label: ", ".join(levels) for label, levels in names.items() if levels}


def _survival_figures(results: Results) -> dict[str, tuple[str, Figure]]:
    """The panels of Figure 4 as figures of their own, by the same letters."""
    panels = [(model, cohort, shown) for model, by_cohort in survival_panels(results).items()
              for cohort, shown in by_cohort.items()]
    curves = [{name: one for name, one in shown.groups.items() if isinstance(one, KaplanMeier)} for *_, shown in panels]
    return {f"4{letter}": (f"Risk groups of {model}, {cohort.lower()}.", kaplan_meier_figure(
        groups, p=shown.p, hazard_ratio=shown.hazard_ratio, endpoint=results.study.cohort.endpoint))
        for letter, (model, cohort, shown), groups in zip(ascii_lowercase, panels, curves, strict=False) if groups}


def _predicted(results: Results, split: str) -> dict[float, NDArray[np.float64]]:
    """The nomogram's predictions in one cohort, by horizon."""
    table = results.findings.predicted[MAIN].loc[results.cohort.of(split).ids].dropna()
    return {float(month): table[month].to_numpy(float) for month in table.columns}


def _of(results: Results, split: str) -> dict[str, Evaluation]:
    """The evaluation of every model in one cohort, by its printed name."""
    return {model.label: results.findings.evaluations[model.name, split] for model in models_of(results.study)
            if (model.name, split) in results.findings.evaluations}


def _roc_keys(results: Results) -> list[float]:
    return list(results.findings.evaluations[MAIN, "training"].auc)
