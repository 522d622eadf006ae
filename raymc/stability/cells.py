"""What has been run of a table of a paper: a folder per cell, in it one per configuration.

```
tables/<table>/<row>/<dataset>/<key>/cell.json      the configuration, its seeds, with what they were run
tables/<table>/<row>/<dataset>/<key>/runs/0000/…    a folder per seed, as of a stability run
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raymc.errors import InputError
from raymc.metrics.names import bounds
from raymc.metrics.seeds import summary
from raymc.stability.reader import ended_seeds
from raymc.study.files import load_json
from raymc.study.groups import seed_values
from raymc.study.records import FINISHED, Row, SeedRun


@dataclass(frozen=True)
class CellResult:
    """One configuration of a cell: `facts` is its cell.json, `seeds` the results of those seeds that ended."""

    folder: Path
    facts: Row
    seeds: tuple[SeedRun, ...]

    @property
    def smoke(self) -> bool:
        return bool(self.facts["smoke"])

    @property
    def finished(self) -> list[SeedRun]:
        return [run for run in self.seeds if run.state == FINISHED]

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(run.state for run in self.seeds))

    @property
    def missing(self) -> list[int]:
        """Seeds that were asked for and have not ended."""
        ended = {run.seed for run in self.seeds}
        return [seed for seed in self.facts["seeds"] if seed not in ended]

    def statistics(self) -> dict[str, Row]:
        """Of every metric that all finished seeds have, as `raymc.metrics.seeds.summary`, with its `values`.

        `error_rate` is 1 - acc.
        """
        values = seed_values(self.seeds)
        if "acc" in values:
            values["error_rate"] = [1 - value for value in values["acc"]]
        return {name: {**summary(those, bounds(name)), "values": those} for name, those in values.items()}


def tables_root(storage: str) -> Path:
    """The folder of all tables. Raises InputError where the storage is no folder."""
    if "://" in storage:
        raise InputError(
            f"--storage {storage}: stages may live in an object store, the results of tables may not; give a folder"
        )
    return Path(storage) / "tables"


def read_cell(folder: Path) -> CellResult | None:
    """The configuration in a folder; None where its cell.json is absent or torn."""
    facts = load_json(folder / "cell.json")
    if facts is None or not {"settings", "seeds", "smoke", "updated"} <= set(facts):
        return None
    return CellResult(folder, facts, ended_seeds(folder))


def read_cells(folder: Path) -> list[CellResult]:
    """Every configuration of a cell."""
    found = [read_cell(path.parent) for path in sorted(folder.glob("[!.]*/cell.json"))]
    return [cell for cell in found if cell is not None]


def choose(found: Sequence[CellResult]) -> CellResult | None:
    """Of several configurations of a cell the one that a table shows.

    One whose seeds have all ended comes before one that has a finished seed, the table's own before one with overrides
    (but for which stages share a seed), a newer one before an older. Smoke runs come last: their figures stand for
    nothing. None where no seed finished.
    """
    some = [cell for cell in found if cell.finished]
    return max(
        some, key=lambda cell: (not cell.smoke, not cell.missing, _is_own(cell), cell.facts["updated"]), default=None
    )


def _is_own(cell: CellResult) -> bool:
    return not set(cell.facts.get("overrides") or ()) - {"seeds_from", "precision"}
