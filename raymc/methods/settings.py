"""Settings that stages of several methods share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from raymc.config import StageConfig
from raymc.validation import STRICT, Whole

FeatureBank = Annotated[
    Whole,
    Field(
        ge=0,
        description="train behind the frozen backbone from its outputs for so many augmented views of each sample, "
        "computed once; 0: augment anew in every step",
    ),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CodingRate(StageConfig):
    """A loss that is a coding rate."""

    eps_sq: float = Field(default=0.2, gt=0, description="squared coding distortion (paper: epsilon)")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterHead(CodingRate):
    """A cluster head with an optimiser of its own, beside modules that may be frozen."""

    cluster_learning_rate: float = Field(default=0.5, gt=0, description="of the cluster head's own SGD, constant")
    cluster_weight_decay: float | None = Field(
        default=None, ge=0, description="of the cluster head; null: as weight_decay"
    )
    frozen_statistics: bool = Field(
        default=True, description="frozen modules' BatchNorm statistics stand still (published code: false)"
    )

    def unread(self) -> frozenset[str]:
        """Under Adam also the cluster head's SGD: there one optimiser has all modules."""
        own = {"cluster_learning_rate", "cluster_weight_decay"} if self.optimizer == "adam" else set()
        return super().unread() | own
