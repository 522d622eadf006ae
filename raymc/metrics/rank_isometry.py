"""Which ranks between clusters and which distances between neighbours an embedding keeps (DCRL's figure A5).

Shapes: n points, d features of the input x, m of the embedding z, C clusters that are not empty, b bins, k neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics.clustering import Labels, as_labels
from raymc.metrics.geometry import centre_order
from raymc.ops.neighbours import nearest
from raymc.rng import generator

BINS = 60
BEYOND = 0.005
"""Share of the differences at either end that the histogram holds in its last bin: a few would stretch it."""

DRAWN = 2_500
"""Points whose neighbours among all are compared: 12,500 pairs are plenty for 60 bins."""

Array = NDArray[np.float64]


def rank_and_isometry(x: Tensor, z: Tensor, labels: Labels, neighbours: int = 5) -> dict[str, Tensor]:
    """Ranks of the distances between clusters' means, and how far neighbours' distances change.

    Of more than 2,500 points as many are drawn, the same for equal n; their neighbours are those among all points.

    Args:
        x: input `[n, d]`, or images, whose pixels are features.
        z: embedding `[n, m]`.
        labels: found cluster of each point, `[n]`.
        neighbours: k; of no more than k points all others.

    Returns:
        `clusters` int64 `[C]`, the labels that occur; `rank_input` and `rank_latent` int64 `[C, C]`, in row i of each
        cluster's mean by its distance from that of i, itself 0 (the share that agrees is CRA); `difference_edges`
        float32 `[b + 1]` and `difference_counts` int64 `[b]`, the histogram of d_z/sqrt(m) - d_x/sqrt(d) over the
        points and their k nearest in x, in whose outermost bins is what lies beyond; `difference_quartiles` float32
        `[3]` of the same; `input_distance` float32 `[]`, the median d_x/sqrt(d) of these pairs.

    Raises:
        InputError: x, z and labels differ in length, there are fewer than two points, or a value is not finite.
    """
    clusters, found = np.unique(as_labels(labels), return_inverse=True)
    if not len(x) == len(z) == len(found):
        raise InputError(f"{len(x)} samples, {len(z)} embeddings and {len(found)} labels do not belong together")
    if len(x) < 2:
        raise InputError("one point has no neighbours")
    x, z, which = x.detach().flatten(1), z.detach().flatten(1), torch.as_tensor(found)
    ranks = {
        name: centre_order(space, which.to(space.device)).argsort(dim=1).cpu()
        for name, space in (("rank_input", x), ("rank_latent", z))
    }
    in_x, in_z = _distances(x, z, min(neighbours, len(x) - 1))
    edges, counts = _histogram(in_z - in_x)
    quartiles = np.quantile(in_z - in_x, (0.25, 0.5, 0.75)).astype(np.float32)
    return {
        "clusters": torch.as_tensor(clusters.astype(np.int64)),
        **ranks,
        "difference_edges": torch.as_tensor(edges),
        "difference_counts": torch.as_tensor(counts),
        "difference_quartiles": torch.as_tensor(quartiles),
        "input_distance": torch.tensor(float(np.median(in_x)), dtype=torch.float32),
    }


def _distances(x: Tensor, z: Tensor, k: int) -> tuple[Array, Array]:
    """Of drawn points and their k nearest in x the distances in x and in z, each over the root of its width."""
    rows = torch.randperm(len(x), generator=generator(0, "rank_isometry"))[:DRAWN].sort().values
    which, in_x = nearest(x, k, rows.to(x.device))
    rows, which = rows.to(z.device), which.to(z.device)
    in_z = (z[rows, None].double() - z[which].double()).norm(dim=2)
    scaled = (in_x.double() / x.shape[1] ** 0.5).cpu().numpy(), (in_z / z.shape[1] ** 0.5).cpu().numpy()
    return scaled[0].ravel(), scaled[1].ravel()


def _histogram(values: Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Edges `[b + 1]` that hold 0 and all but the ends of the values, and counts `[b]` of all of them."""
    low, high = (float(edge) for edge in np.quantile(values, (BEYOND, 1 - BEYOND)))
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-30:
        low, high = -1.0, 1.0  # nothing differs
    edges = np.linspace(low, high, BINS + 1, dtype=np.float32)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return edges, counts.astype(np.int64)
