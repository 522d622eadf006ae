"""The objectives of NMCE (Li et al. 2022) and MLC (Ding et al. 2023), to be minimised.

All return `(loss, terms)`; the terms are the weighted summands and add up to the loss. The paper writes
`+ lambda D(f)` with D a similarity, which minimising would destroy; as in its published code the
similarity is subtracted here. With `group` the rows are sharded over workers: the loss is that of the whole batch, and
averaging the workers' gradients gives one process's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.distributed import gather_rows, row_counts, sum_over_workers
from raymc.ops.rates import at_least_float32, cluster_coding_rate, coding_rate, coding_rates
from raymc.ops.sinkhorn import sinkhorn_columns
from raymc.ops.views import normalised_mean, similarity_to_mean, view_similarity


def tcr_objective(
    z: Sequence[Tensor],
    eps_sq: float,
    similarity_weight: float,
    views: str = "separate",
    group: ProcessGroup | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total coding rate, eq. 5: -R(Z) - lambda * similarity.

    Args:
        z: two or more views of the batch, each `[n, d]` with unit rows, row i of the same sample.
        eps_sq: squared distortion (Table B.1's epsilon is used as eps^2 by the published code).
        similarity_weight: lambda; the similarity is the mean cosine between two views; of three or more, to their mean
            (EMP-SSL).
        views: `separate` takes the mean of the views' rates (published code for CIFAR and STL),
            `mean` the rate of their normalised mean (section 4, and the code for COIL and the synthetic sets),
            `average` MLC's eq. 5, halved: the rate of their mean as it is, and the mean of |cosine|; MLC's own
            lambda, the weight of a sum, is then 2/n of this one.
        group: workers over which the rows are sharded.

    Returns:
        The loss in nats, and its terms `rate` and `similarity`.

    Raises:
        ValueError: fewer than two views, or an unknown word for `views`.
    """
    if views == "separate":
        rate = torch.stack([coding_rate(view, eps_sq, group) for view in z]).mean()
    elif views == "mean":
        rate = coding_rate(normalised_mean(z), eps_sq, group)
    elif views == "average":
        stack = torch.stack(tuple(z))
        rate = coding_rate(stack.to(at_least_float32(stack.dtype)).mean(0), eps_sq, group)
    else:
        raise ValueError(f"views must be separate, mean or average, got {views!r}")
    similarity = similarity_to_mean(z, group, absolute=views == "average")
    return _total({"rate": -rate, "similarity": -similarity_weight * similarity})


def nmce_objective(
    z: Sequence[Tensor],
    pi: Sequence[Tensor],
    eps_sq: float,
    similarity_weight: float,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """NMCE, eq. 4: R_c(Z, Pi) - R(Z) - lambda * similarity, for Z the normalised mean of the views.

    Pi is the mean of the views' cluster samples, each drawn with its own Gumbel noise (section 3.5: averaging
    enforces agreement). The paper prints R_c as a plain sum over clusters; its code weights each cluster's rate
    by its share of the samples, and so does `cluster_coding_rate`.

    Args:
        z: two or more views of the batch, each `[n, d]` with unit rows.
        pi: the views' memberships, each `[n, k]` with rows that sum to 1.
        eps_sq: squared distortion.
        similarity_weight: lambda.
        group: workers over which the rows are sharded.

    Returns:
        The loss in nats, and its terms `cluster_rate`, `rate` and `similarity`.

    Raises:
        ValueError: fewer than two views, or shapes that do not fit.
    """
    mean = normalised_mean(z)
    samples = torch.stack(tuple(pi))
    shared = samples.to(at_least_float32(samples.dtype)).mean(0)
    rate, cluster_rate = coding_rates(mean, shared, eps_sq, group)
    similarity = -similarity_weight * view_similarity(z, group)
    return _total({"cluster_rate": cluster_rate, "rate": -rate, "similarity": similarity})


def mlc_objective(
    z: Sequence[Tensor],
    c: Sequence[Tensor],
    eps_sq: float,
    gamma: float,
    eta: float,
    iterations: int | None = None,
    rate_factor: float = 1.0,
    group: ProcessGroup | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """MLC, eq. 4: R_c(Z, Pi) - R(Z) + gamma/2 |Pi|_F^2, both rates without NMCE's factor 1/2.

    Z is the normalised mean of the views, Pi the mean of their memberships P(|C C^T|) (eq. 6): n points in n clusters,
    one around each. The paper projects C C^T; its authors' code takes |C C^T|, as for subspaces, whose points have
    no sign. R_c weights a column by its sum, which is 1 up to the projection's tolerance. With `group` the heads are
    gathered and each worker works on its own columns.

    Args:
        z: one or more views of the batch, each `[n, d]` with unit rows.
        c: the views' cluster features, each `[n, d']` with unit rows.
        eps_sq: squared distortion.
        gamma: weight of |Pi|_F^2, which lies between 1 (uniform) and n (a permutation).
        eta: entropy of the projection, see `sinkhorn`.
        iterations: of the projection; None until it has converged.
        rate_factor: of both rates; 0.5 is what the authors' later code has.
        group: workers over which the rows are sharded.
        counts: how many each has, by rank, where it is known.

    Returns:
        The loss in nats, and its terms `cluster_rate`, `rate` and `regulariser`.

    Raises:
        ValueError: no views, or shapes that do not fit.
        DivergedError: eta is too small for the projection to settle.
    """
    mean = normalised_mean(z)
    counts = row_counts(mean, group, counts)
    affinities = affinity_rows(torch.stack(tuple(c)), group, counts)
    pi = sinkhorn_columns(affinities, eta, iterations, group, counts).mean(0)
    rate = coding_rate(mean, eps_sq, group)
    mine = cluster_coding_rate(gather_rows(mean, group, counts), pi, eps_sq)
    cluster_rate, square = sum_over_workers(torch.stack([mine, pi.square().sum()]), group).unbind()
    scale = 2 * rate_factor
    return _total({"cluster_rate": scale * cluster_rate, "rate": -scale * rate, "regulariser": gamma / 2 * square})


def affinity_rows(c: Tensor, group: ProcessGroup | None = None, counts: Sequence[int] | None = None) -> Tensor:
    """|C C^T| `[..., m, n]` of this worker's rows C `[..., m, d]` with all workers' (MLC section 2.3).

    It is in float32 at least.
    """
    with torch.autocast(c.device.type, enabled=False):
        rows = c.to(at_least_float32(c.dtype))
        every = gather_rows(rows.movedim(-2, 0), group, counts).movedim(0, -2)
        return (rows @ every.mT).abs()


def _total(terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.stack(tuple(terms.values())).sum(), terms
