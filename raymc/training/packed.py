"""Packed seeds: several seeds of one configuration train a stage in one process as one batched computation.

The seeds' weights are stacked and the loss runs under `torch.func.vmap`; the optimiser sees the stacked weights. Adam
and SGD treat every number by itself, so that each seed gets the updates of a training of its own, in other roundings.
What each seed reads and draws is made as its own training makes it.

Not packed are stages whose loss does not say that it can be (`Step.packs`), LARS, whose steps depend on the norm of a
whole weight, BatchNorm and `compile`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc import datasets
from raymc.config import Config, StageConfig
from raymc.errors import TrainingError
from raymc.methods.base import Batch, Loss, Stage, Step, Whole
from raymc.seed_parts import Seed, part
from raymc.training import checkpoint
from raymc.training.feed import Feed
from raymc.training.loop import Report, Row, Updates, check_finite, end_epoch, train_epoch
from raymc.training.run import ALONE, Training
from raymc.training.smoke import limited, shorten
from raymc.training.stages import Weights, place, prepare, stage_key, weights_of

Words = tuple[str, str, int]  # of a draw: uniform or normal, its name, its width


def fill_store(
    config: Config,
    *,
    storage: str,
    stage_seeds: Sequence[Mapping[str, Seed]],
    data: str | None = None,
    device: str | torch.device | None = None,
    report: Report = lambda row: None,
    smoke: bool = False,
) -> None:
    """Compute the stages of several seeds together and store each under its own key, as their `run`s would.

    The `run` of each seed then finds its stages and evaluates. Left to it, with all that follows, is a stage that does
    not pack, that another process computes or has a checkpoint of, that no second seed has yet to train, and one in
    which any seed diverged or the device's memory did not suffice. A stage that the seeds share is computed once, by
    itself. A packed stage has no checkpoints: one that is killed starts again.

    Args:
        stage_seeds: the seed of each stage for each seed, see `stages.seeds_of`.
        report: called with the epochs of the first of them.

    Raises InputError.
    """
    dataset = limited(datasets.load_once(config, data), config)
    if smoke:
        config, dataset = shorten(config, dataset)
    first = Training(config, dataset, storage, dict(stage_seeds[0]), ALONE, device, report, smoke)
    members = [_Member(first), *(_Member(_sibling(first, seeds)) for seeds in stage_seeds[1:])]
    for stage in first.method.stages(config):
        settings = config.stages[stage.name]
        for member in members:
            member.enter(stage)
        if settings.epochs and not packs(stage, config, members[0].model):
            return
        try:
            members = _through(members, stage, settings)
        except (TrainingError, torch.OutOfMemoryError):
            return  # the seeds' own runs say which and why
        if len(members) < 2:
            return


def packs(stage: Stage, config: Config, model: nn.ModuleDict) -> bool:
    """Whether seeds of a stage that trains can be packed."""
    steps = (stage.step, *((stage.last,) if stage.last else ()))
    elementwise = config.stages[stage.name].optimizer != "lars"
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return all(step.packs for step in steps) and elementwise and not normed and not config.compile


class _Member:
    """One seed on its way through the stages."""

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
        config, fingerprint = training.config, training.dataset.fingerprint
        self.key = self.name = stage_key(stage, config, self.model, fingerprint, self.seed, self.key)

    def is_free(self) -> bool:
        """Whether nobody has begun this stage, and no checkpoint has it."""
        store = self.training.store
        begun = store.has(self.name) or store.load(self.name, "epoch") is not None
        return not begun and checkpoint.find(self.name) is None


def _sibling(training: Training, seeds: Mapping[str, Seed]) -> Training:
    """The training of another seed, with the samples of this one; it reports nothing."""
    other = copy.copy(training)
    other.seeds, other.snapshots, other.report = dict(seeds), {}, lambda row: None
    return other


def _through(members: list[_Member], stage: Stage, settings: StageConfig) -> list[_Member]:
    """Bring the members through a stage; those that stay together, at its end."""
    by_key = {member.name: member for member in reversed(members)}
    if len(by_key) == 1 or not settings.epochs:
        member = members[0]
        member.training.obtain(stage, member.model, member.name, member.seed, anew=False, needed=False)
    else:
        with ExitStack() as leases:
            ours = []
            for member in reversed(by_key.values()):
                lease = member.training.store.lease(member.name)
                if member.is_free() and lease.try_acquire():
                    leases.enter_context(lease)
                    ours += [member] if member.is_free() else []
            if len(ours) > 1:
                _train(ours, stage, settings)
    kept = []
    for member in members:
        if not settings.epochs:
            place(member.model, member.training.config, member.training.device, member.training.dtype)
            member.weights = weights_of(member.model)
        else:
            entry = member.training.store.load(member.name)
            if entry is None:
                continue
            member.weights = entry.state["weights"]
            member.training.checkpoint = entry.meta.get("checkpoint")
        kept.append(member)
    return kept


def _train(members: Sequence[_Member], stage: Stage, settings: StageConfig) -> None:
    """Train the members' models in place and store each; their keys differ.

    Raises DivergedError as soon as one of them is not finite.
    """
    training = members[0].training
    models = [member.model for member in members]
    hooks = [member.training.hooks(stage, member.name) for member in members]
    for model in models:
        place(model, training.config, training.device, training.dtype)
        prepare(model, stage, settings.frozen_statistics)
    stacked = stack(models)
    feed = PackedFeed.of(training.feed, [member.seed for member in members])
    updates = Updates(stacked, packed_stage(stage, models, training.feed), settings, ALONE, training.autocast)
    for member, hook in zip(members, hooks, strict=True):
        if stage.begin is not None:
            stage.begin(member.model, training.feed, settings, part(member.seed, "initialisation"))
        if hook.look is not None:
            hook.look(member.model, 0)
    curves: list[list[Row]] = [[] for _ in members]
    for epoch in range(settings.epochs):
        numbers = train_epoch(updates, feed, 0, epoch)
        for at, (model, hook) in enumerate(zip(models, hooks, strict=True)):
            mine = {name: float(value.expand(len(models))[at]) for name, value in numbers.items()}
            curves[at].append(end_epoch(model, updates, epoch, mine, hook))
            hook.report({"event": "epoch", **curves[at][-1]})
    check_finite(stacked, stage)
    for member, curve in zip(members, curves, strict=True):
        member.training.publish(stage, member.model, member.name, curve)


def stack(models: Sequence[nn.ModuleDict]) -> nn.ModuleDict:
    """Modules whose parameters are those of all models, `[S, …]`; the models' own become views of them.

    Buffers are the first model's: what reads a seed's own must read its model.
    """
    stacked = copy.deepcopy(models[0])
    for name, parameter in stacked.named_parameters():
        own = [model.get_parameter(name) for model in models]
        parameter.data = torch.stack([one.data for one in own])
        for one, view in zip(own, parameter.data, strict=True):
            one.data = view
    return stacked


@dataclass(frozen=True)
class PackedFeed(Feed):
    """The batches of several seeds, each as its own training draws it, with a leading axis `[S, …]`."""

    seeds: tuple[Seed, ...] = ()

    @staticmethod
    def of(feed: Feed, seeds: Sequence[Seed]) -> PackedFeed:
        """The same samples for these seeds."""
        return PackedFeed(**{f.name: getattr(feed, f.name) for f in fields(Feed)}, seeds=tuple(seeds))

    def epoch(self, stage: str, seed: Seed, epoch: int, batch_size: int, views: int = 2) -> Iterator[Batch]:
        """Batches of all seeds; `seed` is passed over."""
        each = [super(PackedFeed, self).epoch(stage, one, epoch, batch_size, views) for one in self.seeds]
        return map(_together, zip(*each, strict=True))

    def everything(self, epoch: int) -> Batch:
        """All samples, the same for all seeds."""
        batch, count = super().everything(epoch), len(self.seeds)
        views = tuple(view.expand(count, *view.shape) for view in batch.views)
        return replace(batch, views=views, index=batch.index.expand(count, -1))


def _together(batches: tuple[Batch, ...]) -> Batch:
    views = tuple(torch.stack(view) for view in zip(*(batch.views for batch in batches), strict=True))
    return replace(
        batches[0],
        views=views,
        index=torch.stack([batch.index for batch in batches]),
        uniform=lambda name, width: torch.stack([batch.uniform(name, width) for batch in batches]),
        normal=lambda name, width: torch.stack([batch.normal(name, width) for batch in batches]),
    )


def packed_stage(stage: Stage, models: Sequence[nn.ModuleDict], whole: Whole) -> Stage:
    """The stage of stacked modules: its losses are those of all seeds, and it observes each model by itself.

    `models` are those that view the stacked weights. Without `begin`, which is each model's own too.
    """

    def packed_step(step: Step) -> Step:
        return replace(step, loss=packed_loss(step.loss))

    def observe(_: nn.ModuleDict, __: Whole, config: StageConfig, epoch: int) -> dict[str, Tensor]:
        assert stage.observe is not None
        states = [stage.observe(model, whole, config, epoch) for model in models]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    return replace(
        stage,
        step=packed_step(stage.step),
        last=packed_step(stage.last) if stage.last else None,
        observe=observe if stage.observe else None,
        begin=None,
    )


def packed_loss(loss: Loss) -> Loss:
    """The sum of the seeds' losses on stacked modules and a stacked batch; `terms`, and `loss` in them, are `[S]`."""
    asked: set[Words] = set()  # draws cannot be made under vmap: they are noted, and made before it

    def packed(
        model: nn.ModuleDict, batch: Batch, config: StageConfig, group: ProcessGroup | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        def one(
            parameters: dict[str, Tensor],
            views: tuple[Tensor, ...],
            index: Tensor,
            state: dict[str, Tensor],
            drawn: dict[Words, Tensor],
        ) -> tuple[Tensor, dict[str, Tensor]]:
            uniform, normal = (_drawer(kind, drawn) for kind in ("uniform", "normal"))
            mine = replace(batch, views=views, index=index, state=state, uniform=uniform, normal=normal)
            call: Callable[..., tuple[Tensor, dict[str, Tensor]]] = torch.func.functional_call
            return call(_Lossy(model, loss), parameters, (mine, config, group))

        parameters: dict[str, Tensor] = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
        while True:
            drawn = {words: getattr(batch, words[0])(*words[1:]) for words in asked}
            try:
                each, terms = torch.func.vmap(one)(parameters, batch.views, batch.index, dict(batch.state), drawn)
                return each.sum(), {"loss": each, **terms}
            except _Undrawn as error:
                asked.add(error.words)

    return packed


class _Undrawn(Exception):
    """A loss asks for a draw that has not been made."""

    def __init__(self, words: Words) -> None:
        super().__init__(words)
        self.words = words


def _drawer(kind: str, drawn: Mapping[Words, Tensor]) -> Callable[[str, int], Tensor]:
    def draw(name: str, width: int) -> Tensor:
        words = (kind, name, width)
        if words not in drawn:
            raise _Undrawn(words)
        return drawn[words]

    return draw


class _Lossy(nn.Module):
    """A module whose call is the loss: `functional_call` takes nothing else."""

    def __init__(self, model: nn.ModuleDict, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(self.model, *rest)
