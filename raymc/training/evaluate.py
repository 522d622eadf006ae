"""Evaluation on whole splits: labels, clustering scores, geometry of the embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raymc import clusterers
from raymc.config import Config
from raymc.datasets import Dataset, Split
from raymc.distributed import leads
from raymc.methods.base import ASSIGNER, Method
from raymc.metrics import cluster_shares, clustering_scores
from raymc.metrics.geometry import geometry_scores, learnt_centre_agreement
from raymc.metrics.names import LABEL_METRICS
from raymc.metrics.spectra import Spectra, group_spectra
from raymc.metrics.subspace import rank_scores, rate_reduction
from raymc.ops.uploads import uploaded
from raymc.training import inference
from raymc.training.feature_bank import BankedStage
from raymc.training.feed import Feed
from raymc.training.probing import downstream
from raymc.training.reference import reference_scores
from raymc.training.transfer import fetched, rows_at

WATCHED_SCORES = (*LABEL_METRICS, "rate_reduction", "rank_all", "rank_clusters", "rank_classes")
WATCHED = 2048  # samples that are clustered to watch a training whose head does not assign


@dataclass(frozen=True)
class Evaluation:
    """What the device is needed for, of a model on the paper's split and the held-out one; all of it on the CPU.

    Attributes:
        arrays: `labels`, `ruled`, `confidence` and `embedding` (as in `Assigned`), `test_labels`, `test_confidence`.
            Where clusters were found among a part of the samples, `clustered` are their positions; where the number
            of clusters was looked for, `coding_lengths` `[m, 2]` has a number and its length in each row.
        test_z: the embedding of the held-out split.
        metrics: how clusters were found; ranks, rate reduction, geometry.
        spectra: of the embedding and of its clusters.
    """

    arrays: dict[str, Tensor]
    test_z: Tensor | None
    metrics: dict[str, float]
    spectra: tuple[Spectra, Spectra]
    n_clusters: int


def watched(
    method: Method, model: nn.ModuleDict, config: Config, data: Dataset, feed: Feed, n_clusters: int, seed: int
) -> dict[str, float]:
    """What an epoch's evaluation records: scores, rate reduction, numerical ranks; all workers see the samples.

    On the first worker, nothing on the others. Where the head does not assign they are of at most 2048 samples,
    clustered anew, which may raise TrainingError.
    """
    split, x = data.train, feed.samples
    if config.clustering == "head":
        assigned = inference.assign(method, model, feed, x, feed.workers)
        labels, z = assigned.labels, assigned.z
    else:
        rows = clusterers.chosen_rows(config, len(split), WATCHED)
        split, x = split.rows(rows), rows_at(x, uploaded(rows, x.device), feed.device)
        z, c = inference.heads(method, model, feed, x, feed.workers)
    if not leads(feed.group):
        return {}
    if config.clustering != "head":
        labels = _find(config, z, c, n_clusters, seed, method.unit_rows).labels
    labels = labels.cpu()
    y = () if split.y is None else (split.y,)
    spectra, reduction = _spectra(z.float(), method.unit_rows, labels, *y)
    return scores(split, labels) | {"rate_reduction": reduction} | rank_scores(*spectra)


def scores(split: Split, labels: Tensor, prefix: str = "") -> dict[str, float]:
    """ACC, NMI and ARI of `labels`, or nothing where the split has no labels."""
    if split.y is None:
        return {}
    return {f"{prefix}{name}": value for name, value in clustering_scores(split.y, labels).items()}


def evaluate_model(
    method: Method,
    model: nn.ModuleDict,
    config: Config,
    data: Dataset,
    feed: Feed,
    n_clusters: int,
    seed: int,
    banked: BankedStage | None = None,
) -> Evaluation | None:
    """Clusters and embedding of both splits, by one pass over the samples in which all workers take part.

    None on all workers but the first. Where clusters are found among samples, the model gets the assigner that labels
    others. With `banked`, samples are seen through the bank of a frozen backbone.
    """
    net, seen, its_feed = (banked.model, banked.data, banked.feed) if banked else (model, data, feed)
    splits = [its_feed.samples, *([] if seen.test is None else [seen.test.x])]
    by_head = config.clustering == "head"
    one_pass: Callable[..., Any] = inference.assign if by_head else inference.heads
    found = [one_pass(method, net, its_feed, x, feed.workers) for x in splits]
    if not leads(feed.group):
        return None
    facts: Mapping[str, float] = {}
    arrays: dict[str, Tensor] = {}
    if not by_head:
        rows = clusterers.chosen_rows(config, len(data.train))
        clusters = _find(config, *_rows_of(found[0], rows), n_clusters, seed, method.unit_rows)
        model[ASSIGNER] = net[ASSIGNER] = clusters.assigner
        known = [(rows, clusters.labels), None]
        found = [inference.assigned(method, net, z, c, own) for (z, c), own in zip(found, known, strict=False)]
        facts, arrays = clusters.facts, _arrays_of(clusters, rows, len(data.train))
    train, *test = found
    there = {"labels": train.labels, "ruled": train.ruled, "confidence": train.confidence, "embedding": train.z}
    for one in test:
        there |= {"test_labels": one.labels, "test_confidence": one.confidence, "test_z": one.z}
    arrays |= fetched(there)
    spectra, reduction = _spectra(train.z, method.unit_rows, arrays["labels"])
    metrics = {**facts, "embedding_rank": float(spectra[0].ranks()[0]), "rate_reduction": reduction}
    if config.geometry:
        metrics |= preserved_geometry(feed, model, train.z, arrays["labels"])
    test_z, count = arrays.pop("test_z", None), int(facts.get("clusters_found", n_clusters))
    return Evaluation(arrays, test_z, metrics, (spectra[0], spectra[1]), count)


def final_metrics(found: Evaluation, config: Config, data: Dataset, feed: Feed, seed: int) -> dict[str, float]:
    """All metrics of an evaluation: those that it has, and what is work for the CPU, as `feed` should be on it.

    Where clusters were found among a part of the split, `clustered_acc`, … are on that alone.
    """
    arrays, metrics = found.arrays, dict(found.metrics)
    labels = arrays["labels"]
    if "clustered" in arrays:
        metrics |= scores(data.train.rows(arrays["clustered"]), labels[arrays["clustered"]], "clustered_")
    metrics |= scores(data.train, labels)
    if data.test is not None:
        metrics |= scores(data.test, arrays["test_labels"], "test_")
    metrics |= cluster_shares(labels, found.n_clusters) | reference_scores(data, feed, labels)
    if config.downstream:
        metrics |= downstream(data, arrays["embedding"], found.test_z, seed)
    return metrics


def preserved_geometry(feed: Feed, model: nn.ModuleDict, z: Tensor, labels: Tensor) -> dict[str, float]:
    """GCML's six scores of the embedding z `[n, d]` of the samples, as the network sees them, and found labels `[n]`.

    A model with centres of its own has a seventh, `cra_centers`.
    """
    device = feed.device if feed.device.type == "cuda" else torch.device("cpu")
    inputs = inference.plain_inputs(feed, feed.samples).to(device)
    found = geometry_scores(inputs, z.to(device), labels)
    if "centers" in model:
        found["cra_centers"] = learnt_centre_agreement(inputs, labels, model["centers"]().to(device))
    return found


def _find(
    config: Config, z: Tensor, c: Tensor | None, n_clusters: int, seed: int, unit_rows: bool
) -> clusterers.Clusters:
    """See `raymc.clusterers.find`, which is of float32."""
    return clusterers.find(config, z.float(), None if c is None else c.float(), n_clusters, seed, unit_rows)


def _rows_of(outputs: tuple[Tensor, Tensor | None], rows: Tensor) -> tuple[Tensor, Tensor | None]:
    z, c = outputs
    index = uploaded(rows, z.device)
    return z[index], None if c is None else c[index]


def _arrays_of(clusters: clusterers.Clusters, rows: Tensor, n: int) -> dict[str, Tensor]:
    """What an evaluation says of clusters found among the samples at `rows` of n."""
    lengths = torch.tensor(list(clusters.coding_lengths.items()), dtype=torch.float64)
    found = {"coding_lengths": lengths} if len(lengths) else {}
    return found | ({"clustered": rows} if len(rows) < n else {})


def _spectra(z: Tensor, unit_rows: bool, *labels: Tensor) -> tuple[list[Spectra], float]:
    """Spectra of z `[n, d]` and of its groups by each of `labels` `[n]`; the rate reduction of the first ones.

    That is of directions: rows that are not of length 1 are scaled to it.
    """
    spectra = group_spectra(z, *labels)
    directions = spectra if unit_rows else group_spectra(nn.functional.normalize(z, dim=1), labels[0])
    return spectra, rate_reduction(*directions[:2])
