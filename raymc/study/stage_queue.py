"""Stages that several tasks need, as tasks of their own: who needs one waits here for it, and not on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymc.errors import TrainingError
from raymc.study import files, groups
from raymc.study.objective import Objective
from raymc.study.records import FAILED, FINISHED, Record, SeedRun, Task
from raymc.study.seed_queue import LOST, Work
from raymc.study.stage_keys import Needed

Needs = Callable[[Task], list[list[Needed]]]


class StageQueue:
    """A `Work` that hands out the tasks of another, and before each the stages that it needs and that are not stored.

    A task that waits for a stage has been taken from the other queue and is not handed out yet; the others go on. A
    stage that is lost with its machine is done again like any task. One that fails is charged to no configuration:
    where all need it the search ends there, else each that needs it trains it by itself, and ends as that does.

    Args:
        folder: where the records of a stage go that a task needs.
        needs: the stages of a task, a row for each of its seeds, in their order.
        stored: whether the stage store has the result of a key.
        own: the stages with resources of their own: until such a one has its place nothing else is begun, or small
            trainings would take one GPU after the other from it.
        on_begin: called with a task of the other queue when it is handed out.

    Attributes:
        ahead: so many tasks of the other queue are taken and have not ended. A search takes as many as run at a time,
            so that its sampler is asked no earlier; where the order is free, more of them find one that can begin.
    """

    def __init__(
        self,
        work: Work,
        folder: Callable[[Task], Path],
        objective: Objective,
        needs: Needs,
        stored: Callable[[str], bool],
        own: frozenset[str] = frozenset(),
        on_begin: Callable[[Task], None] = lambda task: None,
    ) -> None:
        self.work, self.folder, self.objective = work, folder, objective
        self.needs, self.stored, self.own, self.on_begin = needs, stored, own, on_begin
        self.ahead = 1
        self._waiting: list[Task] = []
        self._begun = 0  # tasks of the other queue that run
        self._training: dict[int, Needed] = {}  # stages that run, by the numbers of their tasks
        self._placing: set[int] = set()  # of these the ones that may still wait for their place
        self._done: set[str] = set()

    def next(self) -> Task | None:
        if self._placing:
            return None
        for task in self._waiting:
            if (found := self._now(task)) is not None:
                return found
        while len(self._waiting) + self._begun < self.ahead:
            taken = self.work.next()
            if taken is None:
                break
            self._waiting.append(taken)
            if (found := self._now(taken)) is not None:
                return found
        return None

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        if task.stage:
            self._placing.discard(task.trial)
        else:
            self.work.on_report(task, row)

    def ended(self, task: Task, error: str | None = None) -> Record:
        if not task.stage:
            self._begun -= 1
            return self.work.ended(task, error)
        (seed,) = task.seeds
        needed = self._training.pop(task.trial)
        self._placing.discard(task.trial)
        self._done.add(needed.key)
        folder = self.folder(task)
        run = files.read_seed(folder, task, seed)
        if run is None:
            place = files.seed_folder(folder, task.kind, task.trial, seed)
            run = SeedRun.of({"seed": seed, "state": FAILED, "error": error or LOST}, place)
            files.write_seed(folder, task, run)
        record = groups.make_record(folder, task, self.objective)
        files.write_record(folder, record)
        if run.state != FINISHED and needed.common:
            why = str(run.error).strip().splitlines()[-1]
            raise TrainingError(f"stage {task.stage}, which all trials need, {run.state}: {why}")
        return record

    @property
    def left(self) -> int:
        return self.work.left + len(self._waiting)

    def _now(self, task: Task) -> Task | None:
        """What can begin of a task that waits: itself, or a stage that it needs and nobody trains."""
        running = {needed.key for needed in self._training.values()}
        missing = [needed for row in self.needs(task) if (needed := self._first(row, running)) is not None]
        if not missing:
            self._waiting.remove(task)
            self._begun += 1
            self.on_begin(task)
            return task
        free = next((needed for needed in missing if needed.key not in running), None)
        return None if free is None else self._stage(free, task)

    def _first(self, row: list[Needed], running: set[str]) -> Needed | None:
        """The first stage of a seed that is not there."""
        for needed in row:
            if needed.key in running or (needed.key not in self._done and not self.stored(needed.key)):
                return needed
            self._done.add(needed.key)
        return None

    def _stage(self, needed: Needed, task: Task) -> Task:
        names = (self.folder(task) / files.FOLDERS["stage"]).glob("[0-9]*")
        number = max([int(path.name) for path in names] + [*self._training, -1]) + 1
        self._training[number] = needed
        if needed.stage in self.own:
            self._placing.add(number)
        seeds = (needed.seed,)
        return Task("stage", number, needed.params, seeds, seeds, task.configuration, needed.stage)
