"""Spectral clustering of an affinity between points, and k-means."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from raymc.errors import InputError

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
    weights = affinity if isinstance(affinity, np.ndarray) else scipy.sparse.csr_array(affinity)
    weights = weights.astype(np.float64, copy=False)
    if n_clusters > weights.shape[0]:
        raise InputError(f"{n_clusters} clusters of {weights.shape[0]} points: there must be at least as many points")
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    roots = np.zeros_like(degrees)
    roots[degrees > 0] = degrees[degrees > 0] ** -0.5
    vectors = _leading_eigenvectors(_scaled(weights, roots), n_clusters, seed)
    return kmeans(unit_rows(vectors), n_clusters, seed, repeats)[0]


def kmeans(x: NDArray[Any], n_clusters: int, seed: int, repeats: int = 20) -> tuple[NDArray[np.int64], Array]:
    """Labels `[n]` and centres `[k, d]` of rows `[n, d]` by k-means++ and Lloyd, the best of `repeats` seeded starts.

    Raises:
        InputError: more clusters than points.
    """
    if n_clusters > len(x):
        raise InputError(f"{n_clusters} clusters of {len(x)} points: there must be at least as many points")
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # fewer distinct rows than clusters are allowed: duplicates, isolated points
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_clusters, n_init=repeats, random_state=seed).fit(x)
    return np.asarray(model.labels_, dtype=np.int64), np.asarray(model.cluster_centers_)


def unit_rows(x: Array) -> Array:
    """Rows scaled to length 1; zero rows stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(lengths > 1e-12, lengths, 1.0))


def _scaled(weights: Any, roots: Array) -> Any:
    """D^-1/2 W D^-1/2; an array in place."""
    if isinstance(weights, np.ndarray):
        weights *= roots[:, None]
        weights *= roots
        return weights
    scale = scipy.sparse.diags_array(roots)
    return scale @ weights @ scale


def _leading_eigenvectors(matrix: Any, k: int, seed: int) -> Array:
    """The eigenvectors `[n, k]` of the k largest eigenvalues."""
    n, is_dense = matrix.shape[0], isinstance(matrix, np.ndarray)
    if n <= DENSE or k >= n - 1:
        _, vectors = scipy.linalg.eigh(matrix if is_dense else matrix.toarray(), subset_by_index=[n - k, n - 1])
    elif not (matrix.any() if is_dense else matrix.nnz):
        vectors = np.zeros((n, k))  # ARPACK has no answer to a matrix of zeros
    else:
        start = np.random.default_rng(seed).uniform(0.5, 1.0, n)
        # To the last digit: with fewer, copies of an eigenvalue that several clusters share are missed.
        ncv = min(n - 1, max(2 * k + 1 if is_dense else 4 * k, 64))
        _, vectors = scipy.sparse.linalg.eigsh(matrix, k, which="LA", v0=start, ncv=ncv)
    return np.asarray(vectors, dtype=np.float64)
