"""The stages of a run in order, and its parts: shards of patients and folds, which machines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtdlr.errors import MtdlrError, Problem, StudyError
from mtdlr.store import digest, without_paths
from mtdlr.study import Study

SHARDS = "shards.json"
STEPS = {"cohort": "cohort", "prepare": "prepared", "train": "networks", "score": "scored", "radiomics": "features",
         "signature": "signatures", "model": "model", "report": "report", "bundle": "bundle"}
"""Every stage in order, and the property of `pipeline.Run` that does it: the names of `--until`, `status`, progress."""


@dataclass(frozen=True)
class Shard:
    """A part of a run that other machines share: every n-th patient, or the networks of one fold.

    Args:
        number, of: patients number, number + of, ... (from 1); None for a fold's part.
        fold: the fold whose networks are trained; None for a patients' part.
    """

    number: int | None = None
    of: int = 1
    fold: int | None = None

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of `3/20`.

        Raises:
            StudyError: E-SHARD for anything else, and for a number outside 1 to n.

        >>> Shard.parse("3/20").mine(["a", "b", "c", "d"])
        {'c'}
        """
        number, _, of = text.partition("/")
        if not (number.strip().isdigit() and of.strip().isdigit() and 1 <= int(number) <= int(of)):
            raise StudyError(Problem("E-SHARD", "there is no such shard", found=text,
                                     expected="i/n with i from 1 to n, e.g. 3/20"))
        return cls(int(number), int(of))

    def mine(self, ids: Sequence[str]) -> set[str]:
        """The patients of this part."""
        return set() if self.number is None else set(sorted(ids)[self.number - 1 :: self.of])


def require_part(shard: Shard | None, stage: str, study: Study | None = None) -> str:
    """The stage, if there is such a one and it can be done in these parts.

    Args:
        shard: the part; None for the whole.
        stage: a name of `STEPS`.
        study: its settings, if they are known.

    Raises:
        StudyError: E-STAGENAME; E-SHARD; E-TEMPLATE for a model that needs a patient's scan and cannot leave.
    """
    if stage not in STEPS:
        raise StudyError(Problem("E-STAGENAME", "no such stage", found=stage, expected=", ".join(STEPS)))
    if stage == "bundle" and study is not None and study.prepare.roi == "template":
        raise StudyError(Problem("E-TEMPLATE", "a model that needs a patient's scan as a template cannot be given away",
                                 where="prepare.roi", found="template", expected="auto, center, mask or box",
                                 remedy="Take prepare.roi = \"auto\", or run with --until report"))
    if shard is None or stage in (("prepare", "score", "radiomics") if shard.fold is None else ("train",)):
        return stage
    raise StudyError(Problem("E-SHARD", "this stage cannot be done in parts", found=stage,
                             expected="prepare, score or radiomics with --shard, train with --fold"))


def agree_on_settings(root: Path, values: Mapping[str, Any], shard: Shard | None) -> None:
    """Let shards of one store work on one study only; a whole run starts afresh.

    Args:
        root: the run folder.
        values: the study's settings; paths in them do not count.
        shard: which part this process does; None for a whole run.

    Raises:
        StudyError: E-OTHERSHARDS where shards with other settings are under way in the folder.
    """
    path, settings = root / SHARDS, digest(without_paths(values))
    if shard is None:
        path.unlink(missing_ok=True)
        return
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(settings)
    except FileExistsError:
        there = path.read_text(encoding="utf-8")
        if there and there != settings:
            raise StudyError(Problem("E-OTHERSHARDS", "shards with other settings work in this run folder",
                                     where=str(root), remedy="Give every shard the same study file and settings; to "
                                     "begin with new ones, run once without --shard and --fold")) from None


def of_fold(work: Sequence[Any], fold: int) -> list[Any]:
    """The trainings of one fold.

    Args:
        work: the trainings of all folds.
        fold: number of the fold, from 0.

    Raises:
        StudyError: E-FOLD where there is none.
    """
    found = [job for job in work if job.fold == fold]
    if not found:
        raise StudyError(Problem("E-FOLD", "there is no such fold", found=str(fold),
                                 expected=f"0 to {max(job.fold for job in work)}"))
    return found


def require_all(missing: Sequence[str], stage: str) -> None:
    """Refuse to go on from a stage that other shards have not finished.

    Args:
        missing: ids of what is not there.
        stage: the stage that makes it.

    Raises:
        MtdlrError: E-NOTREADY when something is missing.
    """
    if missing:
        whom = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise MtdlrError(Problem("E-NOTREADY", "results that this part needs are not there yet", where=f"stage {stage}",
                                 found=whom, remedy=f"Run --until {stage} first, in shards or whole"))
