"""Evaluation on whole splits: labels, clustering scores, geometry of the embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from raymc import clusterers
from raymc.config import Config
from raymc.datasets import Dataset, Split
from raymc.methods.base import ASSIGNER, Method
from raymc.metrics import cluster_shares, clustering_scores
from raymc.metrics.geometry import geometry_scores, learnt_centre_agreement
from raymc.metrics.names import LABEL_METRICS
from raymc.metrics.spectra import Spectra, group_spectra
from raymc.metrics.subspace import rank_scores, rate_reduction, subspace_tables
from raymc.training.feature_bank import BankedStage
from raymc.training.feed import Feed
from raymc.training.inference import assign, heads, plain_inputs
from raymc.training.probing import downstream
from raymc.training.reference import reference_scores

WATCHED_SCORES = (*LABEL_METRICS, "rate_reduction", "rank_all", "rank_clusters", "rank_classes")
WATCHED = 2048  # samples that are clustered to watch a training whose head does not assign


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
