"""Whether clusters are low-dimensional subspaces, orthogonal to each other (NMCE, Appendix A)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raymc.metrics.clustering import Labels, as_labels

MOST_POINTS = 4096
"""z_similarity looks at all pairs of at most this many points."""


def z_similarity(z: Tensor, found: Labels, true: Labels | None = None, seed: int = 0) -> dict[str, float]:
    """The mean |cos(z_i, z_j)| over pairs of points: Table A.1 of NMCE.

    `across_true`: pairs from different classes; `across_found`: from different found clusters; `within_found`:
    from the same found cluster, the mean of the clusters' means. All pairs of at most 4096 points, drawn by
    `seed` where there are more. A figure without any pair is absent, and so is `across_true` without labels.

    Args:
        z: features `[n, d]`.
        found: cluster of each point, `[n]`.
        true: class of each point, `[n]`, or None.
    """
    chosen = np.arange(len(z))
    if len(z) > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(z), MOST_POINTS, replace=False))
    rows = functional.normalize(torch.as_tensor(z).detach().cpu()[chosen].double(), dim=1)
    similar = (rows @ rows.mT).abs().fill_diagonal_(0).numpy()
    sums, pairs = _by_cluster(similar, as_labels(found)[chosen])
    means: dict[str, float | None] = {"across_found": _across(sums, pairs), "within_found": _within(sums, pairs)}
    if true is not None:
        means["across_true"] = _across(*_by_cluster(similar, as_labels(true)[chosen]))
    return {name: mean for name, mean in means.items() if mean is not None}


def numerical_rank(z: Tensor, energy: float = 0.95) -> int:
    """The least number of singular values of z `[n, d]` with `energy` of their sum of squares; 0 of zeros."""
    rows = torch.as_tensor(z).detach().double()
    gram = rows.mT @ rows if len(rows) > rows.shape[1] else rows @ rows.mT  # of which the small one is soon taken apart
    squares = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
    total = float(squares.sum())
    if total == 0:
        return 0
    return int((squares.cumsum(0) < energy * total * (1 - 1e-12)).sum()) + 1


def cluster_singular_values(z: Tensor, labels: Labels) -> dict[int, Tensor]:
    """Singular values, descending, of each cluster's rows of z `[n, d]` (not centred: subspaces contain 0)."""
    found = as_labels(labels)
    rows = torch.as_tensor(z).detach().cpu().double()
    return {int(j): torch.linalg.svdvals(rows[torch.as_tensor(found == j)]) for j in np.unique(found)}


def _by_cluster(
    similar: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of similarities and numbers of ordered pairs, `[k, k]` each; similarities with oneself are 0."""
    clusters, inverse = np.unique(labels, return_inverse=True)
    member = np.eye(len(clusters))[inverse]
    sizes = member.sum(0)
    return member.T @ similar @ member, np.outer(sizes, sizes) - np.diag(sizes)


def _across(sums: NDArray[np.float64], pairs: NDArray[np.float64]) -> float | None:
    count = pairs.sum() - np.trace(pairs)
    return float((sums.sum() - np.trace(sums)) / count) if count else None


def _within(sums: NDArray[np.float64], pairs: NDArray[np.float64]) -> float | None:
    some = np.diag(pairs) > 0
    return float((np.diag(sums)[some] / np.diag(pairs)[some]).mean()) if some.any() else None
