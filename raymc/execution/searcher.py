"""The search as Ray Tune sees it: a searcher that hands out tasks."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

from ray import cloudpickle
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from raymc.errors import MachineError, StorageError
from raymc.execution.failures import Failures, alive_nodes
from raymc.execution.live import Board
from raymc.execution.nodes import others_than
from raymc.masking import masked
from raymc.study.records import REFUSED, UNFIT, Row, Task, task_of, task_row
from raymc.study.seed_queue import Work


class TaskSearcher(Searcher):
    """Hands the tasks of a `Work` to Ray Tune; Optuna is asked and told by the `Work` itself.

    Ray's own `OptunaSearch` tells a stopped trial as complete, leaves a trial without a finite metric running for
    ever, draws from one stream of random numbers that a resume restarts, and knows no trial that goes on under its
    old number.

    A task whose machine cannot train is handed out again, and that machine gets no more tasks. One whose process failed
    is handed out again as well, as long as `Failures` allow it.

    Args:
        can_hold: whether machines with these resources can hold a training.
        patience: the seconds that the search waits for a machine that can train, where none is left.

    Attributes:
        unfit: by Ray's id of each machine that cannot train, its address and why.
    """

    def __init__(
        self, work: Work, board: Board, can_hold: Callable[[list[dict[str, float]]], bool], patience: float
    ) -> None:
        super().__init__(metric="score", mode="max")
        self.work, self.board, self.can_hold, self.patience = work, board, can_hold, patience
        self.unfit: dict[str, str] = {}
        self._tasks: dict[str, Task] = {}
        self._again: deque[Task] = deque()
        self._rows: dict[str, Row] = {}
        self._failures: defaultdict[str, Failures] = defaultdict(Failures)
        self._able = self._looked = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        task = self._again.popleft() if self._again else self.work.next()
        if task is None:
            return None if self._tasks or self.work.left else Searcher.FINISHED
        self._tasks[trial_id] = task
        self.board.started(task)
        return {"task": task_row(task), "nodes": others_than(self.unfit)}

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if result.get("state") == REFUSED:
            self._tasks.clear()  # they stay as they are: the next session takes them up
            raise StorageError(result["error"])
        self._rows[trial_id] = result
        if trial_id in self._tasks:
            self.work.on_report(self._tasks[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        if error or trial_id not in self._tasks:  # of an error `failed` knows more
            return
        task, row = self._tasks.pop(trial_id), self._rows.pop(trial_id, {})
        if row.get("state") == UNFIT:
            self._keep_out(task, row)
        else:
            self.board.ended(task, self.work.ended(task))

    def failed(self, trial_id: str, error: Exception | None) -> None:
        """A task's process failed: another one takes the task up, unless that happened too often."""
        task, row = self._tasks.pop(trial_id, None), self._rows.pop(trial_id, {})
        if task is None:
            return
        lines = str(error).strip().splitlines() if error else []
        why = shorten(masked(lines[-1]), 160, placeholder=" …") if lines else "lost"
        failures = self._failures[f"{task.configuration} {task.name}"]
        if not (isinstance(error, RayActorError) and error.preempted):
            failures.add({row["node"]} if "node" in row else (), vague=isinstance(error, ActorUnavailableError))
        if failures.too_many(alive_nodes()):
            self.board.ended(task, self.work.ended(task, f"its process failed again and again: {why}"))
        else:
            self.board.say(f"{task.name} goes on in another process: {why}")
            self._again.append(task)

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
        if not self.unfit or self.can_hold(left):
            self._able = now
        elif now - self._able >= self.patience:
            raise MachineError(f"no machine is left that can train: {'; '.join(dict.fromkeys(self.unfit.values()))}")

    # Nothing of a search lives in Tune's snapshots: a resume reads the study and the records.
    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")

    def __getstate__(self) -> Row:
        return {}

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its study, not from Tune's snapshots")


class Watch(Callback):
    """Passes on what Tune tells callbacks only."""

    def __init__(self, search: TaskSearcher) -> None:
        self.search = search

    def __getstate__(self) -> Row:  # for Tune's snapshot, which nobody reads
        return {}

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any) -> None:
        self.search.board.on_report(task_of(trial.config["task"]), result)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.search.failed(trial.trial_id, _error_of(trial))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.search.check_machines()


def _error_of(trial: Trial) -> Exception | None:
    """As Tune wrote it here; where `get_pickled_error` reads, it is copied later. None where it cannot be read."""
    if trial.pickled_error_file is None:
        return None
    with suppress(Exception):  # one of a library that this machine does not have
        error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    return None
