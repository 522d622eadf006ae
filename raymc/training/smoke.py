"""Shortened trainings: `--smoke`, `n_samples`, and the single step that `raymc.check` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import torch

from raymc.bare_keys import Augment
from raymc.config import Config, StageConfig
from raymc.datasets import Dataset, Split
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, fit
from raymc.training.stages import Weights, check_sizes, clusters_of, dtype_of, enter, weights_of

STEP_ROWS = 8
LIGHT_ROWS, HEAVY_ROWS = 512, 64  # samples of a smoke run; heavy ones have more than 1000 numbers


def shorten(config: Config, dataset: Dataset) -> tuple[Config, Dataset]:
    """The same training with two short epochs a stage on few samples (`--smoke`)."""
    clusters = clusters_of(config, dataset)
    heavy = dataset.train.x[0].numel() > 1000
    rows = max(HEAVY_ROWS if heavy else LIGHT_ROWS, 2 * clusters)
    most = {"epochs": 2, "batch_size": max(64, clusters), "warmup_epochs": 0}
    most |= {"start_epoch": 1, "continuation_epochs": 2, "anchor_epochs": 1}
    stages = {name: _at_most(stage, most) for name, stage in config.stages.items()}
    few = limit(dataset, rows)
    config = dataclasses.replace(
        config,
        stages=MappingProxyType(stages),
        probe_views=min(config.probe_views, 2),
        augment=_augment_of(config, few),
    )
    return config, few


def _augment_of(config: Config, few: Dataset) -> Augment:
    """That of the configuration, with no more neighbours than there are among few samples."""
    return dataclasses.replace(config.augment, neighbours=min(config.augment.neighbours, len(few.train) - 1))


def _at_most(settings: StageConfig, most: Mapping[str, int]) -> StageConfig:
    """The settings with those of `most` that they have cut down to it."""
    now = vars(settings)
    return dataclasses.replace(settings, **{name: min(now[name], most[name]) for name in most.keys() & now.keys()})


def limit(dataset: Dataset, rows: int, test: bool = True) -> Dataset:
    """The dataset cut to `rows` samples drawn without labels; a stream keeps its source and a short epoch.

    Without `test` the held-out split stays whole.
    """

    def drawn(split: Split, names: tuple[str, ...] | None) -> tuple[Split, tuple[str, ...]]:
        order = torch.randperm(len(split.x), generator=torch.Generator().manual_seed(0))[:rows]
        return split.rows(order), tuple(str(row) if names is None else names[row] for row in order.tolist())

    train, names = drawn(dataset.train, dataset.samples)
    held, test_names = dataset.test, dataset.test_samples
    if test and held is not None:
        held, test_names = drawn(held, test_names)
    return dataclasses.replace(
        dataset,
        train=train,
        test=held,
        split=f"{dataset.split}, cut to {len(train)}",
        fingerprint=f"{dataset.fingerprint}/{rows}",
        epoch_size=min(dataset.epoch_size, rows),
        samples=names,
        test_samples=test_names,
    )


def limited(dataset: Dataset, config: Config) -> Dataset:
    """The dataset with `n_samples` of its training split, where the configuration says so."""
    some = config.n_samples
    return dataset if some is None or some >= len(dataset.train) else limit(dataset, some, test=False)


def one_step(config: Config, dataset: Dataset) -> None:
    """One step of every stage that trains, on a few samples on the CPU; nothing is stored.

    Raises what a training would: InputError, DivergedError.
    """
    method = METHODS[config.method]
    clusters = clusters_of(config, dataset)
    check_sizes(method, config, limited(dataset, config), clusters)
    stages = method.stages(config)
    # First centres need a point for each cluster.
    rows = max(STEP_ROWS, clusters) if any(stage.begin for stage in stages) else STEP_ROWS
    few = limit(dataset, rows)
    cpu, augment = torch.device("cpu"), _augment_of(config, few)
    feed = Feed.build(few, config.augmentation, cpu, dtype_of(config), False, Workers(), augment=augment)
    hooks = Hooks(report=lambda row: None, save=None, evaluate=None, evaluate_every=1)
    weights: Weights = {}
    for stage in stages:
        shape = tuple(few.train.x.shape[1:])
        model = enter(method, stage, config, shape, clusters, weights, config.seed)
        asked = config.stages[stage.name]
        if asked.epochs:
            settings = _at_most(asked, {"epochs": 1, "warmup_epochs": 0, "start_epoch": 0, "anchor_epochs": 0})
            settings = dataclasses.replace(settings, batch_size=rows)
            fit(model, stage, settings, feed, config.seed, hooks)
        weights = weights_of(model)
