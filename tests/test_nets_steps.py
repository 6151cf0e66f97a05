"""One step of training on a network of two weights: losses, shares and gradients against sums written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from mtdlr.errors import BundleError, StoreError
from mtdlr.nets import refit
from mtdlr.nets.blocks import HeadInputs, RiskHead, Standardise
from mtdlr.nets.cases import Case
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig, Output
from mtdlr.nets.device import Device
from mtdlr.nets.embedding import LIMIT_SD, NAMES, READING, LinearHead, limited
from mtdlr.nets.feed import Feed, scored
from mtdlr.nets.losses import cox_loss, cox_loss_of_sets, dice_loss, discrete_time_loss, risk_sets
from mtdlr.nets.resume import load_state, require_recipe, save_state
from mtdlr.nets.schedule import is_joint, learning_rate
from mtdlr.nets.session import torch_session
from mtdlr.nets.step import MicroBatch, RiskSet, adamw, backward, mix
from mtdlr.study import DeepmtsSettings, SingletaskSettings

TIME = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 5.0], dtype=torch.float64)
EVENT = torch.tensor([True, True, True, False, False, True])
CPU = torch.device("cpu")


def partial_likelihood(risk: list[float], ties: str) -> float:
    """Minus the mean log partial likelihood per event: Breslow's denominators, or Efron's with shrinking shares."""
    time, event, terms = TIME.tolist(), EVENT.tolist(), []
    for t in sorted({t for t, e in zip(time, event, strict=True) if e}):
        dying = [i for i in range(len(time)) if time[i] == t and event[i]]
        at_risk = sum(math.exp(risk[i]) for i in range(len(time)) if time[i] >= t)
        tied = sum(math.exp(risk[i]) for i in dying)
        for rank, i in enumerate(dying):
            lost = rank / len(dying) * tied if ties == "efron" else 0.0
            terms.append(risk[i] - math.log(at_risk - lost))
    return -sum(terms) / len(terms)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_the_cox_loss_and_its_gradient(ties: str) -> None:
    """With ties both forms of the loss are the sum written out, and their gradients are finite differences of it."""
    risk = torch.tensor([0.4, -1.2, 0.9, 2.0, 0.1, -0.7], dtype=torch.float64, requires_grad=True)
    sets = risk_sets(TIME, EVENT, ties)  # type: ignore[arg-type]
    for loss in (lambda r: cox_loss(r, TIME, EVENT, ties), lambda r: cox_loss_of_sets(r, *sets)):  # type: ignore[arg-type]
        assert loss(risk).item() == pytest.approx(partial_likelihood(risk.tolist(), ties), abs=1e-6)
    slope = torch.autograd.grad(cox_loss(risk, TIME, EVENT, ties), risk)[0]  # type: ignore[arg-type]
    for k in range(6):
        up, down = ([*risk.tolist()[:k], risk[k].item() + h, *risk.tolist()[k + 1:]] for h in (1e-5, -1e-5))
        assert slope[k].item() == pytest.approx(
            (partial_likelihood(up, ties) - partial_likelihood(down, ties)) / 2e-5, abs=1e-6)
    assert slope.sum().item() == pytest.approx(0.0, abs=1e-12), "a constant on all risks changes nothing"


def test_a_risk_set_holds_who_is_still_followed() -> None:
    """Row by row: 0 for those followed as long as the event, -inf for the others, log(1 - l/d) for tied events."""
    weights, who = risk_sets(TIME, EVENT, "efron")
    assert who.tolist() == [0, 1, 2, 5]
    assert torch.isinf(weights).tolist() == [[t < TIME[w] for t in TIME] for w in who]
    assert weights[0].exp().tolist() == [1, 0, 1, 0, 1, 1] and weights[1].exp().tolist() == [1] * 6
    assert weights[2].exp().tolist() == pytest.approx([0.5, 0, 0.5, 0, 1, 1])
    assert not risk_sets(TIME, EVENT & False, "breslow")[0].numel()


def test_a_separating_risk_has_no_loss_left() -> None:
    """When each event has by far the highest risk of those still followed, the loss goes to 0; reversed, it grows."""
    time, event = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, True, False])
    assert cox_loss(torch.tensor([60.0, 30.0, 0.0]), time, event).item() == pytest.approx(0.0, abs=1e-9)
    assert cox_loss(torch.tensor([0.0, 30.0, 60.0]), time, event).item() == pytest.approx((60 + 30) / 2, abs=1e-4)


def test_the_dice_loss_and_its_gradient() -> None:
    """Soft Dice 2 sum(p y) / (sum p + sum y) a patient; its gradient is the quotient rule's."""
    p = torch.rand(2, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = (torch.rand(2, 2, 3, 2, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    overlap, total = (p * y).sum((1, 2, 3)), p.sum((1, 2, 3)) + y.sum((1, 2, 3))
    loss = dice_loss(p, y)
    assert loss.item() == pytest.approx(-(2 * overlap / total).mean().item())
    by_hand = -(2 * y * total[:, None, None, None] - 2 * overlap[:, None, None, None]) / (
        total[:, None, None, None] ** 2) / 2
    torch.testing.assert_close(torch.autograd.grad(loss, p)[0], by_hand.detach())
    only = dice_loss(p, y, torch.tensor([False, True]))
    assert only.item() == pytest.approx(-(2 * overlap / total)[1].item())


def discrete_by_hand(logits: Tensor, time: list[float], event: list[bool], cuts: list[float]) -> float:
    """Minus the mean log-likelihood of Gensheimer and Narasimhan: products of 1 - h, and h where the event fell."""
    total, left = 0.0, [0.0, *cuts[:-1]]
    for row, t, e in zip(torch.sigmoid(logits).tolist(), time, event, strict=True):
        likelihood = 1.0
        for k, h in enumerate(row):
            if e and left[k] < t <= cuts[k]:
                likelihood *= h
            elif (e and t > cuts[k]) or (not e and t >= (left[k] + cuts[k]) / 2):
                likelihood *= 1 - h
        total -= math.log(likelihood)
    return total / len(time)


def test_the_discrete_loss() -> None:
    """For follow-up in every place of unequal intervals the loss is the likelihood written out."""
    cuts, time = [6.0, 24.0, 30.0], [2.0, 3.0, 6.0, 6.5, 14.9, 15.0, 27.0, 30.0, 31.0]
    for event in (True, False):
        logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        found = discrete_time_loss(logits, torch.tensor(time), torch.full((9,), event), torch.tensor(cuts))
        assert found.item() == pytest.approx(discrete_by_hand(logits, time, [event] * 9, cuts), abs=1e-6)


def test_the_discrete_loss_falls_with_the_right_hazards() -> None:
    """Hazards of nearly 1 where the event fell and nearly 0 before it leave nothing to learn, whatever comes later."""
    cuts = torch.tensor([10.0, 20.0, 30.0])
    right = torch.tensor([[-30.0, 30.0, 5.0]])
    assert discrete_time_loss(right, torch.tensor([15.0]), torch.tensor([True]), cuts).item() < 1e-9
    assert discrete_time_loss(-right, torch.tensor([15.0]), torch.tensor([True]), cuts).item() > 59


class Toy(nn.Module):
    """Risk = a * mean PET, probability = sigmoid(b * PET), with a norm that must not move beforehand."""

    def __init__(self, intervals: int = 0) -> None:
        super().__init__()
        self.config = DeepmtsConfig(intervals=intervals)
        self.head = nn.Linear(1, max(1, intervals))
        self.b = nn.Parameter(torch.tensor(0.7))
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=0.5)
        self.standard = Standardise(1)
        nn.init.constant_(self.head.weight, 1.5)
        nn.init.constant_(self.head.bias, 0.25)

    def forward(self, image: Tensor) -> Output:
        mean = image[:, 0].mean((1, 2, 3))[:, None]
        self.norm(mean)
        self.standard(mean)
        logits = self.head(mean)
        return Output(logits.sum(1), logits if self.config.intervals else None, torch.sigmoid(self.b * image[:, 0]))


IMAGES = torch.rand(6, 2, 2, 2, 2, generator=torch.Generator().manual_seed(5))
MASKS = (torch.rand(6, 2, 2, 2, generator=torch.Generator().manual_seed(6)) > 0.5).float()
KNOWN = torch.tensor([True, True, False, True, True, True])


def micro_batches(*sizes: int) -> list[MicroBatch]:
    """The six patients cut into so many; each has its share of the five masks."""
    ends = np.cumsum(sizes).tolist()
    return [MicroBatch(torch.arange(e - n, e), IMAGES[e - n:e], MASKS[e - n:e], KNOWN[e - n:e],
                       float(KNOWN[e - n:e].sum() / KNOWN.sum()), 7) for e, n in zip(ends, sizes, strict=True)]


def risk_set(loss: str = "cox-breslow", bank: int = 0) -> RiskSet:
    """The six patients, and `bank` earlier ones behind them."""
    time = torch.cat([TIME.float(), torch.arange(1.5, 1.5 + bank)])
    event = torch.cat([EVENT, torch.arange(bank) % 2 == 0])
    return RiskSet(6, time, event, torch.linspace(-1, 1, bank), loss, torch.tensor([2.0, 4.0]))  # type: ignore[arg-type]


def slopes(model: Toy) -> list[float]:
    return [float(p.grad.sum()) for p in (model.head.weight, model.b) if p.grad is not None]


@pytest.mark.parametrize("loss", ["cox-breslow", "cox-efron", "discrete"])
@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (2, 2, 2)])
def test_micro_batches_have_the_gradient_of_the_whole(loss: str, sizes: tuple[int, ...]) -> None:
    """However a batch is cut, losses, risks and gradients are those of the whole batch: they share one risk set."""
    found = []
    for parts in ((6,), sizes):
        model = Toy(2 if loss == "discrete" else 0).train()
        values, risks = backward(model, micro_batches(*parts), risk_set(loss), several=len(parts) > 1)  # type: ignore[arg-type]
        found.append((values, risks, torch.tensor(slopes(model))))
    assert found[0][0][1] > 0
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_the_losses_of_a_batch() -> None:
    """A batch's losses are Dice over the patients with a mask and the Cox loss; the gradient is that of their sum."""
    model, plain = Toy().train(), Toy().train()
    values, risks = backward(model, micro_batches(6), risk_set(), survival_weight=0.3)  # type: ignore[arg-type]
    output = plain(IMAGES)
    dice, survival = dice_loss(output.probability, MASKS, KNOWN), cox_loss(output.risk, TIME.float(), EVENT)
    (dice + 0.3 * survival).backward()
    assert values.tolist() == pytest.approx([dice.item(), survival.item()], rel=1e-5)
    torch.testing.assert_close(risks, output.risk.detach())
    assert slopes(model) == pytest.approx(slopes(plain), rel=1e-5)


def test_a_memory_bank_does_not_weaken_the_gradient() -> None:
    """With m earlier risks the loss is that of all n + m, its gradient (n + m) / n times as strong, for the batch
    alone."""
    model, plain = Toy().train(), Toy().train()
    followed = risk_set(bank=4)
    values, risks = backward(model, micro_batches(6), followed)  # type: ignore[arg-type]
    output = plain(IMAGES)
    survival = cox_loss(torch.cat([output.risk, followed.bank_risks]), followed.time_months, followed.event)
    (dice_loss(output.probability, MASKS, KNOWN) + survival * 10 / 6).backward()
    assert values[1].item() == pytest.approx(survival.item(), rel=1e-5) and risks.shape == (6,)
    assert slopes(model) == pytest.approx(slopes(plain), rel=1e-5)


def test_a_look_beforehand_moves_no_figure_twice() -> None:
    """The risks computed beforehand leave running figures alone: they follow each micro-batch once, then settle."""
    model, plain = Toy().train(), Toy().train()
    backward(model, micro_batches(3, 3), risk_set(), several=True)  # type: ignore[arg-type]
    for part in (IMAGES[:3], IMAGES[3:]):
        plain(part)
    plain.standard.settle()
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean)
    torch.testing.assert_close(model.standard.running_mean, plain.standard.running_mean)
    assert model.norm.momentum == 0.5 and model.standard.seen.item() == 1.0


def test_masks_alone() -> None:
    """Without a risk set only the segmentation is learned: no survival loss, no gradient in the head, no risks."""
    torch.manual_seed(0)
    model = DeepMTS(DeepmtsConfig(width=0.05)).train()
    image = torch.rand(1, 2, 32, 32, 32)
    part = MicroBatch(torch.arange(1), image, (image[:, 0] > 0.5).float(), torch.tensor([True]), 1.0, 3)
    values, risks = backward(model, [part], None)
    assert values[0] < 0 and values[1] == 0 and risks.numel() == 0
    assert all(p.grad is None for p in model.head.parameters())
    assert model.backbone.segment.weight.grad is not None


def test_the_head_learns_at_its_own_rate() -> None:
    """AdamW has two groups, every weight in one of them; the head's carries the multiplier."""
    optimiser = adamw(Toy(), 1e-3, head_rate=5.0, weight_decay=0.02)  # type: ignore[arg-type]
    rest, head = optimiser.param_groups
    assert (rest["factor"], head["factor"]) == (1.0, 5.0)
    assert {g["weight_decay"] for g in (rest, head)} == {0.02} and rest["eps"] == 1e-7
    assert [p.shape for p in head["params"]] == [(1, 1), (1,)] and len(rest["params"]) == 1


def test_seeds_of_several_numbers() -> None:
    """Seeds differ in every part and in their order, repeat, and fit a signed 64-bit number."""
    seeds = [mix(*parts) for parts in itertools.product((0, 1, 2**40), repeat=2)]
    assert len(set(seeds)) == 9 and all(0 <= seed < 2**63 for seed in seeds)
    assert mix(1, 2) == mix(1, 2) != mix(2, 1)


def test_the_rate_rises_and_falls() -> None:
    """A tenth of all steps up in a line to the full rate, then half a cosine down to one hundredth."""
    settings = DeepmtsSettings(epochs=10, learning_rate=2.0, schedule="one-cycle")
    rates = [learning_rate(settings, epoch=e, step=s, steps=20) for e in range(10) for s in range(20)]
    assert rates[:20] == pytest.approx([2.0 * k / 20 for k in range(1, 21)]) and rates[19] == max(rates)
    assert rates[-1] == pytest.approx(0.02) and all(a > b for a, b in itertools.pairwise(rates[19:]))
    assert rates[109] == pytest.approx(2.0 * (0.01 + 0.99 / 2)), "half-way between a tenth and the end"


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (49, 1), (50, 0.5), (99, 0.5), (100, 0.1), (199, 0.1),
                                               (200, 0.01), (900, 0.01)])
def test_the_rates_of_the_paper(epoch: int, factor: float) -> None:
    """The published rate is halved after 50 epochs, and a tenth and a hundredth after 100 and 200."""
    settings = DeepmtsSettings(learning_rate=4e-3, schedule="paper")
    assert learning_rate(settings, epoch=epoch, step=3, steps=9) == pytest.approx(4e-3 * factor)


def test_when_survival_is_learned() -> None:
    """After the epochs of segmentation, in the last epoch always; never by steps where the head is solved."""
    settings = DeepmtsSettings(epochs=10, segmentation_epochs=4, pooling="average")
    assert [is_joint(e, settings) for e in (0, 3, 4, 9)] == [False, False, True, True]
    late = DeepmtsSettings(epochs=3, segmentation_epochs=9, pooling="average")
    assert [is_joint(e, late) for e in (0, 1, 2)] == [False, False, True]
    assert not is_joint(9, DeepmtsSettings(epochs=10, segmentation_epochs=4, pooling="spatial"))
    assert is_joint(0, SingletaskSettings(network="csn-only"))


def test_a_session_leaves_torch_as_it_was() -> None:
    """Seeds and threads of a job stay its own."""
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    before = torch.get_num_threads()
    with torch_session(before + 1):
        assert torch.get_num_threads() == before + 1
        torch.manual_seed(99)
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == before


def cases(n: int = 6, masks: bool = True) -> list[Case]:
    return [Case(f"P{k}", IMAGES[k].numpy(), (MASKS[k] > 0).numpy() if masks and KNOWN[k] else None,
                 float(TIME[k]), bool(EVENT[k])) for k in range(n)]


def test_scores_come_in_the_order_of_the_rows() -> None:
    """Risks follow the rows, batch by batch; Dice is that of the mask at one half, of known masks alone."""
    model, rows = Toy(), np.array([4, 2, 0, 1, 5])
    risks, dice = scored(model, Feed(cases(), CPU), rows, size=2, device=Device(CPU, torch.float32))  # type: ignore[arg-type]
    with torch.no_grad():
        model.eval()
        output = model(IMAGES[rows])
    torch.testing.assert_close(risks, output.risk)
    hard = (output.probability > 0.5).float()
    by_hand = 2 * (hard * MASKS[rows]).sum((1, 2, 3)) / (hard + MASKS[rows]).sum((1, 2, 3))
    assert dice == pytest.approx(by_hand[torch.tensor([0, 2, 3, 4])].tolist()) and not model.training


def test_an_empty_mask_has_no_dice() -> None:
    """A known mask without a voxel has no Dice, which would be 0 / 0 where nothing is predicted; others keep theirs."""
    few = [*cases(2), replace(cases(1)[0], mask=np.zeros(IMAGES.shape[2:], dtype=bool))]
    place = Device(CPU, torch.float32)
    _, dice = scored(Toy(), Feed(few, CPU), np.array([0, 2]), size=2, device=place)  # type: ignore[arg-type]
    _, alone = scored(Toy(), Feed(few, CPU), np.array([0]), size=2, device=place)  # type: ignore[arg-type]
    assert len(dice) == 1 and dice == alone


def test_a_saved_training_is_whole_or_refused(tmp_path: Path) -> None:
    """Weights, moments, best weights and facts come back; one flipped byte is E-WEIGHTS and leaves the model alone."""
    path, model = tmp_path / "state.safetensors", Toy()
    optimiser = adamw(model, 1e-2, head_rate=1.0, weight_decay=0.0)  # type: ignore[arg-type]
    model(IMAGES).risk.sum().backward()
    optimiser.step()
    save_state(path, model, optimiser, {"b": torch.tensor(3.0)}, {"epoch": 4})
    other = Toy()
    again = adamw(other, 1e-2, head_rate=1.0, weight_decay=0.0)  # type: ignore[arg-type]
    best, facts = load_state(path, other, again)
    assert (best["b"].item(), facts) == (3.0, {"epoch": 4}) and torch.equal(other.head.weight, model.head.weight)
    kept = again.state[other.head.weight]
    assert kept["step"].item() == 1 and torch.equal(kept["exp_avg"], optimiser.state[model.head.weight]["exp_avg"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    untouched = Toy()
    with pytest.raises(BundleError) as error:
        load_state(path, untouched, again)
    assert (error.value.code, error.value.problems[0].where) == ("E-WEIGHTS", "state.safetensors")
    assert torch.equal(untouched.head.weight, Toy().head.weight)


def test_another_recipe_is_named() -> None:
    """E-RESUME names each setting that differs, also one that only one side has; equal recipes pass."""
    require_recipe({"a": 1}, {"a": 1}, where="deepmts")
    with pytest.raises(StoreError, match="other a, c") as error:
        require_recipe({"a": 1, "b": 2}, {"a": 2, "b": 2, "c": 3}, where="deepmts")
    assert (error.value.code, error.value.problems[0].where) == ("E-RESUME", "deepmts")


class WithDirect(nn.Module):
    """A risk head on four means of the image, three of them direct."""

    def __init__(self) -> None:
        super().__init__()
        self.config = DeepmtsConfig()
        self.head = RiskHead(HeadInputs((1,), direct=3), hidden=2, outputs=1, dropout=0.5, standardised=True)
        with torch.no_grad():
            self.head.last.weight.copy_(torch.tensor([[0.3, -0.2, 9.0, 9.0, 9.0]]))

    def forward(self, image: Tensor) -> Output:
        means = torch.cat([image.mean((3, 4)).flatten(1)], 1)
        return Output(self.head([means[:, :1]], None, means[:, 1:]), None, None)


@pytest.mark.parametrize(("loss", "ties"), [("cox-breslow", "breslow"), ("cox-efron", "efron")])
def test_direct_weights_are_scipys_minimum(loss: str, ties: str) -> None:
    """The direct weights minimise the partial likelihood plus l2 times their squares; the others stay."""
    model = WithDirect()
    refit.solve_direct(model, cases(), loss, torch.zeros(0), l2=0.01, batch_size=4)  # type: ignore[arg-type]
    means = IMAGES.mean((3, 4)).flatten(1)
    with torch.no_grad():
        model.eval()
        own = torch.cat([torch.relu(model.head.branches[0](model.head.norms[0](means[:, :1]))),
                         model.head.norms[1](means[:, 1:])], 1).double().numpy()
    rest = own[:, :2] @ np.array([0.3, -0.2])

    def value(w: np.ndarray) -> float:
        return partial_likelihood((rest + own[:, 2:] @ w).tolist(), ties) + 0.01 * float(w @ w)

    expected = minimize(value, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(model.head.last.weight[0, 2:].detach(), expected, atol=1e-3)
    assert model.head.last.weight[0, :2].tolist() == pytest.approx([0.3, -0.2])


def test_a_linear_head_gets_the_weights_of_the_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are standardised, limited and standardised again; a constant one has no weight, and the second fit has no
    measures."""
    vectors = torch.randn(6, len(NAMES), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 5
    vectors[:, 4] = 2.5
    model = nn.Module()
    model.head = LinearHead(len(NAMES))
    monkeypatch.setattr(refit, "embedded", lambda *_: vectors)
    seen = []

    def ridge(x: np.ndarray, surv: object, blocks: list[np.ndarray], *, left_out: bool) -> tuple[np.ndarray, dict]:
        seen.append((x, blocks))
        return np.arange(1.0, x.shape[1] + 1), {"variances": [1.0] * len(blocks)}

    facts, heads = refit.solve_linear(model, cases(), ridge, batch_size=2)  # type: ignore[arg-type]
    measures = np.array([name.startswith("measures") for name in NAMES])
    assert model.head.weight[4] == 0 and not model.head.plain[torch.from_numpy(measures)].any()
    assert seen[0][0].shape == (6, len(NAMES) - 1) and seen[1][0].shape == (6, len(NAMES) - 1 - measures.sum())
    z = np.delete(((vectors - vectors.mean(0)) / vectors.std(0, correction=0)).numpy(), 4, axis=1)
    limited_z = 3.0 * np.tanh(z / 3.0)
    np.testing.assert_allclose(seen[0][0], limited_z / limited_z.std(axis=0), atol=1e-9)
    for x, blocks in seen:
        assert sorted(np.concatenate(blocks).tolist()) == list(range(x.shape[1]))
    risk = model.head(vectors.float()).detach().numpy()
    np.testing.assert_allclose(risk, seen[0][0] @ np.arange(1.0, len(NAMES)), rtol=1e-4)
    assert set(facts) == {"with_measures", "without_measures", "weights"} and len(facts["weights"]) == len(NAMES)
    assert not heads and len(seen) == 2
    far = model.head.standardised(vectors.float() + 1e6)
    assert far[:, torch.arange(len(NAMES)) != 4].min() == LIMIT_SD[READING]


def test_heads_of_parts_speak_on_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """However strongly each fit shrinks, the risks in a head's own patients have the SD of the head of those whom the
    network learned from; the order of patients is that of the fit, and the network's own head stays as it is. Only
    that one, whose figures model.json keeps, is tried on patients left out."""
    vectors = torch.randn(30, len(NAMES), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    held = [None] * 18 + [0] * 6 + [1] * 6
    given = [replace(one, held_out=part) for one, part in zip(cases(6) * 5, held, strict=True)]
    monkeypatch.setattr(refit, "embedded", lambda *_: vectors)
    model, sizes = nn.Module(), []
    model.head = LinearHead(len(NAMES))

    def ridge(x: np.ndarray, surv: object, blocks: list[np.ndarray], *, left_out: bool) -> tuple[np.ndarray, dict]:
        sizes.append(len(x) * (1 if left_out else -1))
        return np.linspace(-1.0, 1.0, x.shape[1]) * len(sizes), {"variances": [1.0] * len(blocks)}

    heads = refit.solve_linear(model, given, ridge, batch_size=2)[1]  # type: ignore[arg-type]
    assert sizes == [30, 30, -24, -24, -24, -24, -18, -18] and sorted(heads) == [0, 1]
    every = limited((vectors - vectors.mean(0)) / vectors.std(0, correction=0))
    risk_of_all = (every / every.std(0, correction=0)) @ torch.linspace(-1.0, 1.0, len(NAMES), dtype=torch.float64)
    learned = vectors[:18]
    z = limited((learned - learned.mean(0)) / learned.std(0, correction=0)).numpy()
    z /= z.std(axis=0)
    for label, n_fit, kept in (("weight", 7, slice(None)), ("plain", 8, slice(0, len(NAMES) - 10))):
        wanted = (z[:, kept] @ np.linspace(-1.0, 1.0, z[:, kept].shape[1]) * n_fit).std(ddof=1)
        for subfold, head in heads.items():
            seen = [k for k, part in enumerate(held) if part != subfold]
            risk = head.standardised(vectors[seen]) @ getattr(head, label).double()
            assert risk.std().item() == pytest.approx(wanted, rel=1e-5)
    assert (model.head(vectors) - risk_of_all).abs().max() < 1e-4
