"""Data-parallel training under Ray Train: the same `run` as one process, once per worker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from raymc import errors
from raymc.config import Config
from raymc.errors import RaymcError
from raymc.masking import masked
from raymc.seed_parts import Seed
from raymc.training.outputs import write_json

COLLECTIVE_TIMEOUT = timedelta(hours=12)  # a worker may wait while another process computes a shared stage


@dataclass(frozen=True)
class Job:
    """What every worker needs; pickled to it. The fields are the arguments of `raymc.training.run.run`."""

    config: Config
    storage: str
    data: str | None
    out: Path
    stage_seeds: Mapping[str, Seed]
    start_from: str | None = None
    smoke: bool = False
    keep_model: bool = False


def run_workers(
    job: Job, workers: int, gpus_per_worker: float, cpus_per_worker: float, callbacks: list[Any] | None = None
) -> dict[str, Any]:
    """Train `job` on `workers` Ray workers and return the content of `metrics.json`.

    NCCL on whole GPUs; gloo on CPUs and where workers share a GPU, which NCCL refuses.

    Ray must be initialised, with its dashboard: without its State API a stopped run leaks its workers. Callbacks
    are Ray Train user callbacks; each worker reports the rows of `run` to them.
    Raises the error that `run` raised on a worker.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = gpus_per_worker > 0
    resources = {"CPU": cpus_per_worker} | ({"GPU": gpus_per_worker} if gpu else {})
    # Seconds between the controller's polls: each report waits for one (default 2).
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    failed = job.out / "error.json"
    failed.unlink(missing_ok=True)
    (job.out / "metrics.json").unlink(missing_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "cpus": cpus_per_worker},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=resources),
        torch_config=TorchConfig(
            backend="nccl" if gpus_per_worker >= 1 else "gloo", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(job.out / "ray"),
            failure_config=FailureConfig(max_failures=3),
            callbacks=callbacks or [],
        ),
    )
    try:
        trainer.fit()
    except Exception:
        if not failed.exists():
            raise
    if failed.exists():
        facts = json.loads(failed.read_text())
        kind: Callable[[str], RaymcError] = getattr(errors, facts["kind"])
        raise kind(facts["message"])
    result: dict[str, Any] = json.loads((job.out / "metrics.json").read_text())
    return result


def _work(settings: dict[str, Any]) -> None:
    """The body of one worker: no Ray call below `run`."""
    import ray.train
    import torch
    import torch.distributed

    from raymc.training.dist import Workers
    from raymc.training.run import run

    job: Job = settings["job"]
    told = job.out / "error.json"
    if told.exists():
        return  # a retry of what no retry can mend
    context = ray.train.get_context()
    torch.set_num_threads(max(1, int(settings["cpus"])))
    rank, size = context.get_world_rank(), context.get_world_size()
    group = torch.distributed.group.WORLD if size > 1 else None
    try:
        run(
            job.config,
            storage=job.storage,
            data=job.data,
            out=job.out,
            stage_seeds=job.stage_seeds,
            workers=Workers(rank, size, group),
            device=ray.train.torch.get_device(),
            report=lambda row: ray.train.report(row),
            start_from=job.start_from,
            smoke=job.smoke,
            keep_model=job.keep_model,
        )
    except RaymcError as error:
        # Told through a file, from whichever worker; raised as well, since the others wait for this one.
        write_json(told, {"kind": type(error).__name__, "message": masked(str(error))})
        raise
