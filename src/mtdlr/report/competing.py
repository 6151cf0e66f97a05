"""Competing risks in the report: Table 11 and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from mtdlr.evaluate.competing import CompetingRisks
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text


def competing_table(found: Sequence[CompetingRisks]) -> Table:
    """Table 11: cumulative incidence of the event by risk group and horizon, and Gray's test.

    Args:
        found: of one model, by cohort; none without causes, and then the table has no rows.
    """
    months = list(found[0].incidence["All"]) if found else []
    rows = tuple((SPLIT_LABELS[one.split].split()[0], group, str(int(curve.at_risk[0])), str(int(curve.events.sum())),
                  str(int(curve.competing.sum())), *(estimate_text(one.incidence[group][month]) for month in months),
                  p_text(one.gray_p) if group == "High risk" else "-")
                 for one in found for group, curve in one.curves.items())
    return Table(11, "Cumulative incidence with competing events", (
        "Cohort", "Group", "Patients", "Events", "Competing events",
        *(f"Incidence at {month:g} months (95% CI)" for month in months), "P (Gray)"), rows, (
        "Aalen-Johansen estimate with log-log interval; P by Gray's test of the risk groups. The hazard ratios of all "
        "other tables are cause-specific. A competing event ends the follow-up there, so that 1 - Kaplan-Meier, and "
        "every probability of the nomogram, is that of a patient who cannot have a competing event, and is too high "
        "for a patient who can.",))


def competing_numbers(one: CompetingRisks) -> dict[str, Any]:
    """The numbers of one cohort as plain JSON values; None for what could not be computed.

    Args:
        one: of `competing_risks`.
    """
    return {"model": one.model, "cohort": one.split, "n": one.n, "events": one.events, "competing": one.competing,
            "gray_p": one.gray_p if isfinite(one.gray_p) else None,
            "incidence": {group: {f"{month:g}": estimate_numbers(e) for month, e in by_month.items()}
                          for group, by_month in one.incidence.items()}}
