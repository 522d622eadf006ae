"""A text that says what a module computes, apart from its weights: the net's part of a stage's key."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_SETTINGS = (
    *("kernel_size", "stride", "padding", "dilation", "groups", "output_size"),
    *("eps", "momentum", "alpha"),
)


def architecture(module: nn.Module) -> str:
    """One line per layer and per tensor: name, kind, settings, shape.

    The same under any version of torch, on any device and for any number of workers: a synchronised BatchNorm
    is written as a plain one.
    """
    layers = [f"{name or '.'}: {_kind(layer)}{_settings(layer)}" for name, layer in module.named_modules()]
    tensors = [f"{name} {list(tensor.shape)}" for name, tensor in module.state_dict().items()]
    return "\n".join([*layers, *tensors])


def _kind(layer: nn.Module) -> str:
    return "BatchNorm" if isinstance(layer, _BatchNorm) else type(layer).__name__


def _settings(layer: nn.Module) -> str:
    values = {name: getattr(layer, name) for name in _SETTINGS if hasattr(layer, name)}
    return "".join(f" {name}={value}" for name, value in values.items())
