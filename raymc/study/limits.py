"""What ends a search before its last trial: hours, GPU-hours, and trials in a row that improve nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymc.errors import InputError
from raymc.space.space import Space
from raymc.study.records import Record, Resources, number

HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """No trial begins beyond one of these; None: there is no such limit. Running trials come to their end.

    Attributes:
        hours: of wall clock, over all sessions of the study.
        gpu_hours: that trials of the search held, a fraction of a GPU as that fraction.
        patience: finished trials in a row without a better score.
        patience_from: trials with a score that there were when more were asked for; patience counts from there on.
    """

    hours: float | None = None
    gpu_hours: float | None = None
    patience: int | None = None
    patience_from: int = 0

    @classmethod
    def of(cls, budget: Mapping[str, Any]) -> Limits:
        """Those of a manifest's `budget`."""
        patience = number(budget.get("patience"))
        found = (number(budget.get("hours")), number(budget.get("gpu_hours")))
        begun = int(number(budget.get("patience_from")) or 0)
        return cls(*found, None if patience is None else int(patience), begun)

    def reached(self, seconds: float, gpu_seconds: float, scores: Sequence[float], mode: str) -> str:
        """Why no more trials begin, in words; empty where they do. `scores` of one metric, in the trials' order."""
        if self.hours is not None and seconds >= self.hours * HOUR:
            return f"the {self.hours:g} hours were over"
        if self.gpu_hours is not None and gpu_seconds >= self.gpu_hours * HOUR:
            return f"the {self.gpu_hours:g} GPU-hours were used"
        since = min(without_gain(scores, mode), len(scores) - self.patience_from)
        if self.patience is not None and since >= self.patience:
            return f"{self.patience} trials in a row improved nothing"
        return ""


def plan_limits(space: Space, hours: float | None, gpu_hours: float | None) -> Limits:
    """The space's limits, with what the command line says instead. Raises InputError."""
    for option, value in (("--hours", hours), ("--gpu-hours", gpu_hours)):
        if value is not None and not value > 0:
            raise InputError(f"{option} {value:g}: more than 0 is needed")
    budget = space.budget
    limits = Limits(hours or budget.hours, gpu_hours or budget.gpu_hours, budget.patience)
    if limits.gpu_hours is not None and not space.resources.gpus_per_worker:
        raise InputError("--gpu-hours: a training of this space takes no GPU (resources.gpus_per_worker is 0)")
    if limits.patience is not None and space.objective.second:
        raise InputError("budget.patience: the objective has two metrics, and a front has no best score")
    return limits


def without_gain(scores: Sequence[float], mode: str) -> int:
    """How many scores have come since the best one."""
    if not scores:
        return 0
    best = max(scores) if mode == "max" else min(scores)
    return len(scores) - 1 - list(scores).index(best)


def gpu_seconds(records: Iterable[Record], asked: Resources) -> float:
    """What trials held: each training by what it had, one that was stopped in the middle by what was `asked`."""
    total = 0.0
    for record in records:
        ended = [((run.resources or asked).gpus, run.seconds) for run in record.seeds]
        total += sum(gpus * seconds for gpus, seconds in ended)
        total += asked.gpus * max(0.0, record.seconds - sum(seconds for _, seconds in ended))
    return total


def gpu_seconds_by_now(
    records: Iterable[Record], running: Mapping[int, float], before: Mapping[int, float], asked: Resources
) -> float:
    """The same by now, with trials that run: `running` has their seconds in this session.

    `before` are the GPU-seconds of trials that sessions before began and did not end.
    """
    ended = gpu_seconds((record for record in records if record.trial not in running), asked)
    return ended + sum(asked.gpus * seconds + before.get(trial, 0.0) for trial, seconds in running.items())
