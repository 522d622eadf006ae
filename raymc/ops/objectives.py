"""NMCE's two objectives (Li et al. 2022), to be minimised.

Both return `(loss, terms)`; the terms are the weighted summands and add up to the loss. The paper writes
`+ lambda D(f)` with D a similarity, which minimising would destroy; as in its published code the
similarity is subtracted here. With `group` the rows are sharded over workers: the loss is that of the whole batch, and
averaging the workers' gradients gives one process's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.ops.rates import at_least_float32, coding_rate, coding_rates
from raymc.ops.views import normalised_mean, view_similarity


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
        similarity_weight: lambda; the similarity is the mean cosine between the views.
        views: `separate` takes the mean of the views' rates (published code for CIFAR and STL),
            `mean` the rate of their normalised mean (section 4, and the code for COIL and the synthetic sets).
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
    else:
        raise ValueError(f"views must be separate or mean, got {views!r}")
    return _total({"rate": -rate, "similarity": -similarity_weight * view_similarity(z, group)})


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


def _total(terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.stack(tuple(terms.values())).sum(), terms
