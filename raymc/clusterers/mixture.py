"""Gaussian mixtures (Bishop 2006, section 9.2), by expectation maximisation from partitions of k-means.

A new point goes to its likeliest Gaussian.

Shapes: n points, d features, k clusters.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.clusterers.base import Assigner, Clusters, check_count
from raymc.clusterers.kmeans import kmeans
from raymc.rng import seed32

Array = NDArray[np.float64]

WIDE = 64
"""More features than these, as raw images have, get diagonal covariances: full ones cost minutes, and their EM stays
where k-means begins."""

FLOOR = 1e-3
"""Added to a cluster's variance in every direction, as a share of the features' mean variance."""

WIDE_FLOOR = 0.5
"""The same for wide points, where many pixels are constant. Both are those that come near the figures which GCML gives
for raw digits, from 1e-5 to 2."""


TOLERANCE, ITERATIONS = 1e-4, 500
"""Of EM where likelihoods are compared: at scikit-learn's 0.001 they may still change by more than they differ."""


@dataclass(frozen=True)
class Mixture:
    """Labels int64 `[n]`, and what labels other points: see `MixtureAssigner`."""

    labels: NDArray[np.int64]
    means: Array
    roots: Array
    logs: Array


def fit(z: Tensor, n_clusters: int, seed: int) -> Clusters:
    """Clusters of z `[m, d]`."""
    found = gaussian_mixture(z.cpu().numpy(), n_clusters, seed)
    parts = {name: torch.as_tensor(getattr(found, name)).to(z) for name in ("means", "roots", "logs")}
    return Clusters(torch.as_tensor(found.labels), MixtureAssigner(**parts))


def gaussian_mixture(x: NDArray[np.floating], n_clusters: int, seed: int, starts: int | None = None) -> Mixture:
    """A mixture of k Gaussians fitted to points x `[n, d]`; a point's label is the likeliest of them.

    Covariances are full up to 64 features, with 0.001 of the features' mean variance added to every variance, and
    diagonal above, with 0.5 of it: the scale of x does not matter.

    Args:
        x: duplicates are allowed.
        n_clusters: k.
        seed: equal seeds, equal mixtures.
        starts: how often EM is run, each time from the points nearest to other k seeds of k-means++; the mixture with
            the greatest likelihood counts. None: once, from the best of 20 k-means, near which EM then stays.

    Raises:
        InputError: more clusters than points.
    """
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.exceptions import ConvergenceWarning

    points = np.asarray(x, dtype=np.float64)
    centre, scale = points.mean(0), float(points.var(0).mean()) ** 0.5 or 1.0
    points = (points - centre) / scale
    with warnings.catch_warnings():  # duplicates, and an EM that still moves a few points
        warnings.simplefilter("ignore", ConvergenceWarning)
        if starts is None:
            model = _fitted(points, *kmeans(points, n_clusters, seed))
        else:
            drawn = (_nearest_seeds(points, n_clusters, seed32(seed + number)) for number in range(starts))
            model = max(
                (_fitted(points, *one, TOLERANCE, ITERATIONS) for one in drawn), key=lambda one: float(one.lower_bound_)
            )
    roots = model.precisions_cholesky_
    diagonals = np.diagonal(roots, axis1=1, axis2=2) if roots.ndim == 3 else roots
    logs = np.log(model.weights_) + np.log(diagonals).sum(1)
    return Mixture(model.predict(points).astype(np.int64), model.means_ * scale + centre, roots / scale, logs)


class MixtureAssigner(Assigner):
    """The likeliest of k Gaussians, see `gaussian_mixture`.

    Args:
        means: `[k, d]`.
        roots: R with the precision R R^T, `[k, d, d]`, or the roots of a diagonal one, `[k, d]`.
        logs: log weight and log determinant of each Gaussian's root, `[k]`.
    """

    means: Tensor
    roots: Tensor
    logs: Tensor

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        return self._log_densities(z).argmax(1)

    def confidence(self, z: Tensor, c: Tensor | None, labels: Tensor) -> Tensor:
        """The posterior probability of the point's own Gaussian."""
        return self._log_densities(z).softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)

    def _log_densities(self, z: Tensor) -> Tensor:
        """Of points `[n, d]` under each weighted Gaussian, `[n, k]`, but for one constant."""
        z = z.to(self.means.dtype)
        times = torch.matmul if self.roots.dim() == 3 else torch.mul
        squares = [times(z - m, root).square().sum(1) for m, root in zip(self.means, self.roots, strict=True)]
        return self.logs - torch.stack(squares, 1) / 2


def _fitted(
    points: Array, labels: NDArray[np.int64], means: Array, tolerance: float = 1e-3, iterations: int = 100
) -> Any:
    """scikit-learn's mixture after EM from a partition `[n]` and its centres `[k, d]`."""
    from sklearn.mixture import GaussianMixture

    is_wide = points.shape[1] > WIDE
    weights, precisions = _spread(points, labels, means, is_wide)
    return GaussianMixture(
        len(means),
        covariance_type="diag" if is_wide else "full",
        reg_covar=WIDE_FLOOR if is_wide else FLOOR,
        weights_init=weights,
        means_init=means,
        precisions_init=precisions,
        tol=tolerance,
        max_iter=iterations,
    ).fit(points)


def _nearest_seeds(points: Array, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Array]:
    """The points by the nearest of k seeds of k-means++, and the means of those of each."""
    from sklearn.cluster import kmeans_plusplus

    check_count(n_clusters, len(points))
    seeds, _ = kmeans_plusplus(points, n_clusters, random_state=seed)
    labels = np.stack([np.square(points - one).sum(1) for one in seeds]).argmin(0)
    means = [points[labels == j].mean(0) if (labels == j).any() else one for j, one in enumerate(seeds)]
    return labels, np.stack(means)


def _spread(points: Array, labels: NDArray[np.int64], means: Array, is_wide: bool) -> tuple[Array, Array]:
    """Weights `[k]` and precisions of clusters about their means; an empty one has little weight."""
    weights = np.maximum(np.bincount(labels, minlength=len(means)), 1).astype(np.float64)
    apart = [points[labels == j] - mean for j, mean in enumerate(means)]
    if is_wide:
        spread = np.stack([np.square(rows).sum(0) for rows in apart]) / weights[:, None]
        return weights / weights.sum(), 1 / (spread + WIDE_FLOOR)
    spread = np.stack([rows.T @ rows for rows in apart]) / weights[:, None, None]
    precisions = np.linalg.inv(spread + FLOOR * np.eye(points.shape[1]))
    return weights / weights.sum(), np.asarray(precisions, dtype=np.float64)
