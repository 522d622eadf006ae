"""k-means beside a study's winner or a run of `stability`: computed once, kept as `baseline.json` in its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from raymc.atomic import write_json
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.space.space import Space
from raymc.study.files import load_json
from raymc.study.manifest import load_data
from raymc.study.reader import read_study, winner
from raymc.study.records import Row
from raymc.training.baseline import facts, kmeans_baseline

FILE = "baseline.json"

MANY = 10_000_000
"""Numbers in the samples from which k-means is waited for."""


def read_baseline(folder: Path) -> Row | None:
    """The record in a folder; None where there is none, as in studies of before, or a torn one."""
    found = load_json(folder / FILE)
    return found if found is not None and found.get("per_seed") else None


def keep_baseline(folder: Path, config: Config, dataset: Dataset, seeds: Sequence[int], smoke: bool) -> None:
    """Leave the record of k-means on these samples and seeds, unless it is there or k-means is what was run.

    Where it cannot be computed a line says why: the figures of the method do not hang on it.
    """
    if not seeds or (config.method == "plain" and config.clustering == "kmeans"):
        return
    try:
        now = {**facts(config, dataset, seeds), "smoke": smoke}
        before = read_baseline(folder)
        if before is None or any(before.get(key) != value for key, value in now.items()):
            if dataset.train.x.numel() > MANY:
                print(f"k-means on the same samples, {len(seeds)} seeds", file=sys.stderr, flush=True)
            write_json(folder / FILE, now | kmeans_baseline(config, dataset, seeds, smoke))
    except InputError as error:
        print(f"raymc: no k-means beside it: {error}", file=sys.stderr)


def keep_studys_baseline(folder: Path, manifest: Row, space: Space, data: str, storage: str) -> None:
    """The same for a study's winner: on its samples, its number of clusters and the seeds of the confirmation."""
    best = winner(read_study(folder))
    if best is None:
        return
    params = {key: value for key, value in best.params.items() if key in space.params}
    seeds = manifest["confirm"]["seeds"] or manifest["seeds"]
    try:
        dataset = load_data(space, data, storage, manifest["smoke"], params)
    except InputError as error:
        print(f"raymc: no k-means beside it: {error}", file=sys.stderr)
        return
    keep_baseline(folder, space.config(params=params), dataset, seeds, manifest["smoke"])
