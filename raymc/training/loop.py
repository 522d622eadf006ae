"""The one loop of the project: the only place that calls `backward()` and `step()`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raymc.config import StageConfig
from raymc.errors import DivergedError, TrainingError
from raymc.methods.base import Batch, Stage, trained_parameters
from raymc.training.dist import Workers, average_gradients
from raymc.training.feed import Feed
from raymc.training.optim import Optimisers
from raymc.training.stages import Weights, prepare, weights_of

Row = dict[str, Any]
Report = Callable[[Row], None]

SAVE_SHARE = 20  # an epoch checkpoint is written when its cost is below 1/20 of the time since the last one


@dataclass(frozen=True)
class Progress:
    """What an epoch checkpoint holds: enough to go on as if nothing had happened."""

    epoch: int
    weights: Weights
    optimisers: dict[str, Any]
    curve: list[Row]


@dataclass(frozen=True)
class Hooks:
    """What the loop tells and asks the outside.

    Attributes:
        report: called with a row per epoch on every worker.
        save: writes an epoch checkpoint; None on workers that don't.
        evaluate: metrics of the model after an epoch; it leaves the modules' modes as they were.
    """

    report: Report
    save: Callable[[Progress], None] | None
    evaluate: Callable[[nn.ModuleDict], dict[str, float]] | None
    evaluate_every: int


def fit(
    model: nn.ModuleDict,
    stage: Stage,
    settings: StageConfig,
    feed: Feed,
    seed: int,
    hooks: Hooks,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Train one stage in place and return its curve, one row per epoch: loss, terms, learning rates.

    Goes on from `progress` where given. Raises DivergedError when the loss or a weight is not finite.
    """
    prepare(model, stage, settings.frozen_statistics)
    optimisers = Optimisers(model, stage.step, settings)
    curve: list[Row] = []
    start = 0
    if progress is not None:
        for name, weights in progress.weights.items():
            model[name].load_state_dict(weights, strict=True)
        optimisers.load_state_dict(progress.optimisers)
        start, curve = progress.epoch, list(progress.curve)
    pace = _Pace()
    for epoch in range(start, settings.epochs):
        optimisers.start_epoch(epoch)
        batches = feed.epoch(stage.name, seed, epoch, settings.batch_size, settings.augmentations)
        row: Row = {"stage": stage.name, "epoch": epoch + 1, "epochs": settings.epochs}
        row |= _train_epoch(model, stage, settings, batches, optimisers, feed.workers, autocast)
        row |= {f"learning_rate.{name}": rate for name, rate in optimisers.learning_rates().items()}
        last = epoch + 1 == settings.epochs
        if hooks.evaluate is not None and (last or (epoch + 1) % hooks.evaluate_every == 0):
            try:
                row |= hooks.evaluate(model)
            except TrainingError:  # whether there are clusters is for the end to say
                if last:
                    raise
        curve.append(row)
        # Told first: an epoch that is told twice is recorded once, one that is never told is a gap.
        hooks.report({"event": "epoch", **row})
        if hooks.save is not None and not last and pace.is_time():
            with pace.timed():
                hooks.save(Progress(epoch + 1, weights_of(model), optimisers.state_dict(), curve))
    _check_finite(model, stage)
    return curve


def _train_epoch(
    model: nn.ModuleDict,
    stage: Stage,
    settings: StageConfig,
    batches: Iterator[Batch],
    optimisers: Optimisers,
    workers: Workers,
    autocast: torch.dtype | None,
) -> Row:
    parameters = trained_parameters(model, stage.step)
    sums: dict[str, Tensor] = {}
    steps = 0
    for batch in batches:
        optimisers.zero_grad()
        loss, terms = _loss(model, stage, settings, batch, workers, autocast)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters, workers.group)
        optimisers.step()
        for name, value in {"loss": loss, **terms}.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        steps += 1
    # The values are read once an epoch, so that a GPU is never waited for within it.
    row = {name: float(value) / steps for name, value in sums.items()}
    if not all(map(_finite, row.values())):
        raise DivergedError(f"stage {stage.name}: the loss is not finite")
    return row


def _loss(
    model: nn.ModuleDict,
    stage: Stage,
    settings: StageConfig,
    batch: Batch,
    workers: Workers,
    autocast: torch.dtype | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    device = batch.views[0].device.type
    with torch.autocast(device, dtype=autocast, enabled=autocast is not None):
        return stage.step.loss(model, batch, settings, workers.group)


def _check_finite(model: nn.ModuleDict, stage: Stage) -> None:
    if not all(bool(p.isfinite().all()) for p in trained_parameters(model, stage.step)):
        raise DivergedError(f"stage {stage.name}: a weight is not finite")


def _finite(value: float) -> bool:
    return value - value == 0.0


class _Pace:
    """Spaces checkpoints so that writing them costs at most 1/20 of the time."""

    def __init__(self) -> None:
        self.cost = 0.0
        self.last = time.monotonic()

    def is_time(self) -> bool:
        return time.monotonic() - self.last >= SAVE_SHARE * self.cost

    @contextmanager
    def timed(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - begun
