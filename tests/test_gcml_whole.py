"""The update on all samples holds a block of rows at a time: same gradients, also with workers and under autocast."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.methods import gcml
from raymc.methods.base import Batch
from raymc.nets.autoencoder import AUTOENCODERS, build_encoder
from tests import worker_functions as work
from tests.test_gcml import SETTINGS, _all_rows, tiny
from tests.worker_pool import on_workers


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 5 rows; small nets."""
    monkeypatch.setattr(gcml, "WHOLE_ROWS", 5)
    monkeypatch.setitem(AUTOENCODERS, "dense_256", (16, 8))


def everything() -> tuple[nn.ModuleDict, Batch]:
    model, batch = tiny()
    return model, dataclasses.replace(batch, views=(_all_rows(batch),), index=torch.arange(12))


def gradients(model: nn.ModuleDict, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    gcml.structure_loss(model, batch, SETTINGS, None)[0].backward()
    return [p.grad.clone() for name in ("encoder", "centers") for p in model[name].parameters() if p.grad is not None]


def test_blocks_have_the_gradient_of_all_rows_at_once_and_are_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = everything()
    seen: list[int] = []
    model["encoder"][0].register_forward_hook(lambda module, given, out: seen.append(len(out)))
    blocked = gradients(model, batch)
    assert seen[:3] == [5, 5, 2] and sorted(seen[3:]) == [2, 5, 5]
    monkeypatch.setattr(gcml, "WHOLE_ROWS", 12)
    seen.clear()
    plain = gradients(model, batch)
    assert seen == [12] and len(plain) == len(blocked) == 7
    for one, other in zip(blocked, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_no_activation_of_a_block_outlives_its_forward_pass() -> None:
    """What is held for the gradient: the samples, which are there anyway, and z."""
    encoder = build_encoder("dense_256", 6, 2).double()
    held: list[Any] = []
    encoder[1].register_forward_hook(lambda module, given, out: held.append(_alive(out)))
    z = gcml.embedded(encoder, torch.randn(23, 6).double())
    assert len(held) == 5 and not any(alive() for alive in held)
    z.sum().backward()


def _alive(x: Tensor) -> Any:
    """Whether the memory of x is still in use."""
    storage = weakref.ref(x.untyped_storage())
    return lambda: storage() is not None


def test_under_autocast_the_gradients_of_blocks_are_summed_up_in_float32() -> None:
    torch.manual_seed(0)
    encoder, one = build_encoder("dense_256", 6, 2), torch.randn(5, 6)
    found = []
    for blocks in (1, 256):  # of the same rows; by a power of 2 nothing is rounded otherwise
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = gcml.embedded(encoder, one.repeat(blocks, 1))
        assert z.dtype == torch.float32
        (z.square().sum() / blocks).backward()
        found.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for wanted, summed in zip(*found, strict=True):
        torch.testing.assert_close(summed, wanted, rtol=1e-4, atol=1e-7)


def blocked_losses(group: ProcessGroup | None, rows: np.ndarray) -> dict[str, work.Result]:
    """GCML's losses and gradients with blocks of 4 rows."""
    before, gcml.WHOLE_ROWS = gcml.WHOLE_ROWS, 4
    try:
        return work.gcml_losses(group, rows, alternating=True)
    finally:
        gcml.WHOLE_ROWS = before


def test_several_workers_have_the_gradients_of_one_that_takes_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcml, "WHOLE_ROWS", 23)
    alone = work.gcml_losses(None, np.arange(23), alternating=True)
    for found in on_workers(blocked_losses, np.array_split(np.arange(23), 2)):
        for name, (value, wanted) in alone.items():
            assert found[name][0] == pytest.approx(value, rel=1e-12), name
            for one, other in zip(found[name][1], wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)
