"""Projection of affinities onto doubly stochastic matrices, with its exact gradient (MLC section 2.3).

Shapes: n points, of which this worker holds m rows; v matrices at once. The projection with entropy eta is the only
matrix of the form diag(e^f) exp(A / eta) diag(e^g) whose rows and columns sum to 1. All is computed on logarithms;
between two such passes the scaling goes on as products of the matrix with a vector, which cost a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from raymc.distributed import gather_rows, row_counts, sum_over_workers, world
from raymc.errors import DivergedError
from raymc.ops.checks import Deferred, Limit, deferred_on, passes
from raymc.ops.rates import at_least_float32, check_positive
from raymc.ops.sinkhorn_gradient import (
    CHECK_EVERY,
    MOST_ITERATIONS,
    ROUNDS,
    STEPS,
    all_rows,
    gradient,
    own_rows,
    plus_product,
)

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
            symmetric too, the projection settles in 10 iterations (float64: 20) whatever eta is, and the gradient is
            that among symmetric matrices. Not vouched for, an affinity that equals its transpose to rounding is
            projected so too, or as any other where that does not settle; the gradient is that among all matrices.
        counts: how many rows each worker has, by rank, where it is known.

    Raises:
        ValueError: not a square matrix, eta not positive, or no iterations.
        DivergedError: the sums did not settle within 2,000 iterations: eta is too small; or an affinity is NaN.
    """
    if affinity.ndim != 2 or (group is None and affinity.shape[0] != affinity.shape[1]):
        raise ValueError(f"affinity must be a square matrix, got {list(affinity.shape)}")
    if iterations is not None and iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    log_kernel = _log_kernel(affinity, eta)
    if iterations is not None:
        return _unrolled(log_kernel, iterations, group)
    if symmetric:
        return cast(Tensor, _Projection.apply(log_kernel[None], True, eta, group, counts))[0]
    return cast(Tensor, _Projection.apply(log_kernel, False, eta, group, counts))


def sinkhorn_columns(
    affinity: Tensor,
    eta: float,
    iterations: int | None,
    group: ProcessGroup | None,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """`[v, n, m]`: this worker's columns of the projections of symmetric affinities, of which it holds `[v, m, n]`.

    The same as `sinkhorn(…, symmetric=True)` of each, also where few iterations leave it not quite symmetric. On a GPU
    within `deferred_checks` nothing is waited for: the iterations are 10 (float64: 20), and their check comes later.
    """
    log_kernel = _log_kernel(affinity, eta)
    if iterations is None:
        rows = cast(Tensor, _Projection.apply(log_kernel, True, eta, group, counts))
    else:
        rows = _unrolled(log_kernel, iterations, group, columns=group is not None)
    return rows if group is None else rows.mT


def _log_kernel(affinity: Tensor, eta: float) -> Tensor:
    check_positive("eta", eta)
    return affinity.to(at_least_float32(affinity.dtype)) / eta


def symmetric_scaling(affinity: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """f `[n]` and the doubly stochastic exp(A / eta + f + f^T) `[n, n]` of a symmetric A, without gradients.

    Raises DivergedError as `sinkhorn`.
    """
    with torch.no_grad(), torch.autocast(affinity.device.type, enabled=False):
        f, pi = _symmetric(_log_kernel(affinity, eta)[None], eta, None, [len(affinity)], None)
        return f[0], pi[0]


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
    """Minus the logarithm of each row's sum, `[..., m, 1]`."""
    return -logs.logsumexp(-1, keepdim=True)


def _over_workers(logs: Tensor, group: ProcessGroup | None) -> Tensor:
    """Minus the logarithm of each column's sum over all workers, `[..., 1, n]`."""
    mine = logs.logsumexp(-2, keepdim=True)
    return -mine if group is None else -gather_rows(mine[None], group, [1] * world(group)[1]).logsumexp(0)


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
        counts = row_counts(log_kernel.movedim(-2, 0), group, counts)
        ctx.symmetric, ctx.group, ctx.counts = symmetric, group, counts
        deferred = deferred_on(log_kernel)
        ctx.exact = deferred is None
        with torch.autocast(log_kernel.device.type, enabled=False):
            if symmetric:
                _, pi = _symmetric(log_kernel, eta, group, counts, deferred)
            else:
                _, pi = _any(log_kernel, eta, group, counts)
        ctx.save_for_backward(pi)
        return pi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (pi,) = ctx.saved_tensors
        with torch.autocast(pi.device.type, enabled=False):
            slope = gradient(pi, grads[0], ctx.symmetric, ctx.group, ctx.counts, ctx.exact)
        return slope, None, None, None, None


def _symmetric(
    log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int], deferred: Deferred | None
) -> tuple[Tensor, Tensor]:
    """f `[v, n]` and this worker's rows `[v, m, n]` of the projections of symmetric kernels.

    The u with u = K (1 / u) is approached in steps w: u + w (K (1 / u) - u). Near it an error e of log u becomes
    e - w (I + Pi) e, which STEPS make small.
    """
    own = own_rows(log_kernel, group, counts)
    rounds = MOST_ITERATIONS // CHECK_EVERY if deferred is None else ROUNDS[log_kernel.dtype]
    limit = _limit(eta, rounds * CHECK_EVERY, log_kernel.dtype)
    f, logs = log_kernel.new_zeros(()), log_kernel
    for done in range(1, rounds + 1):
        f = (f - all_rows(logs.logsumexp(-1), group, counts)) / 2
        pi = (log_kernel + f[:, own, None]).add_(f[:, None]).exp_()
        u = torch.ones_like(f)
        for step in STEPS:
            u = all_rows(plus_product(u[:, own], pi, u.reciprocal(), 1 - step, step), group, counts)
        scale = u.reciprocal()
        pi.mul_(scale[:, own, None]).mul_(scale[:, None])
        f = f - u.log()
        off = (all_rows(pi.sum(-1), group, counts) - 1).abs().max()
        if passes(off, limit, deferred, expected=done == rounds):
            return f, pi
        logs = log_kernel + f[:, None]
    raise DivergedError(limit.too_large)


def _any(log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int]) -> tuple[Tensor, Tensor]:
    """g `[n]` and this worker's rows of the projection of any kernel; a symmetric one settles at smaller eta."""
    whole = gather_rows(log_kernel, group, counts)
    # C C^T is not quite its own transpose: a product's blocks are summed up in different orders.
    limit = _limit(eta, MOST_ITERATIONS, whole.dtype)
    rounding = 16 * torch.finfo(whole.dtype).eps * whole.abs().max()
    if bool((whole - whole.mT).abs().max() <= rounding):
        with suppress(DivergedError):  # with an eigenvalue of Pi near -1, rows and columns in turn settle sooner
            f, pi = (one[0] for one in _symmetric(log_kernel[None], eta, group, counts, None))
            if limit.allows(float((sum_over_workers(pi.sum(0), group) - 1).abs().max())):
                return f, pi
    return _alternating(log_kernel, eta, group, counts)


def _alternating(
    log_kernel: Tensor, eta: float, group: ProcessGroup | None, counts: list[int]
) -> tuple[Tensor, Tensor]:
    """g `[n]` and this worker's rows of the projection: columns and rows in turn, ending on rows."""
    limit = _limit(eta, MOST_ITERATIONS, log_kernel.dtype)
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
        if limit.allows(float((sums - 1).abs().max())):
            return g[0], pi
    raise DivergedError(limit.too_large)


def _limit(eta: float, iterations: int, dtype: torch.dtype) -> Limit:
    return Limit(
        TOLERANCE[dtype],
        f"the projection onto doubly stochastic matrices did not settle within {iterations} iterations: "
        f"eta {eta:g} is too small for these affinities",
        "the affinities that are to be projected are not finite",
    )
