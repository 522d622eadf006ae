"""Agglomerative clustering by Ward's criterion (Ward 1963): the two clusters whose union spreads least are joined.

A new point follows the vote of its nearest. m points cost m^2/2 distances in memory, 400 MB for 10,000. No seed has a
say: equal points, equal clusters.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from raymc.clusterers.base import Clusters, check_count
from raymc.clusterers.voting import points_with_neighbours


def fit(z: Tensor, n_clusters: int, seed: int = 0) -> Clusters:
    """Clusters of points z `[m, d]`. Raises InputError for more clusters than points."""
    check_count(n_clusters, len(z))
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import AgglomerativeClustering

    labels = AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(z.double().cpu().numpy())
    return points_with_neighbours(z, np.asarray(labels, dtype=np.int64))
