"""One stage on a device, an epoch of which is counted step by step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from raymc.config import Config
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import Batch, Step
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.storage.stage_store import Store
from raymc.training.feature_bank import Bank, BankedStage
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.optim import Optimisers
from raymc.training.stages import (
    channels_last_of,
    clusters_of,
    dtype_of,
    enter,
    module_names,
    place,
    prepare,
    uses_bank,
)
from tests.device.pretend import Log
from tests.device.trainings import dataset_of


def begun(
    config: Config,
    name: str,
    device: torch.device,
    folder: Path,
    workers: Workers = Workers(),  # noqa: B008
) -> tuple[Updates, Feed]:
    """A stage that is about to train on a device; what earlier stages would hand over is drawn anew."""
    method, data = METHODS[config.method], dataset_of(config.dataset)
    stage = next(one for one in method.stages(config) if one.name == name)
    alone = dataclasses.replace(stage, fresh=module_names(stage), copies=(), drop=())
    shape, settings = tuple(data.train.x.shape[1:]), config.stages[name]
    model = enter(method, alone, config, shape, clusters_of(config, data), {}, 0)
    place(model, config, device, dtype_of(config))
    given = (
        config.augmentation,
        device,
        dtype_of(config),
        channels_last_of(config, device),
        workers,
        False,
        config.augment,
    )
    feed = Feed.build(data, *given)
    if uses_bank(settings):
        banked = BankedStage(model, feed, Bank(model, config, settings, feed, Store(str(folder)), None))
        model, feed = banked.model, banked.feed
        _ = banked.feed.stored
    prepare(model, stage, settings.frozen_statistics)
    synchronise_batchnorm(model, workers.group)
    if stage.begin is not None:
        stage.begin(model, feed, settings, 0)
    return Updates(model, stage, settings, workers, None), feed


class Counts(NamedTuple):
    """What a step, or what an epoch beside its steps, asks of the device.

    Attributes:
        kernels: operations that launch something, of the batch, the loss and its gradient; wanted: a number or a range.
        optimiser: those of the optimisers, beside these.
        waits: how often the device is waited for.
        uploads: copies to it, for which nobody waits.
    """

    kernels: int | range
    optimiser: int
    waits: int
    uploads: int


def counted(log: Log, updates: Updates, feed: Feed, epoch: int) -> tuple[Counts, Counts]:
    """Of the last step of an epoch, and of all else in it; the epoch before has been gone through."""
    ends: list[tuple[int, int, int]] = []
    optimiser: list[int] = []
    make, step = Updates.make, Optimisers.step

    def counted_make(self: Updates, of: Step, batch: Batch) -> dict[str, Tensor]:
        found = make(self, of, batch)
        if of is not self.stage.last:
            ends.append(log.totals)
        return found

    def counted_step(self: Optimisers) -> None:
        before = log.kernels.total()
        step(self)
        optimiser.append(log.kernels.total() - before)

    train_epoch(updates, feed, 0, epoch - 1)
    log.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Updates, "make", counted_make)
        patch.setattr(Optimisers, "step", counted_step)
        train_epoch(updates, feed, 0, epoch)
    kernels, waits, uploads = log.totals
    if not ends:  # the stage has no step in this epoch
        return Counts(0, 0, 0, 0), Counts(kernels - sum(optimiser), sum(optimiser), waits, uploads)
    of_steps = optimiser[: len(ends)]
    one = [end - before for end, before in zip(ends[-1], ends[-2], strict=True)]
    a_step = Counts(one[0] - of_steps[-1], of_steps[-1], one[1], one[2])
    assert len(set(of_steps)) == 1, "the steps of an epoch differ"
    rest = [total - len(ends) * part for total, part in zip((kernels, waits, uploads), one, strict=True)]
    after = sum(optimiser[len(ends) :])
    return a_step, Counts(rest[0] - after, after, rest[1], rest[2])
