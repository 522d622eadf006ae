"""The search as Ray Tune sees it: a searcher that hands out units, ASHA whose verdict a trial carries out itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from raymc.atomic import write_json
from raymc.errors import InputError, StorageError
from raymc.execution.live import Board
from raymc.execution.trial import stop_mark
from raymc.masking import masked
from raymc.study.queue import Work
from raymc.study.records import REFUSED, RUNNING, Row, Unit, unit_of, unit_row

OF_THE_MACHINE = f"{InputError.__module__}.{InputError.__name__}: "
"""How a trial's error ends where its machine lacks something; what goes wrong in a training itself is recorded."""


class UnitSearch(Searcher):
    """Hands the units of a `Work` to Ray Tune; Optuna is asked and told by the `Work` itself.

    Ray's own `OptunaSearch` tells a stopped trial as complete, leaves a trial without a finite metric running for
    ever, draws from one stream of random numbers that a resume restarts, and knows no trial that goes on under its
    old number.

    Attributes:
        unable: why the search cannot go on, where it ended for that.
    """

    unable: InputError | None = None

    def __init__(self, work: Work, board: Board) -> None:
        super().__init__(metric="score", mode="max")
        self.work, self.board = work, board
        self._units: dict[str, Unit] = {}
        self._reasons: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        unit = self.work.next()
        if unit is None:
            return None if self._units or self.work.left else Searcher.FINISHED
        self._units[trial_id] = unit
        self.board.started(unit)
        return {"unit": unit_row(unit)}

    def on_trial_result(self, trial_id: str, result: Row) -> None:
        if result.get("state") == REFUSED:
            self._units.clear()  # they stay as they are: the next sitting takes them up
            raise StorageError(result["error"])
        if trial_id in self._units:
            self.work.heard(self._units[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Row | None = None, error: bool = False) -> None:
        unit = self._units.pop(trial_id, None)
        if unit is not None:
            why = f"its process failed again and again: {self._reasons.get(trial_id, 'lost')}" if error else None
            self.board.ended(unit, self.work.ended(unit, why))

    def recovered(self, trial_id: str, reason: str) -> None:
        """A unit's process failed, and another one takes the unit up."""
        self._reasons[trial_id] = reason
        self.board.say(f"{self._units[trial_id].name} goes on in another process: {reason}")

    # Nothing of a search lives in Tune's snapshots: a resume reads the study and the records.
    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(b"")

    def __getstate__(self) -> Row:
        return {}

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its study, not from Tune's snapshots")


class Halving(ASHAScheduler):
    """Asynchronous successive halving over the resource that a trial reports.

    A trial that Tune stops stays blocked in its report, with its leases and files, until its process is needed
    again. So the verdict is left as a mark in the trial's folder; the trial sees it on return from the report and
    ends itself.

    Args:
        first: resource at which a trial is compared first; then at every multiple by `factor`, up to `longest`.
    """

    def __init__(self, folder: Path, mode: str, first: int, longest: int, factor: int) -> None:
        super().__init__(
            time_attr="resource",
            metric="running",
            mode=mode,
            grace_period=first,
            max_t=longest,
            reduction_factor=factor,
            stop_last_trials=False,
        )
        self.folder = folder

    def replay(self, history: Iterable[tuple[int, Mapping[int, float]]]) -> None:
        """Set the bar by what trials of earlier sittings had reported: `{resource: running mean}` by trial."""
        nobody: Any = None  # Tune's controller, which neither call looks at
        for number, values in history:
            before: Any = SimpleNamespace(trial_id=f"before-{number}")
            self.on_trial_add(nobody, before)
            for resource, value in sorted(values.items()):
                super().on_trial_result(nobody, before, {"resource": resource, "running": value})

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Row) -> str:
        verdict = super().on_trial_result(tune_controller, trial, result)
        if verdict == TrialScheduler.STOP and result["state"] == RUNNING:
            mark = {"resource": result["resource"], "running": result["running"]}
            write_json(stop_mark(self.folder, trial.config["unit"]["trial"]), mark)
        return str(TrialScheduler.CONTINUE)


class Watch(Callback):
    """Passes on what Tune tells callbacks only."""

    def __init__(self, search: UnitSearch) -> None:
        self.search = search

    def __getstate__(self) -> Row:  # for Tune's snapshot, which nobody reads
        return {}

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any) -> None:
        self.search.board.heard(unit_of(trial.config["unit"]), result)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # As Tune wrote it here; where `get_error` looks, it is copied later.
        lines = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
        last = masked(lines[-1].strip()) if lines else "lost"
        if last.startswith(OF_THE_MACHINE):  # and not of the trial: the next ones would end there as well
            self.search.unable = InputError(last.removeprefix(OF_THE_MACHINE))
            raise self.search.unable
        self.search.recovered(trial.trial_id, last)
