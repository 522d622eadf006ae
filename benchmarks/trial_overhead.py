"""Seconds that a trial costs beside its training: alone, through Ray Tune, and through Ray Tune and Ray Train.

    python -m benchmarks.trial_overhead --modes bare tune train --trials 20 --out results.json

The training does nothing but report five epochs. `bare` calls the task's function in this process; `tune` hands the
tasks to Ray Tune one at a time, as `raymc.tune` does with one worker; `train` starts a worker group of Ray Train
for each, as with several workers. The first task pays for its process and is stated apart. `start` is Ray itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from raymc.execution.cluster import ray_session
from raymc.execution.driver import node_resources, plan_slots, quiet_environment, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.trial import Plan, run_task
from raymc.provenance import versions
from raymc.study.objective import Objective
from raymc.study.seed_queue import SeedQueue

EPOCHS = 5


class Nothing:
    """A training that is over at once."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        for epoch in range(1, EPOCHS + 1):
            report({"event": "epoch", "stage": "heads", "epoch": epoch, "epochs": EPOCHS, "loss": 0.0})
        return {"metrics": {"acc": 0.5}, "stages": []}

    def epochs(self, params: Mapping[str, Any]) -> dict[str, int]:
        return {"heads": EPOCHS}


class NothingOnAWorker(Nothing):
    """The same in a worker of Ray Train."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        import os

        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        out.mkdir(parents=True, exist_ok=True)
        TorchTrainer(
            _report_epochs,
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(name="train", storage_path=str(out / "ray")),
        ).fit()
        return super().__call__(params, seed, out, report)


def _report_epochs() -> None:
    import ray.train

    for epoch in range(EPOCHS):
        ray.train.report({"epoch": epoch})


class Clock(Board):
    """Notes when tasks end."""

    def __init__(self, tasks: int) -> None:
        super().__init__("trial overhead", "acc", tasks)
        self.times = [time.monotonic()]
        self.tick = lambda: self.times.append(time.monotonic())


def bare(folder: Path, tasks: int) -> list[float]:
    """Seconds of each task in this process."""
    queue, times = SeedQueue(folder, "stability", Objective("acc"), {0: {}}, range(tasks)), []
    while (task := queue.next()) is not None:
        begun = time.monotonic()
        run_task(Plan(folder, Objective("acc")), task, Nothing(), lambda row: None)
        queue.ended(task)
        times.append(time.monotonic() - begun)
    return times


def through_ray(folder: Path, tasks: int, trainable: Nothing, workers: int) -> list[float]:
    """Seconds of each task through Tune; Ray is running."""
    queue, needs = SeedQueue(folder, "stability", Objective("acc"), {0: {}}, range(tasks)), Needs(workers=workers)
    slots = plan_slots(needs, node_resources(), 1, fixed=True)
    with Clock(tasks) as clock:
        run_work(queue, {"": (Plan(folder, Objective("acc")), trainable)}, slots, clock)
    return [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]


def told(mode: str, times: list[float], start: float) -> dict[str, Any]:
    """First task, and median, least and largest of the others."""
    rest = times[1:] or times
    row = {"mode": mode, "tasks": len(times), "start": start, "first": times[0]}
    return row | {"median": statistics.median(rest), "min": min(rest), "max": max(rest)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=("bare", "tune", "train"), default=["bare", "tune"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    quiet_environment()
    before, rows = facts("cpu", 1), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "bare" in args.modes:
            rows.append(told("bare", bare(folder / "bare", args.trials), 0.0))
        for mode, trainable, workers in (("tune", Nothing(), 1), ("train", NothingOnAWorker(), 2)):
            if mode in args.modes:
                begun = time.monotonic()
                with ray_session(None, dashboard=mode == "train"):
                    started = time.monotonic() - begun
                    rows.append(told(mode, through_ray(folder / mode, args.trials, trainable, workers), started))
    result = {"machine": before, "versions": versions(), "epochs": EPOCHS, "rows": rows}
    for row in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
