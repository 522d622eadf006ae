"""Projection of affinities onto doubly stochastic matrices, with its exact gradient (MLC section 2.3).

Shapes: n points, of which this worker holds m rows. The projection with entropy eta is the only matrix of the form
diag(e^f) exp(A / eta) diag(e^g) whose rows and columns sum to 1. All is computed on logarithms; between two such
passes the scaling goes on as products of the matrix with a vector, which cost a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from raymc.distributed import first_row, gather_rows, row_counts, sum_over_workers, world
from raymc.errors import DivergedError
from raymc.ops.rates import at_least_float32, check_positive

CHECK_EVERY = 10
MOST_ITERATIONS = 2000
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}
"""The largest deviation of a row's or a column's sum from 1."""


def sinkhorn(
    affinity: Tensor,
    eta: float,
    iterations: int | None = None,
    group: ProcessGroup | None = None,
    symmetric: bool = False,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """The doubly stochastic matrix nearest to `affinity` in the entropic sense: rows and columns sum to 1.

    Args:
        affinity: `[n, n]`, or with `group` this worker's rows `[m, n]` of it; half precision is computed in float32.
        eta: weight of the entropy, above 0: towards 0 a permutation, towards infinity all entries 1/n.
        iterations: None projects until the sums are 1 to 1e-5 (float64: 1e-11), looked at every 10 iterations, and
            differentiates the projection implicitly (Eisenberger et al. 2022). A number is that of half-steps, rows
            first, with the gradient of MLC's authors' code (5 there): the column scaling counts as constant.
        group: workers over which the rows are sharded; the rows of the result are this worker's.
        symmetric: the caller vouches for a symmetric affinity with a large diagonal, |C C^T| say. Then the result is
            symmetric too, the projection halves its error at every iteration whatever eta is, and the gradient is
            that among symmetric matrices. Not vouched for, an affinity that equals its transpose to rounding is
            projected so too, or as any other where that does not settle; the gradient is that among all matrices.
        counts: how many rows each worker has, by rank, where it is known.

    Raises:
        ValueError: not a square matrix, eta not positive, or no iterations.
        DivergedError: the sums did not settle within 2,000 iterations: eta is too small; or an affinity is NaN.
    """
    if affinity.ndim != 2 or (group is None and affinity.shape[0] != affinity.shape[1]):
        raise ValueError(f"affinity must be a square matrix, got {list(affinity.shape)}")
    check_positive("eta", eta)
    if iterations is not None and iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    log_kernel = affinity.to(at_least_float32(affinity.dtype)) / eta
    if iterations is not None:
        return _unrolled(log_kernel, iterations, group)
    return cast(Tensor, _Projection.apply(log_kernel, symmetric, eta, group, counts))


def sinkhorn_columns(
    affinity: Tensor,
    eta: float,
    iterations: int | None,
    group: ProcessGroup | None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """`[n, m]`: this worker's columns of the projection of a symmetric affinity, of which it holds rows `[m, n]`.

    The same as `sinkhorn(…, symmetric=True)`, also where few iterations leave the result not quite symmetric.
    """
    if iterations is None or group is None:
        rows = sinkhorn(affinity, eta, iterations, group, symmetric=True, counts=counts)
        return rows if group is None else rows.mT
    log_kernel = affinity.to(at_least_float32(affinity.dtype)) / eta
    return _unrolled(log_kernel, iterations, group, columns=True).mT


def symmetric_scaling(affinity: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """f `[n]` and the doubly stochastic exp(A / eta + f + f^T) `[n, n]` of a symmetric A, without gradients.

    Raises DivergedError as `sinkhorn`.
    """
    with torch.no_grad(), torch.autocast(affinity.device.type, enabled=False):
        return _symmetric(affinity.to(at_least_float32(affinity.dtype)) / eta, eta, None, [len(affinity)])


def _unrolled(log_kernel: Tensor, half_steps: int, group: ProcessGroup | None, columns: bool = False) -> Tensor:
    """Half-steps, rows of the whole matrix first; `columns`: what is given are its columns, transposed."""
    rows_sum, columns_sum = (_over_workers, _in_rows) if columns else (_in_rows, _over_workers)
    f, g, before = (log_kernel.new_zeros(()) for _ in range(3))
    with torch.no_grad():
        for step in range(1, half_steps + 1):
            if step % 2 == 0:
                g = columns_sum(log_kernel + f, group)
            else:
                before = g
                if step < half_steps:
                    f = rows_sum(log_kernel + g, group)
    # The last row scaling once more, with a gradient; an even number of half-steps ends on a constant column scaling.
    scaled = log_kernel + before
    return (scaled + rows_sum(scaled, group) + (g - before)).exp()


def _in_rows(logs: Tensor, group: ProcessGroup | None) -> Tensor:
    """Minus the logarithm of each row's sum, `[m, 1]`."""
    return -logs.logsumexp(1, keepdim=True)


def _over_workers(logs: Tensor, group: ProcessGroup | None) -> Tensor:
    """Minus the logarithm of each column's sum over all workers, `[1, n]`."""
    counts = [1] * world(group)[1]
    return -gather_rows(logs.logsumexp(0, keepdim=True), group, counts).logsumexp(0, keepdim=True)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_kernel: Tensor,
        symmetric: bool,
        eta: float,
        group: ProcessGroup | None,
        counts: Sequence[int] | None,
    ) -> Tensor:
        counts = row_counts(log_kernel, group, counts)
        ctx.symmetric, ctx.group, ctx.counts = symmetric, group, counts
        with torch.autocast(log_kernel.device.type, enabled=False):
            _, pi = (_symmetric if symmetric else _any)(log_kernel, eta, group, counts)
        ctx.save_for_backward(pi)
        return pi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (pi,) = ctx.saved_tensors
        with torch.autocast(pi.device.type, enabled=False):
            return _gradient(pi, grads[0], ctx.symmetric, ctx.group, ctx.counts), None, None, None, None


def _gradient(pi: Tensor, upstream: Tensor, symmetric: bool, group: ProcessGroup | None, counts: list[int]) -> Tensor:
    """pi_ij (G_ij - x_i - y_j), where x and y make the gradient's rows and columns sum to 0."""
    weighted = pi * upstream
    rows, columns = weighted.sum(1), sum_over_workers(weighted.sum(0), group)
    if symmetric:
        y = _symmetric_multipliers(pi, gather_rows(rows, group, counts) + columns, group, counts) / 2
        start = first_row(counts, group)
        x = y[start : start + len(pi)]
    else:
        x, y = _multipliers(pi, rows, columns, group)
    return weighted.sub_(pi * (x[:, None] + y))


def _symmetric(log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int]) -> tuple[Tensor, Tensor]:
    """f `[n]` and this worker's rows of the projection of a symmetric kernel.

    Halfway to what makes the rows sum to 1, again and again: near the solution the error e becomes (e - Pi e) / 2,
    half of it or less, as long as Pi's negative eigenvalues are small.
    """
    f = log_kernel.new_zeros(log_kernel.shape[1])
    mine = f[: len(log_kernel)]
    for _ in range(MOST_ITERATIONS // CHECK_EVERY):
        mine = (mine - (log_kernel + f).logsumexp(1)) / 2
        f = gather_rows(mine, group, counts)
        pi = (log_kernel + mine[:, None]).add_(f).exp_()
        scale = torch.ones_like(f)
        part = scale[: len(mine)]
        for _ in range(CHECK_EVERY - 1):
            part = (part / (pi @ scale).clamp(min=1e-30)).sqrt()
            scale = gather_rows(part, group, counts)
        mine, f = mine + part.log(), f + scale.log()
        pi.mul_(part[:, None]).mul_(scale)
        if _settled(gather_rows(pi.sum(1), group, counts), log_kernel.dtype):
            return f, pi
    raise _too_small(eta)


def _any(log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int]) -> tuple[Tensor, Tensor]:
    """g `[n]` and this worker's rows of the projection of any kernel; a symmetric one settles at smaller eta."""
    whole = gather_rows(log_kernel, group, counts)
    # C C^T is not quite its own transpose: a product's blocks are summed up in different orders.
    rounding = 16 * torch.finfo(whole.dtype).eps * whole.abs().max()
    if bool((whole - whole.mT).abs().max() <= rounding):
        with suppress(DivergedError):  # with an eigenvalue of Pi near -1, rows and columns in turn settle sooner
            f, pi = _symmetric(log_kernel, eta, group, counts)
            if _settled(sum_over_workers(pi.sum(0), group), pi.dtype):
                return f, pi
    return _alternating(log_kernel, eta, group, counts)


def _alternating(
    log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int]
) -> tuple[Tensor, Tensor]:
    """g `[n]` and this worker's rows of the projection: columns and rows in turn, ending on rows."""
    g = log_kernel.new_zeros(1, log_kernel.shape[1])
    for _ in range(MOST_ITERATIONS // CHECK_EVERY):
        f = _in_rows(log_kernel + g, group)
        g = _over_workers(log_kernel + f, group)
        pi = (log_kernel + f).add_(g).exp_()
        left, right = torch.ones_like(f[:, 0]), torch.ones_like(g[0])
        for _ in range(CHECK_EVERY - 1):
            left = 1 / (pi @ right).clamp(min=1e-30)
            right = 1 / sum_over_workers(left @ pi, group).clamp(min=1e-30)
        left = 1 / (pi @ right).clamp(min=1e-30)
        g = g + right.log()
        pi.mul_(left[:, None]).mul_(right)
        sums = torch.cat([gather_rows(pi.sum(1), group, counts), sum_over_workers(pi.sum(0), group)])
        if _settled(sums, log_kernel.dtype):
            return g[0], pi
    raise _too_small(eta)


def _settled(sums: Tensor, dtype: torch.dtype) -> bool:
    off = float((sums - 1).abs().max())
    if math.isnan(off):
        raise DivergedError("the affinities that are to be projected are not finite")
    return off <= TOLERANCE[dtype]


def _too_small(eta: float) -> DivergedError:
    return DivergedError(
        f"the projection onto doubly stochastic matrices did not settle within {MOST_ITERATIONS} iterations: "
        f"eta {eta:g} is too small for these affinities"
    )


def _symmetric_multipliers(pi: Tensor, sums: Tensor, group: ProcessGroup | None, counts: list[int]) -> Tensor:
    """s `[n]` of (I + Pi) s = sums, on every worker, by conjugate gradients."""

    def apply(v: Tensor) -> Tensor:
        return v + gather_rows(pi @ v, group, counts)

    return _conjugate_gradients(apply, sums)


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
