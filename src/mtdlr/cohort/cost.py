"""What a run will cost on this machine, before it begins: hours, memory and disk, and which preset fits an evening.

A run is patients x folds x epochs of steps that this machine was timed at, and stages whose seconds a patient were
measured once (bench/RESULTS.md, 2026-11-28). Training ends earlier where epochs bring no improvement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtdlr.store import duration
from mtdlr.study import PRESETS, Study
from mtdlr.versions import memory_gb, usable_cores

if TYPE_CHECKING:
    from mtdlr.nets.pace import Pace

Timer = Callable[[Study, str], "Pace"]
"""Seconds that a patient takes in the network of a section ("deepmts", "singletask") of a study."""
EVENING_H = 4.0
BY_SIZE = ("modern", "workstation", "quick")
"""Presets from which one is proposed, the largest first; `paper` repeats the paper's flaws and is never proposed."""
PREPARE_S, PREPARE_S_MVOXEL = 0.8, 0.1  # a patient, and a million voxels of its PET and CT
MASK_S, MASK_MM = 0.3, 4.0  # radiomics of a mask in PET and CT at voxels of 4 mm
PICTURE_S, REPORT_S, SIGNATURE_S = 0.4, 90.0, 40.0  # of a signature: its first use compiles
SCORE_S = 0.2  # a patient: region, mask, agreement
EXPLAIN_STEPS = 16
BASE_GB, RUN_GB, PATIENT_GB = 0.6, 0.3, 0.0003  # a worker, the run itself, and each patient in it
STEP_GB = 1.0  # a patient in a training step at width 1 and 128 voxels
VOXEL_GB = 12e-9  # while a scan is prepared
LEFT_GB = 1e-3  # a patient: scores, features, pictures, descriptions
SMALL_GRID = 32  # voxels along an edge, up to which one training more than there are workers finds room


@dataclass(frozen=True)
class Machine:
    """What a run can use: cores, and memory in GB (None where the system does not say)."""

    cores: int
    memory_gb: float | None

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        return cls(usable_cores(), memory_gb())


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Args:
        patients: all of them.
        training: those that train.
        scans: what `check` found out about each patient's scans (`Checked.audits`).
        centers: how many centres train.
    """

    patients: int
    training: int
    scans: Sequence[Mapping[str, Any]] = ()
    centers: int = 1


@dataclass(frozen=True)
class Cost:
    """What a run will cost.

    Args:
        seconds: by stage, in the order of a run; without train and score where nothing was timed.
        memory_gb: of all processes together, at their peak.
        disk_gb: of the run folder.
    """

    seconds: Mapping[str, float]
    memory_gb: float
    disk_gb: float

    @property
    def total_s(self) -> float:
        """Seconds of all stages that are known."""
        return sum(self.seconds.values())

    @property
    def is_timed(self) -> bool:
        """Whether training and scoring are in it."""
        return "train" in self.seconds


def cost_of(study: Study, size: Size, machine: Machine, timer: Timer | None) -> Cost:
    """What a run of a study costs.

    Args:
        study: its settings.
        size: its patients.
        machine: where it would run.
        timer: times a network; None where the extra `networks` is not installed.
    """
    lanes = max(1, min(study.run.workers, machine.cores // study.run.threads))
    voxels = [_voxels(scan) for scan in size.scans]
    mean = sum(voxels) / len(voxels) if voxels else 0.0
    masks_s = 2 * MASK_S * (MASK_MM / study.radiomics.spacing_mm) ** 1.7
    again = 1 + study.radiomics.perturbations * size.training / max(size.patients, 1)
    folds = study.score.n_folds(size.centers)
    shown = min(study.report.thumbnails, size.patients)
    seconds = {"prepare": size.patients * (PREPARE_S + PREPARE_S_MVOXEL * mean / 1e6) / lanes}
    drawn = PICTURE_S * (size.patients if study.report.pages else shown) / lanes
    if timer is not None:
        deep, single = timer(study, "deepmts"), timer(study, "singletask")
        beside = 1 if deep.on_card else lanes
        learned = [_training_s(study, name, size, pace) for name, pace in (("deepmts", deep),
                                                                                    ("singletask", single))]
        scored = folds * (deep.score_s + single.score_s)
        seconds |= {"train": sum(learned) / beside, "score": size.patients * (SCORE_S + scored) / beside}
        drawn += shown * EXPLAIN_STEPS * max(1.0, folds / 2) * deep.step_s / beside
    seconds |= {"radiomics": size.patients * masks_s * again / lanes, "report": REPORT_S + 2 * SIGNATURE_S + drawn}
    training = at_once(study.prepare.size, folds, lanes)
    return Cost(seconds, _memory_gb(study, size, training, max(voxels, default=0.0)), _disk_gb(study, size))


def at_once(size: int, folds: int, workers: int) -> int:
    """How many networks train at a time: as many as there are workers, or one more where that ends sooner.

    Three trainings on two cores share them and end in one and a half times what one takes alone, two and then one in
    twice that. On grids above 32 voxels it stays the workers' number, for there a training needs much memory.

    Args:
        size: voxels along an edge of the grid.
        folds: trainings of DeepMTS, which take nearly all of the time.
        workers: processes of the run.

    >>> [at_once(32, folds, workers) for folds, workers in ((3, 2), (4, 2), (5, 4), (3, 1))]
    [3, 2, 5, 1]
    """
    def rounds(count: int) -> float:
        return sum(max(1.0, min(count, folds - start) / workers) for start in range(0, folds, count))

    if workers < 2 or size > SMALL_GRID:
        return workers
    return min((workers, workers + 1), key=rounds)


def costs(study: Study, presets: Mapping[str, Study], size: Size, machine: Machine,
          timer: Timer | None) -> tuple[Cost, dict[str, Cost]]:
    """(the cost of a study, the cost of the same under each preset).

    Args:
        study: its settings.
        presets: the same study file under each preset.
        size: its patients.
        machine: where it would run.
        timer: as in `cost_of`.
    """
    return cost_of(study, size, machine, timer), {
        name: cost_of(one, size, machine, timer) for name, one in presets.items()}


def evening(by_preset: Mapping[str, Cost], *, hours: float = EVENING_H) -> str:
    """The largest preset that ends within some hours; "" where none does or nothing was timed.

    Args:
        by_preset: the cost under each preset.
        hours: how long an evening is.
    """
    return next((name for name in BY_SIZE if name in by_preset and by_preset[name].is_timed
                 and by_preset[name].total_s <= hours * 3600), "")


def as_lines(study: Study, size: Size, machine: Machine, found: tuple[Cost, Mapping[str, Cost]], *,
             free_gb: float) -> list[str]:
    """The cost for a terminal, in three to five lines.

    Args:
        study: the settings.
        size: its patients.
        machine: where it would run.
        found: of `costs`.
        free_gb: free disk where the run folder will lie.
    """
    cost, by_preset = found
    has = "" if machine.memory_gb is None else f", {machine.memory_gb:.0f} GB of memory"
    lines = [f"what a run costs on this machine ({machine.cores} cores{has}; preset {study.preset}, {size.patients} "
             f"patients, {size.training} of them training):"]
    parts = ", ".join(f"{stage} {duration(s)}" for stage, s in cost.seconds.items())
    if not cost.is_timed:
        return [*lines, f"  without training, which only mtdlr[networks] can time: {parts}", _room(cost, free_gb)]
    lines += [f"  up to {duration(cost.total_s)}: {parts}", _room(cost, free_gb)]
    cheapest_first = sorted(by_preset.items(), key=lambda item: item[1].total_s)
    told = ", ".join(f"{name} {duration(one.total_s)}" for name, one in cheapest_first)
    best = evening(by_preset)
    lines.append(f"  by preset: {told}; " + (f"{best} fits an evening" if best else "none fits an evening")
                 + f" of {EVENING_H:g} h")
    if machine.memory_gb is not None and cost.memory_gb > machine.memory_gb:
        lines.append("  that is more memory than there is: set run.workers = 1, or deepmts.accumulate to a part of "
                     f"deepmts.batch_size ({study.deepmts.batch_size})")
    return lines


def as_dict(study: Study, found: tuple[Cost, Mapping[str, Cost]], *, free_gb: float) -> dict[str, Any]:
    """The cost as plain values: seconds by stage, GB, the seconds of every preset, and the one that fits an evening.

    Args:
        study: the settings.
        found: of `costs`.
        free_gb: free disk where the run folder will lie.
    """
    cost, by_preset = found
    return {"preset": study.preset, "seconds": dict(cost.seconds), "total_s": cost.total_s, "timed": cost.is_timed,
            "memory_gb": cost.memory_gb, "disk_gb": cost.disk_gb, "free_disk_gb": free_gb,
            "presets": {name: one.total_s for name, one in by_preset.items() if one.is_timed},
            "evening_h": EVENING_H, "evening": evening(by_preset)}


def under_presets(load: Callable[[str], Study]) -> dict[str, Study]:
    """A study under each preset.

    Args:
        load: the study under a preset, with its own keys on top.
    """
    return {name: load(name) for name in PRESETS}


def _training_s(study: Study, section: str, size: Size, pace: Pace) -> float:
    """Seconds of one process that trains the network of every fold, each epoch to the end."""
    settings = getattr(study, section)
    folds = study.score.n_folds(size.centers)
    own = size.training * (1.0 - 1.0 / folds if study.score.training == "out_of_fold" else 1.0)
    held = own * settings.validation_fraction
    batches = settings.steps_per_epoch or max(1.0, (own - held) / settings.batch_size)
    stepped = 0 if section == "singletask" and settings.network == "no-mask" else settings.epochs
    seen = stepped * (batches * settings.batch_size * pace.step_s + held * pace.score_s)
    return folds * float(seen + own * pace.score_s)


def _memory_gb(study: Study, size: Size, lanes: int, largest: float) -> float:
    """GB at the peak: training, or the preparation of the largest scan."""
    part = -(-study.deepmts.batch_size // study.deepmts.accumulate)
    learning = part * STEP_GB * max(study.deepmts.width, 0.1) * (study.prepare.size / 128) ** 3
    return RUN_GB + PATIENT_GB * size.patients + lanes * (BASE_GB + max(learning, largest * VOXEL_GB))


def _disk_gb(study: Study, size: Size) -> float:
    """GB of the run folder: the network grid in single precision with its mask, PET and CT around it, and the rest."""
    edge = study.prepare.size * study.prepare.spacing_mm + 2 * study.prepare.margin_mm
    around = [sum(_cropped(scan.get(role), edge) * bytes_ for role, bytes_ in (("pet", 4), ("ct", 3)))
              for scan in size.scans]
    mean = sum(around) / len(around) if around else 0.0
    return size.patients * ((9 * study.prepare.size**3 + mean) / 1e9 + LEFT_GB)


def _voxels(scan: Mapping[str, Any]) -> float:
    """Voxels of a patient's PET and CT."""
    return sum(_cropped(scan.get(role), float("inf")) for role in ("pet", "ct"))


def _cropped(image: Any, edge_mm: float) -> float:
    """Voxels of an image in a cube of some edge; 0 where its size is not known."""
    if not image or "shape_zyx" not in image:
        return 0.0
    voxels = 1.0
    for n, mm in zip(image["shape_zyx"], image["spacing_zyx_mm"], strict=True):
        voxels *= min(float(n), edge_mm / mm)
    return voxels


def _room(cost: Cost, free_gb: float) -> str:
    return (f"  memory about {cost.memory_gb:.1f} GB, disk about {cost.disk_gb:.2g} GB of {free_gb:.0f} GB that are "
            "free")
