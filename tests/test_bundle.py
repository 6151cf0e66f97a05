"""A model that comes from elsewhere: what is refused, under attack, and that no attack gives other predictions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mtdlr.bundle import HEADER, read_bundle, save_bundle
from mtdlr.errors import BundleError, MtdlrError
from mtdlr.estimate import Estimate
from mtdlr.infer import load_networks
from mtdlr.model import FrozenModel
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.embedding import LinearHead
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import HELD_OUT, build, save_heads, save_network, weights_of
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.scores import Scale
from mtdlr.predict import Bundle
from mtdlr.prepared import MEAN_IMAGE
from mtdlr.report.model_card import model_card
from mtdlr.shift import Reference, TrainingRisks
from mtdlr.shift.aggregates import Aggregates
from mtdlr.signature import Signature
from mtdlr.stats.conformal import fit_lower_bound
from mtdlr.store import digest, file_hash
from mtdlr.study import Study
from mtdlr.survival import Survival

GOLDEN = Path(__file__).parent / "golden" / "bundle"
NETWORKS = {"deepmts": DeepmtsConfig(width=0.25), "no-mask": SingletaskConfig("no-mask", width=0.25)}
ROWS = pd.DataFrame({"tnm_stage": ["III", "IVa"], "deepmts": [0.3, -1.0], "auto_radio": [1.2, 0.1],
                     "manual_radio": [0.0, 0.5], "single_task": [0.2, -0.2]})


def _signature(name: str) -> Signature:
    return Signature((name,), (1.0,), (2.0,), (0.4,), 0.1, (1.0,), 60, 40, 10)


def _aggregates(rng: np.random.Generator, surv: Survival) -> Aggregates:
    numbers = [{"levels": rng.normal(size=3), "scores": rng.normal(size=4)} for _ in range(60)]
    return Aggregates(Reference.fit(numbers, names={"scores": tuple("abcd")}), fit_lower_bound(rng.random(60), surv),
                      ({"label": "Event", "level": "Event", "n": 40},), "salt", ("0" * 16,),
                      TrainingRisks.fit(rng.normal(size=60)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small frozen model whose networks are not trained."""
    place, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    networks = {}
    for name, config in NETWORKS.items():
        target = place / name
        target.mkdir()
        save_network(weights_of(build(config).eval()), config, target, {})
        save_heads({0: LinearHead(3)}, target)
        networks[name] = (target,)
    np.save(place / MEAN_IMAGE, np.zeros((2, 4, 4, 4), np.float32))
    table = pd.DataFrame({name: rng.normal(size=60) for name in ROWS.columns[1:]})
    table["tnm_stage"] = rng.choice(["III", "IVa"], 60)
    surv = Survival(rng.exponential(40.0, 60) + 0.1, rng.random(60) < 0.7)
    study = Study.of({"preset": "quick", "cohort": {"factors": {"tnm_stage": ["III", "IVa"]}}})
    model = FrozenModel(
        study, {"mtdlr": Nomogram.fit(table, surv, ["tnm_stage", "auto_radio", "deepmts"], [12, 24])},
        {"auto": _signature("pet_original_shape_MeshVolume"), "manual": _signature("pet_original_shape_Sphericity")},
        networks, {name: (Scale(0.1, 1.5),) for name in networks}, {"mtdlr": 0.2, "deepmts": 0.0}, place,
        {"tnm_stage": "III"}, {"n": 60, "events": surv.n_events, "c": {"training": [0.7, 0.6, 0.8],
                                                                       "external": [0.65, None, None]}},
        aggregates=_aggregates(rng, surv))
    folder = tmp_path_factory.mktemp("model") / "bundle"
    folder.mkdir()
    save_bundle(model, folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be attacked."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def _predicted(folder: Path) -> list[Any]:
    """What a model says of two patients, and the bytes of its networks."""
    model = read_bundle(folder)
    networks = load_networks(model.networks, device="cpu")
    return [model.risks(ROWS).to_numpy().tolist(), {k: v.to_numpy().tolist() for k, v in model.predicted(ROWS).items()},
            dict(model.cutoffs), str(model.scales), [one.digest for each in networks.values() for one in each]]


def _hashed_again(folder: Path) -> None:
    """An attacker who knows the format: every file's hash and the header's are made to fit."""
    for place in (folder / "networks").glob("*/*"):
        facts = json.loads((place / "model.json").read_bytes())
        facts["weights_sha256"] = file_hash(place / "weights.safetensors")
        (place / "model.json").write_text(json.dumps(facts))
    header = json.loads((folder / HEADER).read_text())
    header["files"] = {name: file_hash(folder / name) for name in header["files"]}
    _sealed(folder, header)


def _sealed(folder: Path, header: dict[str, Any]) -> None:
    header = {key: value for key, value in header.items() if key != "digest"}
    (folder / HEADER).write_text(json.dumps(header | {"digest": digest(header)}))


def test_no_head_of_a_subfold_leaves(whole: Path) -> None:
    """The heads that score the training cohort's own patients stay in the run folder."""
    assert not list(whole.rglob(HELD_OUT)) and list(whole.rglob("weights.safetensors"))


@pytest.mark.slow
def test_a_model_comes_back_as_it_left(whole: Path) -> None:
    """Two readings predict the same, and nothing is warned of."""
    assert _predicted(whole) == _predicted(whole) and read_bundle(whole).problems == ()


def test_what_a_reader_is_told_of_the_model_comes_back(whole: Path) -> None:
    """C by cohort, the training risks in groups of five or more, patients and events pass through the folder; a model
    that lacks them is read too."""
    card = model_card(read_bundle(whole))
    assert card.c == {"training": Estimate(0.7, 0.6, 0.8), "external": card.c["external"]}
    assert card.c["external"].value == 0.65 and np.isnan(card.c["external"].low)
    assert card.risks is not None and min(card.risks.counts) == 5 and sum(card.risks.counts) == card.n == 60
    old = model_card(read_bundle(GOLDEN))
    assert old.risks is None and not old.c and old.n > 0


def test_the_digest_covers_scales_cutoffs_settings_and_coefficients(whole: Path) -> None:
    """A change of any of them is another digest; a second reading is the same one."""
    model = read_bundle(whole)
    prepare, auto = model.study.prepare.model_copy(update={"pet_clip_suv": 20.0}), model.signatures["auto"]
    others = [replace(model, scales={**model.scales, "deepmts": (Scale(0.1, 1.6),)}),
              replace(model, cutoffs={**model.cutoffs, "mtdlr": 0.123}), replace(model, imputed={"tnm_stage": "IVa"}),
              replace(model, signatures={**model.signatures, "auto": replace(auto, spread=0.5)}),
              replace(model, signatures={**model.signatures, "auto": replace(auto, coef=(0.4 + 1e-9,))}),
              replace(model, study=model.study.model_copy(update={"prepare": prepare}))]
    digests = {other.digest for other in others}
    assert len(digests) == len(others) and model.digest not in digests
    turned = replace(model, scales=dict(reversed(list(model.scales.items()))))
    assert read_bundle(whole).digest == model.digest == turned.digest


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
def test_no_flipped_bit_is_accepted(copy: Path) -> None:
    """FAULTS 60: one bit of any file makes another model, which is refused, be it the README's."""
    rng, before = np.random.default_rng(1), _predicted(copy)
    for path in _files(copy):
        data = path.read_bytes()
        for place in {0, len(data) - 1, *rng.integers(len(data), size=12).tolist()}:
            changed = bytearray(data)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(BundleError):
                read_bundle(copy)
        path.write_bytes(data)
    assert _predicted(copy) == before


def test_a_model_takes_the_threads_it_is_given(copy: Path) -> None:
    """Reading and loading a model leaves the number of torch's threads as the caller set it."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert Bundle.load(copy).networks and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("change", [
    lambda header: header["scales"]["deepmts"][0].update(sd=0.27), lambda header: header["cutoffs"].update(mtdlr=0.21),
    lambda header: header["study"]["score"].update(mask_threshold=0.02),
    lambda header: header["imputed"].update(tnm_stage="IVa"), lambda header: header["facts"].update(n=61)])
def test_no_number_of_the_header_is_accepted_changed(copy: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another scale, cut-off, setting, imputed value or count, each possible in itself, is E-BUNDLEHASH."""
    header = json.loads((copy / HEADER).read_text())
    change(header)
    (copy / HEADER).write_text(json.dumps(header))
    with pytest.raises(BundleError, match="E-BUNDLEHASH"):
        read_bundle(copy)


@pytest.mark.slow  # every attack reads the whole model
def test_a_flipped_bit_under_new_hashes_is_no_crash(copy: Path) -> None:
    """Who makes the hashes fit may send any numbers; a file that is no longer what it should be is one line."""
    rng = np.random.default_rng(2)
    originals = {path: path.read_bytes() for path in _files(copy)}
    for path, data in originals.items():
        if path.name == HEADER:
            continue
        for place in {0, len(data) - 1, *rng.integers(len(data), size=12).tolist()}:
            changed = bytearray(data)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            _tried(copy)
        path.write_bytes(data)


def _tried(folder: Path) -> str:
    """The code of what refuses an attacked model; empty where it predicts."""
    try:
        _hashed_again(folder)
    except ValueError:
        pass  # model.json is no JSON any more: the hashes stay as they are
    try:
        _predicted(folder)
    except MtdlrError as error:
        return error.code
    return ""


def _keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from _keys(each, (*path, key))


_WRONG: list[Any] = [None, True, -1, 10**9, 1e308, "", "../../etc", [], {}, [[]], {"a": {}}]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundle.json", "nomogram_mtdlr.json", "signature_auto.json", "aggregates.json",
                                  "reference.json", "networks/deepmts/0/model.json"])
def test_wrong_structure_under_new_hashes_is_no_crash(copy: Path, name: str) -> None:
    """Keys dropped, added, or given another kind of value: a refusal of one line, or a prediction."""
    path = copy / name
    text = path.read_text()
    every = [*_WRONG, "drop", "more"]
    for k, keys in enumerate(_keys(json.loads(text))):
        for wrong in (every[k % len(every)], every[(5 * k + 3) % len(every)]):
            values = json.loads(text)
            part = values
            for key in keys[:-1]:
                part = part[key]
            if wrong == "drop":
                del part[keys[-1]]
            elif wrong == "more" and isinstance(part, dict):
                part["unknown"] = part[keys[-1]]
            else:
                part[keys[-1]] = wrong
            if name == HEADER:
                _sealed(copy, values)
                code = _code(copy)
            else:
                path.write_text(json.dumps(values))
                code = _tried(copy)
            if wrong == "more" and isinstance(part, dict) and name == HEADER and keys[0] not in (
                    "imputed", "cutoffs", "files", "study", "scales", "facts"):
                assert code, keys
    path.write_text(text)


def _code(folder: Path) -> str:
    try:
        _predicted(folder)
    except MtdlrError as error:
        return error.code
    return ""


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"schema": NaN}', "[" * 100_000, '{"schema": 3, "schema": 3}',
                                  '{"schema": {}}', '{"schema": "3"}', "\\ud800"])
def test_a_header_that_is_none_is_one_line(copy: Path, text: str) -> None:
    """Empty, another kind, cut, nested without end, a key twice: no model folder, or no schema we read."""
    (copy / HEADER).write_text(text)
    with pytest.raises(BundleError, match="E-NOBUNDLE|E-SCHEMA"):
        read_bundle(copy)


def _extra(folder: Path) -> None:
    (folder / "networks" / "evil.bin").write_bytes(b"x")


def _fifo(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


def _fifo_header(folder: Path) -> None:
    (folder / HEADER).unlink()
    os.mkfifo(folder / HEADER)


def _link(folder: Path) -> None:
    target = folder / "networks" / "deepmts" / "0" / "weights.safetensors"
    target.rename(folder.parent / "elsewhere")
    target.symlink_to(folder.parent / "elsewhere")


def _linked_folder(folder: Path) -> None:
    (folder / "networks").rename(folder.parent / "networks")
    (folder / "networks").symlink_to(folder.parent / "networks")


def _large(folder: Path) -> None:
    with (folder / "signature_auto.json").open("r+b") as file:
        file.truncate(1 << 33)  # sparse: no disk is used


def _unlisted(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    _sealed(folder, header | {"files": {}})


def _half_listed(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    header["files"] = {k: v for k, v in header["files"].items() if not k.startswith("networks/")}
    _sealed(folder, header)


def _outside(folder: Path) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder.parent / "outside").write_text("x")
    header["files"]["../outside"] = file_hash(folder.parent / "outside")
    _sealed(folder, header)


@pytest.mark.parametrize("attack", [_extra, _fifo, _fifo_header, _link, _linked_folder, _large, _unlisted, _half_listed,
                                    _outside])
def test_files_that_no_model_has_are_refused(copy: Path, attack: Callable[[Path], None]) -> None:
    """FAULTS 61-65: more files than listed, none listed, links, pipes, 8 GiB, a path outside: refused at once."""
    attack(copy)
    with pytest.raises(BundleError, match="E-BUNDLEHASH|E-NOBUNDLE|E-BUNDLE"):
        read_bundle(copy)


def test_what_a_file_manager_leaves_does_no_harm(copy: Path) -> None:
    """A folder that was opened in a file manager is still the model."""
    before = _predicted(copy)
    for name in (".DS_Store", "Thumbs.db", "published.json"):
        (copy / name).write_text("x")
    assert _predicted(copy) == before


@pytest.mark.parametrize(("key", "value"), [
    (("scales", "deepmts", 0, "sd"), 0.0), (("scales", "deepmts", 0, "mean"), 1e9), (("cutoffs", "mtdlr"), "high"),
    (("cutoffs", "nobody"), 0.1), (("scales", "resnet"), [{"mean": 0.0, "sd": 1.0}]), (("facts", "n"), 0),
    (("study", "deepmts", "width"), 1e9), (("study", "unknown"), {}), (("scales", "deepmts"), []), (("more",), 1)])
def test_numbers_that_no_model_has_are_refused(copy: Path, key: tuple[Any, ...], value: Any) -> None:
    """A scale of 0, a cut-off that is a word, a model of an unknown name, settings out of range, a key too many."""
    header = json.loads((copy / HEADER).read_text())
    part = header
    for each in key[:-1]:
        part = part[each]
    part[key[-1]] = value
    _sealed(copy, header)
    with pytest.raises(BundleError):
        _predicted(copy)


def test_a_model_of_another_version_says_so(copy: Path) -> None:
    """W-MODELVERSION names both versions; the model is read."""
    header = json.loads((copy / HEADER).read_text())
    header["facts"]["versions"]["mtdlr"] = "0.0.9"
    _sealed(copy, header)
    [problem] = read_bundle(copy).problems
    assert problem.code == "W-MODELVERSION" and problem.found == "0.0.9"


def test_a_model_of_competing_events_says_so(copy: Path) -> None:
    """A model that was fitted beside competing events keeps their names, and says what its predictions mean."""
    header = json.loads((copy / HEADER).read_text())
    assert header["study"]["cohort"]["competing"] == []
    header["study"]["cohort"]["competing"] = ["death"]
    _sealed(copy, header)
    [problem] = read_bundle(copy).problems
    assert problem.code == "W-COMPETING" and "death" in problem.found


@pytest.mark.parametrize("schema", [1, 2, 99])
def test_a_schema_that_is_not_read_says_why(copy: Path, schema: int) -> None:
    """Older models are refused because rows can be read from them, newer ones ask for a newer version."""
    header = json.loads((copy / HEADER).read_text())
    _sealed(copy, header | {"schema": schema})
    with pytest.raises(BundleError, match="E-SCHEMA.*(rows can be read|Update mtdlr)"):
        read_bundle(copy)


def test_the_kept_model_is_still_read() -> None:
    """A model that this schema's first version wrote predicts what it predicted then."""
    model = read_bundle(GOLDEN)
    expected = json.loads((GOLDEN.parent / "predicted.json").read_text())
    risks = model.risks(ROWS).to_numpy(dtype=float)
    np.testing.assert_allclose(risks, np.array(expected["risks"], dtype=float), rtol=1e-9)
    np.testing.assert_allclose(model.predicted(ROWS)["mtdlr"].to_numpy(), expected["mtdlr"], rtol=1e-9)
    assert [len(each) for each in load_networks(model.networks, device="cpu").values()] == [1, 1]
