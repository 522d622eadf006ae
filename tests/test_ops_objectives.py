"""Views, Gumbel-softmax and the two objectives of NMCE."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc import ops


def unit_rows(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def noise(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normalised_mean_has_unit_rows_and_no_nan_where_views_cancel() -> None:
    a, b = unit_rows(6, 4), unit_rows(6, 4, 1)
    b[0] = -a[0]
    mean = ops.normalised_mean((a, b))
    torch.testing.assert_close(mean[1:].norm(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(mean[1:], functional.normalize(a + b, dim=1)[1:])
    assert mean[0].abs().max() == 0
    assert ops.normalised_mean((a.half(), b.half())).dtype == torch.float32


def test_cosine_similarity_of_known_angles() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    b = torch.tensor([[1.0, 1.0], [0.0, 3.0], [-5.0, 0.0]])
    assert float(ops.cosine_similarity_mean(a, b)) == pytest.approx((math.sqrt(0.5) + 0 - 1) / 3)
    assert ops.cosine_similarity_mean(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_similarity_of_three_views_is_the_mean_over_pairs() -> None:
    a, b, c = (unit_rows(5, 3, seed) for seed in range(3))
    pairs = [float(ops.cosine_similarity_mean(x, y)) for x, y in ((a, b), (a, c), (b, c))]
    assert float(ops.view_similarity((a, b, c))) == pytest.approx(sum(pairs) / 3)
    with pytest.raises(ValueError, match="two views"):
        ops.view_similarity((a,))


def test_gumbel_softmax_is_the_formula() -> None:
    logits, uniform = torch.tensor([[1.0, 2.0, 0.5]]).double(), torch.tensor([[0.2, 0.5, 0.9]]).double()
    scores = [math.exp((x - math.log(-math.log(u))) / 0.7) for x, u in zip([1, 2, 0.5], [0.2, 0.5, 0.9], strict=True)]
    expected = torch.tensor([[s / sum(scores) for s in scores]]).double()
    torch.testing.assert_close(ops.gumbel_softmax(logits, uniform, 0.7), expected)
    torch.testing.assert_close(ops.gumbel_softmax(logits + 5, uniform, 0.7), expected)


def test_gumbel_samples_follow_the_logits() -> None:
    """The largest of log p + Gumbel noise is class j with probability p_j (Gumbel-max)."""
    logits = torch.tensor([2.0, 1.0, 0.0]).log_softmax(0)
    samples = ops.gumbel_softmax(logits.expand(40_000, 3), noise(40_000, 3).float(), 1.0)
    share = torch.bincount(samples.argmax(1), minlength=3) / 40_000
    torch.testing.assert_close(share, logits.exp(), atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_noise_of_zero_and_one_and_small_temperatures_are_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[50.0, -50.0, 0.0]] * 3, dtype=dtype, requires_grad=True)
    uniform = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    soft = ops.gumbel_softmax(logits, uniform, 1e-2)
    (gradient,) = torch.autograd.grad(soft.square().sum(), logits)
    assert soft.isfinite().all() and gradient.isfinite().all()
    torch.testing.assert_close(soft.sum(1), torch.ones(3, dtype=soft.dtype))
    assert soft.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_straight_through_is_one_hot_with_the_soft_gradient() -> None:
    logits, uniform = unit_rows(9, 4).requires_grad_(), noise(9, 4)
    weights = torch.arange(36.0, dtype=torch.float64).view(9, 4)
    soft, hard = (ops.gumbel_softmax(logits, uniform, 0.5, flag) for flag in (False, True))
    assert set(hard.detach().unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hard.argmax(1), soft.argmax(1))
    torch.testing.assert_close(*(torch.autograd.grad((x * weights).sum(), logits)[0] for x in (soft, hard)))


def test_gumbel_softmax_names_bad_input() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        ops.gumbel_softmax(torch.ones(2, 3), torch.ones(2, 3), 0.0)
    with pytest.raises(ValueError, match=r"uniform must be \[2, 3\]"):
        ops.gumbel_softmax(torch.ones(2, 3), torch.ones(2, 2), 1.0)


def test_tcr_by_its_two_ways_with_views() -> None:
    a, b = unit_rows(30, 5), unit_rows(30, 5, 1)
    similar = float(ops.cosine_similarity_mean(a, b))
    rates = [float(ops.coding_rate(x, 0.2)) for x in (a, b, functional.normalize(a + b, dim=1))]
    separate, terms = ops.tcr_objective((a, b), 0.2, 7.0)
    assert float(separate) == pytest.approx(-(rates[0] + rates[1]) / 2 - 7 * similar)
    assert float(terms["similarity"]) == pytest.approx(-7 * similar)
    mean, _ = ops.tcr_objective((a, b), 0.2, 7.0, views="mean")
    assert float(mean) == pytest.approx(-rates[2] - 7 * similar)
    with pytest.raises(ValueError, match="separate, mean or average"):
        ops.tcr_objective((a, b), 0.2, 7.0, views="both")


def test_nmce_is_cluster_rate_minus_rate_minus_similarity() -> None:
    a, b = unit_rows(30, 5), unit_rows(30, 5, 1)
    p, q = noise(30, 3).softmax(1), noise(30, 3, 1).softmax(1)
    z, pi = functional.normalize(a + b, dim=1), (p + q) / 2
    loss, terms = ops.nmce_objective((a, b), (p, q), 0.2, 7.0)
    expected = ops.cluster_coding_rate(z, pi, 0.2) - ops.coding_rate(z, 0.2)
    assert float(loss) == pytest.approx(float(expected) - 7 * float(ops.cosine_similarity_mean(a, b)))
    assert sorted(terms) == ["cluster_rate", "rate", "similarity"]


@pytest.mark.parametrize("name", ["separate", "mean", "nmce"])
def test_terms_add_up_to_the_loss_and_carry_its_gradient(name: str) -> None:
    z = torch.stack([unit_rows(20, 4), unit_rows(20, 4, 1)]).requires_grad_()
    pi = torch.stack([noise(20, 3).softmax(1), noise(20, 3, 1).softmax(1)])
    if name == "nmce":
        loss, terms = ops.nmce_objective(list(z), list(pi), 0.2, 3.0)
    else:
        loss, terms = ops.tcr_objective(list(z), 0.2, 3.0, name)
    assert float(loss.detach()) == pytest.approx(sum(float(t.detach()) for t in terms.values()), rel=1e-14)
    parts = [torch.autograd.grad(t, z, retain_graph=True)[0] for t in terms.values()]
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.stack(parts).sum(0))


def test_objectives_by_finite_differences() -> None:
    raw = [torch.randn(6, 3, generator=torch.Generator().manual_seed(s)).double().requires_grad_() for s in (0, 1)]
    logits = [torch.randn(6, 2, generator=torch.Generator().manual_seed(s)).double().requires_grad_() for s in (2, 3)]

    def nmce(*x: Tensor) -> Tensor:
        z = [functional.normalize(row, dim=1) for row in x[:2]]
        pi = [ops.gumbel_softmax(row, noise(6, 2, i), 0.8) for i, row in enumerate(x[2:])]
        return ops.nmce_objective(z, pi, 0.2, 2.0)[0]

    def tcr(*x: Tensor) -> Tensor:
        return ops.tcr_objective([functional.normalize(row, dim=1) for row in x], 0.2, 2.0)[0]

    assert torch.autograd.gradcheck(nmce, (*raw, *logits))
    assert torch.autograd.gradcheck(tcr, tuple(raw))


def test_descending_the_objective_separates_two_lines() -> None:
    """Gradient steps lead to orthogonal clusters and a rate reduction near its maximum."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(60, 4, generator=generator).double() + torch.eye(2, 4).double().repeat_interleave(30, 0)
    raw.requires_grad_()
    logits = torch.eye(2).double().repeat_interleave(30, 0).requires_grad_()
    optimiser = torch.optim.Adam([raw, logits], lr=0.05)
    for _ in range(200):
        z, pi = functional.normalize(raw, dim=1), logits.softmax(1)
        loss, _ = ops.nmce_objective((z, z), (pi, pi), 0.01, 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    best = 4 / 2 * math.log1p(1 / 0.01) - 2 / 2 * math.log1p(2 / 0.01)
    assert -float(loss.detach()) == pytest.approx(best, rel=0.02)
    across = logits.argmax(1)[:, None] != logits.argmax(1)[None]
    assert float((z @ z.T)[across].detach().abs().max()) < 0.15
