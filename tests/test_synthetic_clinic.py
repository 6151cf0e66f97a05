"""The synthetic clinical table has the margins of the paper's Table 1 and obeys the staging rules."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from mtdlr.synthetic.clinic import TABLE_1, apportion, clinical_table
from mtdlr.synthetic.study import simulate_study

QUICK = settings(deadline=None, derandomize=True, max_examples=40)


@pytest.fixture(scope="module")
def paper_sized() -> pd.DataFrame:
    return simulate_study(seed=4)[0]


# P values printed in Table 1 (EJNMMI 2023); histology is printed .009 and is .0095.
PRINTED_P = {"gender": 0.984, "ebv": 0.185, "histology": 0.0095, "t_stage": 0.125, "n_stage": 0.116, "tnm_stage": 0.352,
             "ic": 0.101, "ccrt": 0.741, "ac": 0.964, "targeted": 0.151, "event": 0.163}


@pytest.mark.parametrize(("column", "p"), PRINTED_P.items())
def test_counts_reproduce_the_printed_p_value(paper_sized: pd.DataFrame, column: str, p: float) -> None:
    """Pearson's chi-square of every categorical row, over the three cohorts, is the P printed in Table 1."""
    counts = pd.crosstab(paper_sized[column], paper_sized["split"])
    assert chi2_contingency(counts, correction=False).pvalue == pytest.approx(p, abs=6e-4)


@pytest.mark.parametrize(("split", "level", "n"), [
    ("training", "Unknown", 84), ("internal", "Unknown", 25), ("external", "Unknown", 37),
])
def test_missing_ebv_is_a_level(paper_sized: pd.DataFrame, split: str, level: str, n: int) -> None:
    """A missing EBV result is the level Unknown, as often as in the paper, and nothing is empty."""
    cohort = paper_sized[paper_sized["split"] == split]
    assert (cohort["ebv"] == level).sum() == n
    assert not paper_sized.isna().any().any()


@pytest.mark.parametrize("split", TABLE_1)
def test_continuous_variables_follow_table_1(paper_sized: pd.DataFrame, split: str) -> None:
    """Median age and mean BMI and LDH are the printed ones, and no value leaves the printed range."""
    cohort, margins = paper_sized[paper_sized["split"] == split], TABLE_1[split]
    assert cohort["age"].median() == pytest.approx(margins.age[0], abs=1.0)
    assert cohort["bmi"].mean() == pytest.approx(margins.bmi[0], abs=0.25)
    assert cohort["ldh"].mean() == pytest.approx(margins.ldh[0], rel=0.04)
    for name in ("age", "bmi", "ldh"):
        low, high = getattr(margins, name)[1:]
        assert cohort[name].between(low, high).all()


@QUICK
@given(st.integers(1, 160), st.sampled_from(list(TABLE_1)), st.integers(0, 99))
def test_stages_are_possible_at_any_size(n: int, split: str, seed: int) -> None:
    """IVa exactly when T4 or N3; every other patient is a stage III of AJCC 8, whatever the size of the cohort."""
    table = clinical_table(split, n, np.random.default_rng(seed))
    advanced = (table["t_stage"] == "T4") | (table["n_stage"] == "N3")
    assert len(table) == n
    assert ((table["tnm_stage"] == "IVa") == advanced).all()
    assert ((table["t_stage"] == "T3") | (table["n_stage"] == "N2") | advanced).all()


@QUICK
@given(st.lists(st.integers(0, 500), min_size=1, max_size=6).filter(any), st.integers(0, 1000))
def test_apportion_is_fair(weights: list[int], n: int) -> None:
    """Counts sum to n and stay within one of their exact share; a level that nobody has stays empty."""
    counts = apportion(weights, n)
    shares = np.array(weights) / sum(weights) * n
    assert counts.sum() == n
    assert (np.abs(counts - shares) < 1).all()
    assert all(c == 0 for c, w in zip(counts, weights, strict=True) if w == 0)


def test_small_cohorts_keep_the_proportions() -> None:
    """A cohort of 60 has the paper's proportions to within one patient."""
    table = clinical_table("training", 60, np.random.default_rng(1))
    assert abs((table["tnm_stage"] == "IVa").sum() - 60 * 106 / 522) <= 1
    assert abs((table["gender"] == "Male").sum() - 60 * 402 / 522) <= 1
    assert abs((table["ic"] == 1).sum() - 60 * 472 / 522) <= 1


def test_clinical_facts_do_not_leak_the_truth(paper_sized: pd.DataFrame) -> None:
    """The table holds the documented columns and none of the truth's."""
    assert list(paper_sized.columns) == [
        "patient_id", "center", "split", "age", "gender", "ebv", "histology", "bmi", "ldh", "t_stage", "n_stage",
        "tnm_stage", "ic", "ccrt", "ac", "targeted", "time_months", "event",
    ]
