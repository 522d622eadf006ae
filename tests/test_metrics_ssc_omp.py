"""Subspace clustering by orthogonal matching pursuit: codes against scikit-learn's, and known subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp
from torch import Tensor
from torch.nn import functional

from raymc.errors import InputError
from raymc.metrics import clustering_scores
from raymc.metrics.ssc_omp import pursuit, pursuit_codes, ssc_omp
from tests.test_metrics_subspace import union_of_subspaces


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


@pytest.mark.parametrize(("noise", "nonzero"), [(0.0, 10), (0.005, 3)])
def test_subspaces_that_intersect_only_in_zero_are_found(noise: float, nonzero: int) -> None:
    """With noise a code must end at the rank, or it explains noise by points of other subspaces."""
    z, y = union_of_subspaces(40, 4, 3, 30, noise)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    found = ssc_omp(z[order].float(), 4, nonzero)
    assert clustering_scores(y[order], found)["acc"] == 1.0
    np.testing.assert_array_equal(found, ssc_omp(z[order].float().numpy(), 4, nonzero))


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


def test_codes_have_length_one_and_stay_in_their_subspace() -> None:
    z, y = union_of_subspaces(30, 3, 2, 20)
    codes = pursuit(functional.normalize(z, dim=1).float(), 10, 1e-6).toarray()
    alike = (y[:, None] == y[None]).numpy()
    assert np.abs(codes[~alike]).sum() < 1e-6
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-12)


def test_duplicates_isolated_and_zero_points() -> None:
    z, y = union_of_subspaces(20, 2, 2, 9)
    z = torch.cat([z, torch.zeros(len(z), 2, dtype=z.dtype)], 1)
    alone = torch.zeros(2, 11, dtype=z.dtype)
    alone[0, 9] = 1  # orthogonal to all others; the second stays zero
    points = torch.cat([z, z, alone])
    codes = pursuit(functional.normalize(points, dim=1), 10, 1e-6).toarray()
    assert np.isfinite(codes).all()
    assert not codes[-2:].any() and not codes[:, -2:].any()
    np.testing.assert_array_equal((codes > 0).sum(1)[:-2], 1)  # its copy explains a point wholly
    pairs = torch.cat([z, z[:5], alone])
    found = ssc_omp(pairs, 2)
    assert found.shape == (47,) and set(found.tolist()) == {0, 1}
    assert ssc_omp(torch.eye(6), 3).shape == (6,)
    assert ssc_omp(torch.ones(8, 3), 2).shape == (8,)
    assert ssc_omp(torch.zeros(4, 3), 2).shape == (4,)


def test_more_coefficients_than_points_or_features() -> None:
    z = functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    codes = dense(z, torch.arange(5), 3, 1e-9)
    torch.testing.assert_close(codes @ z, z)  # any three others span the space
    assert ssc_omp(z, 2, nonzero=50).shape == (5,)
    assert ssc_omp(torch.ones(1, 3), 1).tolist() == [0]


@pytest.mark.parametrize(
    ("k", "nonzero", "tolerance", "words"),
    [
        (7, 10, 1e-6, "7 clusters of 6 points"),
        (2, 0, 1e-6, "ssc_omp_nonzero"),
        (2, 10, 0.0, "ssc_omp_tolerance"),
        (2, 10, 1.0, "ssc_omp_tolerance"),
        (2, 10, float("nan"), "ssc_omp_tolerance"),
    ],
)
def test_bad_input_is_named(k: int, nonzero: int, tolerance: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ssc_omp(torch.eye(6), k, nonzero, tolerance)
