"""What reviewers ask beyond C: each number is the one that its own statistic gives on the same patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import FitError, Problem
from mtdlr.evaluate import appraise as module
from mtdlr.evaluate.appraise import appraise, develop, differences, follow_up, subgroups
from mtdlr.nomogram import Nomogram
from mtdlr.stats.calibration import calibrate
from mtdlr.stats.concordance import compare_concordance, concordance
from mtdlr.stats.decision import brier_score, decision_curve
from mtdlr.stats.kaplan_meier import restricted_mean_difference
from mtdlr.stats.sample_size import development_size
from mtdlr.stats.validation import validate_bootstrap
from mtdlr.survival import Survival

MONTHS = (12.0, 24.0)


@pytest.fixture(scope="module")
def study() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame], Nomogram]:
    """200 training and 100 external patients of two centres, a nomogram of stage and score, one risk missing."""
    rng = np.random.default_rng(0)
    n, latent = 300, rng.normal(size=300)
    time = 30 * rng.exponential(np.exp(-latent))
    table = pd.DataFrame({
        "time_months": np.minimum(time, 40) + 0.1, "event": time < 40, "center": np.where(np.arange(n) % 3, "A", "B"),
        "split": np.where(np.arange(n) < 200, "training", "external"), "age": rng.normal(50, 10, n),
        "gender": rng.choice(["Male", "Female"], n),
        "tnm": np.where(latent + rng.normal(size=n) > 0.7, "IVa", "III"), "score": latent + rng.normal(size=n)})
    table.index = [f"P{k}" for k in range(n)]
    training = table[table["split"] == "training"]
    surv = Survival(training["time_months"].to_numpy(), training["event"].to_numpy())
    nomogram = Nomogram.fit(training, surv, ["tnm", "score"], MONTHS)
    risks = pd.DataFrame({"stage": (table["tnm"] == "IVa").astype(float), "mtdlr": nomogram.log_hazard(table)},
                         index=table.index)
    risks.loc["P299", "mtdlr"] = np.nan
    predicted = pd.DataFrame(nomogram.survival(table).value, index=table.index, columns=list(MONTHS))
    return table, risks, {"mtdlr": predicted}, nomogram


def test_each_number_is_its_statistics(study) -> None:  # type: ignore[no-untyped-def]
    """Uno's C, paired difference, Brier, net benefit and restricted mean are those of the patients with a risk."""
    table, risks, predicted, _ = study
    found = appraise(risks, predicted, table, MONTHS, cutoffs={"mtdlr": 0.3})
    one = found["mtdlr", "external"]
    rows = table.index[200:299]
    surv = Survival(table.loc[rows, "time_months"].to_numpy(), table.loc[rows, "event"].to_numpy())
    risk, stage = risks.loc[rows, "mtdlr"].to_numpy(), risks.loc[rows, "stage"].to_numpy()
    survival = predicted["mtdlr"].loc[rows]
    assert one.uno == concordance(risk, surv, weighting="uno", tau=24.0).c
    assert one.versus == {"stage": compare_concordance(risk, stage, surv).difference}
    assert one.brier[12.0].score.value == brier_score(survival[12.0].to_numpy(), surv, 12.0).score.value
    curve = decision_curve(survival[24.0].to_numpy(), surv, 24.0, thresholds=one.benefit[24.0].thresholds)
    assert one.benefit[24.0].value == pytest.approx(curve.net_benefit)
    assert one.over_all[24.0].value == pytest.approx(curve.net_benefit - curve.treat_all)
    assert one.restricted_mean == restricted_mean_difference(risk >= 0.3, surv, 24.0)
    assert one.auc is not None and ((one.auc.auc > 0.5) & (one.auc.auc < 1)).all()
    assert not found["stage", "external"].brier, "the stage predicts no survival"


def test_a_cohort_without_events_is_left_out(study) -> None:  # type: ignore[no-untyped-def]
    """FAULTS 92: no event, one patient, a constant risk: what cannot be computed is nan or absent, nothing raises."""
    table, risks, predicted, _ = study
    quiet = table.assign(event=table["event"] & (table["split"] == "training"))
    assert {split for _, split in appraise(risks, predicted, quiet, MONTHS, cutoffs={})} == {"training"}
    alone = table.assign(split=["external" if i == "P250" else "training" for i in table.index])
    assert {split for _, split in appraise(risks, predicted, alone, MONTHS, cutoffs={})} == {"training"}
    constant = appraise(risks.assign(mtdlr=1.0), predicted, table, MONTHS, cutoffs={"mtdlr": 0.3})
    assert constant["mtdlr", "external"].auc is None
    assert np.isnan(constant["mtdlr", "external"].restricted_mean.value)


def test_subgroups_have_enough_events(study) -> None:  # type: ignore[no-untyped-def]
    """By centre, sex, stage and age at its training median; below ten events a subgroup has counts and no figures."""
    table, risks, predicted, _ = study
    found = {(s.split, s.variable, s.level): s for s in subgroups(
        risks["mtdlr"], predicted["mtdlr"], table, ["center", "gender", "age", "tnm", "absent"], 24.0)}
    assert {variable for _, variable, _ in found} == {"center", "gender", "age", "tnm"}
    rows = table.index[(table["split"] == "external") & (table["center"] == "B") & risks["mtdlr"].notna()]
    surv = Survival(table.loc[rows, "time_months"].to_numpy(), table.loc[rows, "event"].to_numpy())
    one = found["external", "center", "B"]
    assert (one.n, one.n_events) == (len(rows), surv.n_events)
    assert one.c == concordance(risks.loc[rows, "mtdlr"].to_numpy(), surv).c
    assert one.oe.value == calibrate(predicted["mtdlr"].loc[rows, 24.0].to_numpy(), surv, 24.0).oe.value
    few = table.assign(event=table["event"] & (np.arange(300) % 7 == 0))
    small = subgroups(risks["mtdlr"], predicted["mtdlr"], few, ["center"], 24.0)
    assert all(np.isnan(s.c.value) == (s.n_events < 10) for s in small) and any(np.isnan(s.c.value) for s in small)
    median = table.loc[table["split"] == "training", "age"].median()
    assert ("training", "age", f"up to {median:.4g}") in found


def test_development_is_that_of_the_nomogram(study) -> None:  # type: ignore[no-untyped-def]
    """Events per parameter, Riley's criteria, bootstrap optimism and the proportional-hazards test of the nomogram."""
    table, _, _, nomogram = study
    training = table[table["split"] == "training"]
    found = develop(nomogram, training, candidates=1456, resamples=50)
    surv = Survival(training["time_months"].to_numpy(), training["event"].to_numpy())
    assert (found.parameters, found.n, found.n_events) == (2, 200, surv.n_events)
    size = development_size(1456, rate=surv.n_events / surv.time_months.sum(), horizon=24.0,
                            mean_follow_up=surv.time_months.mean())
    assert found.by_candidates == size and found.by_parameters is not None and found.by_parameters.n < size.n
    x = nomogram.design.matrix({name: training[name].to_numpy() for name in ("tnm", "score")})
    expected = validate_bootstrap(x, surv, n_resamples=50)
    assert found.corrected is not None and found.corrected.c.value == expected.c.value
    assert set(found.proportional) == {"tnm", "score", "GLOBAL"} and set(found.trends) == {"tnm=IVa", "score"}


def test_an_optimism_that_cannot_be_had_is_a_warning(  # type: ignore[no-untyped-def]
    study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no resample can be fitted the development is whole but for the optimism, and no error is left."""
    table, _, _, nomogram = study

    def none(*_: object, **__: object) -> None:
        raise FitError(Problem("E-RESAMPLES", "no resample could be fitted"))

    monkeypatch.setattr(module, "validate_bootstrap", none)
    found = develop(nomogram, table[table["split"] == "training"], candidates=1456, resamples=50)
    assert found.corrected is None and found.proportional
    assert [(p.code, p.is_error) for p in found.problems] == [("W-NOOPTIMISM", False)]


def test_cohorts_are_compared(study) -> None:  # type: ignore[no-untyped-def]
    """Equal columns have a standardised difference near 0, a shifted one its shift over the SD; follow-up by cohort."""
    table, *_ = study
    moved = table.assign(age=table["age"] + 10 * (table["split"] == "external"))
    found = differences(moved, ["age", "gender", "absent"])["external"]
    assert set(found) == {"age", "gender"} and abs(found["age"].value) == pytest.approx(1.0, abs=0.2)
    assert abs(found["gender"].value) < 0.4
    assert set(follow_up(table)) == {"training", "external"}
