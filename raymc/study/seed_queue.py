"""What a queue of tasks is, and one of configurations on seeds of their own: confirmations and stability runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raymc.config import Value
from raymc.study import files, groups
from raymc.study.objective import Objective
from raymc.study.records import FINAL, Record, SeedRun, Task

LOST = "its process was lost"


class Work(Protocol):
    """Hands out tasks and takes their ends; the search, a confirmation, or the seeds of a stability run."""

    def next(self) -> Task | None:
        """The task to start now; None where one must end first, or all have been handed out."""

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        """A report of a running task."""

    def ended(self, task: Task, error: str | None = None) -> Record:
        """A task came to its end; `error` says why where its process was lost. Returns its group's record."""

    @property
    def left(self) -> int:
        """At most as many tasks are still to be handed out."""


class SeedQueue:
    """Configurations on seeds of their own, each seed a task: the confirmation, and stability runs.

    `busy()` are seeds that come last, since somebody else may be computing what they need.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        objective: Objective,
        configurations: Mapping[int, Mapping[str, Value]],
        seeds: Sequence[int],
        busy: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self.folder, self.objective, self._busy = folder, objective, busy
        group = tuple(seeds)
        # Seed by seed, so that the configurations have about as many seeds each at any moment.
        pairs = [(seed, trial) for seed in seeds for trial in configurations]
        tasks = [Task(kind, trial, configurations[trial], (seed,), group) for seed, trial in pairs]
        self._queue = deque(task for task in tasks if files.read_seed(folder, task, task.seeds[0]) is None)
        waiting = {task.trial for task in self._queue}
        for task in tasks[: len(configurations)]:
            before = files.read_record(folder, kind, task.trial)
            if before and before.state in FINAL and before.group == group and task.trial not in waiting:
                continue
            self._record(task)

    def next(self) -> Task | None:
        if not self._queue:
            return None
        busy = self._busy()
        task = next((task for task in self._queue if task.seeds[0] not in busy), self._queue[0])
        self._queue.remove(task)
        return task

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        pass

    def ended(self, task: Task, error: str | None = None) -> Record:
        (seed,) = task.seeds
        if files.read_seed(self.folder, task, seed) is None:
            place = files.seed_folder(self.folder, task.kind, task.trial, seed)
            files.write_seed(self.folder, task, SeedRun.of({"seed": seed, "error": error or LOST}, place))
        return self._record(task)

    @property
    def left(self) -> int:
        return len(self._queue)

    def _record(self, task: Task) -> Record:
        record = groups.make_record(self.folder, task, self.objective)
        files.write_record(self.folder, record)
        return record
