"""What a Cox model loses without each of its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtdlr.stats.checks import aligned, follow_up
from mtdlr.stats.cox import CoxFit, Ties, fit_cox
from mtdlr.stats.cox_rows import Cases
from mtdlr.stats.inference import Test, chi_square_test
from mtdlr.stats.terms import Columns, Design, Interaction, Term
from mtdlr.survival import Survival


@dataclass(frozen=True)
class WithoutTerm:
    """A Cox model without one of its terms.

    Args:
        aic: Akaike's criterion of the smaller model; lower is better.
        test: likelihood-ratio test of the term, beside the others.
    """

    aic: float
    test: Test


def drop1(
    table: Columns, surv: Survival, terms: Sequence[Term], *, ties: Ties = "efron", cases: Cases | None = None
) -> dict[str, WithoutTerm]:
    """The Cox model of `terms` without each term in turn (R: drop1(coxph(...), test = "Chisq")).

    A term that stands in an interaction is not dropped alone. Columns without events, or given by others, count no
    degree of freedom.

    Args:
        table: n rows by column name; a data frame is matched to `surv` by its index.
        surv: follow-up of the same n patients.
        terms: the terms of the whole model.
        ties: as in `fit_cox`.
        cases: as in `fit_cox`.

    Returns:
        By the term's label: AIC without it, and its likelihood-ratio test.

    Raises:
        FitError: as `Design.matrix` and `fit_cox`.

    >>> from mtdlr.stats.terms import Continuous
    >>> surv = Survival([1.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 1, 1, 0])
    >>> found = drop1({"a": [3.0, 1.0, 2.0, 0.0, 1.0], "b": [0.0, 1.0, 0.0, 1.0, 1.0]}, surv,
    ...               [Continuous("a"), Continuous("b")])
    >>> round(found["a"].test.statistic, 2), found["a"].test.df
    (0.4, 1.0)
    """
    design = Design(tuple(terms))
    x = design.matrix(aligned(table, follow_up(surv)))

    def fitted(columns: list[int]) -> CoxFit | None:
        names = [design.columns[j] for j in columns]
        return fit_cox(x[:, columns], surv, names=names, ties=ties, cases=cases) if columns else None

    whole = fitted(list(range(x.shape[1])))
    assert whole is not None
    bound = {part for term in design.terms if isinstance(term, Interaction) for part in (term.a, term.b)}
    found = {}
    for term, (label, block) in zip(design.terms, design.slices.items(), strict=True):
        if term in bound:
            continue
        rest = fitted(np.delete(np.arange(x.shape[1]), block).tolist())
        loglik, df = (whole.loglik_null, 0) if rest is None else (rest.loglik, rest.df)
        found[label] = WithoutTerm(2.0 * df - 2.0 * loglik,
                                   chi_square_test(2.0 * (whole.loglik - loglik), whole.df - df))
    return found
