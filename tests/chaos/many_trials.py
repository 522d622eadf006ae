"""Many very short trials through Ray Tune: what each costs, and that nothing grows with their number but the results.

    python -m tests.chaos.many_trials --trials 200 --out reports/DATE-survival

The whole of a search but its trainings: Optuna on SQLite, records, and a thread that sends them to MLflow.
A training tells five epochs and how its process stands. `benchmarks/trial_overhead.py` takes the same time apart.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from raymc.execution.cluster import ray_session
from raymc.execution.driver import plan_slots, quiet_environment, run_work
from raymc.execution.live import Board
from raymc.execution.needs import Needs
from raymc.execution.trial import Plan
from raymc.space.space import load_space
from raymc.study import files
from raymc.study.distributions import compile_space
from raymc.study.objective import Objective
from raymc.study.queue import TrialQueue
from raymc.tracking.study import StudyTracker
from tests.chaos.command import tell

EPOCHS = 5
SETTLED = 25
"""Trials after which both processes have all that they load once."""


class Short:
    """A training that is over at once, and tells how much memory and how many open files its process has."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        for epoch in range(1, EPOCHS + 1):
            row = {"stage": "heads", "epoch": epoch, "epochs": EPOCHS, "loss": 1 / epoch}
            report({"event": "epoch", **row})
        return {"metrics": {"acc": 0.5 + seed / 100, **process_facts()}, "stages": []}

    def epochs(self, params: Mapping[str, Any]) -> dict[str, int]:
        return {"heads": EPOCHS}


def process_facts() -> dict[str, float]:
    """Resident memory in MB and open files of this process, and its number."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    open_files = len(os.listdir("/proc/self/fd"))
    return {"rss": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "handles": open_files, "pid": os.getpid()}


class Watch(Board):
    """Notes after every trial when it was, and how the driver stands."""

    def __init__(self, tasks: int) -> None:
        super().__init__("many trials", "acc", tasks, stream=io.StringIO())
        self.rows: list[dict[str, float]] = []
        self.tick = lambda: self.rows.append({"at": time.monotonic(), **process_facts()})


def search(folder: Path, trials: int) -> list[dict[str, Any]]:
    """Run the trials one after the other, of two seeds each; a row per trial. Ray is running."""
    distributions = compile_space(load_space("nmce_digits").params)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    objective = Objective("acc")
    queue = TrialQueue(
        folder, study, distributions, objective=objective, trials=trials, seeds=(0, 1), seed=0, top=1, fresh=(1000,)
    )  # fmt: skip
    uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
    slots = plan_slots(Needs(), [{"CPU": 1.0}], None, fixed=True)
    try:
        with StudyTracker(folder, study="s", space="short", tracking_uri=uri) as tracker:
            with Watch(queue.left) as board:
                run_work(queue, {"": (Plan(folder, objective), Short())}, slots, board)
            assert tracker.flush(600), "MLflow lags behind"
        assert queue.counts() == {"finished": trials, "pruned": 0, "failed": 0}
    finally:
        storage.engine.dispose()
    return [_row(folder, number, board.rows) for number in range(trials)]


def _row(folder: Path, number: int, driver: list[dict[str, float]]) -> dict[str, Any]:
    """How the driver and the worker stood at the end of a trial, and the files that it has."""
    record = files.read_record(folder, "search", number)
    assert record is not None
    metrics = record.seeds[-1].metrics
    own = [path for path in files.trial_folder(folder, "search", number).rglob("*") if path.is_file()]
    row = {f"driver_{key}": round(driver[number][key], 2) for key in ("rss", "handles")}
    row |= {f"worker_{key}": round(metrics[key], 2) for key in ("rss", "handles", "pid")}
    seconds = driver[number]["at"] - driver[number - 1]["at"] if number else 0.0
    return row | {"files": len(own), "seconds": round(seconds, 4)}


def run(place: Path, trials: int) -> dict[str, Any]:
    """What is to be reported."""
    quiet_environment()
    from ray import cloudpickle

    from tests.chaos import many_trials

    folder = place / "study"
    folder.mkdir()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cloudpickle.register_pickle_by_value(many_trials)
    try:
        with ray_session(None, dashboard=False):
            rows = search(folder, trials)
    finally:
        cloudpickle.unregister_pickle_by_value(many_trials)
    late = [row["seconds"] for row in rows[SETTLED:]]
    return {
        "trials": trials,
        "seeds": 2,
        "seconds_a_trial": {"median": statistics.median(late), "max": max(late)},
        "seconds_a_trial_of_the_last": statistics.median(late[-SETTLED:]),
        "growth_a_trial_kb": {who: growth(rows, who) for who in ("driver", "worker")},
        "files_a_trial": max(row["files"] for row in rows),
        "files": sum(path.is_file() for path in folder.rglob("*")),
        "rows": rows,
    }


def growth(rows: list[dict[str, Any]], who: str) -> float:
    """Kilobytes of memory that a trial adds, from the settled ones to the last: by medians of a few, since it jumps."""
    few = min(SETTLED, len(rows) // 4)
    first, last = rows[SETTLED : SETTLED + few], rows[-few:]
    middle = [statistics.median(row[f"{who}_rss"] for row in part) for part in (first, last)]
    return round(1024 * (middle[1] - middle[0]) / (len(rows) - SETTLED - few), 1)


def thinned(place: Path, trials: int) -> dict[str, Any]:
    """The same with a row of every twentieth part of the trials."""
    found = run(place, trials)
    return found | {"rows": found["rows"][:: max(1, trials // 20)]}


def main() -> None:
    tell("many_trials", __doc__, {"trials": 200}, thinned, rows="rows")


if __name__ == "__main__":
    main()
