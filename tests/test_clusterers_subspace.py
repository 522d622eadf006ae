"""Subspace clustering, EnSC and SSC-OMP: codes against scikit-learn's, and known subspaces; the spectral step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, orthogonal_mp
from torch import Tensor
from torch.nn import functional

from raymc.clusterers.ensc import elastic_net_codes, ensc, self_expression
from raymc.clusterers.spectral import DENSE, spectral_clustering
from raymc.clusterers.ssc_omp import pursuit, pursuit_codes, ssc_omp
from raymc.errors import InputError
from raymc.metrics import clustering_scores
from tests.test_metrics_subspace import union_of_subspaces

CLUSTERERS = [ensc, ssc_omp]
Clusterer = Callable[..., Any]


def dense(x: Tensor, which: Tensor, most: int, tolerance: float) -> Tensor:
    """Codes `[b, n]` with every coefficient in its place."""
    values, atoms = pursuit_codes(x, which, most, tolerance)
    return torch.zeros(len(which), len(x), dtype=x.dtype).scatter_add_(1, atoms, values)


@pytest.mark.parametrize(("noise", "most"), [(0.0, 2), (0.0, 3), (0.0, 8), (0.05, 5), (0.05, 12)])
def test_codes_are_those_of_scikit_learn(noise: float, most: int) -> None:
    z, _ = union_of_subspaces(20, 4, 3, 15, noise)
    z = functional.normalize(z, dim=1)
    which = torch.tensor([0, 33, 79])
    codes = dense(z, which, most, 1e-6)
    for code, j in zip(codes, which.tolist(), strict=True):
        others = [i for i in range(len(z)) if i != j]
        steps = min(most, 3) if noise == 0 else most  # a subspace's rank explains its points, and the code ends
        expected = orthogonal_mp(z[others].T.numpy(), z[j].numpy(), n_nonzero_coefs=steps)
        assert np.count_nonzero(expected) == int((code != 0).sum()) == steps
        np.testing.assert_allclose(code[others], expected, rtol=1e-9, atol=1e-11)
        assert code[j] == 0


def test_a_code_ends_where_the_tolerance_is_met() -> None:
    z = functional.normalize(union_of_subspaces(30, 2, 4, 12, noise=0.02)[0], dim=1)
    which = torch.arange(60)
    for tolerance in (0.5, 0.1, 0.01):
        codes = dense(z, which, 12, tolerance)
        assert ((z - codes @ z).square().sum(1) < tolerance).all()
        used = int((codes != 0).sum(1).max())
        shorter = dense(z, which, used - 1, tolerance)
        assert ((z - shorter @ z).square().sum(1) >= tolerance).any()


@pytest.mark.parametrize(("clusterer", "options", "d", "noise"), [
    *((ensc, {"gamma": gamma, "tau": tau}, 15, 0.02) for gamma, tau in [(50.0, 0.9), (400.0, 1.0), (200.0, 0.5)]),
    (ssc_omp, {"nonzero": 10}, 30, 0.0),
    (ssc_omp, {"nonzero": 3}, 30, 0.005),
])  # fmt: skip
def test_subspaces_that_intersect_only_in_zero_are_found(
    clusterer: Clusterer, options: dict[str, float], d: int, noise: float
) -> None:
    """With noise a code of SSC-OMP must end at the rank, or it explains noise by points of other subspaces."""
    z, y = union_of_subspaces(40, 4, 3, d, noise)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    found = clusterer(z[order].float(), 4, **options)
    assert clustering_scores(y[order], found)["acc"] == 1.0
    np.testing.assert_array_equal(found, clusterer(z[order].float().numpy(), 4, **options))


def test_lengths_signs_and_the_size_of_blocks_change_nothing() -> None:
    z = functional.normalize(union_of_subspaces(30, 3, 4, 20, noise=0.05)[0], dim=1)
    codes = pursuit(z, 6, 1e-6).toarray()
    signs = torch.where(torch.arange(90) % 3 == 0, -1.0, 1.0).double()
    np.testing.assert_allclose(pursuit(z * signs[:, None], 6, 1e-6).toarray(), codes, atol=1e-12)
    parts = [dense(z, which, 6, 1e-6) for which in torch.arange(90).split(7)]
    np.testing.assert_allclose(functional.normalize(torch.cat(parts).abs(), dim=1), codes, atol=1e-12)
    lengths = torch.logspace(-3, 3, 90).double()
    same = clustering_scores(ssc_omp(z, 3), ssc_omp(z * (lengths * signs)[:, None], 3))
    assert same["acc"] == 1.0


@pytest.mark.parametrize(("codes_of", "most"), [
    (lambda z: self_expression(z, 50.0, 0.9), 0.02), (lambda z: pursuit(z, 10, 1e-6), 5e-9),
])  # fmt: skip
def test_codes_have_length_one_and_stay_in_their_subspace(codes_of: Callable[[Tensor], Any], most: float) -> None:
    z, y = union_of_subspaces(30, 3, 2, 20)
    codes = codes_of(functional.normalize(z, dim=1).float()).toarray()
    alike = (y[:, None] == y[None]).numpy()
    assert np.abs(codes[~alike]).sum() < most * np.abs(codes[alike]).sum()
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-12)


def with_odd_points() -> tuple[Tensor, Tensor]:
    """Points of two subspaces and which they are from, then one that is orthogonal to all others and one at zero."""
    z, y = union_of_subspaces(20, 2, 2, 9)
    z = torch.cat([z, torch.zeros(len(z), 2, dtype=z.dtype)], 1)
    alone = torch.zeros(2, 11, dtype=z.dtype)
    alone[0, 9] = 1
    return torch.cat([z, alone]), y


@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_duplicates_isolated_and_zero_points(clusterer: Clusterer) -> None:
    z, y = with_odd_points()
    found = clusterer(torch.cat([z[:5], z]), 2)
    assert found.shape == (47,) and set(found.tolist()) == {0, 1}
    if clusterer is ensc:  # by SSC-OMP a pair of copies is a cluster of its own
        assert clustering_scores(y, found[5:45])["acc"] == 1.0
    few = clusterer(torch.eye(6), 3)
    assert few.shape == (6,) and set(few.tolist()) <= {0, 1, 2}
    assert clusterer(torch.ones(8, 3), 2).shape == (8,)
    assert clusterer(torch.zeros(4, 3), 2).shape == (4,)
    assert clusterer(torch.ones(1, 3), 1).tolist() == [0]


def test_a_copy_explains_a_point_wholly_and_a_lone_one_has_no_code() -> None:
    z, _ = with_odd_points()
    codes = pursuit(functional.normalize(torch.cat([z[:-2], z]), dim=1), 10, 1e-6).toarray()
    assert np.isfinite(codes).all()
    assert not codes[-2:].any() and not codes[:, -2:].any()
    np.testing.assert_array_equal((codes > 0).sum(1)[:-2], 1)


def test_more_coefficients_than_points_or_features() -> None:
    z = functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    codes = dense(z, torch.arange(5), 3, 1e-9)
    torch.testing.assert_close(codes @ z, z)  # any three others span the space
    assert ssc_omp(z, 2, nonzero=50).shape == (5,)


@pytest.mark.parametrize(("clusterer", "k", "options", "words"), [
    (ensc, 7, {}, "7 clusters of 6 points"),
    (ensc, 2, {"gamma": 1.0}, "ensc_gamma"),
    (ensc, 2, {"tau": 0.0}, "ensc_tau"),
    (ensc, 2, {"tau": 1.1}, "ensc_tau"),
    (ssc_omp, 7, {}, "7 clusters of 6 points"),
    (ssc_omp, 2, {"nonzero": 0}, "ssc_omp_nonzero"),
    *((ssc_omp, 2, {"tolerance": value}, "ssc_omp_tolerance") for value in (0.0, 1.0, float("nan"))),
])  # fmt: skip
def test_bad_input_is_named(clusterer: Clusterer, k: int, options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        clusterer(torch.eye(6), k, **options)


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
