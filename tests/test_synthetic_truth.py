"""The synthetic truth: proportional hazards, the paper's event counts, and known shares of the risk."""

import numpy as np
import pandas as pd
import pytest

from mtdlr.errors import StudyError
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import fit_cox
from mtdlr.survival import Survival
from mtdlr.synthetic.layout import COLUMNS
from mtdlr.synthetic.study import simulate_study
from mtdlr.synthetic.truth import TRUTHS, WEIGHTS, simulate_cohort


@pytest.fixture(scope="module")
def large() -> tuple[pd.DataFrame, Survival]:
    clinical, truth = simulate_cohort("training", 6000, np.random.default_rng(2))
    return truth, Survival(clinical["time_months"], clinical["event"])


def test_event_counts_are_the_papers() -> None:
    """At the paper's sizes exactly 127, 24 and 45 patients have the event."""
    clinical, _ = simulate_study(seed=8)
    assert clinical.groupby("split")["event"].sum().to_dict() == {"training": 127, "internal": 24, "external": 45}


@pytest.mark.parametrize("n", [1, 7, 60])
def test_event_fraction_holds_at_other_sizes(n: int) -> None:
    """A smaller cohort has the paper's event fraction to the nearest patient."""
    clinical, _ = simulate_cohort("training", n, np.random.default_rng(n))
    assert clinical["event"].sum() == round(n * 127 / 522)


@pytest.mark.parametrize(("split", "median", "high"), [("training", 50, 120), ("external", 49, 97)])
def test_follow_up_of_the_event_free(split: str, median: float, high: float) -> None:
    """Event-free patients are followed 44 months at least, with the paper's median and maximum."""
    clinical, _ = simulate_cohort(split, 4000, np.random.default_rng(3))
    followed = clinical.loc[clinical["event"] == 0, "time_months"]
    assert followed.min() >= 44
    assert followed.max() <= high
    assert followed.median() == pytest.approx(median, abs=1)
    assert (clinical["time_months"] > 0).all()


def test_parts_sum_to_the_log_hazard() -> None:
    """truth.csv's parts add up to its total."""
    _, truth = simulate_study(n_training=40, n_internal=10, n_external=20, seed=1)
    np.testing.assert_allclose(truth[list(WEIGHTS)].sum(axis=1), truth["log_hazard"], atol=5e-6)


def test_parts_are_standardised(large: tuple[pd.DataFrame, Survival]) -> None:
    """Every part has mean 0 and its weight as standard deviation in the training population."""
    truth, _ = large
    for part, weight in WEIGHTS.items():
        assert truth[part].mean() == pytest.approx(0, abs=0.05 * weight)
        assert truth[part].std() == pytest.approx(weight, rel=0.03)


def test_hazards_are_proportional_with_the_stated_weights(large: tuple[pd.DataFrame, Survival]) -> None:
    """A Cox model on the weighted parts finds a coefficient of 1 for each, within four standard errors."""
    truth, surv = large
    fit = fit_cox(truth[list(WEIGHTS)], surv)
    error = np.sqrt(np.diag(fit.covariance))
    assert (np.abs(fit.coef - 1) < 4 * error).all()
    assert error.max() < 0.2


# Oracle C-index of the risk that a model would know if it read its part of the data perfectly.
ORACLES = {
    "stage alone": (("stage",), 0.583),
    "inside the mask": (("volume", "heterogeneity"), 0.738),
    "inside the mask, and stage": (("stage", "volume", "heterogeneity"), 0.748),
    "outside the mask": (("invasion", "nodes"), 0.710),
    "the whole image": (tuple(WEIGHTS)[1:], 0.825),
    "everything": (tuple(WEIGHTS), 0.828),
}


@pytest.mark.parametrize("name", ORACLES)
def test_each_model_can_see_its_share(large: tuple[pd.DataFrame, Survival], name: str) -> None:
    """The true risk has a C-index of about 0.83, and each partial sum the one that the docstring states."""
    truth, surv = large
    parts, expected = ORACLES[name]
    assert concordance(truth[list(parts)].sum(axis=1), surv).c.value == pytest.approx(expected, abs=0.015)


@pytest.mark.slow
def test_true_risk_in_studies_of_the_papers_size() -> None:
    """Averaged over eight studies, the true risk's C-index is about 0.83 in the training cohort."""
    values = []
    for seed in range(8):
        clinical, truth = simulate_study(seed=seed)
        of = clinical["split"] == "training"
        surv = Survival(clinical.loc[of, "time_months"], clinical.loc[of, "event"])
        values.append(concordance(truth.loc[of, "log_hazard"], surv).c.value)
    assert np.mean(values) == pytest.approx(0.83, abs=0.015)


def test_follow_up_does_not_know_the_risk(large: tuple[pd.DataFrame, Survival]) -> None:
    """Censoring is administrative: a Cox model of the censoring on the true risk finds no effect."""
    truth, surv = large
    fit = fit_cox(truth["log_hazard"], Survival(surv.time_months, ~surv.event))
    assert abs(fit.coef[0]) < 3 * np.sqrt(fit.covariance[0, 0])
    assert np.sqrt(fit.covariance[0, 0]) < 0.02


def test_seeds_and_cohorts() -> None:
    """The same seed gives the same tables, another seed others, and a cohort does not depend on the others' sizes."""
    a, b, c = (simulate_study(n_training=20, n_internal=5, n_external=k, seed=s) for k, s in ((8, 1), (8, 1), (9, 2)))
    longer = simulate_study(n_training=20, n_internal=5, n_external=30, seed=1)
    pd.testing.assert_frame_equal(a[0], b[0])
    pd.testing.assert_frame_equal(a[1], b[1])
    assert not a[1]["log_hazard"].equals(c[1]["log_hazard"][:33])
    for table, more in zip(a, longer, strict=True):
        pd.testing.assert_frame_equal(table[:25], more[:25])


def test_image_seeds_are_unique() -> None:
    """No two patients share the seed of their images."""
    _, truth = simulate_study(seed=0)
    assert truth["image_seed"].is_unique
    assert truth["patient_id"].is_unique


@pytest.mark.parametrize("name", [name for name in TRUTHS if name != "burden"])
def test_every_truth_has_the_same_weight(name: str) -> None:
    """Each truth's log-hazard has a C-index of about .845 in a large cohort, its parts are standardised, and their
    shares of the variance are those of docs/synthetic.md."""
    clinical, truth = simulate_cohort("training", 8000, np.random.default_rng(4), name)
    surv = Survival(clinical["time_months"].to_numpy(), clinical["event"].to_numpy(bool))
    assert concordance(truth["log_hazard"].to_numpy(), surv).c.value == pytest.approx(0.845, abs=0.012)
    for part, weight in TRUTHS[name].items():
        column = truth[f"{part}_part" if f"{part}_part" in truth else part]
        assert column.mean() == pytest.approx(0, abs=0.06 * weight)
        assert column.std() == pytest.approx(weight, rel=0.06)
        share = column.cov(truth["log_hazard"]) / truth["log_hazard"].var()
        documented = {"side": (0.19, 0.17), "volume": (0.12,), "crossing": (0.25,), "rim": (0.24,), "chance": (1.0,)}
        if part in documented:
            assert min(abs(share - value) for value in documented[part]) < 0.03


def test_truths_share_their_patients() -> None:
    """All truths but burden have the same patients and the same image seeds; only the follow-up differs."""
    first, second = (simulate_study(n_training=20, n_internal=4, n_external=6, seed=2, truth=name)
                     for name in ("places", "noise"))
    outcome = ["time_months", "event"]
    pd.testing.assert_frame_equal(first[0].drop(columns=outcome), second[0].drop(columns=outcome))
    shared = ["patient_id", "image_seed", "volume_ml", *COLUMNS]
    pd.testing.assert_frame_equal(first[1][shared], second[1][shared])
    assert not first[0]["time_months"].equals(second[0]["time_months"])


def test_another_truth_is_refused() -> None:
    """A truth that does not exist is a typed error that lists those that do."""
    with pytest.raises(StudyError, match="burden, places"):
        simulate_study(n_training=3, n_internal=0, n_external=0, truth="luck")
