"""The clinical values of one patient, as a nomogram needs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mtdlr.errors import Problem, TableError
from mtdlr.nomogram.model import Nomogram
from mtdlr.stats.terms import Continuous, Factor, Interaction, Spline


def clinical_values(nomogram: Nomogram, covariates: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The clinical values that a nomogram needs, spelled as it knows them.

    Args:
        nomogram: the fitted model.
        covariates: the names of its variables that are clinical; the others are scores.
        given: values by name, as a person typed them.

    Raises:
        TableError: E-CLINICAL for every value that is missing, is no number, or is a level that the nomogram has not
            seen, and for every name that it does not use.
    """
    terms = {term.name: term for term in nomogram.design.terms
             if not isinstance(term, Interaction) and term.name in covariates}
    problems = [_unused(name, given[name], terms) for name in given if name not in terms]
    values: dict[str, Any] = {}
    for name, term in terms.items():
        try:
            values[name] = _clinical_value(term, str(given.get(name, "")).strip())
        except TableError as error:
            problems += error.problems
    if problems:
        raise TableError(problems)
    return values


def _clinical_value(term: Factor | Continuous | Spline, given: str) -> Any:
    """One clinical value as the nomogram knows it.

    Raises:
        TableError: E-CLINICAL.
    """
    if isinstance(term, Factor):
        levels = {level.lower(): level for level in term.levels}
        if given.lower() in levels:
            return levels[given.lower()]
        expected, example = " or ".join(levels.values()), term.levels[0]
    else:
        expected, example = "a number", "50"
        try:
            number = float(given.replace(",", "."))
            if np.isfinite(number):
                return number
        except ValueError:
            pass
    raise TableError(Problem("E-CLINICAL", "the model needs this clinical value", where=term.name,
                             found=repr(given) if given else "nothing", expected=expected,
                             remedy=f"--clinical {term.name}={example}"))


def _unused(name: str, value: Any, terms: Mapping[str, Any]) -> Problem:
    """The error for a clinical value that the nomogram does not use."""
    return Problem("E-CLINICAL", "the model does not use this clinical value", where=name, found=repr(value),
                   expected=", ".join(terms) or "no clinical value")
