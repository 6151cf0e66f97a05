"""The state of a training that has not ended, as one file: replaced whole, so a crash leaves the old or the new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mtdlr.errors import BundleError, Problem, StoreError
from mtdlr.nets.weights import read_tensors, replace_file, weights_of

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, best: Mapping[str, Tensor],
               facts: Mapping[str, Any]) -> None:
    """Write the weights, AdamW's moments, the best weights so far and plain JSON facts to one file.

    Args:
        path: the file; it is replaced whole.
        model: the network in training.
        optimiser: its AdamW.
        best: the weights of the best epoch so far, by name.
        facts: what else is needed to go on, as JSON values.
    """
    tensors = {f"model/{name}": value for name, value in weights_of(model).items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value.detach().contiguous()
    text = json.dumps(facts)
    replace_file(path, save(tensors, {"facts": text, "digest": _digest(tensors, text)}))


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor],
                                                                                      dict[str, Any]]:
    """Put a saved state into model and optimiser.

    Args:
        path: file of `save_state`.
        model: a network of the same configuration, changed in place.
        optimiser: its AdamW, changed in place.

    Returns:
        (best weights by name, on the model's device; facts).

    Raises:
        BundleError: E-WEIGHTS when the file cannot be read or is not as it was written; the model is untouched then.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("digest") != _digest(tensors, metadata.get("facts", "")):
        raise BundleError(Problem("E-WEIGHTS", "a training's saved state was damaged", where=path.name))
    model.load_state_dict({**model.state_dict(), **_under(tensors, "model")})
    for name, parameter in model.named_parameters():
        if f"step/{name}" not in tensors:
            continue
        moments = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS}
        optimiser.state[parameter] = {
            moment: value.to(parameter.device) if moment == "step" else torch.zeros_like(parameter).copy_(value)
            for moment, value in moments.items()}
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in _under(tensors, "best").items()}, json.loads(metadata["facts"])


def require_recipe(recipe: Mapping[str, Any], saved: Mapping[str, Any], *, where: str) -> None:
    """Refuse to go on with a training of another recipe.

    Args:
        recipe: settings and inputs of the training, as JSON values.
        saved: those of the saved state.
        where: name of its folder.

    Raises:
        StoreError: E-RESUME with the settings that differ.
    """
    differ = sorted(key for key in recipe.keys() | saved.keys() if recipe.get(key) != saved.get(key))
    if differ:
        raise StoreError(Problem("E-RESUME", "an unfinished training in this folder has other settings",
                                 where=where, found=f"other {', '.join(differ)}",
                                 remedy="Delete the folder to start over, or go back to its settings"))


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """SHA-256 over the facts and every tensor with its name, in hex."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        total.update(name.encode() + str(tuple(tensors[name].shape)).encode())
        total.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix/`, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
