"""Reads what a run of `stability` left in the storage, and says what its seeds say: the content of its JSON.

```
stability/<name>/stability.json              what was asked, and by what it was run
stability/<name>/runs/0000/seed-3/…          a folder per seed
stability/<name>/<name of one>/stability.json, runs  with several configurations: one such folder for each
```
Nothing else is needed to write its report again; of a run that was interrupted, the seeds that ended count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.metrics.seeds import agreement, ari_matrix, certificate, collapsed_share, summary
from raymc.reporting.artefacts import labels_in
from raymc.reporting.records import Record
from raymc.reporting.study_reader import load_json, record_of
from raymc.stability.comparison import Row, common_seeds, compare_groups, finished, in_all, shared_stages

FACTS = "stability.json"
DATED = "-stability-"
"""What stands in a run's name between what was run and when."""

NOT_SHOWN = ("numerics",)
"""What `stability.json` says for those who go on with the run, and no report."""

ENDED = ("finished", "diverged", "collapsed", "out_of_memory", "failed")


@dataclass(frozen=True)
class GroupResult:
    """One configuration on its seeds: the JSON of it, its seeds' results, and the same typed, with their folders."""

    result: Row
    record: Row
    runs: Record

    @property
    def name(self) -> str:
        """Without the date that a run of one configuration has in its name."""
        name = str(self.result["name"])
        return re.sub(rf"{DATED}\d{{8}}-\d{{6}}$", "", name) or name

    @property
    def labelled(self) -> bool:
        return "acc" in self.result


@dataclass(frozen=True)
class StabilityResult:
    """A run of `stability`. `result` is what `--json` prints but for the report: with one configuration, that one's."""

    result: Row
    groups: tuple[GroupResult, ...]

    @property
    def records(self) -> list[Row]:
        return [group.record for group in self.groups]

    @property
    def several(self) -> bool:
        return "arms" in self.result


def read_stability(folder: Path) -> StabilityResult:
    """The run in `folder`. Raises InputError where it has no readable `stability.json`."""
    facts = _facts(folder)
    names = facts.get("arms")
    if names is None:
        group = _group(folder, facts)
        return StabilityResult(group.result, (group,))
    # A configuration that an interrupted run did not come to has no folder yet.
    groups = tuple(_group(folder / name, _facts(folder / name)) for name in names if (folder / name / FACTS).is_file())
    if not groups:
        raise InputError(f"{folder}: no arm of it was begun")
    return StabilityResult(_together(folder, facts, groups), groups)


def seeds_folder(folder: Path) -> Path:
    """Where a configuration's seeds have their folders."""
    return folder / "runs" / "0000"


def ended_seeds(folder: Path) -> list[Row]:
    """The results of a configuration's seeds, in their order. A torn one is left out."""
    found = [load_json(path) for path in seeds_folder(folder).glob("seed-*/result.json")]
    whole = (dict(row) for row in found if row and row.get("state") in ENDED and isinstance(row.get("seed"), int))
    return sorted(whole, key=lambda row: int(row["seed"]))


def metric_statistics(rows: Sequence[Row]) -> dict[str, Row]:
    """Of each metric that all finished seeds have, `raymc.metrics.seeds.summary` with its `values`."""
    done = finished({"per_seed": rows})
    values = {name: [row["metrics"][name] for row in done] for name in in_all(done)}
    return {name: summary(found) | {"values": found} for name, found in values.items()}


def seed_statistics(folder: Path, rows: Sequence[Row]) -> Row:
    """What the results `rows` of a configuration's seeds say, `folder` holding their folders.

    `metric_statistics`; `collapsed_share`; and of two seeds' clusters or more `pairwise_ari`, the matrix of
    `agreement`, and the `certificate`.
    """
    share = {"collapsed_share": collapsed_share([row["state"] for row in rows])} if rows else {}
    return metric_statistics(rows) | share | _agreement(folder, finished({"per_seed": rows}))


def _facts(folder: Path) -> Row:
    facts = load_json(folder / FACTS)
    if facts is None:
        raise InputError(f"{folder}: no readable {FACTS} here")
    return {key: value for key, value in facts.items() if key not in NOT_SHOWN}


def _group(folder: Path, facts: Row) -> GroupResult:
    place, rows = seeds_folder(folder), ended_seeds(folder)
    missing = sorted(set(facts["seeds"]) - {row["seed"] for row in rows})
    result = facts | {
        "seeds": [row["seed"] for row in rows],
        **({"missing": missing} if missing else {}),
        "states": dict(Counter(row["state"] for row in rows)),
        **seed_statistics(place, rows),
        "folder": str(folder),
    }
    error = next((row["error"] for row in rows if row.get("error")), None)
    record = {"kind": "stability", "trial": 0, "per_seed": rows, "error": error}
    return GroupResult(result, record, record_of(record, place, "stability"))


def _together(folder: Path, facts: Row, groups: Sequence[GroupResult]) -> Row:
    """What several configurations say together."""
    records, names = [group.record for group in groups], [group.name for group in groups]
    shared = shared_stages(records)
    missing = [name for name in facts["arms"] if name not in names]
    return facts | {
        "arms": [group.result for group in groups],
        **({"missing_arms": missing} if missing else {}),  # an interrupted run did not come to them
        "comparisons": compare_groups(names, records),
        "common_seeds": common_seeds(records),
        "shared_stages": list(shared),
        "shared_keys": shared,
        "folder": str(folder),
    }


def _agreement(place: Path, done: Sequence[Row]) -> Row:
    """How alike the clusters of each two seeds are; empty with fewer than two of the same samples."""
    each = [(row["seed"], labels_in(place / f"seed-{row['seed']}").get("labels")) for row in done]
    found: list[tuple[int, Any]] = [(seed, labels) for seed, labels in each if labels is not None]
    labels = [one for _, one in found]
    agreed = agreement(labels)
    if agreed is None:
        return {}
    return {
        "pairwise_ari": agreed,
        "agreement": {"seeds": [seed for seed, _ in found], "ari": ari_matrix(labels)},
        "certificate": certificate(labels),
    }
