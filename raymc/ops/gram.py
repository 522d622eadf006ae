"""Weighted Gram matrices and their log-determinants, with gradients that cost as little as the values.

Shapes: n rows, d features, k clusters. `Z_j = Z^T diag(pi_j) Z` is symmetric, so only its blocks on and above
the diagonal are multiplied out, and the gradient is one product with each symmetric upstream matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_BLOCK = 32
"""Columns of z per product on a CPU: small enough to save 3/8 of the work at d=128, large enough for BLAS."""

BLOCK = 16
"""The same where outer products are formed: 7/16 of the work is saved, and the products stay large.

On a GPU there are two strips, which save a quarter: a launch costs more there than what more of them would save.
"""

MANY = 160
"""From this number of clusters on, outer products of rows are formed once instead of once per cluster."""


def weighted_gram(z: Tensor, pi: Tensor) -> Tensor:
    """`[k, d, d]`: Z^T diag(pi_j) Z for each column j of pi. Z is `[n, d]`, pi `[n, k]`, of one type.

    No tensor of n*k*d numbers is made unless it fits a cache. The upstream gradient must be symmetric, as
    that of a function of symmetric matrices is. Once differentiable.
    """
    return cast(Tensor, _WeightedGram.apply(z, pi))


def logdet_plus_identity(gram: Tensor, scale: Tensor) -> Tensor:
    """`[k]`: logdet(I + scale_j gram_j) for positive semi-definite gram `[k, d, d]` and positive scale `[k]`.

    By Cholesky; NaN where a matrix is not positive definite (which exact arithmetic excludes). Once
    differentiable.
    """
    return cast(Tensor, _LogDet.apply(gram, scale))


class _WeightedGram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, pi: Tensor) -> Tensor:
        ctx.save_for_backward(z, pi)
        with torch.autocast(z.device.type, enabled=False):
            return _gram(z, pi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, pi = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            return _gram_gradients(z, pi, grads[0], *ctx.needs_input_grad)


def _gram(z: Tensor, pi: Tensor) -> Tensor:
    d, k = z.shape[1], pi.shape[1]
    gram = z.new_empty(k, d, d)
    if k >= MANY:
        for low, high, outer in _strips(z):
            gram[:, low:high, low:] = (pi.mT @ outer).view(k, high - low, d - low)
            gram[:, high:, low:high] = gram[:, low:high, high:].mT
        return gram
    block = FEW_BLOCK if z.device.type == "cpu" else d
    for low in range(0, d, block):
        high = min(low + block, d)
        left, right = z[:, low:high], z[:, low:]
        for some in _chunks(z, k, block):
            weighted = (pi[:, some].unsqueeze(2) * left.unsqueeze(1)).flatten(1)
            gram[some, low:high, low:] = (weighted.mT @ right).view(-1, high - low, d - low)
        gram[:, high:, low:high] = gram[:, low:high, high:].mT
    return gram


def _gram_gradients(
    z: Tensor, pi: Tensor, upstream: Tensor, of_z: bool, of_pi: bool
) -> tuple[Tensor | None, Tensor | None]:
    """2 sum_j pi_ij U_j z_i and z_i^T U_j z_i for symmetric upstream U; None for what is not asked for."""
    grad_z = torch.zeros_like(z) if of_z else None
    grad_pi = torch.zeros_like(pi) if of_pi else None
    few = _cluster_by_cluster if z.device.type == "cpu" else _many_at_once
    (_strip_by_strip if pi.shape[1] >= MANY else few)(z, pi, upstream, grad_z, grad_pi)
    return None if grad_z is None else grad_z.mul_(2), grad_pi


def _strip_by_strip(z: Tensor, pi: Tensor, upstream: Tensor, grad_z: Tensor | None, grad_pi: Tensor | None) -> None:
    """For many clusters: products with the outer products of rows, each pair of features once."""
    k = len(upstream)
    for low, high, outer in _strips(z):
        height = high - low
        upper = upstream[:, low:high, low:].clone(memory_format=torch.contiguous_format)
        if grad_z is not None:
            mixed = (pi @ upper.view(k, -1)).view(len(z), height, -1)  # sum_j pi_ij U_j, these rows of it
            grad_z[:, low:high].add_(torch.einsum("nab,nb->na", mixed, z[:, low:]))
            grad_z[:, high:].add_(torch.einsum("nab,na->nb", mixed[:, :, height:], z[:, low:high]))
        if grad_pi is not None:
            upper[:, :, height:] *= 2  # stands for the mirrored block too
            grad_pi += outer @ upper.view(k, -1).mT


def _strips(z: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """`(low, high, [n, (high - low) * (d - low)])`: z_ia z_ib of the features a in low..high and b from low on."""
    d = z.shape[1]
    block = BLOCK if z.device.type == "cpu" else max(BLOCK, (d + 1) // 2)
    for low in range(0, d, block):
        high = min(low + block, d)
        yield low, high, (z[:, low:high].unsqueeze(2) * z[:, low:].unsqueeze(1)).flatten(1)


def _cluster_by_cluster(z: Tensor, pi: Tensor, upstream: Tensor, grad_z: Tensor | None, grad_pi: Tensor | None) -> None:
    """For CPUs: the product with one matrix stays in the cache while it is read again."""
    for j, matrix in enumerate(upstream):
        moved = z @ matrix
        if grad_z is not None:
            grad_z.addcmul_(moved, pi[:, j : j + 1])
        if grad_pi is not None:
            grad_pi[:, j] = moved.mul_(z).sum(1)


def _many_at_once(z: Tensor, pi: Tensor, upstream: Tensor, grad_z: Tensor | None, grad_pi: Tensor | None) -> None:
    """For GPUs: few large products."""
    n, d = z.shape
    for some in _chunks(z, pi.shape[1], d):
        moved = (z @ upstream[some].reshape(-1, d).mT).view(n, -1, d)
        if grad_pi is not None:
            grad_pi[:, some] = (moved * z.unsqueeze(1)).sum(2)
        if grad_z is not None:
            grad_z += moved.mul_(pi[:, some].unsqueeze(2)).sum(1)


def _chunks(z: Tensor, k: int, width: int) -> list[slice]:
    """Runs of clusters so that n * width numbers of each stay in a CPU's cache, or fill a GPU."""
    room = 2**17 if z.device.type == "cpu" else 2**26
    step = max(1, room // (len(z) * width or 1))
    return [slice(j, min(j + step, k)) for j in range(0, k, step)]


class _LogDet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor, scale: Tensor) -> Tensor:
        factor = torch.empty_like(gram).mT  # LAPACK's own order: nothing is copied
        failed = torch.empty(len(gram), dtype=torch.int32, device=gram.device)
        with _one_thread(gram):
            for some in _batches(gram):
                shifted = gram[some] * scale[some].view(-1, 1, 1)
                shifted.diagonal(dim1=1, dim2=2).add_(1)
                torch.linalg.cholesky_ex(shifted, upper=True, out=(factor[some], failed[some]))
        value = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        ctx.save_for_backward(factor, scale)
        return torch.where(failed > 0, torch.nan, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        factor, scale = ctx.saved_tensors
        weight = grads[0] * scale
        grad_gram = torch.empty_like(factor, memory_format=torch.contiguous_format)
        trace = torch.empty_like(scale)
        with torch.autocast(factor.device.type, enabled=False), _one_thread(factor):
            for some in _batches(factor):
                inverse = _inverse(factor[some])
                trace[some] = inverse.diagonal(dim1=1, dim2=2).sum(1)
                torch.mul(inverse, weight[some].view(-1, 1, 1), out=grad_gram[some])
        return grad_gram, grads[0] * (factor.shape[1] - trace) / scale


@contextmanager
def _one_thread(matrices: Tensor) -> Iterator[None]:
    """For many small matrices: LAPACK's threads wait for each other in every one, and on a busy CPU they wait long."""
    threads = torch.get_num_threads()
    if matrices.device.type != "cpu" or threads == 1 or len(matrices) < MANY:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batches(matrices: Tensor) -> list[slice]:
    """Runs of matrices `[k, d, d]` that stay in a CPU's cache; all at once on a GPU."""
    k, d, _ = matrices.shape
    step = max(1, 2**18 // (d * d or 1) if matrices.device.type == "cpu" else k)
    return [slice(j, j + step) for j in range(0, len(matrices), step)]


def _inverse(factor: Tensor) -> Tensor:
    """(U^T U)^-1 of upper factors `[k, d, d]`; on a GPU by two batched kernels rather than k solves."""
    if factor.device.type == "cpu":
        return torch.cholesky_inverse(factor, upper=True)
    eye = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    root: Tensor = torch.linalg.solve_triangular(factor, eye, upper=True)
    return root @ root.mT
