"""Short trainings of every kind, and how one is run on a device."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raymc.config import Config, Value, resolve
from raymc.datasets import Dataset, Split, load
from raymc.datasets.base import stored
from raymc.methods import METHODS
from raymc.methods.base import Facts, preset_values
from raymc.rng import generator
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import seeds_of

DIGITS = 144

SHORT: Mapping[str, Value] = {"epochs": 2, "batch_size": 64, "warmup_epochs": 0}
"""Of every stage that trains."""


@functools.cache
def digits() -> Dataset:
    return limit(load("digits"), DIGITS)


@functools.cache
def colour() -> Dataset:
    """32 and 8 colour images of 16 pixels in two classes."""
    draws = generator(0, "colour")
    splits = []
    for n in (32, 8):
        x = torch.randint(0, 128, (n, 3, 16, 16), generator=draws, dtype=torch.uint8)
        y = torch.arange(n) % 2
        x[y == 1] += 100
        splits.append(Split(x, y))
    return stored("colour", *splits, n_classes=2, split="all", source="the test's")


@functools.cache
def vectors() -> Dataset:
    """The digits as rows of 64 numbers."""
    found = digits()
    assert found.test is not None
    train, test = (Split(s.x.flatten(1).float() / 16, s.y) for s in (found.train, found.test))
    return stored("rows", train, test, n_classes=10, split="all", source="the digits")


def make_config(method: str, data: str, preset: str | None = None, **over: Value) -> Config:
    """A short training; names of keys with `__` for the dot."""
    of = METHODS[method]
    row = "own" if data in ("vectors", "colour") else data
    name = preset or (of.default_preset if row != "own" or method in ("plain", "turtle") else "own")
    values = dict(preset_values(of.presets[row][name], Facts.of(dataset_of(data))))
    trained = [stage for stage, settings in of.stage_settings.items() if settings.SETTABLE]
    small = {f"{stage}.{key}": value for stage in trained for key, value in SHORT.items()}
    small |= {f"{stage}.epochs": 0 for stage in trained if values.get(f"{stage}.epochs") == 0}
    small |= {"pre_feature_dim": 16, "feature_dim": 8, "evaluate_every": 1, "probe_views": 2}
    if method == "gcml":
        small |= {"finetune.start_epoch": 1, "finetune.anchor_epochs": 1, "finetune.continuation_epochs": 2}
    asked = {key.replace("__", "."): value for key, value in over.items()}
    return resolve(method, data, name, of.stage_settings, values, small, asked)


def dataset_of(data: str) -> Dataset:
    return {"digits": digits, "colour": colour, "vectors": vectors}[data]() if data != "double_spiral" else spiral()


@functools.cache
def spiral() -> Dataset:
    """A stream, of which an epoch is two batches."""
    return limit(load("double_spiral"), 128)


def train(config: Config, store: Path, out: Path, device: torch.device, **more: Any) -> dict[str, Any]:
    """The result of one training, as `metrics.json` has it; a few samples that fall into one cluster are no error."""
    seeds = seeds_of(tuple(METHODS[config.method].stage_settings), config.seed, 0, config.seeds_from)
    more = {"dataset": dataset_of(config.dataset), "keep_model": True, "keep_rows": True, "smoke": True} | more
    return run(config, storage=str(store), out=out, stage_seeds=seeds, device=device, **more)


Case = tuple[str, str, dict[str, Any]]
"""Method, data, and the keys that differ from `make_config`'s."""

EVALUATED = {"probes": True, "geometry": True, "downstream": True}
FEW = {"cluster_points": 100}
FIVE = {"heads__projection_iterations": 5}

CASES: dict[str, Case] = {
    "nmce": ("nmce", "digits", EVALUATED),
    "nmce on a stream": ("nmce", "double_spiral", {}),
    "nmce in channels_last": ("nmce", "colour", {"channels_last": True}),
    "nmce behind a bank": ("nmce", "digits", {"heads__feature_bank": 3, "finetune__epochs": 0}),
    "nmce on neighbours": (
        "nmce",
        "vectors",
        {"augment__neighbours": 3, "augment__noise": 0.1, "augment__dropout": 0.1, "heads__feature_bank": 3},
    ),
    "mlc": ("mlc", "digits", EVALUATED),
    "mlc, 5 half-steps": ("mlc", "digits", FIVE),
    "mlc, clusters to be found": ("mlc", "digits", {"n_clusters": "2..5"}),
    "mlc behind a bank": ("mlc", "digits", FIVE | {"heads__feature_bank": 3}),
    "mlc, two nets": ("mlc", "digits", FIVE | {"heads__cluster_net": "whole"}),
    **{
        f"mlc by {name}": ("mlc", "digits", {"clustering": name} | FEW)
        for name in ("membership", "ensc", "ssc_omp", "kmeans", "gmm", "spectral", "agglomerative", "hdbscan")
    },
    "gcml": ("gcml", "digits", EVALUATED),
    **{f"gcml, {name}": ("gcml", "digits", {"preset": name}) for name in ("published", "literal", "dec", "idec")},
    "gcml, k-means of a code": ("gcml", "digits", {"preset": "ae_kmeans", "finetune__epochs": 0}),
    "gcml, one update": ("gcml", "digits", {"finetune__alternating": False, "finetune__centers_by": "kmeans"}),
    "gcml on vectors": ("gcml", "vectors", {"finetune__centers_by": "tsne_mixture"}),
    **{
        f"plain {name}": ("plain", "vectors", {"preset": name} | FEW)
        for name in ("kmeans", "gmm", "spectral", "agglomerative", "hdbscan")
    },
    "turtle": ("turtle", "vectors", {}),
}


def case_config(name: str, **over: Value) -> Config:
    """In float64, so that no rounding decides a label; bare of what only a paper's size needs."""
    method, data, keys = CASES[name]
    return make_config(method, data, **({"precision": "float64"} | keys | over))
