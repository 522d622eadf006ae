"""Where a study's folder keeps its records: a file per seed, one per trial, written whole or not at all.

```
trials/0007/record.json            state, score, means over the seeds, per_seed
trials/0007/seed-3/result.json     one finished seed: never run again
confirm/0007/…                     the same configuration on fresh seeds
default/0000/…                     the default configuration on them, where it is not among the best
stages/0000/…                      a stage that several trials need, trained before them
runs/0000/…                        the seeds of a stability run, or of a table's cell
```
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from pathlib import Path

from raymc.atomic import write_json
from raymc.study.records import ENDED, Record, Row, SeedRun, Task, number

FOLDERS = {"search": "trials", "confirm": "confirm", "default": "default", "stage": "stages", "stability": "runs"}


def trial_folder(study: Path, kind: str, trial: int) -> Path:
    return study / FOLDERS[kind] / f"{trial:04d}"


def seed_folder(study: Path, kind: str, trial: int, seed: int) -> Path:
    return trial_folder(study, kind, trial) / f"seed-{seed}"


def stop_mark(study: Path, trial: int) -> Path:
    """The file by which a trial of the search is told to stop."""
    return trial_folder(study, "search", trial) / "stop.json"


def kind_of(seed: Path) -> str | None:
    """The kind of the task that writes a seed's folder, see `seed_folder`; None where it is no such folder."""
    kinds = {name: kind for kind, name in FOLDERS.items()}
    return kinds.get(seed.parent.parent.name)


def read_seed(study: Path, task: Task, seed: int) -> SeedRun | None:
    """What an earlier session left of one seed, if it came to an end."""
    folder = seed_folder(study, task.kind, task.trial, seed)
    run = _ended(read_json(folder / "result.json"), folder)
    return run if run is not None and run.seed == seed else None


def read_seeds(folder: Path) -> tuple[SeedRun, ...]:
    """The seeds of a configuration, whose folder it is, that have ended, in the order of their numbers."""
    found = [_ended(load_json(path), path.parent) for path in folder.glob("seed-*/result.json")]
    return tuple(sorted((run for run in found if run is not None), key=lambda run: run.seed))


def write_seed(study: Path, task: Task, run: SeedRun) -> None:
    write_json(seed_folder(study, task.kind, task.trial, run.seed) / "result.json", run.row)


def read_record(study: Path, kind: str, trial: int) -> Record | None:
    folder = trial_folder(study, kind, trial)
    content = read_json(folder / "record.json")
    return None if content is None or number(content.get("trial")) is None else Record.of(content, folder, kind)


def write_record(study: Path, record: Record) -> None:
    write_json(trial_folder(study, record.kind, record.trial) / "record.json", record.row)


def read_json(path: Path) -> Row | None:
    """A file's JSON object; None where it is absent or torn. Raises OSError where it is there and cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)  # NaN, Infinity
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def load_json(path: Path) -> Row | None:
    """A file's JSON object; None where it is absent, torn or cannot be read."""
    with suppress(OSError):
        return read_json(path)
    return None


def now() -> str:
    """The time in UTC, ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _ended(content: Row | None, folder: Path) -> SeedRun | None:
    if content is None or content.get("state") not in ENDED or not isinstance(content.get("seed"), int):
        return None
    return SeedRun.of(content, folder)
