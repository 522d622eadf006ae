"""Stage 1 beside a plain loop: seconds a step and an epoch, images/s, share of what the device can do.

    python -m benchmarks.stage1 --spaces nmce_digits nmce_cifar20 --json
    python -m benchmarks.stage1 compile=true channels_last=true --device cuda --spaces nmce_cifar20 --steps 48 --profile

raymc's steps are those of a training (views, loss, backward, optimiser; the loss is read after the last one), the
plain loop's those of a usual script (`benchmarks/plain_loop.py`). Both run in turns, --repeats times --steps steps
after a first time to warm up; the figures are medians, and epochs are extrapolated from them. Operations are counted
in the plain loop (products and convolutions, forward and backward); the peak is measured by a large product in the
type that the run computes in (on a CPU a convolution may be faster still). An image has two views in a step and
counts once.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import statistics
import time
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from benchmarks.machine import facts
from benchmarks.plain_loop import PlainLoop, Seconds
from benchmarks.step_profile import profile, table
from raymc import datasets
from raymc.bare_keys import Augment
from raymc.config import Config, Value, parse_overrides
from raymc.datasets import POLICIES, Dataset
from raymc.datasets.augmentation import ImagePolicy
from raymc.distributed import Workers
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.nmce import tcr_loss
from raymc.space.space import load_space
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.stages import autocast_of, channels_last_of, clusters_of, compile_nets, enter, place, prepare
from raymc.training.training import pick_device

DATA_SHEET = {"H100": 990e12, "H200": 990e12}  # dense bfloat16, operations a second
MATRIX = {"cpu": 2048, "cuda": 8192}


class RaymcLoop:
    """raymc's own steps, so many to an epoch."""

    def __init__(self, config: Config, data: Dataset, model: nn.ModuleDict, steps: int, device: torch.device) -> None:
        stage = METHODS[config.method].stages(config)[0]
        settings = config.stages[stage.name]
        short = dataclasses.replace(data, epoch_size=steps * settings.batch_size)
        on_gpu = config.compile and device.type == "cuda"
        workers = Workers()
        self.feed = Feed.build(
            short, config.augmentation, device, torch.float32, channels_last_of(config, device), workers, on_gpu
        )
        place(model, config, device, torch.float32)
        prepare(model, stage, settings.frozen_statistics)
        if config.compile:
            compile_nets(model)
        self.updates = Updates(model, stage, settings, workers, autocast_of(config, device))
        self.epoch, self.samples = 0, len(data.train)
        self.loss = float("nan")

    def run(self) -> Seconds:
        """Time of an epoch, until its loss is read; `loss` is its mean."""
        begun = Seconds.now()
        self.loss = train_epoch(self.updates, self.feed, 0, self.epoch)["loss"]
        self.epoch += 1
        now = Seconds.now()
        return Seconds(now.wall - begun.wall, now.processors - begun.processors)

    def seconds(self) -> float:
        """Those on the wall of an epoch."""
        return self.run().wall


def usable_cores() -> int:
    """How many of the machine's cores this process may run on; with fewer workers the plain loop would starve."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1  # where a process has no set of cores, as on macOS


def measure(
    name: str, overrides: dict[str, Value], device: torch.device, steps: int, repeats: int, batch: int, workers: int
) -> dict[str, Any]:
    """Both loops on the first stage of a space of images; `batch` 0: the preset's, `workers` of the DataLoader.

    Raises InputError for a space whose first stage is not that of NMCE and MLC on images.
    """
    config, data = prepared(name, overrides, steps * (repeats + 4), batch)
    stage = METHODS[config.method].stages(config)[0]
    settings, policy = config.stages[stage.name], POLICIES[config.augmentation]
    if stage.step.loss is not tcr_loss or not isinstance(policy, ImagePolicy) or data.train.x.dim() != 4:
        raise InputError(f"{name}: the plain loop knows stage 1 of nmce and mlc on images")
    if settings.augmentations != 2 or policy.solarise or policy.aspect == 1 or config.augment != Augment():
        raise InputError(f"{name}: the plain loop makes two views, without solarise, square crops and augment.strength")
    steps = min(steps, len(data.train) // settings.batch_size)
    shape = tuple(data.train.x.shape[1:])
    model = enter(METHODS[config.method], stage, config, shape, clusters_of(config, data), {}, 0)
    parts = ("backbone", "pre_feature", "projection")
    net = nn.Sequential(OrderedDict((part, copy.deepcopy(model[part])) for part in parts))
    plain = PlainLoop(net, data.train.x, policy, settings, device, workers)
    ours = RaymcLoop(config, data, model, steps, device)
    operations = plain.operations()
    times: dict[str, list[Seconds]] = {"raymc": [], "plain": []}
    for at in range(repeats + 1):
        pair = {"raymc": ours.run(), "plain": plain.run(steps)}
        for side, took in pair.items():
            times[side] += [Seconds(took.wall / steps, took.processors / steps)] if at else []
    row: dict[str, Any] = {
        "space": name,
        "overrides": overrides,
        "backbone": config.backbone,
        "batch": settings.batch_size,
        "steps": steps,
        "repeats": repeats,
        "loader_workers": workers,
        "precision": str(autocast_of(config, device) or torch.float32).removeprefix("torch."),
        "steps_per_epoch": len(data.train) // settings.batch_size,
        "tflop_per_step": operations / 1e12,
        "ratio": statistics.median(b.wall / a.wall for a, b in zip(*times.values(), strict=True)),
        "ratio_of_processor_seconds": statistics.median(
            b.processors / a.processors for a, b in zip(*times.values(), strict=True)
        ),
    }
    row["tflop_per_epoch"] = row["tflop_per_step"] * row["steps_per_epoch"]
    for side, each in times.items():
        row[side] = rates(each, row)
    return row | {"loop": ours}


def prepared(name: str, overrides: dict[str, Value], epochs: int, batch: int) -> tuple[Config, Dataset]:
    """A space's configuration and data, its first stage long enough and without warm-up."""
    config = load_space(name).config(overrides)
    data = datasets.load(config.dataset)
    stage = METHODS[config.method].stages(config)[0].name
    size = min(batch or config.stages[stage].batch_size, len(data.train))
    settings = dataclasses.replace(config.stages[stage], epochs=epochs, batch_size=size, warmup_epochs=0)
    return dataclasses.replace(config, stages=MappingProxyType({**config.stages, stage: settings})), data


def rates(times: list[Seconds], row: dict[str, Any]) -> dict[str, Any]:
    """What follows from the seconds a step of each repeat."""
    step = statistics.median(each.wall for each in times)
    return {
        "seconds_per_step": step,
        "processor_seconds_per_step": statistics.median(each.processors for each in times),
        "each": times,
        "seconds_per_epoch_extrapolated": step * row["steps_per_epoch"],
        "images_per_second": row["batch"] / step,
        "tflop_per_second": row["tflop_per_step"] / step,
    }


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large product, the best of ten."""
    n = MATRIX[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        begun = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - begun)
    return float(2 * n**3 / min(seconds[2:]))


def printed(row: dict[str, Any], peaks: dict[str, float]) -> str:
    """The lines of one space."""
    processors = row["ratio_of_processor_seconds"]
    lines = [
        f"{row['space']}: {row['backbone']}, batch {row['batch']}, {row['precision']}, "
        f"{row['tflop_per_step']:.4f} TFLOP a step, {row['tflop_per_epoch']:.3f} an epoch of {row['steps_per_epoch']}"
    ]
    for side in ("raymc", "plain"):
        found = row[side]
        shares = ", ".join(f"{100 * found['tflop_per_second'] * 1e12 / top:.1f} % of {of}" for of, top in peaks.items())
        lines += [
            f"  {side:6} {found['seconds_per_step']:9.4f} s/step  {found['images_per_second']:9.0f} images/s  "
            f"{found['seconds_per_epoch_extrapolated']:9.2f} s/epoch (extrapolated)  {shares}"
        ]
    return "\n".join(
        [*lines, f"  raymc is {row['ratio']:.2f} times as fast, by the processors' seconds {processors:.2f}"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every space, e.g. compile=true")
    parser.add_argument("--spaces", nargs="+", default=["nmce_digits"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=0, help="smaller than the preset's where time is short")
    parser.add_argument(
        "--loader-workers",
        type=int,
        default=usable_cores(),
        help="of the plain loop (default: one a usable core; fewer starve it)",
    )
    parser.add_argument("--device", default=str(pick_device(None)))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true", help="where raymc's time goes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    device, overrides = torch.device(args.device), parse_overrides(args.overrides)
    machine, rows, peaks = facts(args.device, args.threads), [], {}
    for name in args.spaces:
        row = measure(name, overrides, device, args.steps, args.repeats, args.batch_size, args.loader_workers)
        ours = row.pop("loop")
        if args.profile:
            row["profile"] = profile(ours.seconds, row["steps"], device)
        measured = f"the measured {row['precision']} peak"
        if measured not in peaks:
            peaks[measured] = peak(device, getattr(torch, row["precision"]))
        sheet = {f"the data sheet of {card}": top for card, top in DATA_SHEET.items() if card in machine["device"]}
        row["peaks"] = {measured: peaks[measured]} | sheet
        rows.append(row)
        if not args.json:
            print(printed(row, row["peaks"]))
            print(table(row["profile"]) if args.profile else "", end="\n" if args.profile else "")
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
