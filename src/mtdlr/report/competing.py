"""Competing risks in the report: Table 11, Figure 8 and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from mtdlr.evaluate.competing import CompetingRisks
from mtdlr.report.figures import Panel, incidence_panels
from mtdlr.report.numbers import estimate_numbers
from mtdlr.report.tables import SPLIT_LABELS, Table, estimate_text, p_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def competing_table(found: Sequence[CompetingRisks]) -> Table:
    """Table 11: cumulative incidence of each cause by risk group and horizon, and Gray's test.

    Args:
        found: of one model, by cohort and cause; none without causes, and then the table has no rows.
    """
    months = list(found[0].incidence["All"]) if found else []
    rows = tuple((SPLIT_LABELS[one.split].split()[0], one.cause, group, str(int(curve.at_risk[0])),
                  str(int(curve.events.sum())), str(int(curve.competing.sum())),
                  *(estimate_text(one.incidence[group][month]) for month in months),
                  p_text(one.gray_p) if group == "High risk" else "-")
                 for one in found for group, curve in one.curves.items())
    return Table(11, "Cumulative incidence with competing events", (
        "Cohort", "Cause", "Group", "Patients", "Failures from it", "From other causes",
        *(f"Incidence at {month:g} months (95% CI)" for month in months), "P (Gray)"), rows, (
        "Aalen-Johansen estimate with log-log interval; P by Gray's test of the risk groups. The hazard ratios of all "
        "other tables are cause-specific. A competing event ends the follow-up there, so that 1 - Kaplan-Meier, and "
        "every probability of the nomogram, is that of a patient who cannot have a competing event, and is too high "
        "for a patient who can.",))


def competing_figures(found: Sequence[CompetingRisks]) -> dict[str, tuple[str, Figure]]:
    """Figure 8 with its caption, by name: cumulative incidence of each cause by risk group and cohort.

    Args:
        found: as of `competing_table`; without any there is no figure.
    """
    if not found:
        return {}
    panels: dict[str, dict[str, Panel]] = {}
    for one in found:
        groups = {name: curve for name, curve in one.curves.items() if name != "All" or len(one.curves) == 1}
        panels.setdefault(one.cause, {})[SPLIT_LABELS[one.split]] = Panel(
            groups, one.gray_p if len(groups) > 1 else None, test="Gray")
    causes = ", ".join(name.lower() for name in panels)
    return {"8": (f"Cumulative incidence (Aalen-Johansen) of each cause of failure (rows: {causes}) by risk group in "
                  "every cohort (columns), with 95 % intervals and Gray's test. A curve ends where fewer than five "
                  "patients are at risk.", incidence_panels(panels))}


def competing_numbers(one: CompetingRisks) -> dict[str, Any]:
    """The numbers of one cause in one cohort as plain JSON values; None for what could not be computed.

    Args:
        one: of `competing_risks`.
    """
    return {"model": one.model, "cohort": one.split, "cause": one.cause, "n": one.n, "events": one.events,
            "competing": one.competing,
            "gray_p": one.gray_p if isfinite(one.gray_p) else None,
            "incidence": {group: {f"{month:g}": estimate_numbers(e) for month, e in by_month.items()}
                          for group, by_month in one.incidence.items()}}
