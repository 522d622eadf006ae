"""A text that says what a module computes, apart from its weights: the net's part of a stage's key."""

from __future__ import annotations

import hashlib
import inspect

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_SETTINGS = (
    *("kernel_size", "stride", "padding", "dilation", "groups", "output_size"),
    *("eps", "momentum", "alpha"),
)
_PACKAGES = ("torch", "torchvision", "timm", "raymc")
"""Packages whose layers are told by the names of their classes."""


def architecture(module: nn.Module) -> str:
    """One line per layer and per tensor: name, kind, settings, shape.

    The same under any version of torch, on any device and for any number of workers: a synchronised BatchNorm
    is written as a plain one. Layers of a user's own classes are told by their full names, a hash of their source and
    their plain public attributes. Not seen: functions and globals outside a class that its `forward` uses.
    """
    layers = [f"{name or '.'}: {_kind(layer)}{_settings(layer)}" for name, layer in module.named_modules()]
    tensors = [f"{name} {list(tensor.shape)}" for name, tensor in module.state_dict().items()]
    return "\n".join([*layers, *tensors])


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, _BatchNorm):
        return "BatchNorm"
    of = type(layer)
    return " ".join(map(_source, _own_classes(of))) or of.__name__


def _own_classes(of: type) -> list[type]:
    """The class and those that it inherits from, as far as they are a user's."""
    return [one for one in of.__mro__ if one is not object and one.__module__.split(".")[0] not in _PACKAGES]


def _source(of: type) -> str:
    """Full name and, where the source can be read, a hash of it: layers of the same names may compute other things."""
    name = f"{of.__module__}.{of.__qualname__}"
    try:
        return f"{name}@{hashlib.sha256(inspect.getsource(of).encode()).hexdigest()[:16]}"
    except (OSError, TypeError):
        return name


def _settings(layer: nn.Module) -> str:
    values = {name: getattr(layer, name) for name in _SETTINGS if hasattr(layer, name)}
    if _own_classes(type(layer)):
        plain = {name: value for name, value in sorted(vars(layer).items()) if isinstance(value, int | float | str)}
        values |= {name: value for name, value in plain.items() if not name.startswith("_") and name != "training"}
    if keyed_as := getattr(layer, "keyed_as", ""):
        values["keyed_as"] = keyed_as
    return "".join(f" {name}={value}" for name, value in values.items())
