"""Classifiers on a trained model's features: how much of the classes is left in them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from raymc.datasets import Dataset
from raymc.methods.base import Method
from raymc.metrics.downstream import downstream_accuracies, held_out
from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy, svm_accuracy
from raymc.training.feed import Feed
from raymc.training.inference import features


def probes(
    method: Method, model: nn.ModuleDict, data: Dataset, feed: Feed, views: int, asked: str = "all"
) -> dict[str, dict[str, dict[str, float]]]:
    """Table 2: SVM, k-NN and nearest-subspace accuracy on the held-out split, by feature, plain and averaged.

    Fitted on the training split with its labels: figures about the features, not about the clustering. `asked` is the
    key `probe_features`; with `views` 0 there is no average.
    """
    if data.test is None or data.train.y is None or data.test.y is None:
        return {}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for title, count in {"plain": 0, f"average_{views}": views}.items() if views else (("plain", 0),):
        train = features(method, model, feed, data.train.x, count)
        test = features(method, model, feed, data.test.x, count)
        names = [name for name in train if asked == "all" or name in asked.replace(" ", "").split(",")]
        table[title] = {
            name: {
                "svm": svm_accuracy(train[name], data.train.y, test[name], data.test.y),
                "knn": knn_accuracy(train[name], data.train.y, test[name], data.test.y),
                "nearest_subspace": nearest_subspace_accuracy(train[name], data.train.y, test[name], data.test.y),
            }
            for name in names
        }
    return table


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
