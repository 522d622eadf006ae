"""The user's own tensors, .safetensors and .pt of torch."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raymc.config import OwnData
from raymc.datasets.own_arrays import others_in, samples_in
from raymc.datasets.own_found import Array, Found, some
from raymc.datasets.own_lines import other_kind
from raymc.errors import InputError

TENSORS = "tensors x and, where there are labels, y, or a single tensor x"
NUMPY_KNOWS = {getattr(torch, name) for name in "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()}


def read_safetensors(own: OwnData) -> Found:
    """Tensors `x` and `y`; a lone one is `x`. Raises InputError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(own.path, framework="pt") as file:
            names = list(file.keys())
            # A copy: else they change with the file.
            wanted = {name: file.get_tensor(name).clone() for name in _wanted(names, own.path)}
    except OSError as error:
        raise InputError(f"{own.path} cannot be read ({error.strerror or error}); expected: {TENSORS}") from error
    except SafetensorError as error:
        kind = other_kind(own.path)
        reason = f"is {kind}" if kind else f"is torn or no .safetensors ({' '.join(str(error).split())})"
        raise InputError(f"{own.path} {reason}; expected: {TENSORS}") from error
    return _of_tensors(wanted, names, own.path)


def read_pt(own: OwnData) -> Found:
    """As `read_safetensors`, of what `torch.save` wrote: a tensor, or a dict of tensors; nothing else is unpickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, and nothing else
            found = torch.load(own.path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{own.path} cannot be read ({error.strerror or error}); expected: {TENSORS}") from error
    except Exception as error:  # torch, pickle and zipfile each have their own errors for a torn file
        raise InputError(
            f"{own.path} {_no_pt(own.path, error)}; expected: {TENSORS}, as torch.save writes them"
        ) from error
    tensors = {"x": found} if isinstance(found, Tensor) else found
    if not isinstance(tensors, Mapping):
        raise InputError(f"{own.path} holds a {type(found).__name__}; expected: {TENSORS}")
    other = next((name for name in ("x", "y") if name in tensors and not isinstance(tensors[name], Tensor)), None)
    if other:
        kind = type(tensors[other]).__name__
        raise InputError(f"{own.path} holds {other} as a {kind}; expected: a tensor, torch.as_tensor({other})")
    names = [str(name) for name, value in tensors.items() if isinstance(value, Tensor)]
    return _of_tensors({name: tensors[name] for name in _wanted(names, own.path)}, list(map(str, tensors)), own.path)


def _no_pt(path: str, error: Exception) -> str:
    kind = other_kind(path)
    if kind and not kind.startswith("a .zip"):
        return f"is {kind}"
    if not isinstance(error, pickle.UnpicklingError) or "global" not in str(error).lower():
        return "is torn or no .pt"
    arrays = "; arrays of numpy are saved as torch.as_tensor(array)" if "numpy" in str(error) else ""
    return f"holds more than tensors, which could be code, and is not loaded{arrays}"


def _wanted(names: Sequence[str], path: str) -> Sequence[str]:
    """The names of the samples and, where there are some, of the labels. Raises InputError."""
    if "x" in names:
        return ("x", "y") if "y" in names else ("x",)
    if len(names) != 1:
        raise InputError(f"{path} lacks a tensor x (it has {some(names) or 'nothing'}); expected: {TENSORS}")
    return names


def _of_tensors(tensors: Mapping[str, Tensor], names: Sequence[str], path: str) -> Found:
    arrays = [array_of(tensor, name, path) for name, tensor in tensors.items()]
    x, how = samples_in(arrays[0], path)
    others = others_in(names, list(tensors), "tensors", path)
    return Found(x, arrays[1] if len(arrays) > 1 else None, left_out=how + others)


def array_of(tensor: Tensor, name: str, path: str) -> Array:
    """The numbers of a tensor, on the CPU and without a copy where that can be. Raises InputError."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()  # numpy has no such type
    if plain.layout != torch.strided or plain.dtype not in NUMPY_KNOWS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{path} holds {name} as {kind} ({tensor.layout}); expected: plain floats or whole numbers")
    return plain.numpy()
