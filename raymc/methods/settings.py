"""Settings that stages of several methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from raymc.config import Config, StageConfig
from raymc.errors import InputError
from raymc.methods.base import Group, Loss, Step
from raymc.validation import STRICT, Whole

FeatureBank = Annotated[
    Whole,
    Field(
        ge=0,
        description="train behind the frozen backbone from its outputs for so many augmented views of each sample, "
        "computed once; 0: augment anew in every step",
    ),
]

Augmentations = Annotated[
    Whole,
    Field(ge=0, description="augmented views of a sample in a step (MLC: A); 0: the sample as it is"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CodingRate(StageConfig):
    """A loss that is a coding rate."""

    eps_sq: float = Field(default=0.2, gt=0, description="squared coding distortion (paper: epsilon)")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterHead(CodingRate):
    """A cluster head with an optimiser of its own, beside modules that may be frozen."""

    NULL_MEANS: ClassVar[Mapping[str, str]] = {"cluster_weight_decay": "weight_decay"}

    cluster_learning_rate: float = Field(default=0.5, gt=0, description="of the cluster head's own SGD, constant")
    cluster_weight_decay: float | None = Field(
        default=None, ge=0, description="of the cluster head; null: as weight_decay"
    )
    frozen_statistics: bool = Field(
        default=True, description="frozen modules' BatchNorm statistics stand still (published code: false)"
    )

    def step(self, loss: Loss, modules: tuple[str, ...], head: tuple[str, ...]) -> Step:
        """The head has an SGD of its own (MLC, section D.2), but under Adam the published code has one for all."""
        if self.optimizer == "adam":
            return Step(loss, (Group((*modules, *head)),))
        return Step(loss, (Group(modules), Group(head, prefix="cluster_")))

    def unread(self) -> frozenset[str]:
        """Under Adam also the cluster head's SGD: there one optimiser has all modules."""
        own = {"cluster_learning_rate", "cluster_weight_decay"} if self.optimizer == "adam" else set()
        return super().unread() | own


def check_views(config: Config, stage: str) -> None:
    """Raises InputError where a stage weights the similarity of views between which there is no difference."""
    settings = config.stages[stage]
    weight: float = getattr(settings, "similarity_weight", 0.0)
    if config.views_alike and settings.epochs and weight:
        why = "nothing augments the samples, so that their views are the same and their similarity is a constant"
        raise InputError(
            f"{stage}.similarity_weight: {why}; set augmentation (vectors: or augment.noise, augment.dropout, "
            "augment.neighbours), or 0"
        )
