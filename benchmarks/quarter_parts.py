"""The parts of `benchmarks.gpu_quarter`: each writes what it has found to its file as it goes."""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_stage1
from benchmarks.stage1 import DATA_SHEET, RaymcLoop, peak
from benchmarks.step_profile import profile
from raymc import datasets
from raymc.atomic import write_json
from raymc.config import Config, Value
from raymc.datasets import Dataset, data_root
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import Batch, Stage, trained_parameters
from raymc.space.space import load_space
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, Updates, fit, over_batches
from raymc.training.smoke import limit
from raymc.training.stages import autocast_of, clusters_of, enter, module_names, place, prepare
from raymc.training.training import pick_device

Found = dict[str, Any]
ALL_METHODS = ("nmce_digits", "mlc_digits", "gcml_digits")
TINY: dict[str, Value] = {"pre_feature_dim": 32, "feature_dim": 16}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")


def loaded(space: str, args: argparse.Namespace, **over: Value) -> tuple[Config, Dataset]:
    """A space's configuration and samples; few of them in a rehearsal."""
    config = load_space(space).config(over)
    data = datasets.load(config.dataset, str(data_root(args.data)))
    return config, limit(data, 300) if args.rehearse else data


def shortened(config: Config, stage: str, **over: Any) -> Config:
    """The configuration with other settings of a stage."""
    settings = dataclasses.replace(config.stages[stage], **over)
    return dataclasses.replace(config, stages=MappingProxyType({**config.stages, stage: settings}))


def fresh(config: Config, data: Dataset, stage: Stage) -> nn.ModuleDict:
    """A stage's model on the CPU, all of its modules new: what earlier stages would hand over is not needed here."""
    alone = dataclasses.replace(stage, fresh=module_names(stage), copies=(), drop=())
    shape = tuple(data.train.x.shape[1:])
    return enter(METHODS[config.method], alone, config, shape, clusters_of(config, data), {}, 0)


def gradients(
    config: Config, data: Dataset, stage: Stage, model: nn.ModuleDict, device: torch.device, dtype: torch.dtype
) -> tuple[float, Tensor]:
    """The loss of one batch and its gradients in one row, float64 on the CPU; the batch is always the same.

    BatchNorm uses the batch: a new net with statistics at rest gives nearly the same row for all samples.
    """
    model, settings = copy.deepcopy(model).to(device, dtype).train(), config.stages[stage.name]
    feed = Feed.build(data, config.augmentation, device, dtype, False, Workers())
    state = stage.observe(model, feed, settings, 1) if stage.observe else {}
    batch: Batch = next(iter(feed.epoch(stage.name, 0, 1, settings.batch_size, settings.augmentations)))
    loss, _ = stage.step.loss(model, dataclasses.replace(batch, state=state), settings, None)
    wanted = trained_parameters(model, stage.step.modules)
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    rows = [torch.zeros_like(p) if g is None else g for g, p in zip(found, wanted, strict=True)]
    return float(loss), torch.cat([row.flatten().double().cpu() for row in rows])


def correctness(args: argparse.Namespace, out: Path) -> None:
    """Losses and gradients in float32 on the device against float64 on the CPU; an epoch of every stage."""
    device, found = pick_device(None), {}
    for space in ALL_METHODS:
        config, data = loaded(space, args)
        for stage in METHODS[config.method].stages(config):
            model = fresh(config, data, stage)
            if stage.begin is not None:
                feed = Feed.build(data, config.augmentation, torch.device("cpu"), torch.float32, False, Workers())
                stage.begin(model, feed, config.stages[stage.name], 0)
            exact, wanted = gradients(config, data, stage, model, torch.device("cpu"), torch.float64)
            loss, got = gradients(config, data, stage, model, device, torch.float32)
            row: Found = {"loss": loss, "relative_error": abs(loss - exact) / abs(exact)}
            row["gradient_relative_error"] = float((got - wanted).norm() / wanted.norm())
            found[f"{space}/{stage.name}"] = row
            row["seconds_of_an_epoch"] = epochs(config, data, stage, device, 1)[0]
            write_json(out, found)


def epochs(config: Config, data: Dataset, stage: Stage, device: torch.device, count: int) -> list[float]:
    """Seconds of each epoch by the loop itself; the first one warms up."""
    times: list[float] = []
    last = [time.perf_counter()]

    def report(row: Found) -> None:
        now = time.perf_counter()
        times.append(now - last[0])
        last[0] = now

    model = fresh(config, data, stage)
    place(model, config, device, torch.float32)
    feed = Feed.build(data, config.augmentation, device, torch.float32, config.channels_last, Workers())
    settings = dataclasses.replace(config.stages[stage.name], epochs=count)
    fit(model, stage, settings, feed, 0, Hooks(report, None, None, 1), autocast_of(config, device))
    return times


def speed(args: argparse.Namespace, out: Path) -> None:
    """Stage 1 at two views: plain, channels_last, compiled, captured, and where the time goes.

    The loss is the mean of the first epoch, from the same weights and views in each way.
    """
    device = pick_device(None)
    space, steps, batch = ("nmce_digits", 2, 64) if args.rehearse else ("nmce_cifar20", 24, 1024)
    found: Found = {"ways": {}, "failed": {}, "skipped": {}}
    ways: dict[str, dict[str, Value]] = {"plain": {}, "channels_last": {"channels_last": True}}
    ways |= {"compile": {"channels_last": True, "compile": True}}
    if device.type != "cuda":
        found["skipped"] = dict.fromkeys(("compile", "graphs"), "it is for a GPU")
        del ways["compile"]

    def loop(over: dict[str, Value], steps: int = steps) -> RaymcLoop:
        config, data = loaded(space, args, **over, **(TINY if args.rehearse else {}))
        config = shortened(config, "pretrain", batch_size=batch, epochs=100, warmup_epochs=0)
        return RaymcLoop(config, data, fresh(config, data, METHODS[config.method].stages(config)[0]), steps, device)

    counted = loop({}, 1)
    with FlopCounterMode(display=False) as counter:
        counted.run()
    found["flop_per_step"] = counter.get_total_flops()
    card = torch.cuda.get_device_name() if device.type == "cuda" else ""
    found["peak_measured"] = peak(device, counted.updates.autocast or torch.float32)
    found["peak_of_data_sheet"] = next((top for known, top in DATA_SHEET.items() if known in card), None)
    write_json(out, found)
    for name, over in ways.items():
        with noted(found, name, out):
            ours = loop(over)
            ours.run()
            row: Found = {"loss": ours.loss}
            step = statistics.median(ours.seconds() for _ in range(3)) / steps
            row |= {"ms_per_step": 1e3 * step, "seconds_per_epoch": step * (ours.samples // batch)}
            row["share_of_measured_peak"] = found["flop_per_step"] / step / found["peak_measured"]
            found["ways"][name] = row
            plain = found["ways"]["plain"]["loss"]
            row["loss_relative_difference"] = abs(row["loss"] - plain) / abs(plain)
            write_json(out, found)
            if name == "plain":
                row["profile"] = profile(ours.seconds, steps, device)
    if device.type == "cuda":  # last: what failed in a capture may leave the device unusable
        with noted(found, "graphs", out):
            found["ways"]["graphs"] = captured(loop({"channels_last": True}))


@contextlib.contextmanager
def noted(found: Found, name: str, out: Path) -> Iterator[None]:
    """Write what is found; an error in one way stops no other, and is written as the reason."""
    try:
        yield
    except Exception as error:  # whatever a compiler or a capture may raise
        lines = str(error).strip().splitlines()
        found["failed"][name] = f"{type(error).__name__}: {lines[0] if lines else ''}"
    write_json(out, found)


def captured(loop: RaymcLoop, count: int = 20) -> Found:
    """Forward and backward of stage 1 on one batch as a CUDA graph, beside the same steps without one.

    As in torch's notes on CUDA graphs (whole-network capture): warm-up on a side stream, `.grad` is None at the
    capture, no cache of autocast. The weights stay as they are, so that each step has the same loss and gradients.
    """
    updates, model = loop.updates, loop.updates.model
    settings, step = updates.settings, updates.stage.step
    batch: Batch = next(iter(loop.feed.epoch(updates.stage.name, 0, 0, settings.batch_size, settings.augmentations)))
    dtype, parameters = updates.autocast, trained_parameters(model, step.modules)

    def plain() -> Tensor:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            loss, _ = step.loss(model, batch, settings, None)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def result(loss: Tensor) -> tuple[float, Tensor]:
        return float(loss), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()

    def milliseconds(call: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(count):
                call()
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - begun) / count)
        return statistics.median(times)

    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            plain()
        row: Found = {"plain_ms_forward_backward": milliseconds(plain)}
        wanted, gradient = result(plain())
        model.zero_grad(set_to_none=True)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, stream=side):
        static = plain()
    graph.replay()
    row["ms_forward_backward"] = milliseconds(graph.replay)
    loss, got = result(static)
    row |= {"loss": loss, "loss_relative_difference": abs(loss - wanted) / abs(wanted)}
    row["gradient_relative_difference"] = float((got - gradient).norm() / gradient.norm())
    return row


def stage1(args: argparse.Namespace, out: Path) -> None:
    """Preset `fast` on CIFAR-100's images as far as the limit allows, on in the next command; probes and weights."""
    words = ["nmce_cifar20_fast", "channels_last=true", "--probe", "cifar20", "cifar100"]
    if args.rehearse:
        words = ["nmce_digits", "pretrain.epochs=2", "pretrain.warmup_epochs=0", "pretrain.views_per_sample=4"]
        words += [f"{key}={value}" for key, value in TINY.items()]
    minutes = gpu_stage1.RESERVE + (args.limit - 90) / 60 if not args.rehearse else 60.0
    words += ["--minutes", str(minutes), "--name", "weights", "--out", str(args.out / "stage1")]
    words += ["--storage", str(args.storage / "stages"), *(["--data", args.data] if args.data else [])]
    gpu_stage1.run(gpu_stage1.parser().parse_args(words), out)


def heads(args: argparse.Namespace, out: Path) -> None:
    """Step times, kernels and waits a step of the heads of MLC and NMCE."""
    device, found = pick_device(None), {}
    for space in ("nmce_digits", "mlc_digits") if args.rehearse else ("nmce_cifar20", "mlc_cifar20"):
        config, data = loaded(space, args)
        stage = METHODS[config.method].stages(config)[1]
        settings = config.stages[stage.name]
        model = fresh(config, data, stage)
        place(model, config, device, torch.float32)
        steps = 2 if args.rehearse else 20
        size = min(settings.batch_size, len(data.train) // steps)
        short = dataclasses.replace(data, epoch_size=steps * size)
        feed = Feed.build(short, config.augmentation, device, torch.float32, config.channels_last, Workers())
        prepare(model, stage, settings.frozen_statistics)
        settings = dataclasses.replace(settings, batch_size=size, epochs=100)
        updates = Updates(model, stage, settings, Workers(), autocast_of(config, device))
        found[space] = of_steps(updates, feed, steps, device)
        write_json(out, found)


def of_steps(updates: Updates, feed: Feed, steps: int, device: torch.device) -> Found:
    """Milliseconds a step (median of five epochs after one to warm up), kernels and waits a step on a GPU."""

    def once(epoch: int) -> float:
        updates.start_epoch(epoch)
        begun = time.perf_counter()
        sums, _ = over_batches(updates, feed, 0, epoch, {})
        float(sums["loss"])
        return time.perf_counter() - begun

    times = [once(epoch) for epoch in range(6)][1:]
    row: Found = {"ms_per_step": 1e3 * statistics.median(times) / steps}
    if device.type != "cuda":
        return row | {"skipped": "kernels and waits are counted on a GPU"}
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        once(6)
    events: Any = seen.events()
    on_gpu = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
    kernels = [e for e in events if e.device_type == on_gpu and not e.is_user_annotation and "Mem" not in e.name[:3]]
    waits = [e for e in events if e.name.startswith(WAITS)]
    return row | {"kernels_per_step": len(kernels) / steps, "waits_of_all_steps": len(waits)}


def gcml(args: argparse.Namespace, out: Path) -> None:
    """Seconds of an epoch of both stages of GCML, on all 70,000 of MNIST."""
    found: Found = {}
    config, data = loaded("gcml_digits" if args.rehearse else "gcml_mnist", args)
    for stage in METHODS[config.method].stages(config):
        times = epochs(config, data, stage, pick_device(None), 4)
        found[stage.name] = {"seconds_per_epoch": statistics.median(times[1:]), "each": times, "n": len(data.train)}
        write_json(out, found)


PARTS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "correctness": correctness,
    "speed": speed,
    "stage1": stage1,
    "heads": heads,
    "gcml": gcml,
}
