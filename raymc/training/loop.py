"""The one loop of the project: the only place that calls `backward()` and `step()`.

Its parts carry names (`record_function`) under which a profiler shows them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from raymc.config import StageConfig
from raymc.distributed import GradientAverage, Workers
from raymc.errors import DivergedError, TrainingError
from raymc.methods.base import Batch, Stage, Step, trained_parameters
from raymc.ops.checks import deferred_checks
from raymc.rng import Seed, part
from raymc.training.feed import Feed
from raymc.training.optim import Optimisers
from raymc.training.stages import Weights, prepare, weights_of

Row = dict[str, Any]
Report = Callable[[Row], None]
Key = TypeVar("Key")

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
        evaluate: metrics of the model after an epoch, asked of all workers, some of which may have none; it leaves the
            modules' modes as they were.
        on_epoch: called with the model and the epochs that are done, before the first epoch and after each.
    """

    report: Report
    save: Callable[[Progress], None] | None
    evaluate: Callable[[nn.ModuleDict], dict[str, float]] | None
    evaluate_every: int
    on_epoch: Callable[[nn.ModuleDict, int], None] | None = None


def fit(
    model: nn.ModuleDict,
    stage: Stage,
    settings: StageConfig,
    feed: Feed,
    seed: Seed,
    hooks: Hooks,
    autocast: torch.dtype | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Train one stage in place and return its curve, one row per epoch: loss, terms, learning rates.

    Goes on from `progress` where given. Raises DivergedError when the loss or a weight is not finite.
    """
    prepare(model, stage, settings.frozen_statistics)
    updates = Updates(model, stage, settings, feed.workers, autocast)
    curve: list[Row] = []
    start = 0
    if progress is not None:
        for name, weights in progress.weights.items():
            model[name].load_state_dict(weights, strict=True)
        updates.load_state_dict(progress.optimisers)
        start, curve = progress.epoch, list(progress.curve)
        hooks.report({"event": "resumed", "stage": stage.name, "epoch": start, "curve": curve})
    else:
        if stage.begin is not None:
            stage.begin(model, feed, settings, part(seed, "initialisation"))
        if hooks.on_epoch is not None:
            hooks.on_epoch(model, 0)
    cost, saved = 0.0, time.monotonic()
    for epoch in range(start, settings.epochs):
        row = end_epoch(model, updates, epoch, train_epoch(updates, feed, seed, epoch), hooks)
        curve.append(row)
        # Told first: an epoch that is told twice is recorded once, one that is never told is a gap.
        hooks.report({"event": "epoch", **row})
        now = time.monotonic()
        if hooks.save is not None and epoch + 1 < settings.epochs and now - saved >= SAVE_SHARE * cost:
            hooks.save(Progress(epoch + 1, weights_of(model), updates.state_dict(), curve))
            saved = time.monotonic()
            cost = saved - now
    check_finite(model, stage)
    return curve


def train_epoch(updates: Updates, feed: Feed, seed: Seed, epoch: int) -> dict[str, float]:
    """Make the updates of an epoch, counted from 0; means of the loss and its terms.

    Raises DivergedError where one is not finite, or a projection did not settle.
    """
    stage, settings = updates.stage, updates.settings
    updates.start_epoch(epoch)
    state = stage.observe(updates.model, feed, settings, epoch) if stage.observe else {}
    with deferred_checks() as checks:
        sums, steps = over_batches(updates, feed, seed, epoch, state) if stage.step.active(settings, epoch) else ({}, 0)
    numbers = read({**checks, **sums})
    for limit in checks:
        limit.check(numbers.pop(limit))
    row = {name: numbers[name] / steps for name in sums} or {"loss": 0.0}
    if stage.last is not None and stage.last.active(settings, epoch):
        found = updates.make(stage.last, replace(feed.everything(epoch), state=state))
        row |= {"whole_loss" if name == "loss" else name: value for name, value in read(found).items()}
    if not all(map(math.isfinite, row.values())):
        raise DivergedError(f"stage {stage.name}: the loss is not finite")
    return row


def read(values: Mapping[Key, Tensor]) -> dict[Key, float]:
    """Scalars on the device as numbers, all in one copy: the device is waited for once."""
    together = torch.stack([value.double() for value in values.values()]).tolist() if values else []
    return dict(zip(values, together, strict=True))


def over_batches(
    updates: Updates, feed: Feed, seed: Seed, epoch: int, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """An update for each batch of an epoch; sums of the loss and its terms on the device, and the number of batches.

    Nothing is read back from the device, which is therefore never waited for: it always has the next update at hand.
    """
    sums: dict[str, Tensor] = {}
    steps, settings = 0, updates.settings
    batches = feed.epoch(updates.stage.name, seed, epoch, settings.batch_size, settings.augmentations)
    with contextlib.closing(batches):  # its thread ends with an error too
        for batch in batches:
            for name, value in updates.make(updates.stage.step, replace(batch, state=state)).items():
                sums[name] = sums[name] + value if name in sums else value
            steps += 1
    return sums, steps


def end_epoch(model: nn.ModuleDict, updates: Updates, epoch: int, numbers: Mapping[str, float], hooks: Hooks) -> Row:
    """The curve's row of an epoch, with the evaluation where one is due; `hooks.on_epoch` sees the model."""
    epochs = updates.settings.epochs
    row: Row = {"stage": updates.stage.name, "epoch": epoch + 1, "epochs": epochs, **numbers}
    row |= {f"learning_rate.{name}": rate for name, rate in updates.learning_rates().items()}
    last = epoch + 1 == epochs
    if hooks.evaluate is not None and (last or (epoch + 1) % hooks.evaluate_every == 0):
        check_finite(model, updates.stage)  # of a last step that went wrong the loss does not tell
        try:
            row |= hooks.evaluate(model)
        except TrainingError:  # whether there are clusters is for the end to say
            if last:
                raise
    if hooks.on_epoch is not None:
        hooks.on_epoch(model, epoch + 1)
    return row


class Updates:
    """The optimisers of a stage's steps, and how an update is made."""

    def __init__(
        self, model: nn.ModuleDict, stage: Stage, settings: StageConfig, workers: Workers, autocast: torch.dtype | None
    ) -> None:
        self.model, self.stage, self.settings, self.workers, self.autocast = model, stage, settings, workers, autocast
        steps = {"": stage.step} | ({"last.": stage.last} if stage.last else {})
        self._of = {prefix: Optimisers(model, step, settings) for prefix, step in steps.items()}
        self._averages = {
            prefix: GradientAverage(trained_parameters(model, step.modules), workers.group)
            for prefix, step in steps.items()
        }

    def make(self, step: Step, batch: Batch) -> dict[str, Tensor]:
        """One update; the loss and its terms, detached."""
        prefix = "last." if step is self.stage.last else ""
        self._of[prefix].zero_grad()
        with record_function("forward"):
            with torch.autocast(batch.views[0].device.type, dtype=self.autocast, enabled=self.autocast is not None):
                loss, terms = step.loss(self.model, batch, self.settings, self.workers.group)
        with record_function("backward"), self._averages[prefix]:
            loss.backward()  # type: ignore[no-untyped-call]
        with record_function("optimiser"):
            self._of[prefix].step()
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    def start_epoch(self, epoch: int) -> None:
        for optimisers in self._of.values():
            optimisers.start_epoch(epoch)

    def learning_rates(self) -> dict[str, float]:
        return self._of[""].learning_rates()

    def state_dict(self) -> dict[str, Any]:
        return {prefix + title: state for prefix, o in self._of.items() for title, state in o.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for prefix, optimisers in self._of.items():
            own = {title: one for title, one in state.items() if title.startswith("last.") == bool(prefix)}
            optimisers.load_state_dict({title.removeprefix(prefix): one for title, one in own.items()})


def check_finite(model: nn.ModuleDict, stage: Stage) -> None:
    """Raises DivergedError where a trained weight is not finite."""
    finite = [p.isfinite().all() for p in trained_parameters(model, stage.trained)]
    if finite and not bool(torch.stack(finite).all()):
        raise DivergedError(f"stage {stage.name}: a weight is not finite")
