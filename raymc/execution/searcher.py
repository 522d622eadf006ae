"""The search as Ray Tune sees it: a searcher that hands out tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raymc.errors import InputError, RaymcError, StorageError, TrainingError
from raymc.execution.live import Board
from raymc.execution.ray_internals import end_idle_processes
from raymc.masking import masked
from raymc.study.folder import LOCK, check_there
from raymc.study.records import BEGUN, REFUSED, Row, Task, task_of, task_row
from raymc.study.seed_queue import Work

OF_THE_MACHINE = f"{InputError.__module__}.{InputError.__name__}: "
"""How a trial's error ends where its machine lacks something; what goes wrong in a training itself is recorded."""
NOT_STARTED = "the trials' processes do not start: "
IMPORTS = ("ImportError", "ModuleNotFoundError")
ERROR = re.compile(r"[\w.]+(Error|Exception): ")
"""A line of a trace that names an error; Ray ends it with words of its own."""
FULL = re.compile(r"due to the node running low on memory.* was (\S+ used / \S+) limit")


class TaskSearcher(Searcher):
    """Hands the tasks of a `Work` to Ray Tune; Optuna is asked and told by the `Work` itself.

    Ray's own `OptunaSearch` tells a stopped trial as complete, leaves a trial without a finite metric running for
    ever, draws from one stream of random numbers that a resume restarts, and knows no trial that goes on under its
    old number.

    Args:
        folders: where the tasks of each configuration leave their results; one that is removed ends the search.

    Attributes:
        unable: why the search cannot go on, where it ended for that.
    """

    unable: RaymcError | None = None

    def __init__(self, work: Work, board: Board, folders: Mapping[str, Path]) -> None:
        super().__init__(metric="score", mode="max")
        self.work, self.board, self.folders = work, board, folders
        self._tasks: dict[str, Task] = {}
        self._reasons: dict[str, str] = {}
        self._begun: set[str] = set()
        self._locked: set[Path] = set()

    def suggest(self, trial_id: str) -> Any:
        if self.unable is not None:
            self._tasks.clear()  # they stay as they are: the next session takes them up
            raise self.unable
        task = self.work.next()
        if task is None:
            return None if self._tasks or self.work.left else Searcher.FINISHED
        self._tasks[trial_id] = task
        self._attend(self.folders[task.configuration])
        self.board.started(task)
        return {"task": task_row(task)}

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if result.get("state") == REFUSED:
            self._tasks.clear()  # they stay as they are: the next session takes them up
            raise StorageError(result["error"])
        if result.get("state") == BEGUN:
            self._begun.add(trial_id)
        elif (task := self._tasks.get(trial_id)) is not None:
            self._attend(self.folders[task.configuration])
            self.work.on_report(task, result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        if error and trial_id in self._tasks and trial_id not in self._begun:
            self.end(f"{NOT_STARTED}{self._reasons.get(trial_id, 'lost')}")
        task = self._tasks.pop(trial_id, None)
        if task is not None:
            why = f"its process failed again and again: {self._reasons.get(trial_id, 'lost')}" if error else None
            try:
                self.board.ended(task, self.work.ended(task, why))
            except TrainingError as error:  # Tune would log one that is raised here, and go on
                self.unable = error

    def _attend(self, folder: Path) -> None:
        """Raises StorageLostError where a folder of ours is gone; a trial's process may have begun it anew by then."""
        if (folder / LOCK).exists():
            self._locked.add(folder)
        elif folder in self._locked:
            self._tasks.clear()
            check_there(folder)

    def recovered(self, trial_id: str, reason: str) -> None:
        """A task's process failed, and another one takes the task up."""
        if trial_id not in self._begun and reason.startswith(IMPORTS):
            self.end(f"{NOT_STARTED}{reason}")
        self._reasons[trial_id] = reason
        self._begun.discard(trial_id)
        self.board.say(f"{self._tasks[trial_id].name} goes on in another process: {reason}")

    @property
    def stages(self) -> bool:
        """Whether a stage that several trials need is being trained, or waits for its place."""
        return any(task.stage for task in self._tasks.values())

    def end(self, why: str) -> NoReturn:
        """End the search for what no other trial would escape: none is charged, and the next session takes them up."""
        self._tasks.clear()
        self.unable = InputError(why)
        raise self.unable

    # Nothing of a search lives in Tune's snapshots: a resume reads the study and the records.
    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")

    def __getstate__(self) -> Row:
        return {}

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its study, not from Tune's snapshots")


class Scheduler(FIFOScheduler):
    """Begins trials as they come, and keeps no idle process from a stage that is to be trained before them.

    Of processes that have ended their trial Tune keeps one for the next, with what it holds. The workers of a stage may
    need just that, and no trial is begun before the stage is there.
    """

    def __init__(self, search: TaskSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.search = search

    def __getstate__(self) -> Row:  # for Tune's snapshot, which nobody reads
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if self.search.stages:
            end_idle_processes(tune_controller)
        return super().choose_trial_to_run(tune_controller)


class Watch(Callback):
    """Passes on what Tune tells callbacks only."""

    def __init__(self, search: TaskSearcher) -> None:
        self.search = search

    def __getstate__(self) -> Row:  # for Tune's snapshot, which nobody reads
        return {}

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any) -> None:
        self.search.board.on_report(task_of(trial.config["task"]), result)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # As Tune wrote it here; where `get_error` looks, it is copied later.
        text = masked(Path(trial.error_file).read_text().strip()) if trial.error_file else ""
        last = text.splitlines()[-1].strip() if text else ""
        if last.startswith(OF_THE_MACHINE):  # and not of the trial: the next ones would end there as well
            self.search.end(last.removeprefix(OF_THE_MACHINE))
        self.search.recovered(trial.trial_id, reason_of(text))


def reason_of(text: str) -> str:
    """Why a process failed, in one line, of what Ray wrote on it: its last error, or that memory was full."""
    if full := FULL.search(text):
        return f"the memory of its machine is full ({full[1]}), and Ray ended it"
    lines = text.splitlines() or ["lost"]
    return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1].strip())
