"""The nearest of points and the most similar of directions, in blocks: no more than 4 million pairs at a time.

Shapes: n points, d dimensions, b points whose neighbours are sought, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from raymc.ops.blocks import in_blocks

BLOCK = 2**22


def nearest(points: Tensor, k: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest others of the points `rows` (of all: None): which, int64 `[b, k]`, and how far, `[b, k]`.

    In single precision or the type of `points` `[n, d]`, whichever is finer; a point's duplicates are others at 0.
    """
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    points = points - points.mean(0)  # or the products would lose a far cloud's distances
    rows = torch.arange(len(points), device=points.device) if rows is None else rows
    return _nearest(points, k, points[rows], rows)


@torch.no_grad()
def nearest_others(points: Tensor, k: int, rows: Tensor) -> Tensor:
    """Positions int64 `[b, k]` of the k nearest others of the points `rows` `[b]`, nearest first, see `nearest`.

    Beside the points about their mean, and a block of products, nothing as large as the points is made.
    """
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    points = points - points.mean(0)
    lengths = -points.norm(dim=1).square()
    which = torch.empty(len(rows), k, dtype=torch.int64, device=points.device)
    step = max(1, BLOCK // max(1, len(points)))
    # One buffer for all blocks: a CPU's allocator would leave a hole for each, 10 GB in all of 50,000 points.
    products = points.new_empty(min(step, len(rows)), len(points))
    for asked, found in zip(torch.split(rows, step), torch.split(which, step), strict=True):
        close = torch.addmm(lengths, points[asked], points.mT, alpha=2, out=products[: len(asked)])
        close[torch.arange(len(asked), device=asked.device), asked] = -torch.inf
        found.copy_(close.topk(k, dim=1).indices)
    return which


def nearest_to(asked: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest to each of `asked` `[b, d]` among other `points` `[n, d]`: which `[b, k]`, and how far, `[b, k]`.

    In the finer of both types, single precision at least. Of points at the same distance any may be first.
    """
    dtype = torch.promote_types(torch.promote_types(asked.dtype, points.dtype), torch.float32)
    points = points.to(dtype)
    centre = points.mean(0)
    return _nearest(points - centre, k, asked.to(dtype) - centre)


def most_similar(points: Tensor, k: int, asked: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k with the largest |cos| to each of `asked` `[b, d]` (None: to each of the others), and it, `[b, k]` each.

    All rows have length 1. Directions have no place from which they could be far, so nothing is centred.
    """
    own = torch.arange(len(points), device=points.device) if asked is None else None
    found = _largest(lambda rows: (rows @ points.mT).abs_(), points if asked is None else asked, len(points), k, own)
    return found["which"], found["values"]


def _nearest(points: Tensor, k: int, asked: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of points about their mean; `own` are the positions among them of those that are asked for."""
    lengths = -points.square().sum(1)
    which = _largest(lambda rows: torch.addmm(lengths, rows, points.mT, alpha=2), asked, len(points), k, own)["which"]
    # By neighbour: no `[b, k, d]`, and exact where the products are not.
    return which, torch.stack([(asked - points[column]).norm(dim=1) for column in which.T], 1)


def _largest(close: Callable[[Tensor], Tensor], asked: Tensor, n: int, k: int, own: Tensor | None) -> dict[str, Tensor]:
    """The k largest of the values `close(rows)` `[b, n]`, not counting a row's own, and where they are."""

    def search(rows: Tensor) -> dict[str, Tensor]:
        values = close(asked[rows])
        if own is not None:
            values[torch.arange(len(rows), device=values.device), own[rows]] = -torch.inf
        found = values.topk(k, dim=1)
        return {"which": found.indices, "values": found.values}

    return in_blocks(search, torch.arange(len(asked), device=asked.device), max(1, BLOCK // max(1, n)))
