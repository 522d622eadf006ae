"""Whether clusters are low-dimensional subspaces, orthogonal to each other (NMCE, Appendix A).

`Spectra` are those of `raymc.metrics.spectra.group_spectra`: of all rows, of clusters, of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raymc.metrics.clustering import Labels, as_labels
from raymc.metrics.spectra import Spectra

EPS_SQ = 0.2
"""Rate reductions of different trials are compared at this distortion."""

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


def rank_scores(whole: Spectra, clusters: Spectra, classes: Spectra | None = None) -> dict[str, float]:
    """Numerical rank of all rows, and its mean over the found clusters and over the true classes (MLC figure 3b)."""
    groups = {"rank_clusters": clusters} | ({} if classes is None else {"rank_classes": classes})
    return {"rank_all": float(whole.ranks()[0])} | {name: float(np.mean(of.ranks())) for name, of in groups.items()}


def rate_reduction(whole: Spectra, clusters: Spectra) -> float:
    """R - R_c of rows of length 1 (NMCE eq. 3, weighted by cluster mass) at the distortion `EPS_SQ`."""
    shares = clusters.sizes / clusters.sizes.sum()
    return float(whole.rates(EPS_SQ)[0] - shares @ clusters.rates(EPS_SQ))


def subspace_tables(z: Tensor, found: Labels, true: Labels | None, whole: Spectra, clusters: Spectra) -> dict[str, Any]:
    """Tables of appendix A, in what JSON can hold: |cos| within and across, singular values and ranks per cluster.

    `whole` and `clusters` are the spectra of z `[n, d]` and of the clusters `found` `[n]`.
    """
    ranks = dict(zip(map(str, clusters.names), clusters.ranks(), strict=True))
    return {
        "z_similarity": z_similarity(z, found, true),
        "numerical_rank": {"all": whole.ranks()[0], **ranks},
        "singular_values": {str(name): values.tolist() for name, values in clusters.singular_values().items()},
    }


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
