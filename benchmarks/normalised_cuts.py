"""Normalised cuts of Pendigits by scaling, affinity and neighbours: which of them has the figure of GCML's Table 1.

    python -m benchmarks.normalised_cuts                      # five starts of k-means each, some ten minutes
    python -m benchmarks.normalised_cuts --variants knn10 --json

`knn10` is the graph of raymc's preset `spectral`; `cuts` are Shi and Malik's eigenvectors as scikit-learn's
SpectralClustering takes them, whose rows are not scaled to length 1. `rbf` has exp(-gamma d²) between all samples:
gamma 1, scikit-learn's default, of columns in 0..1 or with variance 1, or 1 over the median of d².
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph

from benchmarks.machine import facts
from benchmarks.samplers import shown
from raymc.clusterers.kmeans import kmeans
from raymc.clusterers.spectral import eigenvectors, unit_rows
from raymc.datasets import load
from raymc.metrics import clustering_scores

Array = NDArray[np.float64]
PAPER = (0.724, 0.784)


def knn(x: Array, neighbours: int) -> Any:
    """1 between each other's nearest, 1/2 where one is."""
    graph = kneighbors_graph(x, neighbours)
    return (graph + graph.T) / 2


def rbf(x: Array, gamma: float | None) -> Array:
    """exp(-gamma d²); without `gamma` 1 over the median of d²."""
    squares: Array = pairwise_distances(x, metric="sqeuclidean")
    scale = 1 / np.median(squares) if gamma is None else gamma
    weights: Array = np.exp(-scale * squares)
    return weights


def standard(x: Array) -> Array:
    scaled: Array = (x - x.mean(0)) / x.std(0)
    return scaled


VARIANTS: dict[str, Callable[[Array], Any]] = {
    **{f"knn{k}": lambda x, k=k: knn(x, k) for k in (3, 5, 10, 20, 50)},  # type: ignore[misc]
    "knn10, columns standardised": lambda x: knn(standard(x), 10),
    "rbf 1, columns in 0..1": lambda x: rbf(x, 1.0),
    "rbf 1, columns standardised": lambda x: rbf(standard(x), 1.0),
    "rbf by the median": lambda x: rbf(x, None),
}


def scores(affinity: Any, y: NDArray[np.int64], seeds: int) -> dict[str, Any]:
    """ACC and NMI by seed, of rows of length 1 and as they are."""
    k = len(np.unique(y))
    columns = eigenvectors(affinity, k, 0)
    found: dict[str, Any] = {}
    for name, rows in {"unit rows": unit_rows(columns), "cuts": columns}.items():
        each = [clustering_scores(y, kmeans(rows, k, seed, 20)[0]) for seed in range(seeds)]
        found[name] = {metric: [one[metric] for one in each] for metric in ("acc", "nmi")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = load("pendigits").train
    assert data.y is not None
    x, y = data.x.double().numpy(), data.y.numpy()
    rows = {}
    for name in args.variants:
        rows[name] = scores(VARIANTS[name](x), y, args.seeds)
        if not args.json:
            for kind, found in rows[name].items():
                print(f"| {name} | {kind} | {shown(found['acc'])} | {shown(found['nmi'])} |", flush=True)
    if args.json:
        print(json.dumps({"machine": facts("cpu", torch.get_num_threads()), "paper": PAPER, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
