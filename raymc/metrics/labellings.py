"""How alike the clusters of several seeds are, and what their disagreement proves without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from raymc.metrics.clustering import Labels, adjusted_rand, confusion, hungarian_match


def pairwise_ari(labels: Sequence[Labels]) -> dict[str, float]:
    """`mean` and `min` adjusted Rand index over all pairs of seeds' labels of the same points.

    1 means that every seed found the same partition, right or wrong.

    Raises:
        ValueError: fewer than two labellings, or labellings of different length.
    """
    values = _above_diagonal(ari_matrix(labels))
    return {"mean": float(np.mean(values)), "min": min(values)}


def agreement(labels: Sequence[Labels]) -> dict[str, float] | None:
    """`pairwise_ari`, or None where there are not two labellings of equally many points, so that nothing compares."""
    if len(labels) < 2 or len({len(one) for one in labels}) > 1:
        return None
    return pairwise_ari(labels)


def most_agreeing(labels: Sequence[Labels]) -> tuple[int, float | None]:
    """The position of the labelling whose mean adjusted Rand index with the others is the highest, and that mean.

    Of equal ones the first; a single one agrees with nobody: None. It is the one nearest to what the others found, and
    needs no true labels.

    Raises:
        ValueError: no labellings, or labellings of different length.
    """
    if len(labels) < 2:
        if not labels:
            raise ValueError("the most agreeing of no labellings")
        return 0, None
    matrix = ari_matrix(labels)
    means = [(sum(row) - 1) / (len(row) - 1) for row in matrix]
    best = max(range(len(means)), key=means.__getitem__)
    return best, means[best]


def ari_matrix(labels: Sequence[Labels]) -> list[list[float]]:
    """Adjusted Rand index `[m, m]` between each two of m labellings of the same points: symmetric, 1 on the diagonal.

    Raises:
        ValueError: fewer than two labellings, or labellings of different length.
    """
    return _matrix(labels, adjusted_rand, diagonal=1.0)


def matched_disagreement(labels: Sequence[Labels]) -> list[list[float]]:
    """d(a, b) `[m, m]` between each two of m labellings: the share of points that their best one-to-one matching of
    clusters (Hungarian) does not cover. Symmetric, 0 on the diagonal; 1 - d(a, truth) is a's ACC.

    Raises:
        ValueError: fewer than two labellings, or labellings of different length.
    """
    return _matrix(labels, _unmatched, diagonal=0.0)


def certificate(labels: Sequence[Labels]) -> dict[str, float]:
    """What the seeds' disagreement proves about their accuracy without labels: their mean ACC is at most `acc_at_most`.

    `mean_disagreement` is the mean of `matched_disagreement` over the pairs of seeds; `acc_at_most` is 1 - half of it.

    Why: d is a metric on partitions. Pad all labellings with empty clusters to one number of clusters; then d(a, b) is
    the share of points on which a and a renamed b differ, at the best renaming (a permutation), and renamings compose:
    d(a, c) <= d(a, b) + d(b, c). With c = the truth and e_i = 1 - ACC of seed i this says d(i, j) <= e_i + e_j.
    Over the m(m - 1)/2 pairs each e_i counts m - 1 times, so that mean d <= 2 mean e.

    It holds for any true labels of these points and any numbers of clusters and classes, equal or not, as long as ACC
    is by one-to-one matching and what stays unmatched counts as wrong (`clustering_scores` does; purity and other
    many-to-one scores do not). The mean is over the same seeds and points; a single seed may be above it.

    It is one-sided: it refutes an accuracy and confirms none. Seeds that agree may all be wrong, as collapsed ones are.

    Raises:
        ValueError: fewer than two labellings, or labellings of different length.
    """
    mean = float(np.mean(_above_diagonal(matched_disagreement(labels))))
    return {"mean_disagreement": mean, "acc_at_most": 1 - mean / 2}


def _matrix(labels: Sequence[Labels], of: Callable[[Labels, Labels], float], diagonal: float) -> list[list[float]]:
    if len(labels) < 2:
        raise ValueError(f"agreement needs two labellings or more, got {len(labels)}")
    found = [[diagonal] * len(labels) for _ in labels]
    for i, j in combinations(range(len(labels)), 2):
        found[i][j] = found[j][i] = of(labels[i], labels[j])
    return found


def _above_diagonal(matrix: list[list[float]]) -> list[float]:
    return [value for i, row in enumerate(matrix) for value in row[i + 1 :]]


def _unmatched(a: Labels, b: Labels) -> float:
    counts = confusion(a, b)
    return 1 - float(counts[hungarian_match(counts)].sum() / counts.sum())
