"""What a study's folder holds about its trials: a file per seed, a record per trial, written whole or not at all.

```
trials/0007/record.json            state, score, means over the seeds, per_seed
trials/0007/seed-3/result.json     one finished seed: never run again
trials/0007/seed-3/events.jsonl    what its training reported, as it went (`raymc.study.events`)
confirm/0007/…                     the same configuration on fresh seeds
```
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.config import Value
from raymc.metrics.seeds import agreement, summary
from raymc.reporting.artefacts import labels_in
from raymc.search.judge import Judge
from raymc.training.outputs import write_json

RUNNING = "running"
FINISHED = "finished"
PRUNED = "pruned"
BAD = ("diverged", "collapsed", "out_of_memory", "failed")
FINAL = (FINISHED, PRUNED, *BAD)

REFUSED = "refused"
"""What a unit reports, and never records, that has stopped because the study's files cannot be written."""

FOLDERS = {"search": "trials", "confirm": "confirm", "stability": "runs"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """Work that one trial of Ray Tune does: a configuration over `seeds`, one after the other.

    `group` are all seeds of the configuration's record: a unit of the search runs the whole group, one of the
    confirmation or of a stability run a single seed of it.
    """

    kind: str
    trial: int
    params: Mapping[str, Value]
    seeds: tuple[int, ...]
    group: tuple[int, ...]

    @property
    def name(self) -> str:
        """Short words for tables and lines: `trial 7`, `confirm 7 seed 1000`, `seed 3`."""
        if self.kind == "search":
            return f"trial {self.trial}"
        head = "" if self.kind == "stability" else f"{self.kind} {self.trial} "
        return f"{head}seed {self.seeds[0]}"


def unit_row(unit: Unit) -> Row:
    """The unit as plain JSON types, as a trial of Tune carries it."""
    return {**vars(unit), "params": dict(unit.params), "seeds": list(unit.seeds), "group": list(unit.group)}


def unit_of(row: Mapping[str, Any]) -> Unit:
    """The inverse of `unit_row`."""
    return Unit(row["kind"], row["trial"], dict(row["params"]), tuple(row["seeds"]), tuple(row["group"]))


def trial_folder(study: Path, kind: str, trial: int) -> Path:
    return study / FOLDERS[kind] / f"{trial:04d}"


def seed_folder(study: Path, kind: str, trial: int, seed: int) -> Path:
    return trial_folder(study, kind, trial) / f"seed-{seed}"


def read_json(path: Path) -> Row | None:
    """A file's JSON object; None where it is absent or torn. Raises OSError where it is there and cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_seed(study: Path, unit: Unit, seed: int) -> Row | None:
    """What an earlier sitting left of one seed, if it came to an end."""
    row = read_json(seed_folder(study, unit.kind, unit.trial, seed) / "result.json")
    return row if row is not None and row.get("state") in FINAL and row.get("seed") == seed else None


def write_seed(study: Path, unit: Unit, row: Row) -> None:
    write_json(seed_folder(study, unit.kind, unit.trial, row["seed"]) / "result.json", row)


def read_record(study: Path, kind: str, trial: int) -> Row | None:
    return read_json(trial_folder(study, kind, trial) / "record.json")


def write_record(study: Path, record: Row) -> None:
    write_json(trial_folder(study, record["kind"], record["trial"]) / "record.json", record)


def make_record(study: Path, unit: Unit, judge: Judge, state: str | None = None, error: str | None = None) -> Row:
    """The record of a unit's group as its seeds stand in the folder.

    `state` None works it out: running until every seed of the group has ended, then finished, with the first of the
    judge's `scores` as its score. One bad seed names the state of the whole group, which has no scores then: a mean
    over the seeds that happened to survive would flatter it. In the search it also ends the group.
    """
    rows = [row for seed in unit.group if (row := read_seed(study, unit, seed)) is not None]
    state = state or _state(unit, rows)
    # Pairs of seeds are many, so those of a confirmation or a stability run are compared once, at the end.
    group = group_metrics(study, unit, rows) if unit.kind == "search" or state == FINISHED else {}
    scores = judge.scores(seed_values(rows), group) if state == FINISHED else None
    if state == FINISHED and scores is None and not judge.ranks:
        state, error = "failed", error or f"the seeds give no {' and '.join(judge.metrics)} together"
    before = read_record(study, unit.kind, unit.trial) or {}
    return {
        "trial": unit.trial,
        "kind": unit.kind,
        "state": state,
        "params": dict(unit.params),
        "score": scores[0] if scores else None,
        "scores": scores,
        "metrics": mean_metrics(rows) | group,
        "per_seed": rows,
        "seeds": list(unit.group),
        "started": before.get("started") or now(),
        "seconds": sum(row["seconds"] for row in rows),
        "error": error or next((row["error"] for row in rows if row.get("error")), None),
        "run_id": before.get("run_id"),
    }


def seed_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values of every metric that all finished seeds have, in the order of the seeds."""
    found = [row["metrics"] for row in rows if row["state"] == FINISHED]
    names = [name for name in found[0] if all(name in metrics for metrics in found)] if found else []
    return {name: [metrics[name] for metrics in found] for name in names}


def mean_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every metric that all finished seeds have."""
    return {name: statistics.fmean(values) for name, values in seed_values(rows).items()}


def statistics_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
    """Mean, spread and interval of every metric that all finished seeds have."""
    return {name: summary(values) for name, values in seed_values(rows).items()}


def group_metrics(study: Path, unit: Unit, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`stability`, the mean adjusted Rand index of each two finished seeds' clusters; empty with fewer than two."""
    done = [row["seed"] for row in rows if row["state"] == FINISHED]
    each = [labels_in(seed_folder(study, unit.kind, unit.trial, seed)) for seed in done]
    found = [arrays["labels"] for arrays in each if arrays]
    agreed = agreement(found) if len(found) == len(done) else None
    return {} if agreed is None else {"stability": agreed["mean"]}


def now() -> str:
    """The time in UTC, ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _state(unit: Unit, rows: Sequence[Mapping[str, Any]]) -> str:
    bad = [row["state"] for row in rows if row["state"] in BAD]
    ended = len(rows) == len(unit.group)
    if bad and (ended or unit.kind == "search"):
        return str(bad[0])
    return FINISHED if ended else RUNNING
