"""Data-parallel training under Ray Train: the same `run` as one process, once per worker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from raymc.atomic import write_bytes, write_json
from raymc.config import Config
from raymc.errors import LostError, MachineError, RaymcError
from raymc.execution.failures import Failures, alive_nodes, reason_of
from raymc.execution.needs import Needs
from raymc.execution.nodes import NODE
from raymc.execution.requirements import Requirements, lacking, required
from raymc.rng import Seed
from raymc.storage.objects import is_uri
from raymc.storage.shared_folder import require_folder
from raymc.training.checkpoints import find

COLLECTIVE_TIMEOUT = timedelta(minutes=20)
"""After that a worker that hangs is replaced; what one worker does alone may take longer, see `Workers.pulse`."""

BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What no lost machine raises."""


@dataclass(frozen=True)
class Job:
    """What every worker needs; pickled to it. The fields are the arguments of `raymc.training.run.run`, and what its
    machine must have.
    """

    config: Config
    storage: str
    data: str | None
    out: Path
    stage_seeds: Mapping[str, Seed]
    start_from: str | None = None
    smoke: bool = False
    keep_model: bool = False
    keep_rows: bool = False
    until: str | None = None
    requirements: Requirements | None = None


def run_workers(job: Job, needs: Needs, callbacks: list[Any] | None = None, nodes: str = "") -> dict[str, Any]:
    """Train `job` on Ray workers, on one machine or several, and return the content of `metrics.json`.

    Ray must be initialised, with its dashboard: without its State API a stopped run leaks its workers. Callbacks
    are Ray Train user callbacks; each worker reports the rows of `run` to them. `nodes`: on which machines, see
    `TrainSeed.on_nodes`; empty: on any.
    Raises the error that `run` raised on a worker.
    """
    from ray.exceptions import RayError, RayTaskError
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Seconds between the controller's polls: each report waits for one (default 2).
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Seconds that it waits for places for the workers before it counts the machines anew (default 60).
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    # Workers report together, and wait there for one that hangs (default: for ever).
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", str(int(COLLECTIVE_TIMEOUT.total_seconds())))
    job.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="raymc-", ignore_cleanup_errors=True) as notes:
        trainer: Any = TorchTrainer(  # mypy reads the types of Ray Train's old version
            _work,  # type: ignore[arg-type]
            train_loop_config={"job": job, "cpus": needs.cpus_per_worker, "checkpoints": find.handed_on()},
            scaling_config=ScalingConfig(
                # A pair is elastic.
                num_workers=needs.workers if needs.least == needs.workers else (needs.least, needs.workers),  # type: ignore[arg-type]
                use_gpu=needs.gpus_per_worker > 0,
                resources_per_worker=needs.each,
                label_selector={NODE: nodes} if nodes else None,  # type: ignore[call-arg]
            ),
            torch_config=TorchConfig(backend=needs.backend, timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())),
            run_config=RunConfig(
                name="train",
                storage_path=notes,  # of Train's controller, which runs on this machine; no checkpoint goes there
                failure_config=FailureConfig(max_failures=-1),  # the mentor counts them
                callbacks=[_mentor(), *(callbacks or [])],
            ),
        )
        try:
            result, files = trainer.fit().return_value
        except ControllerError as error:
            if isinstance(error.controller_failure, RaymcError):
                raise error.controller_failure from error
            raise
        except RayTaskError:
            raise
        except RayError as error:  # Train's controller was ended, as where memory is full, and with it the workers
            raise LostError(f"Ray lost processes of the training: {reason_of(str(error))}") from error
    if not files:
        return dict(result)
    for name, content in files.items():
        write_bytes(job.out / name, content)
    result |= {"out": str(job.out)}
    write_json(job.out / "metrics.json", result)
    return dict(result)


def _mentor() -> Any:
    """A Ray Train callback that ends the run, in its controller, with an error that no retry can mend.

    A worker's machine that was lost is none, however often.
    """
    from ray.train import UserCallback

    class Mentor(UserCallback):
        def __init__(self) -> None:
            self.failures, self.nodes = Failures(), set[str]()

        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            self.nodes = {row["node"] for row in metrics}

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, RaymcError):
                    raise error
            # Others may be what a lost machine leaves behind: workers whose connection to it ended.
            sure = any(isinstance(error, BUGS) for error in worker_exceptions.values())
            self.failures.add(self.nodes, vague=not sure)
            if self.failures.too_many(alive_nodes()):
                raise next(iter(worker_exceptions.values()))

    return Mentor()


def _work(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What one worker does: no Ray call below `run`. What rank 0 returns is what the run returns.

    With it come the files of the training, where the storage is an object store and the machines share no folder.
    """
    import ray.train
    import ray.util
    import torch

    from raymc.distributed import all_workers
    from raymc.training.run import run

    job: Job = settings["job"]
    # A worker's working folder is not that of the command, and its machine need not have the command's folders.
    find.take_over(settings["checkpoints"])
    apart = is_uri(job.storage)
    node = ray.get_runtime_context().get_node_id()
    context = ray.train.get_context()
    torch.set_num_threads(max(1, int(settings["cpus"])))
    rank, size = context.get_world_rank(), context.get_world_size()
    with (
        at_fault(node),
        tempfile.TemporaryDirectory(prefix="raymc-") if apart else nullcontext(str(job.out)) as place,
        required(job.requirements, ray.train.torch.get_device().type == "cuda"),
    ):
        if not apart:
            require_folder(job.out)
        result = run(
            job.config,
            storage=job.storage,
            data=job.data,
            out=Path(place),
            stage_seeds=job.stage_seeds,
            workers=all_workers(rank, size),
            device=ray.train.torch.get_device(),
            report=lambda row: ray.train.report({**row, "node": node}),
            start_from=job.start_from,
            smoke=job.smoke,
            keep_model=job.keep_model,
            keep_rows=job.keep_rows,
            until=job.until,
        )
        return result, _contents(Path(place)) if apart and rank == 0 else {}


@contextmanager
def at_fault(node: str) -> Iterator[None]:
    """A MachineError of the block, or that of an import, says which machine it was: it is told on another one."""
    import ray

    try:
        yield
    except (MachineError, ImportError) as error:
        found = lacking(error) if isinstance(error, ImportError) else error
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise MachineError(found.message, node, address) from error


def _contents(folder: Path) -> dict[str, bytes]:
    """Of each file in the folder and below."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
