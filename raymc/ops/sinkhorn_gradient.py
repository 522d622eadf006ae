"""The gradient of the projection in raymc.ops.sinkhorn, and the steps that both share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.distributed import first_row, gather_rows, sum_over_workers

CHECK_EVERY = 10


MOST_ITERATIONS = 2000


ROUNDS = {torch.float32: 1, torch.float64: 2}
"""Of CHECK_EVERY iterations, where nobody looks: |C C^T| was within TOLERANCE after four fifths of them at most."""


def _chebyshev(degree: int) -> list[float]:
    """Steps that together damp every error whose eigenvalue under I + Pi is in [1, 2] by 1 / T_degree(3)."""
    return [2 / (3 + math.cos(math.pi * (2 * j + 1) / (2 * degree))) for j in range(degree)]


STEPS = [*_chebyshev(4), *_chebyshev(4), *_chebyshev(2)]
"""Of a round: Pi's eigenvalues are at most 1, and those of |C C^T|'s projection at least 0, or hardly below."""


def all_rows(x: Tensor, group: ProcessGroup | None, counts: list[int]) -> Tensor:
    """All workers' `[v, m]`, side by side."""
    return x if group is None else gather_rows(x.mT, group, counts).mT


def gradient(
    pi: Tensor, upstream: Tensor, symmetric: bool, group: ProcessGroup | None, counts: list[int], exact: bool
) -> Tensor:
    """pi_ij (G_ij - x_i - y_j), where x and y make the gradient's rows and columns sum to 0."""
    weighted = pi * upstream
    rows, columns = weighted.sum(-1), sum_over_workers(weighted.sum(-2), group)
    if symmetric:
        y = _symmetric_multipliers(pi, (all_rows(rows, group, counts) + columns) / 2, group, counts, exact)
        x = y[:, own_rows(pi, group, counts)]
    else:
        x, y = _multipliers(pi, rows, columns, group)
    return weighted.addcmul_(pi, x[..., None] + y[..., None, :], value=-1)


def own_rows(rows: Tensor, group: ProcessGroup | None, counts: list[int]) -> slice:
    """Where this worker's rows `[v, m, n]` are among all."""
    start = first_row(counts, group)
    return slice(start, start + rows.shape[1])


def plus_product(x: Tensor, pi: Tensor, y: Tensor, beta: float, alpha: float) -> Tensor:
    """beta x + alpha Pi y `[v, m]` of x `[v, m]`, Pi `[v, m, n]` and y `[v, n]`."""
    if pi.device.type == "cpu":  # products in a batch take it several times as long
        return torch.stack([torch.addmv(*one, beta=beta, alpha=alpha) for one in zip(x, pi, y, strict=True)])
    return torch.baddbmm(x[..., None], pi, y[..., None], beta=beta, alpha=alpha)[..., 0]


def _symmetric_multipliers(
    pi: Tensor, sums: Tensor, group: ProcessGroup | None, counts: list[int], exact: bool
) -> Tensor:
    """s `[v, n]` of (I + Pi) s = sums, on every worker, in the projection's own steps.

    They damp the error here as they did there, so that as many do; with `exact` it goes on until only rounding is left.
    """
    own = own_rows(pi, group, counts)
    enough = 100 * torch.finfo(pi.dtype).eps * sums.norm()
    s = torch.zeros_like(sums)
    rounds = MOST_ITERATIONS // CHECK_EVERY if exact else ROUNDS[pi.dtype]
    for _ in range(rounds):
        for step in STEPS:
            s = all_rows(plus_product(s[:, own].lerp(sums[:, own], step), pi, s, 1, -step), group, counts)
        if exact:
            left = plus_product(s[:, own] - sums[:, own], pi, s, 1, 1)
            if bool(all_rows(left, group, counts).norm() <= enough):
                break
    return s


def _multipliers(pi: Tensor, rows: Tensor, columns: Tensor, group: ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """x `[m]` and y `[n]` of x + Pi y = rows, Pi^T x + y = columns.

    They are unique up to a constant that moves from one to the other; the mean of y is set to 0.
    """

    def apply(v: Tensor) -> Tensor:
        return v - sum_over_workers((pi @ v) @ pi, group) + v.mean()

    y = _conjugate_gradients(apply, columns - sum_over_workers(rows @ pi, group))
    return rows - pi @ y, y


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """x of apply(x) = target for a positive definite map."""
    enough = (100 * torch.finfo(target.dtype).eps * target.norm()) ** 2
    x, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual @ residual
    for step in range(1, MOST_ITERATIONS + 1):
        moved = apply(direction)
        # Once there, stand still until it is looked at: what is left is rounding.
        length = torch.where(size > enough, size / (direction @ moved), 0.0)
        x, residual = x + length * direction, residual - length * moved
        before, size = size, residual @ residual
        direction = residual + torch.where(size > enough, size / before, 0.0) * direction
        if step % CHECK_EVERY == 0 and bool(size <= enough):
            break
    return x
