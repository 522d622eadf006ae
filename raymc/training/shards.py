"""Weights as safetensors files of a bounded size, and back: a checkpoint's files.

A tensor is named `<module>.<name in the module>`; one that is larger than a file is cut into flat pieces `…#0`, `…#1`.
Nothing is unpickled, and nothing is believed: sizes, hashes, names, shapes and types are checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor

from raymc.errors import InputError
from raymc.training.stages import Weights

SHARD_BYTES = 14 * 2**20
ENTRY_BYTES = 160  # what the head of a file takes for a tensor beside its name, at most
COARSE = 2.0**-10  # relative error; rounding alone stays below half of it
SHARD = re.compile(r"[\w-]+\.safetensors", re.ASCII)


def written(weights: Weights, limit: int = SHARD_BYTES) -> list[bytes]:
    """The weights as safetensors files of at most `limit` bytes.

    Raises InputError for what is not finite or beyond float16.
    """
    files: list[dict[str, Tensor]] = [{}]
    used = ENTRY_BYTES
    for module, state in weights.items():
        for key, tensor in state.items():
            for name, piece in _pieces(f"{module}.{key}", _compact(f"{module}.{key}", tensor), limit):
                size = piece.nbytes + len(name) + ENTRY_BYTES
                if files[-1] and used + size > limit:
                    files.append({})
                    used = ENTRY_BYTES
                files[-1][name] = piece
                used += size
    return [serialise(file) for file in files]


def _compact(name: str, tensor: Tensor) -> Tensor:
    """Matrices and kernels in float16; biases and what BatchNorm knows take no room and stay as they are.

    So does a matrix whose numbers are so small that float16 would keep few digits of them. None is wider than
    float32.
    """
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise InputError(f"{name} is not finite")
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return tensor.contiguous()
    half = tensor.half()
    if not bool(half.isfinite().all()):
        raise InputError(f"{name} has a weight of {float(tensor.abs().max()):g}: float16 ends at 65504")
    lost = (half.to(tensor.dtype) - tensor).norm()
    return (half if lost <= COARSE * tensor.norm() else tensor).contiguous()


def weights_digest(weights: Weights) -> str:
    """A hash of weights as a checkpoint has them: the same before they were rounded and after."""
    content = hashlib.sha256()
    for module, state in sorted(weights.items()):
        for key, tensor in sorted(state.items()):
            name, rounded = f"{module}.{key}", _compact(f"{module}.{key}", tensor)
            content.update(f"{name} {rounded.dtype} {tuple(rounded.shape)}".encode())
            content.update(rounded.view(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:32]


def _pieces(name: str, tensor: Tensor, limit: int) -> Iterator[tuple[str, Tensor]]:
    """The tensor whole where a shard holds it, else in flat pieces that fill one each."""
    room = limit - len(name) - 2 * ENTRY_BYTES - 8
    if tensor.nbytes <= room:
        yield name, tensor
        return
    flat = tensor.reshape(-1)
    for at, piece in enumerate(torch.split(flat, max(1, room // flat.element_size()))):
        yield f"{name}#{at}", piece.contiguous()


def read(folder: Path, files: Sequence[Mapping[str, Any]], expected: Weights) -> Weights:
    """The weights in the files of a folder, of which `files` says `name`, `bytes` and `sha256`.

    `expected` has a tensor of the right shape and type for each. Raises InputError for whatever is not as it should be.
    """
    tensors: dict[str, Tensor] = {}
    names = []
    for file in files:
        try:
            name, size, digest = str(file["name"]), int(file["bytes"]), str(file["sha256"])
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise InputError("its card does not say name, bytes and sha256 of every file") from error
        if not SHARD.fullmatch(name):
            raise InputError(f"{name!r} is no name of a shard")
        names.append(name)
        for key, tensor in _shard(folder / name, size, digest).items():
            if key in tensors:
                raise InputError(f"{name}: {key} stands twice")
            tensors[key] = tensor
    foreign = sorted({path.name for path in folder.glob("*.safetensors")} - set(names))
    if foreign:
        raise InputError(f"{foreign[0]} is not one of the shards that its card names")
    return _assembled(tensors, expected)


def _shard(path: Path, size: int, digest: str) -> dict[str, Tensor]:
    try:
        there = path.stat().st_size
        content = path.read_bytes() if there == size else b""
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror}") from error
    if there != size:
        raise InputError(f"{path.name} has {there} bytes, its card says {size}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path.name} is not the file that its card was written for (sha256)")
    try:
        return parse(content)
    except SafetensorError as error:
        raise InputError(f"{path.name} is no safetensors file: {' '.join(str(error).split())}") from error


def _assembled(tensors: Mapping[str, Tensor], expected: Weights) -> Weights:
    """The tensors by module, pieces joined, in the types of `expected`, whose names and shapes they must have."""
    pieces: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        pieces.setdefault(name.partition("#")[0], {})[name.partition("#")[2]] = tensor
    wanted = {f"{module}.{key}": like for module, state in expected.items() for key, like in state.items()}
    for name in sorted(pieces.keys() ^ wanted.keys()):
        raise InputError(f"{name} is {'missing' if name in wanted else 'no tensor of this net'}")
    whole = {name: _joined(name, parts, wanted[name]) for name, parts in pieces.items()}
    return {module: {key: whole[f"{module}.{key}"] for key in state} for module, state in expected.items()}


def _joined(name: str, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
    types = (torch.float16, torch.float32) if like.is_floating_point() else (like.dtype,)
    for part in parts.values():
        if part.dtype not in types:
            raise InputError(f"{name} is of type {part.dtype}, this net's of {like.dtype}")
    if "" in parts and len(parts) == 1:
        tensor = parts[""]
    elif parts.keys() == {str(at) for at in range(len(parts))}:
        tensor = torch.cat([parts[str(at)].reshape(-1) for at in range(len(parts))])
        tensor = tensor.reshape(like.shape) if tensor.numel() == like.numel() else tensor
    else:
        raise InputError(f"{name} lacks a piece")
    if tensor.shape != like.shape:
        raise InputError(f"{name} is of shape {list(tensor.shape)}, this net's of {list(like.shape)}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise InputError(f"{name} is not finite")
    return tensor.to(like.dtype)
