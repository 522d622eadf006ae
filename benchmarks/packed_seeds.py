"""Seconds per epoch of several seeds of GCML, packed into one batched computation and one after another.

    python -m benchmarks.packed_seeds --json

`small` is the digits' net on 1,797 samples of 64 numbers, `large` that of the paper on 10,000 of 16 (as pendigits has).
The samples are drawn: times do not depend on them. Both ways train the same epochs with the project's own loop, in
alternation, and the least of `--repeats` counts; `ratio` above 1 says that packed is faster. Evaluation, the first
centres and the store are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from benchmarks.machine import facts
from raymc.config import Config, resolve
from raymc.datasets import Dataset
from raymc.datasets.base import Split, stored
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.stacked import PackedFeed, PackedUpdates
from raymc.training.stages import Weights, autocast_of, dtype_of, enter, place, prepare, weights_of

METHOD = METHODS["gcml"]
CLUSTERS = 10
SIZES = {"small": ("digits", 1797, 64), "large": ("pendigits", 10_000, 16)}


def samples(n: int, d: int) -> Dataset:
    """Ten blobs in `[n, d]`."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLUSTERS
    x = torch.randn(CLUSTERS, d, generator=generator)[y] + 0.3 * torch.randn(n, d, generator=generator)
    return stored("blobs", Split(x, y), None, n_classes=CLUSTERS, split="all", source="drawn")


def structured(dataset: str) -> Config:
    """The paper's settings, with every loss from the first epoch of fine-tuning on."""
    config = resolve("gcml", dataset, "tuned", METHOD.stage_settings, METHOD.presets[dataset]["tuned"])
    finetune = dataclasses.replace(config.stages["finetune"], start_epoch=0, anchor_epochs=0)
    return dataclasses.replace(config, stages=MappingProxyType({**config.stages, "finetune": finetune}))


class Case:
    """A stage of one size on one device; `weights` are those of the stage before, for all seeds."""

    def __init__(self, config: Config, data: Dataset, stage: Stage, weights: Weights, device: torch.device) -> None:
        self.config, self.data, self.stage, self.weights, self.device = config, data, stage, weights, device
        self.settings = config.stages[stage.name]
        self.dtype, self.autocast = dtype_of(config), autocast_of(config, device)
        self.feed = Feed.build(data, config.augmentation, device, self.dtype, False, Workers())

    def model(self, seed: int) -> nn.ModuleDict:
        shape = tuple(self.data.train.x.shape[1:])
        model = enter(METHOD, self.stage, self.config, shape, CLUSTERS, self.weights, seed)
        place(model, self.config, self.device, self.dtype)
        prepare(model, self.stage, True)
        return model

    def separate(self, seeds: int, epochs: int) -> float:
        """Seconds per epoch of all seeds, one after another."""
        seconds = 0.0
        for seed in range(seeds):
            updates = Updates(self.model(seed), self.stage, self.settings, self.feed.workers, self.autocast)
            seconds += self._seconds(updates, self.feed, seed, epochs)
        return seconds

    def packed(self, seeds: int, epochs: int) -> float:
        """Seconds per epoch of all seeds together."""
        models = [self.model(seed) for seed in range(seeds)]
        updates = PackedUpdates(models, self.stage, [self.settings] * seeds, self.feed, self.autocast, shared=False)
        return self._seconds(updates, PackedFeed.of(self.feed, range(seeds)), 0, epochs)

    def _seconds(self, updates: Updates, feed: Feed, seed: int, epochs: int) -> float:
        train_epoch(updates, feed, seed, 1)  # sets up the optimisers and warms up
        self._wait()
        begun = time.perf_counter()
        for epoch in range(2, 2 + epochs):
            train_epoch(updates, feed, seed, epoch)
        self._wait()
        return (time.perf_counter() - begun) / epochs

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def rows(size: str, most: int, epochs: int, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """One row per stage and number of seeds."""
    dataset, n, d = SIZES[size]
    config, data = structured(dataset), samples(n, d)
    found = []
    weights: Weights = {}
    for stage in METHOD.stages(config):
        case = Case(config, data, stage, weights, device)
        for seeds in range(1, most + 1):
            times = [(case.packed(seeds, epochs), case.separate(seeds, epochs)) for _ in range(repeats)]
            packed, separate = (min(column) for column in zip(*times, strict=True))
            row = {"size": size, "stage": stage.name, "seeds": seeds, "packed_s": packed, "separate_s": separate}
            found.append(row | {"ratio": separate / packed})
        weights = weights_of(case.model(0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine, device = facts(args.device, args.threads), torch.device(args.device)
    found = [row for size in args.sizes for row in rows(size, args.seeds, args.epochs, args.repeats, device)]
    if args.json:
        print(json.dumps({"machine": machine, "rows": found}, indent=1))
        return
    for one in found:
        print("  ".join(f"{name} {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in one.items()))


if __name__ == "__main__":
    main()
