"""Backbones that raymc does not have: a function of the user's, `package.module:function`, and timm's, `timm:NAME`.

Code of others runs only where a space file or the command line names it.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from raymc.errors import InputError

TIMM = "timm:"
Shape = tuple[int, ...]


def is_named(name: str) -> bool:
    """Whether a backbone's name says where its code is."""
    return ":" in name


def build_named(name: str, input_shape: Shape) -> nn.Module:
    """The net `[b, *input_shape]` -> `[b, m]`, untrained, from torch's global generator.

    Raises InputError, in one line, where there is no such function, where it fails, and where it gives no net.
    """
    make = _timm(name.removeprefix(TIMM), input_shape) if name.startswith(TIMM) else find(name)
    try:
        net = make(input_shape)
    except Exception as error:
        raise InputError(f"backbone {name} failed for samples {_words(input_shape)}: {_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"backbone {name} must return a torch.nn.Module; it returned {type(net).__name__}")
    return net


@cache
def named_width(name: str, input_shape: Shape) -> int:
    """m, found by a batch of two zeros in eval mode; torch's generators are left as they were.

    Raises InputError where the output is not `[2, m]`, and as `build_named` does.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        net = build_named(name, input_shape).eval()
        try:
            out = net(torch.zeros(2, *input_shape))
        except Exception as error:
            raise InputError(f"backbone {name} does not take samples {_words(input_shape)}: {_line(error)}") from error
    if not isinstance(out, Tensor):
        raise InputError(f"backbone {name}: its output must be a tensor [b, m]; it is {type(out).__name__}")
    if out.ndim != 2 or len(out) != 2 or not out.shape[1] or not out.is_floating_point():
        found = f"{list(out.shape)} of {str(out.dtype).removeprefix('torch.')}"
        raise InputError(f"backbone {name}: its output for a batch of 2 must be [2, m] of floats; it is {found}")
    return int(out.shape[1])


@cache
def find(name: str) -> Callable[[Shape], Any]:
    """What `package.module:function` names; modules are looked for where Python looks, then in the working folder.

    Raises InputError.
    """
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise InputError(f"backbone {name!r} is neither a net of raymc's nor package.module:function")
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)  # `python -m` has it already, the command `raymc` has not; last, so that it hides nothing
    try:
        found = pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"backbone {name}: importing {module} failed: {_line(error)}") from error
        raise InputError(f"backbone {name}: no module {error.name} in {here} or where Python looks") from error
    except Exception as error:
        if isinstance(error, AttributeError) and module in sys.modules:
            raise InputError(f"backbone {name}: {module} has no {function}") from error
        raise InputError(f"backbone {name}: importing {module} failed: {_line(error)}") from error
    if not callable(found):
        raise InputError(f"backbone {name}: {function} must be a function; it is {type(found).__name__}")
    make: Callable[[Shape], Any] = found
    return make


def _timm(model: str, input_shape: Shape) -> Callable[[Shape], Any]:
    """timm's net of this name without its classifier, untrained."""
    if len(input_shape) != 3:
        raise InputError(f"backbone {TIMM}{model} takes images; the samples are {_words(input_shape)}")
    try:
        import timm
    except ImportError as error:
        raise InputError(f"backbone {TIMM}{model}: the package timm is not installed (pip install timm)") from error
    return lambda shape: timm.create_model(model, pretrained=False, num_classes=0, in_chans=shape[0])


def _words(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
