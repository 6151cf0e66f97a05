"""The losses are the paper's formulas, R's partial likelihood, and nothing where there is nothing to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.nets.losses import cox_loss, dice_loss, discrete_time_loss

REFERENCE = Path(__file__).parent / "reference"


def _formula(risk: np.ndarray, event: np.ndarray) -> float:
    """METHOD 3d for samples in increasing time: the risk set is the sample and everything later."""
    terms = [risk[i] - np.log(np.exp(risk[i:]).sum()) for i in range(len(risk)) if event[i]]
    return float(-np.sum(terms) / event.sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_without_ties_cox_is_the_papers_formula(seed: int, ties):
    """Sorted by time and without ties, both approximations equal the published loss to 1e-6."""
    rng = np.random.default_rng(seed)
    risk, event = rng.normal(size=20), rng.random(20) < 0.5
    event[3] = True
    order = rng.permutation(20)
    found = cox_loss(torch.tensor(risk[order]), torch.tensor(np.arange(1.0, 21.0)[order]), torch.tensor(event[order]),
                     ties)
    assert found.item() == pytest.approx(_formula(risk, event), abs=1e-6)


def _column(table: pd.DataFrame, term: str) -> np.ndarray:
    """A covariate, or the indicator of a level such as `sexFemale`."""
    if term in table:
        return table[term].to_numpy(float)
    factor = next(name for name in table if term.startswith(name))
    return np.asarray(table[factor] == term.removeprefix(factor), dtype=float)


@pytest.mark.parametrize("name", ["lung", "gbsg", "pbc"])
@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_with_ties_cox_is_rs_partial_likelihood(name: str, ties):
    """At R's coefficients minus the loss times the events is coxph's log-likelihood, to 1e-5, in double and single."""
    case = json.loads((REFERENCE / "partial_likelihood.json").read_text())[name][ties]
    table = pd.read_csv(REFERENCE / f"{name}.csv.gz")
    x = np.column_stack([_column(table, term) for term in case["names"]])
    time, event = torch.tensor(table["time"].to_numpy()), torch.tensor(table["event"].to_numpy())
    if name != "gbsg":
        assert len(set(time[event > 0].tolist())) < int(event.sum()), "the data have tied events"
    risk = torch.tensor(x @ np.array(case["coef"]))
    loss = cox_loss(risk, time, event > 0, ties).item()
    assert -loss * event.sum().item() == pytest.approx(case["loglik"], abs=1e-5)
    single = cox_loss(risk.float(), time, event > 0, ties).item()
    assert single == pytest.approx(loss, abs=1e-5)


def test_efron_of_two_tied_events_by_hand():
    """Two events at one time among three at risk: log 3 + log 2 halves of the sum, as Efron wrote it."""
    loss = cox_loss(torch.zeros(3), torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, True, False]), "efron")
    assert loss.item() == pytest.approx((np.log(3) + np.log(3 - 1)) / 2, abs=1e-6)
    breslow = cox_loss(torch.zeros(3), torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, True, False]))
    assert breslow.item() == pytest.approx(np.log(3), abs=1e-6)


def test_a_batch_without_events_has_no_loss_and_no_gradient():
    """All censored: zero, and a gradient of zeros, never nan."""
    risk = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = cox_loss(risk, torch.tensor([1.0, 2.0]), torch.tensor([False, False]))
    loss.backward()
    assert loss.item() == 0.0 and risk.grad is not None and risk.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_cox_neither_overflows_nor_loses_small_risks(ties):
    """Risks of +-1000 give finite losses and gradients."""
    risk = torch.tensor([1000.0, -1000.0, 999.0, 0.0], requires_grad=True)
    loss = cox_loss(risk, torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([True, True, True, False]), ties)
    loss.backward()
    assert torch.isfinite(loss) and risk.grad is not None and torch.isfinite(risk.grad).all()


COHORT = st.integers(2, 12).flatmap(lambda n: st.tuples(
    st.lists(st.floats(-5, 5, width=32), min_size=n, max_size=n), st.lists(st.integers(1, 4), min_size=n, max_size=n),
    st.lists(st.booleans(), min_size=n, max_size=n)))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(COHORT, st.floats(-3, 3), st.sampled_from(["breslow", "efron"]))
def test_cox_ignores_the_level_of_risk_and_the_order_of_patients(cohort, shift: float, ties):
    """Adding a constant to every risk, or shuffling the patients, changes nothing."""
    risk, time, event = (torch.tensor(v, dtype=torch.double) for v in cohort)
    loss = cox_loss(risk, time, event > 0, ties)
    order = torch.arange(len(risk)).flip(0)
    torch.testing.assert_close(cox_loss(risk + shift, time, event > 0, ties), loss)
    torch.testing.assert_close(cox_loss(risk[order], time[order], event[order] > 0, ties), loss)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(COHORT)
def test_efron_never_exceeds_breslow(cohort):
    """Tied events leave the risk set one after the other under Efron, so its loss is the smaller."""
    risk, time, event = (torch.tensor(v, dtype=torch.double) for v in cohort)
    assert cox_loss(risk, time, event > 0, "efron") <= cox_loss(risk, time, event > 0, "breslow") + 1e-9


def test_cox_gradient_raises_the_risk_of_early_events():
    """The gradient lowers the loss by raising the risk of who had the event first and lowering the survivors'."""
    risk = torch.zeros(3, requires_grad=True)
    cox_loss(risk, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, False])).backward()
    assert risk.grad is not None and risk.grad[0] < 0 < risk.grad[1] and risk.grad[2] > 0


def test_dice_of_a_half_overlap_by_hand():
    """Two voxels each with one in common: soft Dice one half, per patient, averaged."""
    p, y = torch.zeros(2, 1, 1, 3), torch.zeros(2, 1, 1, 3)
    p[0, 0, 0, :2], y[0, 0, 0, 1:] = 1.0, 1.0
    p[1], y[1] = 1.0, 1.0
    assert dice_loss(p, y).item() == pytest.approx(-(0.5 + 1.0) / 2)


def test_dice_leaves_out_patients_without_a_mask():
    """A patient without a contour neither counts nor gets a gradient."""
    p = torch.full((2, 1, 1, 2), 0.5, requires_grad=True)
    y = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    loss = dice_loss(p, y, torch.tensor([True, False]))
    loss.backward()
    assert loss.item() == pytest.approx(-0.5)
    assert p.grad is not None and (p.grad[1] == 0).all() and (p.grad[0] != 0).any()
    assert dice_loss(p, y, torch.tensor([False, False])).item() == 0.0


def test_dice_of_nothing_is_finite():
    """Empty mask and empty probability: zero, not nan."""
    assert dice_loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)).item() == 0.0


def test_discrete_likelihood_by_hand():
    """Event in the second of three intervals, and a patient censored past the middle of the first."""
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0]])
    loss = discrete_time_loss(logits, torch.tensor([15.0, 6.0]), torch.tensor([True, False]),
                              torch.tensor([10.0, 20.0, 30.0]))
    h = torch.sigmoid(logits)
    by_hand = -(torch.log(1 - h[0, 0]) + torch.log(h[0, 1]) + torch.log(1 - h[1, 0])) / 2
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize(("time", "event", "terms"), [
    (10.0, True, [1, 0, 0]), (10.1, True, [1, 1, 0]), (31.0, True, [1, 1, 1]), (4.0, False, [0, 0, 0]),
    (5.0, False, [1, 0, 0]), (26.0, False, [1, 1, 1])])
def test_discrete_likelihood_counts_the_right_intervals(time: float, event: bool, terms: list[int]):
    """Which logits a patient teaches depends on when the follow-up ended; an end belongs to the interval it closes."""
    logits = torch.zeros(1, 3, requires_grad=True)
    discrete_time_loss(logits, torch.tensor([time]), torch.tensor([event]), torch.tensor([10.0, 20.0, 30.0])).backward()
    assert logits.grad is not None and (logits.grad != 0)[0].int().tolist() == terms


@pytest.mark.slow
def test_discrete_likelihood_finds_the_hazards():
    """Its minimum over common logits is the life table: events over those at risk."""
    rng = np.random.default_rng(0)
    cuts = torch.tensor([10.0, 20.0, 30.0])
    time, event = torch.tensor(rng.uniform(0.1, 30, 300), dtype=torch.float32), torch.ones(300, dtype=torch.bool)
    logits = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=50)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = discrete_time_loss(logits.expand(300, 3), time, event, cuts)
        loss.backward()
        return loss

    optimiser.step(closure)
    interval = np.searchsorted([10, 20, 30], time.numpy())
    at_risk = [int((interval >= k).sum()) for k in range(3)]
    events = [int((interval == k).sum()) for k in range(3)]
    assert torch.sigmoid(logits[:2]).tolist() == pytest.approx([events[k] / at_risk[k] for k in range(2)], abs=1e-3)
