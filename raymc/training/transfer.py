"""Tensors on their way to the device and back: one copy for many; for those that go there nobody waits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from raymc.ops.uploads import pinned

Key = TypeVar("Key", bound=Hashable)

ALIGNED = 16  # bytes: a part of a buffer begins where any type may


def moved(tensors: Mapping[Key, Tensor], device: torch.device) -> dict[Key, Tensor]:
    """CPU tensors on `device`: themselves on a CPU, else parts of one buffer that is copied there at once.

    For a GPU the buffer is pinned and the copy is queued behind what the GPU has to do; torch keeps the memory until
    it is through.
    """
    return sent(tensors, buffered(tensors, device), device)


def buffered(tensors: Mapping[Key, Tensor], device: torch.device) -> Tensor | None:
    """The buffer in which CPU tensors go to `device`; None where nothing is copied. Any thread may make it."""
    return None if device.type == "cpu" or not tensors else packed(tensors, pin=device.type == "cuda")


def sent(tensors: Mapping[Key, Tensor], buffer: Tensor | None, device: torch.device) -> dict[Key, Tensor]:
    """Tensors on `device` by the buffer that was made for it: the second half of `moved`."""
    return dict(tensors) if buffer is None else unpacked(buffer.to(device, non_blocking=True), tensors)


def fetched(tensors: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Tensors on the CPU: themselves, or where they are on a device, copies by one buffer, for which is waited once."""
    there = {name: tensor for name, tensor in tensors.items() if tensor.device.type != "cpu"}
    if not there:
        return dict(tensors)
    buffer = packed(there, device=next(iter(there.values())).device).cpu()
    # Memory of their own: a file of some of them would else hold them all.
    return {**tensors, **{name: part.clone() for name, part in unpacked(buffer, there).items()}}


def packed(tensors: Mapping[Key, Tensor], pin: bool = False, device: torch.device | None = None) -> Tensor:
    """The bytes of all tensors in one, uint8 `[…]`, each from a multiple of 16 on; `device`: theirs, if not the CPU."""
    buffer = torch.empty(sum(map(_room, tensors.values())), dtype=torch.uint8, pin_memory=pin, device=device)
    for name, place in unpacked(buffer, tensors).items():
        place.copy_(tensors[name])
    return buffer


def unpacked(buffer: Tensor, like: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Views of a packed buffer on any device, of the shapes and types of `like`."""
    parts, begin = {}, 0
    for name, tensor in like.items():
        parts[name] = buffer[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        begin += _room(tensor)
    return parts


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNED) * ALIGNED


def rows_at(samples: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Rows of `samples` on `device`, through pinned memory from a CPU to a GPU; the index lies where the samples do."""
    if samples.device.type == device.type:
        return samples[index]
    rows = pinned((len(index), *samples.shape[1:]), samples.dtype, device)
    torch.index_select(samples, 0, index, out=rows)
    return rows.to(device, non_blocking=True)
