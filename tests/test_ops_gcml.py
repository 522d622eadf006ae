"""GCML's formulas against loops written from the paper's equations, by finite differences, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raymc import ops

K = 3


def points(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_assignment_and_target_are_equations_1_and_2() -> None:
    z, mu = points(7, 4), points(K, 4, 1)
    q, p = [[0.0] * K for _ in z], [[0.0] * K for _ in z]
    for i, row in enumerate(z):
        kernel = [1 / (1 + sum((a - b) ** 2 for a, b in zip(row.tolist(), m.tolist(), strict=True))) for m in mu]
        q[i] = [value / sum(kernel) for value in kernel]
    mass = [sum(row[j] for row in q) for j in range(K)]
    for i, row in enumerate(q):
        weight = [value**2 / mass[j] for j, value in enumerate(row)]
        p[i] = [value / sum(weight) for value in weight]
    found = ops.student_t_assignment(z, mu)
    torch.testing.assert_close(found, torch.tensor(q, dtype=torch.float64))
    torch.testing.assert_close(ops.target_distribution(found), torch.tensor(p, dtype=torch.float64))
    divergence = sum(p[i][j] * math.log(p[i][j] / q[i][j]) for i in range(len(z)) for j in range(K))
    assert float(ops.assignment_divergence(torch.tensor(p, dtype=torch.float64), found)) == pytest.approx(
        divergence, rel=1e-12
    )


def test_the_gradient_of_the_divergence_is_equation_4() -> None:
    z, mu = points(6, 2), points(K, 2, 1).requires_grad_()
    q = ops.student_t_assignment(z, mu)
    p = ops.target_distribution(q).detach()
    ops.assignment_divergence(p, q).backward()
    offset = z.unsqueeze(1) - mu.detach()
    kernel = 1 / (1 + offset.square().sum(2))
    # The paper prints half of it: DEC's kernel has (alpha + 1) / alpha in front, which is 2.
    wanted = -2 * (kernel * (p - q.detach())).unsqueeze(2).mul(offset).sum(0)
    torch.testing.assert_close(mu.grad, wanted)


def test_the_target_sharpens_and_is_blind_to_a_cluster_without_mass() -> None:
    q = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]], dtype=torch.float32)
    p = ops.target_distribution(q)
    assert bool(p.isfinite().all()) and float(p[0, 0]) > 0.6 and float(p[:, 2].sum()) == 0
    assert bool(ops.assignment_divergence(p, q.clamp_min(1e-6)).isfinite())


def test_rows_of_the_assignment_depend_on_their_point_alone_and_not_on_where_the_origin_is() -> None:
    z, mu, shift = points(9, 3), points(K, 3, 1), points(1, 3, 2)
    whole = ops.student_t_assignment(z, mu)
    torch.testing.assert_close(ops.student_t_assignment(z[4:6], mu), whole[4:6])
    torch.testing.assert_close(ops.student_t_assignment(z + 10 * shift, mu + 10 * shift), whole)
    torch.testing.assert_close(ops.student_t_assignment(z, mu.flip(0)), whole.flip(1))


def test_half_precision_is_assigned_in_float32() -> None:
    z, mu = points(5, 3).bfloat16(), points(K, 3, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ops.student_t_assignment(z, mu)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ops.student_t_assignment(z.float(), mu.float()))


def test_losses_of_structure_are_equations_5_6_and_8_summed_or_as_norms() -> None:
    mu, v, z, near = points(K, 2), points(K, 5, 1), points(6, 2, 2), points(24, 2, 3).view(6, 4, 2)
    apart = points(6, 4, 4).abs()
    size, there = torch.ones(K).double(), torch.ones(6, 4, dtype=torch.bool)
    means, kappa = points(K, 2, 5), 2.5
    rank = [math.dist(mu[i], mu[j]) - kappa * math.dist(v[i], v[j]) for i in range(K) for j in range(K)]
    local = [(float(apart[i, j]), math.dist(z[i], near[i, j])) for i in range(6) for j in range(4)]
    align = [math.dist(mu[j], means[j]) for j in range(K)]
    wanted = {
        "paper": (sum(map(abs, rank)), sum(abs(a / 5**0.5 - b / 2**0.5) for a, b in local), sum(align)),
        "published": (
            math.hypot(*rank) / K,
            math.hypot(*(a / 5**0.5 - b / 2**0.5 for a, b in local)),
            sum(align) / K,
        ),
    }
    for scales, (ranking, isometry, alignment) in wanted.items():
        assert float(ops.ranking_loss(mu, v, size, kappa, scales)) == pytest.approx(ranking, rel=1e-12)
        assert float(ops.isometry_loss(apart, z, near, there, (5, 2), scales)) == pytest.approx(isometry, rel=1e-12)
        assert float(ops.alignment_loss(mu, means, size, scales)) == pytest.approx(alignment, rel=1e-12)


@pytest.mark.parametrize("scales", ["paper", "published"])
def test_structure_by_finite_differences(scales: str) -> None:
    mu, z = points(K, 2).requires_grad_(), points(5, 2, 1).requires_grad_()
    v, size, apart = points(K, 4, 2), torch.ones(K).double(), points(5, 2, 3).abs()
    index = torch.tensor([[1, 2], [0, 3], [4, 0], [1, -1], [2, 3]])

    def structure(mu: Tensor, z: Tensor) -> Tensor:
        labels = torch.tensor([0, 1, 2, 0, 1])
        means, sizes = ops.cluster_means(z, labels, K)
        local = ops.isometry_loss(apart, z, z[index.clamp_min(0)], index >= 0, (4, 2), scales)
        return ops.ranking_loss(mu, v, size, 3.0, scales) + local + ops.alignment_loss(mu, means, sizes, scales)

    assert torch.autograd.gradcheck(structure, (mu, z))


def test_points_that_coincide_have_finite_gradients() -> None:
    z = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    mu = torch.zeros(K, 2, dtype=torch.float64, requires_grad=True)
    near = ops.neighbours_within(z.detach(), torch.zeros(4, dtype=torch.int64), 2)
    for scales in ("paper", "published"):
        means, size = ops.cluster_means(z, torch.zeros(4, dtype=torch.int64), K)
        loss = ops.isometry_loss(torch.zeros(4, 2).double(), z, z[near], near >= 0, (1, 1), scales)
        loss = loss + ops.ranking_loss(mu, torch.zeros(K, 3).double(), size, 3.0, scales)
        (loss + ops.alignment_loss(mu, means, size, scales)).backward()
    assert bool(z.grad.isfinite().all()) and bool(mu.grad.isfinite().all())


def test_a_cluster_without_points_has_no_place_in_the_ranking_and_alignment() -> None:
    mu, size = points(K, 2).requires_grad_(), torch.tensor([4.0, 0.0, 2.0]).double()
    v = points(K, 4, 1)
    v[1] = 1e6
    for scales in ("paper", "published"):
        loss = ops.ranking_loss(mu, v, size, 3.0, scales) + ops.alignment_loss(mu, points(K, 2, 2), size, scales)
        (grad,) = torch.autograd.grad(loss, mu)
        assert float(loss.detach()) < 1e3 and bool((grad[1] == 0).all()) and bool((grad[[0, 2]] != 0).any())


def test_isometry_is_blind_to_rotation_and_zero_for_an_isometry() -> None:
    x = points(20, 3)
    q, _ = torch.linalg.qr(points(3, 3, 1))
    labels = torch.zeros(20, dtype=torch.int64)
    near = ops.neighbours_within(x, labels, 4)
    apart = torch.linalg.vector_norm(x.unsqueeze(1) - x[near], dim=2)
    z = x @ q + 7
    for scales in ("paper", "published"):
        assert float(ops.isometry_loss(apart, z, z[near], near >= 0, (1, 1), scales)) < 1e-10
        assert float(ops.isometry_loss(apart, 2 * z, 2 * z[near], near >= 0, (1, 1), scales)) > 1


@pytest.mark.parametrize("block", [1, 50, 2**23])
def test_neighbours_are_the_nearest_others_of_the_same_label(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("raymc.ops.neighbours.BLOCK", block)
    z = points(40, 3)
    labels = torch.arange(40) % 4
    labels[labels == 3] = 5  # no label 3 and 4
    found = ops.neighbours_within(z, labels, 6)
    for i in range(40):
        others = [j for j in range(40) if j != i and labels[j] == labels[i]]
        others.sort(key=lambda j: math.dist(z[i], z[j]))
        assert found[i].tolist() == others[:6]


def test_small_clusters_and_duplicates_have_the_neighbours_that_there_are() -> None:
    z = torch.tensor([[0.0], [0.0], [1.0], [5.0], [9.0], [9.5]])
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    found = ops.neighbours_within(z, labels, 3)
    assert found[0].tolist() == [1, 2, -1] and found[1].tolist() == [0, 2, -1]
    assert found[3].tolist() == [-1, -1, -1] and found[4].tolist() == [5, -1, -1]
    empty = ops.neighbours_within(z[:0], labels[:0], 3)
    assert empty.shape == (0, 3)


def test_means_by_label_and_of_nothing() -> None:
    x, labels = points(6, 2), torch.tensor([2, 0, 2, 2, 0, 2])
    means, size = ops.cluster_means(x, labels, 4)
    assert size.tolist() == [2, 0, 4, 0]
    torch.testing.assert_close(means[2], x[labels == 2].mean(0))
    assert bool((means[[1, 3]] == 0).all())


def test_unknown_scales_are_named() -> None:
    with pytest.raises(ValueError, match="paper or published|published or paper"):
        ops.ranking_loss(points(2, 2), points(2, 2), torch.ones(2), 1.0, "sum")
