"""Evaluation on whole splits: labels, clustering scores, geometry of the embedding, probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raymc import clusterers
from raymc.config import Config
from raymc.datasets import Dataset, Split
from raymc.methods.base import ASSIGNER, Method, confidence_of, labels_of
from raymc.metrics import cluster_shares, clustering_scores
from raymc.metrics.downstream import downstream_accuracies, held_out
from raymc.metrics.geometry import geometry_scores, learnt_centre_agreement
from raymc.metrics.names import LABEL_METRICS
from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy, svm_accuracy
from raymc.metrics.spectra import Spectra, group_spectra
from raymc.metrics.subspace import rank_scores, rate_reduction, subspace_tables
from raymc.ops.blocks import ROWS, in_blocks
from raymc.rng import generator
from raymc.training.feature_bank import BankedStage
from raymc.training.feed import Feed, Inputs
from raymc.training.reference import reference_scores

HEADS = ("projection", "subspace")  # features with unit rows
PROBE_ROWS = 1024  # samples whose views are drawn together: the figures of probes depend on it
WATCHED_SCORES = (*LABEL_METRICS, "rate_reduction", "rank_all", "rank_clusters", "rank_classes")
SNAPSHOTS = (0, 0.03, 0.07, 0.1, 0.23, 0.4, 0.53, 0.7, 0.83, 1)  # shares of a stage's epochs
SNAPSHOT_POINTS = 1000
WATCHED = 2048  # samples that are clustered to watch a training whose head does not assign


@torch.no_grad()
def features(method: Method, model: nn.ModuleDict, feed: Feed, x: Tensor, views: int = 0) -> dict[str, Tensor]:
    """Features of samples `[n, …]` in eval mode, on the CPU; means over `views` augmented passes (0: plain).

    A head's unit rows are normalised again after averaging, other features are not, as in the published code.
    """

    def of(index: Tensor) -> dict[str, Tensor]:
        rows = x[index]
        inputs = [feed.augmented(rows, "probe", v, int(index[0])) for v in range(views)] or [feed.plain(rows)]
        passes = [method.features(model, one) for one in inputs]
        return {name: torch.stack([p[name].float() for p in passes]).mean(0).cpu() for name in passes[0]}

    whole = _mapped(model, of, torch.arange(len(x)), PROBE_ROWS)
    heads = {name: nn.functional.normalize(whole[name], dim=1) for name in HEADS if name in whole}
    return whole | heads


@dataclass(frozen=True)
class Assigned:
    """Of n samples, on the CPU: labels int64 `[n]`, confidence in 0..1 `[n]`, embedding float32 `[n, d]`.

    `ruled` `[n]` are the labels by the model's own rule, which are others only where a sample's label was `known`.
    """

    labels: Tensor
    ruled: Tensor
    confidence: Tensor
    z: Tensor


@torch.no_grad()
def assign(
    method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor, known: tuple[Tensor, Tensor] | None = None
) -> Assigned:
    """Clusters and embedding of samples `[n, …]` in eval mode.

    `known` has positions `[m]` and labels `[m]` of samples that were clustered themselves: they keep their labels.
    """
    given = torch.full((len(x),), -1)
    if known is not None:
        given[known[0]] = known[1]

    def of(index: Tensor) -> dict[str, Tensor]:
        inputs = feed.plain(x[int(index[0]) : int(index[-1]) + 1] if len(index) else x[:0])
        z, c = method.heads(model, inputs)
        own, ruled = given[index].to(z.device), labels_of(model, z, c)
        labels = torch.where(own < 0, ruled, own)
        sure = confidence_of(method, model, z, c, labels)
        found = {"labels": labels, "ruled": ruled, "confidence": sure.float(), "z": z.float()}
        return {name: value.cpu() for name, value in found.items()}

    return Assigned(**_mapped(model, of, torch.arange(len(x))))


@torch.no_grad()
def heads(method: Method, model: nn.ModuleDict, feed: Inputs, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embedding `[n, d]` of samples and the cluster head's output, in eval mode, on the training device, float32."""

    def of(rows: Tensor) -> dict[str, Tensor]:
        z, c = method.heads(model, feed.plain(rows))
        return {"z": z.float()} | ({} if c is None else {"c": c.float()})

    found = _mapped(model, of, x)
    return found["z"], found.get("c")


def watched(
    method: Method, model: nn.ModuleDict, config: Config, data: Dataset, feed: Feed, n_clusters: int, seed: int
) -> dict[str, float]:
    """What an epoch's evaluation records: scores, rate reduction, numerical ranks.

    Where the head does not assign they are of at most 2048 samples, clustered anew, which may raise TrainingError.
    """
    split = data.train
    if config.clustering == "head":
        assigned = assign(method, model, feed, split.x)
        labels, z = assigned.labels, assigned.z
    else:
        split = split.rows(clusterers.chosen_rows(config, len(split), WATCHED))
        z, c = heads(method, model, feed, split.x)
        labels = clusterers.find(config, z, c, n_clusters, seed, method.unit_rows).labels
    y = () if split.y is None else (split.y,)
    spectra, reduction = _spectra(z.to(feed.device), method.unit_rows, labels, *y)
    return scores(split, labels) | {"rate_reduction": reduction} | rank_scores(*spectra)


def plain_inputs(feed: Feed, x: Tensor) -> Tensor:
    """Samples as the network sees them, flat `[n, d]`, float32, on the CPU."""
    return in_blocks(lambda rows: feed.plain(rows).flatten(1).float().cpu(), x)


def snapshot_epochs(epochs: int) -> set[int]:
    """Epochs after which the embedding is kept, as in figure A3 of DCRL; 0 is before the first."""
    return {round(share * epochs) for share in SNAPSHOTS}


def snapshot_rows(n: int) -> Tensor:
    """Positions of the samples whose embedding is kept, the same for all seeds."""
    return torch.randperm(n, generator=generator(0, "snapshots"))[:SNAPSHOT_POINTS].sort().values


def scores(split: Split, labels: Tensor, prefix: str = "") -> dict[str, float]:
    """ACC, NMI and ARI of `labels`, or nothing where the split has no labels."""
    if split.y is None:
        return {}
    return {f"{prefix}{name}": value for name, value in clustering_scores(split.y, labels).items()}


def final_metrics(
    method: Method,
    model: nn.ModuleDict,
    config: Config,
    data: Dataset,
    feed: Feed,
    n_clusters: int,
    seed: int,
    banked: BankedStage | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics on the paper's split and the held-out one, and the arrays behind them (labels, embedding).

    Where the number of clusters was looked for, `coding_lengths` `[m, 2]` is among the arrays: a number, its length;
    `ruled` is as in `Assigned`.

    Where clusters are found among samples, the model gets the assigner that labels others, and where those samples
    are a part of the split, `clustered_acc`, … are on them alone. With `banked`, samples are seen through the bank of
    a frozen backbone.
    """
    arrays: dict[str, Tensor] = {}
    metrics: dict[str, float] = {}
    net, seen, its_feed = (banked.model, banked.data, banked.feed) if banked else (model, data, feed)
    known = None
    if config.clustering != "head":
        rows = clusterers.chosen_rows(config, len(data.train))
        chosen = seen.train.rows(rows)
        found = clusterers.find(config, *heads(method, net, its_feed, chosen.x), n_clusters, seed, method.unit_rows)
        model[ASSIGNER] = net[ASSIGNER] = found.assigner
        metrics |= found.facts
        n_clusters = int(found.facts.get("clusters_found", n_clusters))
        known = rows, found.labels.cpu()
        if found.coding_lengths:
            arrays["coding_lengths"] = torch.tensor(list(found.coding_lengths.items()), dtype=torch.float64)
        if len(rows) < len(data.train):
            metrics |= scores(chosen, found.labels, "clustered_")
            arrays["clustered"] = rows
    assigned = assign(method, net, its_feed, seen.train.x, known)
    labels, z = assigned.labels, assigned.z
    metrics |= scores(data.train, labels)
    arrays |= {"labels": labels, "ruled": assigned.ruled, "confidence": assigned.confidence, "embedding": z}
    test_z = None
    if data.test is not None and seen.test is not None:
        of_test = assign(method, net, its_feed, seen.test.x)
        test_z = of_test.z
        arrays |= {"test_labels": of_test.labels, "test_confidence": of_test.confidence}
        metrics |= scores(data.test, of_test.labels, "test_")
    metrics |= cluster_shares(labels, n_clusters)
    spectra, reduction = _spectra(z.to(feed.device), method.unit_rows, labels)
    metrics |= {"embedding_rank": float(spectra[0].ranks()[0]), "rate_reduction": reduction}
    metrics |= reference_scores(data, feed, labels)
    if config.geometry:
        metrics |= preserved_geometry(feed, model, data.train.x, z, labels)
    if config.downstream:
        metrics |= downstream(data, z, test_z, seed)
    return metrics, arrays


def preserved_geometry(feed: Feed, model: nn.ModuleDict, x: Tensor, z: Tensor, labels: Tensor) -> dict[str, float]:
    """GCML's six scores of the embedding z `[n, d]` of samples x, as the network sees them, and found labels `[n]`.

    A model with centres of its own has a seventh, `cra_centers`.
    """
    device = feed.device if feed.device.type == "cuda" else torch.device("cpu")
    inputs = plain_inputs(feed, x).to(device)
    found = geometry_scores(inputs, z.to(device), labels)
    if "centers" in model:
        found["cra_centers"] = learnt_centre_agreement(inputs, labels, model["centers"]().to(device))
    return found


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


def geometry(z: Tensor, labels: Tensor, y: Tensor | None) -> dict[str, Any]:
    """The tables of `subspace_tables`."""
    return subspace_tables(z, labels, y, *group_spectra(z, labels))


def _spectra(z: Tensor, unit_rows: bool, *labels: Tensor) -> tuple[list[Spectra], float]:
    """Spectra of z `[n, d]` and of its groups by each of `labels` `[n]`; the rate reduction of the first ones.

    That is of directions: rows that are not of length 1 are scaled to it.
    """
    spectra = group_spectra(z, *labels)
    directions = spectra if unit_rows else group_spectra(nn.functional.normalize(z, dim=1), labels[0])
    return spectra, rate_reduction(*directions[:2])


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


def _mapped(
    model: nn.ModuleDict, function: Callable[[Tensor], dict[str, Tensor]], x: Tensor, rows: int = ROWS
) -> dict[str, Tensor]:
    """See `in_blocks`, with the model in eval mode meanwhile."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    found = in_blocks(function, x, rows)
    for module, training in modes:
        module.training = training
    return found
