"""Coding rates against closed forms, the plain formula with autograd, and their invariances."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc.ops import cluster_coding_rate, coding_rate, coding_rates, gram


def unit_rows(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def memberships(n: int, k: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, k, generator=generator, dtype=torch.float64)).softmax(1)


def plain_cluster_rate(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    """The definition, cluster by cluster, by torch's own logdet and autograd."""
    n, d = z.shape
    total = z.new_zeros(())
    for column in pi.unbind(1):
        mass = column.sum()
        total = total + mass / (2 * n) * torch.logdet(
            torch.eye(d, dtype=z.dtype) + d / (mass * eps_sq) * z.T @ torch.diag(column) @ z
        )
    return total


@pytest.mark.parametrize(
    ("d", "eps_sq", "k", "whole", "parts"),
    [
        (128, 0.2, 10, 114.67, 25.16),
        (128, 0.1, 100, 153.47, 4.42),
        (40, 0.01, 20, 92.30, 7.60),
        (6, 0.01, 2, 13.85, 7.95),
        (200, 0.001, 100, 690.88, 11.51),
    ],
)
def test_orthogonal_subspaces_reach_the_known_optimum(
    d: int, eps_sq: float, k: int, whole: float, parts: float
) -> None:
    """k balanced orthogonal subspaces, together an orthonormal basis: R = d/2 ln(1 + 1/eps^2), R_c by share."""
    z = torch.eye(d, dtype=torch.float64)
    share = torch.arange(d) * k // d
    pi = functional.one_hot(share, k).double()
    rank = torch.bincount(share, minlength=k).double()
    closed = (rank / d * rank / 2 * torch.log1p(d / (rank * eps_sq))).sum()
    assert float(coding_rate(z, eps_sq)) == pytest.approx(d / 2 * math.log1p(1 / eps_sq), rel=1e-12)
    assert float(coding_rate(z, eps_sq)) == pytest.approx(whole, abs=0.01)
    assert float(cluster_coding_rate(z, pi, eps_sq)) == pytest.approx(float(closed), rel=1e-12)
    if d % k == 0:
        assert float(closed) == pytest.approx(parts, abs=0.01)


def test_rate_of_equal_points() -> None:
    """All points alike: one direction of energy d / eps^2."""
    z = torch.zeros(9, 5, dtype=torch.float64)
    z[:, 2] = 1
    assert float(coding_rate(z, 0.2)) == pytest.approx(math.log1p(5 / 0.2) / 2, rel=1e-12)


@pytest.mark.parametrize("many", [1, 10**9], ids=["outer", "per-cluster"])
@pytest.mark.parametrize(("n", "d", "k"), [(20, 4, 3), (30, 70, 5), (12, 32, 12), (9, 65, 1), (5, 1, 2)])
def test_value_and_gradients_equal_autograd_of_the_definition(n: int, d: int, k: int, many: int) -> None:
    z, pi = unit_rows(n, d).requires_grad_(), memberships(n, k).requires_grad_()
    expected = plain_cluster_rate(z, pi, 0.2)
    with mock.patch.object(gram, "MANY", many):
        found = cluster_coding_rate(z, pi, 0.2)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for mine, theirs in zip(torch.autograd.grad(found, (z, pi)), torch.autograd.grad(expected, (z, pi)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    z, pi = unit_rows(7, 4).requires_grad_(), memberships(7, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cluster_coding_rate(a, b, 0.3), (z, pi))
    assert torch.autograd.gradcheck(lambda a: coding_rate(a, 0.3), (z,))
    assert torch.autograd.gradcheck(lambda a: coding_rate(a, 0.3), (unit_rows(3, 6).requires_grad_(),))


@pytest.mark.parametrize("n", [5, 40])
def test_rate_is_that_of_one_cluster_on_either_side_of_n_equal_d(n: int) -> None:
    z = unit_rows(n, 16).requires_grad_()
    whole, one = coding_rate(z, 0.2), cluster_coding_rate(z, z.new_ones(n, 1), 0.2)
    assert float((whole - one).detach()) == pytest.approx(0, abs=1e-11)
    torch.testing.assert_close(*(torch.autograd.grad(f, z)[0] for f in (whole, one)))


def test_both_rates_in_one_pass() -> None:
    z, pi = unit_rows(20, 5).requires_grad_(), memberships(20, 3).requires_grad_()
    pair, alone = coding_rates(z, pi, 0.2), (coding_rate(z, 0.2), cluster_coding_rate(z, pi, 0.2))
    torch.testing.assert_close(pair, alone, rtol=1e-12, atol=0)
    for together, apart in zip(pair, alone, strict=True):
        mine = torch.autograd.grad(together, (z, pi), retain_graph=True)
        theirs = torch.autograd.grad(apart, (z, pi), allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-14)


def test_uniform_memberships_have_no_rate_reduction_and_a_stationary_point() -> None:
    """pi = 1/k: every cluster is the whole, R_c = R, and no logit has a gradient (why NMCE trains in stages)."""
    z = unit_rows(50, 6)
    logits = torch.zeros(50, 4, dtype=torch.float64, requires_grad=True)
    rate = cluster_coding_rate(z, logits.softmax(1), 0.2)
    assert float(rate.detach()) == pytest.approx(float(coding_rate(z, 0.2)), rel=1e-12)
    (gradient,) = torch.autograd.grad(rate, logits)
    assert float(gradient.abs().max()) < 1e-14


def test_invariances() -> None:
    z, pi = unit_rows(40, 8), memberships(40, 5)
    rate = cluster_coding_rate(z, pi, 0.2)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)).double()).Q
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    flips = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0).double().unsqueeze(1)
    for other in (
        cluster_coding_rate(z @ turn, pi, 0.2),
        cluster_coding_rate(z[order], pi[order], 0.2),
        cluster_coding_rate(z, pi.flip(1), 0.2),
        cluster_coding_rate(z * flips, pi, 0.2),
        cluster_coding_rate(z.repeat(3, 1), pi.repeat(3, 1), 0.2),
    ):
        torch.testing.assert_close(other, rate, rtol=1e-12, atol=0)
    assert coding_rate(z, 0.2) > rate > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_clusters_add_nothing(dtype: torch.dtype) -> None:
    z = unit_rows(12, 6).to(dtype).requires_grad_()
    full = functional.one_hot(torch.arange(12) % 3, 3).to(dtype)
    pi = torch.cat([full, torch.zeros(12, 2, dtype=dtype)], 1).requires_grad_()
    rate = cluster_coding_rate(z, pi, 0.001)
    torch.testing.assert_close(rate, cluster_coding_rate(z, full, 0.001))
    for gradient in torch.autograd.grad(rate, (z, pi)):
        assert gradient.isfinite().all()
    nothing = cluster_coding_rate(z, torch.zeros(12, 2, dtype=dtype), 0.2)
    assert float(nothing.detach()) == 0


@pytest.mark.parametrize("mass", [1e-3, 1e-8, 1e-20, 1e-38])
def test_nearly_empty_clusters_are_finite(mass: float) -> None:
    z = unit_rows(12, 6).float().requires_grad_()
    pi = torch.cat([torch.full((12, 1), 1 - mass), torch.full((12, 1), mass)], 1).requires_grad_()
    rate = cluster_coding_rate(z, pi, 0.01)
    assert float(rate.detach()) == pytest.approx(float(coding_rate(z, 0.01).detach()), rel=2e-3)
    assert all(g.isfinite().all() for g in torch.autograd.grad(rate, (z, pi)))


def test_only_the_asked_gradients_are_computed() -> None:
    z, pi = unit_rows(20, 4), memberships(20, 3)
    both = torch.autograd.grad(
        cluster_coding_rate(a := z.clone().requires_grad_(), b := pi.clone().requires_grad_(), 0.2), (a, b)
    )
    alone = torch.autograd.grad(cluster_coding_rate(a, pi, 0.2), a)[0]
    of_pi = torch.autograd.grad(cluster_coding_rate(z, b, 0.2), b)[0]
    torch.testing.assert_close((alone, of_pi), both)
    assert not cluster_coding_rate(z, pi, 0.2).requires_grad
    upstream = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    assert gram._gram_gradients(z, pi, upstream, True, False)[1] is None
    assert gram._gram_gradients(z, pi, upstream, False, True)[0] is None


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half: torch.dtype) -> None:
    z, pi = unit_rows(64, 16).to(half).requires_grad_(), memberships(64, 4).to(half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rate, parts = coding_rate(z, 0.2), cluster_coding_rate(z, pi, 0.2)
        (gradient,) = torch.autograd.grad(rate + parts, z)
    wide = z.detach().double().requires_grad_()
    exact = coding_rate(wide, 0.2) + cluster_coding_rate(wide, pi.double(), 0.2)
    assert rate.dtype == parts.dtype == torch.float32
    assert float((rate + parts).detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    expected = torch.autograd.grad(exact, wide)[0].to(half)
    torch.testing.assert_close(gradient, expected, rtol=0.01, atol=1e-4)


def test_types_of_results() -> None:
    z, pi = unit_rows(8, 4), memberships(8, 2)
    assert coding_rate(z, 0.2).dtype == torch.float64
    assert cluster_coding_rate(z.float(), pi.float(), 0.2).dtype == torch.float32
    assert cluster_coding_rate(z.float(), pi, 0.2).dtype == torch.float64
    hard = functional.one_hot(pi.argmax(1), 2)
    torch.testing.assert_close(cluster_coding_rate(z, hard, 0.2), cluster_coding_rate(z, hard.double(), 0.2))


def test_float32_agrees_with_float64_at_the_hardest_distortion() -> None:
    """COIL-100's eps^2 = 0.001 has the largest condition number, about 2e5."""
    z, pi = unit_rows(300, 50), memberships(300, 10)
    exact = cluster_coding_rate(z, pi, 0.001)
    assert float(cluster_coding_rate(z.float(), pi.float(), 0.001)) == pytest.approx(float(exact), rel=1e-5)


def test_as_many_clusters_as_points_need_no_cubic_tensor() -> None:
    """k = n, as in MLC: forward and backward never hold n*k*d numbers at once."""
    n, d = 192, 64
    z, pi = unit_rows(n, d).float().requires_grad_(), memberships(n, n).float().requires_grad_()
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            sizes.extend(o.untyped_storage().nbytes() for o in (out,) if isinstance(o, Tensor))
            return out

    with Watch():
        rate = cluster_coding_rate(z, pi, 0.1)
        gradients = torch.autograd.grad(rate, (z, pi))
    assert max(sizes) < 4 * n * n * d
    exact = plain_cluster_rate(z.double(), pi.double(), 0.1)
    expected = torch.autograd.grad(exact, (z, pi))
    assert float(rate.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-4


def test_values_that_are_not_finite_stay_so() -> None:
    """A NaN in must not become a number: training stops on a loss that is not finite."""
    z = unit_rows(10, 4)
    z[3, 1] = math.nan
    assert coding_rate(z, 0.2).isnan()
    assert cluster_coding_rate(z, memberships(10, 2), 0.2).isnan()
    assert not gram.logdet_plus_identity(-2 * torch.eye(3).unsqueeze(0), torch.ones(1)).isfinite().any()


def test_the_gpu_s_way_to_the_gradient_equals_the_cpu_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sums in large products, here on a CPU, with chunks that do not divide the clusters."""
    z, pi = unit_rows(30, 6), memberships(30, 7)
    upstream = gram.weighted_gram(z, pi)
    expected = gram._gram_gradients(z, pi, upstream, True, True)
    monkeypatch.setattr(gram, "_chunks", lambda z, k, width: [slice(j, min(j + 3, k)) for j in range(0, k, 3)])
    monkeypatch.setattr(gram, "_cluster_by_cluster", gram._many_at_once)
    torch.testing.assert_close(gram._gram_gradients(z, pi, upstream, True, True), expected)


def test_batched_inverse_for_gpus_equals_the_cpu_one() -> None:
    factor = torch.linalg.cholesky(gram.weighted_gram(unit_rows(30, 5), memberships(30, 3)), upper=True)
    root = torch.linalg.solve_triangular(factor, torch.eye(5).double().expand_as(factor), upper=True)
    torch.testing.assert_close(gram._inverse(factor), root @ root.mT)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: coding_rate(torch.ones(3), 0.2), r"z must be \[n, d\]"),
        (lambda: coding_rate(torch.ones(3, 2), 0.0), "eps_sq must be positive"),
        (lambda: coding_rate(torch.ones(3, 2), math.nan), "eps_sq must be positive"),
        (lambda: cluster_coding_rate(torch.ones(3, 2), torch.ones(2, 3), 0.2), r"pi must be \[3, k\]"),
        (lambda: cluster_coding_rate(torch.ones(3, 2), torch.ones(3), 0.2), r"pi must be \[3, k\]"),
    ],
)
def test_bad_input_is_named(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call()
