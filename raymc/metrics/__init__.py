"""How good a clustering is: against labels, over seeds, as subspaces, by probes."""

from raymc.metrics.clustering import (
    adjusted_rand,
    cluster_shares,
    clustering_scores,
    confusion,
    hungarian_match,
)

__all__ = ["adjusted_rand", "cluster_shares", "clustering_scores", "confusion", "hungarian_match"]
