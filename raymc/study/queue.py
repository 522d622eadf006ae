"""Which task is next and how each one ended: the search as bookkeeping over an Optuna study, without Ray.

The study's database says which trials there are; the records say how they ended. A record is written before
Optuna is told, so whatever moment a process is killed at, `TrialQueue` finds every trial either told, or with a final
record that is told now, or running: then it is taken up again under its own number, before anything new.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState

from raymc.atomic import write_json
from raymc.config import Value
from raymc.metrics.ranking import rank_means
from raymc.space import sampler
from raymc.space.parameter import Parameter
from raymc.study import files, groups
from raymc.study.database import patient
from raymc.study.distributions import Distributions
from raymc.study.draws import Draws, ranks_of
from raymc.study.earlier import TAKEN
from raymc.study.objective import Objective
from raymc.study.optuna_internals import reopened, set_intermediate_value
from raymc.study.pruner import judged
from raymc.study.records import BAD, FAILED, FINAL, FINISHED, OUT_OF_MEMORY, PRUNED, Record, Task
from raymc.study.remaining import AGAIN
from raymc.study.sampler import next_number
from raymc.study.seed_queue import LOST, SeedQueue

TPE = sampler.TPE()

RETRY_OF = "retry_of"
"""The attribute of a trial in the database that runs another one again: that one's number."""

MENDABLE = (FAILED, OUT_OF_MEMORY)

STATES = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED} | dict.fromkeys(BAD, TrialState.FAIL)


class TrialQueue:
    """The tasks of a search up to `trials` trials, then those of the confirmation of its `top` best.

    Args:
        params: which searched keys exist where, if not all of them do everywhere.
        seeds: what every trial runs; `fresh`: what the best are confirmed on.
        seed: the study's; with a trial's number it seeds the sampler of that trial.
        pruner: what stops a trial early, by its reports; None: nothing does.
        default: the values of the default configuration, which is confirmed beside the best; None: there is none.
        retry: whether trials that failed, or lacked memory, run again, each under a number of its own.
        over: says why no trial begins any more; empty as long as they do.

    Attributes:
        on_trial: called with the record of each trial of the search that has ended; True ends the search.
    """

    on_trial: Callable[[Record], bool] | None = None

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
        params: Mapping[str, Parameter] | None = None,
        sampler: sampler.Options = TPE,
        pruner: BasePruner | None = None,
        default: Mapping[str, Value] | None = None,
        retry: bool = False,
        over: Callable[[TrialQueue], str] = lambda queue: "",
    ) -> None:
        self.folder, self.study, self.pruner = folder, study, pruner
        self._draws = Draws(study, distributions, params or {}, sampler, seed, objective.ranks)
        if pruner is not None:
            study.pruner = pruner  # hyperband's brackets are samplers' too
        self.objective, self.trials, self.seeds = objective, trials, tuple(seeds)
        self.top, self.fresh, self.default = top, tuple(fresh), default
        self.ended_early = ""
        self._over, self._running = over, dict[int, float]()
        self._confirmations: dict[str, SeedQueue] = {}
        self._interrupted = deque(self._settle())
        if retry and not over(self):
            self._retry()
        self._close_if_over()

    @patient
    def next(self) -> Task | None:
        if self._interrupted:
            return self._start(self._interrupted.popleft())
        asked = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        half_asked = next((trial for trial in asked if trial.number not in self._running), None)
        if half_asked is not None:  # the database's answer to the question for it was lost
            return self._start(self._task(self._draws.completed(half_asked)))
        self._close_if_over()
        if self._asked() < self.trials:
            self._draws.reseed(next_number(self.study))
            return self._start(self._task(self._draws.drawn(self.study.ask())))
        if self._running:
            return None
        return next((task for queue in self._confirm().values() if (task := queue.next()) is not None), None)

    @patient
    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        if task.kind != "search" or "resource" not in row:
            return
        value = row["running"] if self.pruner is None else judged(self.pruner, row)
        if value is None:
            return
        trial = self._frozen(task.trial)
        if row["resource"] not in trial.intermediate_values:  # a trial taken up again repeats what it has
            reopened(self.study, trial).report(value, row["resource"])
        if self.pruner is not None and self.pruner.prune(self.study, self._frozen(task.trial)):
            # A mark, which the trial sees on return from its report: a trial that Tune stops would stay blocked in that
            # report, with its leases and files, until its process is needed again.
            write_json(files.stop_mark(self.folder, task.trial), {"resource": row["resource"], "value": value})

    @patient
    def ended(self, task: Task, error: str | None = None) -> Record:
        if task.kind != "search":
            return self._confirmations[task.kind].ended(task, error)
        record = files.read_record(self.folder, "search", task.trial)
        if record is None or record.state not in FINAL:
            record = groups.make_record(self.folder, task, self.objective, FAILED, error or LOST)
            files.write_record(self.folder, record)
        self._tell(task.trial, record)
        self._running.pop(task.trial, None)
        if self.on_trial is not None and self.on_trial(record):
            self.ended_early, self.trials = "a callback ended it", self._asked()
        return record

    @property
    @patient
    def left(self) -> int:
        searching = max(0, self.trials - self._asked()) + len(self._interrupted)
        if searching or self._running:
            configurations = min(self.top, self.trials) + (self.default is not None and self.top > 0)
            return searching + configurations * len(self.fresh)
        return sum(queue.left for queue in self._confirm().values())

    def restart_clock(self, task: Task) -> None:
        """The task begins only now."""
        if task.kind == "search":
            self._running[task.trial] = time.monotonic()

    @property
    def running(self) -> dict[int, float]:
        """The seconds since each running trial began in this session."""
        return {trial: time.monotonic() - begun for trial, begun in self._running.items()}

    @patient
    def scores(self) -> list[float]:
        """Those of the trials that may win in the order of their numbers, of the first metric."""
        done = self._eligible()
        return ranks_of(done) if self.objective.ranks else [trial.values[0] for trial in done]

    @patient
    def counts(self) -> dict[str, int]:
        """Trials by how they ended, over all sessions."""
        states = [trial.state for trial in self._own()]
        names = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return {name: states.count(state) for name, state in names.items()}

    @patient
    def best(self, count: int) -> list[FrozenTrial]:
        """The finished trials that may win with the best scores, the best first; of equal ones the earlier.

        With two metrics the Pareto front comes first, in the order of the first metric.
        """
        done = self._eligible()
        front = {trial.number for trial in self.study.best_trials} if self.objective.second else set()
        scores = self.scores()
        sign = -1 if self.objective.mode == "max" else 1
        order = {
            trial.number: (trial.number not in front, sign * score, trial.number)
            for trial, score in zip(done, scores, strict=True)
        }
        return sorted(done, key=lambda trial: order[trial.number])[:count]

    def _confirm(self) -> dict[str, SeedQueue]:
        """The best trials on fresh seeds, and the default beside them, which its search score alone lets win."""
        if not self._confirmations:
            best = {trial.number: dict(trial.params) for trial in self.best(self.top)}
            beside: dict[int, Mapping[str, Value]] = {}
            if best and self.default is not None and self.default not in best.values():
                same = next((trial for trial in self._finished() if trial.params == self.default), None)
                if same is not None and files.read_record(self.folder, "confirm", same.number) is not None:
                    best[same.number] = dict(same.params)  # it was among the best, or a study of before ran it there
                else:
                    beside[0] = {}
            for kind, configurations in (("confirm", best), ("default", beside)):
                self._confirmations[kind] = SeedQueue(self.folder, kind, self.objective, configurations, self.fresh)
        return self._confirmations

    def _finished(self) -> list[FrozenTrial]:
        return [trial for trial in self._own() if trial.state == TrialState.COMPLETE]

    def _eligible(self) -> list[FrozenTrial]:
        """The finished trials that keep to the constraint, if there is one."""
        return [trial for trial in self._finished() if all(one <= 0 for one in trial.constraints.values())]

    def _own(self) -> list[FrozenTrial]:
        """The trials of this study's budget: none of an earlier study, and of those that ran again the last ones."""
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(RETRY_OF) for trial in trials if trial.state != TrialState.WAITING}
        return [trial for trial in trials if TAKEN not in trial.user_attrs and trial.number not in again]

    @patient
    def _retry(self) -> None:
        """Queue what failed again; a trial that diverged or collapsed would do so once more."""
        queued = self._queued_again()
        for trial in self._own():
            mendable = trial.state == TrialState.FAIL and trial.user_attrs.get("state") in MENDABLE
            if mendable and trial.number not in queued:
                self.study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})
                number = self.study.get_trials(deepcopy=False)[-1].number
                record = files.read_record(self.folder, "search", trial.number)
                if record is not None:
                    error = f"{AGAIN}{number}; {record.error}"
                    files.write_record(self.folder, replace(record, error=error))

    @patient
    def _settle(self) -> list[Task]:
        """Tell what a killed driver could not; the tasks that were interrupted, in the order of their numbers."""
        interrupted = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = files.read_record(self.folder, "search", trial.number)
            if record is not None and record.state in FINAL:
                self._tell(trial.number, record)
            else:
                interrupted.append(self._task(self._draws.completed(trial)))
        return interrupted

    @patient
    def _close_if_over(self) -> None:
        """Ask for no more trials where the budget's limits say so."""
        asked = self._asked()
        if asked < self.trials and (why := self._over(self)):
            self.ended_early, self.trials = why, asked

    def _task(self, trial: optuna.trial.Trial) -> Task:
        return Task("search", trial.number, dict(trial.params), self.seeds, self.seeds)

    def _start(self, task: Task) -> Task:
        self._running[task.trial] = time.monotonic()
        return task

    def _asked(self) -> int:
        return sum(trial.state != TrialState.WAITING for trial in self._own()) - len(self._queued_again())

    def _queued_again(self) -> set[int]:
        """The failed trials that are to run again, and have not begun to."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return {trial.user_attrs[RETRY_OF] for trial in waiting if RETRY_OF in trial.user_attrs}

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _tell(self, number: int, record: Record) -> None:
        trial = self._frozen(number)
        if trial.state.is_finished():
            return
        state = STATES[record.state]
        handle = reopened(self.study, trial)
        handle.set_user_attr("state", record.state)
        handle.set_user_attr("metrics", dict(record.metrics))
        bound = self.objective.constraint
        if bound is not None and state == TrialState.COMPLETE and bound.metric not in trial.constraints:
            handle.set_constraint(bound.metric, bound.violation(record.metrics))
        if state == TrialState.PRUNED and self.pruner is not None:
            self._note_mean(trial, record)
        self.study.tell(number, self._values(record) if state == TrialState.COMPLETE else None, state=state)

    def _note_mean(self, trial: FrozenTrial, record: Record) -> None:
        """Where single seeds were reported, their mean in place of the last: samplers learn it of a pruned trial."""
        means = self.objective.scores(groups.seed_values(record.seeds), {})
        if isinstance(self.pruner, WilcoxonPruner) and means and trial.intermediate_values:
            last = max(trial.intermediate_values)
            set_intermediate_value(self.study, trial, last, means[0])

    def _values(self, record: Record) -> list[float]:
        """What Optuna learns of a finished trial; of a rank, what it is among those that have finished by now."""
        if not self.objective.ranks:
            scores = record.scores or (record.score,)  # a record of before there were two
            return [score for score in scores if score is not None]
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return rank_means([*(trial.user_attrs["metrics"] for trial in done), record.metrics])[-1:]
