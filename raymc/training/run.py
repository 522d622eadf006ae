"""One training: the stages of a method from the store or computed, then evaluation and output files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raymc import datasets, provenance
from raymc.config import Config
from raymc.datasets import Dataset
from raymc.distributed import Workers, barrier, broadcast_object, synchronise_batchnorm
from raymc.errors import CollapsedError, DeviceMemoryError, InputError
from raymc.methods import METHODS
from raymc.methods.base import Method, Stage
from raymc.rng import Seed, part
from raymc.storage.lease import Lease
from raymc.storage.stage_store import Entry, Store
from raymc.training import checkpoint, evaluate
from raymc.training.feature_bank import Bank, Behind
from raymc.training.feed import Feed
from raymc.training.finish import finish
from raymc.training.loop import Hooks, Progress, Report, Row, fit
from raymc.training.smoke import limited, shorten
from raymc.training.stages import (
    Weights,
    autocast_of,
    check_sizes,
    clusters_of,
    compile_nets,
    digest_of,
    dtype_of,
    enter,
    place,
    stage_facts,
    stage_key,
    uses_bank,
    weights_of,
)

POLL_SECONDS = 0.5
ALONE = Workers()


def run(
    config: Config,
    *,
    storage: str,
    out: Path,
    stage_seeds: Mapping[str, Seed],
    data: str | None = None,
    workers: Workers = ALONE,
    device: str | torch.device | None = None,
    report: Report = lambda row: None,
    start_from: str | None = None,
    smoke: bool = False,
    keep_model: bool = False,
    made: dict[str, float] | None = None,
) -> Row:
    """Train `config`, leave the results in `out` and return the content of `metrics.json`.

    Args:
        storage: folder or URI of the stage store.
        stage_seeds: the seed of each stage, see `stages.seeds_of`.
        data: the datasets' folder; None: RAYMC_DATA or the user's cache folder.
        report: called with rows `{"event": "epoch" | "stage" | "done", …}` on every worker.
        start_from: take the stages before this one from the store and compute this and later ones anew.
        smoke: shorten every length and mark the results.
        keep_model: also leave `model.pt`.
        made: seconds of stages, by key, that a pack has just computed: they count as computed by who asks first, and
            are taken out.

    Raises InputError, DivergedError, CollapsedError, DeviceMemoryError.
    """
    dataset = limited(datasets.load_once(config, data), config)
    if smoke:
        config, dataset = shorten(config, dataset)
    try:
        return Training(config, dataset, storage, dict(stage_seeds), workers, device, report, smoke).run(
            out, start_from, keep_model, made or {}
        )
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"the device ran out of memory: {error}") from error


def pick_device(asked: str | torch.device | None) -> torch.device:
    """The device asked for, else the current GPU, else the CPU."""
    if asked is not None:
        return torch.device(asked)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


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
        self.config, self.dataset, self.seeds, self.smoke = config, dataset, seeds, smoke
        self.workers, self.report = workers, report
        self.method: Method = METHODS[config.method]
        self.n_clusters = clusters_of(config, dataset)
        check_sizes(self.method, config, dataset, self.n_clusters)
        self.device = pick_device(device)
        self.dtype, self.autocast = dtype_of(config), autocast_of(config, self.device)
        self.store = Store(storage, wait=True)
        self.snapshots: dict[str, torch.Tensor] = {}
        self.behind: Behind | None = None
        self.read: str | None = None  # what the present stage only reads
        self.checkpoint: str | None = None  # from which the present weights come
        compiled = config.compile and self.device.type == "cuda"
        self.feed = Feed.build(
            dataset, config.augmentation, self.device, self.dtype, config.channels_last, workers, compiled
        )

    @property
    def leads(self) -> bool:
        return self.workers.rank == 0

    @property
    def cluster_seed(self) -> int:
        """The seed by which clusters are found where no head assigns: that of the last stage's initialisation."""
        return part(list(self.seeds.values())[-1], "initialisation")

    def run(self, out: Path, start_from: str | None, keep_model: bool, made: dict[str, float]) -> Row:
        started = time.monotonic()
        weights: Weights = {}
        key: str | None = None
        records: list[Row] = []
        curve: list[Row] = []
        anew = start_from is None
        for stage in self.method.stages(self.config):
            begins = stage.name == start_from
            anew = anew or begins
            model = self.enter(stage, weights)
            seed = self.seeds[stage.name]
            self.begin(stage, model)
            key = stage_key(stage, self.config, model, self.dataset.fingerprint, seed, key)
            begun = time.monotonic()
            rows, cached = self.obtain(stage, model, key, seed, anew=start_from is not None and anew, needed=not anew)
            weights = weights_of(model)
            packed = made.pop(key, None)
            cached = cached and packed is None
            record = {
                "name": stage.name,
                "epochs": self.config.stages[stage.name].epochs,
                "cached": cached,
                "seconds": time.monotonic() - begun if packed is None else packed,
                "key": key,
                **({"checkpoint": self.checkpoint} if self.checkpoint else {}),
            }
            records.append(record)
            curve += [row | {"cached": cached} for row in rows]
            self.report({"event": "stage", **record})
        if self.behind:
            _ = self.behind.data  # by all workers: the first one evaluates alone
        result = finish(self, model, out, records, curve, keep_model) if self.leads else None
        result = broadcast_object(result, self.workers.group)
        assert result is not None
        if result["metrics"]["clusters_used"] < 2 and not self.smoke:
            raise CollapsedError("all points fell into one cluster")
        self.report({"event": "done", "metrics": result["metrics"], "seconds": time.monotonic() - started})
        return result

    def enter(self, stage: Stage, weights: Weights) -> nn.ModuleDict:
        """The stage's modules as they are before it, see `stages.enter`."""
        shape = tuple(self.dataset.train.x.shape[1:])
        seed = self.seeds[stage.name]
        return enter(self.method, stage, self.config, shape, self.n_clusters, weights, seed)

    def begin(self, stage: Stage, model: nn.ModuleDict) -> None:
        """Take in a stage's modules as they enter it: what it only reads, and the bank by which it sees samples."""
        settings = self.config.stages[stage.name]
        self.read = digest_of({name: model[name] for name in stage.reads}) if stage.reads else None
        if uses_bank(settings):
            bank = Bank(model, self.config, settings, self.feed, self.store, self.autocast)
            self.behind = Behind(model, self.feed, bank)
        elif settings.epochs:
            self.behind = None

    def load(self, key: str, name: str = "result") -> Entry | None:
        """What the store has of the stage, if it is of the modules at hand.

        A result without what its stage only reads fits those weights alone, and stage 1 made again may have others.
        """
        entry = self.store.load(key, name)
        return None if entry is None or entry.meta.get("read", self.read) != self.read else entry

    def obtain(
        self, stage: Stage, model: nn.ModuleDict, key: str, seed: Seed, *, anew: bool, needed: bool
    ) -> tuple[list[Row], bool]:
        """Bring the model to the stage's end, from the store or by training; its curve, and whether it was stored."""
        if self.config.stages[stage.name].epochs == 0:
            place(model, self.config, self.device, self.dtype)
            return [], False
        lease = self.store.lease(key) if self.leads else None
        entry = self._found(stage, model, key, seed, lease, anew, needed) if lease is not None else None
        entry = broadcast_object(entry, self.workers.group)
        if isinstance(entry, InputError):
            raise entry
        if entry is not None:
            for name, state in entry.state["weights"].items():
                model[name].load_state_dict(state, strict=True)
            place(model, self.config, self.device, self.dtype)
            self.snapshots = dict(entry.state.get("snapshots", {}))
            self.checkpoint = entry.meta.get("checkpoint")
            return self._curve(entry.meta), True
        with lease or contextlib.nullcontext():
            curve = self._train(stage, model, key, seed)
        barrier(self.workers.group)
        return curve, False

    def _found(
        self, stage: Stage, model: nn.ModuleDict, key: str, seed: Seed, lease: Lease, anew: bool, needed: bool
    ) -> Entry | InputError | None:
        """The result, from the store or a checkpoint; None once the lease is ours; what every worker has to raise."""
        if anew:
            return self._wait(key, lease, anew)
        try:
            return self.load(key) or self._import(stage, model, key, seed, needed) or self._wait(key, lease, anew)
        except InputError as error:
            return error

    def _import(self, stage: Stage, model: nn.ModuleDict, key: str, seed: Seed, needed: bool) -> Entry | None:
        """A checkpoint's result, put into the store. Raises InputError where it is `needed` and none has it."""
        entry = checkpoint.load(key, self._changed(stage, model), {name: model[name] for name in stage.reads})
        if entry is not None:
            # From now on it belongs to the weights that it was put beside.
            entry = Entry(entry.state, entry.meta | self._reads)
            self.store.save(key, entry.state, entry.meta)
        elif needed:
            facts = stage_facts(stage, self.config, model, self.dataset.fingerprint, seed, None)
            near = checkpoint.unlike(stage.name, self.dataset.name, facts)
            raise InputError(
                f"stage {stage.name} of this configuration is not in the store: train without --from first{near}"
            )
        return entry

    def _wait(self, key: str, lease: Lease, anew: bool) -> Entry | None:
        """The stored result, waiting while another process computes it; None once the lease is ours."""
        while True:
            entry = None if anew else self.load(key)
            if entry is not None:
                return entry
            if lease.try_acquire():
                # It may have been published between the look and the lease.
                entry = None if anew else self.load(key)
                if entry is not None:
                    lease.release()
                return entry
            time.sleep(POLL_SECONDS)

    def _train(self, stage: Stage, model: nn.ModuleDict, key: str, seed: Seed) -> list[Row]:
        place(model, self.config, self.device, self.dtype)
        for module in model.values():
            synchronise_batchnorm(module, self.workers.group)
        progress = broadcast_object(self._progress(key) if self.leads else None, self.workers.group)
        settings = self.config.stages[stage.name]
        behind = self.behind
        seen, feed = (behind.model, behind.feed) if behind else (model, self.feed)
        if self.config.compile:
            compile_nets(seen)
        curve = fit(seen, stage, settings, feed, seed, self.hooks(stage, key), self.autocast, progress)
        if self.leads:
            self.publish(stage, model, key, curve)
        return curve

    def hooks(self, stage: Stage, key: str) -> Hooks:
        """What the loop tells and asks this training in `stage`."""
        watched = stage.clusters and self.config.clustering in ("head", "membership")
        epochs = self.config.stages[stage.name].epochs
        looks = stage.clusters and not self.method.unit_rows and self.leads
        return Hooks(
            report=self.report,
            save=(lambda at: self._save(key, at)) if self.leads else None,
            evaluate=self._scores if watched and self.leads else None,
            evaluate_every=self.config.evaluate_every,
            look=(lambda model, epoch: self._look(model, epoch, epochs)) if looks else None,
        )

    def publish(self, stage: Stage, model: nn.ModuleDict, key: str, curve: list[Row]) -> None:
        """Put the stage's result into the store, in place of its checkpoint."""
        meta = {"stage": stage.name, "curve": curve, "scored": self._scored, "made": provenance.made()}
        meta |= {"checkpoint": self.checkpoint} if self.checkpoint else {}
        meta |= self._reads
        self.store.save(key, {"weights": self._changed(stage, model), "snapshots": self.snapshots}, meta)
        self.store.discard(key, "epoch")

    def _changed(self, stage: Stage, model: nn.ModuleDict) -> Weights:
        """Of a stage's modules, those that it changes: what it only reads is in the result of the stage before."""
        frozen = self.config.stages[stage.name].frozen_statistics
        return weights_of(nn.ModuleDict({name: model[name] for name in (stage.trained if frozen else model)}))

    def _look(self, model: nn.ModuleDict, epoch: int, epochs: int) -> None:
        """Keep the embedding of some samples where the paper shows it."""
        if epoch in evaluate.snapshot_epochs(epochs):
            some = evaluate.snapshot_rows(len(self.dataset.train))
            _, z = evaluate.assign(self.method, model, self.feed, self.dataset.train.x[some])
            self.snapshots[str(epoch)] = z

    def _progress(self, key: str) -> Progress | None:
        entry = self.load(key, "epoch")
        if entry is None:
            return None
        self.snapshots = dict(entry.state.get("snapshots", {}))
        return Progress(entry.meta["epoch"], entry.state["weights"], entry.state["optimisers"], self._curve(entry.meta))

    def _save(self, key: str, at: Progress) -> None:
        state = {"weights": at.weights, "optimisers": at.optimisers, "snapshots": self.snapshots}
        meta = {"epoch": at.epoch, "curve": at.curve, "scored": self._scored}
        self.store.save(key, state, meta | self._reads, "epoch")

    @property
    def _reads(self) -> dict[str, str]:
        """What a stored result says of the modules that its stage only reads."""
        return {"read": self.read} if self.read else {}

    @property
    def _scored(self) -> list[str | int]:
        """What the scores of a curve depend on, and the stage's weights do not."""
        scored: list[str | int] = [self.dataset.name, self.n_clusters, self.config.clustering]
        y = self.dataset.train.y
        # A known name stands for its labels; the user's own may change under the same one.
        return scored if self.config.own is None or y is None else [*scored, datasets.fingerprint(y)]

    def _curve(self, meta: Mapping[str, Any]) -> list[Row]:
        """The curve of a stored stage, without the scores where they are of other labels, clusters or their finding."""
        if meta.get("scored") == self._scored:
            return list(meta["curve"])
        return [{k: v for k, v in row.items() if k not in evaluate.WATCHED_SCORES} for row in meta["curve"]]

    def _scores(self, model: nn.ModuleDict) -> dict[str, float]:
        data, feed = (self.behind.data, self.behind.feed) if self.behind else (self.dataset, self.feed)
        return evaluate.watched(self.method, model, self.config, data, feed, self.n_clusters, self.cluster_seed)
