"""t-SNE of an embedding to a plane (van der Maaten and Hinton 2008), by openTSNE: for pictures and for first centres.

Shapes: n points, m dimensions of the embedding, k neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.errors import InputError
from raymc.ops.neighbours import nearest
from raymc.rng import seed32

PERPLEXITY = 30.0
NEIGHBOURS = 90
"""Of each point, those that attract it: three times the perplexity, as everywhere."""

EARLY = 12.0
"""Exaggeration of attraction while islands form."""

EARLY_STEPS, STEPS = 250, 500
"""Iterations with that exaggeration, and after it: openTSNE's own. After 250 of the latter k-means finds clusters
worse by 0.01 to 0.02 in accuracy (USPS)."""

START = 1e-4
"""Standard deviation from which the points spread; a larger one keeps them where they started."""

FEWEST = 10
"""Points below which the picture is that of the two principal components."""

GRID_FROM = 5_000
"""Points from which repulsion by interpolation on a grid is faster than by a tree."""

Array = NDArray[np.float64]


def tsne(
    z: Tensor | NDArray[np.floating],
    seed: int,
    init: NDArray[np.floating] | None = None,
    exaggeration: float = 1.0,
) -> Array:
    """Places `[n, 2]` of the points z `[n, m]` in a plane, near points near each other; equal seeds, equal places.

    The neighbours are exact and one thread moves the points, so nothing hangs on the machine's threads. 1,000 points
    take 3 s, 10,000 take 20 s. Where there are no more than 90 points the perplexity is (n - 1) / 3.

    Args:
        z: duplicates are allowed.
        seed: of the small shifts that part what starts in one place.
        init: where the points start, `[n, 2]` in any unit, such as the picture before this one, which is then followed
            where the points allow; without it they start from their two principal components.
        exaggeration: by how much attraction is multiplied after the early phase, whose factor is 12. 1 is t-SNE; at 2
            to 4 islands are denser and further apart, as in UMAP (Böhm, Berens and Kobak 2022).

    Raises:
        InputError: a value is not finite.
    """
    points = torch.as_tensor(z).detach().cpu().flatten(1).double()
    points = points - points.mean(0)
    if not torch.isfinite(points).all():
        raise InputError("z has a value that is not finite")
    size = float(points.square().mean().sqrt())
    points = points / (size or 1.0)  # any unit: the search for each point's scale starts at 1
    start = _start(principal_plane(points) if init is None else np.asarray(init, np.float64), seed)
    if len(points) < FEWEST:
        return start / START
    # Imported where used: it takes a second, and few trainings come here.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    which, distances = nearest(points, min(NEIGHBOURS, len(points) - 1))
    graph = PrecomputedNeighbors(which.numpy(), distances.numpy())
    affinity = PerplexityBasedNN(knn_index=graph, perplexity=min(PERPLEXITY, graph.k / 3), n_jobs=1)
    method = "fft" if len(points) >= GRID_FROM else "bh"
    places = TSNEEmbedding(start, affinity, negative_gradient_method=method, n_jobs=1, random_state=seed32(seed))
    for iterations, factor in ((EARLY_STEPS, EARLY), (STEPS, exaggeration)):
        places.optimize(iterations, exaggeration=factor, momentum=0.8, learning_rate="auto", inplace=True)
    return np.array(places, np.float64)


def tsne_series(points: NDArray[np.floating], seed: int = 0) -> Array:
    """Pictures `[e, n, 2]` of the same n points `[e, n, m]` at several times, each started from the one before.

    Points of a plane (m = 2) are their own picture. Raises InputError for a value that is not finite.
    """
    pictures: list[Array] = []
    for z in points:
        before = pictures[-1] if pictures else None
        pictures.append(np.asarray(z, np.float64) if z.shape[1] == 2 else tsne(z, seed, before))
    return np.stack(pictures) if pictures else np.zeros((0, 0, 2))


def principal_plane(points: Tensor) -> Array:
    """The first two principal components `[n, 2]` of points `[n, m]`, zeros where there are fewer."""
    points = points.double() - points.double().mean(0)
    _, _, axes = torch.linalg.svd(points, full_matrices=False)
    # An axis has no direction of its own: its largest entry points up.
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    flat = points @ axes.mT
    plane: Array = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1])).numpy()
    return plane


def _start(places: Array, seed: int) -> Array:
    """Places `[n, 2]` about their mean, scaled to START and shifted a little: points in one place would never part."""
    centred = places - places.mean(0)
    spread = centred.std(0).max()
    shifts = np.random.default_rng(seed).normal(0, 0.01, places.shape)
    start: Array = START * (centred / (spread if spread > 0 else 1.0) + shifts)
    return start
