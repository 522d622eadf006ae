"""One fit of another library, in the environment of `benchmarks/peers.txt`, for `benchmarks.peers`: no raymc here.

Every method has its library's defaults and is told the number of clusters where it takes one. DipDECK, SHADE, EVoC and
HDBSCAN find it themselves; `evoc_clusters` is EVoC told it. UMAP and HDBSCAN as UMAP's documentation has them for
clustering (30 neighbours, no least distance, 2 dimensions, 10 samples), with clusters of 1/140 of the rows at least:
500 of MNIST's 70,000 there. N2D's default t-SNE takes no more than 3 clusters: here it has UMAP with the settings of
N2D's paper (20 neighbours, no least distance).
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEEP = {"dec": "DEC", "idec": "IDEC", "n2d": "N2D", "vade": "VaDE", "shade": "SHADE", "dipdeck": "DipDECK"}


def deep(method: str, x: NDArray[np.float32], clusters: int, seed: int, smoke: bool) -> Any:
    """Labels by one of ClustPy's deep methods."""
    options: dict[str, Any] = {"random_state": seed, "device": "cpu"}
    if method not in ("shade", "dipdeck"):
        options["n_clusters"] = clusters
    if method == "n2d":
        umap = importlib.import_module("umap").UMAP
        settings = {"n_components": clusters, "n_neighbors": 20, "min_dist": 0.0}
        options |= {"manifold_class": umap, "manifold_params": settings}
    if smoke:
        options |= {"pretrain_epochs": 1} | ({} if method == "n2d" else {"clustering_epochs": 1})
    made = getattr(importlib.import_module("clustpy.deep"), DEEP[method])(**options)
    return made.fit(x).labels_


def evoc(x: NDArray[np.float32], clusters: int | None, seed: int) -> Any:
    return importlib.import_module("evoc").EVoC(approx_n_clusters=clusters, random_state=seed).fit_predict(x)


def umap_hdbscan(x: NDArray[np.float32], seed: int) -> Any:
    umap, hdbscan = importlib.import_module("umap"), importlib.import_module("hdbscan")
    flat = umap.UMAP(n_neighbors=30, min_dist=0.0, n_components=2, random_state=seed).fit_transform(x)
    return hdbscan.HDBSCAN(min_samples=10, min_cluster_size=max(5, len(x) // 140)).fit_predict(flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=(*DEEP, "evoc", "evoc_clusters", "umap_hdbscan"))
    parser.add_argument("data", help=".npz with x, float32 [n, d] in 0..1")
    parser.add_argument("clusters", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("labels", help=".npy that is written, int64 [n]; -1 is noise")
    parser.add_argument("--smoke", action="store_true", help="an epoch")
    args = parser.parse_args()
    x = np.load(args.data)["x"]
    if args.method in DEEP:
        found = deep(args.method, x, args.clusters, args.seed, args.smoke)
    elif args.method == "umap_hdbscan":
        found = umap_hdbscan(x, args.seed)
    else:
        found = evoc(x, args.clusters if args.method == "evoc_clusters" else None, args.seed)
    np.save(args.labels, np.asarray(found, np.int64))


if __name__ == "__main__":
    main()
