"""The nearest of points and the most similar of directions, in blocks: no more than 4 million pairs at a time.

Products alone would lose neighbours that are close to each other within a wide cloud: they are in double precision, and
what they find is measured again by differences.

Shapes: n points, d dimensions, b points whose neighbours are sought, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raymc.ops.blocks import in_blocks

BLOCK = 2**22
SPARE = 8  # neighbours more than asked for that are measured: products may change the order of the last ones


@torch.no_grad()
def nearest(points: Tensor, k: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest others of the points `rows` (of all: None): which, int64 `[b, k]`, and how far, `[b, k]`.

    Nearest first, of equally near ones that of the smaller position. Distances are in single precision or the type of
    `points` `[n, d]`, whichever is finer; a point's duplicates are others at 0.
    """
    rows = torch.arange(len(points), device=points.device) if rows is None else rows
    return _nearest(points, k, points, rows, others=True)


@torch.no_grad()
def nearest_to(asked: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest to each of `asked` `[b, d]` among other `points` `[n, d]`: which `[b, k]`, and how far, `[b, k]`.

    See `nearest`; distances are in the finer of both types.
    """
    return _nearest(points, k, asked, torch.arange(len(asked), device=asked.device), others=False)


@torch.no_grad()
def most_similar(points: Tensor, k: int, asked: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k with the largest |cos| to each of `asked` `[b, d]` (None: to each of the others), and it, `[b, k]` each.

    All rows have length 1. Directions have no place from which they could be far, so nothing is centred.
    """
    space, seeking = points.double(), (points if asked is None else asked).double()

    def search(rows: Tensor) -> dict[str, Tensor]:
        values = (seeking[rows] @ space.mT).abs_()
        if asked is None:
            values[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
        found = values.topk(k, dim=1)
        return {"which": found.indices, "values": found.values.to(points.dtype)}

    rows = torch.arange(len(seeking), device=points.device)
    found = in_blocks(search, rows, max(1, BLOCK // max(1, len(points))))
    return found["which"], found["values"]


def _nearest(points: Tensor, k: int, asked: Tensor, rows: Tensor, others: bool) -> tuple[Tensor, Tensor]:
    """For the rows of `asked`; `others`: these are the points themselves, and a point is no neighbour of its own."""
    n, wide = len(points), min(k + SPARE, len(points) - others)
    step = max(1, BLOCK // max(1, n, wide * points.shape[1]))
    centre = points.double().mean(0)  # products about it, or they would lose a far cloud's distances
    centred = points - centre
    minus_squares = -centred.square().sum(1)
    which = torch.empty(len(rows), k, dtype=torch.int64, device=points.device)
    apart = centred.new_empty(len(rows), k)
    # One buffer for all blocks: a CPU's allocator would leave a hole for each, 10 GB in all of 50,000 points.
    products = centred.new_empty(min(step, len(rows)), n)
    for block, of, far in zip(*(torch.split(one, step) for one in (rows, which, apart)), strict=True):
        here = asked[block].double()
        close = torch.addmm(minus_squares, here - centre, centred.mT, alpha=2, out=products[: len(block)])
        if others:
            close.scatter_(1, block[:, None], -torch.inf)
        near = close.topk(wide, dim=1, sorted=False).indices.sort(dim=1).values  # so that ties are by position
        order = torch.linalg.vector_norm(here[:, None] - points[near], dim=2).sort(dim=1, stable=True)
        far.copy_(order.values[:, :k])
        of.copy_(near.gather(1, order.indices[:, :k]))
    dtype = torch.promote_types(points.dtype, torch.float32)
    return which, apart.to(torch.promote_types(dtype, asked.dtype))
