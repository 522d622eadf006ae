"""Reads what a run of `stability` left in the storage, and says what its seeds say: the content of its JSON.

```
stability/<name>/stability.json              what was asked, and by what it was run
stability/<name>/runs/0000/seed-3/…          a folder per seed
stability/<name>/<arm>/stability.json, runs  with several arms: one such folder for each
```
Nothing else is needed to write its report again; of a run that was interrupted, the seeds that ended count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymc.errors import InputError
from raymc.metrics.seeds import agreement, ari_matrix, certificate, collapsed_share, summary
from raymc.reporting.artefacts import read_labels
from raymc.reporting.comparison import Row, common_seeds, compare_arms, finished, in_all, shared_stages
from raymc.reporting.records import Record, SeedRun
from raymc.reporting.study_reader import load_json, record_of

FACTS = "stability.json"
DATED = "-stability-"
"""What stands in a run's name between what was run and when."""

SEEDS = Path("runs") / "0000"
ENDED = ("finished", "diverged", "collapsed", "out_of_memory", "failed")


@dataclass(frozen=True)
class Arm:
    """One configuration on its seeds: the JSON of it, its seeds' results, and the same typed, with their folders."""

    result: Row
    record: Row
    runs: Record

    @property
    def name(self) -> str:
        """Without the date that a run of one arm has in its name."""
        name = str(self.result["name"])
        return re.sub(rf"{DATED}\d{{8}}-\d{{6}}$", "", name) or name

    @property
    def labelled(self) -> bool:
        return "acc" in self.result


@dataclass(frozen=True)
class Steady:
    """A run of `stability`. `result` is what `--json` prints but for the report: with one arm, that arm's."""

    result: Row
    arms: tuple[Arm, ...]

    @property
    def records(self) -> list[Row]:
        return [arm.record for arm in self.arms]

    @property
    def several(self) -> bool:
        return "arms" in self.result


def read_stability(folder: Path) -> Steady:
    """The run in `folder`. Raises InputError where it has no readable `stability.json`."""
    facts = _facts(folder)
    names = facts.get("arms")
    if names is None:
        arm = _arm(folder, facts)
        return Steady(arm.result, (arm,))
    # An arm that an interrupted run did not come to has no folder yet.
    arms = tuple(_arm(folder / name, _facts(folder / name)) for name in names if (folder / name / FACTS).is_file())
    if not arms:
        raise InputError(f"{folder}: no arm of it was begun")
    return Steady(_together(folder, facts, arms), arms)


def seed_statistics(folder: Path, rows: Sequence[Row]) -> Row:
    """What the results `rows` of a configuration's seeds say, `folder` holding their folders.

    Each metric that all finished seeds have as `raymc.metrics.seeds.summary` with its `values`; `collapsed_share`; and
    of two seeds' clusters or more `pairwise_ari`, the matrix of `agreement`, and the `certificate`.
    """
    done = finished({"per_seed": rows})
    values = {name: [row["metrics"][name] for row in done] for name in in_all(done)}
    share = {"collapsed_share": collapsed_share([row["state"] for row in rows])} if rows else {}
    return (
        {name: summary(found) | {"values": found} for name, found in values.items()} | share | _agreement(folder, done)
    )


def _facts(folder: Path) -> Row:
    facts = load_json(folder / FACTS)
    if facts is None:
        raise InputError(f"{folder}: no readable {FACTS} here")
    return dict(facts)


def _arm(folder: Path, facts: Row) -> Arm:
    place = folder / SEEDS
    found = [load_json(path) for path in place.glob("seed-*/result.json")]
    whole = (dict(row) for row in found if row and row.get("state") in ENDED and isinstance(row.get("seed"), int))
    rows = sorted(whole, key=lambda row: int(row["seed"]))
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
    return Arm(result, record, record_of(record, place, "stability"))


def _together(folder: Path, facts: Row, arms: Sequence[Arm]) -> Row:
    """What several arms say together."""
    records = [arm.record for arm in arms]
    shared = shared_stages(records)
    missing = [name for name in facts["arms"] if name not in [arm.name for arm in arms]]
    return facts | {
        "arms": [arm.result for arm in arms],
        **({"missing_arms": missing} if missing else {}),  # an interrupted run did not come to them
        "comparisons": compare_arms([arm.name for arm in arms], records),
        "common_seeds": common_seeds(records),
        "shared_stages": list(shared),
        "shared_keys": shared,
        "folder": str(folder),
    }


def _agreement(place: Path, done: Sequence[Row]) -> Row:
    """How alike the clusters of each two seeds are; empty with fewer than two of the same samples."""
    runs = [SeedRun(row["seed"], "finished", {}, (), 0.0, place / f"seed-{row['seed']}") for row in done]
    found: list[tuple[int, Any]] = [(run.seed, labels) for run in runs if (labels := _labels(run)) is not None]
    labels = [one for _, one in found]
    agreed = agreement(labels)
    if agreed is None:
        return {}
    return {
        "pairwise_ari": agreed,
        "agreement": {"seeds": [seed for seed, _ in found], "ari": ari_matrix(labels)},
        "certificate": certificate(labels),
    }


def _labels(run: SeedRun) -> Any:
    found: Mapping[str, Any] = read_labels(run)
    return found.get("labels")
