"""Draws on their way to the device: many in one buffer, each of them as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raymc.datasets import POLICIES, load
from raymc.distributed import Workers
from raymc.rng import generator
from raymc.training.feed import Feed
from raymc.training.smoke import limit
from raymc.training.transfer import ALIGNED, moved, packed, rows_at, unpacked

CPU, META = torch.device("cpu"), torch.device("meta")


def various() -> dict[tuple[int, str], Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        (0, "flip"): torch.rand(7, generator=draws) < 0.5,
        (0, "box"): torch.rand(7, 4, generator=draws),
        (1, "matrix"): torch.rand(7, 3, 3, generator=draws, dtype=torch.float64),
        (1, "bytes"): torch.randint(0, 256, (5, 3), generator=draws, dtype=torch.uint8),
        (1, "index"): torch.randperm(9, generator=draws)[2:5],
        (2, "none"): torch.empty(0, 3),
        (2, "one"): torch.tensor(0.25),
    }


def test_what_was_packed_comes_back_bit_by_bit() -> None:
    tensors = various()
    buffer = packed(tensors, pin=False)
    found = unpacked(buffer, tensors)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
        assert (found[name].data_ptr() - buffer.data_ptr()) % ALIGNED == 0 or not tensor.numel()


def test_parts_of_a_buffer_do_not_overlap() -> None:
    tensors = various()
    found = unpacked(packed(tensors, pin=False), tensors)
    found[0, "box"].fill_(9.0)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items() if name != (0, "box"))


def test_on_a_cpu_nothing_is_copied_and_elsewhere_shapes_and_types_stay() -> None:
    tensors = various()
    assert all(moved(tensors, CPU)[name] is tensor for name, tensor in tensors.items())
    there = moved(tensors, META)
    for name, tensor in tensors.items():
        assert there[name].is_meta and (there[name].shape, there[name].dtype) == (tensor.shape, tensor.dtype)
    assert moved({}, META) == {}


def test_rows_are_taken_where_the_samples_lie() -> None:
    samples, index = torch.arange(24, dtype=torch.uint8).view(6, 4), torch.tensor([5, 0, 0])
    assert torch.equal(rows_at(samples, index, CPU), samples[index])
    there = rows_at(samples, index, META)
    assert there.is_meta and there.shape == (3, 4) and there.dtype == torch.uint8


@pytest.mark.parametrize("workers", [Workers(), Workers(1, 3)])
def test_packing_changes_no_number_of_a_batch(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> None:
    """Views and noise are those of the draws made by hand, row for row; they are packed in a thread."""
    monkeypatch.setattr("raymc.training.ahead.in_thread", lambda device: True)
    monkeypatch.setattr("raymc.training.ahead.buffered", lambda tensors, device: packed(tensors, pin=False))
    data = limit(load("digits"), 60)
    feed = Feed.build(data, "digits", CPU, torch.float32, False, workers)
    rows = slice(0, 20) if workers.size == 1 else slice(7, 14)
    order = torch.randperm(60, generator=generator(3, "pretrain", 2, "order"))
    for step, batch in enumerate(feed.epoch("pretrain", 3, 2, 20)):
        index = order[20 * step : 20 * step + 20][rows]
        assert torch.equal(batch.index, index)
        for view, found in enumerate(batch.views):
            drawn = POLICIES["digits"].draw(generator(3, "pretrain", 2, step, "view", view), 20, (1, 8, 8))
            mine = {name: values[rows] for name, values in drawn.items()}
            assert torch.equal(found, POLICIES["digits"].apply(data.train.x[index], mine))
        noise = torch.rand(20, 5, generator=generator(3, "pretrain", 2, step, "uniform", "gumbel0"))
        assert torch.equal(batch.uniform("gumbel0", 5), noise[rows])
    assert step == 2
