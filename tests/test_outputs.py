"""What a training leaves for pictures: the similarity map's points and values, and the embedding at several epochs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc.training.outputs import MAP_POINTS, similarity_map, snapshots


def embedding(n: int, d: int = 6, seed: int = 0) -> Tensor:
    """Unit rows `[n, d]` in single precision."""
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_points_stand_in_the_order_of_their_clusters_the_largest_first() -> None:
    labels = torch.tensor([4, 1, 4, 9, 1, 4, 9, 4, 1])
    z = embedding(9)
    found = similarity_map(z, labels)
    assert found["clusters"].tolist() == [4, 1, 9]
    assert found["bounds"].tolist() == [0, 4, 7, 9]
    rows = z[[0, 2, 5, 7, 1, 4, 8, 3, 6]].double()
    expected = (255 * (rows @ rows.T).abs()).round()
    assert int((found["map"].double() - expected).abs().max()) <= 1
    assert {name: array.dtype for name, array in found.items()} == {
        "map": torch.uint8, "bounds": torch.int64, "clusters": torch.int64,
    }  # fmt: skip


@pytest.mark.parametrize("n", [3, 700, 3000])
def test_symmetric_with_ones_on_the_diagonal(n: int) -> None:
    found = similarity_map(embedding(n, 32), torch.arange(n) % 3)
    assert found["map"].shape == (min(n, MAP_POINTS),) * 2
    assert torch.equal(found["map"], found["map"].T)
    assert (found["map"].diagonal() == 255).all()
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.values(), similarity_map(embedding(n, 32), torch.arange(n) % 3).values(), strict=True)
    )


def test_each_cluster_has_its_share_of_the_points_and_at_least_one() -> None:
    counts = torch.tensor([6000, 2500, 1400, 99, 1])
    labels = torch.arange(5).repeat_interleave(counts)[
        torch.randperm(10_000, generator=torch.Generator().manual_seed(1))
    ]
    sizes = similarity_map(embedding(10_000), labels)["bounds"].diff()
    assert int(sizes.sum()) == MAP_POINTS
    assert sizes[4] == 1
    torch.testing.assert_close(sizes / MAP_POINTS, counts / 10_000, atol=0.005, rtol=0)


def test_points_of_a_cluster_are_drawn_evenly() -> None:
    n = 4 * MAP_POINTS
    angle = torch.linspace(0, 1.5, n)
    found = similarity_map(torch.stack([angle.cos(), angle.sin()], 1), torch.zeros(n))
    expected = 255 * angle[::4].cos()
    assert float((found["map"][0].float() - expected).abs().max()) <= 1


def test_one_cluster_and_more_clusters_than_points_shown() -> None:
    one = similarity_map(embedding(1), torch.tensor([7]))
    assert (one["map"].tolist(), one["bounds"].tolist(), one["clusters"].tolist()) == ([[255]], [0, 1], [7])
    many = similarity_map(embedding(1500), torch.arange(1500) % 1000)
    assert many["bounds"].tolist() == list(range(MAP_POINTS + 1))
    assert many["clusters"].tolist() == list(range(500)) + list(range(500, MAP_POINTS))  # two points each, then one


def test_lengths_do_not_matter_and_a_zero_row_is_like_nothing() -> None:
    z, labels = embedding(20), torch.arange(20) % 2
    torch.testing.assert_close(similarity_map(1e-3 * z, labels), similarity_map(z, labels), atol=1, rtol=0)
    z[0] = 0
    assert not similarity_map(z, labels)["map"][0].any()


def test_an_embedding_at_several_epochs_is_left_in_their_order() -> None:
    z = embedding(60, 5)
    found = snapshots({9: z + 1, 0: z, 20: z.flip(1)})
    assert found["epochs"].tolist() == [0, 9, 20] and found["epochs"].dtype == torch.int64
    assert found["points"].dtype == torch.float32
    torch.testing.assert_close(found["points"], torch.stack([z, z + 1, z.flip(1)]).float())
