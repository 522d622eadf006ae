"""What a method is: stages as data, a way to build its model, presets, and what its model says of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.config import Config, StageConfig, Value
from raymc.datasets import Dataset
from raymc.distributed import Workers
from raymc.errors import InputError


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def _no_draws(name: str, width: int) -> Tensor:
    raise RuntimeError(f"{name}: nothing is drawn for this batch")


@dataclass(frozen=True)
class Facts:
    """What a preset may be made for: `n` samples of `shape`, `(d,)` or `(c, h, w)`, that are trained on.

    `clusters` is their number where it is known.
    """

    n: int
    shape: tuple[int, ...]
    clusters: int | None = None

    @staticmethod
    def of(dataset: Dataset) -> Facts:
        return Facts(len(dataset.train), tuple(dataset.train.x.shape[1:]), dataset.n_classes)


Preset = Mapping[str, Value]
"""Values by dotted key."""

Sized = Callable[[Facts], Preset]
"""A preset that is made for the data."""


@dataclass(frozen=True)
class Batch:
    """This worker's rows of one global batch.

    Attributes:
        views: augmented samples, one tensor `[b, ...]` per view.
        index: positions in the dataset, int64 `[b]`.
        uniform: `uniform(name, width)` draws `[b, width]` numbers in (0, 1), float32: this worker's rows
            of what one process would draw for the global batch at this seed, stage, epoch and step.
        normal: the same of N(0, 1).
        epoch: counted from 0.
        steps: how many batches the epoch has.
        state: what the stage observed of the whole dataset at the start of the epoch.
        counts: how many rows of it each worker has, by rank; None: not known, see `raymc.distributed.row_counts`.
    """

    views: tuple[Tensor, ...]
    index: Tensor
    uniform: Callable[[str, int], Tensor] = _no_draws
    normal: Callable[[str, int], Tensor] = _no_draws
    epoch: int = 0
    steps: int = 1
    state: Mapping[str, Tensor] = field(default_factory=dict)
    counts: tuple[int, ...] | None = None


class Whole(Protocol):
    """The whole training split as a network sees it, without augmentation, in blocks of rows."""

    @property
    def group(self) -> ProcessGroup | None:
        """The workers over which `blocks` are sharded."""

    @property
    def workers(self) -> Workers:
        """The same, who can also wait for one that is at work alone."""

    def __len__(self) -> int:
        """N, the samples of all workers."""

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions `[b]` and samples `[b, ...]` of this worker's share, in order."""

    def rows(self, index: Tensor) -> Tensor:
        """The samples `[b, ...]` at any positions, on the training device."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` of every block `[b, ...] -> [b, m]`, without gradient: `[N, m]` on every worker."""


Observe = Callable[[nn.ModuleDict, Whole, Any, int], dict[str, Tensor]]
"""`observe(model, whole, config, epoch) -> state`: what the losses of an epoch need to know of all samples.

Here and below `config` is the settings of the stage: of the class that `Method.stage_settings` names.
"""

Begin = Callable[[nn.ModuleDict, Whole, Any, int], None]
"""`begin(model, whole, config, seed)` sets weights from the data, in place, on every worker alike."""

Loss = Callable[[nn.ModuleDict, Batch, Any, ProcessGroup | None], tuple[Tensor, dict[str, Tensor]]]
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
    """One update: a loss and the optimiser groups that it trains.

    `active(config, epoch)` says in which epochs it is made.
    """

    loss: Loss
    groups: tuple[Group, ...]
    active: Callable[[Any, int], bool] = lambda config, epoch: True

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.modules)


@dataclass(frozen=True)
class Stage:
    """A frozen record of one training stage.

    Attributes:
        name: the first half of its dotted keys.
        step: what trains by which loss, once a batch.
        reads: modules that run in the loss without being trained (frozen).
        fresh: modules that start anew from the stage's seed.
        copies: `(module, source)`: modules that start with the weights of a module of the stage before.
        drop: modules of the stage before that are no longer needed.
        clusters: whether the model assigns clusters after this stage.
        begin: sets fresh modules from the data before the first epoch.
        observe: looks at all samples at the start of an epoch, for the losses.
        last: an update that follows the batches of an epoch, on all samples as one batch, by an optimiser of its own.
        numerics: raised when the loss's numbers change, so that stored results are not mixed.
    """

    name: str
    step: Step
    reads: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    clusters: bool = False
    begin: Begin | None = None
    observe: Observe | None = None
    last: Step | None = None
    numerics: int = 1

    @property
    def trained(self) -> tuple[str, ...]:
        """The modules that any of its steps trains."""
        after = self.last.modules if self.last else ()
        return tuple(dict.fromkeys((*self.step.modules, *after)))


@dataclass(frozen=True)
class Method:
    """A clustering method, as `raymc.methods.METHODS` lists it.

    Attributes:
        stages: `(Config) -> stages`, since a key may say which modules a stage trains.
        stage_settings: the class of each stage's settings, in the order of the stages.
        build: `(module name, Config, input shape, n_clusters) -> module`, untrained, from torch's global generator.
        presets: `{dataset: {preset: values}}`; those of `own` are for the user's own data and for all known datasets.
        features: `(model, x [n, ...]) -> {name: [n, m]}`, the features that probes look at, without augmentation.
        heads: `(model, x [n, ...]) -> (embedding [n, d], the cluster head's output [n, …] or None)`.
        probabilities: of the cluster head's output `[n, k]`, rows that sum to 1.
        unit_rows: whether the embedding is of directions (unit rows); else it is of points, whose distances count.
        autocasts: whether `precision: auto` is bfloat16 on a GPU that has it; else it is float32 on every device.
        default_preset: the one that a space means that names none.
        renamed_presets: names of before -> those of now; they are accepted for one version.
    """

    name: str
    stages: Callable[[Config], tuple[Stage, ...]]
    stage_settings: Mapping[str, type[StageConfig]]
    build: Callable[[str, Config, tuple[int, ...], int], nn.Module]
    presets: Mapping[str, Mapping[str, Preset | Sized]]
    features: Callable[[nn.ModuleDict, Tensor], dict[str, Tensor]]
    heads: Callable[[nn.ModuleDict, Tensor], tuple[Tensor, Tensor | None]]
    probabilities: Callable[[Tensor], Tensor] = _softmax
    unit_rows: bool = True
    autocasts: bool = True
    default_preset: str = "paper"
    renamed_presets: Mapping[str, str] = field(default_factory=dict)


UNKNOWN = Facts(10_000, (64,))


def preset_values(preset: Preset | Sized, facts: Facts | None = None) -> Preset:
    """The values of a preset for data of which `facts` hold; None: they have not been read yet."""
    return preset(facts or UNKNOWN) if callable(preset) else preset


ASSIGNER = "assigner"
"""The module by which a model whose clusters were found by `raymc.clusterers` labels other points."""


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


def confidence_of(method: Method, model: nn.ModuleDict, z: Tensor, cluster: Tensor | None, labels: Tensor) -> Tensor:
    """How clearly points belong to the clusters `labels` int64 `[n]`: `[n]` in 0..1.

    By the model's assigner, where it has one (see `raymc.clusterers.base.Assigner.confidence`), else the probability
    that the cluster head gives the label.
    """
    if ASSIGNER in model:
        assigner: Any = model[ASSIGNER]
        found: Tensor = assigner.confidence(z, cluster, labels)
        return found
    assert cluster is not None, "labels came from somewhere"
    return method.probabilities(cluster).gather(1, labels.unsqueeze(1)).squeeze(1)


def trained_parameters(model: nn.ModuleDict, modules: Iterable[str]) -> list[torch.nn.Parameter]:
    """The parameters of these modules, in a fixed order."""
    return [p for name in modules for p in model[name].parameters()]
