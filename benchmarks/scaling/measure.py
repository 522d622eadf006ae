"""Measured on this machine's CPU: two workers against one, what waiting for each other takes, time until Ray's are up.

The workers are the processes of tests/worker_pool.py (gloo over loopback); the epochs are those of a training: views,
loss, backward, averaged gradients, optimiser. Of the sides, which take turns, medians are told.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from unittest import mock

import torch
import torch.distributed
from torch.distributed import ProcessGroup

from benchmarks.scaling.scores import measured_scores
from raymc import datasets
from raymc import distributed as dist
from raymc.config import Config
from raymc.distributed import Workers, world
from raymc.methods import METHODS
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.space.space import load_space
from raymc.training.feed import Feed
from raymc.training.loop import Updates, train_epoch
from raymc.training.stages import clusters_of, enter, prepare

SIDES = (("1 worker, 1 thread", 1, 1), ("1 worker, 2 threads", 1, 2), ("2 workers, 1 thread each", 2, 1))
"""What is compared: a name, workers, threads of each."""


@dataclass(frozen=True)
class Case:
    """Epochs of stage 1 of a space: of `samples` images in global batches of `batch`, `rounds` times a side."""

    space: str
    batch: int
    samples: int
    rounds: int


CASES = (Case("nmce_digits", 256, 1280, 5), Case("nmce_cifar20", 32, 32, 3))


class Clocked:
    """torch.distributed, which notes the seconds and the calls that its collectives take, waiting included."""

    def __init__(self) -> None:
        self.seconds, self.calls, self.bytes = 0.0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.distributed, name)

    def all_reduce(self, x: torch.Tensor, group: ProcessGroup, async_op: bool = False) -> Any:
        return self._timed(lambda: torch.distributed.all_reduce(x, group=group, async_op=async_op), x)

    def all_gather_into_tensor(self, whole: torch.Tensor, x: torch.Tensor, group: ProcessGroup) -> None:
        self._timed(lambda: torch.distributed.all_gather_into_tensor(whole, x, group=group), whole)

    def reduce_scatter_tensor(self, own: torch.Tensor, whole: torch.Tensor, group: ProcessGroup) -> None:
        self._timed(lambda: torch.distributed.reduce_scatter_tensor(own, whole, group=group), whole)

    def _timed(self, collective: Callable[[], Any], x: torch.Tensor) -> Any:
        """What the collective answers: a handle where it goes on by itself; what is waited for later is not in."""
        begun = time.perf_counter()
        found = collective()
        self.seconds += time.perf_counter() - begun
        self.calls += 1
        self.bytes += x.nbytes
        return found


@contextmanager
def clocked() -> Iterator[Clocked]:
    clock = Clocked()
    with mock.patch.object(dist, "dist", clock):
        yield clock


def epoch(group: ProcessGroup, shard: Any, case: Case, threads: int) -> dict[str, float]:
    """One epoch of stage 1 after one that warms up: by step its wall and CPU seconds, and those in collectives."""
    rank, size = world(group)
    workers = Workers(rank, size, group) if size > 1 else Workers()
    torch.set_num_threads(threads)
    try:
        updates, feed = stage_1(case, workers)
        train_epoch(updates, feed, 0, 0)
        with clocked() as clock:
            begun, spent = time.perf_counter(), time.process_time()
            train_epoch(updates, feed, 0, 1)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - spent
    finally:
        torch.set_num_threads(1)
    steps, _ = feed.steps(updates.settings.batch_size)
    return {
        "seconds": seconds / steps,
        "cpu": cpu / steps,
        "collectives": clock.seconds / steps,
        "calls": clock.calls / steps,
        "bytes": clock.bytes / steps,
    }


def stage_1(case: Case, workers: Workers) -> tuple[Updates, Feed]:
    """The updates and the batches of stage 1, at the global batch of the case."""
    config: Config = load_space(case.space).config({})
    method = METHODS[config.method]
    stage = method.stages(config)[0]
    settings = dataclasses.replace(config.stages[stage.name], batch_size=case.batch)
    config = dataclasses.replace(config, stages=MappingProxyType({**config.stages, stage.name: settings}))
    data = dataclasses.replace(datasets.load(config.dataset), epoch_size=case.samples)
    feed = Feed.build(data, config.augmentation, torch.device("cpu"), torch.float32, False, workers)
    shape = tuple(data.train.x.shape[1:])
    model = enter(method, stage, config, shape, clusters_of(config, data), {}, 0)
    for module in model.values():
        synchronise_batchnorm(module, workers.group)
    prepare(model, stage, settings.frozen_statistics)
    return Updates(model, stage, settings, workers, None), feed


def two_against_one(case: Case) -> list[dict[str, Any]]:
    """A row for each side: medians over the rounds of the slowest worker's step and of all workers' CPU seconds.

    The speed-up is that over one worker with one thread. CPU seconds say what sharing costs where a machine is busy.
    """
    from tests.worker_pool import on_workers

    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in SIDES}
    for _ in range(case.rounds):
        for name, workers, threads in SIDES:
            answers = on_workers(epoch, [None] * workers, case=case, threads=threads)
            slowest = max(answers, key=lambda one: one["seconds"])
            found[name].append(slowest | {"cpu": sum(one["cpu"] for one in answers)})
    base = statistics.median(one["seconds"] for one in found[SIDES[0][0]])
    return [
        {"space": case.space, "batch": case.batch, "side": name, "rounds": case.rounds, **_medians(rows, base)}
        for name, rows in found.items()
    ]


def _medians(rows: list[dict[str, float]], base: float) -> dict[str, float]:
    told = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    seconds = [row["seconds"] for row in rows]
    return told | {"least": min(seconds), "most": max(seconds), "speed_up": base / told["seconds"]}


def worker_group(workers: int = 2, times: int = 2) -> dict[str, Any]:
    """Seconds of Ray's start, and from asking for a group of Ray Train to its first worker at work, and to its end."""
    from raymc.execution.cluster import ray_session
    from raymc.execution.driver import quiet_environment

    quiet_environment()
    begun = time.monotonic()
    with ray_session(None, dashboard=True):
        started = time.monotonic() - begun
        rows = [_group(workers) for _ in range(times)]
    return {"workers": workers, "ray": started, "groups": rows}


def _group(workers: int) -> dict[str, float]:
    import os

    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    begun = time.time()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        trainer: Any = TorchTrainer(
            _stamp,  # type: ignore[arg-type]
            scaling_config=ScalingConfig(num_workers=workers),
            torch_config=TorchConfig(backend="gloo"),
            run_config=RunConfig(name="train", storage_path=place),
        )
        up = trainer.fit().return_value
    return {"up": up - begun, "whole": time.time() - begun}


def _stamp() -> float:
    return time.time()


def measured() -> dict[str, Any]:
    """All of it; minutes."""
    steps = [row for case in CASES for row in two_against_one(case)]
    return {"steps": steps, "group": worker_group(), "scores": measured_scores()}
