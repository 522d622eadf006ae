"""Clusters of a model without a head that assigns them: found among samples of the training split, for all others.

A file each, with how it finds clusters and how new points follow: `kmeans`, `mixture`, `spectral`, `ensc`, `ssc_omp`
and MLC's own `membership`. The first five work on z alone. Where z is of points, not of directions
(`Method.unit_rows`), k-means, the mixture and the neighbours are of Euclidean distances. `tsne` places points in a
plane.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from raymc.clusterers import ensc, kmeans, membership, mixture, spectral, ssc_omp
from raymc.clusterers.base import Clusters
from raymc.clusterers.voting import NEIGHBOURS
from raymc.config import Config, cluster_range
from raymc.errors import InputError
from raymc.rng import generator

__all__ = ["WORDS", "Clusters", "chosen_rows", "described", "find"]

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
    cluster of its own.
    """
    if len(z) < n_clusters:
        raise InputError(f"{len(z)} points cannot have {n_clusters} clusters: cluster_points is too small")
    by = config.clustering
    if by == "gmm":
        return mixture.fit(z, n_clusters, seed)
    if not unit_rows:
        if by not in ("kmeans", "spectral"):
            raise InputError(f"clustering {by} is of directions, and the embedding is of points")
        return (kmeans.fit if by == "kmeans" else spectral.fit_points)(z, n_clusters, seed)
    directions = functional.normalize(z, dim=1)
    if by == "membership":
        if c is None:
            raise InputError(f"clustering membership is MLC's: {config.method} has no cluster features at this stage")
        settings = vars(config.stages["heads"])
        if among := cluster_range(config.n_clusters):
            return membership.fit_range(directions, c, settings["eta"], settings["eps_sq"], *among, seed)
        return membership.fit(c, settings["eta"], n_clusters, seed)
    if by == "kmeans":
        return kmeans.fit(directions, n_clusters, seed)
    if by == "ensc":
        return ensc.fit(directions, n_clusters, config.ensc_gamma, config.ensc_tau, seed)
    if by == "ssc_omp":
        return ssc_omp.fit(directions, n_clusters, config.ssc_omp_nonzero, config.ssc_omp_tolerance, seed)
    return spectral.fit_directions(directions, n_clusters, seed)
