"""The nearest of points and the most similar of directions, in blocks; passes in blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc.ops.blocks import in_blocks
from raymc.ops.neighbours import most_similar, nearest, nearest_to


def points(n: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)).double()


def distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.fixture(params=[100, 2**22], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymc.ops.neighbours.BLOCK", request.param)


@pytest.mark.parametrize("place", [0.0, 1e4, 1e6])
def test_neighbours_are_the_nearest_others(place: float) -> None:
    x = points() + place
    expected = distances(x, x).fill_diagonal_(torch.inf).topk(7, largest=False)
    which, distance = nearest(x, 7)
    assert torch.equal(which, expected.indices)
    torch.testing.assert_close(distance, expected.values, rtol=1e-6, atol=0)
    some = torch.tensor([31, 4])
    assert torch.equal(nearest(x, 7, some)[0], which[some])
    asked = points(25, 1) + place
    expected = distances(asked, x).topk(4, largest=False)
    which, distance = nearest_to(asked, x, 4)
    assert torch.equal(which, expected.indices)
    torch.testing.assert_close(distance, expected.values, rtol=1e-6, atol=0)
    assert [shape.shape for shape in nearest_to(asked[:0], x, 4)] == [(0, 4), (0, 4)]


def test_duplicates_are_others_at_no_distance() -> None:
    which, distance = nearest(torch.ones(5, 2), 4)
    assert which.sort(1).values.tolist() == [[j for j in range(5) if j != i] for i in range(5)]
    assert not distance.any()


def test_the_most_similar_have_the_largest_cosine_of_either_sign() -> None:
    x, asked = (functional.normalize(points(40, seed), dim=1) for seed in (0, 1))
    for found, expected in (
        (most_similar(x, 6), (x @ x.mT).abs().fill_diagonal_(-1).topk(6)),
        (most_similar(x, 6, asked), (asked @ x.mT).abs().topk(6)),
    ):
        assert torch.equal(found[0], expected.indices)
        torch.testing.assert_close(found[1], expected.values)


@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_a_pass_in_blocks_is_that_over_all(n: int) -> None:
    x, seen = torch.arange(2.0 * n).view(n, 2), []

    def halves(rows: Tensor) -> dict[str, Tensor]:
        seen.append(len(rows))
        return {"half": rows / 2, "first": rows[:, 0]}

    found = in_blocks(halves, x, 3)
    assert torch.equal(found["half"], x / 2) and torch.equal(found["first"], x[:, 0])
    assert max(seen) <= 3 and torch.equal(in_blocks(lambda rows: rows + 1, x, 3), x + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_within_a_dense_clump_of_a_wide_cloud_are_right(dtype: torch.dtype) -> None:
    """Products of single precision would give any of the clump: its distances are below their rounding."""
    clump, wide = points(30, 2) * 1e-4 + 3, points(200, 3) * 10
    x = torch.cat([clump, wide]).to(dtype)
    expected = distances(x.double(), x.double()).fill_diagonal_(torch.inf).topk(5, largest=False)
    which, distance = nearest(x, 5)
    assert distance.dtype == dtype and torch.equal(which, expected.indices)
    torch.testing.assert_close(distance.double(), expected.values, rtol=1e-6, atol=0)
    assert torch.equal(nearest_to(x[:30], x[30:], 5)[0], distances(x[:30].double(), x[30:].double()).argsort(1)[:, :5])


def test_of_equally_near_points_the_earlier_is_first() -> None:
    x = torch.tensor([[0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [2, 0]]) + 7
    assert nearest(x.double(), 4)[0][0].tolist() == [1, 2, 3, 4]
    assert nearest(x.double() * 0, 3)[0].tolist() == [[j for j in range(6) if j != i][:3] for i in range(6)]
