"""The projection onto doubly stochastic matrices against numpy, closed forms, unrolled autograd and its invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc.errors import DivergedError
from raymc.ops import affinity_rows, sinkhorn
from raymc.ops.checks import Deferred
from raymc.ops.sinkhorn import _symmetric, sinkhorn_columns, symmetric_scaling
from raymc.ops.sinkhorn_gradient import CHECK_EVERY, _symmetric_multipliers

ETAS = (0.05, 0.175, 1.0, 5.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(n: int = 40, seed: int = 0) -> Tensor:
    """|C C^T| of points near four planes in six dimensions."""
    planes = normal(4, 2, 6, seed=seed)
    points = torch.einsum("na,nab->nb", normal(n, 2, seed=seed + 1), planes[torch.arange(n) % 4])
    return affinity_rows(functional.normalize(points + 0.1 * normal(n, 6, seed=seed + 2), dim=1))


def affinity(kind: str, n: int = 40) -> Tensor:
    """A float64 matrix; `skew` is not symmetric and has negative entries."""
    random = torch.rand(n, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return {"clusters": clusters(n), "random": (random + random.mT) / 2, "skew": 2 * random - 1}[kind]


def by_numpy(matrix: Tensor, eta: float) -> np.ndarray:
    """Rows and columns of exp(A / eta) divided by their sums in turn, until nothing moves."""
    kernel = np.exp((matrix.numpy() - matrix.numpy().max()) / eta)
    for _ in range(100_000):
        kernel = kernel / kernel.sum(1, keepdims=True)
        kernel = kernel / kernel.sum(0, keepdims=True)
        if np.abs(kernel.sum(1) - 1).max() < 1e-13:
            return kernel
    raise AssertionError("numpy's way did not settle")


def by_autograd(matrix: Tensor, eta: float, iterations: int = 300) -> Tensor:
    """The same, unrolled on logarithms and differentiated through every iteration."""
    logs = matrix / eta
    for _ in range(iterations):
        logs = logs - logs.logsumexp(1, keepdim=True)
        logs = logs - logs.logsumexp(0, keepdim=True)
    return logs.exp()


def published(matrix: Tensor, eta: float, half_steps: int) -> Tensor:
    """The layer of MLC's authors: potentials u and v of masses 1/n in turn, v always detached; n times its plan."""
    n = len(matrix)
    u, v = matrix.new_zeros(n), matrix.new_zeros(n)
    for step in range(half_steps):
        plan = (matrix + u[:, None] + v) / eta
        if step % 2 == 0:
            u = u + eta * (-math.log(n) - plan.logsumexp(1))
        else:
            v = (v + eta * (-math.log(n) - plan.logsumexp(0))).detach()
    return n * ((matrix + u[:, None] + v) / eta).exp()


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad((function(x) * upstream.to(x.dtype)).sum(), x)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(
    ("kind", "symmetric"),
    [("clusters", False), ("clusters", True), ("random", False), ("random", True), ("skew", False)],
)
def test_the_projection_is_doubly_stochastic_and_numpy_s(
    kind: str, symmetric: bool, eta: float, dtype: torch.dtype
) -> None:
    matrix = affinity(kind)
    pi = sinkhorn(matrix.to(dtype), eta, symmetric=symmetric)
    near = 1e-4 if dtype == torch.float32 else 1e-10
    assert pi.dtype == dtype and pi.min() > 0
    assert max(float((pi.sum(axis) - 1).abs().max()) for axis in (0, 1)) < near
    np.testing.assert_allclose(pi.double().numpy(), by_numpy(matrix, eta), rtol=10 * near, atol=near / 10)


@pytest.mark.parametrize("eta", [0.02, 0.005])
def test_a_small_eta_is_no_obstacle_among_symmetric_affinities(eta: float) -> None:
    pi = sinkhorn(clusters(200).float(), eta, symmetric=True)
    assert float((pi.sum(0) - 1).abs().max()) < 1e-4
    assert float(pi.diagonal().mean()) > 0.2


@pytest.mark.parametrize("draw", range(3))
@pytest.mark.parametrize(("n", "dim", "eta"), [(64, 8, 0.05), (64, 16, 0.05), (256, 16, 0.05), (256, 8, 0.02)])
def test_nor_where_nobody_vouches_for_their_symmetry(n: int, dim: int, eta: float, draw: int) -> None:
    """Rows and columns in turn do not settle here; |C C^T| is its own transpose but for the last bit."""
    c, upstream = functional.normalize(normal(n, dim, seed=draw), dim=1), normal(n, n, seed=9)
    matrix = (c @ c.mT).abs()
    pi, vouched = (sinkhorn(matrix, eta, symmetric=symmetric) for symmetric in (False, True))
    assert max(float((pi.sum(axis) - 1).abs().max()) for axis in (0, 1)) < 1e-11
    torch.testing.assert_close(pi, vouched, rtol=1e-12, atol=0)
    slopes = [gradient(lambda x, s=s: sinkhorn((x @ x.mT).abs(), eta, symmetric=s), c, upstream) for s in (False, True)]
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-9)


def test_a_symmetric_affinity_whose_projection_swings_settles_as_any_other() -> None:
    """Nearly all mass goes from one half of the points to the other: halving the error takes too long there."""
    halves = torch.arange(40) < 20
    matrix = (halves[:, None] != halves).double() + 0.05 * affinity("random") + 0.2 * (halves[:, None] & halves)
    with pytest.raises(DivergedError, match="too small"):
        sinkhorn(matrix, 0.17, symmetric=True)
    np.testing.assert_allclose(sinkhorn(matrix, 0.17).numpy(), by_numpy(matrix, 0.17), rtol=1e-9, atol=1e-11)


def test_two_points_in_closed_form() -> None:
    """[[p, q], [q, p]] with q / p = exp((b + c - a - d) / 2 eta)."""
    for matrix, eta in (([[0.9, 0.4], [0.4, 0.9]], 0.3), ([[1.0, -0.7], [0.2, 0.3]], 0.5), ([[0.0, 1.0], [0.4, 0]], 1)):
        (a, b), (c, d) = matrix
        ratio = math.exp((b + c - a - d) / (2 * eta))
        expected = torch.tensor([[1, ratio], [ratio, 1]], dtype=torch.float64) / (1 + ratio)
        found = sinkhorn(torch.tensor(matrix, dtype=torch.float64), eta)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    pi = sinkhorn(torch.tensor([[0.9, 0.4], [0.4, 0.9]], dtype=torch.float64), 0.3, symmetric=True)
    assert float(pi[0, 1] / pi[0, 0]) == pytest.approx(math.exp((0.4 - 0.9) / 0.3), rel=1e-10)


def test_equal_blocks_in_closed_form() -> None:
    """Four clusters of five equal points, orthogonal to each other: p within and q across, 5 p + 15 q = 1."""
    matrix = torch.eye(4).double().repeat_interleave(5, 0).repeat_interleave(5, 1)
    p = 1 / (5 + 15 * math.exp(-1 / 0.175))
    expected = p * torch.where(matrix > 0, torch.ones_like(matrix), math.exp(-1 / 0.175))
    for symmetric in (False, True):
        torch.testing.assert_close(sinkhorn(matrix, 0.175, symmetric=symmetric), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_points_alone_and_points_twice(symmetric: bool) -> None:
    one = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    pi = sinkhorn(one, 0.1, symmetric=symmetric)
    assert float(pi.detach()) == pytest.approx(1, abs=1e-12)
    assert float(torch.autograd.grad(pi.sum(), one)[0]) == pytest.approx(0, abs=1e-12)
    c = functional.normalize(normal(6, 3), dim=1).repeat(2, 1)
    pi = sinkhorn(affinity_rows(c), 0.3, symmetric=symmetric)
    for part in (pi[:6, 6:], pi[6:, :6], pi[6:, 6:]):
        torch.testing.assert_close(part, pi[:6, :6], rtol=1e-9, atol=0)
    torch.testing.assert_close(2 * pi[:6, :6], sinkhorn(affinity_rows(c[:6]), 0.3), rtol=1e-8, atol=1e-11)


def test_constants_of_rows_and_columns_change_nothing() -> None:
    matrix, rows, columns = affinity("skew"), normal(40, 1, seed=5), normal(1, 40, seed=6)
    pi = sinkhorn(matrix, 0.2)
    for shift in (torch.tensor(3.0), rows, columns, rows + columns):
        torch.testing.assert_close(sinkhorn(matrix + shift, 0.2), pi, rtol=1e-8, atol=1e-12)
    alike = clusters()
    pi = sinkhorn(alike, 0.2, symmetric=True)
    torch.testing.assert_close(sinkhorn(alike + rows + rows.mT, 0.2, symmetric=True), pi, rtol=1e-8, atol=1e-12)


def test_reordered_points_give_the_reordered_projection() -> None:
    matrix = affinity("skew")
    p, q = (torch.randperm(40, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    torch.testing.assert_close(sinkhorn(matrix[p][:, q], 0.1), sinkhorn(matrix, 0.1)[p][:, q], rtol=1e-9, atol=1e-13)
    alike = clusters()
    for count in (None, 4, 5):
        mine = sinkhorn(alike[p][:, p], 0.1, count, symmetric=True)
        torch.testing.assert_close(mine, sinkhorn(alike, 0.1, count, symmetric=True)[p][:, p], rtol=1e-9, atol=1e-13)


HARD = {
    "even": lambda x: x,
    "near a line": lambda x: x * torch.tensor([1, 0.1, 0.01, 0.001]),
    "an orthant": lambda x: x.abs(),
    "duplicates": lambda x: x[torch.arange(len(x)) % 7],
    "one cluster of most": lambda x: torch.where(torch.arange(len(x))[:, None] < 100, x[0] + 0.1 * x, x),
}


def hard(kind: str) -> Tensor:
    return affinity_rows(functional.normalize(HARD[kind](normal(120, 4, seed=2)), dim=1))


@pytest.mark.parametrize("eta", [0.01, 0.175, 5.0])
def test_what_mlc_projects_is_exact_after_the_iterations_of_a_gpu_and_so_is_its_gradient(eta: float) -> None:
    """Views at once, no looks: against plain halving on logarithms, and a dense solution of (I + Pi) s = b."""
    logs, b = torch.stack([hard(kind) for kind in HARD]) / eta, normal(len(HARD), 120, seed=4)
    f = torch.zeros_like(logs[..., 0])
    for _ in range(200):
        f = (f - (logs + f[:, None]).logsumexp(2)) / 2
    expected = (logs + f[..., None] + f[:, None]).exp()
    checks: Deferred = {}
    _, pi = _symmetric(logs, eta, None, [120], checks)
    assert all(float(worst) < limit.largest for limit, worst in checks.items()) and len(checks) == 1
    torch.testing.assert_close(pi, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sinkhorn_columns(logs * eta, eta, None, None), expected, rtol=1e-12, atol=1e-12)
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = _symmetric_multipliers(expected.to(dtype), b.to(dtype), None, [120], exact=False)
        solved = torch.linalg.solve(torch.eye(120).double() + expected, b)
        assert float((found - solved).abs().max() / solved.abs().max()) < near


def test_a_symmetric_affinity_has_a_symmetric_projection_and_gradient() -> None:
    matrix, upstream = clusters(), normal(40, 40, seed=9)
    for eta in ETAS:
        general, fast = (sinkhorn(matrix, eta, symmetric=flag) for flag in (False, True))
        torch.testing.assert_close(general, fast, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(general, general.mT, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(fast, fast.mT, rtol=1e-13, atol=1e-16)
        slope = gradient(lambda x, eta=eta: sinkhorn(x, eta, symmetric=True), matrix, upstream + upstream.mT)
        torch.testing.assert_close(slope, slope.mT, rtol=1e-9, atol=1e-14)


def test_gradients_by_finite_differences() -> None:
    raw, square = normal(7, 3).requires_grad_(), affinity("skew", 6).requires_grad_()

    def of_points(x: Tensor, symmetric: bool) -> Tensor:
        return sinkhorn(affinity_rows(functional.normalize(x, dim=1)), 0.3, symmetric=symmetric)

    assert torch.autograd.gradcheck(lambda a: sinkhorn(a, 0.5), (square,))
    assert torch.autograd.gradcheck(lambda x: of_points(x, False), (raw,))
    assert torch.autograd.gradcheck(lambda x: of_points(x, True), (raw,))


@pytest.mark.parametrize("eta", [0.1, 0.3, 2.0])
def test_the_implicit_gradient_is_that_through_300_iterations(eta: float) -> None:
    upstream = normal(40, 40, seed=9)
    expected = gradient(lambda x: by_autograd(x, eta), affinity("skew"), upstream)
    found = gradient(lambda x: sinkhorn(x, eta), affinity("skew"), upstream)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-11)

    points = functional.normalize(normal(40, 6, seed=11), dim=1)
    expected = gradient(lambda x: by_autograd((x @ x.mT).abs(), eta), points, upstream)
    for symmetric in (False, True):
        mine = gradient(lambda x, s=symmetric: sinkhorn(affinity_rows(x), eta, symmetric=s), points, upstream)
        torch.testing.assert_close(mine, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_along_what_changes_nothing(dtype: torch.dtype) -> None:
    upstream, near = normal(40, 40, seed=9), 1e-3 if dtype == torch.float32 else 1e-9
    for matrix, symmetric in ((affinity("skew"), False), (clusters(), False), (clusters(), True)):
        slope = gradient(lambda x, s=symmetric: sinkhorn(x, 0.1, symmetric=s), matrix.to(dtype), upstream)
        rows, columns = slope.sum(1), slope.sum(0)
        still = (rows + columns,) if symmetric else (rows, columns)  # a symmetric affinity moves by f_i + f_j only
        assert max(float(sums.abs().max()) for sums in still) < near
        assert float((sinkhorn(matrix, 0.1) * upstream).sum(0).abs().max()) / 0.1 > 1000 * near


@pytest.mark.parametrize("half_steps", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", ["clusters", "skew"])
def test_a_number_of_iterations_is_the_published_layer(kind: str, half_steps: int) -> None:
    matrix, upstream = affinity(kind), normal(40, 40, seed=9)
    torch.testing.assert_close(
        sinkhorn(matrix, 0.2, half_steps), published(matrix, 0.2, half_steps), rtol=1e-11, atol=0
    )
    expected = gradient(lambda x: published(x, 0.2, half_steps), matrix, upstream)
    found = gradient(lambda x: sinkhorn(x, 0.2, half_steps), matrix, upstream)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_five_half_steps_are_a_softmax_with_a_constant_offset() -> None:
    """exp((A + v) / eta), rows divided by their sums: v comes from two rounds of sums."""
    matrix, upstream, eta = clusters(), normal(40, 40, seed=9), 0.175
    kernel = np.exp(matrix.numpy() / eta)
    scale = np.ones(40)
    for _ in range(2):
        scale = 1 / ((1 / (kernel @ scale)) @ kernel)
    offset = eta * torch.from_numpy(scale).log()
    pi = sinkhorn(matrix, eta, 5)
    torch.testing.assert_close(pi, ((matrix + offset) / eta).softmax(1), rtol=1e-11, atol=0)
    torch.testing.assert_close(pi.sum(1), torch.ones(40).double(), rtol=1e-12, atol=0)
    assert float((pi.sum(0) - 1).abs().max()) > 1e-6  # not yet a projection
    expected = gradient(lambda x: ((x + offset) / eta).softmax(1), matrix, upstream)
    torch.testing.assert_close(gradient(lambda x: sinkhorn(x, eta, 5), matrix, upstream), expected)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_autocast_and_half_precision_are_computed_in_float32(dtype: torch.dtype, symmetric: bool) -> None:
    """Also the products of the projection and of its gradient: at this eta, in half precision, they never settle."""
    matrix = affinity_rows(functional.normalize(normal(200, 8), dim=1)).to(dtype)
    upstream = normal(200, 200, seed=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pi, few = sinkhorn(matrix, 0.05, symmetric=symmetric), sinkhorn(matrix, 0.05, 5)
        slope = gradient(lambda x: sinkhorn(x, 0.05, symmetric=symmetric), matrix.float(), upstream)
        _, scaled = symmetric_scaling(matrix, 0.05)
    assert pi.dtype == few.dtype == scaled.dtype == torch.float32
    exact = sinkhorn(matrix.double(), 0.05, symmetric=symmetric)
    torch.testing.assert_close(pi.double(), exact, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(few.double(), sinkhorn(matrix.double(), 0.05, 5), rtol=1e-4, atol=1e-6)
    expected = gradient(lambda x: sinkhorn(x, 0.05, symmetric=symmetric), matrix.double(), upstream)
    assert float((slope - expected).norm() / expected.norm()) < 1e-4


def test_columns_and_scaling_without_workers() -> None:
    matrix = clusters().requires_grad_()
    pi = sinkhorn(matrix, 0.1, symmetric=True)
    assert torch.equal(sinkhorn_columns(matrix[None], 0.1, None, None)[0], pi)
    assert torch.equal(sinkhorn_columns(matrix[None], 0.1, 5, None)[0], sinkhorn(matrix, 0.1, 5))
    f, scaled = symmetric_scaling(matrix, 0.1)
    assert torch.equal(scaled, pi) and not scaled.requires_grad and not f.requires_grad
    torch.testing.assert_close((matrix / 0.1 + f[:, None] + f).exp(), pi, rtol=1e-12, atol=0)
    with pytest.raises(DivergedError, match="not finite"):
        symmetric_scaling(torch.full((3, 3), math.nan), 0.1)


class Looks(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts numbers fetched from tensors, each of which waits for a GPU, and sums over rows or columns of [n, n]."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched = self.products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        aten = torch.ops.aten
        self.fetched += function is aten._local_scalar_dense.default
        products = (aten.mv, aten.mm, aten.addmv, aten.logsumexp)
        self.products += function in [packet.default for packet in products]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_sums_are_looked_at_every_ten_iterations_only(symmetric: bool) -> None:
    matrix = (clusters(60) if symmetric else affinity("skew", 60)).requires_grad_()
    per_iteration = 1 if symmetric else 2
    with Looks() as looks:
        pi = sinkhorn(matrix, 0.05, symmetric=symmetric)
    assert looks.products >= 2 * per_iteration * CHECK_EVERY, "too easy a case to tell"
    whether = 0 if symmetric else 1  # it is looked at once, where nobody vouches for it
    assert 1 <= looks.fetched <= whether + looks.products / (per_iteration * CHECK_EVERY)
    with Looks() as looks:
        torch.autograd.grad((pi * normal(60, 60)).sum(), matrix)
    assert 1 <= looks.fetched <= looks.products / (per_iteration * CHECK_EVERY)
    with Looks() as looks:
        sinkhorn(matrix, 0.05, 5)
    assert looks.fetched == 0


@pytest.mark.parametrize(
    ("matrix", "eta", "iterations", "words"),
    [
        (torch.ones(2, 3), 0.1, None, r"square matrix, got \[2, 3\]"),
        (torch.ones(4), 0.1, None, r"square matrix, got \[4\]"),
        (torch.ones(1, 2, 2), 0.1, 5, "square matrix"),
        (torch.ones(2, 2), 0.0, None, "eta must be positive, got 0.0"),
        (torch.ones(2, 2), -1.0, 5, "eta must be positive"),
        (torch.ones(2, 2), math.nan, None, "eta must be positive"),
        (torch.ones(2, 2), 0.1, 0, "iterations must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(matrix: Tensor, eta: float, iterations: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sinkhorn(matrix, eta, iterations)


def test_what_does_not_settle_is_an_error_that_names_eta() -> None:
    """[[1, 0.3], [0, 0]] turns into the identity as eta falls, ever more slowly."""
    slow = torch.tensor([[1.0, 0.3], [0.0, 0.0]])
    assert float(sinkhorn(slow, 0.1)[0, 0]) == pytest.approx(1 / (1 + math.exp(-0.7 / 0.2)), rel=1e-4)
    with pytest.raises(DivergedError, match="within 2000 iterations: eta 0.02 is too small"):
        sinkhorn(slow, 0.02)
    for symmetric in (False, True):
        with pytest.raises(DivergedError, match="not finite"):
            sinkhorn(torch.full((3, 3), math.nan), 0.1, symmetric=symmetric)
