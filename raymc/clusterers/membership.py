"""MLC's own clusters: spectral clustering of the doubly stochastic membership, in which a new point gets a row too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.clusterers.base import Assigner, Clusters
from raymc.clusterers.kmeans import kmeans
from raymc.clusterers.spectral import Array, eigenvectors, spectral_clustering, unit_rows
from raymc.clusterers.voting import NEIGHBOURS, drop_itself, share, vote
from raymc.errors import CollapsedError
from raymc.ops import affinity_rows, coding_length
from raymc.ops.blocks import in_blocks
from raymc.ops.sinkhorn import symmetric_scaling

STARTS = 5
"""Of k-means at each number of clusters, where one is looked for."""

LEAST_SHARED = 1e-6
"""Of its membership, what a point must share with others on average: below, every point is a cluster of its own."""


def fit(c: Tensor, eta: float, n_clusters: int, seed: int) -> Clusters:
    """Clusters of cluster features c, unit rows `[m, d']`.

    Raises DivergedError where eta is too small for the projection to settle, CollapsedError where it leaves every point
    a cluster of its own.
    """
    affinity, potential = _affinity(c, eta)
    return _clusters(c, eta, potential, spectral_clustering(affinity, n_clusters, seed))


def fit_range(z: Tensor, c: Tensor, eta: float, eps_sq: float, low: int, high: int, seed: int) -> Clusters:
    """As `fit`, with the number of clusters, from `low` to at most `high`, of the least coding length of z `[m, d]`.

    The membership depends on no number of clusters, so nothing is trained anew (CPP: Chu et al.,
    *Image Clustering via the Principle of Rate Reduction in the Age of Pretrained Models*, ICLR 2024).
    """
    affinity, potential = _affinity(c, eta)
    counts = range(low, min(high, len(c)) + 1)
    vectors = eigenvectors(affinity, counts[-1], seed)
    lengths: dict[int, float] = {}
    best: NDArray[np.int64] | None = None
    for count in counts:
        labels = kmeans(unit_rows(vectors[:, -count:]), count, seed, STARTS)[0]
        lengths[count] = coding_length(z, torch.as_tensor(labels), eps_sq)
        if lengths[count] <= min(lengths.values()):
            best = labels
    assert best is not None
    found = _clusters(c, eta, potential, best)
    return Clusters(found.labels, found.assigner, lengths)


def _affinity(c: Tensor, eta: float) -> tuple[Array, Tensor]:
    """The symmetric membership of others `[m, m]`, and the potentials `[m]` of the projection."""
    potential, pi = symmetric_scaling(affinity_rows(c), eta)
    pi.fill_diagonal_(0)  # what a point has to do with itself says nothing of clusters
    if float(pi.sum()) < LEAST_SHARED * len(c):
        raise CollapsedError(f"heads.eta {eta:g} is too small: every point's membership is with itself alone")
    return pi.add_(pi.mT.clone()).div_(2).double().cpu().numpy(), potential


def _clusters(c: Tensor, eta: float, potential: Tensor, found: NDArray[np.int64]) -> Clusters:
    labels = torch.as_tensor(found)
    known = {"anchors": c, "potential": potential, "labels": labels.to(c.device), "eta": torch.tensor(eta).to(c)}
    return Clusters(labels, MembershipAssigner(**known))


class MembershipAssigner(Assigner):
    """The cluster with the largest sum among the point's 10 largest memberships with the m points.

    A new point's memberships are the row that the doubly stochastic projection would give it, with the scaling of
    the m as found: softmax(|c C^T| / eta + potential). All of them would favour large clusters, and Nyström's
    extension of the eigenvectors says nothing where the membership shows fewer than k directions.

    Args:
        anchors: C, unit rows `[m, d']`.
        potential: `[m]`, see `raymc.ops.sinkhorn.symmetric_scaling`.
        labels: of the m points, int64 `[m]`.
        eta: entropy of the projection, a scalar.
    """

    anchors: Tensor
    potential: Tensor
    labels: Tensor
    eta: Tensor

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return in_blocks(self._labels, c)

    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """The cluster's share of the point's 10 largest memberships; what a point is to itself does not count."""
        assert c is not None

        def of(index: Tensor) -> Tensor:
            similar, memberships = self._memberships(c[index])
            drop_itself(similar, memberships)
            top = memberships.topk(min(NEIGHBOURS, len(self.labels)), dim=1)
            return share(top.values, self.labels[top.indices], labels[index])

        return in_blocks(of, torch.arange(len(c), device=c.device))

    def _labels(self, c: Tensor) -> Tensor:
        _, memberships = self._memberships(c)
        top = memberships.topk(min(NEIGHBOURS, len(self.labels)), dim=1)
        return vote(top.values, self.labels[top.indices])

    def _memberships(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """|cos| with the m points, and the memberships with them, `[n, m]` each."""
        similar = (c.to(self.anchors.dtype) @ self.anchors.mT).abs_()
        return similar, similar.div(self.eta).add_(self.potential).softmax(1)
