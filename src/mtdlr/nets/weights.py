"""A trained network on disk: weights.safetensors beside a readable model.json. Reading it runs no code of the file."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mtdlr.errors import BundleError, Problem
from mtdlr.nets.deepmts import DeepMTS, DeepmtsConfig, on_cells
from mtdlr.nets.embedding import NAMES, READING, LinearHead
from mtdlr.nets.fusion import fused
from mtdlr.nets.singletask import CsnOnly, DenseNet121, NoMask, SingletaskConfig
from mtdlr.study import SingletaskNetwork

if TYPE_CHECKING:
    from mtdlr.study import DeepmtsSettings, NetworkName, SingletaskSettings

    Settings = DeepmtsSettings | SingletaskSettings

WEIGHTS, MODEL, FORMAT = "weights.safetensors", "model.json", 1
HELD_OUT = "held_out.safetensors"
CPU = torch.device("cpu")
Config = DeepmtsConfig | SingletaskConfig
LIMITS = {"in_channels": (1, 8), "width": (0.01, 4.0), "clinical": (0, 100), "intervals": (0, 200),
          "dropout": (0.0, 0.99), "head_dropout": (0.0, 0.99), "norm_momentum": (0.0, 1.0), "near_voxels": (0, 64),
          "reading": (1, READING)}
"""What the numbers of an architecture may be: a file from elsewhere must not ask for all memory."""
WORDS = {"pooling": ("average", "regional", "spatial"), "network": get_args(SingletaskNetwork)}
Network = DeepMTS | NoMask | CsnOnly | DenseNet121
NetworkOf = TypeVar("NetworkOf", bound=nn.Module)
SINGLE_TASK: dict[str, type[NoMask | CsnOnly | DenseNet121]] = {
    "no-mask": NoMask, "csn-only": CsnOnly, "densenet121-3d": DenseNet121}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network, ready to score.

    Args:
        model: the network in evaluation mode.
        facts: what model.json says beside the architecture: chosen epoch, validation figures, training recipe.
        digest: SHA-256 of the weights file; two checkpoints with one digest are the same network.
        place: the device it scores on.
        heads: by subfold of the fold that the network never saw, the risk that was solved without its patients; only
            in the folder of the training itself.
    """

    model: Network
    facts: Mapping[str, Any]
    digest: str
    place: torch.device = CPU
    heads: Mapping[int, LinearHead] = field(default_factory=dict)

    @cached_property
    def scorer(self) -> nn.Module:
        """The network with its batch norms fused into its convolutions, on its device: the same numbers, faster.

        It has no gradients.
        """
        ready = fused(self.model)
        if self.place.type == "cuda":
            on_cells(ready)
        return ready.to(self.place)

    def without(self, subfold: int) -> Checkpoint:
        """The network as it scores training patients of a subfold, by the head that never saw their outcomes.

        Itself where no patient was held out of the head alone: then the network never saw the whole fold.

        Raises:
            BundleError: E-WEIGHTS where the head of the subfold is missing; the others know its outcomes.
        """
        if "held_out" not in self.facts:
            return self
        if subfold not in self.heads:
            raise _bad(f"there is no head that never saw subfold {subfold}", Path(HELD_OUT),
                       found=f"subfolds {sorted(self.heads)}")
        found = replace(self, model=_with_head(self.model, self.heads[subfold]))
        found.__dict__["scorer"] = _with_head(self.scorer, self.heads[subfold])  # fused once for all
        return found

    @classmethod
    def load(cls, folder: str | Path) -> Checkpoint:
        """The network a folder holds, with the heads of held-out subfolds where they lie beside it.

        Raises:
            BundleError: E-WEIGHTS for a file that is missing, damaged, of another architecture or shape,
                E-NANWEIGHTS for weights that are not finite.
        """
        folder = Path(folder)
        facts = _read_model(folder / MODEL)
        raw, digest = _read_weights(folder / WEIGHTS)
        if digest != facts.get("weights_sha256"):
            raise _bad("the weights are not those model.json was written for", folder / WEIGHTS)
        model = build(_config(facts, folder / MODEL))
        _fill(model, raw, folder / WEIGHTS)
        return cls(model.eval(), {k: v for k, v in facts.items() if k not in ("config", "weights_sha256")}, digest,
                   heads=_heads(folder / HELD_OUT, model) if (folder / HELD_OUT).exists() else {})


def build(config: Config) -> Network:
    """A network with fresh weights, channels-last; seed torch first."""
    model: Network
    if isinstance(config, DeepmtsConfig):
        model = DeepMTS(config)
    else:
        model = SINGLE_TASK[config.network](config)
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def config_of(network: NetworkName, settings: Settings) -> Config:
    """The architecture that a section of the study asks for.

    Args:
        network: name of the network.
        settings: its section of the study.
    """
    shared: dict[str, Any] = {
        "width": settings.width, "intervals": settings.intervals if settings.survival_loss == "discrete" else 0,
        "dropout": settings.dropout, "head_dropout": settings.head_dropout, "norm_momentum": settings.norm_momentum,
        "pooling": settings.pooling, "near_voxels": settings.near_voxels, "reading": READING}
    if network == "deepmts":
        return DeepmtsConfig(**shared, detach_probability=cast("DeepmtsSettings", settings).detach_probability)
    return SingletaskConfig(network=network, **shared)


def network_name(config: Config) -> str:
    """The network's name, as in the study file."""
    return "deepmts" if isinstance(config, DeepmtsConfig) else config.network


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics, as stored: plain layout, batch counters left out."""
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()
            if not name.endswith("num_batches_tracked")}


def save_network(weights: Mapping[str, Tensor], config: Config, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write weights.safetensors and then model.json, each whole or not at all.

    Args:
        weights: parameters and running statistics, by name.
        config: configuration of the network.
        folder: where the two files go; it must exist.
        facts: what model.json shall say besides, as JSON values.
    """
    data = save(dict(weights))
    model = {
        "format": FORMAT, "network": network_name(config), "config": dataclasses.asdict(config),
        "weights_sha256": hashlib.sha256(data).hexdigest(), **facts,
    }
    replace_file(folder / WEIGHTS, data)
    replace_file(folder / MODEL, (json.dumps(model, indent=1) + "\n").encode())


def save_heads(heads: Mapping[int, LinearHead], folder: Path) -> None:
    """Write held_out.safetensors, the heads that score the subfolds a network never saw.

    No bundle takes it: the difference of two heads says something of the patients between them.

    Args:
        heads: by subfold.
        folder: where the file goes; it must exist.
    """
    replace_file(folder / HELD_OUT, save({f"{subfold}.{name}": value.contiguous() for subfold, head in heads.items()
                                          for name, value in weights_of(head).items()}))


def _heads(path: Path, model: Network) -> dict[int, LinearHead]:
    """What `save_heads` wrote beside a network."""
    heads: dict[int, LinearHead] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in read_tensors(path)[0].items():
        subfold, _, what = name.partition(".")
        parts.setdefault(subfold, {})[what] = value
    for subfold, raw in parts.items():
        if not subfold.isdecimal():
            raise _bad("a head of no subfold", path, found=subfold)
        heads[int(subfold)] = LinearHead(len(NAMES), model.config.reading).requires_grad_(False).eval()
        _fill(heads[int(subfold)], raw, path)
    return heads


def _with_head(network: NetworkOf, head: LinearHead) -> NetworkOf:
    """The network with another head, sharing everything else."""
    other, place = copy.copy(network), next(network.parameters()).device
    other._modules = {**network._modules, "head": copy.deepcopy(head).to(place)}
    return other


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash, finds the old file or the new one and nothing between.

    Args:
        path: the file; its folder must exist.
        data: its bytes.
    """
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and string metadata of a safetensors file.

    Raises:
        BundleError: E-WEIGHTS when it is not one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _bad(f"not a readable safetensors file ({type(error).__name__})", path) from None


def _read_model(path: Path) -> dict[str, Any]:
    """model.json, checked for format."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _bad("no readable model description", path) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise _bad("unknown format of a model description", path,
                   found=str(facts.get("format") if isinstance(facts, dict) else type(facts).__name__),
                   expected=str(FORMAT))
    return facts


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of the weights file and its SHA-256."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise _bad("there are no weights", path) from None
    return read_tensors(path)[0], digest


def _config(facts: Mapping[str, Any], path: Path) -> Config:
    """The architecture model.json names."""
    kinds: dict[str, type[Config]] = {"deepmts": DeepmtsConfig, **dict.fromkeys(SINGLE_TASK, SingletaskConfig)}
    name, values = facts.get("network"), facts.get("config")
    if not isinstance(name, str) or name not in kinds or not isinstance(values, dict):
        raise _bad("unknown network", path, found=str(name), expected=", ".join(kinds))
    fields = {field.name: type(field.default) for field in dataclasses.fields(kinds[name])}
    wrong = [key for key, value in values.items() if key not in fields or not _fits(key, value, fields[key])]
    if wrong:
        raise _bad("the architecture does not fit this version", path, found=f"keys {', '.join(sorted(wrong))}"[:120])
    return kinds[name](**values)  # a key that an older version did not know keeps its default


def _fits(key: str, value: object, kind: type) -> bool:
    """Whether a value of the architecture is of its kind, and small enough to build."""
    if kind is str:
        return value in WORDS[key]
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    low, high = LIMITS[key]
    return low <= value <= high


def _fill(model: nn.Module, raw: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors into the model; names, shapes and dtypes must be exactly its own, and the values finite."""
    own = weights_of(model)
    strange = sorted(own.keys() ^ raw.keys())
    if strange:
        raise _bad("the weights belong to another architecture", path, found=f"{len(strange)} unmatched tensors, "
                   f"first {strange[0]}")
    for name, value in own.items():
        if raw[name].shape != value.shape or raw[name].dtype != value.dtype:
            raise _bad(f"tensor {name} has another shape or type", path, found=str(tuple(raw[name].shape)),
                       expected=str(tuple(value.shape)))
        if not bool(torch.isfinite(raw[name]).all()):
            raise BundleError(Problem("E-NANWEIGHTS", f"tensor {name} holds values that are not finite",
                                      where=path.name, remedy="Train the network again"))
    model.load_state_dict({**model.state_dict(), **raw})


def _bad(what: str, path: Path, found: str = "", expected: str = "") -> BundleError:
    return BundleError(Problem("E-WEIGHTS", what, where=path.name, found=found, expected=expected,
                               remedy="Copy the model folder again, or train the network again"))
