"""Clusters of a model without a head that assigns them: found among samples of the training split, for all others.

A file each, with how it finds clusters and how new points follow: `kmeans`, `mixture`, `spectral`, `agglomerative`,
`hdbscan`, `ensc`, `ssc_omp` and MLC's own `membership`. All but the last work on z alone. Where z is of points, not of
directions (`Method.unit_rows`), k-means, the mixture and the neighbours are of Euclidean distances. `tsne` places
points in a plane.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raymc.bare_keys import cluster_range
from raymc.clusterers import agglomerative, ensc, hdbscan, kmeans, membership, mixture, spectral, ssc_omp
from raymc.clusterers.base import Assigner, Clusters
from raymc.clusterers.voting import NEIGHBOURS, NeighbourAssigner, PointAssigner
from raymc.config import Config
from raymc.errors import CollapsedError, InputError
from raymc.rng import generator

__all__ = ["ASSIGNERS", "FOR_POINTS", "WORDS", "Clusters", "chosen_rows", "described", "find"]

FOR_POINTS = ("kmeans", "gmm", "spectral", "agglomerative", "hdbscan")
"""What clusters points by their Euclidean distances; the others are of directions."""

WORDS = {
    "membership": "spectral clustering of the doubly stochastic membership",
    "ensc": "EnSC on z",
    "ssc_omp": "SSC-OMP on z",
    "kmeans": "k-means on z",
    "gmm": "a Gaussian mixture on z",
    "spectral": f"spectral clustering of z's {NEIGHBOURS} nearest neighbours in |cos|",
    "agglomerative": "agglomerative clustering of z by Ward's criterion",
    "hdbscan": f"HDBSCAN on z, its noise by the vote of the {NEIGHBOURS} nearest clustered samples",
}
POINTS = {"spectral": f"spectral clustering of z's {NEIGHBOURS} nearest neighbours"}
"""As WORDS, where z is of points."""

RULES = {
    **dict.fromkeys(("agglomerative", "hdbscan"), f"the vote of their {NEIGHBOURS} nearest"),
    "membership": f"their {NEIGHBOURS} largest memberships",
    "kmeans": "their nearest centre",
    "gmm": "their likeliest Gaussian",
}


ASSIGNERS: dict[str, type[Assigner]] = {
    of.__name__: of
    for of in (
        kmeans.CentreAssigner,
        mixture.MixtureAssigner,
        membership.MembershipAssigner,
        NeighbourAssigner,
        PointAssigner,
    )
}
"""What labels new points, by the name that a saved model calls it; each is made of its buffers alone."""


def chosen_rows(config: Config, n: int, most: int | None = None) -> Tensor:
    """Positions of the samples to cluster: all, or `cluster_points` (at most `most`), drawn once for all seeds."""
    count = min(config.cluster_points, n, most or n)
    if count == n:
        return torch.arange(n)
    return torch.randperm(n, generator=generator(0, "cluster_points"))[:count].sort().values


def described(config: Config, n: int, unit_rows: bool) -> str:
    """In words, how the clusters of `n` samples are found; `unit_rows` as for `find`."""
    if config.clustering == "head":
        return "argmax of the cluster head"
    count = min(config.cluster_points, n)
    rest = RULES.get(config.clustering, f"the vote of their {NEIGHBOURS} {'most similar' if unit_rows else 'nearest'}")
    words = WORDS if unit_rows else WORDS | POINTS
    among = cluster_range(config.n_clusters)
    which = f", of {among[0]} to {among[1]} clusters those of the least coding length" if among else ""
    return words[config.clustering] + which + (f" of {count} of {n} samples, the others by {rest}" if count < n else "")


def find(config: Config, z: Tensor, c: Tensor | None, n_clusters: int, seed: int, unit_rows: bool = True) -> Clusters:
    """Cluster samples with embedding z `[m, d]` and, for `membership`, cluster features c `[m, d']`.

    Where `n_clusters` of the configuration is a range, the membership says how many.

    With `unit_rows` z is scaled to directions, but for the mixture; without, its Euclidean distances count.

    Raises InputError for fewer samples than clusters and for a way that is of directions where z is of points,
    DivergedError where eta is too small for the projection to settle, CollapsedError where it leaves every point a
    cluster of its own, and for a plain method where all samples are equal.
    """
    by = config.clustering
    if len(z) < n_clusters and by != "hdbscan":
        raise InputError(f"{len(z)} points cannot have {n_clusters} clusters: cluster_points is too small")
    if config.method == "plain" and bool((z == z[:1]).all()):
        raise CollapsedError(f"all {len(z)} samples are equal: there are no clusters")
    if by == "gmm":
        return mixture.fit(z, n_clusters, seed)
    if not unit_rows and by not in FOR_POINTS:
        raise InputError(f"clustering {by} is of directions, and the embedding is of points")
    rows = functional.normalize(z, dim=1) if unit_rows else z
    if by == "membership":
        if c is None:
            raise InputError(f"clustering membership is MLC's: {config.method} has no cluster features at this stage")
        settings = vars(config.stages["heads"])
        if among := cluster_range(config.n_clusters):
            return membership.fit_range(rows, c, settings["eta"], settings["eps_sq"], *among, seed)
        return membership.fit(c, settings["eta"], n_clusters, seed)
    if by == "kmeans":
        return kmeans.fit(rows, n_clusters, seed)
    if by == "agglomerative":
        return agglomerative.fit(rows, n_clusters)
    if by == "hdbscan":
        return hdbscan.fit(rows, config.hdbscan_min_cluster_size)
    if by == "spectral":
        return (spectral.fit_directions if unit_rows else spectral.fit_points)(rows, n_clusters, seed)
    if by == "ensc":
        return ensc.fit(rows, n_clusters, config.ensc_gamma, config.ensc_tau, seed)
    return ssc_omp.fit(rows, n_clusters, config.ssc_omp_nonzero, config.ssc_omp_tolerance, seed)
