"""Modules that label new points once clusters were found from pairs of points; their buffers travel with the model.

Shapes: n points to label, m points that were clustered, d features, k clusters. All take (z `[n, d]`, output of the
cluster head `[n, d']` or None) and return labels int64 `[n]`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

NEIGHBOURS = 10
ROWS = 1024  # points at a time: a block of affinities with all m points


class MembershipAssigner(nn.Module):
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

    def __init__(self, anchors: Tensor, potential: Tensor, labels: Tensor, eta: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors.detach())
        self.register_buffer("potential", potential.detach())
        self.register_buffer("labels", labels.detach())
        self.register_buffer("eta", eta.detach())

    anchors: Tensor
    potential: Tensor
    labels: Tensor
    eta: Tensor

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.cat([self._labels(rows) for rows in torch.split(c, ROWS)])

    def _labels(self, c: Tensor) -> Tensor:
        logs = (c.to(self.anchors.dtype) @ self.anchors.mT).abs_().div_(self.eta).add_(self.potential)
        return _vote(logs.softmax(1), self.labels)


class CentreAssigner(nn.Module):
    """The nearest of the centres `[k, d]` of k-means on z."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres.detach())

    centres: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return torch.cdist(z.to(self.centres.dtype), self.centres).argmin(1)


class NeighbourAssigner(nn.Module):
    """The cluster with the largest sum of |cos| among the 10 clustered points most similar to z in |cos|.

    |cos|, since a subspace has no sign. Args: `anchors` unit rows `[m, d]`, their `labels` int64 `[m]`.
    """

    def __init__(self, anchors: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors.detach())
        self.register_buffer("labels", labels.detach())

    anchors: Tensor
    labels: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return torch.cat([self._labels(rows) for rows in torch.split(z, ROWS)])

    def _labels(self, z: Tensor) -> Tensor:
        similar = (functional.normalize(z.to(self.anchors.dtype), dim=1) @ self.anchors.mT).abs_()
        return _vote(similar, self.labels)


class PointAssigner(nn.Module):
    """The most frequent cluster among the 10 clustered points nearest to z; the nearest's where several are.

    For points, where `NeighbourAssigner` is for directions. Args: `points` `[m, d]`, their `labels` int64 `[m]`.
    """

    def __init__(self, points: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("points", points.detach())
        self.register_buffer("labels", labels.detach())

    points: Tensor
    labels: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        centre = self.points.mean(0)  # or the distances of a far cloud would be rounding
        known = self.points - centre
        return torch.cat([self._labels(rows.to(known.dtype) - centre, known) for rows in torch.split(z, ROWS)])

    def _labels(self, z: Tensor, known: Tensor) -> Tensor:
        near = torch.cdist(z, known).topk(min(NEIGHBOURS, len(known)), dim=1, largest=False)
        weights = torch.ones_like(near.values)
        weights[:, 0] += 0.5
        votes = z.new_zeros(len(z), int(self.labels.max()) + 1)
        return votes.scatter_add_(1, self.labels[near.indices], weights).argmax(1)


class MixtureAssigner(nn.Module):
    """The likeliest of k Gaussians, see `raymc.metrics.mixture`.

    Args:
        means: `[k, d]`.
        roots: R with the precision R R^T, `[k, d, d]`, or the roots of a diagonal one, `[k, d]`.
        logs: log weight and log determinant of each Gaussian's root, `[k]`.
    """

    def __init__(self, means: Tensor, roots: Tensor, logs: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means.detach())
        self.register_buffer("roots", roots.detach())
        self.register_buffer("logs", logs.detach())

    means: Tensor
    roots: Tensor
    logs: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        z = z.to(self.means.dtype)
        squares = [
            self._whitened(z - mean, root).square().sum(1) for mean, root in zip(self.means, self.roots, strict=True)
        ]
        return (self.logs - torch.stack(squares, 1) / 2).argmax(1)

    def _whitened(self, z: Tensor, root: Tensor) -> Tensor:
        return z @ root if root.dim() == 2 else z * root


def _vote(weights: Tensor, labels: Tensor) -> Tensor:
    """The label with the largest sum among the 10 largest `weights` `[n, m]` of points with `labels` `[m]`."""
    top = weights.topk(min(NEIGHBOURS, len(labels)), dim=1)
    votes = weights.new_zeros(len(weights), int(labels.max()) + 1)
    return votes.scatter_add_(1, labels[top.indices], top.values).argmax(1)


def load_assigner(state: Mapping[str, Tensor]) -> nn.Module:
    """The assigner whose `state_dict` this is, as `model.pt` has it; ValueError if it is none's."""
    for kind in (MembershipAssigner, CentreAssigner, NeighbourAssigner, PointAssigner, MixtureAssigner):
        if set(state) == set(kind.__annotations__):
            return kind(**state)
    raise ValueError(f"no assigner has {', '.join(sorted(state))}")
