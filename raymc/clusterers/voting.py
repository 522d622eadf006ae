"""A new point goes to the cluster of most of the clustered points that are like it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raymc.clusterers.base import Assigner, Clusters
from raymc.ops.neighbours import most_similar, nearest_to

NEIGHBOURS = 10

SAME = 1e-6
"""Of a cosine, or of points' mean distance to their centre: what is nearer is the point itself, up to rounding."""


def with_neighbours(directions: Tensor, labels: NDArray[np.int64]) -> Clusters:
    """Clusters of directions, unit rows `[m, d]`, of labels `[m]`."""
    found = torch.as_tensor(labels)
    return Clusters(found, NeighbourAssigner(anchors=directions, labels=found.to(directions.device)))


class NeighbourAssigner(Assigner):
    """The cluster with the largest sum of |cos| among the 10 clustered points most similar to z in |cos|.

    |cos|, since a subspace has no sign. Args: `anchors` unit rows `[m, d]`, their `labels` int64 `[m]`.
    """

    anchors: Tensor
    labels: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        directions = functional.normalize(z.to(self.anchors.dtype), dim=1)
        which, similar = most_similar(self.anchors, min(NEIGHBOURS, len(self.anchors)), directions)
        return vote(similar, self.labels[which])

    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """The cluster's share of the sum of |cos|; a clustered point has no say in its own."""
        directions = functional.normalize(z.to(self.anchors.dtype), dim=1)
        which, similar = most_similar(self.anchors, min(NEIGHBOURS + 1, len(self.anchors)), directions)
        weights = similar.clone()
        drop_itself(similar, weights)
        top = weights.topk(min(NEIGHBOURS, weights.shape[1]), dim=1)
        return share(top.values, self.labels[which.gather(1, top.indices)], labels)


class PointAssigner(Assigner):
    """The most frequent cluster among the 10 clustered points nearest to z; the nearest's where several are.

    For points, where `NeighbourAssigner` is for directions. Args: `points` `[m, d]`, their `labels` int64 `[m]`.
    """

    points: Tensor
    labels: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        which, apart = nearest_to(z.to(self.points.dtype), self.points, min(NEIGHBOURS, len(self.points)))
        weights = torch.ones_like(apart)
        weights[:, 0] += 0.5
        return vote(weights, self.labels[which])

    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """The cluster's share of the 10 nearest; a clustered point has no say in its own."""
        z = z.to(self.points.dtype)
        which, apart = nearest_to(z, self.points, min(NEIGHBOURS + 1, len(self.points)))
        weights = torch.ones_like(apart)
        size = (self.points - self.points.mean(0)).norm(dim=1).mean()
        weights[:, 0] = torch.where(apart[:, 0] <= SAME * size, 0, weights[:, 0])
        weights[:, NEIGHBOURS:] = (weights[:, NEIGHBOURS:] - weights[:, :1]).clamp_min(
            0
        )  # the 11th for the one left out
        return share(weights, self.labels[which], labels)


def drop_itself(similar: Tensor, weights: Tensor) -> None:
    """Set to 0, in place, the weight of the most similar point of each row where it is the row's own, or its double.

    `similar` |cos| `[n, m]`, `weights` `[n, m]`.
    """
    most = similar.max(1, keepdim=True)
    at = most.indices
    weights.scatter_(1, at, torch.where(most.values >= 1 - SAME, 0, weights.gather(1, at)))


def share(weights: Tensor, votes: Tensor, labels: Tensor) -> Tensor:
    """What part of `weights` `[n, k]`, each of which speaks for one of `votes` `[n, k]`, speaks for `labels` `[n]`.

    `[n]` in 0..1; 0 where there is no weight at all.
    """
    mine = weights.masked_fill(votes != labels.unsqueeze(1), 0).sum(1)
    return mine / weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny)


def vote(weights: Tensor, labels: Tensor) -> Tensor:
    """Labels `[n]` with the largest sum of `weights` `[n, k]`, each of which speaks for one of `labels` `[n, k]`."""
    votes = weights.new_zeros(len(weights), int(labels.max()) + 1 if labels.numel() else 1)
    return votes.scatter_add_(1, labels, weights).argmax(1)
