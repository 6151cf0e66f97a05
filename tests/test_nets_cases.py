"""Splits and batches: balanced, reproducible, and never endless."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdlr.errors import FitError, ScanError
from mtdlr.nets.cases import Case, check_cases, digest_of, epoch_batches, folds, inner_split


def _case(name: str, event: bool, *, months: float = 10.0, shape=(2, 32, 32, 32), mask: bool = True,
          stratum: str = "") -> Case:
    return Case(name, np.zeros(shape, np.float32), np.zeros(shape[1:], bool) if mask else None, months, event, stratum)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("AB")), min_size=10, max_size=60), st.integers(2, 5),
       st.integers(0, 99))
def test_folds_are_balanced_over_events_and_centres(people, n_folds: int, seed: int):
    """Folds differ by at most one patient in size, and by at most two in any mix of event and centre."""
    ids = [f"P{k}" for k in range(len(people))]
    events, strata = [e for e, _ in people], [s for _, s in people]
    fold = folds(ids, events, strata, n_folds, seed)
    sizes = np.bincount(fold, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1
    for cell in {(e, s) for e, s in people}:
        inside = np.bincount(fold[[p == cell for p in people]], minlength=n_folds)
        assert inside.max() - inside.min() <= 1


def test_folds_do_not_depend_on_the_order_of_the_list():
    """Shuffling the patients moves nobody to another fold; another seed does."""
    ids, events = [f"P{k}" for k in range(40)], [k % 3 == 0 for k in range(40)]
    first = dict(zip(ids, folds(ids, events, ["A"] * 40, 5, 0), strict=True))
    order = np.random.default_rng(0).permutation(40)
    shuffled = folds([ids[k] for k in order], [events[k] for k in order], ["A"] * 40, 5, 0)
    assert {ids[k]: f for k, f in zip(order, shuffled, strict=True)} == first
    assert dict(zip(ids, folds(ids, events, ["A"] * 40, 5, 1), strict=True)) != first


def test_images_of_one_patient_stay_together():
    """Rows with one id get one fold."""
    ids = [f"P{k // 2}" for k in range(20)]
    fold = folds(ids, [k // 2 % 2 for k in range(20)], [""] * 20, 3, 0)
    assert (fold[::2] == fold[1::2]).all()


def test_inner_split_takes_its_share_of_events_from_the_given_patients_only():
    """A seventh of the patients, with a seventh of the events, is held back; nobody is in both parts."""
    cases = [_case(f"P{k}", k % 4 == 0) for k in range(56)]
    fit, held = inner_split(cases, 0.15, 0)
    assert sorted([*fit, *held]) == list(range(56)) and len(held) == 8
    assert sum(cases[i].event for i in held) == 2


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.booleans(), min_size=4, max_size=40), st.integers(2, 9), st.sampled_from(["balanced", "uniform"]))
def test_batches_are_full_and_nobody_is_twice_in_one(events, size: int, sampling):
    """Whatever the mix of events, also none at all, batches end, fill up and hold distinct patients."""
    batches = epoch_batches(events, size=size, steps=None, sampling=sampling, seed=0, epoch=0)
    assert len(batches) == max(1, round(len(events) / size))
    for rows in batches:
        assert len(set(rows.tolist())) == len(rows) == min(size, len(events))


def test_balanced_batches_are_half_events_and_use_everybody_in_turn():
    """With 10 events among 50, every batch of 8 has 4; all events and most of the others are seen in an epoch."""
    events = np.arange(50) < 10
    batches = epoch_batches(events, size=8, steps=None, sampling="balanced", seed=0, epoch=0)
    assert all(events[rows].sum() == 4 for rows in batches)
    seen = np.unique(np.concatenate(batches))
    assert events[seen].sum() == 10 and len(seen) > 30


def test_too_few_events_leave_their_places_to_the_censored():
    """With one event only, batches still have their size."""
    batches = epoch_batches([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], size=6, steps=3, sampling="balanced", seed=0, epoch=0)
    assert [len(rows) for rows in batches] == [6, 6, 6] and all(0 in rows for rows in batches)


def test_paper_batches_draw_with_replacement():
    """The published sampling can hold a patient twice."""
    batches = epoch_batches([1, 1, 0, 0, 0], size=8, steps=20, sampling="paper", seed=0, epoch=0)
    assert all((rows < 2).sum() == 4 for rows in batches)
    assert any(len(set(rows.tolist())) < 8 for rows in batches)


def test_epochs_differ_and_repeat():
    """Batches follow from seed and epoch."""
    def draw(seed: int, epoch: int) -> list[list[int]]:
        return [r.tolist() for r in epoch_batches(np.arange(40) % 4 == 0, size=8, steps=None, sampling="balanced",
                                                  seed=seed, epoch=epoch)]
    assert draw(0, 1) == draw(0, 1) != draw(0, 2) and draw(0, 1) != draw(1, 1)


@pytest.mark.parametrize(("cases", "masks", "error", "code"), [
    ([_case("a", False)] * 5, False, FitError, "E-NOEVENT"),
    ([_case("a", True)] * 3 + [_case("b", False)], False, FitError, "E-NOEVENT"),
    ([_case(c, c > "b", mask=False) for c in "abcde"], True, FitError, "E-NOMASK"),
    ([_case(c, c > "b") for c in "abcd"] + [_case("e", True, shape=(2, 32, 32, 48))], True, ScanError, "E-IMAGE"),
    ([_case(c, c > "b", shape=(2, 32, 32, 16)) for c in "abcde"], True, ScanError, "E-IMAGE"),
])
def test_patients_no_network_can_learn_from_are_refused(cases, masks: bool, error, code: str):
    """No events, no masks where they are needed, mixed or small grids: one typed error each."""
    with pytest.raises(error) as caught:
        check_cases(cases, masks)
    assert caught.value.code == code


def test_a_voxel_that_is_not_finite_is_refused_with_its_patient():
    """NaN in an image names the patient and how many voxels."""
    cases = [_case(c, c > "b") for c in "abcde"]
    cases[2].image[0, 3, 3, 3] = np.nan
    with pytest.raises(ScanError, match="patient c.*1 voxels"):
        check_cases(cases, True)


def test_the_digest_tells_patients_follow_up_and_masks_apart():
    """Another id, time, status or a missing mask is another set of patients."""
    first = digest_of([_case("a", True), _case("b", False)])
    others = [[_case("a", True), _case("c", False)], [_case("a", True), _case("b", True)],
              [_case("a", True, months=10.5), _case("b", False)], [_case("a", True, mask=False), _case("b", False)]]
    assert len({first, *map(digest_of, others)}) == 5
