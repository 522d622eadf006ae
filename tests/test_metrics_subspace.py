"""Subspace clustering, the geometry of embeddings, and probes, on unions of subspaces that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet
from torch import Tensor

from raymc.errors import InputError
from raymc.metrics import clustering_scores
from raymc.metrics.ensc import elastic_net_codes, self_expression
from raymc.metrics.probes import knn_accuracy, nearest_subspace_accuracy, svm_accuracy
from raymc.metrics.spectral import DENSE, spectral_clustering
from raymc.metrics.subspace import cluster_singular_values, ensc, numerical_rank, z_similarity


def union_of_subspaces(
    each: int, k: int, rank: int, d: int, noise: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Points `[k * each, d]` of k random subspaces of a rank, and which they are from."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(each, rank)) @ np.linalg.qr(rng.normal(size=(d, rank)))[0].T for _ in range(k)]
    z = np.concatenate(parts)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return torch.as_tensor(z + noise * rng.normal(size=z.shape)), torch.arange(k).repeat_interleave(each)


@pytest.mark.parametrize(("gamma", "tau"), [(50.0, 0.9), (400.0, 1.0), (200.0, 0.5)])
def test_ensc_finds_subspaces_that_intersect_only_in_zero(gamma: float, tau: float) -> None:
    z, y = union_of_subspaces(40, 4, 3, 15, noise=0.02)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    found = ensc(z[order].float(), 4, gamma, tau, seed=0)
    assert clustering_scores(y[order], found)["acc"] == 1.0
    np.testing.assert_array_equal(found, ensc(z[order].float(), 4, gamma, tau, seed=0))


@pytest.mark.parametrize(("gamma", "tau"), [(50.0, 0.9), (20.0, 1.0), (200.0, 0.5), (400.0, 1.0)])
def test_codes_are_as_good_as_scikit_learn_elastic_net(gamma: float, tau: float) -> None:
    """Its minimum of the same objective; sklearn divides the error by the number of rows (d here)."""
    z, _ = union_of_subspaces(15, 4, 3, 12, noise=0.05)
    z = torch.nn.functional.normalize(z, dim=1)
    which = torch.tensor([0, 17, 44])
    codes = elastic_net_codes(z, which, gamma, tau)
    for column, j in enumerate(which.tolist()):
        others = [i for i in range(len(z)) if i != j]
        dictionary, target = z[others].T.numpy(), z[j].numpy()
        alpha = np.abs(dictionary.T @ target).max() / (gamma * tau)
        model = ElasticNet(alpha / len(target), l1_ratio=tau, fit_intercept=False, tol=1e-9, max_iter=10**5)
        expected = model.fit(dictionary, target).coef_

        def cost(c: np.ndarray, d: np.ndarray = dictionary, t: np.ndarray = target, a: float = alpha) -> float:
            error = 0.5 * np.square(t - d @ c).sum()
            return float(error + a * (tau * np.abs(c).sum() + (1 - tau) / 2 * np.square(c).sum()))

        found = codes[others, column].numpy()
        assert codes[j, column] == 0
        assert cost(found) == pytest.approx(cost(expected), rel=1e-3)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_point_s_code_uses_its_own_subspace() -> None:
    z, y = union_of_subspaces(30, 3, 2, 20)
    codes = self_expression(torch.nn.functional.normalize(z, dim=1).float(), 50.0, 0.9).toarray()
    alike = (y[:, None] == y[None]).numpy()
    assert np.abs(codes[~alike]).sum() < 0.02 * np.abs(codes[alike]).sum()
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-5)


def test_ensc_with_duplicates_isolated_and_zero_points() -> None:
    z, y = union_of_subspaces(20, 2, 2, 9)
    z = torch.cat([z, torch.zeros(len(z), 2, dtype=z.dtype)], 1)
    alone = torch.zeros(2, 11, dtype=z.dtype)
    alone[0, 9] = 1  # orthogonal to all others; the second stays zero
    found = ensc(torch.cat([z, z[:5], alone]), 2, 50.0, 0.9, seed=0)
    assert found.shape == (47,) and set(found.tolist()) == {0, 1}
    assert clustering_scores(torch.cat([y, y[:5]]), found[:45])["acc"] == 1.0
    nothing = ensc(torch.eye(6), 3)
    assert nothing.shape == (6,) and set(nothing.tolist()) <= {0, 1, 2}
    same = ensc(torch.ones(8, 3), 2)
    assert same.shape == (8,)


@pytest.mark.parametrize(
    ("k", "gamma", "tau", "words"),
    [
        (7, 50, 0.9, "7 clusters of 6 points"),
        (2, 1.0, 0.9, "ensc_gamma"),
        (2, 50, 0.0, "ensc_tau"),
        (2, 50, 1.1, "ensc_tau"),
    ],
)
def test_ensc_names_bad_input(k: int, gamma: float, tau: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ensc(torch.eye(6), k, gamma, tau)


def test_as_many_clusters_as_points() -> None:
    assert sorted(ensc(torch.eye(5) + 0.1, 5).tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="6 clusters of 5 points"):
        spectral_clustering(np.eye(5), 6, seed=0)


def test_spectral_clustering_of_components_dense_and_sparse() -> None:
    """Blocks without links are found exactly on both sides of the size where the eigensolver changes."""
    for each in (10, DENSE // 3 + 10):
        ring = np.roll(np.eye(each), 1, 1)
        block = ring + ring.T + np.roll(ring, 3, 1) + np.roll(ring, 3, 1).T
        affinity = np.kron(np.eye(3), block)
        found = spectral_clustering(affinity, 3, seed=0, repeats=3)
        assert clustering_scores(np.repeat(np.arange(3), each), found)["acc"] == 1.0


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


def test_numerical_rank_counts_the_energy() -> None:
    z = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.1]))  # energies 9, 4, 1, 0.01
    assert [numerical_rank(z, e) for e in (0.5, 0.9, 0.95, 0.9999)] == [1, 2, 3, 4]
    assert numerical_rank(torch.zeros(4, 3)) == 0
    assert numerical_rank(torch.eye(10), 0.95) == 10
    assert numerical_rank(torch.eye(20), 0.95) == 19


def test_singular_values_of_each_cluster() -> None:
    z = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 5], [0, 0, 12]])
    values = cluster_singular_values(z, [3, 3, -1, -1])
    torch.testing.assert_close(values[3], torch.tensor([2.0, 1.0]).double())
    torch.testing.assert_close(values[-1], torch.tensor([13.0, 0.0]).double())


def test_probes_read_what_is_there() -> None:
    train, y = union_of_subspaces(60, 3, 4, 24, noise=0.01, seed=1)
    rows = torch.arange(180)
    fit, held = rows % 3 != 0, rows % 3 == 0
    names = torch.tensor([-5, 3, 40])[y]
    assert nearest_subspace_accuracy(train[fit], names[fit], train[held], names[held], components=4) == 1.0
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
