"""Spectral clustering of an affinity between points; a new point follows those that it is like."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import NDArray
from torch import Tensor

from raymc.clusterers.base import Clusters, check_count
from raymc.clusterers.kmeans import kmeans
from raymc.clusterers.voting import NEIGHBOURS, points_with_neighbours, with_neighbours
from raymc.ops.neighbours import most_similar, nearest

Array = NDArray[np.float64]

DENSE = 2048
"""Up to this many points eigenvectors are computed densely: exact also where eigenvalues coincide."""


def spectral_clustering(affinity: Any, n_clusters: int, seed: int, repeats: int = 20) -> NDArray[np.int64]:
    """Labels `[n]` in 0..n_clusters-1 (Ng, Jordan and Weiss 2002).

    Rows of the leading eigenvectors of D^-1/2 W D^-1/2, scaled to length 1, are clustered by k-means. A point
    without any affinity has a zero row: it gets some label and bears on no other point's.

    Args:
        affinity: symmetric, not negative, `[n, n]`, a sparse matrix or an array. A float64 array is overwritten.
        n_clusters: at most n.
        seed: of the eigensolver's start and of k-means; equal seeds give equal labels.
        repeats: starts of k-means, of which the best counts.

    Raises:
        InputError: more clusters than points.
    """
    return kmeans(unit_rows(eigenvectors(affinity, n_clusters, seed)), n_clusters, seed, repeats)[0]


def eigenvectors(affinity: Any, count: int, seed: int) -> Array:
    """The leading eigenvectors `[n, count]` of D^-1/2 W D^-1/2, the largest eigenvalue's last.

    Args:
        affinity: W, as for `spectral_clustering`.
        count: at most n.
        seed: of the eigensolver's start.

    Raises:
        InputError: more eigenvectors than points.
    """
    weights = affinity if isinstance(affinity, np.ndarray) else scipy.sparse.csr_array(affinity)
    weights = weights.astype(np.float64, copy=False)
    check_count(count, weights.shape[0])
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    roots = np.zeros_like(degrees)
    roots[degrees > 0] = degrees[degrees > 0] ** -0.5
    return _leading_eigenvectors(_scaled(weights, roots), count, seed)


def fit_directions(directions: Tensor, n_clusters: int, seed: int) -> Clusters:
    """Clusters of unit rows `[m, d]`, by |cos| with the 10 most similar."""
    return with_neighbours(directions, spectral_clustering(neighbour_graph(directions), n_clusters, seed))


def fit_points(z: Tensor, n_clusters: int, seed: int) -> Clusters:
    """Clusters of points `[m, d]`, by the 10 nearest."""
    return points_with_neighbours(z, spectral_clustering(point_graph(z), n_clusters, seed))


def neighbour_graph(directions: Tensor) -> scipy.sparse.csr_array:
    """Sparse symmetric `[n, n]`: |cos| of unit rows `[n, d]` with the 10 most similar others, from either side."""
    which, similar = most_similar(directions, min(NEIGHBOURS, len(directions) - 1))
    graph = _graph(which, similar.double().cpu().numpy().ravel())
    return graph.maximum(graph.T)


def point_graph(z: Tensor) -> scipy.sparse.csr_array:
    """Sparse symmetric `[n, n]`: 1 between rows of z `[n, d]` among each other's 10 nearest, 1/2 where one is.

    Without distances: of the weights tried on raw images these are nearest to the published normalised cuts.
    """
    which, _ = nearest(z, min(NEIGHBOURS, len(z) - 1))
    graph = _graph(which, np.full(which.numel(), 0.5))
    return graph + graph.T


def unit_rows(x: Array) -> Array:
    """Rows scaled to length 1; zero rows stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 1e-12, lengths, 1.0))


def _graph(which: Tensor, values: Array) -> scipy.sparse.csr_array:
    """Sparse `[n, n]` with the values `[n k]` in each row's columns `which` `[n, k]`."""
    n, k = which.shape
    return scipy.sparse.csr_array((values, (np.repeat(np.arange(n), k), which.cpu().numpy().ravel())), shape=(n, n))


def _scaled(weights: Any, roots: Array) -> Any:
    """D^-1/2 W D^-1/2; an array in place."""
    if isinstance(weights, np.ndarray):
        weights *= roots[:, None]
        weights *= roots
        return weights
    scale = scipy.sparse.diags_array(roots)
    return scale @ weights @ scale


def _leading_eigenvectors(matrix: Any, k: int, seed: int) -> Array:
    """The eigenvectors `[n, k]` of the k largest eigenvalues, the largest last."""
    n, is_dense = matrix.shape[0], isinstance(matrix, np.ndarray)
    if n <= DENSE or k >= n - 1:
        _, vectors = scipy.linalg.eigh(matrix if is_dense else matrix.toarray(), subset_by_index=[n - k, n - 1])
    elif not (matrix.any() if is_dense else matrix.nnz):
        vectors = np.zeros((n, k))  # ARPACK has no answer to a matrix of zeros
    else:
        start = np.random.default_rng(seed).uniform(0.5, 1.0, n)
        # To the last digit: with fewer, copies of an eigenvalue that several clusters share are missed.
        ncv = min(n - 1, max(2 * k + 1 if is_dense else 4 * k, 64))
        from scipy.sparse.linalg import eigsh

        _, vectors = eigsh(matrix, k, which="LA", v0=start, ncv=ncv)
    return np.asarray(vectors, dtype=np.float64)
