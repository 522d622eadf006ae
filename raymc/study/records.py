"""What a study knows of its trials and their seeds: frozen records, each with the row of JSON that it is kept as.

Unknown keys are ignored and absent ones get a neutral value, so that studies of older and newer versions can be read.
Numbers that are not finite are treated as absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raymc.config import Value

RUNNING = "running"
FINISHED = "finished"
PRUNED = "pruned"
COLLAPSED = "collapsed"
FAILED = "failed"
OUT_OF_MEMORY = "out_of_memory"
BAD = ("diverged", COLLAPSED, OUT_OF_MEMORY, FAILED)
ENDED = (FINISHED, *BAD)
"""How the training of a seed ends."""
FINAL = (FINISHED, PRUNED, *BAD)
"""How a trial ends."""

BEGUN = "begun"
"""What a task reports, and never records, when its process has come so far that what goes wrong is the training's."""

REFUSED = "refused"
"""What a task reports, and never records, that has stopped because the study's files cannot be written."""

PLACED = "placed"
"""What a task reports, and never records, whose process has begun, on a machine that is known by it."""

UNFIT = "unfit"
"""What a task reports, and never records, whose machine cannot train: another machine takes the task up."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Work that one trial of Ray Tune does: a configuration over `seeds`, one after the other.

    `group` are all seeds of the configuration's record: a task of the search runs the whole group, one of the
    confirmation or of a stability run a single seed of it. `configuration` names it where a run has several.

    With a `stage` the task is to train that one, and those before it, for the tasks that need it.
    """

    kind: str
    trial: int
    params: Mapping[str, Value]
    seeds: tuple[int, ...]
    group: tuple[int, ...]
    configuration: str = ""
    stage: str = ""

    @property
    def name(self) -> str:
        """Short words for tables and lines: `trial 7`, `confirm 7 seed 1000`, `stage pretrain 0`, `mlc seed 3`."""
        if self.stage:
            return f"{self.configuration} stage {self.stage} {self.trial}".lstrip()
        if self.kind == "search":
            return f"trial {self.trial}"
        head = {"stability": self.configuration, "default": "default"}.get(self.kind, f"{self.kind} {self.trial}")
        return f"{head} seed {self.seeds[0]}".lstrip()


def task_row(task: Task) -> Row:
    """The task as plain JSON types, as a trial of Tune carries it."""
    return {**vars(task), "params": dict(task.params), "seeds": list(task.seeds), "group": list(task.group)}


def task_of(row: Mapping[str, Any]) -> Task:
    """The inverse of `task_row`."""
    lists = {key: tuple(row[key]) for key in ("seeds", "group")}
    return Task(**{**row, **lists, "params": dict(row["params"])})


@dataclass(frozen=True)
class Resources:
    """What a training had: `workers` (where their number changed, the mean over its time), each with so much."""

    workers: float = 1.0
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0

    @classmethod
    def of(cls, content: object) -> Resources:
        found = numbers(content)
        return cls(**{name: found[name] for name in ("workers", "cpus_per_worker", "gpus_per_worker") if name in found})

    def over(self, workers: float | None) -> Resources:
        """The same for each of so many workers; None: of as many."""
        return self if workers is None else replace(self, workers=workers)

    @property
    def cores(self) -> float:
        return self.workers * self.cpus_per_worker

    @property
    def gpus(self) -> float:
        return self.workers * self.gpus_per_worker


@dataclass(frozen=True)
class StageRun:
    """One stage of one seed: computed (`cached` false) or taken from the store.

    `waited` of its `seconds` went by while another process computed it. `checkpoint` names the float16 checkpoint that
    its weights go back to, if there is one.
    """

    name: str
    epochs: int
    cached: bool
    seconds: float
    key: str
    checkpoint: str = ""
    waited: float = 0.0

    @classmethod
    def of(cls, content: object) -> StageRun:
        row = mapping(content)
        return cls(
            name=str(row.get("name") or "stage"),
            epochs=int(number(row.get("epochs")) or 0),
            cached=bool(row.get("cached")),
            seconds=number(row.get("seconds")) or 0.0,
            key=str(row.get("key") or ""),
            checkpoint=str(row.get("checkpoint") or ""),
            waited=number(row.get("waited")) or 0.0,
        )

    @property
    def trained(self) -> float:
        """Its seconds without those of waiting."""
        return self.seconds - self.waited

    @property
    def row(self) -> Row:
        return {name: value for name, value in vars(self).items() if name != "checkpoint" or value}


@dataclass(frozen=True)
class SeedRun:
    """One training of a configuration that has ended; `folder` holds its curve, labels and gallery.

    `seconds` are those of the training, from its beginning to its end, without the start of its process. `resources`
    are None, and `precision` and `machine` empty, in records of before they were noted.
    """

    seed: int
    state: str
    metrics: Mapping[str, float]
    stages: tuple[StageRun, ...]
    seconds: float
    folder: Path
    error: str | None = None
    resources: Resources | None = None
    precision: str = ""
    machine: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: Path) -> SeedRun:
        """Of a row of JSON with a `seed`; `folder` is the seed's own."""
        return cls(
            seed=int(content["seed"]),
            state=str(content.get("state") or FAILED),
            metrics=numbers(content.get("metrics")),
            stages=tuple(StageRun.of(stage) for stage in content.get("stages") or ()),
            seconds=number(content.get("seconds")) or 0.0,
            folder=folder,
            error=str(content["error"]) if content.get("error") else None,
            resources=Resources.of(content["resources"]) if content.get("resources") else None,
            precision=str(content.get("precision") or ""),
            machine=str(content.get("machine") or ""),
        )

    @property
    def row(self) -> Row:
        """The content of `result.json`."""
        had = {} if self.resources is None else {"resources": vars(self.resources)}
        return {
            "seed": self.seed,
            "state": self.state,
            "metrics": dict(self.metrics),
            "stages": [stage.row for stage in self.stages],
            "error": self.error,
            "seconds": self.seconds,
            **had,
            **{name: value for name in ("precision", "machine") if (value := getattr(self, name))},
        }

    @property
    def waited(self) -> float:
        """Of its seconds, those in which it waited for a stage that another process computed."""
        return sum(stage.waited for stage in self.stages)


@dataclass(frozen=True)
class Record:
    """A configuration over its group of seeds, from the search, the confirmation or a stability run (`kind`).

    `seeds` are those of the `group` that have ended. `scores` has one number for each metric of the objective, `score`
    is the first. `seconds` are the sum of the seeds', and those of a training that was stopped with its trial.
    """

    trial: int
    kind: str
    state: str
    params: Mapping[str, Any]
    score: float | None
    metrics: Mapping[str, float]
    seeds: tuple[SeedRun, ...]
    started: str
    seconds: float
    error: str | None
    run_id: str | None
    scores: tuple[float, ...] = ()
    group: tuple[int, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: Path, kind: str) -> Record:
        """Of a row of JSON with a `trial`, whose seeds left their files in `folder`."""
        rows = [row for row in map(mapping, content.get("per_seed") or ()) if number(row.get("seed")) is not None]
        seeds = tuple(SeedRun.of(row, folder / f"seed-{int(row['seed'])}") for row in rows)
        return cls(
            trial=int(content["trial"]),
            kind=kind,
            state=str(content.get("state") or FAILED),
            params=mapping(content.get("params")),
            score=number(content.get("score")),
            metrics=numbers(content.get("metrics")),
            seeds=seeds,
            started=str(content.get("started") or ""),
            seconds=number(content.get("seconds")) or 0.0,
            error=str(content["error"]) if content.get("error") else None,
            run_id=str(content["run_id"]) if content.get("run_id") else None,
            scores=tuple(value for one in content.get("scores") or () if (value := number(one)) is not None),
            group=tuple(int(seed) for seed in content.get("seeds") or ()),
        )

    @property
    def row(self) -> Row:
        """The content of `record.json`."""
        own = {name: value for name, value in vars(self).items() if name != "group"}
        return own | {
            "params": dict(self.params),
            "metrics": dict(self.metrics),
            "scores": list(self.scores) or None,
            "per_seed": [run.row for run in self.seeds],
            "seeds": list(self.group),
        }

    @property
    def finished(self) -> tuple[SeedRun, ...]:
        """The seeds that came to a good end."""
        return tuple(run for run in self.seeds if run.state == FINISHED)

    def values(self, metric: str) -> dict[int, float]:
        """`{seed: value}` of the seeds that finished and have the metric."""
        return {run.seed: run.metrics[metric] for run in self.finished if metric in run.metrics}

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that weights of its seeds go back to."""
        found = (stage.checkpoint for run in self.seeds for stage in run.stages)
        return [name for name in dict.fromkeys(found) if name]


def number(value: object) -> float | None:
    """`value` as a finite float, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(content: object) -> dict[str, float]:
    """The finite numbers of a mapping; empty where it is none."""
    pairs = ((str(key), number(value)) for key, value in mapping(content).items())
    return {key: value for key, value in pairs if value is not None}


def mapping(content: object) -> Mapping[str, Any]:
    """`content`, or an empty one where it is no mapping."""
    return content if isinstance(content, Mapping) else {}
