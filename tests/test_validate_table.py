"""A received nomogram on another centre's table: against other packages, by centre, updated, and with bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import CohortError, FitError
from mtdlr.nomogram import Nomogram
from mtdlr.stats.concordance import concordance
from mtdlr.stats.terms import Continuous, Factor
from mtdlr.survival import Survival
from mtdlr.synthetic.truth import simulate_cohort
from mtdlr.validate import numbers, update_nomogram, update_numbers, validate_table

GBSG = Path(__file__).parents[2] / "shared" / "reference" / "gbsg.csv"
TERMS = (Factor("tnm_stage", ("III", "IVa"), "III"), Continuous("auto_radio"), Continuous("deepmts"))


def _scored(split: str, n: int, seed: int) -> tuple[pd.DataFrame, Survival]:
    """A synthetic cohort with scores made of parts of the truth and noise."""
    rng = np.random.default_rng([seed, n])
    clinical, truth = simulate_cohort(split, n, rng)
    inside = truth["volume"] + truth["heterogeneity"]
    table = clinical.assign(auto_radio=inside + 0.8 * rng.standard_normal(n),
                            deepmts=inside + truth["invasion"] + truth["nodes"] + rng.standard_normal(n))
    return table, Survival(clinical["time_months"].to_numpy(float), clinical["event"].to_numpy(bool))


@pytest.fixture(scope="module")
def received() -> Nomogram:
    """A nomogram developed on 522 synthetic patients."""
    table, surv = _scored("training", 522, 1)
    return Nomogram.fit(table, surv, TERMS, [36, 60])


@pytest.fixture(scope="module")
def second_centre() -> tuple[pd.DataFrame, Survival]:
    """400 patients of the second hospital."""
    return _scored("external", 400, 2)


def test_numbers_equal_scikit_survival_and_lifelines(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """C, Uno's C, AUC and Brier score are scikit-survival's, slope and observed risk those of lifelines."""
    metrics, util = pytest.importorskip("sksurv.metrics"), pytest.importorskip("sksurv.util")
    lifelines = pytest.importorskip("lifelines")
    table, surv = second_centre
    found = validate_table(received, table, surv).months[36.0]
    whole = validate_table(received, table, surv)
    risk, survival = whole.risk.to_numpy(), whole.survival[36.0].to_numpy()
    truth = util.Surv.from_arrays(surv.event, surv.time_months)
    assert whole.c is not None
    assert whole.c.value == pytest.approx(metrics.concordance_index_censored(surv.event, surv.time_months, risk)[0])
    assert found.uno.value == pytest.approx(metrics.concordance_index_ipcw(truth, truth, risk, tau=36)[0], abs=1e-4)
    auc = metrics.cumulative_dynamic_auc(truth, truth, risk, 36.0)[0][0]
    assert found.auc.auc.value == pytest.approx(auc, abs=1e-4)
    theirs = metrics.brier_score(truth, truth, survival[:, None], 36.0)[1][0]
    assert found.brier.score.value == pytest.approx(theirs, abs=1e-4)
    km = lifelines.KaplanMeierFitter().fit(surv.time_months, surv.event)
    assert found.calibration.oe.value == pytest.approx((1 - km.predict(36.0)) / (1 - survival.mean()))
    frame = pd.DataFrame({"risk": risk, "t": surv.time_months, "e": surv.event})
    slope = lifelines.CoxPHFitter().fit(frame, "t", "e").params_["risk"]
    assert found.calibration.slope.value == pytest.approx(slope, rel=1e-5)


def test_a_published_equation_gives_what_the_fit_gives(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """A model typed in from its coefficients and baseline survival is judged as the fitted model itself, to 1e-9."""
    cox = received.cox
    typed = Nomogram.from_coefficients(
        dict(zip(cox.names, cox.coef.tolist(), strict=True)), levels={"tnm_stage": ("III", "IVa")},
        baseline_survival={m: float(np.exp(-received.baseline_hazard(m))) for m in (36.0, 60.0)},
        ranges={"auto_radio": (-4, 4), "deepmts": (-6, 6)}, baseline_log_hazard=cox.center)
    table, surv = second_centre
    for month in (36.0, 60.0):
        a, b = (validate_table(model, table, surv).months[month] for model in (received, typed))
        for left, right in ((a.calibration.oe, b.calibration.oe), (a.calibration.slope, b.calibration.slope),
                            (a.uno, b.uno), (a.auc.auc, b.auc.auc), (a.brier.score, b.brier.score)):
            assert right.value == pytest.approx(left.value, rel=1e-9)
        assert (b.calibration.ici, b.calibration.e50, b.calibration.e90, b.brier.ipa) == pytest.approx(
            (a.calibration.ici, a.calibration.e50, a.calibration.e90, a.brier.ipa), rel=1e-6)


@pytest.mark.skipif(not GBSG.exists(), reason="the public breast-cancer cohort is not here")
def test_breast_cancer_model_with_splines_is_validated_on_other_patients() -> None:
    """A Cox model with a spline, developed on one half of GBSG, has every number on the other half."""
    table = pd.read_csv(GBSG)
    surv = Survival(table["time"].to_numpy(float), table["event"].to_numpy(bool))
    half = np.arange(len(table)) % 2 == 0
    model = Nomogram.fit(table[half], surv.take(half), ["age", "grade", "nodes", "hormon"], [36, 60])
    found = numbers(validate_table(model, table[~half], surv.take(~half), months=[36]))
    assert found["n"] == 343 and 0.6 < found["c"]["value"] < 0.75
    at = found["months"]["36"]
    assert all(at[name] is not None for name in ("ici", "e50", "e90", "ipa"))
    assert at["e50"] <= at["e90"] and at["auc"]["low"] < at["auc"]["value"] < at["auc"]["high"]


def test_order_of_patients_does_not_matter(received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]) -> None:
    """A shuffled cohort gives the same numbers to 1e-9."""
    table, surv = second_centre
    order = np.random.default_rng(0).permutation(len(table))
    a = numbers(validate_table(received, table, surv, centers=["B", "C"] * 200))
    b = numbers(validate_table(received, table.iloc[order], surv.take(order),
                               centers=list(np.array(["B", "C"] * 200)[order])))
    assert json.loads(json.dumps(a), parse_float=lambda x: round(float(x), 9)) == \
        json.loads(json.dumps(b), parse_float=lambda x: round(float(x), 9))


def test_a_removed_patient_changes_no_other_patients_risk(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """Risk and predicted survival of the others stay the same to the last bit."""
    table, surv = second_centre
    rest = np.arange(len(table)) != 7
    whole, part = validate_table(received, table, surv), validate_table(received, table[rest], surv.take(rest))
    pd.testing.assert_series_equal(whole.risk.drop(table.index[7]), part.risk, check_exact=True)
    pd.testing.assert_frame_equal(whole.survival.drop(table.index[7]), part.survival, check_exact=True)


def test_centres_are_shown_and_pooled(received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]) -> None:
    """Each centre has its row; C, O/E and slope are pooled over them, and one centre alone is not."""
    table, surv = second_centre
    found = validate_table(received, table, surv, centers=["B", "C", "D", "E"] * 100)
    assert [c.n for c in found.centers] == [100] * 4 and set(found.pooled) == {"c", "oe", "slope"}
    values = [c.c.value for c in found.centers]
    assert min(values) < found.pooled["c"].value.value < max(values)
    assert validate_table(received, table, surv, centers=["B"] * 400).centers == ()


def test_risk_groups_follow_the_frozen_cutoff(received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]) -> None:
    """High risk is at or above the cut-off that was frozen; without one there are no groups."""
    table, surv = second_centre
    found = validate_table(received, table, surv, cutoff=1.0)
    assert found.high is not None and found.groups_hr is not None
    np.testing.assert_array_equal(found.high, found.risk.to_numpy() >= 1.0)
    assert found.groups_hr.value > 1.5
    assert validate_table(received, table, surv).groups_hr is None


def test_baseline_update_mends_oe_and_leaves_c(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """On patients left out of the update O/E is within .9 to 1.1, and the C-index is unchanged to the last bit."""
    table, surv = second_centre
    found = update_nomogram(received, table, surv, "baseline", month=60, resamples=20)
    assert 0.9 < found.cross_validated["baseline"].oe < 1.1
    before, after = (concordance(model.log_hazard(table), surv).c for model in (received, found.nomogram))
    assert before == after
    assert found.cross_validated["baseline"].c == before.value
    assert json.dumps(update_numbers(found))


def test_slope_update_and_what_a_refit_is_worth(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """The slope of left-out patients is within .85 to 1.15; a refit below 100 events is warned of."""
    table, surv = second_centre
    found = update_nomogram(received, table, surv, "refit", month=60, resamples=20)
    assert 0.85 < found.cross_validated["slope"].slope < 1.15
    codes = [p.code for p in found.problems]
    gains = {name: judged.ipa for name, judged in found.cross_validated.items()}
    assert "W-UPDATEEVENTS" in codes
    assert ("W-UPDATEWORSE" in codes) == (gains["refit"] <= max(gains["baseline"], gains["slope"]))
    assert ("W-UPDATEMORE" in codes) == (found.test.chosen != "refit")


def test_the_received_model_is_not_changed(received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]) -> None:
    """An update is a new nomogram."""
    before = received.to_json()
    updated = update_nomogram(received, *second_centre, "slope", month=60, resamples=5).nomogram
    assert received.to_json() == before and updated.to_json() != before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_small_centre_can_be_updated(received: Nomogram, seed: int) -> None:
    """Forty patients, few events: resamples whose follow-up ends too early are left out of the optimism."""
    rng = np.random.default_rng(seed)
    nomogram, (table, _) = received, _scored("external", 40, seed)
    months = np.minimum(rng.exponential(150.0, 40), rng.uniform(20.0, 61.0, 40))
    event = rng.random(40) < 0.25
    event[:6] = True
    for method in ("baseline", "slope"):
        found = update_nomogram(nomogram, table, Survival(months, event), method, resamples=30)
        assert found.optimism.resamples + found.optimism.failed == 30


def test_without_events_there_are_scores_alone(
    received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]
) -> None:
    """A cohort without an event has risks and no performance, and says so."""
    table, surv = second_centre
    found = validate_table(received, table, Survival(surv.time_months, np.zeros(400, bool)), centers=["B", "C"] * 200)
    assert found.c is None and found.months == {} and len(found.risk) == 400
    assert "W-NOEVENTS" in [p.code for p in found.problems]


def test_one_patient_of_one_centre_is_no_crash(received: Nomogram) -> None:
    """One patient has a risk; what cannot be computed is nan or absent."""
    table, _ = _scored("external", 30, 5)
    found = validate_table(received, table.head(1), Survival([20.0], [1]), centers=["C"])
    assert found.n == 1 and np.isfinite(found.risk.iloc[0]) and json.dumps(numbers(found))


def test_bad_tables_are_named(received: Nomogram, second_centre: tuple[pd.DataFrame, Survival]) -> None:
    """A missing column is an error; missing cells, unseen levels and days are warnings, and the others are judged."""
    table, surv = second_centre
    with pytest.raises(FitError, match="E-COLUMN column deepmts"):
        validate_table(received, table.drop(columns="deepmts"), surv)
    mixed = table.assign(tnm_stage=["II"] * 3 + list(table["tnm_stage"][3:]),
                         deepmts=[np.nan] * 5 + list(table["deepmts"][5:]))
    found = validate_table(received, mixed, surv)
    assert found.n == 395 and {p.code for p in found.problems} >= {"W-NEWLEVEL", "W-NOCOVARIATE"}
    days = validate_table(received, table, Survival(surv.time_months * 30.4, surv.event))
    assert "W-TIMEUNIT" in [p.code for p in days.problems]
    with pytest.raises(CohortError, match="E-NOPATIENTS"):
        validate_table(received, table.assign(deepmts=np.nan), surv)


def test_an_update_is_judged_where_left_out_patients_can_be(received: Nomogram) -> None:
    """Two patients followed to the last horizon carry no judgement of ten folds: the horizon before it is taken, and
    its figures are numbers. What few cases or controls make of an AUC is said."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"tnm_stage": rng.choice(["III", "IVa"], 40), "auto_radio": rng.normal(size=40),
                          "deepmts": rng.normal(size=40)})
    last = max(received.months)
    time = np.where(np.arange(40) < 2, last + 5.0, rng.uniform(20.0, last - 1.0, 40))
    surv = Survival(time, (np.arange(40) % 2 == 0) & (time < last))
    found = update_nomogram(received, table, surv, "baseline", resamples=10)
    assert found.month == min(received.months)
    assert np.isfinite([found.cross_validated["baseline"].oe, found.cross_validated["slope"].slope]).all()
    judged = validate_table(received, table, surv)
    assert [p.where for p in judged.problems if p.code == "W-FEWEVENTS"][-1] == f"{last:g} months"
