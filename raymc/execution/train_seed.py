"""The real body of a unit: one training, in this process or on several Ray workers."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from raymc.config import Value
from raymc.execution.relay import run_and_report
from raymc.execution.trial import Report
from raymc.execution.worker import Job, Needs
from raymc.methods import METHODS
from raymc.rng import Seed
from raymc.search.records import Row
from raymc.space.space import Space
from raymc.training.packed import fill_store
from raymc.training.run import run
from raymc.training.stages import seeds_of


@dataclass(frozen=True)
class TrainSeed:
    """Trains a point of `space` with one seed (see `raymc.execution.trial.Body`).

    Args:
        storage: where stage results are shared; `data`: the datasets' folder.
        base_seed: seed of the stages before `seeds_from`, the same for all seeds of the study.
        workers: data-parallel workers, each with `gpus` and `cpus`; `min_workers` of them will do (None: all).
        seeds: those that follow one another in one process, which `packed_seeds` of them at a time share.
        made: what this process computed for seeds that are still to come (see `fill_store`).
    """

    space: Space
    storage: str
    data: str
    base_seed: int
    seeds_from: str
    smoke: bool = False
    workers: int = 1
    min_workers: int | None = None
    gpus: float = 0.0
    cpus: float = 1.0
    seeds: tuple[int, ...] = ()
    made: dict[str, float] = field(default_factory=dict, compare=False)

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        config = self.space.config({"seed": seed}, params)
        seeds = self._seeds(seed)
        job = Job(config, self.storage, self.data, out, seeds, smoke=self.smoke)
        if self.workers > 1:
            return run_and_report(job, Needs(self.workers, self.gpus, self.cpus, self.min_workers), report)
        torch.set_num_threads(max(1, int(self.cpus)))
        try:
            pack = _pack(self.seeds, seed, config.packed_seeds)
            if len(pack) > 1:
                self.made.update(
                    fill_store(
                        [(config, self._seeds(one)) for one in pack],
                        storage=job.storage,
                        data=job.data,
                        report=report,
                        smoke=self.smoke,
                        device="cpu" if self.gpus == 0 else None,
                    )
                )
            return run(
                config,
                storage=job.storage,
                data=job.data,
                out=out,
                stage_seeds=seeds,
                report=report,
                smoke=self.smoke,
                device="cpu" if self.gpus == 0 else None,
                made=self.made,
            )
        finally:
            # The process goes on with other trials, and others may share its GPU.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _seeds(self, seed: int) -> dict[str, Seed]:
        varies = self.space.config().varies
        return seeds_of(tuple(self.space.stage_settings), seed, self.base_seed, self.seeds_from, varies)

    def epochs(self, params: Mapping[str, Value]) -> dict[str, int]:
        config = self.space.config(params=params)
        stages = METHODS[self.space.method].stages(config)
        epochs = {stage.name: config.stages[stage.name].epochs for stage in stages if stage.clusters}
        return {name: min(count, 2) if self.smoke else count for name, count in epochs.items()}


def _pack(seeds: tuple[int, ...], seed: int, size: int) -> tuple[int, ...]:
    """`seed` and those after it of the run of `size` seeds that it is in; nothing where it is in none."""
    if size == 1 or seed not in seeds:
        return ()
    at = seeds.index(seed)
    return seeds[at : at - at % size + size]
