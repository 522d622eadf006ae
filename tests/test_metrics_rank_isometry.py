"""Ranks between clusters and distances between neighbours: their definitions written out, CRA, LGD, and the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics.geometry import geometry_scores
from raymc.metrics.rank_isometry import BINS, rank_and_isometry


def cloud(n: int = 80, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `[n, 12]`, a distorted embedding `[n, 3]`, and labels of which one does not occur."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=draw).double()
    labels = 2 * torch.randint(5, (n,), generator=draw)
    return x, torch.tanh(x[:, :3]) + 0.3 * torch.randn(n, 3, generator=draw), labels


def test_ranks_are_those_of_the_means_distances_and_cra_their_agreement() -> None:
    x, z, labels = cloud()
    found = rank_and_isometry(x, z, labels)
    assert found["clusters"].tolist() == [0, 2, 4, 6, 8]
    for name, space in (("rank_input", x), ("rank_latent", z)):
        means = torch.stack([space[labels == label].mean(0) for label in (0, 2, 4, 6, 8)])
        apart = torch.cdist(means, means)
        expected = torch.stack([(row[:, None] > row[None]).sum(1) for row in apart])
        assert torch.equal(found[name], expected)
    agree = (found["rank_input"] == found["rank_latent"]).double().mean()
    assert float(agree) == pytest.approx(geometry_scores(x, z, labels)["cra"])


def test_differences_are_those_of_lgd() -> None:
    x, z, labels = cloud()
    found = rank_and_isometry(x, z, labels, neighbours=4)
    apart = torch.cdist(x, x).fill_diagonal_(torch.inf)
    in_x, near = apart.topk(4, largest=False)
    gaps = torch.cdist(z, z).gather(1, near) / 3**0.5 - in_x / 12**0.5
    assert float(gaps.square().mean()) ** 0.5 == pytest.approx(geometry_scores(x, z, labels, 4, 4)["lgd"])
    edges, counts = found["difference_edges"], found["difference_counts"]
    assert (edges.dtype, counts.dtype, len(edges), len(counts)) == (torch.float32, torch.int64, BINS + 1, BINS)
    inner = [int(((gaps >= a) & (gaps < b)).sum()) for a, b in zip(edges[1:-2], edges[2:-1], strict=True)]
    assert counts[1:-1].tolist() == inner and int(counts.sum()) == gaps.numel()
    quartiles = torch.quantile(gaps.flatten(), torch.tensor([0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(found["difference_quartiles"].double(), quartiles, atol=1e-6, rtol=0)
    assert float(found["input_distance"]) == pytest.approx(float(np.median(in_x)) / 12**0.5)


def test_an_isometry_keeps_everything() -> None:
    x, _, labels = cloud()
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)).double())[0]
    found = rank_and_isometry(x, x @ turn + 5, labels)
    assert torch.equal(found["rank_input"], found["rank_latent"])
    assert float(found["difference_quartiles"].abs().max()) < 1e-6
    same = rank_and_isometry(x, x, labels)
    assert int(same["difference_counts"].sum()) == 400 and (same["difference_edges"].diff() > 0).all()


def test_drawn_points_have_their_neighbours_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rank_and_isometry(*cloud(600))
    monkeypatch.setattr("raymc.metrics.rank_isometry.DRAWN", 200)
    part, again = rank_and_isometry(*cloud(600)), rank_and_isometry(*cloud(600))
    assert all(torch.equal(part[name], again[name]) for name in part)
    assert int(part["difference_counts"].sum()) == 1000
    assert float(part["input_distance"]) == pytest.approx(float(whole["input_distance"]), rel=0.05)


@pytest.mark.parametrize("n, k", [(2, 1), (4, 4), (300, 1), (300, 100)])
def test_few_points_one_cluster_and_a_hundred(n: int, k: int) -> None:
    x, z, _ = cloud(n)
    found = rank_and_isometry(x.reshape(n, 1, 3, 4).float(), z.float(), torch.arange(n) % k)
    assert found["rank_input"].shape == found["rank_latent"].shape == (k, k)
    assert not found["rank_input"].diagonal().any()
    assert int(found["difference_counts"].sum()) == n * min(5, n - 1)


def test_what_does_not_fit_is_an_error() -> None:
    x, z, labels = cloud()
    with pytest.raises(InputError, match="do not belong together"):
        rank_and_isometry(x, z[1:], labels)
    with pytest.raises(InputError, match="one point"):
        rank_and_isometry(x[:1], z[:1], labels[:1])
    with pytest.raises(InputError, match="not finite"):
        rank_and_isometry(x, z * torch.nan, labels)
