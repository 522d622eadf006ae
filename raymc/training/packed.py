"""Packed trainings: seeds or configurations train a stage in one process as one batched computation.

What a stage trains is stacked and the loss runs under `torch.func.vmap`, with a number for each training where their
configurations differ; what it only reads is shared. Each training has optimisers of its own on its part of the stack,
so that it gets the updates of a training by itself, in other roundings, and reads and draws what that one would.

Not packed are stages whose loss does not say that it can be (`Step.packs`), BatchNorm that trains, and `compile`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

import torch
from torch import nn

from raymc import datasets
from raymc.config import Config, StageConfig
from raymc.errors import DivergedError, TrainingError
from raymc.methods.base import Stage
from raymc.rng import Seed, part
from raymc.training import checkpoint
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, Report, Row, check_finite, end_epoch, train_epoch
from raymc.training.run import ALONE, Training
from raymc.training.smoke import limited, shorten
from raymc.training.stacked import VARIED, PackedFeed, PackedUpdates
from raymc.training.stages import Weights, place, prepare, stage_key, weights_of

FREE = (*VARIED, "learning_rate", "weight_decay", "cluster_learning_rate", "cluster_weight_decay")
"""Settings of a stage that may differ."""


def fill_store(
    trainings: Sequence[tuple[Config, Mapping[str, Seed]]],
    *,
    storage: str,
    data: str | None = None,
    device: str | torch.device | None = None,
    report: Report = lambda row: None,
    smoke: bool = False,
) -> dict[str, float]:
    """Compute the stages of several trainings together and store each under its own key, as their `run`s would.

    The `run` of each then finds its stages and evaluates. Left to it, with all that follows, is a stage that does not
    pack, that another process computes or has a checkpoint of, that no second training has yet to train, one in which
    this training diverged, and one for which the device's memory did not suffice. A stage that the trainings share is
    computed once, by itself. A packed stage has no checkpoints: one that is killed starts again.

    Args:
        trainings: configurations that differ in `FREE` settings of their stages only, with the seed of each stage
            (see `stages.seeds_of`).
        report: called with the epochs of the first of them.

    Returns the seconds of every stage that was computed, by its key: of a packed one its share of the pack's.
    Raises InputError; ValueError for configurations that differ in more.
    """
    config = trainings[0][0]
    if any(_common(other) != _common(config) for other, _ in trainings):
        raise ValueError(f"configurations of a pack differ in no more than {', '.join(FREE)}")
    dataset = limited(datasets.load_once(config, data), config)
    configs = [one for one, _ in trainings]
    if smoke:
        configs = [shorten(one, dataset)[0] for one in configs]
        config, dataset = shorten(config, dataset)
    first = Training(config, dataset, storage, dict(trainings[0][1]), ALONE, device, report, smoke)
    members = [_Member(first)]
    members += [
        _Member(_sibling(first, one, seeds)) for one, (_, seeds) in zip(configs[1:], trainings[1:], strict=True)
    ]
    made: dict[str, float] = {}
    for stage in first.method.stages(config):
        settings = config.stages[stage.name]
        apart = len({member.key for member in members}) > 1
        for member in members:
            member.enter(stage)
        several = settings.epochs > 0 and len({member.name for member in members}) > 1
        # What is only read is read by all: it must be the same.
        if several and (not packs(stage, config, members[0].model) or (stage.reads and apart)):
            break
        try:
            members = _through(members, stage, settings, made)
        except (TrainingError, torch.OutOfMemoryError):
            break  # their own runs say which and why
        if len(members) < 2:
            break
    return made


def _common(config: Config) -> Config:
    """The configuration without what may differ in a pack."""
    same = {name: getattr(StageConfig(), name) for name in FREE}
    stages = {name: replace(stage, **same) for name, stage in config.stages.items()}
    return replace(config, seed=0, stages=stages)


def packs(stage: Stage, config: Config, model: nn.ModuleDict) -> bool:
    """Whether trainings of a stage can be packed."""
    steps = (stage.step, *((stage.last,) if stage.last else ()))
    live = [model[name] for name in (stage.trained if config.stages[stage.name].frozen_statistics else model)]
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for one in live for m in one.modules())
    return all(step.packs for step in steps) and not normed and not config.compile


class _Member:
    """One training on its way through the stages."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.weights: Weights = {}
        self.key: str | None = None
        self.name = ""  # the key of the stage that it is in
        self.seed: Seed = 0
        self.model = nn.ModuleDict()

    def enter(self, stage: Stage) -> None:
        training = self.training
        self.seed = training.seeds[stage.name]
        self.model = training.enter(stage, self.weights)
        training.begin(stage, self.model)
        config, fingerprint = training.config, training.dataset.fingerprint
        self.key = self.name = stage_key(stage, config, self.model, fingerprint, self.seed, self.key)

    def is_free(self, stage: Stage) -> bool:
        """Whether nobody has begun this stage, and no checkpoint has it."""
        store = self.training.store
        begun = self.training.load(self.name) is not None or store.load(self.name, "epoch") is not None
        return not begun and checkpoint.find(self.name, {name: self.model[name] for name in stage.reads}) is None


def _sibling(training: Training, config: Config, seeds: Mapping[str, Seed]) -> Training:
    """Another training, with the samples of this one; it reports nothing."""
    other = copy.copy(training)
    other.config, other.seeds, other.snapshots, other.report = config, dict(seeds), {}, lambda row: None
    return other


def _through(members: list[_Member], stage: Stage, settings: StageConfig, made: dict[str, float]) -> list[_Member]:
    """Bring the members through a stage; those that stay together, at its end. Seconds of what trained go to `made`."""
    by_key = {member.name: member for member in reversed(members)}
    begun = time.monotonic()
    if len(by_key) == 1 or not settings.epochs:
        member = members[0]
        _, cached = member.training.obtain(stage, member.model, member.name, member.seed, anew=False, needed=False)
        if settings.epochs and not cached:
            made[member.name] = time.monotonic() - begun
    else:
        with ExitStack() as leases:
            ours = []
            for member in reversed(by_key.values()):
                lease = member.training.store.lease(member.name)
                if member.is_free(stage) and lease.try_acquire():
                    leases.enter_context(lease)
                    ours += [member] if member.is_free(stage) else []
            if len(ours) > 1:
                ended = _train(ours, stage, settings)
                made |= dict.fromkeys(ended, (time.monotonic() - begun) / len(ours))
    kept = []
    for member in members:
        if not settings.epochs:
            place(member.model, member.training.config, member.training.device, member.training.dtype)
            member.weights = weights_of(member.model)
        else:
            entry = member.training.load(member.name)
            if entry is None:
                continue
            for name, state in entry.state["weights"].items():
                member.model[name].load_state_dict(state, strict=True)
            member.weights = weights_of(member.model)
            member.training.checkpoint = entry.meta.get("checkpoint")
        kept.append(member)
    return kept


def _train(members: Sequence[_Member], stage: Stage, settings: StageConfig) -> list[str]:
    """Train the members' models in place and store those that end well, whose keys these are; no two have the same.

    Raises DivergedError as soon as none of them is finite.
    """
    training = members[0].training
    trainings = [member.training for member in members]
    models = [one.training.behind.model if one.training.behind else one.model for one in members]
    for model in (members[0].model, *models):
        place(model, training.config, training.device, training.dtype)
        prepare(model, stage, settings.frozen_statistics)
    whole: Feed = training.behind.feed if training.behind else training.feed
    for one in trainings[1:]:
        if one.behind and training.behind:
            one.behind.share(training.behind)
    configs = [one.config.stages[stage.name] for one in trainings]
    seeds = [member.seed for member in members]
    shared = len(set(seeds)) == 1
    updates = PackedUpdates(models, stage, configs, whole, training.autocast, shared)
    hooks = [member.training.hooks(stage, member.name) for member in members]
    for seed, model, hook in zip(seeds, models, hooks, strict=True):
        if stage.begin is not None:
            stage.begin(model, whole, settings, part(seed, "initialisation"))
        if hook.look is not None:
            hook.look(model, 0)
    curves = _epochs(updates, whole if shared else PackedFeed.of(whole, seeds), seeds[0], hooks)
    ended = []
    for at, curve in curves.items():
        with suppress(DivergedError):
            check_finite(models[at], stage)
            members[at].training.publish(stage, members[at].model, members[at].name, curve)
            ended.append(members[at].name)
    return ended


def _epochs(updates: PackedUpdates, feed: Feed, seed: Seed, hooks: Sequence[Hooks]) -> dict[int, list[Row]]:
    """The curves of those trainings that come to their end, by their place in the pack."""
    curves: dict[int, list[Row]] = {at: [] for at in range(len(hooks))}
    for epoch in range(updates.settings.epochs):
        numbers = train_epoch(updates, feed, seed, epoch)
        for at in tuple(curves):
            model, own, hook = updates.models[at], updates.own[at], hooks[at]
            mine = {name: value.expand(len(hooks))[at] for name, value in numbers.items()}
            try:
                own.check(mine)
                row = end_epoch(model, own, epoch, {name: float(value) for name, value in mine.items()}, hook)
            except TrainingError:  # its own run will find it too, and say which
                del curves[at]
                continue
            curves[at].append(row)
            hook.report({"event": "epoch", **row})
    return curves
