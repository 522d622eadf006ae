"""How well a clustering agrees with the true labels, and how evenly it fills its clusters.

Labels are integers (or texts) of any value, in torch or numpy or a list; only which points share one matters.
Plain numpy and scipy, so that importing raymc does not cost scikit-learn's import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts are loaded where they are first used
import torch
from numpy.typing import NDArray
from torch import Tensor

Labels = Tensor | NDArray[Any] | Sequence[int]
Counts = NDArray[np.int64]


def clustering_scores(labels_true: Labels, labels_pred: Labels) -> dict[str, float]:
    """`acc`, `nmi` and `ari` of n predicted labels.

    `acc` is the share of points whose cluster is matched to their class by the best one-to-one matching (Hungarian;
    NMCE's published code matches greedily, which can only be lower). `nmi` is normalised by the arithmetic
    mean of the entropies, `ari` is adjusted for chance (Hubert and Arabie 1985). More clusters than
    classes, or fewer, are allowed.

    Raises:
        ValueError: the labels differ in number, or there are none.
    """
    counts = confusion(labels_true, labels_pred)
    rows, columns = hungarian_match(counts)
    return {
        "acc": float(counts[rows, columns].sum() / counts.sum()),
        "nmi": _nmi(counts),
        "ari": _ari(counts),
    }


def confusion(labels_true: Labels, labels_pred: Labels) -> Counts:
    """Counts `[classes, clusters]`: points of each class in each cluster, both in ascending order of label.

    Raises:
        ValueError: the labels differ in number, or there are none.
    """
    true, pred = as_labels(labels_true), as_labels(labels_pred)
    if len(true) != len(pred):
        raise ValueError(f"{len(true)} true labels, but {len(pred)} predicted ones")
    if not len(true):
        raise ValueError("no labels")
    classes, row = np.unique(true, return_inverse=True)
    clusters, column = np.unique(pred, return_inverse=True)
    flat = np.bincount(row * len(clusters) + column, minlength=len(classes) * len(clusters))
    return flat.reshape(len(classes), len(clusters)).astype(np.int64)


def hungarian_match(counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices `(classes, clusters)` of the one-to-one matching that covers most points of a `confusion`.

    It has as many pairs as the smaller side; the rest of the larger side stays unmatched.
    """

    rows, columns = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    return rows.astype(np.int64), columns.astype(np.int64)


def adjusted_rand(a: Labels, b: Labels) -> float:
    """Adjusted Rand index of two labellings of the same points: 1 for equal partitions, 0 by chance."""
    return _ari(confusion(a, b))


def cluster_shares(labels: Labels, n_clusters: int) -> dict[str, float]:
    """`clusters_used`, `largest_share` and `smallest_share` of n_clusters; an unused cluster's share is 0."""
    _, sizes = np.unique(as_labels(labels), return_counts=True)
    smallest = sizes.min() / sizes.sum() if len(sizes) >= n_clusters else 0.0
    return {
        "clusters_used": float(len(sizes)),
        "largest_share": float(sizes.max() / sizes.sum()),
        "smallest_share": float(smallest),
    }


def as_labels(labels: Labels) -> NDArray[Any]:
    """The labels as a numpy vector; ValueError if they are not one."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels must be a vector, got shape {array.shape}")
    return array


def as_array(z: Tensor) -> NDArray[np.float64]:
    """Features in double precision, as scikit-learn takes them."""
    return torch.as_tensor(z).detach().cpu().double().numpy()


def _nmi(counts: Counts) -> float:
    joint = counts / counts.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    if len(rows) == len(columns) == 1:
        return 1.0
    filled = joint > 0
    ratio = joint[filled] / np.outer(rows, columns)[filled]
    information = max(0.0, float((joint[filled] * np.log(ratio)).sum()))
    entropies = -(rows * np.log(rows)).sum() - (columns * np.log(columns)).sum()
    return min(1.0, 2 * information / float(entropies))


def _ari(counts: Counts) -> float:
    both = _pairs(counts)
    rows, columns, everything = _pairs(counts.sum(1)), _pairs(counts.sum(0)), _pairs(counts.sum())
    if both == rows == columns:  # the same partition, also where chance alone would give it
        return 1.0
    expected = rows * columns / everything
    return (both - expected) / ((rows + columns) / 2 - expected)


def _pairs(counts: Any) -> float:
    sizes = np.asarray(counts, dtype=np.float64)
    return float((sizes * (sizes - 1)).sum() / 2)
