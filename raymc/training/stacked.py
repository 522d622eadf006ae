"""What trains as one batched computation: stacked weights, batches of several seeds, losses under `torch.func.vmap`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import StageConfig
from raymc.distributed import Workers
from raymc.errors import DivergedError
from raymc.methods.base import Batch, Loss, Stage, Step, Whole
from raymc.rng import Seed
from raymc.training.feed import Feed
from raymc.training.loop import Updates

Words = tuple[str, str, int]  # of a draw: uniform or normal, its name, its width
ALONE = Workers()

VARIED = ("eps_sq", "similarity_weight", "temperature", "gamma", "eta")
"""Numbers of a loss that may differ between the trainings of a pack."""


class PackedUpdates(Updates):
    """Updates of several trainings: one loss on what is stacked, optimisers of each on its part.

    Args:
        models: those of the trainings, prepared; what they train become views of the stack.
        configs: their settings, which differ in `VARIED` and in what their optimisers read.
        whole: the samples, as a stage that observes them sees them.
        shared: whether they all take the same batches.
    """

    def __init__(
        self,
        models: Sequence[nn.ModuleDict],
        stage: Stage,
        configs: Sequence[StageConfig],
        whole: Whole,
        autocast: torch.dtype | None,
        shared: bool,
    ) -> None:
        self.models, self.model, self.workers, self.autocast = models, stack(models), ALONE, autocast
        self.settings, self.stage = configs[0], packed_stage(stage, models, whole, configs, shared)
        self.own = [Updates(*one, ALONE, autocast) for one in zip(models, [stage] * len(models), configs, strict=True)]

    def zero_grad(self, prefix: str) -> None:
        self.model.zero_grad(set_to_none=True)

    def step(self, prefix: str) -> None:
        """Give each training its part of the gradients, and let its optimisers step."""
        for name, parameter in self.model.named_parameters():
            for at, model in enumerate(self.models):
                model.get_parameter(name).grad = None if parameter.grad is None else parameter.grad[at]
        for own in self.own:
            own.step(prefix)

    def check(self, row: Mapping[str, Tensor]) -> None:
        """Raises DivergedError where every training has a number that is not finite."""
        fine = torch.stack([value.isfinite().expand(len(self.own)) for value in row.values()]).all(0)
        if not bool(fine.any()):
            raise DivergedError(f"stage {self.stage.name}: no loss is finite")

    def start_epoch(self, epoch: int) -> None:
        for own in self.own:
            own.start_epoch(epoch)


def stack(models: Sequence[nn.ModuleDict]) -> nn.ModuleDict:
    """Modules whose trained parameters are those of all models, `[T, …]`; the models' own become views of them.

    What does not train is the first model's, as are buffers: what reads a model's own must read its model.
    """
    stacked = copy.deepcopy(models[0])
    for name, parameter in stacked.named_parameters():
        if not parameter.requires_grad:
            continue
        own = [model.get_parameter(name) for model in models]
        parameter.data = torch.stack([one.data for one in own])
        for one, view in zip(own, parameter.data, strict=True):
            one.data = view
    return stacked


@dataclass(frozen=True)
class PackedFeed(Feed):
    """The batches of several seeds, each as its own training draws it, with a leading axis `[T, …]`."""

    feed: Feed | None = None
    seeds: tuple[Seed, ...] = ()

    @staticmethod
    def of(feed: Feed, seeds: Sequence[Seed]) -> PackedFeed:
        """The batches of `feed` for these seeds."""
        return PackedFeed(**{f.name: getattr(feed, f.name) for f in fields(Feed)}, feed=feed, seeds=tuple(seeds))

    def epoch(self, stage: str, seed: Seed, epoch: int, batch_size: int, views: int = 2) -> Iterator[Batch]:
        """Batches of all seeds; `seed` is passed over."""
        assert self.feed is not None
        each = [self.feed.epoch(stage, one, epoch, batch_size, views) for one in self.seeds]
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


def packed_stage(
    stage: Stage, models: Sequence[nn.ModuleDict], whole: Whole, configs: Sequence[StageConfig], shared: bool
) -> Stage:
    """The stage of stacked modules: its losses are those of all trainings, and it observes each model by itself.

    `models` are those that view the stacked weights. Without `begin`, which is each model's own too.
    """

    def packed_step(step: Step) -> Step:
        return replace(step, loss=packed_loss(step.loss, configs, shared))

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


def packed_loss(loss: Loss, configs: Sequence[StageConfig], shared: bool) -> Loss:
    """The sum of the trainings' losses on stacked modules; `terms`, and `loss` in them, are `[T]`.

    The batch is stacked too, unless it is `shared` by all.
    """
    asked: set[Words] = set()  # draws cannot be made under vmap: they are noted, and made before it
    differ = {
        name: torch.tensor([getattr(config, name) for config in configs], dtype=torch.float64)
        for name in VARIED
        if len({getattr(config, name) for config in configs}) > 1
    }
    numbers_of = cache(lambda device: {name: values.to(device) for name, values in differ.items()})

    def packed(
        model: nn.ModuleDict, batch: Batch, config: StageConfig, group: ProcessGroup | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        def one(
            parameters: dict[str, Tensor],
            numbers: dict[str, Any],
            state: dict[str, Tensor],
            views: tuple[Tensor, ...],
            index: Tensor,
            drawn: dict[Words, Tensor],
        ) -> tuple[Tensor, dict[str, Tensor]]:
            uniform, normal = (_drawer(kind, drawn) for kind in ("uniform", "normal"))
            mine = replace(batch, views=views, index=index, state=state, uniform=uniform, normal=normal)
            call: Callable[..., tuple[Tensor, dict[str, Tensor]]] = torch.func.functional_call
            return call(_Lossy(model, loss), parameters, (mine, replace(config, **numbers), group))

        parameters: dict[str, Tensor] = {
            f"model.{name}": value for name, value in model.named_parameters() if value.requires_grad
        }
        numbers = numbers_of(batch.views[0].device)
        dims = (0, 0, 0, *(None if shared else 0,) * 3)
        drawn: dict[Words, Tensor] = {}
        while True:
            drawn |= {words: getattr(batch, words[0])(*words[1:]) for words in asked - drawn.keys()}
            try:
                each, terms = torch.func.vmap(one, dims)(
                    parameters, numbers, dict(batch.state), batch.views, batch.index, drawn
                )
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
