"""Classifiers on a trained model's features: how much of the classes is left in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raymc.datasets import Dataset
from raymc.distributed import leads
from raymc.methods.base import Method
from raymc.metrics.downstream import downstream_accuracies, held_out
from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy, svm_accuracy
from raymc.training.feed import Feed
from raymc.training.inference import features
from raymc.training.transfer import fetched

Table = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Probed:
    """Features `[n, m]` of the training and the held-out split, on the CPU, and what was measured on the device."""

    train: Tensor
    test: Tensor
    accuracies: Mapping[str, float]


def probe_features(
    method: Method, model: nn.ModuleDict, data: Dataset, feed: Feed, views: int, asked: str = "all"
) -> dict[str, dict[str, Probed]]:
    """By `plain` and averaged, then by name: features, their k-NN and nearest-subspace accuracy on the held-out split.

    All workers see the samples, and the first one has the result; nothing on the others, and without labels. `asked`
    is the key `probe_features`; with `views` 0 there is no average.
    """
    y, held_out = data.train.y, data.test
    if held_out is None or y is None or held_out.y is None:
        return {}
    found = {}
    for title, count in {"plain": 0, f"average_{views}": views}.items() if views else (("plain", 0),):
        splits = (feed.samples, held_out.x)
        feed.workers.meet()  # the first one finds clusters and classifies, which may take long
        train, test = (features(method, model, feed, x, count, feed.workers) for x in splits)
        if not leads(feed.group):
            continue
        names = [name for name in train if asked == "all" or name in asked.replace(" ", "").split(",")]
        found[title] = {name: _probed(train[name], y, test[name], held_out.y) for name in names}
    return found


def _probed(train: Tensor, y: Tensor, test: Tensor, test_y: Tensor) -> Probed:
    accuracies = {
        "knn": knn_accuracy(train, y, test, test_y),
        "nearest_subspace": nearest_subspace_accuracy(train, y, test, test_y),
    }
    return Probed(accuracies=accuracies, **fetched({"train": train, "test": test}))


def probes(found: Mapping[str, Mapping[str, Probed]], data: Dataset) -> Table:
    """Table 2: SVM, k-NN and nearest-subspace accuracy on the held-out split, by feature, plain and averaged.

    Fitted on the training split with its labels: figures about the features, not about the clustering.
    """
    y, test_y = data.train.y, None if data.test is None else data.test.y
    if y is None or test_y is None:
        return {}
    return {
        title: {
            name: {"svm": svm_accuracy(one.train, y, one.test, test_y), **one.accuracies} for name, one in rows.items()
        }
        for title, rows in found.items()
    }


def probe_metrics(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The figures of `probes` by one name each: `svm_projection`, `svm_projection_averaged`, …"""
    return {
        f"{probe}_{feature}{'' if title == 'plain' else '_averaged'}": value
        for title, rows in table.items()
        for feature, found in rows.items()
        for probe, value in found.items()
    }


def downstream(data: Dataset, z: Tensor, test_z: Tensor | None, seed: int) -> dict[str, float]:
    """`downstream_mlp`, … of classifiers fitted on z of the training split; nothing without labels.

    They are tested on the held-out split or, without one, on a fifth of the training split, the same for all seeds.
    """
    y, test = data.train.y, data.test
    if y is None:
        return {}
    if test is not None and test.y is not None and test_z is not None:
        found = downstream_accuracies(z, y, test_z, test.y, seed)
    else:
        fitted, asked = held_out(y)
        found = downstream_accuracies(z[fitted], y[fitted], z[asked], y[asked], seed)
    return {f"downstream_{name}": value for name, value in found.items()}
