"""The pretend GPU itself: what it refuses, what it counts as a wait, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.device.pretend import GPU, Log, OnGpu, installed


def pair() -> tuple[Tensor, Tensor]:
    """The numbers 0 to 11 as `[4, 3]` on the device and on the CPU."""
    here = torch.arange(12.0).view(4, 3)
    return here.to(GPU), here


MIXES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a sum": lambda x, cpu: x + cpu,
    "a product": lambda x, cpu: x.T @ cpu,
    "a product with a number's tensor": lambda x, cpu: torch.dot(x[0], cpu[0]).mm(cpu[:1, :1]),
    "joined": lambda x, cpu: torch.cat([x, cpu]),
    "stacked": lambda x, cpu: torch.stack([x, cpu]),
    "in place": lambda x, cpu: x.add_(cpu),
    "in place on the CPU": lambda x, cpu: cpu.add_(x),
    "a number of the CPU's in place": lambda x, cpu: torch.tensor(1.0).add_(x.sum()),
    "an own index": lambda x, cpu: cpu[torch.tensor([0], device=GPU)],
    "an index to gather": lambda x, cpu: x.gather(0, torch.zeros(1, 3, dtype=torch.int64)),
    "an index to add": lambda x, cpu: x.index_add(0, torch.arange(4), x),
    "a value put": lambda x, cpu: x.__setitem__(torch.tensor([0, 1], device=GPU), cpu[:2]),
    "out": lambda x, cpu: torch.add(x, x, out=torch.empty(4, 3)),
    "a choice": lambda x, cpu: torch.where(x > 0, x, cpu),
    "a layer on the CPU": lambda x, cpu: nn.Linear(3, 2)(x),
    "a network's input": lambda x, cpu: nn.Linear(3, 2).to(GPU)(cpu),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_are_refused(gpu: Log, mix: str) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        MIXES[mix](*pair())


def test_types_that_only_a_cpu_takes(gpu: Log) -> None:
    x, draws = torch.arange(12, device=GPU).view(4, 3), torch.Generator().manual_seed(0)
    pixels = x.to(torch.uint8).view(1, 1, 4, 3)
    for ask in (lambda: x @ x.T, lambda: nn.functional.interpolate(pixels, 2, mode="bilinear", antialias=True)):
        with pytest.raises(NotImplementedError, match="cuda"):
            ask()
    for ask in (lambda: torch.rand(3, device=GPU, generator=draws), lambda: x.float().normal_(generator=draws)):
        with pytest.raises(RuntimeError, match="generator"):
            ask()


def test_what_no_gpu_hands_to_numpy(gpu: Log) -> None:
    for ask in (lambda x: x.numpy(), np.asarray):
        with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\)"):
            ask(pair()[0])


WAITS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "item": lambda x, cpu: x.sum().item(),
    "float": lambda x, cpu: float(x.sum()),
    "int as an index": lambda x, cpu: cpu[int(x[0, 0])],
    "bool": lambda x, cpu: bool((x > 0).all()),
    "cpu": lambda x, cpu: x.cpu(),
    "to": lambda x, cpu: x.to("cpu"),
    "tolist": lambda x, cpu: x.tolist(),
    "a copy to the CPU": lambda x, cpu: cpu.copy_(x),
    "nonzero": lambda x, cpu: x.nonzero(),
    "where": lambda x, cpu: torch.where(x > 0),
    "a mask": lambda x, cpu: x[x > 3],
    "rows by a mask": lambda x, cpu: x[x[:, 0] > 3],
    "values put at a mask": lambda x, cpu: x.__setitem__(x > 10, x[3, 2:]),
    "masked_select": lambda x, cpu: x.masked_select(x > 3),
    "rows by an index on the CPU": lambda x, cpu: x[torch.tensor([0, 1])],
    "unique": lambda x, cpu: x.unique(),
    "bincount": lambda x, cpu: x.long().flatten().bincount(),
    "equal": lambda x, cpu: torch.equal(x, x),
    "repeat": lambda x, cpu: x[:, 0].repeat_interleave(x[:, 0].long()),
    "inverse": lambda x, cpu: torch.linalg.inv(x[:2, :2] + torch.eye(2, device=GPU)),
    "cholesky": lambda x, cpu: torch.linalg.cholesky(torch.eye(3, device=GPU)),
    "eigenvalues": lambda x, cpu: torch.linalg.eigvalsh(x.T @ x),
    "singular values": lambda x, cpu: torch.linalg.svdvals(x),
    "a list": lambda x, cpu: torch.tensor([1.0, 2.0], device=GPU),
    "an upload that waits": lambda x, cpu: cpu.to(GPU),
    "synchronize": lambda x, cpu: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("ask", WAITS)
def test_each_wait_is_counted_with_its_place(gpu: Log, ask: str) -> None:
    x, cpu = pair()
    gpu.clear()
    WAITS[ask](x, cpu)
    assert gpu.waits.total() == 1
    assert all(where.startswith("test_pretend.py:") for _, where in gpu.waits)


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a number of the CPU's": lambda x, one: x * one + 2.0,
    "a choice": lambda x, one: torch.where(x > 5, x, one),
    "an index": lambda x, one: x[x[:, 0].argsort(descending=True)],
    "factors": lambda x, one: torch.linalg.cholesky_ex(x.T @ x + torch.eye(3, device=x.device))[0],
    "made like it": lambda x, one: torch.zeros_like(x).copy_(x) + x.new_ones(3) + torch.arange(3, device=x.device),
    "one of many": lambda x, one: torch.nn.functional.one_hot(x.argmax(1), 3).float() @ x.T,
    "a number at a mask": lambda x, one: x.clone().index_put_((x > 3,), one),
    "put": lambda x, one: x.clone().index_put_((x[:, 0].argmax()[None],), one),
    "a large number": lambda x, one: x.masked_fill(x > 3, one).index_add_(0, x[:, 0].long().clamp(max=1), x),
}


@pytest.mark.parametrize("step", PLAIN)
def test_what_does_not_wait_has_the_numbers_of_the_cpu(gpu: Log, step: str) -> None:
    (x, cpu), one = pair(), torch.tensor(0.5)
    wanted = PLAIN[step](cpu, one)
    gpu.clear()
    found = PLAIN[step](x, one)
    assert not gpu.waits and not gpu.uploads and gpu.kernels
    assert isinstance(found, OnGpu) and found.device == GPU and found.is_cuda
    assert torch.equal(found.cpu(), wanted)


def step_of(net: nn.Module, x: Tensor) -> Tensor:
    optimiser = torch.optim.Adam(net.parameters(), fused=True)
    for _ in range(3):
        optimiser.zero_grad()
        net(x).square().mean().backward()
        optimiser.step()
    return next(net.parameters()).detach()


def test_a_network_trains_as_on_the_cpu_and_waits_for_nothing(gpu: Log) -> None:
    x = torch.randn(6, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    net = net.to(memory_format=torch.channels_last)
    there, seen = copy.deepcopy(net).to(GPU), x.to(GPU, non_blocking=True)
    assert all(isinstance(one, nn.Parameter) and one.is_cuda for one in copy.deepcopy(there).parameters())
    gpu.clear()
    found = step_of(there, seen)
    assert not gpu.waits and not gpu.uploads
    assert gpu.kernels["_fused_adam_"] == 3 and gpu.kernels["convolution"] == 3 and "view" not in gpu.kernels
    assert torch.equal(found.cpu(), step_of(net, x))


def test_moves_are_counted(gpu: Log) -> None:
    x, _ = pair()
    for there in (GPU, "cuda", x.device, x):
        assert x.to(there) is x
    packed = torch.empty(3, pin_memory=True).fill_(2.0)
    gpu.clear()
    sent = packed.to(GPU, non_blocking=True)
    assert gpu.totals == (0, 0, 1)
    assert sent.double().dtype == torch.float64 and gpu.kernels == {"_to_copy": 1}
    assert sent.tolist() == [2.0] * 3 and gpu.totals == (1, 1, 1) and gpu.downloads == 1


def test_a_weight_may_be_laid_out_anew_and_stored(gpu: Log, tmp_path: Path) -> None:
    net = nn.Conv2d(3, 4, 3).to(GPU)
    net.weight.data = net.weight.data.contiguous(memory_format=torch.channels_last)
    assert net.weight.stride() == net.weight.held.stride() and net.weight.is_contiguous(
        memory_format=torch.channels_last
    )
    x = torch.arange(6.0, device=GPU).view(2, 3)
    assert x.unsqueeze_(0).shape == (1, 2, 3) and (x + 1).tolist() == [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    found = torch.load(tmp_path / "weights.pt", map_location="cpu", weights_only=True)
    assert torch.equal(found["weight"], net.weight.detach().cpu())


def test_autocast_is_by_the_lists_of_cuda() -> None:
    net, x = nn.Linear(3, 2), torch.rand(4, 3)
    with installed(bfloat16=True):
        there = copy.deepcopy(net).to(GPU)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            y = there(x.to(GPU))
            assert torch.is_autocast_enabled("cuda") and y.dtype == torch.bfloat16
            assert y.exp().dtype == torch.cat([y, y.float()]).dtype == torch.float32
            with torch.autocast("cuda", enabled=False):
                assert there(x.to(GPU)).dtype == torch.float32 and not torch.is_autocast_enabled("cuda")
            assert (y @ y.T).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled("cuda")
        y.float().square().sum().backward()
        assert there.weight.grad.dtype == torch.float32 and there.weight.grad.is_cuda
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype == torch.bfloat16


def test_threads_have_the_device_too(gpu: Log) -> None:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(3).to(GPU)))
    thread.start()
    thread.join()
    assert isinstance(found[0], OnGpu) and gpu.uploads == 1


def test_nothing_is_left_behind() -> None:
    def patched() -> list[object]:
        return [torch.autocast, torch.cuda.is_available, torch.cuda._lazy_init, threading.Thread.run]

    before = patched()
    with pytest.raises(KeyError), installed():
        assert torch.cuda.is_available() and patched() != before
        raise KeyError
    assert patched() == before
    assert not torch.__future__.get_overwrite_module_params_on_conversion() and not torch._C._only_lift_cpu_tensors()
    assert type(torch.ones(2) + 1) is Tensor
