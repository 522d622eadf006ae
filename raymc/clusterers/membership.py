"""MLC's own clusters: spectral clustering of the doubly stochastic membership, in which a new point gets a row too."""

from __future__ import annotations

import torch
from torch import Tensor

from raymc.clusterers.base import Assigner, Clusters
from raymc.clusterers.spectral import spectral_clustering
from raymc.clusterers.voting import NEIGHBOURS, drop_itself, share, vote
from raymc.errors import CollapsedError
from raymc.ops import affinity_rows
from raymc.ops.blocks import in_blocks
from raymc.ops.sinkhorn import symmetric_scaling

LEAST_SHARED = 1e-6
"""Of its membership, what a point must share with others on average: below, every point is a cluster of its own."""


def fit(c: Tensor, eta: float, n_clusters: int, seed: int) -> Clusters:
    """Clusters of cluster features c, unit rows `[m, d']`.

    Raises DivergedError where eta is too small for the projection to settle, CollapsedError where it leaves every point
    a cluster of its own.
    """
    potential, pi = symmetric_scaling(affinity_rows(c), eta)
    pi.fill_diagonal_(0)  # what a point has to do with itself says nothing of clusters
    if float(pi.sum()) < LEAST_SHARED * len(c):
        raise CollapsedError(f"heads.eta {eta:g} is too small: every point's membership is with itself alone")
    affinity = pi.add_(pi.mT.clone()).div_(2).double().cpu().numpy()
    labels = torch.as_tensor(spectral_clustering(affinity, n_clusters, seed))
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
