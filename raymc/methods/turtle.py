"""TURTLE (Gadetsky, Jiang and Brbić, "Let go of your labels with unsupervised transfer", ICML 2024).

A linear head on a representation that is given labels every sample; good labels are those that a fresh linear
classifier learns in few steps, with clusters of about equal size.
    task       CE(fitted classifier, labels) - gamma H(mean label)       eq. 12
The representation is the samples as they are, of one space (the paper also averages the labels of several). Its code
draws each batch anew; here an epoch goes through all samples.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.utils.parametrizations import weight_norm

from raymc.config import Config, StageConfig, Value
from raymc.errors import InputError
from raymc.methods import plain
from raymc.methods.base import Batch, Facts, Group, Method, Preset, Stage, Step
from raymc.methods.settings import Augmentations
from raymc.ops import turtle_objective
from raymc.validation import STRICT, Whole


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task(StageConfig):
    """Settings of eq. 12."""

    augmentations: Augmentations = 0
    entropy_weight: float = Field(default=10.0, ge=0, description="weight of the mean label's entropy (TURTLE: gamma)")
    inner_steps: Whole = Field(default=10, ge=1, description="steps of the fresh classifier (TURTLE: M)")
    inner_learning_rate: float = Field(default=1e-3, gt=0, description="of the fresh classifier's Adam")


STAGES: dict[str, type[StageConfig]] = {"task": Task}


def preset(n: int, steps: int, batch_size: int) -> dict[str, Value]:
    """The published settings with about so many updates of the head for `n` samples."""
    epochs = max(1, round(steps / max(1, n // batch_size)))
    return {
        "backbone": plain.IDENTITY,
        "clustering": "head",
        "evaluate_every": max(10, epochs // 10),
        "task.epochs": epochs,
        "task.batch_size": batch_size,
        "task.optimizer": "adam",
        "task.learning_rate": 1e-3,
        "task.adam_beta2": 0.999,
        "task.weight_decay": 0.0,
        "task.schedule": "constant",
        "task.augmentations": 0,
    }


def turtle_loss(
    model: nn.ModuleDict, batch: Batch, config: Task, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12 on a batch, in single precision at least."""
    x = batch.views[0]
    with torch.autocast(x.device.type, enabled=False):
        z, logits = heads(model, x)
        inner = (config.inner_steps, config.inner_learning_rate)
        return turtle_objective(logits, z, config.entropy_weight, *inner, group, batch.counts)


def stages(config: Config) -> tuple[Stage, ...]:
    """One. Raises InputError for a net, for another assignment than the head's, and for several views of a sample."""
    plain.check_identity(config)
    if config.clustering != "head":
        raise InputError(f"clustering: turtle assigns by its head, not by {config.clustering}")
    if config.stages["task"].augmentations > 1:
        raise InputError("task.augmentations: turtle reads one view of a sample; it is 0 or 1")
    return (Stage("task", Step(turtle_loss, (Group(("task",)),)), reads=("encoder",), clusters=True),)


def build_module(name: str, config: Config, input_shape: tuple[int, ...], n_clusters: int) -> nn.Module:
    """`encoder`, which flattens samples `[b, ...]` to `[b, d]`, and `task`, which gives logits `[b, n_clusters]`.

    The head is weight-normed, without which it does not train well (so the published code).
    """
    if name == "task":
        head: nn.Module = weight_norm(nn.Linear(math.prod(input_shape), n_clusters))
        return head
    return plain.build_module(name, config, input_shape, n_clusters)


def heads(model: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor]:
    """The flat samples `[n, d]` and their logits `[n, k]`, of samples `[n, ...]`."""
    z = model["encoder"](x)
    return z, model["task"](z)


FAST: dict[str, Value] = {"task.learning_rate": 1e-2, "task.inner_learning_rate": 5e-2}
"""For few dimensions and few steps. Ten steps of 1e-3 move a classifier's logits by a hundredth of a sample's
sum of |features| at most, which is little below some hundred of these. Chosen with labels on seeds 0 and 1 of the
digits and of 3,000 rows of Pendigits, in 200 to 600 steps: ACC 0.80 and 0.82 on the digits against 0.52 and 0.45
with the published rates, 0.76 on Pendigits against 0.62 with 1e-2 for both; and 0.90 against 0.82 on 1,280 drawn
columns of unit rows."""


def own(facts: Facts) -> Preset:
    """1,500 updates on 2,000 samples each, which suits two cores."""
    return preset(facts.n, 1_500, 2_000) | FAST


def paper(facts: Facts) -> Preset:
    """As published: 6,000 updates on 10,000 samples each."""
    return preset(facts.n, 6_000, 10_000)


METHOD = Method(
    name="turtle",
    stages=stages,
    stage_settings=STAGES,
    build=build_module,
    presets={"own": {"own": own, "paper": paper}},
    features=plain.features,
    heads=heads,
    unit_rows=False,
    default_preset="own",
)
