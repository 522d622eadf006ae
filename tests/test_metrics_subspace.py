"""The geometry of embeddings, and probes, on unions of subspaces that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy, svm_accuracy
from raymc.metrics.spectra import ENERGY, group_spectra
from raymc.metrics.subspace import z_similarity


def union_of_subspaces(
    each: int, k: int, rank: int, d: int, noise: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Points `[k * each, d]` of k random subspaces of a rank, and which they are from."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(each, rank)) @ np.linalg.qr(rng.normal(size=(d, rank)))[0].T for _ in range(k)]
    z = np.concatenate(parts)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return torch.as_tensor(z + noise * rng.normal(size=z.shape)), torch.arange(k).repeat_interleave(each)


def test_similarities_of_table_a1_by_counting_pairs() -> None:
    z, y = union_of_subspaces(6, 3, 2, 5)
    found = torch.tensor([4, 4, 9, 9, 9, 2] * 3)
    z = 3 * z
    rows = torch.nn.functional.normalize(z, dim=1)
    cosine = (rows @ rows.T).abs()
    pairs = [(i, j) for i in range(18) for j in range(18) if i != j]

    def mean(chosen: list[tuple[int, int]]) -> float:
        return float(np.mean([float(cosine[i, j]) for i, j in chosen]))

    table = z_similarity(z, found, y)
    assert table["across_true"] == pytest.approx(mean([(i, j) for i, j in pairs if y[i] != y[j]]))
    assert table["across_found"] == pytest.approx(mean([(i, j) for i, j in pairs if found[i] != found[j]]))
    within = [mean([(i, j) for i, j in pairs if found[i] == found[j] == c]) for c in (2, 4, 9)]
    assert table["within_found"] == pytest.approx(np.mean(within))


def test_similarities_that_have_no_pair_are_absent() -> None:
    z = torch.eye(3)
    assert z_similarity(z, [0, 0, 0]).keys() == {"within_found"}
    assert z_similarity(z, [0, 1, 2]).keys() == {"across_found"}
    assert z_similarity(z, [0, 0, 1]) == {"across_found": 0.0, "within_found": 0.0}


def test_similarities_of_many_points_are_a_fair_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = union_of_subspaces(200, 3, 2, 6)
    whole = z_similarity(z, y, y)
    monkeypatch.setattr("raymc.metrics.subspace.MOST_POINTS", 300)
    part = z_similarity(z, y, y)
    assert part == z_similarity(z, y, y)
    assert part == pytest.approx(whole, abs=0.03)


def numerical_rank(z: Tensor, energy: float = ENERGY) -> int:
    return group_spectra(z)[0].ranks(energy)[0]


def test_numerical_rank_counts_the_energy() -> None:
    z = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.1]))  # energies 9, 4, 1, 0.01
    assert [numerical_rank(z, e) for e in (0.5, 0.9, 0.95, 0.9999)] == [1, 2, 3, 4]
    assert numerical_rank(torch.zeros(4, 3)) == 0
    assert numerical_rank(torch.eye(10), 0.95) == 10
    assert numerical_rank(torch.eye(20), 0.95) == 19


def test_singular_values_of_each_cluster() -> None:
    z = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 5], [0, 0, 12]])
    values = group_spectra(z, [3, 3, -1, -1])[1].singular_values()
    np.testing.assert_allclose(values[3], [2, 1])
    np.testing.assert_allclose(values[-1], [13, 0], atol=1e-6)


def test_probes_read_what_is_there() -> None:
    train, y = union_of_subspaces(60, 3, 4, 24, noise=0.01, seed=1)
    rows = torch.arange(180)
    fit, held = rows % 3 != 0, rows % 3 == 0
    names = torch.tensor([-5, 3, 40])[y]
    assert nearest_subspace_accuracy(train[fit], names[fit], train[held], names[held], components=4) == 1.0
    few = train[:, :3]  # every class fills the space: the smallest label
    share = float((names[held] == -5).double().mean())
    assert nearest_subspace_accuracy(few[fit], names[fit], few[held], names[held]) == share
    centres = torch.randn(3, 24, generator=torch.Generator().manual_seed(2))
    blobs = (4 * centres)[y] + torch.randn(180, 24, generator=torch.Generator().manual_seed(3))
    for accuracy in (svm_accuracy, knn_accuracy):
        assert accuracy(blobs[fit], names[fit], blobs[held], names[held]) == 1.0


def test_nearest_neighbours_look_at_directions_and_count_votes() -> None:
    train = torch.tensor([[1.0, 0], [100, 1], [0, 1], [0, 1], [0, 1]])
    labels = [0, 0, 1, 1, 1]
    asked = torch.tensor([[1.0, 0.1], [0.1, 5.0]])
    assert knn_accuracy(train, labels, asked, [0, 1], neighbours=1) == 1.0
    assert knn_accuracy(train, labels, asked, [1, 1]) == 1.0  # fewer rows than neighbours: all vote
    assert knn_accuracy(train[:4], labels[:4], asked, [0, 0]) == 1.0  # a tie goes to the smaller label


@pytest.mark.parametrize(("n", "d"), [(300, 12), (12, 300), (40, 40), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numerical_rank_is_that_of_the_singular_values(n: int, d: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    for decay in (0.0, 0.1, 0.5, 3.0):
        z = (torch.randn(n, d, generator=generator) * torch.exp(-decay * torch.arange(d))).to(dtype)
        squares = np.linalg.svd(z.double().numpy(), compute_uv=False) ** 2
        assert numerical_rank(z) == int((squares.cumsum() < 0.95 * squares.sum()).sum()) + 1
