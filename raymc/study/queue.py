"""Which unit is next and how each one ended: the search as bookkeeping over an Optuna study, without Ray.

The study's database says which trials there are; the records say how they ended. A record is written before
Optuna is told, so whatever moment a process is killed at, `Ledger` finds every trial either told, or with a final
record that is told now, or running: then it is taken up again under its own number, before anything new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from raymc.config import Value
from raymc.metrics.ranking import rank_means
from raymc.search import records
from raymc.search.judge import Judge
from raymc.search.records import BAD, FINAL, FINISHED, PRUNED, Row, Unit
from raymc.study.database import patient
from raymc.study.distributions import Distributions, next_number, reseed, suggest
from raymc.tracking import runs

STATES = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED} | dict.fromkeys(BAD, TrialState.FAIL)


class Work(Protocol):
    """Hands out units and takes their ends; the search, a confirmation, or the seeds of a stability run."""

    def next(self) -> Unit | None:
        """The unit to start now; None where one must end first, or all have been handed out."""

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        """A report of a running unit."""

    def ended(self, unit: Unit, error: str | None = None) -> Row:
        """A unit came to its end; `error` says why where its process was lost. Returns its group's record."""

    @property
    def left(self) -> int:
        """At most as many units are still to be handed out."""


class SeedQueue:
    """Configurations on seeds of their own, each seed a unit: the confirmation, and stability runs."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        judge: Judge,
        configurations: Mapping[int, Mapping[str, Value]],
        seeds: Sequence[int],
    ) -> None:
        self.folder, self.judge = folder, judge
        group = tuple(seeds)
        # Seed by seed, so that the configurations have about as many seeds each at any moment.
        pairs = [(seed, trial) for seed in seeds for trial in configurations]
        units = [Unit(kind, trial, configurations[trial], (seed,), group) for seed, trial in pairs]
        self._queue = deque(unit for unit in units if records.read_seed(folder, unit, unit.seeds[0]) is None)
        self._untold: set[int] = set()
        for unit in units[: len(configurations)]:
            before = records.read_record(folder, kind, unit.trial)
            if before is not None and before["state"] in FINAL and before["seeds"] == list(group):
                continue
            if kind == "confirm":
                self._untold.add(unit.trial)
                runs.open_trial(folder, unit.trial, kind=kind, params=unit.params).close()
            self._record(unit)

    def next(self) -> Unit | None:
        return self._queue.popleft() if self._queue else None

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        pass

    def ended(self, unit: Unit, error: str | None = None) -> Row:
        (seed,) = unit.seeds
        if records.read_seed(self.folder, unit, seed) is None:
            lost = {"seed": seed, "state": "failed", "metrics": {}, "stages": [], "seconds": 0.0}
            records.write_seed(self.folder, unit, lost | {"error": error or "its process was lost"})
        return self._record(unit)

    @property
    def left(self) -> int:
        return len(self._queue)

    def _record(self, unit: Unit) -> Row:
        record = records.make_record(self.folder, unit, self.judge)
        if record["state"] in FINAL and unit.trial in self._untold:
            self._tell(unit, record)  # first: with a final record nothing is written again
        records.write_record(self.folder, record)
        return record

    def _tell(self, unit: Unit, record: Row) -> None:
        self._untold.remove(unit.trial)
        ended = len(record["per_seed"])
        with runs.open_trial(self.folder, unit.trial, kind=unit.kind, params=unit.params) as log:
            runs.log_statistics(log, records.statistics_of(record["per_seed"]), step=ended)
            runs.log_statistics(log, records.agreement_of(record), step=ended)
            runs.close_run(log, record["state"])


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
        judge: Judge,
        trials: int,
        seeds: Sequence[int],
        seed: int,
        top: int,
        fresh: Sequence[int],
    ) -> None:
        self.folder, self.study, self.distributions = folder, study, dict(distributions)
        self.judge, self.trials, self.seeds, self.seed = judge, trials, tuple(seeds), seed
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
            reseed(self.study, self.seed, number)
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
    def ended(self, unit: Unit, error: str | None = None) -> Row:
        if unit.kind != "search":
            assert self._confirmation is not None
            return self._confirmation.ended(unit, error)
        record = records.read_record(self.folder, "search", unit.trial)
        if record is None or record["state"] not in FINAL:
            lost = error or "its process was lost"
            record = records.make_record(self.folder, unit, self.judge, "failed", lost)
            records.write_record(self.folder, record)
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
        front = {trial.number for trial in self.study.best_trials} if self.judge.second else set()
        if self.judge.ranks:
            scores = rank_means([trial.user_attrs["metrics"] for trial in done])
        else:
            scores = [trial.values[0] for trial in done]
        sign = -1 if self.judge.mode == "max" else 1
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
            self._confirmation = SeedQueue(self.folder, "confirm", self.judge, best, self.fresh)
        return self._confirmation

    @patient
    def _settle(self) -> list[Unit]:
        """Tell what a killed driver could not; the units that were interrupted, in the order of their numbers."""
        interrupted = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = records.read_record(self.folder, "search", trial.number)
            if record is not None and record["state"] in FINAL:
                self._tell(trial.number, record)
            else:
                interrupted.append(self._unit(self._completed(trial)))
        return interrupted

    def _completed(self, trial: FrozenTrial) -> optuna.trial.Trial:
        """The running trial with all its parameters: a driver killed while asking may have left some out."""
        reseed(self.study, self.seed, trial.number)
        again = optuna.trial.Trial(self.study, trial._trial_id)
        together = again.relative_params
        for key, distribution in self.distributions.items():
            if key in trial.params and key not in together:  # draw it once more, so that the next draw is the same
                self.study.sampler.sample_independent(self.study, trial, key, distribution)
            suggest(again, key, distribution)
        return again

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

    def _tell(self, number: int, record: Mapping[str, Any]) -> None:
        trial = self._frozen(number)
        if trial.state.is_finished():
            return
        state = STATES[record["state"]]
        handle = optuna.trial.Trial(self.study, trial._trial_id)
        handle.set_user_attr("state", record["state"])
        handle.set_user_attr("metrics", dict(record["metrics"]))
        self.study.tell(number, self._values(record) if state == TrialState.COMPLETE else None, state=state)

    def _values(self, record: Mapping[str, Any]) -> list[float]:
        """What Optuna learns of a finished trial; a rank is among those that had finished by then."""
        if not self.judge.ranks:
            return list(record.get("scores") or [record["score"]])  # a record of before there were two
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return rank_means([*(trial.user_attrs["metrics"] for trial in done), record["metrics"]])[-1:]
