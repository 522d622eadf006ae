"""k-means on the samples that a method trains on: what every report shows beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from raymc.clusterers import chosen_rows
from raymc.clusterers.kmeans import CentreAssigner, kmeans
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.distributed import Workers
from raymc.metrics.labellings import agreement
from raymc.ops.blocks import in_blocks
from raymc.training.evaluate import scores
from raymc.training.feed import Feed
from raymc.training.inference import plain_inputs
from raymc.training.reference import reference_scores
from raymc.training.stages import clusters_of

STARTS = 20
"""Of k-means on a seed, as everywhere; fewer where they would cost more than `BUDGET`."""

BUDGET = 2_000_000_000
"""Starts times samples, columns and clusters on a seed: 7 starts of 20 clusters of 10,000 samples x 1,280 columns,
which took 4 to 10 s of one core's time."""


def kmeans_baseline(
    config: Config, dataset: Dataset, seeds: Sequence[int], smoke: bool = False, n_clusters: int | None = None
) -> dict[str, Any]:
    """k-means of the flat samples (images as pixels from 0 to 1) on each seed; at most `cluster_points` are clustered.

    `n_clusters` is their number; None: the configuration's.

    Returns JSON: what it was run on, for each of the seeds its `metrics` (`acc`, … with labels; `silhouette`, `probe`)
    and `seconds`, and `pairwise_ari` of the seeds' clusters (None for one seed). Raises InputError where the number of
    clusters is not known or above that of the samples.
    """
    now, cpu = facts(config, dataset, seeds, n_clusters), torch.device("cpu")
    count = now["n_clusters"]
    feeds = [Feed.build(dataset, by, cpu, torch.float32, False, Workers()) for by in ("none", config.augmentation)]
    rows = chosen_rows(config, len(dataset.train))
    points = plain_inputs(feeds[0], dataset.train.x[rows])
    starts = 1 if smoke else max(1, min(STARTS, BUDGET // max(1, points.numel() * count)))
    found, per_seed = [], []
    for seed in seeds:
        begun = time.monotonic()
        labels, centres = kmeans(points.numpy(), count, seed, starts)
        assigner = CentreAssigner(centres=torch.as_tensor(centres))
        whole = torch.as_tensor(labels)
        if len(rows) < len(dataset.train):
            whole = in_blocks(lambda x: assigner(feeds[0].plain(x).flatten(1), None), dataset.train.x)  # noqa: B023
        seconds = time.monotonic() - begun
        metrics = scores(dataset.train, whole) | reference_scores(dataset, feeds[1], whole)
        per_seed.append({"seed": seed, "metrics": metrics, "seconds": seconds})
        found.append(whole)
    return {
        **now,
        "n": len(dataset.train),
        "clustered": len(rows),
        "starts": starts,
        "per_seed": per_seed,
        "pairwise_ari": agreement(found),
    }


def facts(config: Config, dataset: Dataset, seeds: Sequence[int], n_clusters: int | None = None) -> dict[str, Any]:
    """What the figures of `kmeans_baseline` hang on, in what JSON can hold; `budget` decides its starts."""
    return {
        "method": "kmeans",
        "fingerprint": dataset.fingerprint,
        "n_clusters": clusters_of(config, dataset) if n_clusters is None else n_clusters,
        "cluster_points": config.cluster_points,
        "budget": BUDGET,
        "seeds": list(seeds),
    }
