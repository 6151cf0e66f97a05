"""A network on disk is read back exactly, or refused with a reason; nothing in the file is ever run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtdlr.errors import BundleError
from mtdlr.nets.deepmts import DeepmtsConfig
from mtdlr.nets.embedding import NAMES, LinearHead
from mtdlr.nets.resume import load_state, save_state
from mtdlr.nets.singletask import SingletaskConfig
from mtdlr.nets.weights import HELD_OUT, Checkpoint, build, replace_file, save_heads, save_network, weights_of

CONFIG = DeepmtsConfig(width=0.25)


def _saved(folder: Path, config=CONFIG) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(config)
    save_network(weights_of(model), config, folder, {"epoch": 3})
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, DeepmtsConfig(width=0.25, intervals=5, clinical=1, pooling="regional"),
                                    SingletaskConfig(width=0.25), SingletaskConfig("densenet121-3d", width=0.25)])
def test_a_saved_network_comes_back_with_its_numbers(tmp_path: Path, config):
    """Loaded networks give the very same risk, are in evaluation mode, and carry the facts."""
    model = _saved(tmp_path, config)
    checkpoint = Checkpoint.load(tmp_path)
    image = torch.rand(1, 2, 32, 32, 32)
    clinical = torch.ones(1, 1) if config.clinical else None
    with torch.inference_mode():
        assert torch.equal(checkpoint.model(image, clinical).risk, model(image, clinical).risk)
    assert not checkpoint.model.training and checkpoint.facts["epoch"] == 3
    assert checkpoint.model.config == config


def _edit(folder: Path, change) -> None:
    """Change the tensors of a saved network and keep the checksum right."""
    import hashlib
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    facts = json.loads((folder / "model.json").read_text())
    facts["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(facts))


NAME = "head.last.weight"


@pytest.mark.slow
@pytest.mark.parametrize(("change", "code", "word"), [
    (lambda t: t.update({NAME: torch.full_like(t[NAME], float("nan"))}), "E-NANWEIGHTS", NAME),
    (lambda t: t.update({NAME: torch.full_like(t[NAME], float("inf"))}), "E-NANWEIGHTS", NAME),
    (lambda t: t.update({NAME: t[NAME][:, :3].contiguous()}), "E-WEIGHTS", "shape"),
    (lambda t: t.update({NAME: t[NAME].double()}), "E-WEIGHTS", "type"),
    (lambda t: t.pop(NAME), "E-WEIGHTS", "unmatched"),
    (lambda t: t.update(extra=torch.zeros(1)), "E-WEIGHTS", "extra"),
], ids=["nan", "inf", "shape", "dtype", "missing", "extra"])
def test_weights_that_do_not_fit_exactly_are_refused(tmp_path: Path, change, code: str, word: str):
    """Not finite, of another shape or type, missing or strange tensors: a typed error that names the tensor."""
    _saved(tmp_path)
    _edit(tmp_path, change)
    with pytest.raises(BundleError, match=word) as caught:
        Checkpoint.load(tmp_path)
    assert caught.value.code == code


def test_one_flipped_bit_is_noticed(tmp_path: Path):
    """The checksum in model.json guards every byte of the weights."""
    _saved(tmp_path)
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="not those"):
        Checkpoint.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("facts", "word"), [
    ({"format": 2}, "format"), ({"network": "resnet"}, "unknown network"),
    ({"config": {"breadth": 0.25}}, "architecture"), ({"config": {"width": 1e9}}, "architecture"),
    ({"config": {"width": True}}, "architecture"), ({"config": {"pooling": "none"}}, "architecture"),
    ({"config": "deepmts"}, "unknown network")])
def test_a_description_this_version_does_not_know_is_refused(tmp_path: Path, facts, word: str):
    """Another format, network or set of architecture keys is an error, not a guess."""
    _saved(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    with pytest.raises(BundleError, match=word) as caught:
        Checkpoint.load(tmp_path)
    assert caught.value.code == "E-WEIGHTS"


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", None])
def test_a_missing_or_broken_description_is_refused(tmp_path: Path, content: bytes | None):
    """No model.json, an empty one, or something else in it: E-WEIGHTS."""
    _saved(tmp_path)
    if content is None:
        (tmp_path / "model.json").unlink()
    else:
        (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Checkpoint.load(tmp_path)
    assert caught.value.code == "E-WEIGHTS"


def test_a_pickle_in_the_weights_place_is_never_opened(tmp_path: Path):
    """A pickle that would create a file when loaded is refused, and the file is not there."""
    import hashlib
    import pickle

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "canary",)

    _saved(tmp_path)
    data = pickle.dumps(Trap())
    (tmp_path / "weights.safetensors").write_bytes(data)
    facts = json.loads((tmp_path / "model.json").read_text())
    facts["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError):
        Checkpoint.load(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When writing fails half-way the file that was there is untouched."""
    path = tmp_path / "file"
    replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.slow
def test_a_training_state_returns_every_moment_of_the_optimiser(tmp_path: Path):
    """After saving, loading and one more step the weights are those of two steps without a break, to the bit."""
    def setup() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = build(SingletaskConfig(width=0.25, dropout=0.0, head_dropout=0.0))
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)

    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        model(torch.ones(2, 2, 32, 32, 32) * torch.arange(1.0, 3.0)[:, None, None, None, None]).risk.square().sum(
        ).backward()
        optimiser.step()

    whole, optimiser = setup()
    step(whole, optimiser)
    save_state(tmp_path / "state", whole, optimiser, {"x": torch.ones(2)}, {"epoch": 1})
    step(whole, optimiser)
    resumed, other = setup()
    best, facts = load_state(tmp_path / "state", resumed, other)
    step(resumed, other)
    assert facts == {"epoch": 1} and torch.equal(best["x"], torch.ones(2))
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name


def test_a_description_of_an_older_version_keeps_the_defaults(tmp_path: Path):
    """A key of the architecture that an older version did not write takes its default: old models stay readable."""
    network = _saved(tmp_path)
    path = tmp_path / "model.json"
    facts = json.loads(path.read_text())
    del facts["config"]["near_voxels"]
    path.write_text(json.dumps(facts))
    assert Checkpoint.load(tmp_path).model.config == network.config


NO_MASK = SingletaskConfig("no-mask")


def _heads(*subfolds: int) -> dict[int, LinearHead]:
    heads = {subfold: LinearHead(len(NAMES)) for subfold in subfolds}
    for subfold, head in heads.items():
        torch.nn.init.constant_(head.weight, float(subfold))
    return heads


def test_the_heads_of_subfolds_come_back(tmp_path: Path) -> None:
    """Each by its number, with its weights; a folder without them has none."""
    _saved(tmp_path, NO_MASK)
    assert Checkpoint.load(tmp_path).heads == {}
    save_heads(_heads(2, 11), tmp_path)
    heads = Checkpoint.load(tmp_path).heads
    assert {k: set(head.weight.tolist()) for k, head in heads.items()} == {2: {2.0}, 11: {11.0}}
    assert not any(p.requires_grad for head in heads.values() for p in head.parameters())


@pytest.mark.parametrize(("damage", "code"), [
    (lambda path: path.write_bytes(path.read_bytes()[:100]), "E-WEIGHTS"),
    (lambda path: save_file({"2.weight": torch.zeros(len(NAMES))}, path), "E-WEIGHTS"),
    (lambda path: save_file({"two.weight": torch.zeros(len(NAMES))}, path), "E-WEIGHTS"),
    (lambda path: save_heads({2: _not_finite()}, path.parent), "E-NANWEIGHTS")])
def test_damaged_heads_are_refused(tmp_path: Path, damage, code: str) -> None:
    """A file cut short, with other tensors, under no number, or not finite is one line that names the file."""
    _saved(tmp_path, NO_MASK)
    save_heads(_heads(2), tmp_path)
    damage(tmp_path / HELD_OUT)
    with pytest.raises(BundleError, match=f"{code}.*{HELD_OUT}"):
        Checkpoint.load(tmp_path)


def _not_finite() -> LinearHead:
    head = LinearHead(len(NAMES))
    torch.nn.init.constant_(head.weight, float("nan"))
    return head
