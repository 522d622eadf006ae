"""HDBSCAN (Campello, Moulavi and Sander 2013; McInnes, Healy and Astels 2017), by scikit-learn.

It finds the number of clusters itself, and leaves points where few are as noise. Here every sample gets a label: noise,
like a new point, follows the vote of its 10 nearest among the clustered points. `noise` says how many they were. No
seed has a say.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raymc.clusterers.base import Clusters
from raymc.clusterers.voting import points_with_neighbours
from raymc.errors import CollapsedError, InputError

NOISE = -1


def fit(z: Tensor, min_cluster_size: int) -> Clusters:
    """Clusters of points z `[m, d]`; in `facts` the number of `clusters_found` and the share of `noise`.

    Raises InputError for fewer points than a cluster must have, CollapsedError where all points are noise.
    """
    if min_cluster_size > len(z):
        raise InputError(f"hdbscan_min_cluster_size: {min_cluster_size} is above the {len(z)} points to cluster")
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import HDBSCAN

    found = HDBSCAN(min_cluster_size=min_cluster_size, copy=True).fit_predict(z.double().cpu().numpy())
    labels = torch.as_tensor(np.asarray(found, dtype=np.int64))
    clustered = labels != NOISE
    if not clustered.any():
        raise CollapsedError(
            f"hdbscan: all {len(z)} points are noise at hdbscan_min_cluster_size {min_cluster_size}; a smaller one "
            "finds smaller clusters"
        )
    known = points_with_neighbours(z[clustered.to(z.device)], labels[clustered].numpy())
    if not clustered.all():
        labels[~clustered] = known.assigner(z[~clustered.to(z.device)], None).cpu()
    facts = {"clusters_found": float(labels.max()) + 1, "noise": float((~clustered).double().mean())}
    return replace(known, labels=labels, facts=facts)
