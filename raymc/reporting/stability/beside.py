"""A configuration's seeds beside k-means on the same samples."""

from __future__ import annotations

from pathlib import Path

from raymc.reporting.baseline import beside
from raymc.stability.reader import StabilityResult
from raymc.study.baseline import read_baseline
from raymc.study.records import Row


def beside_kmeans(run: StabilityResult) -> Row | None:
    """See `raymc.reporting.baseline.beside`; None with several arms, which are compared with each other."""
    if run.several:
        return None
    group = run.groups[0]
    folder = Path(str(group.result["folder"]))
    return beside(group.record, group.result.get("pairwise_ari"), read_baseline(folder))
