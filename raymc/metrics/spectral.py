"""Spectral clustering of an affinity between points."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from raymc.errors import InputError

DENSE = 2048
"""Up to this many points eigenvectors are computed densely: exact also where eigenvalues coincide."""


def spectral_clustering(affinity: Any, n_clusters: int, seed: int, repeats: int = 20) -> NDArray[np.int64]:
    """Labels `[n]` in 0..n_clusters-1 (Ng, Jordan and Weiss 2002).

    Rows of the leading eigenvectors of D^-1/2 W D^-1/2, scaled to length 1, are clustered by k-means. A point
    without any affinity has a zero row: it gets some label and bears on no other point's.

    Args:
        affinity: symmetric, not negative, `[n, n]`, a sparse matrix or an array.
        n_clusters: at most n.
        seed: of the eigensolver's start and of k-means; equal seeds give equal labels.
        repeats: starts of k-means, of which the best counts.

    Raises:
        InputError: more clusters than points.
    """
    weights = scipy.sparse.csr_array(affinity, dtype=np.float64)
    if n_clusters > weights.shape[0]:
        raise InputError(f"{n_clusters} clusters of {weights.shape[0]} points: there must be at least as many points")
    vectors = _leading_eigenvectors(_normalised(weights), n_clusters, seed)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return kmeans(vectors / np.where(lengths > 1e-12, lengths, 1.0), n_clusters, seed, repeats)


def kmeans(x: NDArray[Any], n_clusters: int, seed: int, repeats: int = 20) -> NDArray[np.int64]:
    """Labels `[n]` of rows `[n, d]` by k-means++ and Lloyd's algorithm, the best of `repeats` seeded starts."""
    # Imported where used: scikit-learn takes a second to import, and few runs come here.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # fewer distinct rows than clusters are allowed: duplicates, isolated points
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_clusters, n_init=repeats, random_state=seed).fit(x)
    return np.asarray(model.labels_, dtype=np.int64)


def _normalised(weights: Any) -> Any:
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    roots = np.zeros_like(degrees)
    roots[degrees > 0] = degrees[degrees > 0] ** -0.5
    scale = scipy.sparse.diags_array(roots)
    return scale @ weights @ scale


def _leading_eigenvectors(matrix: Any, k: int, seed: int) -> NDArray[np.float64]:
    n = matrix.shape[0]
    if n <= DENSE or k >= n - 1:
        _, vectors = scipy.linalg.eigh(matrix.toarray(), subset_by_index=[n - k, n - 1])
    elif not matrix.nnz:  # ARPACK has no answer to a matrix of zeros
        vectors = np.zeros((n, k))
    else:
        start = np.random.default_rng(seed).uniform(0.5, 1.0, n)
        _, vectors = scipy.sparse.linalg.eigsh(matrix, k, which="LA", v0=start, ncv=min(n - 1, max(4 * k, 64)))
    return np.asarray(vectors, dtype=np.float64)
