"""Clusters of a model without a head that assigns them: found among samples of the training split, for all others.

`membership` is MLC's own: spectral clustering of the doubly stochastic membership. The rest work on z alone: EnSC,
SSC-OMP, k-means, a Gaussian mixture, and spectral clustering of the 10 most similar neighbours in |cos|. Where z is of
points, not of directions (`Method.unit_rows`), k-means, the mixture and the neighbours are of Euclidean distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymc.config import Config
from raymc.errors import CollapsedError, InputError
from raymc.methods import METHODS
from raymc.metrics.mixture import gaussian_mixture
from raymc.metrics.neighbours import nearest
from raymc.metrics.spectral import kmeans, spectral_clustering
from raymc.metrics.ssc_omp import ssc_omp
from raymc.metrics.subspace import ensc
from raymc.nets.assigners import (
    NEIGHBOURS,
    CentreAssigner,
    MembershipAssigner,
    MixtureAssigner,
    NeighbourAssigner,
    PointAssigner,
)
from raymc.ops import affinity_rows
from raymc.ops.sinkhorn import symmetric_scaling
from raymc.rng import generator

LEAST_COMPANY = 1e-6
"""Of its membership, what a point must share with others on average: below, every point is a cluster of its own."""

WORDS = {
    "membership": "spectral clustering of the doubly stochastic membership",
    "ensc": "EnSC on z",
    "ssc_omp": "SSC-OMP on z",
    "kmeans": "k-means on z",
    "gmm": "a Gaussian mixture on z",
    "spectral": f"spectral clustering of z's {NEIGHBOURS} nearest neighbours in |cos|",
}
POINTS = {"spectral": f"spectral clustering of z's {NEIGHBOURS} nearest neighbours"}
"""As WORDS, where z is of points."""

RULES = {
    "membership": f"their {NEIGHBOURS} largest memberships",
    "kmeans": "their nearest centre",
    "gmm": "their likeliest Gaussian",
}


@dataclass(frozen=True)
class Found:
    """Labels `[m]` of the samples that were clustered, and the module that labels others alike."""

    labels: Tensor
    assigner: nn.Module


def chosen_rows(config: Config, n: int, most: int | None = None) -> Tensor:
    """Positions of the samples to cluster: all, or `cluster_points` (at most `most`), drawn once for all seeds."""
    count = min(config.cluster_points, n, most or n)
    if count == n:
        return torch.arange(n)
    return torch.randperm(n, generator=generator(0, "cluster_points"))[:count].sort().values


def told(config: Config, n: int) -> str:
    """In words, how the clusters of `n` samples were found."""
    if config.clustering == "head":
        return "argmax of the cluster head"
    count = min(config.cluster_points, n)
    unit_rows = METHODS[config.method].unit_rows
    rest = RULES.get(config.clustering, f"the vote of their {NEIGHBOURS} {'most similar' if unit_rows else 'nearest'}")
    words = WORDS if unit_rows else WORDS | POINTS
    return words[config.clustering] + (f" of {count} of {n} samples, the others by {rest}" if count < n else "")


def find(config: Config, z: Tensor, c: Tensor | None, n_clusters: int, seed: int, unit_rows: bool = True) -> Found:
    """Cluster samples with embedding z `[m, d]` and, for `membership`, cluster features c `[m, d']`.

    With `unit_rows` z is scaled to directions, but for the mixture; without, its Euclidean distances count.

    Raises InputError for fewer samples than clusters and for a way that is of directions where z is of points,
    DivergedError where eta is too small for the projection to
    settle, CollapsedError where it leaves every point a cluster of its own.
    """
    if len(z) < n_clusters:
        raise InputError(f"{len(z)} points cannot have {n_clusters} clusters: cluster_points is too small")
    if config.clustering == "gmm":
        return _of_mixture(z, n_clusters, seed)
    if not unit_rows:
        return _of_points(config, z, n_clusters, seed)
    if config.clustering == "membership":
        if c is None:
            raise InputError(f"clustering membership is MLC's: {config.method} has no cluster features at this stage")
        return _of_membership(c, vars(config.stages["heads"])["eta"], n_clusters, seed)
    unit = functional.normalize(z, dim=1)
    if config.clustering == "kmeans":
        return _of_centres(unit, n_clusters, seed)
    if config.clustering == "ensc":
        labels = ensc(unit, n_clusters, config.ensc_gamma, config.ensc_tau, seed)
    elif config.clustering == "ssc_omp":
        labels = ssc_omp(unit, n_clusters, config.ssc_omp_nonzero, config.ssc_omp_tolerance, seed)
    else:
        labels = spectral_clustering(neighbour_graph(unit), n_clusters, seed)
    found = torch.as_tensor(labels)
    return Found(found, NeighbourAssigner(unit, found.to(z.device)))


def _of_points(config: Config, z: Tensor, n_clusters: int, seed: int) -> Found:
    if config.clustering == "kmeans":
        return _of_centres(z, n_clusters, seed)
    if config.clustering != "spectral":
        raise InputError(f"clustering {config.clustering} is of directions, and the embedding is of points")
    labels = torch.as_tensor(spectral_clustering(point_graph(z), n_clusters, seed))
    return Found(labels, PointAssigner(z, labels.to(z.device)))


def _of_centres(z: Tensor, n_clusters: int, seed: int) -> Found:
    labels, centres = kmeans(z.cpu().numpy(), n_clusters, seed)
    return Found(torch.as_tensor(labels), CentreAssigner(torch.as_tensor(centres).to(z)))


def _of_mixture(z: Tensor, n_clusters: int, seed: int) -> Found:
    found = gaussian_mixture(z.cpu().numpy(), n_clusters, seed)
    parts = (torch.as_tensor(part).to(z) for part in (found.means, found.roots, found.logs))
    return Found(torch.as_tensor(found.labels), MixtureAssigner(*parts))


def _of_membership(c: Tensor, eta: float, n_clusters: int, seed: int) -> Found:
    potential, pi = symmetric_scaling(affinity_rows(c), eta)
    pi.fill_diagonal_(0)  # what a point has to do with itself says nothing of clusters
    if float(pi.sum()) < LEAST_COMPANY * len(c):
        raise CollapsedError(f"heads.eta {eta:g} is too small: every point's membership is with itself alone")
    affinity = pi.add_(pi.mT.clone()).div_(2).double().cpu().numpy()
    labels = torch.as_tensor(spectral_clustering(affinity, n_clusters, seed))
    return Found(labels, MembershipAssigner(c, potential, labels.to(c.device), torch.tensor(eta).to(c)))


def neighbour_graph(z: Tensor) -> scipy.sparse.csr_array:
    """Sparse symmetric `[n, n]`: |cos| of unit rows z `[n, d]` with the 10 most similar others, from either side."""
    n = len(z)
    kept = min(NEIGHBOURS, n - 1)
    values, indices = [], []
    for rows in torch.split(torch.arange(n, device=z.device), 1024):
        similar = (z[rows] @ z.mT).abs_()
        similar[torch.arange(len(rows)), rows] = -1
        top = similar.topk(kept, dim=1)
        values.append(top.values.cpu())
        indices.append(top.indices.cpu())
    data, columns = torch.cat(values).double().numpy().ravel(), torch.cat(indices).numpy().ravel()
    graph = scipy.sparse.csr_array((data, (np.repeat(np.arange(n), kept), columns)), shape=(n, n))
    return graph.maximum(graph.T)


def point_graph(z: Tensor) -> scipy.sparse.csr_array:
    """Sparse symmetric `[n, n]`: 1 between rows of z `[n, d]` among each other's 10 nearest, 1/2 where one is.

    Without distances: of the weights tried on raw images these are nearest to the published normalised cuts.
    """
    n = len(z)
    kept = min(NEIGHBOURS, n - 1)
    columns = nearest(z, kept)[0].cpu().numpy().ravel()
    graph = scipy.sparse.csr_array((np.full(n * kept, 0.5), (np.repeat(np.arange(n), kept), columns)), shape=(n, n))
    return graph + graph.T
