"""The search as Ray Tune sees it: a searcher that hands out tasks."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Any, NoReturn

from ray import cloudpickle
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raymc.errors import InputError, MachineError, RaymcError, StorageError, StorageLostError, TrainingError
from raymc.execution.failures import Failures, alive_nodes, dead_nodes, full_machine, reason_of
from raymc.execution.live import Board
from raymc.execution.nodes import others_than
from raymc.execution.ray_internals import end_idle_processes
from raymc.masking import masked
from raymc.study.folder import LOCK, check_there
from raymc.study.records import BEGUN, PLACED, REFUSED, UNFIT, Row, Task, task_of, task_row
from raymc.study.seed_queue import Work

OF_ALL = f"{InputError.__module__}.{InputError.__name__}: "
"""How a process's error begins that no other process would escape; what goes wrong in a training itself is recorded."""
NOT_STARTED = "the trials' processes do not start: "
FULL_SECONDS = 5.0
"""After a process was ended for want of memory the next one waits so long, doubled each time that the task met that."""


class TaskSearcher(Searcher):
    """Hands the tasks of a `Work` to Ray Tune; Optuna is asked and told by the `Work` itself.

    Ray's own `OptunaSearch` tells a stopped trial as complete, leaves a trial without a finite metric running for
    ever, draws from one stream of random numbers that a resume restarts, and knows no trial that goes on under its
    old number.

    A task whose machine cannot train is handed out again, and that machine gets no more tasks. One whose process failed
    is handed out again as well, as long as `Failures` allow it. That is so of trials and of stages alike.

    Args:
        folders: where the tasks of each configuration leave their results; one that is removed ends the search.
        can_hold: whether machines with these resources can hold a training of that stage (empty: of all stages).
        patience: the seconds that the search waits for a machine that can train, where none is left.

    Attributes:
        unable: why the search cannot go on, where it ended for that.
        unfit: by Ray's id of each machine that cannot train, its address and why.
    """

    unable: RaymcError | None = None

    def __init__(
        self,
        work: Work,
        board: Board,
        folders: Mapping[str, Path],
        can_hold: Callable[[list[dict[str, float]], str], bool],
        patience: float,
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.work, self.board, self.folders = work, board, folders
        self.can_hold, self.patience = can_hold, patience
        self.unfit: dict[str, str] = {}
        self._tasks: dict[str, Task] = {}
        self._again: deque[Task] = deque()
        self._rows: dict[str, Row] = {}
        self._gone: dict[str, set[str]] = {}  # the machines that were lost before the task was handed out
        self._failures: defaultdict[str, Failures] = defaultdict(Failures)
        self._locked: set[Path] = set()
        self._able = self._looked = time.monotonic()
        self._not_before = 0.0

    def suggest(self, trial_id: str) -> Any:
        if self.unable is not None:
            self._tasks.clear()  # they stay as they are: the next session takes them up
            raise self.unable
        if time.monotonic() < self._not_before:
            return None
        task = self._again.popleft() if self._again else self.work.next()
        if task is None:
            return None if self._tasks or self.work.left else Searcher.FINISHED
        self._tasks[trial_id], self._gone[trial_id] = task, dead_nodes()
        self._attend(self.folders[task.configuration])
        self.board.started(task)
        return {"task": task_row(task), "nodes": others_than(self.unfit)}

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if result.get("state") == REFUSED:
            self._tasks.clear()  # they stay as they are: the next session takes them up
            raise (StorageLostError if result.get("lost") else StorageError)(result["error"])
        if (task := self._tasks.get(trial_id)) is not None:
            self._rows[trial_id] = result
            self._attend(self.folders[task.configuration])
            if result.get("state") not in (PLACED, BEGUN, UNFIT):  # they say nothing of a training
                self.work.on_report(task, result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        if error or trial_id not in self._tasks:  # of an error `failed` knows more
            return
        task, row = self._tasks.pop(trial_id), self._rows.pop(trial_id, {})
        self._gone.pop(trial_id)
        if row.get("state") == UNFIT:
            self._keep_out(task, row)
        else:
            self._end(task)

    def failed(self, trial_id: str, error: Exception | None, text: str) -> None:
        """A task's process failed, as Ray says in `text`: another one takes it up, unless that happened too often.

        Then the task has failed. Where its process does not even begin with it, the search ends; but a machine whose
        memory is full is kept out.
        """
        task, row = self._tasks.pop(trial_id, None), self._rows.pop(trial_id, {})
        gone = dead_nodes() - self._gone.pop(trial_id, set())
        if task is None:
            return
        reason, full = reason_of(text), full_machine(text)
        if reason.startswith(OF_ALL):
            self.end(reason.removeprefix(OF_ALL))
        why = shorten(reason, 160, placeholder=" …")
        failures = self._failures[f"{task.configuration} {task.name}"]
        if not (isinstance(error, RayActorError) and error.preempted):
            # A process that never began says no machine: it is that of one that was lost meanwhile, if one was.
            failures.add({row["node"]} if "node" in row else gone, vague=isinstance(error, ActorUnavailableError))
        if full is not None:
            self._not_before = time.monotonic() + FULL_SECONDS * 2 ** min(failures.count - 1, 4)
        if failures.too_many(alive_nodes()):
            if row.get("state", PLACED) == PLACED:
                if full is not None:
                    return self._keep_out(task, {**full, "error": why})
                self.end(f"{NOT_STARTED}{why}")
            self._end(task, f"its process failed again and again: {why}")
        else:
            self.board.say(f"{task.name} goes on in another process: {why}")
            self._again.append(task)

    def _end(self, task: Task, why: str | None = None) -> None:
        try:
            record = self.work.ended(task, why)
            self.board.ended(task, record, self.work.left)
        except TrainingError as error:  # Tune would log one that is raised here, and go on
            self.unable = error

    def _keep_out(self, task: Task, row: Row) -> None:
        node, machine = row["node"], row["machine"]
        self._again.appendleft(task)
        if node not in self.unfit:
            self.unfit[node] = f"{machine}: {row['error']}"
            self.board.say(
                f"machine {machine} (node {node[:8]}) gets no more trials: {row['error']}; {task.name} goes to another"
            )

    def check_machines(self) -> None:
        """Raises MachineError where none is left that can train, and has not been for a while."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return
        self._looked = now
        left = [] if not self.unfit else [of for node, of in alive_nodes().items() if node not in self.unfit]
        stages = {task.stage for task in self._open()} or {""}
        if not self.unfit or any(self.can_hold(left, stage) for stage in stages):
            self._able = now
        elif now - self._able >= self.patience:
            raise MachineError(f"no machine is left that can train: {'; '.join(dict.fromkeys(self.unfit.values()))}")

    def _attend(self, folder: Path) -> None:
        """Raises StorageLostError where a folder of ours is gone; a trial's process may have begun it anew by then."""
        if (folder / LOCK).exists():
            self._locked.add(folder)
        elif folder in self._locked:
            self._tasks.clear()
            check_there(folder)

    def _open(self) -> list[Task]:
        return [*self._tasks.values(), *self._again]

    @property
    def stages(self) -> bool:
        """Whether a stage that several trials need is being trained, or waits for its place."""
        return any(task.stage for task in self._open())

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

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # As Tune wrote it here; where `get_error` looks, it is copied later.
        text = masked(Path(trial.error_file).read_text().strip()) if trial.error_file else ""
        self.search.failed(trial.trial_id, _error_of(trial), text)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.search.check_machines()


def _error_of(trial: Trial) -> Exception | None:
    """As Tune wrote it here, too; None where it cannot be read."""
    if trial.pickled_error_file is None:
        return None
    with suppress(Exception):  # one of a library that this machine does not have
        error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    return None
