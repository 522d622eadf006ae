"""Soft assignment of points to centres by Student's t kernel, and the target that sharpens it (DEC; GCML eqs. 1-3).

Shapes: n points, m dimensions, k clusters. With `group` the rows are sharded over workers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.distributed import sum_over_workers
from raymc.ops.rates import at_least_float32


def student_t_assignment(z: Tensor, centers: Tensor) -> Tensor:
    """q `[n, k]`, GCML eq. 1: (1 + |z_i - mu_j|^2)^-1 over its sum in j, for points `[n, m]` and centres `[k, m]`."""
    dtype = at_least_float32(z.dtype)
    with torch.autocast(z.device.type, enabled=False):
        kernel = (z.to(dtype).unsqueeze(1) - centers.to(dtype)).square().sum(2).add(1).reciprocal()
        return kernel / kernel.sum(1, keepdim=True)


def target_distribution(q: Tensor) -> Tensor:
    """p `[n, k]`, GCML eq. 2: q_ij^2 / f_j over its sum in j, with f_j = sum_i q_ij over all points.

    A cluster without any mass stays without.
    """
    mass = q.sum(0).clamp_min(torch.finfo(q.dtype).tiny)
    weight = q.square() / mass
    return weight / weight.sum(1, keepdim=True)


def assignment_divergence(p: Tensor, q: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """KL(P || Q) in nats, GCML eq. 3: sum_ij p_ij log(p_ij / q_ij), for p and q `[n, k]` with q above 0."""
    return sum_over_workers((torch.special.xlogy(p, p) - p * q.log()).sum(), group)
