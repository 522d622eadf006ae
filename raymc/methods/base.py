"""What a method is: stages as data, a way to build its model, presets and an assignment rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import Config, StageConfig
from raymc.errors import InputError


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one global batch.

    Attributes:
        views: augmented samples, one tensor `[b, ...]` per view.
        index: positions in the dataset, int64 `[b]`.
        uniform: `uniform(name, width)` draws `[b, width]` numbers in (0, 1), float32: this worker's rows
            of what one process would draw for the global batch at this seed, stage, epoch and step.
    """

    views: tuple[Tensor, ...]
    index: Tensor
    uniform: Callable[[str, int], Tensor]


Loss = Callable[[nn.ModuleDict, Batch, StageConfig, ProcessGroup | None], tuple[Tensor, dict[str, Tensor]]]
"""`loss(model, batch, config, group) -> (loss, terms)`.

The loss is that of the whole batch on every worker. `terms` are the weighted summands: they add up to the loss.
"""


@dataclass(frozen=True)
class Group:
    """Modules that one optimiser updates.

    With `prefix="cluster_"` the settings are `cluster_learning_rate`, `cluster_weight_decay`, constant SGD.
    """

    modules: tuple[str, ...]
    prefix: str = ""


@dataclass(frozen=True)
class Step:
    """One update: a loss and the optimiser groups that it trains."""

    loss: Loss
    groups: tuple[Group, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.modules)


@dataclass(frozen=True)
class Stage:
    """A frozen record of one training stage.

    Attributes:
        name: the first half of its dotted keys.
        step: what trains by which loss.
        keys: the hyperparameters that the stage reads.
        reads: modules that run in the loss without being trained (frozen).
        fresh: modules that start anew from the stage's seed.
        copies: `(module, source)`: modules that start with the weights of a module of the stage before.
        drop: modules of the stage before that are no longer needed.
        clusters: whether the model assigns clusters after this stage.
        numerics: raised when the loss's numbers change, so that stored results are not mixed.
    """

    name: str
    step: Step
    keys: tuple[str, ...]
    reads: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    clusters: bool = False
    numerics: int = 1


@dataclass(frozen=True)
class Method:
    """A clustering method, as `raymc.methods.METHODS` lists it.

    Attributes:
        stages: `(Config) -> stages`, since a key may say which modules a stage trains.
        stage_keys: the keys of each stage, in the order of the stages.
        build: `(module name, Config, input shape, n_clusters) -> module`, untrained, from torch's global generator.
        presets: `{dataset: {preset: {dotted key: value}}}`; `paper` is the default preset.
        features: `(model, x [n, ...]) -> {"pool", "pre_feature", "projection"}`, without augmentation.
        heads: `(model, x [n, ...]) -> (embedding [n, d], the cluster head's output [n, …] or None)`.
        assign: `(model, x [n, ...]) -> (labels [n], embedding [n, d])` for any points, old or new.
    """

    name: str
    stages: Callable[[Config], tuple[Stage, ...]]
    stage_keys: Mapping[str, tuple[str, ...]]
    build: Callable[[str, Config, tuple[int, ...], int], nn.Module]
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]]
    features: Callable[[nn.ModuleDict, Tensor], dict[str, Tensor]]
    heads: Callable[[nn.ModuleDict, Tensor], tuple[Tensor, Tensor | None]]
    assign: Callable[[nn.ModuleDict, Tensor], tuple[Tensor, Tensor]]


ASSIGNER = "assigner"
"""The module by which a model whose clusters were found from pairs of points labels other points (`raymc.nets`)."""


def labels_of(model: nn.ModuleDict, z: Tensor, cluster: Tensor | None) -> Tensor:
    """Labels `[n]` by the model's assigner, where it has one, else the largest of the cluster head's logits.

    Raises InputError where the model has neither.
    """
    if ASSIGNER in model:
        labels: Tensor = model[ASSIGNER](z, cluster)
        return labels
    if cluster is None:
        raise InputError("this model has no cluster head, and no clusters were found from its embedding")
    return cluster.argmax(1)


def trained_parameters(model: nn.ModuleDict, step: Step) -> list[torch.nn.Parameter]:
    """The parameters that a step updates, in a fixed order."""
    return [p for name in step.modules for p in model[name].parameters()]
