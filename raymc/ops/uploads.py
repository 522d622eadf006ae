"""Tensors on their way from the CPU to a GPU, for which nobody waits: they go through pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pinned(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor on the CPU for what is to go to `device`: in pinned memory where that is a GPU."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """x on `device`; torch keeps the pinned memory until the GPU is through with the copy."""
    if x.device.type != "cpu" or device.type != "cuda":
        return x.to(device)
    return pinned(x.shape, x.dtype, device).copy_(x).to(device, non_blocking=True)
