"""One pass over many rows, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

ROWS = 2048
"""Samples of one forward pass over a whole split."""

Out = TypeVar("Out", Tensor, dict[str, Tensor])


def in_blocks(function: Callable[[Tensor], Out], x: Tensor, rows: int = ROWS) -> Out:
    """`function` of x `[n, …]` in blocks of so many rows, joined: a tensor `[n, …]`, or several by name.

    Of no rows the function is asked once, for none.
    """
    parts = [function(part) for part in torch.split(x, rows)]
    if isinstance(parts[0], dict):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(parts)
