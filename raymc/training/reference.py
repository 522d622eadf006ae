"""The reference space of a dataset, which all trainings of a process share, and the scores of found clusters in it."""

from __future__ import annotations

from torch import Tensor

from raymc.datasets import Dataset
from raymc.metrics.label_free import Array, label_free_scores, reduced, reference_rows, reference_space
from raymc.ops.blocks import in_blocks
from raymc.training.feed import Feed

_spaces: dict[tuple[str, str, int], Array] = {}
"""The last space, by the samples and the policy that scales inputs: a study needs one."""


def reference_scores(data: Dataset, feed: Feed, labels: Tensor) -> dict[str, float]:
    """`silhouette` and `probe` of the clusters `[n]` found for the training split: see `raymc.metrics.label_free`."""
    rows = reference_rows(len(data.train))
    return label_free_scores(_space(data, feed, rows), labels[rows])


def _space(data: Dataset, feed: Feed, rows: Tensor) -> Array:
    key = (data.fingerprint, feed.augmentation, len(data.train))
    if key not in _spaces:
        inputs = in_blocks(lambda index: reduced(feed.plain(data.train.x[index])), rows)
        _spaces.clear()
        _spaces[key] = reference_space(inputs)
    return _spaces[key]
