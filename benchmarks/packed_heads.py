"""Trials per minute of NMCE's second stage behind a feature bank: alone, several processes side by side, and packed.

    python -m benchmarks.packed_heads --trials 1 2 4 8 16 --json

The heads are those of `nmce_cifar20` (512 pooled features, 4096 pre-features, z of 128, 20 clusters, batch 1024, two
views); the bank holds drawn numbers, on which times do not depend. A trial is one configuration with one seed; those of
a pack differ in learning rate, weight decay and eps^2. `alone`: one process on all threads. `beside`: as many processes
as `--beside`, each with its share of the threads, or all on one GPU, as Tune runs trials with fractional GPUs. The ways
are timed in alternation, and the median of `--repeats` counts. Steps alone are timed: evaluation, start-up and the
store are left out. What the evaluations of a trial of `--epochs` take on top, whether it is packed or not, is measured
once and told in a row of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import nn

from benchmarks.drawn_bank import DrawnBank
from benchmarks.machine import facts
from raymc.config import Config, resolve
from raymc.datasets.base import Split, stored
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import Stage
from raymc.training.evaluate import watched
from raymc.training.feature_bank import BankFeed
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.stacked import PackedUpdates
from raymc.training.stages import autocast_of, dtype_of, enter, place, prepare

METHOD = METHODS["nmce"]
CLUSTERS, WIDTH, VIEWS, BATCH = 20, 512, 8, 1024
STEPS = 48  # of an epoch of 50,000 samples


def config_of(trial: int, precision: str) -> Config:
    """A configuration of a search; no two trials have the same."""
    numbers = {"heads.learning_rate": 0.3 / (1 + trial), "heads.weight_decay": 1e-3 * (1 + trial)}
    numbers |= {"heads.eps_sq": 0.2 + 0.01 * trial, "heads.feature_bank": VIEWS, "heads.batch_size": BATCH}
    preset = METHOD.presets["cifar20"]["paper"]
    return resolve("nmce", "cifar20", "paper", METHOD.stage_settings, preset, {"precision": precision}, numbers)


class Case:
    """Models and batches of the stage on one device, of `steps` steps an epoch."""

    def __init__(self, device: torch.device, precision: str, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        n = steps * BATCH
        plain = torch.randn(n, WIDTH, generator=generator).relu()
        data = stored("drawn", Split(plain, None), None, n_classes=CLUSTERS, split="all", source="drawn")
        views = [torch.randn(n, WIDTH, generator=generator).relu().bfloat16() for _ in range(VIEWS)]
        self.device, self.precision, self.steps = device, precision, steps
        config = config_of(0, precision)
        self.dtype, self.autocast = dtype_of(config), autocast_of(config, device)
        feed = Feed.build(data, "none", device, self.dtype, False, Workers())
        self.feed = BankFeed.of(feed, DrawnBank(data, tuple(views)))

    def trial(self, number: int) -> tuple[nn.ModuleDict, Stage, Config]:
        config = config_of(number, self.precision)
        stage = METHOD.stages(config)[1]
        model = enter(METHOD, stage, config, (3, 32, 32), CLUSTERS, {}, number)
        model["backbone"] = nn.Identity()
        place(model, config, self.device, self.dtype)
        prepare(model, stage, frozen_statistics=True)
        return model, stage, config

    def alone(self) -> Updates:
        model, stage, config = self.trial(0)
        return Updates(model, stage, config.stages["heads"], Workers(), self.autocast)

    def packed(self, trials: int) -> PackedUpdates:
        many = [self.trial(number) for number in range(trials)]
        configs = [config.stages["heads"] for _, _, config in many]
        return PackedUpdates([model for model, _, _ in many], many[0][1], configs, self.feed, self.autocast, True)

    def seconds(self, updates: Updates, epoch: int) -> float:
        """Seconds a step."""
        self._wait()
        begun = time.perf_counter()
        train_epoch(updates, self.feed, 0, epoch)
        self._wait()
        return (time.perf_counter() - begun) / self.steps

    def evaluations(self, epochs: int, samples: int) -> dict[str, Any]:
        """Seconds, on the wall and of the CPU, of the evaluations of a trial on so many samples, by one measured."""
        model, _, config = self.trial(0)
        draws = torch.Generator().manual_seed(1)
        split = Split(torch.randn(samples, WIDTH, generator=draws).relu(), torch.arange(samples) % CLUSTERS)
        data = stored("drawn", split, None, n_classes=CLUSTERS, split="all", source="drawn")
        self._wait()
        begun, spent = time.perf_counter(), time.process_time()
        watched(METHOD, model, config, data, self.feed, CLUSTERS, 0)
        seconds, processor = time.perf_counter() - begun, time.process_time() - spent
        count = math.ceil(epochs / config.evaluate_every)  # the last epoch has one too
        total = {"seconds": count * seconds, "processor_seconds": count * processor}
        return {"way": "evaluations of a trial", "evaluations": count, "samples": samples} | total

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(case: Case, sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """One row for each size of a pack; `ratio` above 1 says that a pack does more trials a minute than one alone."""
    ways: dict[int, Updates] = {0: case.alone()} | {size: case.packed(size) for size in sizes}
    for updates in ways.values():
        case.seconds(updates, 0)  # warms up
    times: dict[int, list[float]] = {size: [] for size in ways}
    for repeat in range(repeats):
        for size, updates in ways.items():
            times[size].append(case.seconds(updates, 1 + repeat))
    alone = statistics.median(times[0])
    rows = []
    for size in sizes:
        step = statistics.median(times[size])
        rows.append(
            {"way": f"packed {size}", "step_s": step, "trial_step_s": step / size, "ratio": alone * size / step}
        )
    return [{"way": "alone", "step_s": alone, "trial_step_s": alone, "ratio": 1.0}, *rows]


def _beside(barrier: Barrier, device: str, precision: str, steps: int, repeats: int, threads: int, found: Any) -> None:
    torch.set_num_threads(threads)
    case = Case(torch.device(device), precision, steps)
    updates = case.alone()
    case.seconds(updates, 0)
    barrier.wait()
    found.put([case.seconds(updates, 1 + repeat) for repeat in range(repeats)])


def beside(processes: int, device: str, precision: str, steps: int, repeats: int, threads: int) -> dict[str, Any]:
    """As many trials side by side, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(processes), context.Queue()
    share = max(1, threads // processes)
    args = (barrier, device, precision, steps, repeats, share, found)
    started = [context.Process(target=_beside, args=args) for _ in range(processes)]
    for process in started:
        process.start()
    times = [found.get(timeout=600) for _ in started]
    for process in started:
        process.join()
    step = statistics.median(value for one in times for value in one)
    return {"way": f"beside {processes}", "step_s": step, "trial_step_s": step / processes}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--beside", type=int, default=2, help="processes side by side; 0: leave them out")
    parser.add_argument("--steps", type=int, default=5, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=16, help=f"of a trial, of {STEPS} steps, for trials a minute")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--evaluated", type=int, default=STEPS * BATCH, help="samples of an evaluation")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    machine, device = facts(args.device, args.threads), torch.device(args.device)
    case = Case(device, args.precision, args.steps)
    rows = measure(case, args.trials, args.repeats)
    if args.beside:
        both = beside(args.beside, args.device, args.precision, args.steps, args.repeats, args.threads)
        rows.append(both | {"ratio": rows[0]["trial_step_s"] / both["trial_step_s"]})
    for row in rows:
        row["trials_per_minute"] = 60 / (row["trial_step_s"] * STEPS * args.epochs)
    rows.append(case.evaluations(args.epochs, args.evaluated))
    if args.json:
        print(
            json.dumps({"machine": machine, "precision": args.precision, "epochs": args.epochs, "rows": rows}, indent=1)
        )
        return
    for row in rows:
        print("  ".join(f"{name} {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in row.items()))


if __name__ == "__main__":
    main()
