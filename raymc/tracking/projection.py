"""What the records of a study say, as runs of MLflow: one for each trial, below it one for each of its seeds.

Everything is read anew from the files, so that it can be sent to any MLflow at any time. A point is known by its metric
and step; its time comes from the files too, so that one that is sent twice is the same.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from raymc.study import files, groups
from raymc.study.events import EVENTS, Event, read_events, read_lines
from raymc.study.records import FINAL, FINISHED, PRUNED, SeedRun

STUDY = "study"
"""The name of the study's own run."""

ENDINGS = {
    FINISHED: "FINISHED",
    PRUNED: "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "collapsed": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
}
"""MLflow's status of each state of a run; the state itself is the tag `raymc.state`."""

INTERVALS = ("ci95", "ci95_bootstrap")
"""The keys of `raymc.metrics.seeds.summary` that are `[low, high]`."""

PLACE = ("event", "time", "stage", "epoch", "epochs", "cached")
"""Keys of an epoch's event that are no numbers of the training."""

Point = tuple[str, float, int, int]
"""A metric's key, value, time in milliseconds since 1970, and step."""


@dataclass(frozen=True)
class Run:
    """A run as it should be in MLflow; without a `state` it goes on. Times in milliseconds since 1970."""

    name: str
    parent: str | None = None
    state: str | None = None
    started: int = 0
    ended: int = 0
    title: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()

    @property
    def status(self) -> str:
        return "RUNNING" if self.state is None else ENDINGS[self.state]


def run_name(trial: int | None, seed: int | None = None, kind: str = "search") -> str:
    """The name of a trial's or a seed's run: `trial-0007`, `confirm-0007.seed-3`, `seed-3`, else `study`."""
    head = [] if trial is None else [f"{'trial' if kind == 'search' else kind}-{trial:04d}"]
    tail = [] if seed is None else [f"seed-{seed}"]
    return ".".join(head + tail) or STUDY


def trial_places(study: Path) -> Iterator[tuple[str, int]]:
    """The kind and number of each trial that has a folder, those of the search first."""
    for kind, folder in files.FOLDERS.items():
        names = sorted(path.name for path in (study / folder).glob("[0-9]*"))
        yield from ((kind, int(name)) for name in names if name.isdecimal())


class TrialRuns:
    """The runs of one trial as its records stand now.

    Args:
        over: nobody works at the study any more, so what has not ended was interrupted.

    Attributes:
        states: the state of each run by its name, a trial's before those of its seeds; None while it goes on.
    """

    def __init__(self, study: Path, kind: str, number: int, over: bool = False) -> None:
        self._study, self._kind = study, kind
        self._number = None if kind == "stability" else number
        self._folder = files.trial_folder(study, kind, number)
        record = self._record = files.read_record(study, kind, number)
        self._ended = {run.seed: run for run in (record.seeds if record else ())}
        self._seeds: dict[str, int] = {}
        self.states: dict[str, str | None] = {}
        if record is None and self._number is not None:
            return  # torn, or not there yet
        state = record.state if record and record.state in FINAL else "interrupted" if over else None
        if self._number is not None:
            self.states[run_name(number, kind=kind)] = state
        began = {int(path.parent.name[5:]) for path in self._folder.glob(f"seed-[0-9]*/{EVENTS}")}
        for seed in sorted(began | set(self._ended)):
            name = run_name(self._number, seed, kind)
            self._seeds[name] = seed
            # A seed without a result ends as its trial does, that was stopped or lost with its process.
            self.states[name] = self._ended[seed].state if seed in self._ended else state

    def stamp(self, name: str) -> tuple[object, ...]:
        """What changes with the files that a run is read from."""
        read = (f"seed-{self._seeds[name]}/{EVENTS}",) if name in self._seeds else ("record.json",)
        return (self.states[name], *(_stamp(self._folder / file) for file in read))

    def run(self, name: str, steps: Mapping[str, int]) -> Run:
        """A run; of its points those up to `steps`, the last one of each metric in MLflow, may be left out."""
        return self._seed(name, self._seeds[name]) if name in self._seeds else self._trial(name, steps)

    def _trial(self, name: str, steps: Mapping[str, int]) -> Run:
        assert self._record is not None
        seeds, times = self._record.seeds, self._times()
        ends = {len(seeds): times[-1]}
        if self._kind == "search":
            # A step that is there may be there in part, those before it are whole.
            there = max((step for key, step in steps.items() if key.endswith("_mean")), default=0)
            ends = {count: times[count] for count in range(max(1, there), len(seeds) + 1)}
        elif self.states[name] not in FINAL:
            ends = {}  # seeds of a confirmation end in any order: it has one statistic, of all
        points = [point for count, time in ends.items() for point in self._statistics(seeds[:count], time)]
        return Run(
            name,
            STUDY,
            self.states[name],
            started=times[0],
            ended=times[-1],
            params=texts(self._record.params),
            tags=texts({"raymc.trial": self._number, "raymc.kind": self._kind}),
            points=tuple(points),
        )

    def _times(self) -> list[int]:
        """When the trial began, and when each of its seeds ended; they never go back."""
        times = [_milliseconds(self._record.started if self._record else "")]
        for run in self._ended.values():
            times.append(max(times[-1], _written(run.folder / "result.json")))
        return times

    def _statistics(self, seeds: Sequence[SeedRun], time: int) -> Iterator[Point]:
        """Statistics over the seeds that had ended by then, at the step of their number."""
        assert self._record is not None
        found = groups.statistics_of(seeds)
        agreed = groups.group_metrics(seeds) if len(seeds) < len(self._record.seeds) else self._record.metrics
        found["pairwise_ari"] = {"mean": agreed.get("stability")}
        return points_of(statistics_metrics(found), time, len(seeds))

    def _seed(self, name: str, seed: int) -> Run:
        folder, run = self._folder / f"seed-{seed}", self._ended.get(seed)
        end = _written(folder / "result.json")
        events = read_events(folder / EVENTS) or list(_events_of(run, folder, end))
        started = events[0]["time"] if events else self._times()[0]
        ended = events[-1]["time"] if events else max(started, end)
        points = [point for event in events for point in event_points(event)]
        points += points_of(run.metrics if run else {}, ended, 0)
        tags: dict[str, object] = {"raymc.seed": seed}
        if run and run.precision:
            tags["raymc.precision"] = run.precision
        if self._number is not None:
            tags |= {"raymc.trial": self._number, "raymc.kind": self._kind}
        tags |= {f"raymc.stage.{event['name']}": event["key"] for event in events if event["event"] == "stage"}
        parent = run_name(self._number, kind=self._kind)
        return Run(name, parent, self.states[name], started, ended, tags=texts(tags), points=tuple(points))


def event_points(event: Event) -> Iterator[Point]:
    """An epoch's numbers as `<stage>.<name>` at step = epoch, a stage's `<stage>.seconds`, `.cached` and `.epochs`."""
    if event["event"] == "epoch":
        values = {f"{event['stage']}.{key}": value for key, value in event.items() if key not in PLACE}
        yield from points_of(values, event["time"], event["epoch"])
    elif event["event"] == "stage":
        values = {f"{event['name']}.{key}": event.get(key) for key in ("seconds", "cached", "epochs")}
        yield from points_of(values, event["time"], 0)


def points_of(values: Mapping[str, object], time: int, step: int) -> Iterator[Point]:
    """The finite numbers among `values`; everything else is passed over."""
    for key, value in values.items():
        if isinstance(value, Real) and math.isfinite(value):
            yield key, float(value), time, step


def statistics_metrics(statistics: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """Statistics over seeds by metric: `{"acc": {"mean": …}}` becomes `acc_mean`, an interval `acc_ci95_low`, `_high`.

    The intervals of a single seed, which have no width, are left out.
    """
    found: dict[str, object] = {}
    for metric, of in statistics.items():
        found |= {f"{metric}_{name}": value for name, value in of.items()}
        for name in INTERVALS:
            if of.get(name) is not None and of.get("n") != 1:
                found[f"{metric}_{name}_low"], found[f"{metric}_{name}_high"] = of[name]
    return found


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Values as MLflow keeps them; what is no text is written as on the command line (`true`, `null`, `1e-05`)."""
    return {key: v if isinstance(v, str) else json.dumps(v, default=str) for key, v in values.items()}


def _events_of(run: SeedRun | None, folder: Path, time: int) -> Iterator[Event]:
    """The events of a seed that has none in a file, since it was trained by an older version: its curve and stages."""
    for epoch in read_lines(folder / "curve.jsonl"):
        if not epoch.get("cached"):
            yield {**epoch, "event": "epoch", "time": time}
    for stage in run.stages if run else ():
        yield {**stage.row, "event": "stage", "time": time}


def _milliseconds(moment: str) -> int:
    try:
        return int(datetime.datetime.fromisoformat(moment).timestamp() * 1000)
    except ValueError:
        return 0


def _written(path: Path) -> int:
    """When a file was written; 0 where it is absent."""
    stamp = _stamp(path)
    return stamp[1] // 1_000_000 if stamp else 0


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
