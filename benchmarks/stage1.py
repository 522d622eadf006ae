"""Stage 1 by device: seconds a step, images/s and the epoch time that follows, for real spaces.

    python -m benchmarks.stage1 channels_last=true --spaces nmce_digits nmce_coil20 --steps 5 --json

The steps are those of a training (views, loss, backward, optimiser); the first one warms up and is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.machine import facts
from raymc import datasets
from raymc.config import Value, parse_overrides
from raymc.methods import METHODS
from raymc.space import load_space
from raymc.training.dist import Workers
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, fit
from raymc.training.run import pick_device
from raymc.training.stages import clusters_of, enter, place


def measure(
    name: str, overrides: dict[str, Value], device: torch.device, steps: int, batch_size: int | None
) -> dict[str, Any]:
    """Time `steps` epochs of one step each; a stage's epoch takes its number of steps times the median."""
    config = load_space(name).config(overrides)
    method = METHODS[config.method]
    data = datasets.load(config.dataset)
    stage = method.stages(config)[0]
    asked = config.stages[stage.name]
    batch = min(batch_size or asked.batch_size, data.epoch_size)
    whole = data.epoch_size
    short = dataclasses.replace(data, epoch_size=batch)
    settings = dataclasses.replace(asked, epochs=steps + 1, batch_size=batch, warmup_epochs=0)
    config = dataclasses.replace(config, stages=MappingProxyType({**config.stages, stage.name: settings}))
    feed = Feed.build(short, config.augmentation, device, torch.float32, config.channels_last, Workers())
    shape = tuple(data.train.x.shape[1:])
    model = enter(method, stage, config, shape, clusters_of(config, data), {}, 0)
    place(model, config, device, torch.float32)
    if config.compile:
        model["backbone"].compile()
    ends: list[float] = []

    def note(row: dict[str, Any]) -> None:
        ends.append(time.perf_counter())

    half = torch.bfloat16 if device.type == "cuda" else None
    fit(model, stage, settings, feed, 0, Hooks(note, None, None, 1), half)
    seconds = statistics.median(b - a for a, b in zip(ends, ends[1:], strict=False))
    return {
        "space": name,
        "overrides": overrides,
        "backbone": config.backbone,
        "batch": batch,
        "seconds_per_step": seconds,
        "images_per_second": batch / seconds,
        "epoch_seconds": seconds * (whole // batch),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every space, e.g. compile=true")
    parser.add_argument("--spaces", nargs="+", default=["nmce_digits", "nmce_double_spiral"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="smaller than the preset's where memory or time is short")
    parser.add_argument("--device", default=str(pick_device(None)))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    overrides = parse_overrides(args.overrides)
    rows = [measure(name, overrides, device, args.steps, args.batch_size) for name in args.spaces]
    if args.json:
        print(json.dumps({"machine": facts(args.device, args.threads), "rows": rows}, indent=1))
        return
    for row in rows:
        print(
            f"{row['space']:24} {row['backbone']:16} batch {row['batch']:5}  {row['seconds_per_step']:8.3f} s/step  "
            f"{row['images_per_second']:9.0f} images/s  {row['epoch_seconds']:9.1f} s/epoch"
        )


if __name__ == "__main__":
    main()
