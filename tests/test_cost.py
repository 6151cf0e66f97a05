"""`mtdlr check` says what a run will cost on this machine, and which preset fits an evening."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mtdlr.cli import app
from mtdlr.cohort.cost import BY_SIZE, Cost, Machine, Size, as_dict, as_lines, cost_of, costs, evening, under_presets
from mtdlr.imaging import nifti
from mtdlr.nets.pace import Pace, pace_of
from mtdlr.study import PRESETS, Study
from mtdlr.volume import Volume

SCAN = {"pet": {"shape_zyx": [59, 53, 53], "spacing_zyx_mm": [4.0, 4.0, 4.0]},
        "ct": {"shape_zyx": [81, 110, 110], "spacing_zyx_mm": [3.0, 2.0, 2.0]}}
HERE = Machine(4, 16.0)
ROOT = Path(__file__).parents[1]


def pace(study: Study, section: str) -> Pace:
    """Seconds as on the machine of bench/RESULTS.md, by grid and width."""
    settings = getattr(study, section)
    step = 8.0 * settings.width * (study.prepare.size / 128) ** 3
    return Pace(0.0 if getattr(settings, "network", "") == "no-mask" else step, 0.3 * step)


def of(n: int, **settings: dict[str, object]) -> Cost:
    return cost_of(Study.of({"preset": "quick", **settings}), Size(n, n // 2, [SCAN] * n), HERE, pace)


def test_the_cost_is_finite_and_grows_with_the_patients() -> None:
    """Every number is finite and not negative, and none falls when patients are added."""
    found = [of(n) for n in (0, 1, 2, 10, 100, 1000, 10_000)]
    for cost in found:
        assert all(math.isfinite(v) and v >= 0 for v in (*cost.seconds.values(), cost.memory_gb, cost.disk_gb))
    for less, more in pairwise(found):
        assert all(more.seconds[stage] >= less.seconds[stage] for stage in less.seconds)
        assert more.total_s > less.total_s and more.memory_gb > less.memory_gb and more.disk_gb > less.disk_gb


@pytest.mark.parametrize("settings", [
    {"score": {"folds": 6}}, {"deepmts": {"epochs": 40}}, {"deepmts": {"width": 1.0}}, {"prepare": {"size": 64}},
    {"deepmts": {"steps_per_epoch": 50}}, {"singletask": {"network": "csn-only"}}, {"run": {"workers": 1}}])
def test_more_work_costs_more(settings: dict[str, dict[str, object]]) -> None:
    """More folds, epochs, steps, width or voxels, a second trained network and fewer processes take longer."""
    assert of(100, **settings).total_s > of(100).total_s


def test_training_is_patients_times_folds_times_steps() -> None:
    """DeepMTS of 3 folds: each sees 85 % of two thirds of 90 patients in each of 14 epochs, and scores the rest."""
    step, score = 0.5, 0.1
    cost = cost_of(Study.of({"preset": "quick", "run": {"workers": 1}}), Size(120, 90, [SCAN]), HERE,
                   lambda study, section: Pace(step, score) if section == "deepmts" else Pace(0.0, 0.0))
    own = 60
    assert cost.seconds["train"] == pytest.approx(3 * (14 * (own * 0.85 * step + own * 0.15 * score) + own * score))


def test_the_largest_preset_that_fits_is_proposed() -> None:
    """Of the presets that end within the evening the largest is named; none where none does or nothing is timed."""
    by = {name: Cost({"train": hours * 3600.0}, 1.0, 1.0) for name, hours in
          (("paper", 1), ("modern", 30), ("workstation", 3.5), ("quick", 0.2))}
    assert evening(by) == "workstation" and evening(by, hours=0.1) == "" and evening(by, hours=31) == "modern"
    assert evening({name: Cost({"prepare": 1.0}, 1.0, 1.0) for name in by}) == "" and set(BY_SIZE) < set(PRESETS)


def test_the_lines() -> None:
    """Three to five lines: size and machine, hours by stage, memory and disk, presets, and what to do where memory is
    short."""
    study, size = Study.of({"preset": "modern"}), Size(522, 400, [SCAN])
    presets = under_presets(lambda name: Study.of({"preset": name}))
    told = as_lines(study, size, HERE, costs(study, presets, size, HERE, pace), free_gb=50.0)
    assert len(told) == 5 and "4 cores, 16 GB" in told[0] and "522 patients, 400" in told[0] and "train" in told[1]
    assert "50 GB that are free" in told[2] and "run.workers = 1" in told[4]
    assert told[3].index("quick") < told[3].index("workstation") < told[3].index("paper")
    alone = as_lines(study, size, replace(HERE, memory_gb=None), costs(study, presets, size, HERE, None), free_gb=5.0)
    assert len(alone) == 3 and "mtdlr[networks]" in alone[1] and "train " not in alone[1]


def test_as_json() -> None:
    """The same as plain values that are JSON."""
    study, size = Study.of({"preset": "quick"}), Size(60, 50, [SCAN])
    presets = under_presets(lambda name: Study.of({"preset": name}))
    values = as_dict(study, costs(study, presets, size, HERE, pace), free_gb=50.0)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values["presets"]) == set(PRESETS)
    assert values["total_s"] == pytest.approx(sum(values["seconds"].values()))


@pytest.mark.slow
def test_a_network_is_timed() -> None:
    """A step and a scoring of DeepMTS take time, eight times as much at twice the grid; no-mask is not trained."""
    settings = Study.of({"preset": "quick", "deepmts": {"width": 0.25}})
    small, large = (pace_of(settings.deepmts, size=size, device="cpu") for size in (32, 64))
    assert 0 < small.step_s < 60 and 0 < small.score_s < 60 and not small.on_card
    assert large.step_s == pytest.approx(8 * small.step_s) and large.score_s == pytest.approx(8 * small.score_s)
    assert pace_of(settings.singletask, size=32, device="cpu").step_s == 0


def test_check_tells_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mtdlr check` prints the cost under its table and has it in its JSON, of the patients that can be used."""
    rng = np.random.default_rng(0)
    for k in range(14):
        for kind, low, high in (("PT", 0.0, 9.0), ("CT", -1000.0, 1000.0)):
            array = rng.uniform(low, high, (6, 5, 4)).astype(np.float32)
            (tmp_path / "images").mkdir(exist_ok=True)
            nifti.write(tmp_path / "images" / f"P{k:02d}__{kind}.nii.gz", Volume.on_grid(array, (3.0, 2.0, 2.0)))
    nifti.write(tmp_path / "images" / "P00.nii.gz", Volume.on_grid(np.ones((6, 5, 4), bool), (3.0, 2.0, 2.0)))
    rows = "".join(f"P{k:02d},{20 + k},{int(k < 12)},III\n" for k in range(14))
    (tmp_path / "clinical.csv").write_text("patient_id,time_months,event,stage\n" + rows)
    (tmp_path / "study.toml").write_text('preset = "quick"\n[cohort]\nimages = "images"\nstage = "stage"\n'
                                         'factors = { stage = ["III", "IVa"] }\nsplit = "center"\n')
    monkeypatch.setattr(importlib.import_module("mtdlr.cli.check"), "_timer", pace)
    done = CliRunner().invoke(app, ["check", str(tmp_path / "study.toml")])
    assert done.exit_code == 0 and "14 patients can be used" in done.output
    assert "14 patients, 14 of them training" in done.output.splitlines()[-4]
    values = json.loads(CliRunner().invoke(app, ["check", str(tmp_path / "study.toml"), "--json"]).stdout)["cost"]
    assert values["preset"] == "quick" and values["timed"] and values["total_s"] > 0


def test_the_table_of_costs_is_what_the_formula_gives(monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """docs/cluster.md shows what `bench/bench_cost.py` prints today, and README the same hours."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    importlib.import_module("bench_cost").main()
    printed = capsys.readouterr().out
    assert printed in (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in printed.splitlines()[2:]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for column in (2, 3, 4):
        for patients in ("100 (59)", "886 (522)"):
            found = [row[column] for name in ("quick", "workstation", "modern") for row in rows
                     if row[0] == f"| `{name}`" and row[1] == patients]
            short = [one if k == 2 or one.split()[1] != found[2].split()[1] else one.split()[0]
                     for k, one in enumerate(found)]
            assert f" {' / '.join(found)} |" in readme or f" {' / '.join(short)} |" in readme, found
