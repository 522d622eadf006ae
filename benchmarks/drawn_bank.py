"""A feature bank of given numbers, for benchmarks without a backbone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from raymc.datasets import Dataset


@dataclass(frozen=True)
class DrawnBank:
    """What a stage behind it sees (see `raymc.training.feature_bank.Outputs`): outputs `[n, p]` as samples, and V views."""

    data: Dataset
    views: tuple[Tensor, ...]
