"""A search whose MLflow server is killed in the middle: what MLflow has of it in the end, and how often.

`python -m tests.chaos.mlflow_away --seconds 120 --out FOLDER` does it with an outage of two minutes, prints the figures
as JSON and fails where a trial failed, a metric is missing or one is there twice. FOLDER keeps study and database.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from raymc.reporting.search.facts import gather
from raymc.study.reader import read_study
from raymc.tracking.outcome import log_outcome
from raymc.tracking.projection import Run, TrialRuns, points_of, run_name, statistics_metrics, trial_places
from tests.chaos.command import Command
from tests.mlflow_server import Server, wait_for

SPACE = """
method: nmce
dataset: digits
fixed: {pretrain.epochs: 4, heads.epochs: 6, finetune.epochs: 2}
space:
  heads.weight_decay: {low: 1.0e-4, high: 0.1, log: true}
  heads.learning_rate: {low: 0.1, high: 0.6}
budget: {trials: 4, seeds: 2, fidelity: none, confirm: {top: 1, seeds: 2}}
"""
BEFORE = 60
"""Metrics that MLflow has when its server is killed."""
SLOW = 600.0

Point = tuple[str, str, int, float]


class Search(Command):
    """`raymc tune` of `SPACE`, as study `s` in `folder`."""

    def __init__(self, folder: Path, uri: str, *options: str) -> None:
        (folder / "short.yaml").write_text(SPACE)
        self.study = folder / "storage" / "studies" / "s"
        words = ["short.yaml", "--name", "s", "--storage", "storage", "--tracking-uri", uri, "--json", *options]
        words += ["--concurrent", "1"]  # on a machine of few cores it takes longest for the work that it is
        super().__init__(folder, words, {})


def recorded(study: Path) -> set[Point]:
    """(run's name in MLflow, key, step, value) of all that is recorded; of several at one step the first stands."""
    found: dict[tuple[str, str, int], float] = {}
    for run in runs(study):
        for key, value, _, step in run.points:
            found.setdefault((run.name, key, step), value)
    return {(*point, value) for point, value in found.items()}


def runs(study: Path) -> list[Run]:
    places = [TrialRuns(study, *place) for place in trial_places(study)]
    return [trial.run(name, {}) for trial in places for name in trial.states]


class Outcome:
    """A tracker that keeps what a study as a whole gives."""

    def __init__(self, study: Path, counts: dict[str, int]) -> None:
        self.name, self.points = study.name, set[Point]()
        whole = read_study(study)
        facts = gather(whole)
        log_outcome(whole, facts, facts["confirmation"][0], counts, self)  # type: ignore[arg-type]

    def metrics(self, values: dict[str, Any], step: int, run: str | None = None) -> None:
        self.points |= {(run or self.name, key, step, value) for key, value, _, step in points_of(values, 0, step)}

    def log_statistics(self, statistics: dict[str, Any], step: int) -> None:
        self.metrics(statistics_metrics(statistics), step)

    def log_scores(self, trial: int, values: dict[str, Any], step: int, *, kind: str) -> None:
        self.metrics(values, step, run_name(trial, kind=kind))

    def tags(self, values: dict[str, Any]) -> None:
        pass


def compared(study: Path, server: Server, counts: dict[str, int]) -> dict[str, int]:
    """What MLflow lacks of the records, has twice, has of nowhere, and runs that it shows with another status."""
    wanted, found = recorded(study) | Outcome(study, counts).points, server.points()
    endings = {run.name: run.status for run in runs(study)} | {study.name: "FINISHED"}
    statuses = dict(server.rows("select name, status from runs"))
    return {
        "points": len(wanted),
        "missing": len(wanted - set(found)),
        "twice": sum(count > 1 for count in found.values()),
        "foreign": len(set(found) - wanted),
        "runs": len(endings),
        "wrong_status": len(set(endings.items()) ^ set(statuses.items())),
    }


def outage(folder: Path, seconds: float, trials: int) -> dict[str, Any]:
    """Kill the server in the middle of a search, start it again after `seconds`; the figures when all has ended.

    Raises AssertionError where the search is over before the server is back, since that would prove nothing.
    """
    server = Server(folder)
    server.start()
    try:
        running = Search(folder, server.uri, "--trials", str(trials))
        try:
            wait_for(lambda: len(server.points()) >= BEFORE, SLOW, "the first metrics in MLflow")
            server.kill()
            figures = _while_away(running, server, seconds)
            assert running.wait(3600) == 0, running.said[-3000:]
        finally:
            running.end_all()
        result, told = running.result(), running.said
        figures |= {"trials": result["trials"], "warnings": told.count("does not take metrics")}
        return figures | compared(running.study, server, result["trials"])
    finally:
        server.kill()


def _while_away(running: Search, server: Server, seconds: float) -> dict[str, Any]:
    killed = time.monotonic()
    had, before = set(server.points()), len(recorded(running.study))
    while (gone := time.monotonic() - killed) < seconds:
        time.sleep(min(1.0, seconds - gone))
    server.start()
    wait_for(server.answers, SLOW, "the server's start")
    back = time.monotonic()
    assert not running.ended, "the search was over before MLflow was back: more trials are needed"
    waiting = recorded(running.study) - had
    wait_for(lambda: waiting <= set(server.points()), SLOW, "what waited")
    return {
        "seconds_without_a_server": round(back - killed, 1),
        "points_before": len(had),
        "points_written_meanwhile": len(waiting) + len(had) - before,
        "seconds_until_they_were_there": round(time.monotonic() - back, 1),
    }


def faults(figures: dict[str, Any]) -> list[str]:
    """What must not be among the figures of an outage."""
    wrong = [name for name in ("missing", "twice", "foreign", "wrong_status") if figures[name]]
    return wrong + [state for state in ("failed", "pruned") if figures["trials"][state]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long there is no server")
    parser.add_argument("--trials", type=int, default=80, help="enough for the search to outlive that")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    figures = outage(args.out.resolve(), args.seconds, args.trials)
    print(json.dumps(figures, indent=1))
    return 1 if faults(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
