"""evaluation.json holds what lifelines and scikit-survival compute from the same risks, survival and follow-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_tables import results  # noqa: F401  (the made-up study)

from mtdlr.report.numbers import evaluation_numbers
from mtdlr.report.results import Results
from mtdlr.report.review import review, review_numbers
from mtdlr.study import MAIN

lifelines = pytest.importorskip("lifelines")
metrics = pytest.importorskip("sksurv.metrics")
MONTHS, LAST = (12.0, 24.0), 24.0


@pytest.fixture(scope="module")
def numbers(results: Results) -> dict[str, Any]:  # noqa: F811
    """What evaluation.json holds of the made-up study."""
    return evaluation_numbers(results) | {"review": review_numbers(review(results))}


@pytest.fixture(scope="module")
def outside(results: Results) -> pd.DataFrame:  # noqa: F811
    """The external cohort: follow-up, the nomogram's risk, its predicted survival, the stage's risk."""
    table = results.cohort.table
    rows = table[table["split"] == "external"].copy()
    rows["risk"], rows["reference"] = results.findings.risks[MAIN], results.findings.risks["stage"]
    for month in MONTHS:
        rows[month] = results.findings.predicted[MAIN][month]
    rows["high"] = (rows["risk"] >= results.model.cutoffs[MAIN]).astype(float)
    return rows


def _structured(rows: pd.DataFrame) -> np.ndarray:
    return np.array(list(zip(rows["event"].astype(bool), rows["time_months"], strict=True)),
                    dtype=[("event", bool), ("time", float)])


def _of(found: list[dict[str, Any]], **keys: str) -> dict[str, Any]:
    return next(one for one in found if all(one[name] == value for name, value in keys.items()))


@pytest.mark.slow
def test_discrimination_is_that_of_two_packages(numbers: dict[str, Any], outside: pd.DataFrame) -> None:
    """Harrell's C is lifelines', Uno's C and the AUC at both horizons are scikit-survival's."""
    surv = _structured(outside)
    own = _of(numbers["performance"], model=MAIN, cohort="external")
    harrell = lifelines.utils.concordance_index(outside["time_months"], -outside["risk"], outside["event"])
    assert own["c"]["value"] == pytest.approx(harrell, abs=1e-12)
    appraised = _of(numbers["review"]["appraisals"], model=MAIN, cohort="external")
    uno = metrics.concordance_index_ipcw(surv, surv, outside["risk"].to_numpy(), tau=LAST)[0]
    assert appraised["uno_c"]["value"] == pytest.approx(uno, abs=1e-6)
    auc, _ = metrics.cumulative_dynamic_auc(surv, surv, outside["risk"].to_numpy(), list(MONTHS))
    assert [own["auc"][f"{month:g}"]["value"] for month in MONTHS] == pytest.approx(list(auc), abs=1e-6)
    versus = lifelines.utils.concordance_index(outside["time_months"], -outside["reference"], outside["event"])
    assert appraised["c_versus"]["stage"]["value"] == pytest.approx(harrell - versus, abs=1e-12)


@pytest.mark.slow
def test_errors_and_calibration_are_those_of_two_packages(numbers: dict[str, Any], outside: pd.DataFrame) -> None:
    """Brier scores are scikit-survival's, O/E is Kaplan-Meier's risk over the mean predicted one, and the slope is
    lifelines' Cox coefficient of the predicted log-hazard."""
    surv = _structured(outside)
    appraised = _of(numbers["review"]["appraisals"], model=MAIN, cohort="external")
    _, brier = metrics.brier_score(surv, surv, outside[list(MONTHS)].to_numpy(float), list(MONTHS))
    assert [appraised["brier"][f"{m:g}"]["score"]["value"] for m in MONTHS] == pytest.approx(list(brier), abs=1e-6)
    own = _of(numbers["performance"], model=MAIN, cohort="external")["calibration"]
    curve = lifelines.KaplanMeierFitter().fit(outside["time_months"], outside["event"])
    for month in MONTHS:
        observed = 1 - float(curve.predict(month))
        assert own[f"{month:g}"]["oe"]["value"] == pytest.approx(observed / (1 - outside[month]).mean(), rel=1e-9)
        data = pd.DataFrame({"x": np.log(-np.log(outside[month])), "t": outside["time_months"],
                             "e": outside["event"].astype(int)})
        slope = lifelines.CoxPHFitter().fit(data, "t", "e", fit_options={"precision": 1e-10}).params_["x"]
        assert own[f"{month:g}"]["slope"]["value"] == pytest.approx(slope, rel=1e-5)


@pytest.mark.slow
def test_groups_and_follow_up_are_lifelines(numbers: dict[str, Any], outside: pd.DataFrame) -> None:
    """Hazard ratio and log-rank P of the risk groups, event-free months between them, and the median follow-up."""
    groups = _of(numbers["performance"], model=MAIN, cohort="external")["groups"]
    data = outside[["high", "time_months"]].assign(event=outside["event"].astype(int))
    fit = lifelines.CoxPHFitter().fit(data, "time_months", "event", fit_options={"precision": 1e-10})
    assert groups["hazard_ratio"]["value"] == pytest.approx(np.exp(fit.params_["high"]), rel=1e-6)
    limits = np.exp(fit.confidence_intervals_.loc["high"].to_numpy())
    assert [groups["hazard_ratio"][end] for end in ("low", "high")] == pytest.approx(list(limits), rel=1e-5)
    high = outside["high"] == 1
    tested = lifelines.statistics.logrank_test(outside.loc[high, "time_months"], outside.loc[~high, "time_months"],
                                               outside.loc[high, "event"], outside.loc[~high, "event"])
    assert groups["log_rank_p"] == pytest.approx(tested.p_value, rel=1e-8)
    means = [lifelines.utils.restricted_mean_survival_time(lifelines.KaplanMeierFitter().fit(
        outside.loc[rows, "time_months"], outside.loc[rows, "event"]), t=LAST) for rows in (high, ~high)]
    appraised = _of(numbers["review"]["appraisals"], model=MAIN, cohort="external")
    assert appraised["restricted_mean_difference"]["value"] == pytest.approx(means[0] - means[1], rel=1e-6)
    reverse = lifelines.KaplanMeierFitter().fit(outside["time_months"], ~outside["event"].astype(bool))
    assert numbers["follow_up"]["external"]["value"] == pytest.approx(reverse.median_survival_time_)


@pytest.mark.slow
def test_net_benefit_is_its_definition(numbers: dict[str, Any], outside: pd.DataFrame) -> None:
    """Net benefit at each threshold: true positives less weighted false ones by lifelines' Kaplan-Meier among those
    above it (Vickers 2008); the difference to treating everybody is of the same cohort."""
    appraised = _of(numbers["review"]["appraisals"], model=MAIN, cohort="external")
    found, over = appraised["benefit"]["24"], appraised["over_all"]["24"]

    def benefit(above: pd.Series, threshold: float) -> float:
        if not above.any():
            return 0.0
        rows = outside[above]
        risk = 1 - float(lifelines.KaplanMeierFitter().fit(rows["time_months"], rows["event"]).predict(LAST))
        return above.mean() * (risk - (1 - risk) * threshold / (1 - threshold))

    everybody = pd.Series(True, index=outside.index)
    for threshold, value, more in zip(found["thresholds"], found["value"], over["value"], strict=True):
        if value is not None:
            own = benefit(1 - outside[24.0] >= threshold, threshold)
            assert value == pytest.approx(own, abs=1e-9), threshold
            assert more == pytest.approx(own - benefit(everybody, threshold), abs=1e-9)


@pytest.mark.slow
def test_associations_are_lifelines(numbers: dict[str, Any], results: Results) -> None:  # noqa: F811
    """The univariate hazard ratio of age in training, per unit and per SD, with its interval and P."""
    rows = results.cohort.of("training").table[["age", "time_months", "event"]].dropna()
    fit = lifelines.CoxPHFitter().fit(rows.astype(float), "time_months", "event", fit_options={"precision": 1e-10})
    own = _of(numbers["univariate"], variable="age", cohort="training")
    (ratio,) = own["hazard_ratios"].values()
    limits = np.exp(fit.confidence_intervals_.loc["age"].to_numpy())
    assert [ratio[name] for name in ("value", "low", "high")] == pytest.approx(
        [np.exp(fit.params_["age"]), *limits], rel=1e-5)
    assert ratio["p"] == pytest.approx(fit.summary.loc["age", "p"], rel=1e-4)
    spread = results.cohort.of("training").table["age"].std()
    assert own["hazard_ratio_per_sd"]["value"] == pytest.approx(np.exp(fit.params_["age"] * spread), rel=1e-5)
