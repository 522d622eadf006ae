"""NMCE's cluster head, started by k-means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from raymc.config import resolve
from raymc.datasets import load
from raymc.distributed import Workers
from raymc.methods import nmce
from raymc.methods.nmce_init import KMEANS_STARTS, MARGIN, MOST_POINTS, kmeans_head, nearest_centre_layer
from raymc.training.feed import Feed

K = 5


def groups(n: int = 200, width: int = 8, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in K groups that overlap a little, and the group of each."""
    draw = np.random.default_rng(3)
    y = np.arange(n) % K
    rows = draw.normal(size=(K, width))[y] * 3 + draw.normal(size=(n, width)) + offset
    return torch.as_tensor(rows), torch.as_tensor(y)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_largest_logit_is_that_of_the_nearest_centre_and_its_margin_is_set(offset: float) -> None:
    h, _ = groups(offset=offset)
    weight, bias = nearest_centre_layer(h, K, 7)
    logits = h @ weight.T + bias
    model = KMeans(K, n_init=KMEANS_STARTS, random_state=0).fit((h - offset).float().numpy())
    found, theirs = logits.argmax(1).numpy(), model.labels_
    assert len({*zip(found, theirs, strict=True)}) == K, "the same clusters, in another order"
    best = logits.topk(2).values
    assert (best[:, 0] - best[:, 1]).median().item() == pytest.approx(MARGIN, rel=1e-6)


def test_seeds_give_the_order_and_the_same_seed_the_same_layer() -> None:
    h, _ = groups()
    first, again = (nearest_centre_layer(h, K, 1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], nearest_centre_layer(h, K, 2)[0])


@pytest.mark.parametrize(
    "h, clusters",
    [(torch.ones(6, 3), 2), (torch.zeros(6, 3), 3), (groups()[0], 1), (groups(n=6)[0], 6)],
    ids=["all alike", "all 0", "one cluster", "as many clusters as points"],
)
def test_odd_samples_give_finite_weights(h: torch.Tensor, clusters: int) -> None:
    weight, bias = nearest_centre_layer(h, clusters, 0)
    assert (weight.shape, bias.shape) == ((clusters, h.shape[1]), (clusters,))
    assert bool(weight.isfinite().all() & bias.isfinite().all())


def test_of_many_points_some_are_taken() -> None:
    h, y = groups(n=MOST_POINTS + 500)
    labels = (h @ (layer := nearest_centre_layer(h, K, 0))[0].T + layer[1]).argmax(1)
    of_group = [torch.bincount(labels[y == group], minlength=K) for group in range(K)]
    assert len({int(counts.argmax()) for counts in of_group}) == K


def test_a_stage_sets_the_head_alone_where_it_is_asked_to() -> None:
    data = load("digits")
    model = nn.ModuleDict({"backbone": nn.Flatten(), "pre_feature": nn.Identity(), "cluster": nn.Linear(64, 10)})
    model["subspace"] = nn.Linear(64, 4)
    model.double()
    before = model["subspace"].weight.clone()
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers())
    kmeans_head(model, feed, None, 0)
    seen = feed.map(model["backbone"])
    expected = seen @ (layer := nearest_centre_layer(seen, 10, 0))[0].T + layer[1]
    torch.testing.assert_close(model["cluster"](seen), expected)
    assert len(data.train) == len(seen) and torch.equal(before, model["subspace"].weight)

    def heads(**over: Any) -> Any:
        return nmce.stages(resolve("nmce", "digits", "paper", nmce.STAGES, nmce.PRESETS["digits"]["paper"], over))[1]

    assert heads().begin is None and heads(**{"heads.cluster_init": "kmeans"}).begin is kmeans_head
