"""The nearest of points, in blocks: no more than 4 million distances at a time.

Shapes: n points, d dimensions, b points whose neighbours are sought, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**22


def nearest(points: Tensor, k: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest others of the points `rows` (of all: None): which, int64 `[b, k]`, and how far, `[b, k]`.

    In single precision or the type of `points` `[n, d]`, whichever is finer; a point's duplicates are others at 0.
    """
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    points = points - points.mean(0)  # or the products below would lose a far cloud's distances
    rows = torch.arange(len(points), device=points.device) if rows is None else rows
    squares, found = points.square().sum(1), []
    for some in torch.split(rows, max(1, BLOCK // len(points))):
        square = torch.addmm(squares, points[some], points.mT, alpha=-2)
        square[torch.arange(len(some), device=some.device), some] = torch.inf
        found.append(square.topk(k, dim=1, largest=False).indices)
    which = torch.cat(found)
    # By neighbour: no `[b, k, d]`, and exact where the products are not.
    return which, torch.stack([(points[rows] - points[column]).norm(dim=1) for column in which.T], 1)
