"""Which unit is next and how each one ended: the search as bookkeeping over an Optuna study, without Ray.

The study's database says which trials there are; the records say how they ended. A record is written before
Optuna is told, so whatever moment a process is killed at, `Ledger` finds every trial either told, or with a final
record that is told now, or running: then it is taken up again under its own number, before anything new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from raymc.config import Value
from raymc.metrics.ranking import rank_means
from raymc.study import files, groups
from raymc.study.database import patient
from raymc.study.distributions import Distributions, suggest
from raymc.study.objective import Objective
from raymc.study.records import BAD, FAILED, FINAL, FINISHED, PRUNED, Record, SeedRun, Unit
from raymc.study.sampler import next_number, reseed

LOST = "its process was lost"

STATES = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED} | dict.fromkeys(BAD, TrialState.FAIL)


class Work(Protocol):
    """Hands out units and takes their ends; the search, a confirmation, or the seeds of a stability run."""

    def next(self) -> Unit | None:
        """The unit to start now; None where one must end first, or all have been handed out."""

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        """A report of a running unit."""

    def ended(self, unit: Unit, error: str | None = None) -> Record:
        """A unit came to its end; `error` says why where its process was lost. Returns its group's record."""

    @property
    def left(self) -> int:
        """At most as many units are still to be handed out."""


class SeedQueue:
    """Configurations on seeds of their own, each seed a unit: the confirmation, and stability runs.

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
        units = [Unit(kind, trial, configurations[trial], (seed,), group) for seed, trial in pairs]
        self._queue = deque(unit for unit in units if files.read_seed(folder, unit, unit.seeds[0]) is None)
        for unit in units[: len(configurations)]:
            before = files.read_record(folder, kind, unit.trial)
            if before is not None and before.state in FINAL and before.group == group:
                continue
            self._record(unit)

    def next(self) -> Unit | None:
        if not self._queue:
            return None
        busy = self._busy()
        unit = next((unit for unit in self._queue if unit.seeds[0] not in busy), self._queue[0])
        self._queue.remove(unit)
        return unit

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        pass

    def ended(self, unit: Unit, error: str | None = None) -> Record:
        (seed,) = unit.seeds
        if files.read_seed(self.folder, unit, seed) is None:
            place = files.seed_folder(self.folder, unit.kind, unit.trial, seed)
            files.write_seed(self.folder, unit, SeedRun.of({"seed": seed, "error": error or LOST}, place))
        return self._record(unit)

    @property
    def left(self) -> int:
        return len(self._queue)

    def _record(self, unit: Unit) -> Record:
        record = groups.make_record(self.folder, unit, self.objective)
        files.write_record(self.folder, record)
        return record


class Ledger:
    """The units of a search up to `trials` trials, then those of the confirmation of its `top` best.

    Args:
        seeds: what every trial runs; `fresh`: what the best are confirmed on.
        seed: the study's; with a trial's number it seeds the sampler of that trial.
    """

    def __init__(
        self,
        folder: Path,
        study: optuna.Study,
        distributions: Distributions,
        *,
        objective: Objective,
        trials: int,
        seeds: Sequence[int],
        seed: int,
        top: int,
        fresh: Sequence[int],
    ) -> None:
        self.folder, self.study, self.distributions = folder, study, dict(distributions)
        self.objective, self.trials, self.seeds, self.seed = objective, trials, tuple(seeds), seed
        self.top, self.fresh = top, tuple(fresh)
        self._running: set[int] = set()
        self._confirmation: SeedQueue | None = None
        self._interrupted = deque(self._settle())

    @patient
    def next(self) -> Unit | None:
        if self._interrupted:
            return self._start(self._interrupted.popleft())
        for trial in self._half_asked():
            return self._start(self._unit(self._completed(trial)))
        if self._asked() < self.trials:
            number = next_number(self.study)
            self._reseed(number)
            return self._start(self._unit(self.study.ask(self.distributions)))
        return self._confirm().next() if not self._running else None

    @patient
    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        if unit.kind != "search" or "resource" not in row:
            return
        trial = self._frozen(unit.trial)
        if row["resource"] not in trial.intermediate_values:  # a trial taken up again repeats what it has
            optuna.trial.Trial(self.study, trial._trial_id).report(row["running"], row["resource"])

    @patient
    def ended(self, unit: Unit, error: str | None = None) -> Record:
        if unit.kind != "search":
            assert self._confirmation is not None
            return self._confirmation.ended(unit, error)
        record = files.read_record(self.folder, "search", unit.trial)
        if record is None or record.state not in FINAL:
            record = groups.make_record(self.folder, unit, self.objective, FAILED, error or LOST)
            files.write_record(self.folder, record)
        self._tell(unit.trial, record)
        self._running.discard(unit.trial)
        return record

    @property
    @patient
    def left(self) -> int:
        searching = max(0, self.trials - self._asked()) + len(self._interrupted)
        if searching or self._running:
            return searching + self.top * len(self.fresh)
        return self._confirm().left

    @patient
    def counts(self) -> dict[str, int]:
        """Trials by how they ended, over all sittings."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        names = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return {name: states.count(state) for name, state in names.items()}

    @patient
    def best(self, count: int) -> list[FrozenTrial]:
        """The finished trials with the best scores, the best first; of equal ones the earlier.

        With two metrics the Pareto front comes first, in the order of the first metric.
        """
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        front = {trial.number for trial in self.study.best_trials} if self.objective.second else set()
        scores = _ranks(done) if self.objective.ranks else [trial.values[0] for trial in done]
        sign = -1 if self.objective.mode == "max" else 1
        order = {
            trial.number: (trial.number not in front, sign * score, trial.number)
            for trial, score in zip(done, scores, strict=True)
        }
        return sorted(done, key=lambda trial: order[trial.number])[:count]

    @patient
    def history(self) -> list[tuple[int, dict[int, float]]]:
        """What the scheduler heard of the trials that have ended, in the order of their ends."""
        ended = [t for t in self.study.get_trials(deepcopy=False) if t.datetime_complete is not None]
        in_order = sorted(ended, key=lambda t: (t.datetime_complete, t.number))
        return [(trial.number, trial.intermediate_values) for trial in in_order]

    def _confirm(self) -> SeedQueue:
        if self._confirmation is None:
            best = {trial.number: dict(trial.params) for trial in self.best(self.top)}
            self._confirmation = SeedQueue(self.folder, "confirm", self.objective, best, self.fresh)
        return self._confirmation

    @patient
    def _settle(self) -> list[Unit]:
        """Tell what a killed driver could not; the units that were interrupted, in the order of their numbers."""
        interrupted = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = files.read_record(self.folder, "search", trial.number)
            if record is not None and record.state in FINAL:
                self._tell(trial.number, record)
            else:
                interrupted.append(self._unit(self._completed(trial)))
        return interrupted

    def _completed(self, trial: FrozenTrial) -> optuna.trial.Trial:
        """The running trial with all its parameters: a driver killed while asking may have left some out."""
        self._reseed(trial.number)
        again = optuna.trial.Trial(self.study, trial._trial_id)
        together = again.relative_params
        for key, distribution in self.distributions.items():
            if key in trial.params and key not in together:  # draw it once more, so that the next draw is the same
                self.study.sampler.sample_independent(self.study, trial, key, distribution)
            suggest(again, key, distribution)
        return again

    def _reseed(self, number: int) -> None:
        reseed(self.study, self.seed, number, _ranks if self.objective.ranks else None)

    def _unit(self, trial: optuna.trial.Trial) -> Unit:
        return Unit("search", trial.number, dict(trial.params), self.seeds, self.seeds)

    def _start(self, unit: Unit) -> Unit:
        self._running.add(unit.trial)
        return unit

    def _half_asked(self) -> Iterator[FrozenTrial]:
        """Trials that the database has and nobody runs: its answer to the question for them was lost."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._running:
                yield trial

    def _asked(self) -> int:
        return sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _tell(self, number: int, record: Record) -> None:
        trial = self._frozen(number)
        if trial.state.is_finished():
            return
        state = STATES[record.state]
        handle = optuna.trial.Trial(self.study, trial._trial_id)
        handle.set_user_attr("state", record.state)
        handle.set_user_attr("metrics", dict(record.metrics))
        self.study.tell(number, self._values(record) if state == TrialState.COMPLETE else None, state=state)

    def _values(self, record: Record) -> list[float]:
        """What Optuna learns of a finished trial; of a rank, what it is among those that have finished by now."""
        if not self.objective.ranks:
            scores = record.scores or (record.score,)  # a record of before there were two
            return [score for score in scores if score is not None]
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return rank_means([*(trial.user_attrs["metrics"] for trial in done), record.metrics])[-1:]


def _ranks(done: Sequence[FrozenTrial]) -> list[float]:
    """What finished trials score among each other now, where ranks decide."""
    return rank_means([trial.user_attrs["metrics"] for trial in done])
