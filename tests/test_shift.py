"""Shift: percentiles that hold, refusals that name their cause, and references that keep no patient."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from one_prediction import prepared

from mtdlr.errors import BundleError
from mtdlr.imaging import grid
from mtdlr.imaging.appearance import appearance
from mtdlr.shift import (
    DESCRIPTION,
    Reference,
    ReferenceGroup,
    describe,
    load_description,
    patient_numbers,
    physical_values,
)
from mtdlr.shift.aggregates import late_numbers
from mtdlr.shift.network import judge_networks, network_groups
from mtdlr.volume import Volume


def _rows(n: int, seed: int, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.4, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 2.0]])[:d, :d]
    return np.asarray(rng.standard_normal((n, d)) @ mixing + 5.0)


def _reference(n: int = 200) -> Reference:
    rows = _rows(n, 0)
    labels = [{"vendor": "GE" if k % 2 else "Siemens", "kernel": "B30" if k > 3 else "H70"} for k in range(n)]
    return Reference.fit([{"features": row} for row in rows], labels, names={"features": ("a", "log b", "c")})


def test_percentiles_hold_in_new_patients_of_the_same_kind() -> None:
    """Of new patients like those of training, about 5 % lie beyond the 95th percentile and hardly any is refused."""
    reference = _reference()
    found = np.array([reference.judge({"features": row}).percentile for row in _rows(4000, 1)])
    assert np.mean(found > 0.95) == pytest.approx(0.05, abs=0.025)
    assert np.mean(found > 0.999) < 0.01


def test_percentile_is_hotellings_for_few_numbers() -> None:
    """Without components left out, the distance is Mahalanobis' with the ridge on the scaled numbers, by hand."""
    x = _rows(300, 2)
    group = ReferenceGroup.fit(x)
    assert group is not None
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    precision = np.linalg.inv(np.cov(z.T) + 0.02 * np.eye(3))
    np.testing.assert_allclose(group.distances(x), np.einsum("ni,ij,nj->n", z, precision, z), rtol=1e-9)


def test_correlated_numbers_are_judged_together() -> None:
    """A patient whose numbers are each usual, but not together, is outside."""
    x = np.random.default_rng(3).standard_normal(200)
    rows = np.column_stack([x, x + 0.05 * np.random.default_rng(4).standard_normal(200)])
    reference = Reference.fit([{"features": row} for row in rows])
    assert reference.judge({"features": np.array([1.5, 1.5])}).percentile < 0.95
    assert reference.judge({"features": np.array([1.5, -1.5])}).refused


def test_refusal_names_what_is_out_of_range() -> None:
    """The message holds the number, what was found and what was expected; a logarithm is printed as the value."""
    shift = _reference().judge({"features": np.array([5.0, 12.0, 5.0])})
    assert shift.refused and shift.problems[0].code == "E-SHIFT"
    assert shift.problems[0].found.startswith("b 1.63e+05") and " to " in shift.problems[0].expected


def test_accepted_refusals_become_warnings() -> None:
    """A refusal that was overridden is kept as a warning, on record."""
    shift = _reference().judge({"features": np.full(3, 60.0)}, {"suv_top": 9000.0}).accepted()
    assert not shift.refused
    assert {p.code for p in shift.problems} == {"W-SHIFT", "W-PHYSICAL"}


def test_impossible_values_are_refused_without_any_reference() -> None:
    """SUV in Bq/ml and CT without air are refused whatever the model was trained on."""
    shift = Reference({}, {}, 0).judge({}, {"suv_top": 21000.0, "hu_low": 3.0})
    assert shift.refused and [p.code for p in shift.problems] == ["E-PHYSICAL", "E-PHYSICAL"]
    assert np.isnan(shift.percentile) and shift.as_dict()["percentile"] is None


def test_unseen_scanner_is_said() -> None:
    """A vendor that the training cohort did not have is warned of."""
    judged = _reference().judge({"features": np.full(3, 5.0)}, labels={"vendor": "Philips"})
    assert [p.code for p in judged.problems] == ["W-UNSEEN"] and not judged.refused


def test_no_number_stands_on_fewer_than_five_patients() -> None:
    """Labels of one to four patients are not kept, and a group below 20 patients has no reference."""
    assert _reference().counts == {"kernel": {"B30": 196}, "vendor": {"GE": 100, "Siemens": 100}}
    assert ReferenceGroup.fit(_rows(19, 5)) is None


def test_no_training_row_is_kept(tmp_path: Path) -> None:
    """No stored array has as many rows as patients, and none of their numbers is in it."""
    rows = np.random.default_rng(6).standard_normal((40, 300))
    Reference.fit([{"anatomy": row} for row in rows]).save(tmp_path)
    with np.load(tmp_path / "reference.npz") as stored:
        assert max(len(np.atleast_2d(stored[name])) for name in stored) <= 8
        values = np.concatenate([stored[name].ravel() for name in stored])
    assert np.intersect1d(values, rows.astype(np.float32).ravel()).size == 0


def test_it_is_read_back_the_same(tmp_path: Path) -> None:
    """A saved reference judges as before; a damaged one is refused with its code."""
    reference = _reference()
    reference.save(tmp_path)
    row = {"features": np.array([6.0, 4.0, 9.0])}
    assert Reference.load(tmp_path).judge(row).percentile == pytest.approx(reference.judge(row).percentile, abs=1e-5)
    (tmp_path / "reference.npz").write_bytes(b"PK not a zip")
    with pytest.raises(BundleError, match="E-REFERENCE"):
        Reference.load(tmp_path)


def test_missing_groups_are_not_judged() -> None:
    """A patient without some numbers, or with other ones, is judged by the rest."""
    reference = _reference()
    assert reference.judge({"features": np.array([np.nan, 1.0, 1.0])}).percentiles == {}
    assert reference.judge({"features": np.ones(2)}).percentiles == {}


def test_vendor_kernel_and_uptake_time_are_compared(tmp_path: Path) -> None:
    """DICOM headers give vendors, kernel and minutes from injection to scan; a model counts and compares them."""
    patient, _ = prepared()
    known = replace(patient, audit={"pet": {"suv": {"uptake_min": 61.0}, "scanner": {"vendor": "GE", "year": "2019"}},
                                    "ct": {"scanner": {"kernel": "B31f"}}})
    (tmp_path / DESCRIPTION).write_text(json.dumps(describe(known)))
    told = load_description(tmp_path)
    assert dict(told.labels) == {"PET vendor": "GE", "CT kernel": "B31f"}
    assert told.numbers["uptake_time"].tolist() == [61.0]
    others = [{"uptake_time": np.array([60.0 + k % 7])} for k in range(30)]
    reference = Reference.fit(others, [told.labels] * 30)
    assert reference.judge(told.numbers, labels=told.labels).problems == ()
    late = reference.judge({"uptake_time": np.array([150.0])}, labels={"CT kernel": "H70"})
    assert late.problems[0].code == "E-SHIFT" and late.problems[0].found == "minutes from injection to scan 150"
    assert [p.found for p in late.problems if p.code == "W-UNSEEN"] == ["H70"]
    bare = describe(replace(patient, audit={}))
    assert "uptake_time" not in bare["numbers"] and bare["labels"] == {}


def _bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "bench_shift.py"
    spec = importlib.util.spec_from_file_location("bench_shift", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_unfit_scans_are_refused_and_fit_ones_are_not() -> None:
    """Nine faults are refused on both scanners; new patients of both scanners are not."""
    bench = _bench()
    found = [bench.prepared(bench.scan_of(p.pet, p.ct)) for p in bench.patients("training", 30, 11)]
    reference = Reference.fit([patient_numbers(one) for one in found])
    for center, split in (("A", "internal"), ("B", "external")):
        people = list(bench.patients(split, 3, 12))
        for p in people:
            patient = bench.prepared(bench.scan_of(p.pet, p.ct))
            assert not reference.judge(patient_numbers(patient), physical_values(patient)).refused
        rng = np.random.default_rng(13)
        faulty = {name: bench.elsewhere(place, center, rng) for name, place in bench.PLACES.items()}
        faulty |= {name: bench.prepared(make()) for name, make in bench.faults(*people[:2], rng).items()}
        refused = {name: bench.outside(reference, patient)[1] for name, patient in faulty.items()}
        assert all(refused.values()), (center, refused)


def test_scores_and_features_warn_and_refuse_nobody() -> None:
    """What is known only after scoring is a percentile and, beyond the 95th, W-SHIFT; no refusal."""
    late = _reference().judge({"features": np.array([5.0, 12.0, 5.0])}, refuses=False)
    assert not late.refused and [p.code for p in late.problems] == ["W-SHIFT"] and late.percentile > 0.999
    assert late.problems[0].found.startswith("b ") and "features of the signature" in late.problems[0].what
    earlier = Reference.fit([{"uptake": row} for row in _rows(200, 5)]).judge({"uptake": np.full(3, 5.0)})
    both = earlier.joined(late)
    assert set(both.percentiles) == {"uptake", "features"} and both.percentile == late.percentile
    assert both.problems == (*earlier.problems, *late.problems)


def test_late_numbers_are_the_scores_and_the_signatures_features() -> None:
    """The scores stand in their fixed order; a signature without features adds none."""
    scores = pd.DataFrame({"auto_radio": [3.0, 0.3], "deepmts": [1.0, 0.1], "single_task": [2.0, 0.2]})
    rows = late_numbers(scores, pd.DataFrame({"f": [7.0, 8.0]}))
    assert rows[0]["scores"].tolist() == [1.0, 2.0, 3.0] and rows[1]["features"].tolist() == [8.0]
    assert [set(row) for row in late_numbers(scores, pd.DataFrame(index=[0, 1]))] == [{"scores"}, {"scores"}]


def _bottlenecks(n: int, seed: int, folds: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Of n patients by three networks with axes of their own; a network spreads its own training patients less."""
    rng, axes = np.random.default_rng(seed), np.random.default_rng(0)
    found = np.stack([rng.standard_normal((n, 12)) @ axes.standard_normal((12, 12)) for _ in range(3)], axis=1)
    if folds is not None:
        found[folds[:, None] != np.arange(3)] *= 0.6
    return {f"P{i}": row.astype(np.float32) for i, row in enumerate(found + 4.0)}


def test_the_networks_are_judged_by_patients_that_they_never_saw() -> None:
    """What is usual is the distance of held-out patients: of new ones hardly any is warned of. With all patients taken
    for held-out ones, which a network fits too well, many would be. A patient far outside is refused, by name."""
    folds = np.arange(90) % 3
    training = _bottlenecks(90, 1, folds)
    groups = network_groups(training, {f"P{i}": int(k) for i, k in enumerate(folds)})
    assert sorted(groups) == ["network 0", "network 1", "network 2"] and {one.n for one in groups.values()} == {30}
    new = list(_bottlenecks(300, 2).values())
    judged = [judge_networks(Reference(groups, {}, 90), row) for row in new]
    assert np.mean([one.percentile > 0.95 for one in judged]) < 0.05 and not any(one.refused for one in judged)
    fooled = Reference(network_groups(training, dict.fromkeys(training, 0)), {}, 90)
    assert np.mean([judge_networks(fooled, row).percentile > 0.95 for row in new]) > 0.2
    far = judge_networks(Reference(groups, {}, 90), new[0] + 40.0)
    assert far.refused and far.problems[0].code == "E-SHIFT" and "what the networks see" in far.problems[0].what
    assert far.problems[0].found.endswith("times the usual distance")
    said = [p for row in new for p in judge_networks(fooled, row).problems]
    assert said and all(float(p.found.split()[0]) >= float(p.expected.split()[-1]) for p in said)


def test_few_patients_and_other_networks_are_not_judged() -> None:
    """Below 20 patients seen or 10 held out a network keeps no reference; one of another width, or none, is not judged;
    the reference comes back from the disk."""
    folds = np.arange(22) % 2
    assert network_groups(_bottlenecks(22, 3), {f"P{i}": int(k) for i, k in enumerate(folds)}) == {}
    assert network_groups({}, {}) == {}
    groups = network_groups(_bottlenecks(60, 4), {f"P{i}": i % 3 for i in range(60)})
    reference = Reference(groups, {}, 60)
    for row in (None, np.zeros((3, 5), np.float32), np.full((3, 12), np.nan, np.float32)):
        assert judge_networks(reference, row).percentiles == {}


def test_a_stored_group_that_no_fit_gives_is_refused(tmp_path: Path) -> None:
    """Arrays of other lengths, spreads below zero, numbers that are not finite: E-REFERENCE."""
    reference = Reference(network_groups(_bottlenecks(60, 5), {f"P{i}": i % 3 for i in range(60)}), {}, 60)
    reference.save(tmp_path)
    row = np.full((3, 12), 4.5, np.float32)
    assert judge_networks(Reference.load(tmp_path), row).percentile == pytest.approx(
        judge_networks(reference, row).percentile, abs=1e-5)
    good = dict(np.load(tmp_path / "reference.npz"))
    for name, bad in (("mean", np.zeros(5)), ("scale", -good["network 1/scale"]), ("noise", np.full(12, np.nan))):
        np.savez(tmp_path / "reference.npz", **(good | {f"network 1/{name}": bad}))
        with pytest.raises(BundleError, match="E-REFERENCE"):
            Reference.load(tmp_path)


def _body(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(SUV, HU) of an ellipsoid of soft tissue in air, 64 voxels of 2 mm each way."""
    z, y, x = np.mgrid[:64, :64, :64] - 31.5
    inside = (x / radius) ** 2 + (y / (radius - 6.0)) ** 2 + (z / 60.0) ** 2 < 1
    noise = np.random.default_rng(int(radius * 10)).random((64, 64, 64))
    return np.where(inside, 0.8, 0.02) + 0.1 * noise, np.where(inside, 30.0, -1000.0) + 20.0 * noise


@pytest.mark.slow
def test_the_edges_of_two_patients_do_not_meet() -> None:
    """PET and CT of one body have their edges in common; those of two bodies of other size hardly any. A model that
    keeps no such reference does not judge it."""
    region = grid.cube((0.0, 0.0, 0.0), size=64, spacing_mm=2.0)
    bodies = [_body(radius) for radius in np.linspace(18.0, 28.0, 20)]

    def edges(suv: np.ndarray, hu: np.ndarray) -> np.ndarray:
        return np.asarray(appearance(Volume(suv, region.affine), Volume(hu, region.affine), region)["edges"])

    own = [{"edges": edges(suv, hu)} for suv, hu in bodies]
    reference, other = Reference.fit(own), {"edges": edges(bodies[0][0], bodies[-1][1])}
    assert min(one["edges"][0] for one in own) > 0.8 > 0.5 > other["edges"][0]
    assert not any(reference.judge(one).refused for one in own)
    judged = reference.judge(other)
    assert judged.refused and "the edges that PET and CT share" in judged.problems[0].what
    assert judged.problems[0].found.startswith("correlation of the edges of PET and CT ")
    assert Reference({}, {}, 20).judge(other).percentiles == {}
    assert edges(np.zeros((64, 64, 64)), bodies[0][1])[0] == 0.0
