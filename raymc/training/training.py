"""What the stages of one training share: samples, store, weights that are only read; and how one of them trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from raymc import datasets, provenance
from raymc.bare_keys import cluster_range
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.distributed import Workers, broadcast_object
from raymc.methods import METHODS
from raymc.methods.base import Method, Stage
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.rng import Seed, part
from raymc.storage.stage_store import Entry, Store
from raymc.training import evaluate, inference, snapshots
from raymc.training.feature_bank import Bank, BankedStage
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, Progress, Report, Row, fit
from raymc.training.precision import fastest_convolutions, on_device
from raymc.training.stages import (
    Weights,
    autocast_of,
    channels_last_of,
    check_sizes,
    clusters_of,
    compile_nets,
    digest_of,
    dtype_of,
    enter,
    place,
    uses_bank,
    weights_of,
)

ALONE = Workers()


def pick_device(asked: str | torch.device | None) -> torch.device:
    """The device asked for, else the current GPU, else the CPU."""
    if asked is not None:
        return torch.device(asked)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@dataclass(frozen=True)
class EndOfEpoch:
    """What a stage had at the end of an epoch, counted from 1: the weights that it changes, and its curve."""

    epoch: int
    weights: Weights
    curve: list[Row]


class Training:
    """What the stages of one training share."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        storage: str,
        seeds: dict[str, Seed],
        workers: Workers,
        device: str | torch.device | None,
        report: Report,
        smoke: bool,
    ) -> None:
        self.device = pick_device(device)
        self.config = config = on_device(config, self.device)
        self.dataset, self.seeds, self.smoke = dataset, seeds, smoke
        self.workers, self.report = workers, report
        self.method: Method = METHODS[config.method]
        self.n_clusters = clusters_of(config, dataset)
        check_sizes(self.method, config, dataset, self.n_clusters)
        self.dtype, self.autocast = dtype_of(config), autocast_of(config, self.device)
        self.store = Store(storage, wait=True)
        self.snapshots: dict[str, torch.Tensor] = {}
        self.banked: BankedStage | None = None
        self.read: str | None = None  # what the present stage only reads
        self.checkpoint: str | None = None  # from which the present weights come
        self.keep_interrupted = False  # whether the ends of epochs are remembered
        self.last_epoch: EndOfEpoch | None = None  # of the present stage
        self.waited = 0.0  # seconds, for another process to compute the present stage
        self.trained: float | None = None  # seconds of the present stage's training, over all sittings, where known
        self._earlier, self._begun = 0.0, 0.0  # of that in earlier sittings, and when this one began
        compiled = config.compile and self.device.type == "cuda"
        self.feed = Feed.build(
            dataset,
            config.augmentation,
            self.device,
            self.dtype,
            channels_last_of(config, self.device),
            workers,
            compiled,
            config.augment,
            self.store,
            self.autocast,
        )

    @property
    def leads(self) -> bool:
        return self.workers.rank == 0

    @property
    def cluster_seed(self) -> int:
        """The seed by which clusters are found where no head assigns: that of the last stage's initialisation."""
        return part(list(self.seeds.values())[-1], "initialisation")

    def enter(self, stage: Stage, weights: Weights) -> nn.ModuleDict:
        """The stage's modules as they are before it, see `stages.enter`."""
        shape = tuple(self.dataset.train.x.shape[1:])
        seed = self.seeds[stage.name]
        return enter(self.method, stage, self.config, shape, self.n_clusters, weights, seed)

    def begin(self, stage: Stage, model: nn.ModuleDict) -> None:
        """Take in a stage's modules as they enter it: what it only reads, and the bank by which it sees samples."""
        settings = self.config.stages[stage.name]
        self.last_epoch, self.trained = None, None
        self.read = digest_of({name: model[name] for name in stage.reads}) if stage.reads else None
        if uses_bank(settings):
            bank = Bank(model, self.config, settings, self.feed, self.store, self.autocast)
            self.banked = BankedStage(model, self.feed, bank)
        elif settings.epochs:
            self.banked = None

    def load(self, key: str, name: str = "result") -> Entry | None:
        """What the store has of the stage, if it is of the modules at hand.

        A result without what its stage only reads fits those weights alone, and stage 1 made again may have others.
        """
        entry = self.store.load(key, name)
        return None if entry is None or entry.meta.get("read", self.read) != self.read else entry

    def train(self, stage: Stage, model: nn.ModuleDict, key: str) -> list[Row]:
        """Bring the model to the stage's end and put the result into the store; its curve."""
        self._earlier, self._begun = 0.0, time.monotonic()
        place(model, self.config, self.device, self.dtype)
        for module in model.values():
            synchronise_batchnorm(module, self.workers.group)
        progress = broadcast_object(self._progress(key) if self.leads else None, self.workers.group)
        settings = self.config.stages[stage.name]
        banked = self.banked
        seen, feed = (banked.model, banked.feed) if banked else (model, self.feed)
        if self.config.compile:
            compile_nets(seen)
        hooks = self.hooks(stage, key)
        if self.keep_interrupted:
            hooks = replace(hooks, report=self._remember(stage, model))
        with fastest_convolutions(self.device):
            curve = fit(seen, stage, settings, feed, self.seeds[stage.name], hooks, self.autocast, progress)
        self.trained = self._spent
        if self.leads:
            self.publish(stage, model, key, curve)
        return curve

    def hooks(self, stage: Stage, key: str) -> Hooks:
        """What the loop tells and asks this training in `stage`."""
        # Where their number is to be found, it takes too long to be looked for in every few epochs.
        known = cluster_range(self.config.n_clusters) is None
        watched = stage.clusters and known and self.config.clustering in ("head", "membership")
        epochs = self.config.stages[stage.name].epochs
        moves = "encoder" not in stage.reads  # else all pictures of the embedding would be the same
        pictured = stage.clusters and not self.method.unit_rows and moves and self.leads
        return Hooks(
            report=self.report,
            save=(lambda at: self._save(key, at)) if self.leads else None,
            evaluate=self._scores if watched else None,
            evaluate_every=self.config.evaluate_every,
            on_epoch=(lambda model, epoch: self._snapshot(model, epoch, epochs)) if pictured else None,
        )

    def release_device(self, model: nn.ModuleDict) -> None:
        """Move the model to the CPU and forget what is on the device, for others to have its memory.

        `feed` has the samples on the CPU then, as evaluation sees them.
        """
        model.to("cpu")
        self.banked, cpu = None, torch.device("cpu")
        self.feed = Feed.build(self.dataset, self.config.augmentation, cpu, self.dtype, False, self.workers)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def publish(self, stage: Stage, model: nn.ModuleDict, key: str, curve: list[Row]) -> None:
        """Put the stage's result into the store, in place of its checkpoint."""
        meta: Row = {"stage": stage.name, "curve": curve, "scored": self._scored, "made": provenance.record()}
        meta |= {"checkpoint": self.checkpoint} if self.checkpoint else {}
        meta |= {"seconds": self.trained} if self.trained is not None else {}
        meta |= self.reads
        self.store.save(key, {"weights": self.changed(stage, model), "snapshots": self.snapshots}, meta)
        self.store.discard(key, "epoch")

    def changed(self, stage: Stage, model: nn.ModuleDict) -> Weights:
        """Of a stage's modules, those that it changes: what it only reads is in the result of the stage before."""
        frozen = self.config.stages[stage.name].frozen_statistics
        return weights_of(nn.ModuleDict({name: model[name] for name in (stage.trained if frozen else model)}))

    def _remember(self, stage: Stage, model: nn.ModuleDict) -> Report:
        """A report of the stage's rows that also keeps what the model is at the end of each epoch."""
        curve: list[Row] = []

        def report(row: Row) -> None:
            if row["event"] == "resumed":
                curve.extend(row["curve"])
            if row["event"] == "epoch":
                curve.append({key: value for key, value in row.items() if key != "event"})
            if curve:
                self.last_epoch = EndOfEpoch(row["epoch"], self.changed(stage, model), list(curve))
            self.report(row)

        return report

    def _snapshot(self, model: nn.ModuleDict, epoch: int, epochs: int) -> None:
        """Keep the embedding of some samples where the paper shows it."""
        if epoch in snapshots.snapshot_epochs(epochs):
            some = snapshots.snapshot_rows(len(self.dataset.train))
            found = inference.assign(self.method, model, self.feed, self.dataset.train.x[some])
            self.snapshots[str(epoch)] = found.z.cpu()

    def _progress(self, key: str) -> Progress | None:
        entry = self.load(key, "epoch")
        if entry is None:
            return None
        self.snapshots = dict(entry.state.get("snapshots", {}))
        self._earlier = float(entry.meta.get("seconds", 0.0))
        return Progress(entry.meta["epoch"], entry.state["weights"], entry.state["optimisers"], self.curve(entry.meta))

    def _save(self, key: str, at: Progress) -> None:
        state = {"weights": at.weights, "optimisers": at.optimisers, "snapshots": self.snapshots}
        meta = {"epoch": at.epoch, "curve": at.curve, "scored": self._scored, "seconds": self._spent}
        self.store.save(key, state, meta | self.reads, "epoch")

    @property
    def _spent(self) -> float:
        return self._earlier + time.monotonic() - self._begun

    @property
    def inputs(self) -> list[str]:
        """The keys of what the present stage reads from the store beside weights: features, neighbours, a bank."""
        near = self.feed.neighbours
        found = [*self.dataset.stored, near.key if near else "", self.banked.bank.key if self.banked else ""]
        return [key for key in found if key]

    @property
    def reads(self) -> dict[str, str]:
        """What a stored result says of the modules that its stage only reads."""
        return {"read": self.read} if self.read else {}

    @property
    def _scored(self) -> list[str | int]:
        """What the scores of a curve depend on, and the stage's weights do not."""
        scored: list[str | int] = [self.dataset.name, self.n_clusters, self.config.clustering]
        y = self.dataset.train.y
        # A known name stands for its labels; the user's own may change under the same one.
        return scored if self.config.own is None or y is None else [*scored, datasets.fingerprint(y)]

    def curve(self, meta: Mapping[str, Any]) -> list[Row]:
        """The curve of a stored stage, without the scores where they are of other labels, clusters or their finding."""
        if meta.get("scored") == self._scored:
            return list(meta["curve"])
        return [{k: v for k, v in row.items() if k not in evaluate.WATCHED_SCORES} for row in meta["curve"]]

    def _scores(self, model: nn.ModuleDict) -> dict[str, float]:
        data, feed = (self.banked.data, self.banked.feed) if self.banked else (self.dataset, self.feed)
        return evaluate.watched(self.method, model, self.config, data, feed, self.n_clusters, self.cluster_seed)
