"""MLC's objectives against the formulas as printed, and the products that make as many clusters as points cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc import ops
from raymc.ops import gram

EPS_SQ, ETA = 0.1, 0.175


def unit_rows(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def heads(views: int, n: int = 24) -> tuple[list[Tensor], list[Tensor]]:
    """Z of 6 and C of 5 features, of which each view has its own."""
    z, c = unit_rows(n, 6), unit_rows(n, 5, 1)
    nudged = [(z + 0.3 * unit_rows(n, 6, 2 + v), c + 0.3 * unit_rows(n, 5, 9 + v)) for v in range(views)]
    return [functional.normalize(a, dim=1) for a, _ in nudged], [functional.normalize(b, dim=1) for _, b in nudged]


def plain_projection(c: Tensor, iterations: int | None) -> Tensor:
    """Autograd through 300 rounds; or as the authors' code has it, column scalings constant."""
    logs = (c @ c.mT).abs() / ETA
    if iterations is None:
        for _ in range(300):
            logs = logs - logs.logsumexp(1, keepdim=True)
            logs = logs - logs.logsumexp(0, keepdim=True)
        return logs.exp()
    f, g = logs.new_zeros(len(c), 1), logs.new_zeros(1, len(c))
    for step in range(iterations):
        if step % 2 == 0:
            f = -(logs + g).logsumexp(1, keepdim=True)
        else:
            g = -(logs + f).logsumexp(0, keepdim=True).detach()
    return (logs + f + g).exp()


def plain_mlc(z: Sequence[Tensor], c: Sequence[Tensor], gamma: float, iterations: int | None, factor: float) -> Tensor:
    """Eq. 4, to be minimised, column by column of Pi; a column is weighted by its sum, which eq. 4 takes to be 1."""
    mean = functional.normalize(torch.stack(list(z)).mean(0), dim=1)
    pi = torch.stack([plain_projection(view, iterations) for view in c]).mean(0)
    (n, d), mass = mean.shape, pi.sum(0) if iterations else pi.new_ones(len(pi))
    grams = (pi.mT.unsqueeze(1) * mean.mT) @ mean  # [n, d, d]
    parts = torch.logdet(torch.eye(d).double() + (d / (mass * EPS_SQ)).view(-1, 1, 1) * grams)
    whole = torch.logdet(torch.eye(d).double() + d / (n * EPS_SQ) * mean.mT @ mean)
    return factor * ((mass * parts).sum() / n - whole) + gamma / 2 * pi.square().sum()


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("iterations", [None, 4, 5])
@pytest.mark.parametrize("views", [1, 2])
def test_mlc_is_equation_4_with_its_gradients(views: int, iterations: int | None, factor: float) -> None:
    z, c = heads(views)
    inputs = [x.requires_grad_() for x in (*z, *c)]
    expected = plain_mlc(z, c, 0.7, iterations, factor)
    found, _ = ops.mlc_objective(z, c, EPS_SQ, 0.7, ETA, iterations, factor)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    theirs = torch.autograd.grad(expected, inputs)
    torch.testing.assert_close(torch.autograd.grad(found, inputs), theirs, rtol=1e-7, atol=1e-10)
    with mock.patch.object(gram, "MANY", 1):
        other, _ = ops.mlc_objective(z, c, EPS_SQ, 0.7, ETA, iterations, factor)
        torch.testing.assert_close(torch.autograd.grad(other, inputs), theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("many", [1, 10**9], ids=["strips", "per-cluster"])
def test_mlc_by_finite_differences(many: int) -> None:
    raw = [torch.randn(6, 3, generator=torch.Generator().manual_seed(s)).double().requires_grad_() for s in range(4)]

    def loss(*x: Tensor) -> Tensor:
        rows = [functional.normalize(part, dim=1) for part in x]
        return ops.mlc_objective(rows[:2], rows[2:], 0.3, 0.5, 0.4)[0]

    with mock.patch.object(gram, "MANY", many):
        assert torch.autograd.gradcheck(loss, tuple(raw))


def test_mlc_does_not_know_the_order_of_points_nor_the_sign_of_a_view() -> None:
    z, c = heads(2)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(4))
    flips = torch.where(torch.arange(24) % 3 == 0, -1.0, 1.0).double().unsqueeze(1)
    for iterations in (None, 5):
        loss, terms = ops.mlc_objective(z, c, EPS_SQ, 0.7, ETA, iterations)
        for other in ([x[order] for x in z], [x[order] for x in c]), ([x * flips for x in z], [x * flips for x in c]):
            again, parts = ops.mlc_objective(*other, EPS_SQ, 0.7, ETA, iterations)
            torch.testing.assert_close((again, parts), (loss, terms), rtol=1e-10, atol=0)


def test_much_entropy_makes_one_cluster_of_all() -> None:
    """Pi = 1/n: every cluster is the whole, R_c = R and |Pi|^2 = 1, so that gamma / 2 is left."""
    z, c = heads(2)
    loss, terms = ops.mlc_objective(z, c, EPS_SQ, 0.6, 1e5)
    assert float(loss) == pytest.approx(0.6 / 2, abs=1e-7)
    assert float(terms["cluster_rate"]) == pytest.approx(-float(terms["rate"]), rel=1e-9)
    assert float(terms["rate"]) == pytest.approx(-2 * float(ops.coding_rate(ops.normalised_mean(z), EPS_SQ)), rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_orthogonal_lines_reach_the_known_optimum(factor: float) -> None:
    """k lines of m points and little entropy: R = k ln(1 + d/(k eps^2)), R_c = ln(1 + d/eps^2), |Pi|^2 = k."""
    k, m, d = 4, 5, 6
    z = torch.eye(k, d).double().repeat_interleave(m, 0)
    loss, terms = ops.mlc_objective((z, z), (z, z), EPS_SQ, 0.3, 0.02, rate_factor=factor)
    assert float(terms["rate"]) == pytest.approx(-factor * k * math.log1p(d / (k * EPS_SQ)), rel=1e-12)
    assert float(terms["cluster_rate"]) == pytest.approx(factor * math.log1p(d / EPS_SQ), rel=1e-9)
    assert float(terms["regulariser"]) == pytest.approx(0.3 / 2 * k, rel=1e-9)
    assert float(loss) == pytest.approx(sum(float(term) for term in terms.values()), rel=1e-14)


def test_the_terms_of_mlc_add_up_and_carry_its_gradient() -> None:
    z, c = heads(2)
    inputs = [x.requires_grad_() for x in (*z, *c)]
    loss, terms = ops.mlc_objective(z, c, EPS_SQ, 0.7, ETA)
    assert sorted(terms) == ["cluster_rate", "rate", "regulariser"]
    assert float(loss.detach()) == pytest.approx(sum(float(t.detach()) for t in terms.values()), rel=1e-14)
    parts = [
        torch.autograd.grad(t, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
        for t in terms.values()
    ]
    summed = [torch.stack(of_one).sum(0) for of_one in zip(*parts, strict=True)]
    torch.testing.assert_close(list(torch.autograd.grad(loss, inputs)), summed)


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("iterations", [None, 5])
def test_mlc_in_autocast_is_computed_in_float32(half: torch.dtype, iterations: int | None) -> None:
    z, c = ([x.to(half).requires_grad_() for x in views] for views in heads(2, 200))
    with torch.autocast("cpu", dtype=torch.float16 if half == torch.float16 else torch.bfloat16):
        loss, terms = ops.mlc_objective(z, c, EPS_SQ, 0.05, 0.08, iterations)
    gradients = torch.autograd.grad(loss, [*z, *c])
    wide = [x.detach().double().requires_grad_() for x in (*z, *c)]
    exact, _ = ops.mlc_objective(wide[:2], wide[2:], EPS_SQ, 0.05, 0.08, iterations)
    assert {x.dtype for x in (loss, *terms.values())} == {torch.float32}
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    near = {torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2}[half]
    for mine, theirs in zip(gradients, torch.autograd.grad(exact, wide), strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < near


def test_affinities_are_absolute_cosines_in_float32() -> None:
    c = unit_rows(9, 4)
    np.testing.assert_allclose(ops.affinity_rows(c).numpy(), np.abs(c.numpy() @ c.numpy().T), rtol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = ops.affinity_rows(c.float())
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.double(), ops.affinity_rows(c), rtol=1e-5, atol=1e-6)


def test_mlc_names_bad_input() -> None:
    z, c = heads(1)
    with pytest.raises(ValueError, match=r"pi must be \[24, k\]"):
        ops.mlc_objective(z, [c[0][:20]], EPS_SQ, 0.7, ETA)
    with pytest.raises(ValueError, match="eta must be positive"):
        ops.mlc_objective(z, c, EPS_SQ, 0.7, 0.0)


def test_tcr_of_the_average_is_equation_5_halved() -> None:
    """R and lambda sum |z_i z'_i| of eq. 5 by numpy; half of it, with lambda = 2/n of the weight of the mean."""
    a, b = unit_rows(30, 5).numpy(), unit_rows(30, 5, 1).numpy()
    mean, dots = (a + b) / 2, np.abs((a * b).sum(1))
    whole = np.linalg.slogdet(np.eye(5) + 5 / (30 * 0.2) * mean.T @ mean)[1]
    assert (np.sign((a * b).sum(1)) < 0).any()
    loss, terms = ops.tcr_objective([torch.from_numpy(a), torch.from_numpy(b)], 0.2, 7.0, "average")
    assert float(loss) == pytest.approx(-(whole + 2 / 30 * 7 * dots.sum()) / 2, rel=1e-12)
    assert float(terms["similarity"]) == pytest.approx(-7 * dots.mean(), rel=1e-12)
    half = [torch.from_numpy(x).bfloat16() for x in (a, b)]
    assert ops.tcr_objective(half, 0.2, 7.0, "average")[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(9, 5), (12, 16), (20, 17), (11, 40), (33, 64), (1, 20)])
def test_strips_of_outer_products_make_the_plain_gram_and_gradients(n: int, d: int, dtype: torch.dtype) -> None:
    """k = n clusters; widths below, at and beside multiples of the strips' height."""
    z, pi = unit_rows(n, d).to(dtype).requires_grad_(), unit_rows(n, n, 1).abs().to(dtype).requires_grad_()
    upstream = torch.randn(n, d, d, generator=torch.Generator().manual_seed(2)).to(dtype)
    upstream = upstream + upstream.mT
    plain = torch.einsum("na,nk,nb->kab", z.double(), pi.double(), z.double())
    expected = [x.to(dtype) for x in torch.autograd.grad(plain, (z, pi), upstream.double())]
    before = upstream.clone()
    with mock.patch.object(gram, "MANY", 1):
        found = gram.weighted_gram(z, pi)
        both = torch.autograd.grad(found, (z, pi), upstream, retain_graph=True)
        alone = [torch.autograd.grad(found, x, upstream, retain_graph=True)[0] for x in (z, pi)]
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(found, plain.to(dtype), **near)
    torch.testing.assert_close(list(both), expected, **near)
    torch.testing.assert_close(alone, expected, **near)
    assert torch.equal(upstream, before)


def test_no_clusters_and_no_rows_have_no_rate() -> None:
    """As on a worker that holds none."""
    z = unit_rows(5, 3).float().requires_grad_()
    rate = ops.cluster_coding_rate(z, torch.zeros(5, 0), EPS_SQ)
    assert float(rate.detach()) == 0 and not torch.autograd.grad(rate, z)[0].any()
    assert not gram.weighted_gram(torch.zeros(0, 3), torch.zeros(0, 2)).any()
