"""The real body of a unit: one training, in this process or on several Ray workers."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raymc.config import Value
from raymc.methods import METHODS
from raymc.scale.worker import Job, run_workers
from raymc.search.records import Row
from raymc.search.unit import Report
from raymc.space import Space
from raymc.training.run import run
from raymc.training.stages import seeds_of

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TrainSeed:
    """Trains a point of `space` with one seed (see `raymc.search.unit.Body`).

    Args:
        storage: where stage results are shared; `data`: the datasets' folder.
        base_seed: seed of the stages before `seeds_from`, the same for all seeds of the study.
        workers: data-parallel workers, each with `gpus` and `cpus`.
    """

    space: Space
    storage: str
    data: str
    base_seed: int
    seeds_from: str
    smoke: bool = False
    workers: int = 1
    gpus: float = 0.0
    cpus: float = 1.0

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        config = self.space.config({"seed": seed}, params)
        seeds = seeds_of(tuple(self.space.stage_keys), seed, self.base_seed, self.seeds_from)
        job = Job(config, self.storage, self.data, out, seeds, smoke=self.smoke)
        if self.workers > 1:
            return self._on_workers(job, report)
        torch.set_num_threads(max(1, int(self.cpus)))
        try:
            return run(
                config,
                storage=job.storage,
                data=job.data,
                out=out,
                stage_seeds=seeds,
                report=report,
                smoke=self.smoke,
                device="cpu" if self.gpus == 0 else None,
            )
        finally:
            # The process goes on with other trials, and others may share its GPU.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def epochs(self, params: Mapping[str, Value]) -> dict[str, int]:
        config = self.space.config(params=params)
        stages = METHODS[self.space.method].stages(config)
        epochs = {stage.name: config.stages[stage.name].epochs for stage in stages if stage.clusters}
        return {name: min(count, 2) if self.smoke else count for name, count in epochs.items()}

    def _on_workers(self, job: Job, report: Report) -> Row:
        """Train under Ray Train and report from here what rank 0 reports there."""
        job.out.mkdir(parents=True, exist_ok=True)
        events = job.out / "events.jsonl"
        events.unlink(missing_ok=True)
        told = 0
        with ThreadPoolExecutor(1) as pool:
            training = pool.submit(run_workers, job, self.workers, self.gpus, self.cpus, [_relay(events)])
            while not wait([training], POLL_SECONDS).done:
                told += _tell(events, told, report)
            _tell(events, told, report)
            result = training.result()
        events.unlink(missing_ok=True)
        shutil.rmtree(job.out / "ray", ignore_errors=True)  # Train's own notes, of use only while it runs
        return result


def _relay(events: Path) -> Any:
    """A Ray Train callback that appends rank 0's reports to a file; it runs in Train's controller process."""
    from ray.train import UserCallback

    class Relay(UserCallback):
        def after_report(self, run_context: Any, metrics: list[Row], checkpoint: Any) -> None:
            with events.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics[0]) + "\n")

    return Relay()


def _tell(events: Path, told: int, report: Report) -> int:
    """Report the complete lines after the first `told`; how many there were."""
    try:
        text = events.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    lines = text.splitlines(keepends=True)[told:]
    complete = [line for line in lines if line.endswith("\n")]
    for line in complete:
        report(json.loads(line))
    return len(complete)
