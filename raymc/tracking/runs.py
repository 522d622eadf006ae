"""What a process that trains writes about a study, a trial and a seed. Imports neither MLflow nor torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from raymc.tracking.spool import Spool, Status

STUDY = "study"
"""The spool name of the study's own run."""

ENDINGS: dict[str, Status] = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "collapsed": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
}
"""MLflow's status of each state of a trial; the state itself is the tag `raymc.state`."""


INTERVALS = ("ci95", "ci95_bootstrap")
"""The keys of `raymc.metrics.seeds.summary` that are `[low, high]`."""


def spool_folder(study_dir: Path) -> Path:
    """Where a study's spools are."""
    return study_dir / "spool"


def run_name(trial: int | None, seed: int | None = None, kind: str = "search") -> str:
    """The spool name of a trial's or a seed's run: `trial-0007`, `confirm-0007.seed-3`, `seed-3`, else `study`."""
    head = [] if trial is None else [f"{'trial' if kind == 'search' else kind}-{trial:04d}"]
    tail = [] if seed is None else [f"seed-{seed}"]
    return ".".join(head + tail) or STUDY


def open_trial(
    study_dir: Path,
    trial: int,
    *,
    kind: str = "search",
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
) -> Spool:
    """Begin the run of a trial, or go on with it: a child of the study's run.

    `kind` is `search`, or the first word of its name (`confirm`). Raises InputError where the spool cannot be opened.
    """
    marks = {"raymc.trial": trial, "raymc.kind": kind}
    return _open(study_dir, run_name(trial, kind=kind), STUDY, marks | dict(tags or {}), params)


def open_seed(
    study_dir: Path,
    seed: int,
    *,
    trial: int | None = None,
    kind: str = "search",
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
) -> Spool:
    """Begin the run of one seed, or go on with it: a child of its trial's run, or of the study's without a trial.

    Raises InputError where the spool cannot be opened.
    """
    marks: dict[str, object] = {"raymc.seed": seed}
    if trial is not None:
        marks |= {"raymc.trial": trial, "raymc.kind": kind}
    name, parent = run_name(trial, seed, kind), run_name(trial, kind=kind)
    return _open(study_dir, name, parent, marks | dict(tags or {}), params)


def _open(
    study_dir: Path,
    name: str,
    parent: str,
    tags: Mapping[str, object],
    params: Mapping[str, object] | None,
) -> Spool:
    spool = Spool(spool_folder(study_dir) / f"{name}.jsonl")
    spool.start(parent=parent, tags=tags, params=params)
    return spool


def close_run(spool: Spool, state: str) -> None:
    """End a run with a trial's state (one of `ENDINGS`), which becomes the tag `raymc.state`."""
    spool.tags({"raymc.state": state})
    spool.end(ENDINGS[state])


def log_scores(study_dir: Path, trial: int, values: Mapping[str, float], step: int, *, kind: str = "search") -> None:
    """Write to the run of a trial that has ended what only its study can say of it; the run stays ended.

    `step` is the number of the study's trials so far. Raises InputError where the spool cannot be opened.
    """
    spool = Spool(spool_folder(study_dir) / f"{run_name(trial, kind=kind)}.jsonl")
    spool.metrics(values, step)
    spool.close()


def log_event(spool: Spool, event: Mapping[str, Any]) -> None:
    """Write an event that a training reports to the seed's run.

    An epoch's numbers become `<stage>.<name>` at step = epoch, a stage's `<stage>.seconds` and `<stage>.cached`; the
    final metrics keep their names. Other events and values that are no numbers are passed over.
    """
    if event["event"] == "epoch":
        values = {key: event[key] for key in event if key not in ("epoch", "epochs")}
        spool.metrics(dict(numbers(values, event["stage"])), event["epoch"])
    elif event["event"] == "stage":
        values = {key: event[key] for key in ("seconds", "cached", "epochs") if key in event}
        spool.metrics(dict(numbers(values, event["name"])), 0)
        spool.tags({f"raymc.stage.{event['name']}": event["key"]})
    elif event["event"] == "done":
        spool.metrics(dict(numbers(event["metrics"])), 0)


def log_statistics(spool: Spool, statistics: Mapping[str, Mapping[str, Any]], step: int) -> None:
    """Write statistics over seeds: `{"acc": {"mean": …}}` becomes `acc_mean`, an interval `acc_ci95_low` and `_high`.

    Texts and lists are passed over, and the intervals of a single seed, which have no width. `step` tells running
    statistics apart (seeds finished, trials finished): what was written at a step stands.
    """
    flat = {f"{metric}_{name}": value for metric, of in statistics.items() for name, value in _with_ends(of).items()}
    spool.metrics(dict(numbers(flat)), step)


def _with_ends(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of one metric, with the ends of its intervals as numbers."""
    ends: dict[str, Any] = {}
    for name in INTERVALS:
        if statistics.get(name) is not None and statistics.get("n") != 1:
            ends[f"{name}_low"], ends[f"{name}_high"] = statistics[name]
    return {**statistics, **ends}


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in `values` under dotted names; mappings inside are entered, everything else is passed over."""
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from numbers(value, name)
        elif isinstance(value, Real):
            yield name, float(value)
