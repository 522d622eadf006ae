"""Collapse gates: what no label-free score may choose, since a collapsed clustering can be stable and easy to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Gates:
    """Bounds on the clusters of one training.

    Attributes:
        smallest_share: least size of the smallest of k clusters, as a multiple of n/k points; an empty one has 0.
        largest_share: greatest size of the largest one, in the same unit.
        rank: least numerical rank of the embedding.
    """

    smallest_share: float = 0.1
    largest_share: float = 5.0
    rank: int = 2

    @classmethod
    def of(cls, bounds: Mapping[str, float] | None) -> Self | None:
        """The gates of an objective's `gates`, as a manifest has them; None of None."""
        if bounds is None:
            return None
        return cls(bounds["smallest_share"], bounds["largest_share"], int(bounds["rank"]))

    def closed(self, metrics: Mapping[str, float], n_clusters: int) -> str | None:
        """Why a training with these metrics counts as collapsed, in one line; None where it passes.

        Reads `smallest_share`, `largest_share` (shares of all points), `clusters_used` and `embedding_rank`; a figure
        that is absent closes nothing.
        """
        used = metrics.get("clusters_used")
        smallest, largest = metrics.get("smallest_share"), metrics.get("largest_share")
        rank = metrics.get("embedding_rank")
        if smallest is not None and smallest * n_clusters < self.smallest_share:
            if used is not None and used < n_clusters:
                return f"{n_clusters - used:.0f} of {n_clusters} clusters are empty"
            return f"the smallest cluster has {smallest:.2%} of the points, below {self.smallest_share:g}/{n_clusters}"
        if largest is not None and largest * n_clusters > self.largest_share:
            return f"the largest cluster has {largest:.2%} of the points, above {self.largest_share:g}/{n_clusters}"
        if rank is not None and rank < self.rank:
            return f"the embedding has numerical rank {rank:.0f}, below {self.rank}"
        return None
