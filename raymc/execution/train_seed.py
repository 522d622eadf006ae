"""What a task of ours trains: one training, in this process or on several Ray workers."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from raymc.config import Value
from raymc.execution.needs import Needs, needs_of
from raymc.execution.relay import run_and_report
from raymc.execution.requirements import Requirements, required
from raymc.execution.trial import Report
from raymc.execution.worker import Job
from raymc.rng import Seed
from raymc.space.settled import clustering_epochs
from raymc.space.space import Space
from raymc.study import files
from raymc.study.records import Row
from raymc.training.run import run
from raymc.training.stages import seeds_of

if TYPE_CHECKING:  # the driver needs Optuna, a training does not
    from raymc.execution.driver import Slots


@dataclass(frozen=True)
class TrainSeed:
    """Trains a point of `space` with one seed (see `raymc.execution.trial.Trainable`).

    Args:
        storage: where stage results are shared; `data`: the datasets' folder.
        base_seed: seed of the stages before `seeds_from`, the same for all seeds of the study.
        keep_rows_of: the kind of tasks whose trainings leave `labels.csv`, the embedding and `model/`, for a
            winner to be taken from; empty: none.
        workers: data-parallel workers, each with `gpus` and `cpus`; `min_workers` of them will do (None: all).
        stages: the same for stages that are trained by themselves with other resources.
        nodes: on which machines workers may be, see `on_nodes`; empty: on any.
        requirements: what a machine must have; None: whatever it has.
    """

    space: Space
    storage: str
    data: str
    base_seed: int
    seeds_from: str
    smoke: bool = False
    keep_rows_of: str = ""
    workers: int = 1
    min_workers: int | None = None
    gpus: float = 0.0
    cpus: float = 1.0
    stages: Mapping[str, TrainSeed] = field(default_factory=dict)
    nodes: str = ""
    requirements: Requirements | None = None

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        return self._run(params, seed, out, report, None)

    def stage(self, name: str, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        return self.stages.get(name, self)._run(params, seed, out, report, name)

    def _run(self, params: Mapping[str, Value], seed: int, out: Path, report: Report, until: str | None) -> Row:
        config = self.space.config({"seed": seed}, params)
        seeds = self._seeds(seed)
        keep = bool(self.keep_rows_of) and files.kind_of(out) == self.keep_rows_of
        job = Job(
            config,
            self.storage,
            self.data,
            out,
            seeds,
            smoke=self.smoke,
            keep_model=keep,
            keep_rows=keep,
            until=until,
            requirements=self.requirements,
        )
        if self.workers > 1:
            needs = Needs(self.workers, self.gpus, self.cpus, self.min_workers)
            return run_and_report(job, needs, report, self.nodes)
        torch.set_num_threads(max(1, int(self.cpus)))
        try:
            with required(job.requirements, gpu=self.gpus > 0):
                return run(
                    config,
                    storage=job.storage,
                    data=job.data,
                    out=out,
                    stage_seeds=seeds,
                    report=report,
                    smoke=self.smoke,
                    keep_model=keep,
                    keep_rows=keep,
                    device="cpu" if self.gpus == 0 else None,
                    until=until,
                )
        finally:
            # The process goes on with other trials, and others may share its GPU.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def on(self, slots: Slots) -> TrainSeed:
        """The same with as many workers as its space asks for, on what a slot gives each of them."""
        needs = needs_of(self.space)
        stages = {name: self._given(own, slots.stages[name]) for name, own in needs.stages}
        return replace(self._given(needs, slots), stages=stages)

    def _given(self, needs: Needs, slots: Slots) -> TrainSeed:
        gpus, cpus = slots.gpus_per_worker, slots.cpus_per_worker
        return replace(self, workers=needs.workers, min_workers=needs.min_workers, gpus=gpus, cpus=cpus)

    def on_nodes(self, nodes: str) -> TrainSeed:
        """The same with workers only on machines whose label of Ray's id is so."""
        stages = {name: replace(own, nodes=nodes) for name, own in self.stages.items()}
        return replace(self, nodes=nodes, stages=stages)

    def _seeds(self, seed: int) -> dict[str, Seed]:
        varies = self.space.config().varies
        return seeds_of(tuple(self.space.stage_settings), seed, self.base_seed, self.seeds_from, varies)

    def epochs(self, params: Mapping[str, Value]) -> dict[str, int]:
        return clustering_epochs(self.space, params, self.smoke)
