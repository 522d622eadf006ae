"""t-SNE: near points stay near, equal seeds give equal pictures, and what must not break it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from raymc.clusterers.kmeans import kmeans
from raymc.clusterers.tsne import FEWEST, principal_plane, tsne, tsne_series
from raymc.errors import InputError
from raymc.metrics import clustering_scores


def groups(n: int = 300, k: int = 5, m: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points `[n, m]` in k groups well apart, and which group `[n]`."""
    draw = torch.Generator().manual_seed(seed)
    which = torch.arange(n) % k
    return 12 * torch.randn(k, m, generator=draw)[which] + torch.randn(n, m, generator=draw), which


def test_equal_seeds_equal_pictures_in_any_unit_and_on_any_number_of_threads() -> None:
    z, _ = groups(150)
    first, threads = tsne(z, 3), torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert np.array_equal(tsne(z.numpy(), 3), first)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(tsne(2.0**-40 * z, 3, exaggeration=1.0), first)
    assert not np.array_equal(tsne(z, 4), first)


@pytest.mark.parametrize(("grid_from", "factors"), [(300, (1.0, 4.0)), (301, (1.0, 2.0, 4.0))], ids=["grid", "tree"])
def test_groups_stay_together_and_are_the_denser_the_more_attraction_is_exaggerated(
    monkeypatch: pytest.MonkeyPatch, grid_from: int, factors: tuple[float, ...]
) -> None:
    monkeypatch.setattr("raymc.clusterers.tsne.GRID_FROM", grid_from)
    monkeypatch.setattr("raymc.clusterers.tsne.STEPS", 250)  # enough for groups that are this far apart
    z, which = groups(300)
    spreads = []
    for factor in factors:
        places = tsne(z, 0, exaggeration=factor) if factor > 1 else tsne(z, 0)
        assert places.shape == (300, 2) and places.dtype == np.float64
        assert clustering_scores(which, kmeans(places, 5, 0)[0])["acc"] == 1
        means = np.stack([places[which == group].mean(0) for group in range(5)])
        spreads.append(float(np.square(places - means[which]).mean() / np.square(means - means.mean(0)).mean()))
    assert all(a > b for a, b in pairwise(factor * spread for factor, spread in zip(factors, spreads, strict=True)))


def test_a_picture_that_starts_from_another_one_follows_it() -> None:
    z, which = groups()
    first = tsne(z, 0)
    turned = first @ np.array([[0.0, -1.0], [1.0, 0.0]])
    again = tsne(z + 0.1 * torch.randn(z.shape, generator=torch.Generator().manual_seed(1)), 0, 1e5 * turned)
    centres = [np.stack([places[which == group].mean(0) for group in range(5)]) for places in (turned, again)]
    assert np.corrcoef(centres[0].ravel(), centres[1].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("z", [
    torch.randn(1, 4), torch.randn(FEWEST - 1, 5), torch.randn(FEWEST, 5), torch.zeros(100, 5), torch.ones(FEWEST, 3),
    torch.randn(3, 1).repeat(35, 1), torch.randn(6, 4).repeat_interleave(20, 0), torch.randn(100, 1) + 1e6,
])  # fmt: skip
def test_few_points_duplicates_and_one_dimension_have_a_finite_picture(z: Tensor) -> None:
    places = tsne(z, 0)
    assert places.shape == (len(z), 2) and np.isfinite(places).all()
    assert np.isfinite(tsne(z, 0, places)).all()


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(InputError, match="not finite"):
        tsne(torch.tensor([[0.0, torch.nan]]), 0)


def test_the_plane_has_the_greatest_variance_and_a_direction_of_its_own() -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1, 9, 1, 1, 4, 1])
    plane = principal_plane(z)
    assert plane.var(0, ddof=1) == pytest.approx(torch.linalg.eigvalsh(z.T.cov())[[5, 4]].numpy())
    assert np.corrcoef(plane[:, 0], z[:, 1])[0, 1] > 0.95
    assert not principal_plane(z[:, :1])[:, 1].any()


def test_pictures_of_several_times_follow_each_other() -> None:
    z = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).numpy()
    z[:30] += 4
    given = np.stack([z, 1.01 * z, z[:, ::-1]])
    found = tsne_series(given, 1)
    assert found.shape == (3, 60, 2) and np.array_equal(found, tsne_series(given, 1))
    halves = found[:, :30].mean(1) - found[:, 30:].mean(1)
    halves /= np.linalg.norm(halves, axis=1, keepdims=True)
    assert (halves[:-1] * halves[1:]).sum(1).min() > 0.9


def test_a_plane_is_its_own_picture_and_nothing_has_none() -> None:
    z = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)).numpy()
    assert np.array_equal(tsne_series(np.stack([z, 2 * z])), np.stack([z, 2 * z]).astype(np.float64))
    assert tsne_series(np.zeros((0, 0, 2))).shape == (0, 0, 2)
