"""Which samples' embedding is kept after which epochs, for pictures of a training (figure A3 of DCRL)."""

from __future__ import annotations

import torch
from torch import Tensor

from raymc.rng import generator

SHARES = (0, 0.03, 0.07, 0.1, 0.23, 0.4, 0.53, 0.7, 0.83, 1)  # of a stage's epochs
POINTS = 1000


def snapshot_epochs(epochs: int) -> set[int]:
    """Epochs after which the embedding is kept, as in figure A3 of DCRL; 0 is before the first."""
    return {round(share * epochs) for share in SHARES}


def snapshot_rows(n: int) -> Tensor:
    """Positions of the samples whose embedding is kept, the same for all seeds."""
    return torch.randperm(n, generator=generator(0, "snapshots"))[:POINTS].sort().values
