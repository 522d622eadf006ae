"""Coding rates: how many nats a set of features takes at distortion eps, as a whole and by cluster."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.distributed import sums_over_workers
from raymc.ops.gram import logdet_plus_identity, weighted_gram

LEAST_MASS = 1e-8
"""A cluster of less mass is scaled as if it had this much: an empty one has rate 0 and gradient 0."""


def coding_rate(z: Tensor, eps_sq: float, group: ProcessGroup | None = None) -> Tensor:
    """R(Z) = 1/2 logdet(I + d/(n eps^2) Z^T Z), in nats (NMCE eq. 2; MLC eq. 1 has no 1/2).

    Args:
        z: features `[n, d]` with unit rows. Half precision is computed in float32, float64 in float64.
        eps_sq: squared distortion, above 0.
        group: workers over which the rows are sharded; the rate is that of all rows, and averaging the
            workers' gradients gives one process's.

    Returns:
        A scalar. It is at most d/2 ln(1 + 1/eps^2), for features spread evenly over all directions.

    Raises:
        ValueError: z is not a matrix or eps_sq is not positive.
    """
    _check(z, eps_sq)
    z = z.to(at_least_float32(z.dtype))
    width = z.shape[1]
    count = z.new_full((1,), len(z))
    if group is None and len(z) < width:  # Sylvester: the smaller of the two Gram matrices will do
        z = z.mT
    count, gram = sums_over_workers([count, weighted_gram(z, z.new_ones(len(z), 1))], group)
    return logdet_plus_identity(gram, width / (count * eps_sq)).squeeze(0) / 2


def coding_length(z: Tensor, labels: Tensor, eps_sq: float) -> float:
    """Nats that points take, each cluster coded by itself, with their labels (Ma et al. 2007; CPP, ICLR 2024):

    L = sum_k (m_k + d)/2 logdet(I + d/(m_k eps^2) Z_k^T Z_k) - m_k ln(m_k/n).

    Args:
        z: features `[n, d]`.
        labels: int64 `[n]`; the m_k points of cluster k are Z_k.
        eps_sq: squared distortion, above 0.
    """
    n, d = z.shape
    total = 0.0
    for one in torch.unique(labels).tolist():
        group = z[(labels == one).to(z.device)].double()
        m = len(group)
        total += (m + d) * float(coding_rate(group, eps_sq)) - m * math.log(m / n)
    return total


def cluster_coding_rate(z: Tensor, pi: Tensor, eps_sq: float, group: ProcessGroup | None = None) -> Tensor:
    """R_c(Z, Pi) = sum_j tr_j/(2n) logdet(I + d/(tr_j eps^2) Z^T diag(pi_j) Z), tr_j = sum_i pi_ij, in nats.

    Each cluster's rate is weighted by its share of the mass, as in MCR2 (Yu et al. 2020) and in NMCE's
    published code; NMCE's eq. 3 and 4 print the sum without weights.

    Args:
        z: features `[n, d]` with unit rows.
        pi: memberships `[n, k]`, not negative. Empty clusters add 0 to the value and to every gradient.
        eps_sq: squared distortion, above 0.
        group: workers over which the rows of z and pi are sharded, as in `coding_rate`.

    Returns:
        A scalar of the finer of z's and pi's types, at least float32.

    Raises:
        ValueError: z and pi are not matrices of equally many rows, or eps_sq is not positive.
    """
    z, pi = _checked(z, pi, eps_sq)
    rates, shares = _rates(z, pi, eps_sq, group)
    return (shares * rates).sum()


def coding_rates(z: Tensor, pi: Tensor, eps_sq: float, group: ProcessGroup | None = None) -> tuple[Tensor, Tensor]:
    """`(coding_rate(z), cluster_coding_rate(z, pi))` in one pass: the whole is one more cluster, of all points."""
    z, pi = _checked(z, pi, eps_sq)
    rates, shares = _rates(z, torch.cat([pi, pi.new_ones(len(pi), 1)], 1), eps_sq, group)
    return rates[-1], (shares[:-1] * rates[:-1]).sum()


def _rates(z: Tensor, pi: Tensor, eps_sq: float, group: ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """Each cluster's own rate `[k]` and its share of the points `[k]`."""
    mass, count, gram = sums_over_workers([pi.sum(0), pi.new_full((1,), len(pi)), weighted_gram(z, pi)], group)
    scale = z.shape[1] / (mass.clamp(min=LEAST_MASS) * eps_sq)
    return logdet_plus_identity(gram, scale) / 2, mass / count


def _checked(z: Tensor, pi: Tensor, eps_sq: float) -> tuple[Tensor, Tensor]:
    """z and pi in the type to compute in; ValueError if they do not fit each other."""
    _check(z, eps_sq)
    if pi.ndim != 2 or len(pi) != len(z):
        raise ValueError(f"pi must be [{len(z)}, k], got {list(pi.shape)}")
    dtype = at_least_float32(torch.promote_types(z.dtype, pi.dtype))
    return z.to(dtype), pi.to(dtype)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: float32, or float64 where that is given."""
    return torch.promote_types(dtype, torch.float32)


def _check(z: Tensor, eps_sq: float) -> None:
    if z.ndim != 2:
        raise ValueError(f"z must be [n, d], got {list(z.shape)}")
    check_positive("eps_sq", eps_sq)


def check_positive(name: str, value: float) -> None:
    """Raises ValueError for a number that is not."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
