"""k-means; a new point goes to the nearest centre."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.clusterers.base import Assigner, Clusters, check_count
from raymc.ops.neighbours import nearest_to
from raymc.rng import seed32


def fit(z: Tensor, n_clusters: int, seed: int) -> Clusters:
    """Clusters of z `[m, d]`."""
    labels, centres = kmeans(z.cpu().numpy(), n_clusters, seed)
    return Clusters(torch.as_tensor(labels), CentreAssigner(centres=torch.as_tensor(centres).to(z)))


def kmeans(
    x: NDArray[Any], n_clusters: int, seed: int, repeats: int = 20
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels `[n]` and centres `[k, d]` of rows `[n, d]` by k-means++ and Lloyd, the best of `repeats` seeded starts.

    Raises:
        InputError: more clusters than points.
    """
    check_count(n_clusters, len(x))
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # fewer distinct rows than clusters are allowed: duplicates, isolated points
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_clusters, n_init=repeats, random_state=seed32(seed)).fit(x)
    return np.asarray(model.labels_, dtype=np.int64), np.asarray(model.cluster_centers_)


class CentreAssigner(Assigner):
    """The nearest of the centres `[k, d]`, in double precision: between far centres single has no digits left."""

    centres: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return nearest_to(z.double(), self.centres.double(), 1)[0].squeeze(1)

    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """1 - a / b, a the distance to the point's own centre, b that to the nearest other: 0 half way between both.

        The simplified silhouette (Hruschka et al. 2004), where the point's own centre is the nearest; 0 where it is
        not.
        """
        which, apart = nearest_to(z.double(), self.centres.double(), len(self.centres))
        own = which == labels.unsqueeze(1)
        mine = apart.masked_fill(~own, 0).sum(1)
        other = apart.masked_fill(own, torch.inf).amin(1)
        return (1 - mine / other).nan_to_num(0).clamp_min(0)  # nan: two centres in one place, and the point there too
