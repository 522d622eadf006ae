"""GCML's preset `own` beside k-means: seconds of the processor and accuracy on rows of Gaussian clusters.

    python -m benchmarks.gcml_own                             # 5,000 x 64 and 150 x 4, a minute
    python -m benchmarks.gcml_own --rows 20000 --columns 16 --json

A training from the samples to the labels, with nothing in the store. Seconds are those of this process over all of its
threads, so that other programs on the machine count little; on a machine at rest it takes no longer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_blobs

from benchmarks.machine import facts
from raymc.clusterers.kmeans import kmeans
from raymc.metrics import clustering_scores
from raymc.space.sized import sized
from raymc.space.space import load_space
from raymc.training.features.data import Setting
from raymc.training.run import run
from raymc.training.stages import seeds_of

CLUSTERS, SPREAD, SEED = 10, 6.0, 100
SIZES = ((5_000, 64), (150, 4))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it gives."""
    begun = time.process_time()
    found = function()
    return time.process_time() - begun, found


def train(x: NDArray[np.float32], y: NDArray[np.int64], device: str) -> dict[str, Any]:
    """`metrics.json` of a training with the preset `own`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(folder / "rows.npz", x=x, y=y)
        (folder / "rows.yaml").write_text("method: gcml\ndataset: {path: rows.npz}\npreset: own\n", encoding="utf-8")
        space = sized(load_space(folder / "rows.yaml"), None, Setting(place))
        seeds = seeds_of(tuple(space.stage_settings), SEED, 0, None)
        config = space.config({"seed": SEED})
        return run(config, storage=place, out=folder / "out", stage_seeds=seeds, device=device, keep_rows=True)


def row(n: int, d: int, device: str) -> dict[str, Any]:
    """One size: seconds and accuracy of both, and what of GCML's went into which stage."""
    x, y, _ = make_blobs(
        n, d, centers=CLUSTERS if n > 1_000 else 3, cluster_std=SPREAD, random_state=0, return_centers=True
    )
    x, y = x.astype(np.float32), y.astype(np.int64)
    standard = (x - x.mean(0)) / x.std(0)
    k = int(y.max()) + 1
    plain, (labels, _) = timed(lambda: kmeans(standard, k, SEED))
    own, result = timed(lambda: train(x, y, device))
    return {
        "n": n,
        "d": d,
        "kmeans_cpu_seconds": plain,
        "kmeans_acc": clustering_scores(y, labels)["acc"],
        "gcml_cpu_seconds": own,
        "gcml_acc": result["metrics"]["acc"],
        "epochs": {stage["name"]: stage["epochs"] for stage in result["stages"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = facts(args.device, args.threads)
    rows = [row(n, d, args.device) for n, d in ([(args.rows, args.columns)] if args.rows else SIZES)]
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    for one in rows:
        print(
            "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in one.items()
            )
        )


if __name__ == "__main__":
    main()
