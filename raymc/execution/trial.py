"""What one trial does, in whatever process it runs: train its seeds, leave their results, report, stop when told.

Nothing here imports Ray or Optuna. Results are on disk before they are reported, so that a process killed at any
moment loses at most the epochs since the last checkpoint of a stage.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raymc.config import Value
from raymc.errors import RaymcError, TrainingError, storage_error
from raymc.masking import masked
from raymc.search import records
from raymc.search.judge import Judge
from raymc.search.records import FINISHED, PRUNED, RUNNING, Row, Unit
from raymc.storage.mirror import Mirror
from raymc.tracking import runs
from raymc.tracking.spool import Spool

Report = Callable[[Row], None]

LIVE_SECONDS = 1.0
"""The least time between two reports that only feed the live table."""


class Body(Protocol):
    """Trains one configuration with one seed."""

    def __call__(self, params: Mapping[str, Value], seed: int, out: Path, report: Report) -> Row:
        """Train, leave files in `out`, call `report` with the events of `raymc.training`, return metrics.json.

        Of it are read `metrics`, `stages` and, by the gates, `n_clusters`.

        Raises TrainingError where the training ended without a usable result.
        """

    def epochs(self, params: Mapping[str, Value]) -> Mapping[str, int]:
        """The stages that assign clusters, in their order, with their epochs: what fidelity `epochs` counts."""


@dataclass(frozen=True)
class Plan:
    """What all units of a study share: its folder, what they are judged by, and what a trial is stopped after.

    Where the study is in an object store, at `uri`, `folder` is this process's own and `mirror` connects the two.
    """

    folder: Path
    judge: Judge
    fidelity: str = "none"
    uri: str | None = None
    mirror: Mirror | None = None

    def is_stopped(self, trial: int) -> bool:
        """Whether the scheduler wants no more of a trial of the search."""
        mark = stop_mark(self.folder, trial)
        there = self.mirror is not None and self.mirror.exists(mark.relative_to(self.folder).as_posix())
        return there or mark.exists()


class Pruned(Exception):
    """The scheduler stopped this trial; raised inside its training so that leases and files are given back."""


def run_unit(plan: Plan, unit: Unit, body: Body, report: Report) -> Row:
    """Run the seeds of `unit` that have no result yet and return the record of its group.

    `report` gets `{"state": "running", …}` rows, with `resource` and `running` (the score so far) where the
    scheduler may judge, and one last row with the final state. A trial that went wrong is no exception: the
    record names its state. Raises StorageError where files cannot be written: that says nothing of the trial.
    """
    try:
        return _UnitRun(plan, unit, body, report).run()
    except Exception as error:
        if (refused := storage_error(error, plan.folder)) is None:
            raise
        raise refused from error


def stop_mark(folder: Path, trial: int) -> Path:
    """The file by which the scheduler stops a trial of the search."""
    return records.trial_folder(folder, "search", trial) / "stop.json"


class _UnitRun:
    def __init__(self, plan: Plan, unit: Unit, body: Body, report: Report) -> None:
        self.plan, self.unit, self.body = plan, unit, body
        self._report = report
        self._done: list[Row] = []
        self._judged = unit.kind == "search" and plan.fidelity != "none"
        self._resource = 0
        self._told = -math.inf

    def run(self) -> Row:
        self._write(RUNNING)
        if self.unit.kind == "search":
            with runs.open_trial(self.plan.folder, self.unit.trial, params=self.unit.params) as log:
                record = self._group(log)
        else:
            record = self._group(None)
        search = self.unit.kind == "search"
        last = record if search else self._done[-1]
        score = record["score"] if search else last["metrics"].get(self.plan.judge.metric)
        self._report({"state": last["state"], "score": score, "seeds_done": len(self._done)})
        return record

    def _group(self, log: Spool | None) -> Row:
        record: Row = {}
        try:
            for seed in self.unit.seeds:
                self._seed(seed)
                record = self._write(log=log)
                if record["state"] != RUNNING:
                    break
                self._judge(self._score(), self._passed())
        except Pruned:
            record = self._write(PRUNED, log)
        return record

    def _seed(self, seed: int) -> None:
        row = records.read_seed(self.plan.folder, self.unit, seed)
        if row is None:
            row = self._train(seed)
            records.write_seed(self.plan.folder, self.unit, row)
        self._done.append(row)

    def _train(self, seed: int) -> Row:
        unit, folder = self.unit, self.plan.folder
        begun = time.monotonic()
        row: Row = {"seed": seed, "state": FINISHED, "metrics": {}, "stages": [], "error": None}
        trial = None if unit.kind == "stability" else unit.trial
        with runs.open_seed(folder, seed, trial=trial, kind=unit.kind) as log:

            def heard(event: Row) -> None:
                if event["event"] == "resumed" and self.plan.mirror is not None:
                    # Its lines may have been lost with the machine that wrote them; a line that was not counts once.
                    for epoch in event["curve"]:
                        runs.log_event(log, {"event": "epoch", **epoch})
                runs.log_event(log, event)
                self._heard(seed, event)

            out = records.seed_folder(folder, unit.kind, unit.trial, seed)
            try:
                result = self.body(unit.params, seed, out, heard)
                row |= self._passing(_finite(result["metrics"]), result) | {"stages": list(result["stages"])}
            except TrainingError as error:
                row |= {"state": error.state, "error": masked(str(error))}
            except Pruned:
                runs.close_run(log, PRUNED)
                raise
            except Exception as error:
                if storage_error(error) is not None:
                    raise
                row |= {"state": "failed", "error": _told(error)}
            runs.close_run(log, row["state"])
        return row | {"seconds": time.monotonic() - begun}

    def _passing(self, metrics: dict[str, float], result: Row) -> Row:
        """The row of a training that came to its end: finished, unless a metric is missing or a gate is closed."""
        judge = self.plan.judge
        closed = judge.gates.closed(metrics, result["n_clusters"]) if judge.gates else None
        if closed:
            return {"metrics": metrics, "state": "collapsed", "error": f"{closed} (gates of the objective)"}
        missing = [name for name in judge.needed if name not in metrics]
        if missing:
            return {"metrics": metrics, "state": "failed", "error": f"the training gave no finite {missing[0]}"}
        return {"metrics": metrics}

    def _heard(self, seed: int, event: Row) -> None:
        """An event of the training: judge by it where epochs count, else show it now and then."""
        if event.get("event") == "stage" and event.get("cached"):
            self._live({"seed": seed, "stage": event["name"], "epoch": event["epochs"], "epochs": event["epochs"]})
        if event.get("event") != "epoch":
            return
        place = {"seed": seed, "stage": event["stage"], "epoch": event["epoch"], "epochs": event["epochs"]}
        metric = self.plan.judge.metric
        value = event.get(metric)
        if self.plan.fidelity == "epochs" and isinstance(value, float) and math.isfinite(value):
            values = [*(row["metrics"][metric] for row in self._done), value]
            scores = self.plan.judge.scores({metric: values}, {})
            self._judge(scores[0] if scores else None, self._passed(event["stage"], event["epoch"]), place)
        else:
            self._live(place)

    def _judge(self, score: float | None, resource: int, place: Row | None = None) -> None:
        """Report the score so far. Raises Pruned if the scheduler then wants no more of this trial."""
        row: Row = {"state": RUNNING, "seeds_done": len(self._done), **(place or {})}
        if score is not None:
            row["running"] = score
        judged = self._judged and score is not None and resource > self._resource
        if judged:
            self._resource = resource
            row["resource"] = resource
        self._told = time.monotonic()
        self._report(row)
        if judged and self.plan.is_stopped(self.unit.trial):
            raise Pruned

    def _live(self, place: Row) -> None:
        if time.monotonic() - self._told >= LIVE_SECONDS:
            self._told = time.monotonic()
            self._report({"state": RUNNING, "seeds_done": len(self._done), **place})

    def _passed(self, stage: str | None = None, epoch: int = 0) -> int:
        """What fidelity counts: seeds that ended, or epochs over all seeds, whether trained or taken from the store."""
        if self.plan.fidelity != "epochs":
            return len(self._done)
        epochs = self.body.epochs(self.unit.params)
        names = list(epochs)
        before = sum(epochs[name] for name in names[: names.index(stage)]) if stage in epochs and stage else 0
        return len(self._done) * sum(epochs.values()) + before + epoch

    def _score(self) -> float | None:
        """The objective over the seeds so far; None where there is none to judge by."""
        group = records.group_metrics(self.plan.folder, self.unit, self._done)
        scores = self.plan.judge.scores(records.seed_values(self._done), group)
        return scores[0] if scores else None

    def _write(self, state: str | None = None, log: Spool | None = None) -> Row:
        record = records.make_record(self.plan.folder, self.unit, self.plan.judge, state)
        if log is not None:
            if state is None:
                runs.log_statistics(log, records.statistics_of(self._done), step=len(self._done))
                runs.log_statistics(log, records.agreement_of(record), step=len(self._done))
            if record["state"] != RUNNING:  # before the record: a trial with a final one is not taken up again
                runs.close_run(log, record["state"])
        if self.unit.kind == "search":  # the driver writes the others: their seeds run in several processes
            records.write_record(self.plan.folder, record)
        return record


def _finite(metrics: Mapping[str, object]) -> dict[str, float]:
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _told(error: Exception) -> str:
    """One line for what the user can mend, the whole trace for what is a fault of ours."""
    if isinstance(error, RaymcError):
        return masked(str(error))
    return masked("".join(traceback.format_exception(error)).strip())
