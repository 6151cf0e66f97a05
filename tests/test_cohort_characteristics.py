"""Table 1 as numbers: medians, counts and P of a small table, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, kruskal

from mtdlr.cohort.characteristics import Characteristic, Range, characteristics
from mtdlr.study import Study

TABLE = pd.DataFrame({
    "split": ["training"] * 6 + ["external"] * 5,
    "event": [True, False, True, False, False, False] + [True] * 4 + [False],
    "age": [30.0, 40.0, 50.0, 60.0, np.nan, 75.0, 55.0, 65.0, 66.0, 70.0, 80.0],
    "t": ["T1", "T1", "T2", "T2", "T1", None, "T2", "T2", "T2", "T3", "T1"],
    "ic": [1.0, 0.0, 1.0, np.nan, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]})
PET = pd.DataFrame({"suv_max": np.arange(11.0), "other": 0.0})


def found(table: pd.DataFrame = TABLE, **cohort: object) -> dict[str, Characteristic]:
    """Every variable by its column."""
    settings = {"continuous": ["age"], "factors": {"t": ["T1", "T2", "T3", "T4"]}, "described": ["ic"],
                "stage": "t"} | cohort
    study = Study.of({"cohort": settings})
    return {one.name: one for one in characteristics(table, study.cohort, PET.loc[table.index],
                                                     {"suv_max": "SUVmax (g/ml)", "gone": "Gone"})}


def test_a_continuous_variable_has_median_range_and_scipys_p() -> None:
    """Missing values take no part; P is SciPy's Kruskal-Wallis test of the cohorts."""
    age = found()["age"]
    assert age.ranges == {"training": Range(5, 50.0, 30.0, 75.0), "external": Range(5, 66.0, 55.0, 80.0)}
    assert age.p == pytest.approx(kruskal([30, 40, 50, 60, 75], [55, 65, 66, 70, 80]).pvalue)
    assert age.label == "Age" and not age.counts and not age.is_flag


def test_a_factor_has_every_level_and_scipys_p() -> None:
    """Levels that nobody has are counted as 0 and take no part in the test, which is Pearson's without a correction."""
    t = found()["t"]
    assert t.counts == {"T1": {"training": 3, "external": 1}, "T2": {"training": 2, "external": 3},
                        "T3": {"training": 0, "external": 1}, "T4": {"training": 0, "external": 0}}
    assert t.p == pytest.approx(chi2_contingency([[3, 1], [2, 3], [0, 1]], correction=False).pvalue)


def test_a_treatment_counts_who_had_it_and_who_had_not() -> None:
    """Yes and no of those of whom it is known, and P of that table."""
    ic = found()["ic"]
    assert ic.is_flag and ic.counts == {"yes": {"training": 2, "external": 4}, "no": {"training": 3, "external": 1}}
    assert ic.p == pytest.approx(chi2_contingency([[2, 4], [3, 1]], correction=False).pvalue)


def test_the_outcome_closes_the_table() -> None:
    """Event-free patients and events of each cohort stand last, after the PET parameters that there are."""
    every = found()
    assert list(every) == ["age", "t", "ic", "suv_max", "event"]
    assert every["event"].counts == {"Event free": {"training": 4, "external": 1},
                                     "Event": {"training": 2, "external": 4}}
    assert every["suv_max"].label == "SUVmax (g/ml)" and every["suv_max"].ranges["external"] == Range(5, 8.0, 6.0, 10.0)


def test_one_cohort_is_compared_with_nothing() -> None:
    """A study without a second cohort has numbers and no P."""
    every = found(TABLE[:6])
    assert all(np.isnan(one.p) for one in every.values()) and list(every["age"].ranges) == ["training"]


def test_a_cohort_without_values_does_not_stop_the_others() -> None:
    """Nobody's age is known outside: the range there is of nobody, and there is no P."""
    table = TABLE.assign(age=TABLE["age"].where(TABLE["split"] == "training"))
    age = found(table)["age"]
    assert age.ranges["external"].n == 0 and np.isnan(age.ranges["external"].median) and np.isnan(age.p)
    assert age.ranges["training"].median == 50.0


def test_the_order_of_patients_changes_nothing() -> None:
    """A shuffled table gives equal counts, ranges and P."""
    shuffled = found(TABLE.sample(frac=1.0, random_state=5))
    for name, one in found().items():
        assert shuffled[name].counts == one.counts and dict(shuffled[name].ranges) == dict(one.ranges)
        assert shuffled[name].p == pytest.approx(one.p, nan_ok=True)
