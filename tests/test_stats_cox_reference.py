"""Cox models against R's survival and rms."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mtdlr.stats import (
    Continuous,
    Design,
    Factor,
    Interaction,
    Spline,
    cox_residuals,
    fit_cox,
    harrell_knots,
    proportional_hazards_test,
)

TIES = ("efron", "breslow")


def _terms(names, levels):
    return tuple(Factor(n, tuple(levels[n]), levels[n][0]) if n in levels else Continuous(n) for n in names)


def _design(reference, names):
    design = Design(_terms(names, reference.numbers("cox")["levels"]))
    return design, design.matrix(reference.columns)


def _listed(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("ties", TIES)
def test_multivariable_model_is_coxph(reference, agrees, ties):
    """Coefficients, standard errors, covariance, intervals, log likelihoods and all four tests are coxph's."""
    numbers = reference.numbers("cox")
    r = numbers[ties]["multivariate"]
    design, x = _design(reference, _listed(numbers["multi_terms"]))
    fit = fit_cox(x, reference.surv, names=design.columns, ties=ties)
    ratios = fit.hazard_ratios().values()
    agrees("Cox coefficient", "coxph", fit.coef, r["coef"])
    agrees("Cox standard error, covariance", "coxph", np.append(fit.se, fit.covariance),
           [*r["se"], *np.ravel(r["vcov"])])
    agrees("Cox hazard ratio, interval and p", "coxph", [(e.value, e.low, e.high, e.p) for e in ratios],
           np.column_stack([r["hr"], r["ci_lower"], r["ci_upper"], r["p"]]))
    agrees("Cox log likelihood", "coxph", [fit.loglik_null, fit.loglik], r["loglik"])
    whole = (("likelihood-ratio", fit.likelihood_ratio, r["lrt"]), ("score", fit.score_test, r["score"]))
    for name, test, theirs in whole:
        agrees(f"Cox {name} test", "coxph", [test.statistic, test.df, test.p], theirs)
    for term in r["term_wald"]:
        test = fit.wald(design.slices[term["term"]])
        agrees("Wald test of a term", "coxph", [test.statistic, test.df, test.p], [term["wald"], term["df"], term["p"]])
    assert fit.converged and fit.df == len(design.columns) and fit.n_events == r["nevent"]


@pytest.mark.parametrize("ties", TIES)
def test_univariable_models_are_coxph(reference, agrees, ties):
    """Every variable alone; a column without events is named, has no hazard ratio, and counts in the Wald test."""
    for name, r in reference.numbers("cox")[ties]["univariate"].items():
        design, x = _design(reference, [name])
        fit = fit_cox(x, reference.surv, names=design.columns, ties=ties)
        theirs = np.ravel(np.array(r["coef"], dtype=object)).astype(float)  # null is NA in R: a level nobody has
        finite = [j for j, column in enumerate(fit.names) if column not in (*fit.monotone, *fit.dropped)]
        assert [column in fit.monotone for column in fit.names] == (np.abs(theirs) > 15).tolist()
        assert [column in fit.dropped for column in fit.names] == np.isnan(theirs).tolist()
        assert all(np.isnan(fit.hazard_ratios()[column].value) for column in fit.monotone)
        agrees("Cox coefficient", "coxph", fit.coef[finite], theirs[finite])
        agrees("Cox log likelihood", "coxph", [fit.loglik_null, fit.loglik], r["loglik"])
        agrees("Wald test of a term", "coxph", fit.wald().df, r["term_wald"][0]["df"])
        if not fit.monotone:
            agrees("Wald test of a term", "coxph", fit.wald().p, r["term_wald"][0]["p"])
        else:  # where each stops on its way to infinity differs
            agrees("Wald test of a term with eventless levels", "coxph", fit.wald().p, r["term_wald"][0]["p"],
                   within=1e-6)


@pytest.mark.parametrize("ties", TIES)
def test_baseline_hazard_is_survfit(reference, agrees, ties):
    """The cumulative hazard at x = 0, predicted survival and the linear predictor are R's, ties as in the fit."""
    numbers = reference.numbers("cox")
    r = numbers[ties]
    design, x = _design(reference, _listed(numbers["multi_terms"]))
    fit = fit_cox(x, reference.surv, names=design.columns, ties=ties)
    at = np.searchsorted(fit.baseline.time_months, r["basehaz_uncentered"]["time"], side="right")
    ours = np.append(0.0, fit.cumulative_hazard)[at]
    agrees("baseline cumulative hazard", "basehaz", ours, r["basehaz_uncentered"]["cumhaz"])
    months = r["pred_surv_first10_rows_at_horizons"]["horizons"]
    predicted = r["pred_surv_first10_rows_at_horizons"]["surv"]
    agrees("predicted survival", "survfit.coxph", fit.survival(x[:10], months).T, predicted)
    agrees("linear predictor", "predict.coxph", fit.log_hazard(x[:10]), r["lp_uncentered_first10"])


@pytest.mark.parametrize("ties", TIES)
def test_residuals_are_coxph(reference, agrees, ties):
    """Martingale and deviance residuals are residuals.coxph's."""
    numbers = reference.numbers("cox")
    design, x = _design(reference, _listed(numbers["multi_terms"]))
    fit = fit_cox(x, reference.surv, names=design.columns, ties=ties)
    ours, r = cox_residuals(fit, x, reference.surv), numbers[ties]["residuals_first10"]
    agrees("martingale residual", "residuals.coxph", ours.martingale[:10], r["martingale"])
    agrees("deviance residual", "residuals.coxph", ours.deviance[:10], r["deviance"])


@pytest.mark.parametrize("transform", ("km", "identity", "rank", "log"))
def test_proportional_hazards_test_is_cox_zph(reference, agrees, transform):
    """The score test of each term and of all, on each time scale, is cox.zph's of survival >= 3."""
    r = reference.numbers("zph")[transform]
    design, x = _design(reference, _listed(reference.numbers("cox")["multi_terms"]))
    fit = fit_cox(x, reference.surv, names=design.columns)
    ours = proportional_hazards_test(fit, x, reference.surv, transform=transform, terms=design.slices)
    assert list(ours) == r["term"]
    agrees("proportional hazards test", "cox.zph", [(t.statistic, t.df, t.p) for t in ours.values()],
           np.column_stack([r["chisq"], r["df"], r["p"]]))


def _parsed(formula, reference, levels):
    """Terms of an rms formula of rcs(), factors, numbers and one product."""
    terms, products = [], []
    for part in (piece.strip() for piece in formula.split("~")[1].split("+")):
        spline = re.fullmatch(r"rcs\((\w+), (\d)\)", part)
        if spline:
            values = np.array(reference.columns[spline[1]], dtype=float)
            terms.append(Spline(spline[1], harrell_knots(values, int(spline[2]))))
        elif "*" in part:
            a, b = _terms([name.strip() for name in part.split("*")], levels)
            terms += [a, b]
            products.append(Interaction(a, b))
        else:
            terms += _terms([part], levels)
    return Design((*terms, *products))


def test_splines_and_interactions_are_cph(reference, agrees):
    """Knots, column names, coefficients, likelihood ratio and linear predictor of rcs() and `*` are rms::cph's."""
    r = reference.numbers("splines")
    design = _parsed(r["formula"], reference, reference.numbers("cox")["levels"])
    x = design.matrix(reference.columns)
    fit = fit_cox(x, reference.surv, names=design.columns)
    for term in design.terms:
        if isinstance(term, Spline):
            agrees("spline knots", "rcspline.eval", term.knots, r["fit"]["knots"][term.name])
    assert list(design.columns) == r["fit"]["names"]
    # cph stops when the log likelihood changes by less than 1e-9 of itself; ours has gone on
    agrees("Cox model with splines", "cph", fit.coef / np.maximum(1, np.abs(fit.coef)),
           r["fit"]["coef"] / np.maximum(1, np.abs(r["fit"]["coef"])), within=2e-6)
    agrees("likelihood ratio with splines", "cph", fit.likelihood_ratio.statistic, r["fit"]["stats"]["Model L.R."])
    agrees("linear predictor with splines", "cph", fit.log_hazard(x[:10]) - fit.center,
           r["fit"]["linear_predictor_first10"], within=2e-6)
