"""What every clusterer gives: the labels of the samples that it saw, and a module that labels others alike.

The module also says how clearly a point belongs to its cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from raymc.errors import InputError


class Assigner(nn.Module, ABC):
    """Labels int64 `[n]` of new points (z `[n, d]`, output of the cluster head `[n, d']` or None), old ones alike.

    What it knows are buffers, which travel with the model; a subclass names them.
    """

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name in type(self).__annotations__:
            self.register_buffer(name, buffers.pop(name).detach())
        if buffers:
            raise TypeError(f"{type(self).__name__} has no {', '.join(buffers)}")

    @abstractmethod
    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """How clearly points belong to the clusters `labels` int64 `[n]`, `[n]` in 0..1; the arguments as for a call.

        `labels` may be others than a call gives: the samples that were clustered have theirs by the clustering itself.
        """


@dataclass(frozen=True)
class Clusters:
    """Labels int64 `[m]` of the samples that were clustered, what labels others, and figures of how they were found.

    `facts` has `clusters_found` where the number was looked for; `coding_lengths`, in nats, is by number where these
    said it.
    """

    labels: Tensor
    assigner: Assigner
    facts: Mapping[str, float] = field(default_factory=dict)
    coding_lengths: Mapping[int, float] = field(default_factory=dict)


def check_count(n_clusters: int, n: int) -> None:
    """Raises InputError for more clusters than points."""
    if n_clusters > n:
        raise InputError(f"{n_clusters} clusters of {n} points: there must be at least as many points")
