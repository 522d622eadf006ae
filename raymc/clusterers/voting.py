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


def with_neighbours(directions: Tensor, labels: NDArray[np.int64]) -> Clusters:
    """Clusters of directions, unit rows `[m, d]`, of labels `[m]`."""
    found = torch.as_tensor(labels)
    return Clusters(found, NeighbourAssigner(anchors=directions, labels=found.to(directions.device)))


def points_with_neighbours(z: Tensor, labels: NDArray[np.int64]) -> Clusters:
    """Clusters of points `[m, d]` of labels `[m]`."""
    found = torch.as_tensor(labels)
    return Clusters(found, PointAssigner(points=z, labels=found.to(z.device)))


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


def vote(weights: Tensor, labels: Tensor) -> Tensor:
    """Labels `[n]` with the largest sum of `weights` `[n, k]`, each of which speaks for one of `labels` `[n, k]`."""
    votes = weights.new_zeros(len(weights), int(labels.max()) + 1 if labels.numel() else 1)
    return votes.scatter_add_(1, labels, weights).argmax(1)
