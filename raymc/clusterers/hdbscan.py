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

WIDE = 60
"""Columns above which all distances are taken at once, m^2 of them and a copy, 1.6 GB for 10,000 points: no tree of
points leaves out any there, and walking one took twenty times as long (5,000 images of Fashion-MNIST)."""


def fit(z: Tensor, min_cluster_size: int) -> Clusters:
    """Clusters of points z `[m, d]`; in `facts` the number of `clusters_found` and the share of `noise`.

    Raises InputError for fewer points than a cluster must have, CollapsedError where all points are noise.
    """
    if min_cluster_size > len(z):
        raise InputError(f"hdbscan_min_cluster_size: {min_cluster_size} is above the {len(z)} points to cluster")
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import HDBSCAN

    by = "brute" if z.shape[1] > WIDE else "auto"
    points = z.double().cpu().numpy()
    found = HDBSCAN(min_cluster_size=min_cluster_size, algorithm=by, copy=True).fit_predict(points)
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
