"""What keeps an embedding's geometry: GCML's ranking, isometry and alignment losses (eqs. 5, 6, 8).

The paper sums absolute differences; its code takes Frobenius norms and means, and divides distances in the isometry
loss by the root of the dimension. Both are here: `scales` is `paper` or `published`.

Shapes: n points, d input and m latent dimensions, C clusters, k neighbours. With `group` the rows are sharded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc.distributed import sum_over_workers
from raymc.ops.neighbours import nearest

SCALES = ("published", "paper")


def cluster_means(
    x: Tensor, labels: Tensor, n_clusters: int, group: ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Means `[C, d]` of rows x `[n, d]` by label `[n]`, and the clusters' sizes `[C]`; the mean of nothing is 0."""
    # A product: adding rows by their index has no order on a GPU, and so no equal sums.
    members = (labels == torch.arange(n_clusters, device=x.device)[:, None]).to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        sums = members @ torch.cat([x, x.new_ones(len(x), 1)], 1)
    sums = sum_over_workers(sums, group)
    size = sums[:, -1].detach()
    return sums[:, :-1] / size.clamp_min(1).unsqueeze(1), size


def ranking_loss(
    centers: Tensor, input_centers: Tensor, size: Tensor, kappa: float, scales: str = "published"
) -> Tensor:
    """GCML eq. 6 with d_Z(mu_i, mu_j) - kappa d_X(v_i, v_j) over pairs of clusters.

    `paper`: the sum of absolute values; `published`: the Frobenius norm over C.

    Args:
        centers: mu, `[C, m]`.
        input_centers: v^X, the clusters' means in the input, `[C, d]`.
        size: how many points each cluster has, `[C]`; one without any has no place in the input and is left out.
    """
    _check(scales)
    there = (size > 0).to(centers.dtype)
    off = (_distances(centers) - kappa * _distances(input_centers)) * torch.outer(there, there)
    if scales == "paper":
        return off.abs().sum()
    norm: Tensor = torch.linalg.vector_norm(off)
    return norm / len(centers)


def isometry_loss(
    input_distances: Tensor,
    z: Tensor,
    z_neighbours: Tensor,
    there: Tensor,
    dims: tuple[int, int] = (1, 1),
    scales: str = "published",
    group: ProcessGroup | None = None,
) -> Tensor:
    """GCML eq. 5 over each point and its neighbours.

    The sum (`paper`) or the Frobenius norm (`published`) of d_X / sqrt(dims[0]) - d_Z / sqrt(dims[1]).

    Args:
        input_distances: d_X `[n, k]`.
        z: `[n, m]`.
        z_neighbours: `[n, k, m]`.
        there: bool `[n, k]`, False where a point has fewer than k neighbours.
        dims: (1, 1) as in the paper; (d, m) as in the published code.
    """
    _check(scales)
    # Of a point and its duplicate the norm has no gradient; this one gives 0.
    distances = torch.linalg.vector_norm(z.unsqueeze(1) - z_neighbours, dim=2)
    off = (input_distances / dims[0] ** 0.5 - distances / dims[1] ** 0.5) * there
    if scales == "paper":
        return sum_over_workers(off.abs().sum(), group)
    square = sum_over_workers(off.square().sum(), group)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def alignment_loss(centers: Tensor, means: Tensor, size: Tensor, scales: str = "published") -> Tensor:
    """GCML eq. 8: |mu_j - v^Z_j| summed over the clusters (`paper`) or over C (`published`), both `[C, m]`."""
    _check(scales)
    total: Tensor = (torch.linalg.vector_norm(centers - means, dim=1) * (size > 0)).sum()
    return total if scales == "paper" else total / len(centers)


@torch.no_grad()
def neighbours_within(z: Tensor, labels: Tensor, k: int) -> Tensor:
    """Positions int64 `[n, k]` of each point's k nearest others with its own label, nearest first; -1: there is none.

    z is `[n, m]`, labels `[n]`. In double precision: the products of single would change who is nearer.
    """
    found = torch.full((len(z), k), -1, dtype=torch.int64, device=z.device)
    order = labels.argsort(stable=True)
    for members in torch.split(order, torch.bincount(labels).tolist()):
        count = min(k, len(members) - 1)
        if count > 0:
            found[members, :count] = members[nearest(z[members].double(), count)[0]]
    return found


def _distances(x: Tensor) -> Tensor:
    """`[C, C]` between rows; where two coincide the gradient is 0."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _check(scales: str) -> None:
    if scales not in SCALES:
        raise ValueError(f"scales must be published or paper, got {scales!r}")
