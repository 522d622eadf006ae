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
from dataclasses import dataclass, replace
from pathlib import Path

from raymc.errors import InputError
from raymc.metrics.labellings import agreement, ari_matrix, certificate
from raymc.metrics.names import bounds
from raymc.metrics.seeds import collapsed_share, summary
from raymc.stability.comparison import common_seeds, compare_groups, shared_stages
from raymc.study.files import load_json, read_seeds, trial_folder
from raymc.study.groups import consensus_of, labels_of, seed_values
from raymc.study.reader import stage_records
from raymc.study.records import Record, Row, SeedRun

FACTS = "stability.json"
DATED = "-stability-"
"""What stands in a run's name between what was run and when."""

NOT_SHOWN = ("numerics",)
"""What `stability.json` says for those who go on with the run, and no report."""


@dataclass(frozen=True)
class GroupResult:
    """One configuration on its seeds: the JSON of it, the record of its seeds, and of stages trained before them."""

    result: Row
    record: Record
    stages: tuple[Record, ...] = ()

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
    def records(self) -> list[Record]:
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


def ended_seeds(folder: Path) -> tuple[SeedRun, ...]:
    """The results of a configuration's seeds, in their order. A torn one is left out."""
    return read_seeds(trial_folder(folder, "stability", 0))


def seed_statistics(runs: Sequence[SeedRun]) -> Row:
    """What a configuration's seeds say together.

    Of each metric that all finished ones have, `raymc.metrics.seeds.summary` with its `values`; `collapsed_share`; of
    two seeds' clusters or more `pairwise_ari`, the matrix of `agreement`, the `certificate` and the `consensus`.
    """
    found = {name: summary(values, bounds(name)) | {"values": values} for name, values in seed_values(runs).items()}
    share = {"collapsed_share": collapsed_share([run.state for run in runs])} if runs else {}
    return found | share | _agreement(runs)


def _facts(folder: Path) -> Row:
    facts = load_json(folder / FACTS)
    if facts is None:
        raise InputError(f"{folder}: no readable {FACTS} here")
    return {key: value for key, value in facts.items() if key not in NOT_SHOWN}


def _group(folder: Path, facts: Row) -> GroupResult:
    runs = ended_seeds(folder)
    missing = sorted(set(facts["seeds"]) - {run.seed for run in runs})
    result = facts | {
        "seeds": [run.seed for run in runs],
        **({"missing": missing} if missing else {}),
        "states": dict(Counter(run.state for run in runs)),
        **seed_statistics(runs),
        "folder": str(folder),
    }
    error = next((run.error for run in runs if run.error), None)
    record = replace(Record.of({"trial": 0, "error": error}, folder, "stability"), seeds=runs)
    return GroupResult(result, record, stage_records(folder))


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
        "consensus": together.scores if (together := consensus_of(runs)) else None,
    }
