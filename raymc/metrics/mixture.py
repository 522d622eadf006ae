"""Gaussian mixtures (Bishop 2006, section 9.2), by expectation maximisation from the partition of k-means.

Shapes: n points, d features, k clusters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymc.metrics.spectral import kmeans

Array = NDArray[np.float64]

WIDE = 64
"""More features than these, as raw images have, get diagonal covariances: full ones cost minutes, and their EM stays
where k-means begins."""

FLOOR = 1e-3
"""Added to a cluster's variance in every direction, as a share of the features' mean variance."""

WIDE_FLOOR = 0.5
"""The same for wide points, where many pixels are constant. Both are those that come near the figures which GCML gives
for raw digits, from 1e-5 to 2."""


@dataclass(frozen=True)
class Mixture:
    """Labels int64 `[n]`, and what labels other points: see `raymc.nets.assigners.MixtureAssigner`."""

    labels: NDArray[np.int64]
    means: Array
    roots: Array
    logs: Array


def gaussian_mixture(x: NDArray[np.floating], n_clusters: int, seed: int) -> Mixture:
    """A mixture of k Gaussians fitted to points x `[n, d]`; a point's label is the likeliest of them.

    EM starts from the best of 20 k-means. Covariances are full up to 64 features, with 0.001 of the features' mean
    variance added to every variance, and diagonal above, with 0.5 of it: the scale of x does not matter.

    Raises:
        InputError: more clusters than points.
    """
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = np.asarray(x, dtype=np.float64)
    centre, scale = points.mean(0), float(points.var(0).mean()) ** 0.5 or 1.0
    points = (points - centre) / scale
    is_wide = points.shape[1] > WIDE
    weights, means, precisions = _start(points, n_clusters, seed, is_wide)
    with warnings.catch_warnings():  # duplicates, and an EM that still moves a few points
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(
            n_clusters,
            covariance_type="diag" if is_wide else "full",
            reg_covar=WIDE_FLOOR if is_wide else FLOOR,
            weights_init=weights,
            means_init=means,
            precisions_init=precisions,
        ).fit(points)
    roots = model.precisions_cholesky_
    diagonals = roots if is_wide else np.diagonal(roots, axis1=1, axis2=2)
    logs = np.log(model.weights_) + np.log(diagonals).sum(1)
    return Mixture(model.predict(points).astype(np.int64), model.means_ * scale + centre, roots / scale, logs)


def _start(points: Array, n_clusters: int, seed: int, is_wide: bool) -> tuple[Array, Array, Array]:
    """Weights `[k]`, means and precisions of the clusters of k-means; an empty one has little weight."""
    labels, means = kmeans(points, n_clusters, seed)
    weights = np.maximum(np.bincount(labels, minlength=n_clusters), 1).astype(np.float64)
    apart = [points[labels == j] - means[j] for j in range(n_clusters)]
    if is_wide:
        spread = np.stack([np.square(rows).sum(0) for rows in apart]) / weights[:, None]
        return weights / weights.sum(), means, 1 / (spread + WIDE_FLOOR)
    spread = np.stack([rows.T @ rows for rows in apart]) / weights[:, None, None]
    precisions = np.linalg.inv(spread + FLOOR * np.eye(points.shape[1]))
    return weights / weights.sum(), means, np.asarray(precisions, dtype=np.float64)
