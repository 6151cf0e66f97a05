"""Ids of the table against ids of the scans: which belong together, and which only look so.

Ids that differ by case, blanks, punctuation, padding or prefix are proposed as one patient. Nothing here joins them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mtdlr.cohort.cells import plain
from mtdlr.errors import Problem

_EXAMPLES = 3
_REMEDY = ("Make them equal on one side, or have `mtdlr init NEWFOLDER --images FOLDER --table TABLE` write a manifest "
           "with the table's ids, and look it over")


def propose_ids(table: Iterable[str], scans: Iterable[str]) -> dict[str, str]:
    """The scan's id for each id of the table that has none of its own but one that differs in spelling only.

    A pair is proposed where, so spelled, each of the two is the only one of its side.

    Args:
        table: ids of the clinical table.
        scans: ids of the scans.

    >>> propose_ids(["A-001", "A-002", "7"], ["a001", "A002", "sub-07", "sub-08"])
    {'A-001': 'a001', 'A-002': 'A002', '7': 'sub-07'}
    """
    table, scans = list(dict.fromkeys(table)), list(dict.fromkeys(scans))
    known = set(table) & set(scans)
    mine, theirs = [i for i in table if i not in known], [i for i in scans if i not in known]
    proposed: dict[str, str] = {}
    for spelling in (_bare, _unpadded, _without_prefix):
        ours, others = _alone(mine, spelling), _alone(theirs, spelling)
        found = {id_: others[key] for key, id_ in ours.items() if key in others}
        proposed |= found
        mine = [i for i in mine if i not in found]
        theirs = [i for i in theirs if i not in set(found.values())]
    return {i: proposed[i] for i in table if i in proposed}


def complain_of_ids(table: Sequence[str], scans: Sequence[str], proposed: dict[str, str]) -> list[Problem]:
    """E-IDS where ids of the table occur among the scans in another spelling, or none occurs at all.

    Args:
        table: ids of the clinical table.
        scans: ids of the scans.
        proposed: of `propose_ids`.
    """
    none_in_common = bool(table and scans) and not set(table) & set(scans)
    if not proposed and not none_in_common:
        return []
    pairs = list(proposed.items()) or list(zip(sorted(set(table)), sorted(set(scans)), strict=False))
    shown = ", ".join(f"{a!r} against {b!r}" for a, b in pairs[:_EXAMPLES])
    shown += f" and {len(pairs) - _EXAMPLES} more" if proposed and len(pairs) > _EXAMPLES else ""
    if none_in_common:
        counts = f"{len(set(table))} in the table, {len(set(scans))} in the scans"
        return [Problem("E-IDS", "no patient id of the table occurs among the scans",
                        patients=tuple(dict.fromkeys(table)), found=f"{counts}, none in common: {shown}",
                        remedy=_REMEDY)]
    return [Problem("E-IDS", "these ids of the table occur among the scans in another spelling only",
                    patients=tuple(proposed), found=shown, remedy=_REMEDY)]


def _alone(ids: Iterable[str], spelling: Callable[[str], str]) -> dict[str, str]:
    """Ids by their spelling, those left out that are spelled as another is."""
    found: dict[str, list[str]] = {}
    for id_ in ids:
        found.setdefault(spelling(id_), []).append(id_)
    return {key: same[0] for key, same in found.items() if key and len(same) == 1}


def _bare(id_: str) -> str:
    return re.sub(r"[\W_]", "", plain(id_))


def _unpadded(id_: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", _bare(id_))


def _without_prefix(id_: str) -> str:
    """The id's figures, runs of them apart; nothing for an id without any."""
    return "-".join(run.lstrip("0") or "0" for run in re.findall(r"\d+", id_))
