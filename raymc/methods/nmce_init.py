"""Where NMCE's cluster head may start: at the clusters that k-means finds in what the head sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raymc.clusterers.kmeans import kmeans
from raymc.methods.base import Whole
from raymc.rng import derive_seed, generator, seed32

KMEANS_STARTS = 10
MOST_POINTS = 10_000
MARGIN = 4.0
"""By which a sample's largest logit exceeds the next one, in the median: clear, and still moved by training."""


def pre_features(model: nn.ModuleDict, x: Tensor) -> Tensor:
    """What the heads see, `[b, m]`, of samples `[b, ...]`."""
    h: Tensor = model["pre_feature"](model["backbone"](x))
    return h


def kmeans_head(model: nn.ModuleDict, whole: Whole, config: object, seed: int) -> None:
    """Set the cluster head so that a sample's largest logit is that of the nearest centre of k-means, in place.

    With centres c_j of the pre-features h the logits are (h'c_j - |c_j|^2 / 2) / s, where s makes their median margin
    MARGIN. The paper starts at random weights; the cluster rate of eq. 4 has optima that cut or join clusters, and
    from there many seeds end in one (reports/2026-11-29-nmce-head).
    """
    h = whole.map(lambda x: pre_features(model, x))
    head = model["cluster"]
    assert isinstance(head, nn.Linear)
    found = whole.workers.by_first(lambda: nearest_centre_layer(h, head.out_features, seed))
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), found, strict=True):
            parameter.copy_(value.to(parameter))


def nearest_centre_layer(h: Tensor, n_clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights `[k, m]` and biases `[k]`, float64, of rows `[n, m]`; k-means is on MOST_POINTS of them at most."""
    chosen = torch.randperm(len(h), generator=generator(seed, "cluster_init"))[:MOST_POINTS].sort().values
    points = h.double().cpu()[chosen]
    middle = points.mean(0)
    points = points - middle
    number = seed32(derive_seed(seed, "cluster_init"))
    centres = torch.as_tensor(kmeans(points.float().numpy(), n_clusters, number, KMEANS_STARTS)[1]).double()
    bias = -centres.square().sum(1) / 2
    margin = 0.0
    if n_clusters > 1:
        best = (points @ centres.T + bias).topk(2).values
        margin = (best[:, 0] - best[:, 1]).median().item()
    scale = MARGIN / margin if margin > 0 else 1.0  # points that coincide have no margin
    return scale * centres, scale * (bias - centres @ middle)
