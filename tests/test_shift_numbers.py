"""What a scan is compared by, number by number: appearance, distances, groups of risks, counts that hide patients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from mtdlr.errors import MtdlrError, Problem
from mtdlr.imaging.appearance import APPEARANCE, COARSE, HU_EDGES, appearance, appearance_uptake
from mtdlr.imaging.plausible import air_share, mask_doubts, seen_by_both
from mtdlr.shift import Reference, ReferenceGroup, Shift, TrainingRisks
from mtdlr.shift.aggregates import Aggregates, margins, margins_text, salted
from mtdlr.shift.distance import PHYSICAL, REFUSE, WARN, outside
from mtdlr.shift.network import judge_networks, network_groups
from mtdlr.study import Study
from mtdlr.volume import Volume

N = 64
MM = (2.0, 2.0, 2.0)


def volume(array: NDArray) -> Volume:
    return Volume.on_grid(array, MM)


def ball(radius: float, *, middle: tuple[float, float, float] = (32.0, 32.0, 32.0)) -> NDArray[np.bool_]:
    return np.asarray(sum((i - m)**2 for i, m in zip(np.indices((N, N, N)), middle, strict=True)) <= radius**2)


def head(seed: int = 0, noise_suv: float = 0.0, noise_hu: float = 0.0) -> tuple[Volume, Volume, Volume]:
    """(PET, CT, region): a ball of soft tissue of SUV 2 with a hot spot of 8, in air."""
    random, body, spot = np.random.default_rng(seed), ball(24), ball(6, middle=(30, 34, 40))
    suv = np.where(spot, 8.0, np.where(body, 2.0, 0.0)) + noise_suv * random.normal(size=body.shape) * body
    hu = np.where(body, 40.0, -1000.0) + noise_hu * random.normal(size=body.shape)
    return volume(suv.astype(np.float32)), volume(hu.astype(np.float32)), volume(np.zeros((N, N, N), np.uint8))


# --- appearance -------------------------------------------------------------------------------------------------------


def test_every_group_has_its_numbers() -> None:
    """Each group has as many numbers as it has names; anatomy is two coarse pictures; all are finite."""
    found = appearance(*head(noise_suv=0.1, noise_hu=10.0))
    assert set(found) == set(APPEARANCE) - {"uptake_time", "protocol"}
    for name, values in found.items():
        assert len(values) == (len(APPEARANCE[name].names) or 2 * COARSE**3), name
        assert np.isfinite(values).all(), name


def test_uptake_is_that_of_the_body() -> None:
    """Log of SUV + 0.05 at the median, 90 and 99 %, in what CT shows as body alone; air does not count."""
    pet, ct, region = head()
    found = np.exp(appearance_uptake(pet, ct, region)) - 0.05
    assert found[:2].tolist() == pytest.approx([2.0, 2.0], abs=1e-3) and found[2] == pytest.approx(8.0, abs=0.6)
    doubled = appearance_uptake(pet.with_array(2 * pet.array), ct, region)
    assert np.exp(doubled) - 0.05 == pytest.approx(2 * found, abs=1e-3)


def test_tissue_shares_are_those_of_the_voxels() -> None:
    """The squares of `ct_numbers` are shares that add up to 1: here of air and of soft tissue, by the ball's volume."""
    found = appearance(*head())["ct_numbers"]**2
    assert found.sum() == pytest.approx(1.0)
    assert found[3] == pytest.approx(4 / 3 * np.pi * 24**3 / N**3, abs=0.03)
    assert found[0] == pytest.approx(1 - 4 / 3 * np.pi * 24**3 / N**3, abs=0.05)
    assert len(HU_EDGES) + 1 == len(found)


def test_noise_is_measured_in_hu_and_over_the_level() -> None:
    """White noise of some SD: its mixed second differences over 4 have 1.5 times it, and their median size .6745 of
    that. A CT's noise is in HU, a PET's is over its level, and without noise both are as good as none."""
    random, region, sd = np.random.default_rng(0), head()[2], 20.0
    for level in (2.0, 6.0):
        white = random.normal(size=(N, N, N))
        pet, ct = volume(level * (1 + sd / 100 * white)), volume(40.0 + sd * white)
        found = appearance(pet, ct, region)
        assert np.exp(found["ct_noise"][0]) - 1.0 == pytest.approx(0.6745 * 1.5 * sd, rel=0.1), level
        assert np.exp(found["pet_noise"][0]) == pytest.approx(0.6745 * 1.5 * sd / 100, rel=0.1), level
    quiet = appearance(volume(np.full((N, N, N), 2.0)), volume(np.full((N, N, N), 40.0)), region)
    assert np.exp(quiet["ct_noise"][0]) == pytest.approx(1.0) and np.exp(quiet["pet_noise"][0]) < 2e-4


def test_pictures_show_where_and_not_how_much() -> None:
    """Twice the uptake everywhere leaves the pictures as they are; a mirrored head mirrors them."""
    pet, ct, region = head()
    everywhere = pet.with_array(np.maximum(pet.array, 2.0))
    once, twice = (appearance(pet.with_array(k * everywhere.array), ct, region)["anatomy"] for k in (1, 2))
    assert np.abs(twice - once).max() < 0.05
    found = appearance(pet, ct, region)["anatomy"]
    turned = appearance(pet.with_array(pet.array[:, :, ::-1]), ct.with_array(ct.array[:, :, ::-1]), region)["anatomy"]
    shape = (2, COARSE, COARSE, COARSE)
    assert np.abs(turned.reshape(shape) - found.reshape(shape)[..., ::-1]).max() < 0.5
    assert np.abs(turned - found).max() > 0.5


def test_pet_and_ct_of_one_body_fit() -> None:
    """Moving the PET by 16 mm against the CT lowers outlines and edges in common, and finds uptake in air."""
    pet, ct, region = head()
    shifted = pet.with_array(np.roll(pet.array, 8, axis=2))
    fit, off = (appearance(one, ct, region) for one in (pet, shifted))
    names = APPEARANCE["together"].names
    for name in ("edges in common", "outlines in common", "uptake that tissue explains"):
        assert fit["together"][names.index(name)] > off["together"][names.index(name)] + 0.02, name
    at = names.index("log uptake in air")
    assert off["together"][at] > fit["together"][at] + 1.0
    assert fit["edges"][0] > off["edges"][0] + 0.1 and fit["together"][names.index("outlines in common")] > 0.9


def test_nothing_to_see_is_finite() -> None:
    """A PET of zeros and a CT of air have numbers too."""
    flat = appearance(volume(np.zeros((N, N, N), np.float32)), volume(np.full((N, N, N), -1000.0, np.float32)),
                      head()[2])
    assert all(np.isfinite(values).all() for values in flat.values())


# --- masks that can be no tumour --------------------------------------------------------------------------------------


def test_a_mask_that_is_too_large_or_holds_air() -> None:
    """More than half of the body is W-MASKVOLUME, more than a tenth of air W-MASKAIR; both say how much."""
    _, ct, _ = head()
    assert mask_doubts(volume(ball(12)), ct) == ()
    assert [p.code for p in mask_doubts(volume(ball(22)), ct)] == ["W-MASKVOLUME"]
    edge = volume(ball(8, middle=(32, 32, 54)))
    share = air_share(edge, ct)
    (doubt,) = mask_doubts(edge, ct)
    assert doubt.code == "W-MASKAIR" and 0.1 < share < 0.9 and doubt.found == f"{share:.0%} of it"
    assert air_share(volume(ball(0.5, middle=(1, 1, 1))), ct) == 1.0


def test_what_both_scans_see() -> None:
    """A voxel counts where its centre lies in PET and in CT."""
    region = volume(np.zeros((4, 4, 4)))
    pet, ct = (Volume.on_grid(np.zeros(shape), MM) for shape in ((2, 4, 4), (4, 4, 3)))
    found = seen_by_both(region, pet, ct)
    assert found.sum() == 2 * 4 * 3 and found[:2, :, :3].all()


# --- distances --------------------------------------------------------------------------------------------------------


def rows(n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, 3)) * (1.0, 2.0, 0.5) + (5.0, 0.0, -1.0)


def test_the_mean_is_no_distance_away() -> None:
    """The mean has distance 0 and everybody beyond it; further out there are fewer and fewer."""
    group = ReferenceGroup.fit(rows(100))
    assert group is not None and group.distances(group.mean[None])[0] == pytest.approx(0.0, abs=1e-12)
    assert group.beyond(group.mean) == 1.0
    away = [group.beyond(group.mean + k * group.scale) for k in (1, 2, 4, 8)]
    assert all(a > b for a, b in pairwise(away)) and away[-1] < 1e-3


def test_another_unit_is_the_same_distance() -> None:
    """Numbers in another unit, and shifted, have the same distances."""
    x = rows(80)
    group, other = ReferenceGroup.fit(x), ReferenceGroup.fit(x * (10.0, 0.1, 3.0) + 7.0)
    assert group is not None and other is not None
    np.testing.assert_allclose(other.distances(x * (10.0, 0.1, 3.0) + 7.0), group.distances(x), rtol=1e-6)


def test_a_tolerance_forgives() -> None:
    """A number that may differ by some SD between scanners lies less far out."""
    strict, mild = (ReferenceGroup.fit(rows(60), tolerance=t) for t in (0.0, 3.0))
    assert strict is not None and mild is not None
    new = strict.mean + np.array([6.0, 0.0, 0.0])
    assert mild.beyond(new) > strict.beyond(new)


def test_the_tail_is_that_of_f() -> None:
    """The share beyond is scipy's F tail of the distance over its typical value, with half the patients below."""
    group = ReferenceGroup.fit(rows(100))
    assert group is not None
    new = group.mean + 2.5 * group.scale
    expected = stats.f.sf(group.distances(new[None])[0] / group.typical, group.freedom, 50.0)
    assert group.beyond(new) == pytest.approx(expected)


def test_too_few_patients_have_no_reference() -> None:
    """19 patients make no group, 20 do; held-out patients make the usual distance of theirs."""
    assert ReferenceGroup.fit(rows(19)) is None and ReferenceGroup.fit(rows(20)) is not None
    apart = ReferenceGroup.fit_apart(rows(50), rows(12, 1))
    assert apart.n == 12 and apart.typical == pytest.approx(apart.distances(rows(12, 1)).mean())


def test_warned_and_refused() -> None:
    """Beyond 95 % a patient is warned of, beyond 99.9 % refused; errors come first, and accepting makes warnings."""
    group = ReferenceGroup.fit(rows(200))
    assert group is not None
    reference = Reference({"features": replace(group, names=("a", "b", "c"))}, {}, 200)
    seen = {}
    for k in np.linspace(0, 8, 60):
        found = reference.judge({"features": group.mean + k * group.scale})
        level = 0 if found.percentile <= WARN else 1 if found.percentile <= REFUSE else 2
        assert [p.code for p in found.problems] == [[], ["W-SHIFT"], ["E-SHIFT"]][level]
        seen[level] = found
    assert set(seen) == {0, 1, 2} and seen[2].refused and not seen[1].refused
    accepted = seen[2].accepted()
    assert not accepted.refused and [p.code for p in accepted.problems] == ["W-SHIFT"]
    assert "Accepted on request" in accepted.problems[0].remedy


def test_what_cannot_be_compared_has_no_percentile() -> None:
    """Without a group the percentile is nan and null in JSON; shifts that are joined keep the larger one."""
    empty = Shift({})
    assert np.isnan(empty.percentile) and empty.as_dict()["percentile"] is None and not empty.refused
    warned = Shift({"a": 0.97}, (outside("a", "1", "2", refused=False),))
    joined = warned.joined(Shift({"b": 0.2}))
    assert joined.percentile == 0.97 and set(joined.percentiles) == {"a", "b"} and len(joined.problems) == 1


@pytest.mark.parametrize("name", PHYSICAL)
def test_physical_limits(name: str) -> None:
    """Each end of a range is possible, what lies beyond is E-PHYSICAL with value, unit and range."""
    low, high, _, unit = PHYSICAL[name]
    reference = Reference({}, {}, 0)
    for value in (low, high):
        assert reference.judge({}, {name: value}).problems == ()
    for value in (low - 0.01 * abs(low) - 1e-6, high + 0.01 * abs(high)):
        (problem,) = reference.judge({}, {name: value}).problems
        assert problem.code == "E-PHYSICAL" and problem.expected == f"{low:g} to {high:g} {unit}"


def test_labels_of_few_patients_stand_together() -> None:
    """Five patients of a scanner are counted, four are `other` together with others, and fewer than five not at all."""
    names = ["GE"] * 5 + ["Siemens"] * 4 + ["Philips"] * 2
    reference = Reference.fit([{} for _ in names], [{"vendor": name} for name in names])
    assert reference.counts == {"vendor": {"GE": 5, "other": 6}}
    assert Reference.fit([{}] * 9, [{"vendor": n} for n in names[:9]]).counts == {"vendor": {"GE": 5}}
    (problem,) = reference.judge({}, labels={"vendor": "Canon"}).problems
    assert (problem.code, problem.found, problem.expected) == ("W-UNSEEN", "Canon", "GE or other")
    assert reference.judge({}, labels={"vendor": "GE", "kernel": "B30f"}).problems == ()


def test_each_network_is_judged_by_its_own_fold() -> None:
    """Network k is fitted without fold k; a patient is judged by the mean of the networks' relative distances."""
    random = np.random.default_rng(0)
    ids = [f"P{k:03d}" for k in range(60)]
    found = {i: random.normal(size=(2, 3)).astype(np.float32) for i in ids}
    folds = {i: k % 2 for k, i in enumerate(ids)}
    groups = network_groups(found, folds)
    assert set(groups) == {"network 0", "network 1"}
    for k in (0, 1):
        seen = np.array([found[i][k] for i in ids if folds[i] != k], dtype=np.float64)
        np.testing.assert_allclose(groups[f"network {k}"].mean, seen.mean(axis=0))
    new = np.full((2, 3), 2.0, np.float32)
    squared = np.mean([g.distances(new[k][None].astype(float))[0] / g.typical for k, g in enumerate(groups.values())])
    freedom, n = (np.mean([getattr(g, name) for g in groups.values()]) for name in ("freedom", "n"))
    judged = judge_networks(Reference(groups, {}, 60), new)
    assert judged.percentile == pytest.approx(stats.f.cdf(squared, freedom, n / 2))
    assert judge_networks(Reference(groups, {}, 60), None).percentiles == {}


# --- aggregates -------------------------------------------------------------------------------------------------------


def test_where_a_risk_stands() -> None:
    """The share below rises with the risk, is one half at the median, and stops half a group from either end."""
    risks = np.random.default_rng(0).normal(size=103)
    kept = TrainingRisks.fit([*risks, np.nan])
    assert kept is not None and sum(kept.counts) == 103 and min(kept.counts) >= 5
    places = [kept.share_below(r) for r in np.linspace(-5, 5, 41)]
    assert places == sorted(places)
    assert places[0] == pytest.approx(kept.counts[0] / 2 / 103) == kept.share_below(-99.0)
    assert places[-1] == pytest.approx(1 - kept.counts[-1] / 2 / 103)
    assert kept.share_below(float(np.median(risks))) == pytest.approx(0.5, abs=0.03)
    assert np.average(kept.means, weights=kept.counts) == pytest.approx(risks.mean())
    assert TrainingRisks.fit(np.arange(19.0)) is None


@pytest.mark.parametrize("values", [
    {"counts": [5, 4], "means": [0.0, 1.0]}, {"counts": [5], "means": [0.0, 1.0]}, {"counts": [], "means": []},
    {"counts": [5, 5], "means": [1.0, 0.0]}, {"counts": [5, 5], "means": [0.0, float("nan")]}])
def test_groups_that_no_fit_gives(values: dict[str, list[float]]) -> None:
    """Groups of fewer than five, of unequal lengths, out of order or not finite are refused."""
    with pytest.raises(ValueError, match="no groups"):
        TrainingRisks.from_dict(values)


def test_margins_hide_small_counts() -> None:
    """One to four patients of a level are hidden, and the next smallest levels with them until five patients are, so
    that no total tells."""
    settings = Study.of({"cohort": {"continuous": ["age"], "factors": {"t_stage": ["T1", "T2", "T3"]}}}).cohort
    few = pd.DataFrame({"t_stage": ["T1"] + ["T2"] * 2 + ["T3"] * 9, "event": [1] * 6 + [0] * 6})
    assert [row["n"] for row in margins(few, settings) if row["level"].startswith("T")] == [None, None, None]
    table = pd.DataFrame({"t_stage": ["T1"] * 3 + ["T2"] * 10 + ["T3"] * 20, "age": np.arange(33.0),
                          "event": [1] * 12 + [0] * 21})
    kept = {(row["label"], row.get("level", "")): row for row in margins(table, settings)}
    counts = {level: row["n"] for (_, level), row in kept.items() if level.startswith("T")}
    assert counts == {"T1": None, "T2": None, "T3": 20}
    assert next(row for (_, level), row in kept.items() if not level)["quartiles"] == [8.0, 16.0, 24.0]
    text = margins_text(margins(table, settings), 33)
    assert "20 (60.6%)" in text.values() and "hidden" in text.values() and "16 (8-24)" in text.values()
    assert text["Event", "Event"] == "12 (36.4%)"


def test_a_training_image_is_known_by_its_salted_hash() -> None:
    """A model knows an image by sixteen digits that depend on its salt, and keeps no hash of the image itself."""
    mine, other = salted("salt", "abc"), salted("other", "abc")
    assert len(mine) == 16 and int(mine, 16) >= 0 and mine != other
    kept = Aggregates(Reference({}, {}, 0), None, (), "salt", (mine,))
    assert kept.holds(["abc"]) and kept.holds(["x", "abc"]) and not kept.holds(["x"]) and not kept.holds([])
    assert not replace(kept, salt="other").holds(["abc"])


def test_a_group_is_named_in_words() -> None:
    """A message names the group in words; a refusal says how it is overridden, a warning asks to look."""
    refused, warned = (outside("pet_noise", "3", "1 to 2", refused=r) for r in (True, False))
    assert refused.code == "E-SHIFT" and "the PET's noise lies outside" in refused.what
    assert warned.code == "W-SHIFT" and "at the edge of" in warned.what
    assert "--accept-out-of-distribution" in refused.remedy and isinstance(warned, Problem)


def test_missing_aggregates_are_an_error(tmp_path: object) -> None:
    """A folder without aggregates, or with other things in the file, is E-REFERENCE."""
    folder = tmp_path
    with pytest.raises(MtdlrError, match="E-REFERENCE"):
        Aggregates.load(folder)  # type: ignore[arg-type]
    (folder / "aggregates.json").write_text('{"bound": 3}')  # type: ignore[operator]
    with pytest.raises(MtdlrError, match="E-REFERENCE"):
        Aggregates.load(folder)  # type: ignore[arg-type]
