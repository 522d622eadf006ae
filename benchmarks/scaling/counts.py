"""Counted exactly, by running the code: FLOP, kernels, bytes between workers, bytes on disk.

FLOP and kernels come from one real update (loss, backward, optimiser) on meta tensors, which have shapes and no
numbers; its batch is made there as for a GPU, whose kernels count and whose FLOP do not. The bytes between workers come
from one real update on the CPU, with a tally in place of torch.distributed.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.drawn_bank import DrawnBank
from raymc import distributed as dist
from raymc.config import Config, StageConfig, resolve
from raymc.datasets.base import Split, stored
from raymc.distributed import GradientAverage, Workers
from raymc.methods import METHODS
from raymc.methods.base import Batch, Stage, preset_values, trained_parameters
from raymc.nets import backbone_width
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.storage.stage_store import Store
from raymc.training.feature_bank import BankFeed
from raymc.training.feed import Feed
from raymc.training.loop import Updates
from raymc.training.stages import Weights, enter, prepare, weights_of

IMAGE = (3, 32, 32)
IMAGES = 50_000
"""Of CIFAR's training split."""

CLUSTERS = 20
POOL = 512
"""Width of the pooled features of ResNet-18 and 34, which a feature bank holds."""

BFLOAT16_BYTES = 2


@dataclass(frozen=True)
class StageCounts:
    """What one step of a stage takes, of all workers together.

    Attributes:
        flop: multiplications and additions of the matrix products and convolutions, forward and backward.
        kernels: operations that a GPU is asked for, to make the batch (of `making` of them) and for the update;
            those left out that start nothing. Without autocast's casts, compilation or graph capture.
        trained: parameters with a gradient, of `parameters` in all.
    """

    stage: str
    epochs: int
    batch: int
    views: int
    flop: int
    kernels: int
    parameters: int
    trained: int
    making: int = 0

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return IMAGES // self.batch

    @property
    def flop_per_epoch(self) -> float:
        """Of all 50,000 images, those of the last, unfilled batch included."""
        return self.flop * IMAGES / self.batch


@dataclass(frozen=True)
class Traffic:
    """Bytes that one worker hands to the collectives of a step: all-reduced ones by purpose, and gathered ones.

    `gathered` are those of all workers' rows together, and of their gradients on the way back (reduce-scatter, of which
    a ring sends as much); `collectives` the calls.
    """

    gradients: int
    covariances: int
    batchnorm: int
    gathered: int
    collectives: int

    @property
    def reduced(self) -> int:
        return self.gradients + self.covariances + self.batchnorm


def ring_bytes(traffic: Traffic, workers: int | float) -> float:
    """Bytes that a worker sends in a step by ring all-reduce (2 (N-1)/N of the buffer) and all-gather ((N-1)/N)."""
    return (1 - 1 / workers) * (2 * traffic.reduced + traffic.gathered)


def preset(method: str, dataset: str, name: str) -> Config:
    """The configuration of a preset."""
    return resolve(
        method, dataset, name, METHODS[method].stage_settings, preset_values(METHODS[method].presets[dataset][name])
    )


def models(config: Config, image: tuple[int, ...] = IMAGE) -> Iterator[tuple[Stage, nn.ModuleDict]]:
    """Each stage with its untrained modules, as a training of samples of shape `image` enters it."""
    weights: Weights = {}
    for stage in METHODS[config.method].stages(config):
        model = enter(METHODS[config.method], stage, config, image, CLUSTERS, weights, 0)
        weights = weights_of(model)
        prepare(model, stage, config.stages[stage.name].frozen_statistics)
        yield stage, model


def count_stages(config: Config, bank: bool = False) -> tuple[StageCounts, ...]:
    """The counts of every stage; with `bank`, stages with a frozen backbone start from its pooled features."""
    return tuple(_count(config, stage, model, bank and "backbone" in stage.reads) for stage, model in models(config))


def _count(config: Config, stage: Stage, model: nn.ModuleDict, pooled: bool) -> StageCounts:
    settings = config.stages[stage.name]
    parameters, trained = _size(model.parameters()), _size(trained_parameters(model, stage.trained))
    if pooled:
        model["backbone"] = nn.Identity()
    model.to("meta")
    batches = _feed(config, settings, pooled).epoch(stage.name, 0, 0, settings.batch_size, settings.augmentations)
    kernels = Kernels()  # type: ignore[no-untyped-call]
    with _on_meta(kernels):
        updates = Updates(model, stage, settings, Workers(), None)
        updates.make(stage.step, next(batches))  # the epoch's order and the optimiser's state are made here, once
        kernels.count = 0
        with kernels:
            batch = next(batches)
        making = kernels.count
        with FlopCounterMode(display=False) as flop, kernels:  # in this order: the former takes some operations apart
            updates.make(stage.step, batch)
    size = (settings.epochs, settings.batch_size, settings.augmentations)
    return StageCounts(stage.name, *size, flop.get_total_flops(), kernels.count, parameters, trained, making)


def _feed(config: Config, settings: StageConfig, pooled: bool) -> Feed:
    """Two batches of zeros on the meta device, as images or, `pooled`, as a bank's features."""
    images = Split(torch.zeros(2 * settings.batch_size, *IMAGE, dtype=torch.uint8), None)
    data = stored("zeros", images, None, n_classes=CLUSTERS, split="all", source="none")
    feed = Feed.build(data, config.augmentation, torch.device("meta"), torch.float32, False, Workers())
    if not pooled:
        return feed
    outputs = torch.zeros(len(images), backbone_width(config.backbone, IMAGE), dtype=torch.bfloat16)
    features = replace(data, train=Split(outputs.float(), None))
    return BankFeed.of(feed, DrawnBank(features, (outputs,) * settings.augmentations))


def forward_flop(config: Config) -> int:
    """Of the backbone for one image, without gradient."""
    _, model = next(models(config))
    backbone = model["backbone"].to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as flop:
        backbone(torch.empty(1, *IMAGE, device="meta"))
    return int(flop.get_total_flops())


class Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that a GPU, for which the meta device stands, would be given something to do by."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        touched = (one for one in tree_leaves((args, kwargs, found)) if isinstance(one, Tensor))
        self.count += _starts(func) and any(one.is_meta for one in touched)
        return found

    def fused(self, *args: Any, **settings: Any) -> None:
        """In place of torch's fused SGD, which meta tensors have not: one operation."""
        self.count += 1


def _starts(func: Any) -> bool:
    """Whether an operation does anything: views do not, nor does memory that is only asked for."""
    name = func._schema.name.removeprefix("aten::")
    return not func.is_view and name != "_unsafe_view" and "empty" not in name.split("_")


def _no_autocast() -> Any:
    """Meta tensors know no autocast, not even a disabled one; it would not change what is counted."""
    return mock.patch("torch.autocast", lambda *words, **settings: nullcontext())


@contextmanager
def _on_meta(kernels: Kernels) -> Iterator[None]:
    """Nor do they know fused optimisers: LARS's is counted as one operation, SGD is counted as it is without."""
    plain = torch.optim.SGD
    with (
        _no_autocast(),
        mock.patch.object(torch, "_fused_sgd_", kernels.fused),
        mock.patch.object(torch.optim, "SGD", lambda *args, fused, **settings: plain(*args, **settings)),
    ):
        yield


def _size(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


class Tally:
    """In place of torch.distributed: counts what is handed in, and answers as if all workers held the same rows."""

    def __init__(self, workers: int) -> None:
        self.workers, self.reduced, self.gathered, self.calls = workers, 0, 0, 0

    def get_rank(self, group: Any) -> int:
        return 0

    def get_world_size(self, group: Any) -> int:
        return self.workers

    def all_reduce(self, x: Tensor, group: Any, async_op: bool = False) -> Tally:
        self.reduced += x.nbytes
        self.calls += 1
        x *= self.workers
        return self

    def wait(self) -> None:
        """What is asked for is there at once."""

    def all_gather_into_tensor(self, whole: Tensor, x: Tensor, group: Any) -> None:
        self.gathered += whole.nbytes
        self.calls += 1
        whole.copy_(x.repeat(self.workers, *[1] * (x.dim() - 1)))

    def reduce_scatter_tensor(self, own: Tensor, whole: Tensor, group: Any) -> None:
        self.gathered += whole.nbytes
        self.calls += 1
        own.copy_(whole[: len(own)] * self.workers)


@contextmanager
def tallied(workers: int) -> Iterator[Tally]:
    tally = Tally(workers)
    with mock.patch.object(dist, "dist", tally):
        yield tally


def count_traffic(config: Config, name: str, workers: int, image: tuple[int, ...] = IMAGE) -> Traffic:
    """Of a step of stage `name` on so many workers: BatchNorm's share is what comes on top without its statistics.

    Where the backbone is frozen, the step is that of the real batch, from pooled features. Elsewhere what is sent
    does not depend on the rows, and two images a worker do.
    """
    stage, model = next(pair for pair in models(config, image) if pair[0].name == name)
    settings = config.stages[name]
    pooled = "backbone" in stage.reads
    if pooled:
        model["backbone"] = nn.Identity()
    rows = settings.batch_size // workers if pooled else 2
    shape = (backbone_width(config.backbone, image),) if pooled else image
    batch = _random_batch(rows, settings.augmentations, shape, workers)
    losses, gradients = _tally(stage, copy.deepcopy(model), settings, batch, workers, norms=False)
    whole, _ = _tally(stage, model, settings, batch, workers, norms=True)
    return Traffic(
        gradients=gradients.reduced,
        covariances=losses.reduced,
        batchnorm=whole.reduced - losses.reduced,
        gathered=losses.gathered,
        collectives=whole.calls + gradients.calls,
    )


def _tally(
    stage: Stage, model: nn.ModuleDict, settings: StageConfig, batch: Batch, workers: int, norms: bool
) -> tuple[Tally, Tally]:
    """What the loss with its backward sends, and what the averaging of the gradients sends."""
    group = cast(ProcessGroup, object())
    if norms:
        for module in model.values():
            synchronise_batchnorm(module, group)
    with tallied(workers) as losses:
        loss, _ = stage.step.loss(model, batch, settings, group)
        loss.backward()  # type: ignore[no-untyped-call]
    with tallied(workers) as gradients:
        with GradientAverage(trained_parameters(model, stage.trained), group):
            pass
    return losses, gradients


def _random_batch(rows: int, views: int, shape: tuple[int, ...], workers: int = 1) -> Batch:
    made = torch.Generator().manual_seed(0)

    def noise(name: str, width: int) -> Tensor:
        return torch.rand(rows, width, generator=made)

    counts = (rows,) * workers
    images = tuple(torch.randn(rows, *shape, generator=made) for _ in range(views))
    return Batch(images, torch.arange(rows), noise, noise, counts=counts)


def stored_bytes(config: Config) -> dict[str, int]:
    """Bytes of each stage's result in the stage store, and of its last epoch checkpoint (`NAME checkpoint`)."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for stage, model in models(config):
            settings = config.stages[stage.name]
            updates = Updates(model, stage, settings, Workers(), None)
            updates.make(stage.step, _random_batch(2, settings.augmentations, IMAGE))  # the optimiser's state
            weights = weights_of(model)
            changed = {name: weights[name] for name in stage.trained}
            store.save(stage.name, {"weights": changed, "snapshots": {}}, {})
            held = {"weights": weights, "optimisers": updates.state_dict(), "snapshots": {}}
            store.save(stage.name, held, {}, "epoch")
            found[stage.name] = _payload(store, stage.name, "result")
            found[f"{stage.name} checkpoint"] = _payload(store, stage.name, "epoch")
    return found


def _payload(store: Store, key: str, entry: str) -> int:
    files = store.fs.ls(f"{store.root}/{key}", detail=True)
    return next(int(f["size"]) for f in files if f["name"].split("/")[-1].startswith(f"{entry}-"))


def bank_bytes(views: int, images: int = IMAGES, width: int = POOL) -> int:
    """Of a feature bank in bf16: `[views, images, width]`."""
    return math.prod((views, images, width)) * BFLOAT16_BYTES
