"""MLC's objective on a device: nothing is waited for within an epoch, and what went wrong is said at its end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc.errors import DivergedError
from raymc.ops import affinity_rows
from raymc.ops.checks import deferred_checks
from raymc.ops.gram import MANY, weighted_gram
from raymc.ops.sinkhorn import TOLERANCE, sinkhorn_columns
from raymc.training.loop import train_epoch
from tests.device.pretend import GPU, installed
from tests.device.stepping import begun
from tests.device.trainings import make_config


def views(dtype: torch.dtype) -> Tensor:
    points = torch.randn(2, 60, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return affinity_rows(functional.normalize(points, dim=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_within_an_epoch_it_is_as_on_a_cpu_and_waits_for_nothing(dtype: torch.dtype) -> None:
    near = {"rtol": 1e-3, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    x, weights = views(dtype).requires_grad_(), views(dtype).cos()
    pi = sinkhorn_columns(x, 0.05, None, None)
    (slope,) = torch.autograd.grad((pi * weights).sum(), x)
    with installed() as log:
        there, upstream = x.detach().to(GPU).requires_grad_(), weights.to(GPU)
        log.clear()
        with deferred_checks() as checks:
            for _ in range(2):
                found = sinkhorn_columns(there, 0.05, None, None)
                (found_slope,) = torch.autograd.grad((found * upstream).sum(), there)
        assert log.totals[1] == 0 and len(checks) == 1
        for limit, worst in checks.items():
            limit.check(float(worst))
        torch.testing.assert_close(found.detach().cpu(), pi.detach(), **near)
        torch.testing.assert_close(found_slope.cpu(), slope, **near)
        log.clear()
        sinkhorn_columns(there, 0.05, None, None)  # on its own it looks
        assert log.totals[1] >= 1


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (torch.tensor([[0.0, 1.0, 0.9], [1.0, 0.0, 0.0], [0.9, 0.0, 0.0]]), "within 10 iterations: eta 0.02 is too"),
        (torch.full((3, 3), math.nan), "not finite"),
    ],
)
def test_the_worst_of_all_steps_is_remembered(matrix: Tensor, words: str) -> None:
    with installed(), deferred_checks() as checks:
        for one in (torch.eye(3), matrix, torch.eye(3)):
            sinkhorn_columns(one[None].to(GPU), 0.02, None, None)
        ((limit, worst),) = checks.items()
        with pytest.raises(DivergedError, match=words):
            limit.check(float(worst))


def test_an_epoch_ends_with_what_its_steps_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCE, torch.float32, 0.0)
    with installed():
        updates, feed = begun(make_config("mlc", "digits"), "heads", GPU, tmp_path)
        with pytest.raises(DivergedError, match="eta 0.175 is too small"):
            train_epoch(updates, feed, 0, 0)


@pytest.mark.parametrize("d", [9, 37, 64])
def test_matrices_of_many_clusters_by_fewer_and_larger_products(d: int) -> None:
    generator = torch.Generator().manual_seed(1)
    z, pi = (torch.rand(50, width, generator=generator).double().requires_grad_() for width in (d, MANY))
    upstream = torch.rand(MANY, d, d, generator=generator).double()
    upstream = upstream + upstream.mT
    gram = weighted_gram(z, pi)
    slopes = torch.autograd.grad((gram * upstream).sum(), (z, pi))
    with installed():
        there = [x.detach().to(GPU).requires_grad_() for x in (z, pi)]
        found = weighted_gram(*there)
        found_slopes = torch.autograd.grad((found * upstream.to(GPU)).sum(), there)
        torch.testing.assert_close(found.detach().cpu(), gram.detach(), rtol=1e-12, atol=1e-12)
        for mine, slope in zip(found_slopes, slopes, strict=True):
            torch.testing.assert_close(mine.cpu(), slope, rtol=1e-12, atol=1e-12)
