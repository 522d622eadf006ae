"""The search as Ray Tune sees it: a searcher that hands out tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raymc.errors import InputError, RaymcError, StorageError, TrainingError
from raymc.execution.live import Board
from raymc.execution.ray_internals import end_idle_processes
from raymc.masking import masked
from raymc.study.folder import LOCK, check_there
from raymc.study.records import REFUSED, Row, Task, task_of, task_row
from raymc.study.seed_queue import Work

OF_THE_MACHINE = f"{InputError.__module__}.{InputError.__name__}: "
"""How a trial's error ends where its machine lacks something; what goes wrong in a training itself is recorded."""


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
        if (task := self._tasks.get(trial_id)) is not None:
            self._attend(self.folders[task.configuration])
            self.work.on_report(task, result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
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
        self._reasons[trial_id] = reason
        self.board.say(f"{self._tasks[trial_id].name} goes on in another process: {reason}")

    @property
    def stages(self) -> bool:
        """Whether a stage that several trials need is being trained, or waits for its place."""
        return any(task.stage for task in self._tasks.values())

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
        lines = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
        last = masked(lines[-1].strip()) if lines else "lost"
        if last.startswith(OF_THE_MACHINE):  # and not of the trial: the next ones would end there as well
            self.search.unable = InputError(last.removeprefix(OF_THE_MACHINE))
            raise self.search.unable
        self.search.recovered(trial.trial_id, last)
