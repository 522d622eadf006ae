"""What one trial does, in whatever process it runs: train its seeds, leave their results, report, stop when told.

Nothing here imports Ray or Optuna. Results are on disk before they are reported, so that a process killed at any
moment loses at most the epochs since the last checkpoint of a stage.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch

from raymc.config import Value
from raymc.errors import LostError, MachineError, RaymcError, StorageLostError, TrainingError, storage_error
from raymc.masking import masked
from raymc.storage.mirror import Mirror
from raymc.study import files, groups
from raymc.study.events import EVENTS, EventLog
from raymc.study.objective import Objective
from raymc.study.records import (
    COLLAPSED,
    FAILED,
    FINISHED,
    PRUNED,
    RUNNING,
    Record,
    Resources,
    Row,
    SeedRun,
    Task,
    numbers,
)

Report = Callable[[Row], None]

LIVE_SECONDS = 1.0
"""The least time between two reports that only feed the live table."""


class Trainable(Protocol):
    """Trains one configuration with one seed."""

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        """Train, leave files in `out`, call `report` with the events of `raymc.training`, return metrics.json.

        Of it are read `metrics`, `stages` and, by the gates, `n_clusters`. Raises TrainingError where the training
        ended without a usable result.
        """

    def epochs(self, params: Mapping[str, Value]) -> Mapping[str, int]:
        """The stages that assign clusters, in their order, with their epochs: what fidelity `epochs` counts."""


class StageTrainable(Trainable, Protocol):
    """Trains also a stage that several configurations need."""

    def stage(self, name: str, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        """Train no further than that stage; its result is in the store then. Of what is returned `stages` are read."""


@runtime_checkable
class WithWorkers(Protocol):
    """A `Trainable` whose workers are placed apart from its own process."""

    def on_nodes(self, nodes: str) -> Trainable:
        """The same with workers only on machines whose label of Ray's id is so."""


@dataclass(frozen=True)
class Plan:
    """What all tasks of a study share: its folder, what they are scored by, and what a trial is stopped after.

    `resources` are what a training is given, `stage_resources` what stages are that have their own. Where the study is
    in an object store, at `uri`, `folder` is this process's own and `mirror` connects the two.
    """

    folder: Path
    objective: Objective
    fidelity: str = "none"
    uri: str | None = None
    mirror: Mirror | None = None
    resources: Resources | None = None
    stage_resources: Mapping[str, Resources] = field(default_factory=dict)

    def is_stopped(self, trial: int) -> bool:
        """Whether the pruner wants no more of a trial of the search."""
        mark = files.stop_mark(self.folder, trial)
        there = self.mirror is not None and self.mirror.exists(mark.relative_to(self.folder).as_posix())
        return there or mark.exists()


class Pruned(Exception):
    """The pruner stopped this trial; raised inside its training so that leases and files are given back."""


def run_task(plan: Plan, task: Task, trainable: Trainable, report: Report) -> Record:
    """Run the seeds of `task` that have no result yet and return the record of its group.

    `report` gets `{"state": "running", …}` rows, with `resource`, `running` (the score so far) and after a seed `value`
    (its own) where the pruner may judge, and one last row with the final state; all have the `seconds` of training so
    far. A trial that went wrong is no exception: the record names its state. Raises what says nothing of the trial:
    StorageError where files cannot be written, MachineError where the machine cannot train, ImportError where a package
    is missing or broken, torch.AcceleratorError.
    """
    try:
        return _TaskRun(plan, task, trainable, report).run()
    except Exception as error:
        if (refused := storage_error(error, plan.folder)) is None:
            raise
        raise refused from error


OF_THE_PLACE = (Pruned, MachineError, LostError, StorageLostError, ImportError, torch.AcceleratorError)
"""What ends a training and is no fault of its configuration. After an error of CUDA its process can compute no more."""


class Clock:
    """The seconds of a training, without those in which it had no workers, and the mean number of its workers."""

    def __init__(self) -> None:
        self.idle = 0.0
        self._begun = self._noted = time.monotonic()
        self._worked = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun - self.idle

    @property
    def workers(self) -> float | None:
        """None where no event told their number."""
        return self._worked / (self._noted - self._begun) if self._worked else None

    def note(self, workers: int | None) -> None:
        """So many have been at work since the last note, where an event says so."""
        if workers is not None:
            now = time.monotonic()
            self._worked += workers * (now - self._noted)
            self._noted = now


class _TaskRun:
    def __init__(self, plan: Plan, task: Task, trainable: Trainable, report: Report) -> None:
        self.plan, self.task, self.trainable = plan, task, trainable
        self._send = report
        self._done: list[SeedRun] = []
        self._prunable = task.kind == "search" and plan.fidelity != "none"
        self._resource = 0
        self._sent = -math.inf
        self._clock: Clock | None = None

    def run(self) -> Record:
        self._write(RUNNING)
        record = self._group()
        search = self.task.kind == "search"
        last = record if search else self._done[-1]
        score = record.score if search else last.metrics.get(self.plan.objective.metric)
        self._report({"state": last.state, "score": score})
        return record

    def _group(self) -> Record:
        try:
            for seed in self.task.seeds:
                self._seed(seed)
                record = self._write()
                if record.state != RUNNING:
                    break
                self._score_so_far(self._score(), self._passed())
        except Pruned:
            record = self._write(PRUNED)
        return record

    def _seed(self, seed: int) -> None:
        run = files.read_seed(self.plan.folder, self.task, seed)
        if run is None:
            run = self._train(seed)
            files.write_seed(self.plan.folder, self.task, run)
        self._done.append(run)

    def _train(self, seed: int) -> SeedRun:
        task, folder = self.task, self.plan.folder
        clock = self._clock = Clock()
        row: Row = {"seed": seed, "state": FINISHED}
        out = files.seed_folder(folder, task.kind, task.trial, seed)
        with EventLog(out / EVENTS) as log:

            def on_event(event: Row) -> None:
                clock.note(event.pop("workers", None))
                row["machine"] = event.pop("machine", row.get("machine"))
                clock.idle += event.get("idle", 0.0)
                log.append(event)
                self._on_event(seed, event)

            try:
                if task.stage:
                    trainable = cast(StageTrainable, self.trainable)
                    result = trainable.stage(task.stage, task.params, seed, out, on_event)
                else:
                    result = self.trainable(task.params, seed, out, on_event)
                    row |= self._passing(numbers(result["metrics"]), result)
                row["stages"] = list(result["stages"])
                row["precision"] = result.get("precision")
            except TrainingError as error:
                row |= {"state": error.state, "error": masked(str(error))}
            except Exception as error:
                if isinstance(error, OF_THE_PLACE) or storage_error(error) is not None:
                    raise
                row |= {"state": FAILED, "error": _error_text(error)}
        self._clock = None
        given = self.plan.stage_resources.get(task.stage, self.plan.resources)
        resources = given and given.over(clock.workers)
        return replace(SeedRun.of(row | {"seconds": clock.seconds}, out), resources=resources)

    def _passing(self, metrics: dict[str, float], result: Row) -> Row:
        """The row of a training that came to its end: finished, unless a metric is missing or a gate is closed."""
        objective = self.plan.objective
        closed = objective.gates.closed(metrics, result["n_clusters"]) if objective.gates else None
        if closed:
            return {"metrics": metrics, "state": COLLAPSED, "error": f"{closed} (gates of the objective)"}
        missing = [name for name in objective.needed if name not in metrics]
        if missing:
            return {"metrics": metrics, "state": FAILED, "error": f"the training gave no finite {missing[0]}"}
        return {"metrics": metrics}

    def _on_event(self, seed: int, event: Row) -> None:
        """An event of the training: score the trial by it where epochs count, else show it now and then."""
        if event.get("event") == "plan":  # it has its place, and begins
            self._live({})
        if event.get("event") == "stage" and event.get("cached"):
            self._live({"seed": seed, "stage": event["name"], "epoch": event["epochs"], "epochs": event["epochs"]})
        if event.get("event") != "epoch":
            return
        place = {"seed": seed, "stage": event["stage"], "epoch": event["epoch"], "epochs": event["epochs"]}
        metric = self.plan.objective.metric
        value = event.get(metric)
        if self.plan.fidelity == "epochs" and isinstance(value, float) and math.isfinite(value):
            values = [*(run.metrics[metric] for run in self._done), value]
            scores = self.plan.objective.scores({metric: values}, {})
            self._score_so_far(scores[0] if scores else None, self._passed(event["stage"], event["epoch"]), place)
        else:
            self._live(place)

    def _score_so_far(self, score: float | None, resource: int, place: Row | None = None) -> None:
        """Report the score so far. Raises Pruned if the pruner then wants no more of this trial."""
        row: Row = {"state": RUNNING, **(place or {})}
        if score is not None:
            row["running"] = score
        prunable = self._prunable and score is not None and resource > self._resource
        if prunable:
            self._resource = resource
            row["resource"] = resource
            if place is None:  # a seed has ended
                row["value"] = self._done[-1].metrics.get(self.plan.objective.metric)
        self._report(row)
        if prunable and self.plan.is_stopped(self.task.trial):
            raise Pruned

    def _live(self, place: Row) -> None:
        if time.monotonic() - self._sent >= LIVE_SECONDS:
            self._report({"state": RUNNING, **place})

    def _report(self, row: Row) -> None:
        self._sent = time.monotonic()
        seconds = sum(run.seconds for run in self._done) + (self._clock.seconds if self._clock else 0.0)
        self._send({**row, "seeds_done": len(self._done), "seconds": seconds})

    def _passed(self, stage: str | None = None, epoch: int = 0) -> int:
        """What fidelity counts: seeds that ended, or epochs over all seeds, whether trained or taken from the store."""
        if self.plan.fidelity != "epochs":
            return len(self._done)
        epochs = self.trainable.epochs(self.task.params)
        names = list(epochs)
        before = sum(epochs[name] for name in names[: names.index(stage)]) if stage in epochs and stage else 0
        return len(self._done) * sum(epochs.values()) + before + epoch

    def _score(self) -> float | None:
        """The objective over the seeds so far; None where there is none to compare."""
        group = groups.group_metrics(self._done)
        scores = self.plan.objective.scores(groups.seed_values(self._done), group)
        return scores[0] if scores else None

    def _write(self, state: str | None = None) -> Record:
        stopped = self._clock.seconds if self._clock else 0.0
        record = groups.make_record(self.plan.folder, self.task, self.plan.objective, state, stopped=stopped)
        if self.task.kind in ("search", "stage"):  # the driver writes the others: their seeds run in several processes
            files.write_record(self.plan.folder, record)
        return record


def _error_text(error: Exception) -> str:
    """One line for what the user can mend, the whole trace for what is a fault of ours."""
    if isinstance(error, RaymcError):
        return masked(str(error))
    return masked("".join(traceback.format_exception(error)).strip())
