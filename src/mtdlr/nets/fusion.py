"""A network as it scores: batch norms fused into the convolutions before them, the numbers unchanged."""

from __future__ import annotations

import copy

import torch
from torch import nn

from mtdlr.nets.blocks import ConvNormRelu, DenseLayer
from mtdlr.nets.norm import Relu


def fused(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose convolutions do the work of the batch norms that follow them."""
    ready = copy.deepcopy(model).eval().requires_grad_(False)
    for module in ready.modules():
        if isinstance(module, ConvNormRelu):
            _fuse(module, "conv", "norm")
        elif isinstance(module, DenseLayer):
            _fuse(module, "conv1", "norm2")
    return ready


def _fuse(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """Scale and shift the convolution as the norm would, and leave the ReLU in the norm's place."""
    conv, norm = getattr(module, conv_name), getattr(module, norm_name)
    assert isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.bias)
    shift = norm.bias + (bias - norm.running_mean) * scale
    weight = (conv.weight * scale[:, None, None, None, None]).contiguous(memory_format=torch.channels_last_3d)
    conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(shift, requires_grad=False)
    setattr(module, norm_name, Relu().eval())
