"""What every clusterer gives: the labels of the samples that it saw, and a module that labels others alike."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from raymc.errors import InputError


@dataclass(frozen=True)
class Clusters:
    """Labels int64 `[m]` of the samples that were clustered, and the module that labels others.

    The assigner is called with (z `[n, d]`, output of the cluster head `[n, d']` or None) and returns int64 `[n]`; its
    buffers travel with the model.
    """

    labels: Tensor
    assigner: nn.Module


def check_count(n_clusters: int, n: int) -> None:
    """Raises InputError for more clusters than points."""
    if n_clusters > n:
        raise InputError(f"{n_clusters} clusters of {n} points: there must be at least as many points")
