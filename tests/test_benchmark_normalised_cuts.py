"""Normalised cuts: the graph is that of the preset `spectral`, and rows of length 1 or not are the only difference."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import normalised_cuts as cuts
from raymc.clusterers.spectral import point_graph


def test_the_graph_of_ten_neighbours_is_that_of_the_preset() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    np.testing.assert_array_equal(cuts.knn(x, 10).toarray(), point_graph(torch.from_numpy(x)).toarray())


def test_clusters_apart_are_found_by_both_and_by_every_affinity() -> None:
    y = np.arange(90) % 3
    x = 5 * np.eye(3)[y] + 0.1 * np.random.default_rng(0).normal(size=(90, 3))
    for variant in ("knn5", "rbf 1, columns in 0..1", "rbf by the median"):
        found = cuts.scores(cuts.VARIANTS[variant](x), y, seeds=2)
        assert all(found[kind]["acc"] == found[kind]["nmi"] == [1.0, 1.0] for kind in ("unit rows", "cuts"))
