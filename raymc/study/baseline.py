"""k-means beside a study's winner or a run of `stability`: computed once, kept as `baseline.json` in its folder."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from raymc.atomic import write_json
from raymc.bare_keys import cluster_range
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.errors import InputError
from raymc.space.space import Space
from raymc.study.files import load_json
from raymc.study.manifest import load_data
from raymc.study.reader import confirmation_of, read_study, winner
from raymc.study.records import FINISHED, Row, SeedRun
from raymc.training.baseline import facts, kmeans_baseline

FILE = "baseline.json"

MANY = 10_000_000
"""Numbers in the samples from which k-means is waited for."""


def read_baseline(folder: Path) -> Row | None:
    """The record in a folder; None where there is none, as in studies of before, or a torn one."""
    found = load_json(folder / FILE)
    return found if found is not None and found.get("per_seed") else None


def keep_baseline(
    folder: Path, config: Config, dataset: Dataset, seeds: Sequence[int], smoke: bool, runs: Sequence[SeedRun] = ()
) -> None:
    """Leave the record of k-means on these samples and seeds, unless it is there or k-means is what was run.

    It has the number of clusters of the configuration, whose seeds' `runs` say it where it was looked for. Where it
    cannot be computed a line says why: the figures of the method do not hang on it.
    """
    if not seeds or (config.method == "plain" and config.clustering == "kmeans"):
        return
    count = clusters_found(runs)
    if count is None and cluster_range(config.n_clusters):
        return  # no seed has come to an end
    try:
        now = {**facts(config, dataset, seeds, count), "smoke": smoke}
        before = read_baseline(folder)
        if before is None or any(before.get(key) != value for key, value in now.items()):
            if dataset.train.x.numel() > MANY:
                print(f"k-means on the same samples, {len(seeds)} seeds", file=sys.stderr, flush=True)
            write_json(folder / FILE, now | kmeans_baseline(config, dataset, seeds, smoke, count))
    except InputError as error:
        print(f"raymc: no k-means beside it: {error}", file=sys.stderr)


def clusters_found(runs: Sequence[SeedRun]) -> int | None:
    """The median, as one of them has it, of the numbers of clusters that finished seeds found; None: it was given."""
    found = [run.metrics["clusters_found"] for run in runs if run.state == FINISHED and "clusters_found" in run.metrics]
    return int(statistics.median_low(found)) if found else None


def keep_studys_baseline(folder: Path, manifest: Row, space: Space, data: str, storage: str) -> None:
    """The same for a study's winner: on its samples, its number of clusters and the seeds of the confirmation."""
    study = read_study(folder)
    best = winner(study)
    if best is None:
        return
    params = {key: value for key, value in best.params.items() if key in space.params}
    seeds = manifest["confirm"]["seeds"] or manifest["seeds"]
    try:
        dataset = load_data(space, data, storage, manifest["smoke"], params)
    except InputError as error:
        print(f"raymc: no k-means beside it: {error}", file=sys.stderr)
        return
    confirmed = confirmation_of(study, best.trial)
    runs = confirmed.finished if confirmed is not None and confirmed.finished else best.finished
    keep_baseline(folder, space.config(params=params), dataset, seeds, manifest["smoke"], runs)
