"""A checkpoint's weights: float16 safetensors shards with an index, as huggingface_hub writes and reads them.

A tensor is named `<module>.<name in the module>`. Nothing is unpickled, and nothing is believed: sizes, hashes, names,
shapes and types are checked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor, nn

from raymc.errors import InputError
from raymc.training.stages import Weights, digest_of

FILE_BYTES = 14 * 2**20
HEAD_BYTES = 160  # what the head of a file takes for a tensor beside its name, at most
COARSE = 2.0**-10  # relative error; rounding alone stays below half of it
NAME = re.compile(r"[\w-]+\.safetensors(\.index\.json)?", re.ASCII)


def rounded(name: str, tensor: Tensor) -> Tensor:
    """Matrices and kernels in float16; biases and what BatchNorm knows take no room and stay as they are.

    So does a matrix whose numbers are so small that float16 would keep few digits of them. None is wider than
    float32. Raises InputError for what is not finite or beyond float16.
    """
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{name} is not finite")
    if tensor.dim() < 2:
        return tensor
    half = tensor.half()
    if not bool(half.isfinite().all()):
        raise InputError(f"{name} has a weight of {float(tensor.abs().max()):g}: float16 ends at 65504")
    return half if (half.float() - tensor).norm() <= COARSE * tensor.norm() else tensor


def read_digest(modules: Mapping[str, nn.Module]) -> str | None:
    """What a card says of the modules that its stage only reads: the same before they were rounded and after."""
    return digest_of(modules, rounded) if modules else None


def write(weights: Weights, folder: Path) -> list[dict[str, Any]]:
    """Write shards, and their index where there are several, into a new folder; `name`, `bytes`, `sha256` of each.

    No file is larger than FILE_BYTES. Raises InputError for a tensor that is larger, not finite or beyond float16.
    """
    from huggingface_hub import save_torch_state_dict  # only for who writes one; it asks no network

    tensors = {name: rounded(name, value) for name, value in _flat(weights).items()}
    room = FILE_BYTES - sum(len(name) + HEAD_BYTES for name in tensors)
    for name, tensor in tensors.items():
        if tensor.nbytes > room:
            raise InputError(f"{name} has {tensor.nbytes:,} bytes, a file of a checkpoint has room for {room:,}")
    folder.mkdir(parents=True)
    save_torch_state_dict(tensors, folder, max_shard_size=room)
    return [_recorded(path) for path in sorted(folder.iterdir())]


def _flat(weights: Weights) -> dict[str, Tensor]:
    return {f"{module}.{key}": value for module, state in weights.items() for key, value in state.items()}


def _recorded(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = file.read()
        os.fsync(file.fileno())
    return {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read(folder: Path, files: Sequence[Any], expected: Weights) -> Weights:
    """The weights in the files of a folder, of which `files` says `name`, `bytes` and `sha256`.

    `expected` has a tensor of the right shape and type for each. Raises InputError for whatever is not as it should be.
    """
    tensors: dict[str, Tensor] = {}
    names = set()
    for file in files:
        try:
            name, size, digest = str(file["name"]), int(file["bytes"]), str(file["sha256"])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise InputError("its card does not say name, bytes and sha256 of every file") from error
        names.add(name)
        for key, tensor in read_file(folder, name, size, digest).items():
            if key in tensors:
                raise InputError(f"{name}: {key} stands twice")
            tensors[key] = tensor
    for foreign in sorted({path.name for path in folder.glob("*.safetensors")} - names):
        raise InputError(f"{foreign} is not one of the shards that its card names")
    wanted = _flat(expected)
    for name in sorted(tensors.keys() ^ wanted.keys()):
        raise InputError(f"{name} is {'missing' if name in wanted else 'no tensor of this net'}")
    whole = {name: _fitting(name, tensors[name], like) for name, like in wanted.items()}
    return {module: {key: whole[f"{module}.{key}"] for key in state} for module, state in expected.items()}


def read_file(folder: Path, name: str, size: int, digest: str) -> dict[str, Tensor]:
    """The tensors of a shard, which must have so many bytes and this sha256; else raises InputError.

    The index has none, and is for other readers: a shard says itself what it holds.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a shard")
    try:
        there = (folder / name).stat().st_size
        content = (folder / name).read_bytes() if there == size else b""
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    if there != size:
        raise InputError(f"{name} has {there} bytes, its card says {size}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{name} is not the file that its card was written for (sha256)")
    try:
        return parse(content) if name.endswith(".safetensors") else {}
    except SafetensorError as error:
        raise InputError(f"{name} is no safetensors file: {' '.join(str(error).split())}") from error


def _fitting(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the type of `like`, whose shape it must have."""
    if tensor.dtype not in ((torch.float16, torch.float32) if like.is_floating_point() else (like.dtype,)):
        raise InputError(f"{name} is of type {tensor.dtype}, this net's of {like.dtype}")
    if tensor.shape != like.shape:
        raise InputError(f"{name} is of shape {list(tensor.shape)}, this net's of {list(like.shape)}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise InputError(f"{name} is not finite")
    return tensor.to(like.dtype)
