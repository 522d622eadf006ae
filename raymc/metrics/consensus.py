"""What several labellings of the same samples say together: evidence accumulation (Fred and Jain 2005)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import NDArray

from raymc.metrics.clustering import Labels, as_labels, confusion, hungarian_match

DRAWN = 4_000
"""Samples whose pairs are compared; of more the others follow."""

SEED = 0
"""Of the draw: the same labellings have the same consensus."""

Ints = NDArray[np.int64]


def evidence_accumulation(labels: Sequence[Labels]) -> tuple[Ints, NDArray[np.float64]]:
    """Clusters `[n]` of m labellings of n samples, and the `agreement` `[n]` in 0..1 of each sample.

    Two samples are as near as the share of labellings that put them together; average linkage of that makes as many
    clusters as the labelling with the most of them has. Names of clusters do not matter. Of more than 4,000 samples
    as many are drawn, and each other sample goes to the cluster whose drawn samples it is most often together with.
    `agreement` is the share of labellings that put the sample together with another one of its cluster, on average;
    1 for a sample that is alone in its cluster.

    Raises:
        ValueError: no labellings, or labellings of different length.
    """
    stack = _numbered(labels)
    n_clusters, n = int(stack.max()) + 1, stack.shape[1]
    drawn = np.arange(n) if n <= DRAWN else np.sort(np.random.default_rng(SEED).choice(n, DRAWN, replace=False))
    found = _average_linkage(stack[:, drawn], n_clusters)
    if n > DRAWN:
        found = _together(stack, stack[:, drawn], found).argmax(1)
    mine = _together(stack, stack, found)[np.arange(n), found]
    others = np.bincount(found)[found] - 1
    alone = others == 0
    agreement = (mine * (others + 1) - 1) / np.where(alone, 1, others)  # a sample is with itself in each labelling
    return found, np.where(alone, 1.0, agreement).clip(0, 1)


def renamed(labels: Labels, reference: Labels) -> Ints:
    """`labels` with the numbers of the clusters of `reference` that they share most samples with, one to one
    (Hungarian); clusters beyond those get new numbers."""
    theirs, (mine, at) = np.unique(as_labels(reference)), np.unique(as_labels(labels), return_inverse=True)
    to, of = hungarian_match(confusion(reference, labels))
    names = np.full(len(mine), -1, np.int64)
    names[of] = theirs[to]
    names[names < 0] = int(theirs.max()) + 1 + np.arange((names < 0).sum())
    return np.asarray(names[at], np.int64)


def _numbered(labels: Sequence[Labels]) -> Ints:
    """`[m, n]`, the clusters of each labelling counted from 0."""
    found = [np.unique(as_labels(one), return_inverse=True)[1] for one in labels]
    if not found or len({len(one) for one in found}) > 1 or not len(found[0]):
        raise ValueError(f"a consensus needs labellings of the same samples, got lengths {[len(one) for one in found]}")
    return np.stack(found).astype(np.int64)


def _average_linkage(stack: Ints, n_clusters: int) -> Ints:
    if stack.shape[1] == 1:
        return np.zeros(1, np.int64)
    tree = scipy.cluster.hierarchy.linkage(scipy.spatial.distance.pdist(stack.T, "hamming"), "average")
    return np.asarray(scipy.cluster.hierarchy.cut_tree(tree, n_clusters=n_clusters).ravel(), np.int64)


def _together(stack: Ints, others: Ints, found: Ints) -> NDArray[np.float64]:
    """How often each sample of `stack` `[m, n]` is with a sample of each cluster: `[n, k]`, shares of m labellings.

    `found` `[p]` are the clusters of the samples of `others` `[m, p]`.
    """
    sizes = np.bincount(found)
    share = np.zeros((stack.shape[1], len(sizes)))
    for mine, theirs in zip(stack, others, strict=True):
        counts = np.zeros((max(mine.max(), theirs.max()) + 1, len(sizes)))
        np.add.at(counts, (theirs, found), 1)
        share += counts[mine]
    return share / (len(stack) * sizes)
