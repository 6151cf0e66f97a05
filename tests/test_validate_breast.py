"""A model developed on one public cohort and validated on another, against the figures that its authors printed.

Rotterdam (2982 patients) and the German Breast Cancer Study Group (686), relapse or death within five years, as in
McLernon, Giardiello, van Calster et al., Ann Intern Med 2023. The numbers below are those printed by R in the authors'
published worked example (survival, rms, timeROC, riskRegression), with all their digits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mtdlr.nomogram import Nomogram
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.terms import Factor, Spline
from mtdlr.stats.time_roc import auc_at
from mtdlr.survival import Survival
from mtdlr.validate import TableValidation, validate_table

Columns = Callable[[str], dict[str, list[str]]]
SIZES, GRADES, KNOTS = ("<=20", "20-50", ">50"), ("1-2", "3"), (0.0, 1.0, 9.0)
MONTH = 60.0
DAYS = 365.25 / 12.0
PRINTED = {"size=20-50": 0.34184, "size=>50": 0.57355, "nodes": 0.30397, "nodes'": -0.81117, "grade=3": 0.36171}
EQUATION = {"size=20-50": 0.342, "size=>50": 0.574, "nodes": 0.304, "nodes'": -0.811, "grade=3": 0.362}


def _within_five_years(months: np.ndarray, event: np.ndarray) -> Survival:
    return Survival(np.minimum(months, MONTH), event & (months <= MONTH))


def _rotterdam(columns: dict[str, list[str]]) -> tuple[pd.DataFrame, Survival]:
    """The development cohort; a patient who died later than the last look for a relapse is followed until death."""
    raw = pd.DataFrame(columns)
    days, recur, died = raw["rtime"].astype(float), raw["recur"] == "1", raw["death"] == "1"
    later = ~recur & died & (days < raw["dtime"].astype(float))
    days = days.where(~later, raw["dtime"].astype(float))
    table = pd.DataFrame({"size": raw["size"], "nodes": raw["nodes"].astype(float).clip(upper=19.0),
                          "grade": np.where(raw["grade"] == "3", "3", "1-2")})
    return table, _within_five_years(days.to_numpy() / DAYS, (recur | died).to_numpy())


def _gbsg(columns: dict[str, list[str]], *, cut: bool = True) -> tuple[pd.DataFrame, Survival]:
    """The validation cohort, by default cut at five years."""
    raw = pd.DataFrame(columns)
    size = pd.cut(raw["size"].astype(float), [-1, 20, 50, 500], labels=SIZES).astype(str)
    table = pd.DataFrame({"size": size, "nodes": raw["nodes"].astype(float).clip(upper=19.0),
                          "grade": np.where(raw["grade"] == "G3", "3", "1-2")})
    months, event = raw["time"].to_numpy(float), (raw["event"] == "1").to_numpy()
    return table, _within_five_years(months, event) if cut else Survival(months, event)


@pytest.fixture(scope="module")
def developed(reference_table: Columns) -> Nomogram:
    """The basic model, developed on Rotterdam."""
    table, surv = _rotterdam(reference_table("rotterdam.csv"))
    terms = [Factor("size", SIZES, SIZES[0]), Spline("nodes", KNOTS), Factor("grade", GRADES, GRADES[0])]
    return Nomogram.fit(table, surv, terms, [MONTH])


@pytest.fixture(scope="module")
def published() -> Nomogram:
    """The same model typed in from its published equation: five coefficients and survival at five years."""
    return Nomogram.from_coefficients(EQUATION, baseline_survival={MONTH: 0.804}, ranges={"nodes": (0.0, 19.0)},
                                      levels={"size": SIZES, "grade": GRADES}, knots={"nodes": KNOTS})


@pytest.fixture(scope="module", params=["data", "equation"])
def validated(request: pytest.FixtureRequest, developed: Nomogram, published: Nomogram, reference_table: Columns
              ) -> tuple[str, TableValidation]:
    """GBSG judged by the model developed on the data, and by its published equation."""
    model = developed if request.param == "data" else published
    return request.param, validate_table(model, *_gbsg(reference_table("gbsg.csv")))


def test_the_developed_model_is_the_published_one(developed: Nomogram, reference_table: Columns) -> None:
    """Fitted on 2982 patients, coefficients have the five printed digits, baseline survival the three."""
    table, _surv = _rotterdam(reference_table("rotterdam.csv"))
    assert len(table) == 2982
    found = dict(zip(developed.cox.names, developed.cox.coef.tolist(), strict=True))
    assert {name: round(value, 5) for name, value in found.items()} == PRINTED
    nobody = pd.DataFrame({"size": ["<=20"], "nodes": [0.0], "grade": ["1-2"]})
    assert round(float(developed.survival(nobody, [MONTH]).value[0, 0]), 3) == 0.804


def test_discrimination_is_as_printed(validated: tuple[str, TableValidation], reference_table: Columns) -> None:
    """Harrell's C .65 (.62-.69), Uno's C .64 (.60-.67), AUC at the authors' 4.99 years .68 (.62-.73)."""
    _, found = validated
    assert found.c is not None
    _, surv = _gbsg(reference_table("gbsg.csv"))
    auc = auc_at(found.risk.to_numpy(), surv, 4.99 * 12.0).auc
    for estimate, printed in ((found.c, (0.65, 0.62, 0.69)), (found.months[MONTH].uno, (0.64, 0.60, 0.67)),
                              (auc, (0.68, 0.62, 0.73))):
        assert tuple(round(value, 2) for value in (estimate.value, estimate.low, estimate.high)) == printed


def test_calibration_is_as_printed(validated: tuple[str, TableValidation]) -> None:
    """O/E 1.0173902, slope 1.0562040 (.8158872-1.2965207), ICI .03017958, E50 .02627822, E90 .07466548.

    O/E and slope have all seven digits; the curve has four: the authors' rms::cph stops before the maximum (below).
    """
    kind, found = validated
    judged = found.months[MONTH].calibration
    within = 1e-6 if kind == "data" else 2e-3  # the equation has three digits
    assert judged.oe.value == pytest.approx(1.0173902, abs=within)
    assert (judged.slope.value, judged.slope.low, judged.slope.high) == pytest.approx(
        (1.0562040, 0.8158872, 1.2965207), abs=within)
    assert (judged.ici, judged.e50, judged.e90) == pytest.approx((0.03017958, 0.02627822, 0.07466548),
                                                                 abs=max(within, 1e-4))


def test_the_curves_fifth_digit_is_where_the_authors_fit_stopped(
    developed: Nomogram, reference_table: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rms::cph stops once the likelihood gains less than 1e-4 of itself (eps), here after three Newton steps: stopped
    there, ICI, E50 and E90 have all printed digits. Ours are those of the maximum."""
    table, surv = _gbsg(reference_table("gbsg.csv"))
    predicted = developed.survival(table, [MONTH]).value[:, 0]
    whole = calibrate(predicted, surv, MONTH)
    assert (whole.ici, whole.e50, whole.e90) == pytest.approx((0.03012884, 0.02619962, 0.07459372), abs=1e-7)
    monkeypatch.setattr("mtdlr.stats.cox._MAX_ITERATIONS", 3)
    monkeypatch.setattr("mtdlr.stats.cox._STILL_STEP", np.inf)  # a last step that is long is what is asked for here
    stopped = calibrate(predicted, surv, MONTH)
    assert (stopped.ici, stopped.e50, stopped.e90) == pytest.approx((0.03017958, 0.02627822, 0.07466548), abs=1e-8)


def test_overall_error_is_as_printed(validated: tuple[str, TableValidation]) -> None:
    """Brier score .22 (.21-.24), scaled Brier score (IPA) .10."""
    brier = validated[1].months[MONTH].brier
    assert [round(value, 2) for value in (brier.score.value, brier.score.low, brier.score.high)] == [0.22, 0.21, 0.24]
    assert round(brier.ipa, 2) == 0.10


def test_follow_up_that_is_cut_at_the_horizon_loses_nobody(developed: Nomogram, reference_table: Columns) -> None:
    """Patients censored at the horizon are free of the event at it: AUC and Brier score are those of all follow-up."""
    cut, whole = (validate_table(developed, *_gbsg(reference_table("gbsg.csv"), cut=is_cut)).months[MONTH]
                  for is_cut in (True, False))
    for one, other in ((cut.auc.auc, whole.auc.auc), (cut.brier.score, whole.brier.score)):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)
    assert cut.brier.ipa == pytest.approx(whole.brier.ipa, abs=1e-9)
