"""Configurations of a study ranked by all label-free metrics together: the objective `rank_mean`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raymc.metrics.label_free import mean_rank
from raymc.metrics.names import RANKED


def rank_means(found: Sequence[Mapping[str, float]]) -> list[float]:
    """`mean_rank` of configurations with these metrics, by those of `RANKED` that all of them have.

    A rank compares: it changes with the configurations that it is among, so it is never stored as a figure of one.
    """
    names = [name for name in RANKED if all(name in metrics for metrics in found)]
    return mean_rank({name: [metrics[name] for metrics in found] for name in names}) if found else []
