"""Between the batches of an epoch nothing is read back from the device, so that a GPU is never waited for.

A device of which nothing can be read stands in for the GPU: torch's `meta`, whose tensors have shapes and no numbers.
It runs the branches that are not for CPUs, and whatever asks for a number raises. What only a GPU would wait for (the
search for the true entries of a mask, a check of a factorisation) is watched for in addition.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from raymc.config import Config, StageConfig, Value, resolve
from raymc.datasets import load
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.storage.stage_store import Store
from raymc.training.feature_bank import Bank, BankedStage
from raymc.training.feed import Feed
from raymc.training.loop import Updates, over_batches
from raymc.training.smoke import limit
from raymc.training.stages import enter, module_names, prepare

META = torch.device("meta")
BATCHES = 3
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal", "_linalg_check_errors")


class Watch(TorchDispatchMode):
    """Raises where a device would be waited for; counts the copies to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        name = func._schema.name.removeprefix("aten::")
        there = any(tensor.is_meta for tensor in tensors)
        assert not (there and name in WAITING), f"{name} waits for the device"
        if there and name in ("index", "index_put", "index_put_"):
            for at in args[1]:
                assert at is None or (at.is_meta and at.dtype == torch.int64), f"{name} by a mask or from the CPU"
        out = func(*args, **kwargs)
        self.copies += name == "_to_copy" and not there and out.is_meta
        return out


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch has no meta version of: autocast, and the fused optimisers, which read nothing back either."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *args, **kwargs: None)
    for name in ("SGD", "Adam"):
        plain = getattr(torch.optim, name)
        monkeypatch.setattr(torch.optim, name, lambda *args, plain=plain, fused, **kwargs: plain(*args, **kwargs))


def config_of(method: str, **over: Value) -> Config:
    of = METHODS[method]
    config = resolve(
        method,
        "digits",
        of.default_preset,
        of.stage_settings,
        of.presets["digits"][of.default_preset],
        {key.replace("__", "."): value for key, value in over.items()},
    )
    stages = {name: dataclasses.replace(stage, epochs=4, batch_size=20) for name, stage in config.stages.items()}
    return dataclasses.replace(config, stages=MappingProxyType(stages))


def begun(
    config: Config, stage: Stage, settings: StageConfig, epoch: int, device: torch.device
) -> tuple[Updates, Feed, dict[str, Tensor]]:
    """A stage of three batches on a device, and what it observed at the start of the epoch."""
    method, data = METHODS[config.method], limit(load("digits"), 20 * BATCHES)
    shape = tuple(data.train.x.shape[1:])
    # What earlier stages would hand over does not matter: all modules are made anew.
    alone = dataclasses.replace(stage, fresh=module_names(stage), copies=(), drop=())
    model = enter(method, alone, config, shape, 5, {}, 0)
    feed = Feed.build(data, config.augmentation, torch.device("cpu"), torch.float32, False, Workers())
    state = stage.observe(model, feed, settings, epoch) if stage.observe else {}
    model, state = model.to(device), {name: value.to(device) for name, value in state.items()}
    feed = Feed.build(data, config.augmentation, device, torch.float32, False, Workers())
    prepare(model, stage, settings.frozen_statistics)
    return Updates(model, stage, settings, Workers(), None), feed, state


def run_epoch(config: Config, stage: Stage, settings: StageConfig, epoch: int) -> tuple[Watch, int]:
    """An epoch of three batches, and the update after it, on the device of which nothing can be read."""
    updates, feed, state = begun(config, stage, settings, epoch, META)
    with Watch() as watch:
        sums, steps = over_batches(updates, feed, 0, epoch, state)
    assert steps == BATCHES and all(value.is_meta for value in sums.values())
    if stage.last is not None and stage.last.active(settings, epoch):
        batch = dataclasses.replace(feed.everything(epoch), state=state)
        with Watch():
            updates.make(stage.last, batch)
    return watch, steps


def stages(config: Config) -> Iterator[tuple[Stage, StageConfig]]:
    for stage in METHODS[config.method].stages(config):
        yield stage, config.stages[stage.name]


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adam"])
@pytest.mark.parametrize(
    ("method", "over"),
    [
        ("nmce", {}),
        ("nmce", {"augmentation": "none", "pretrain__similarity_weight": 0.0, "heads__straight_through": True}),
        ("mlc", {"heads__projection_iterations": 5}),
        ("mlc", {"heads__projection_iterations": 5, "heads__cluster_net": "whole"}),
    ],
)
def test_no_batch_of_nmce_and_mlc_waits_for_the_device(method: str, over: dict[str, Value], optimizer: str) -> None:
    config = config_of(method, **over)
    for stage, settings in stages(config):
        watch, steps = run_epoch(config, stage, dataclasses.replace(settings, optimizer=optimizer), 1)
        # The order once an epoch; the draws of a step in one copy, and the noise of each view in one.
        noises = 2 if method == "nmce" and stage.name != "pretrain" else 0
        draws = 0 if config.augmentation == "none" else 1
        assert watch.copies <= 1 + steps * (draws + noises)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("method", ["nmce", "mlc"])
def test_no_batch_behind_a_bank_waits_for_the_device(method: str, tmp_path: Path) -> None:
    watch, steps = run_epoch_behind_bank(method, tmp_path)
    # The order once an epoch and the bank's views once; the choice of views in one copy a step, and each view's noise.
    assert watch.copies <= 2 + steps * (1 + (2 if method == "nmce" else 0))


def run_epoch_behind_bank(method: str, folder: Path) -> tuple[Watch, int]:
    """An epoch of heads behind a bank."""
    config = config_of(method, heads__feature_bank=3, heads__frozen_statistics=True)
    stage = list(METHODS[method].stages(config))[1]
    settings = config.stages[stage.name]
    if method == "mlc":
        settings = dataclasses.replace(settings, projection_iterations=5)
    updates, feed, state = begun(config, stage, settings, 1, META)
    images = dataclasses.replace(feed, device=torch.device("cpu"), samples=feed.data.train.x)
    net = nn.ModuleDict({"backbone": copy.deepcopy(updates.model["backbone"])}).to_empty(device="cpu")
    bank = Bank(net, config, settings, images, Store(str(folder)), None)
    banked = BankedStage(updates.model, feed, bank)
    updates = Updates(banked.model, stage, settings, Workers(), None)
    _ = banked.feed, bank.views
    with Watch() as watch:
        sums, steps = over_batches(updates, banked.feed, 0, 1, state)
    assert steps == BATCHES and all(value.is_meta for value in sums.values())
    return watch, steps


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("scales", ["published", "paper"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_no_batch_of_gcml_waits_for_the_device(scales: str, epoch: int) -> None:
    config = config_of(
        "gcml", finetune__loss_scales=scales, finetune__start_epoch=1, finetune__anchor_epochs=0, pretrain__noise=0.1
    )
    for stage, settings in stages(config):
        watch, steps = run_epoch(config, stage, settings, epoch)
        assert watch.copies <= 1 + 2 * steps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    ("method", "over"),
    [("nmce", {}), ("mlc", {"heads__projection_iterations": 5}), ("gcml", {"finetune__anchor_epochs": 0})],
)
def test_no_batch_waits_for_a_gpu(method: str, over: dict[str, Value]) -> None:
    """The same on a GPU itself, which says where it would be waited for."""
    config, gpu = config_of(method, **over), torch.device("cuda")
    for stage, settings in stages(config):
        updates, feed, state = begun(config, stage, settings, 1, gpu)
        over_batches(updates, feed, 0, 0, state)  # libraries are loaded and tried out
        torch.cuda.set_sync_debug_mode("error")
        try:
            over_batches(updates, feed, 0, 1, state)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(
    ("method", "over", "epoch"),
    [
        ("mlc", {"heads__projection_iterations": None}, 1),
        ("gcml", {"finetune__alternating": False, "finetune__start_epoch": 1}, 3),
    ],
)
def test_what_is_left_that_waits(method: str, over: dict[str, Value], epoch: int) -> None:
    """A projection until converged looks at its sums; the neighbours within a batch are found cluster by cluster."""
    config = config_of(method, **over)
    stage, settings = list(stages(config))[-1]
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match="waits|[Mm]eta"):
        run_epoch(config, stage, settings, epoch)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.linalg.inv(x[:2, :2]),
        lambda x: torch.zeros(3).copy_(x[0]),
        lambda x: x.unique(),
    ],
)
def test_the_watch_sees_what_waits(ask: Any) -> None:
    with Watch(), pytest.raises((AssertionError, NotImplementedError, RuntimeError)):
        ask(torch.empty(4, 3, device="meta"))


def test_the_watch_lets_a_plain_step_pass() -> None:
    net = nn.Linear(3, 2).to(META)
    with Watch() as watch:
        net(torch.zeros(4, 3).to(META)).square().mean().backward()
    assert watch.copies == 1
