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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raymc.errors import InputError
from raymc.metrics.seeds import agreement, ari_matrix, certificate, collapsed_share, summary
from raymc.reporting.comparison import common_seeds, compare_arms, shared_stages
from raymc.study.files import load_json, read_seeds
from raymc.study.groups import labels_of, seed_values
from raymc.study.records import Record, Row, SeedRun

FACTS = "stability.json"
DATED = "-stability-"
"""What stands in a run's name between what was run and when."""

SEEDS = Path("runs") / "0000"


@dataclass(frozen=True)
class Arm:
    """One configuration on its seeds: the JSON of it, and the record of its seeds."""

    result: Row
    record: Record

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
    def records(self) -> list[Record]:
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


def seed_statistics(runs: Sequence[SeedRun]) -> Row:
    """What a configuration's seeds say together.

    Each metric that all finished seeds have as `raymc.metrics.seeds.summary` with its `values`; `collapsed_share`; and
    of two seeds' clusters or more `pairwise_ari`, the matrix of `agreement`, and the `certificate`.
    """
    found = {name: summary(values) | {"values": values} for name, values in seed_values(runs).items()}
    share = {"collapsed_share": collapsed_share([run.state for run in runs])} if runs else {}
    return found | share | _agreement(runs)


def _facts(folder: Path) -> Row:
    facts = load_json(folder / FACTS)
    if facts is None:
        raise InputError(f"{folder}: no readable {FACTS} here")
    return dict(facts)


def _arm(folder: Path, facts: Row) -> Arm:
    runs = read_seeds(folder / SEEDS)
    missing = sorted(set(facts["seeds"]) - {run.seed for run in runs})
    result = facts | {
        "seeds": [run.seed for run in runs],
        **({"missing": missing} if missing else {}),
        "states": dict(Counter(run.state for run in runs)),
        **seed_statistics(runs),
        "folder": str(folder),
    }
    error = next((run.error for run in runs if run.error), None)
    return Arm(result, replace(Record.of({"trial": 0, "error": error}, folder / SEEDS, "stability"), seeds=runs))


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


def _agreement(runs: Sequence[SeedRun]) -> Row:
    """How alike the clusters of each two seeds are; empty with fewer than two of the same samples."""
    found = labels_of(runs)
    labels = list(found.values())
    agreed = agreement(labels)
    if agreed is None:
        return {}
    return {
        "pairwise_ari": agreed,
        "agreement": {"seeds": list(found), "ari": ari_matrix(labels)},
        "certificate": certificate(labels),
    }
