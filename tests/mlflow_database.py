"""MLflow databases for tests, read back with SQL and not by the client that wrote them; and a study to write."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from raymc.atomic import write_json
from raymc.study import files, groups
from raymc.study.events import EVENTS, EventLog
from raymc.study.records import SeedRun
from raymc.tracking.client import Client, prepare
from raymc.tracking.projection import Run, run_name, statistics_metrics, texts
from raymc.tracking.sender import Sender

DEPRECATED = "ignore:The ``noload`` loader strategy is deprecated"
"""What MLflow 3.17 uses and SQLAlchemy 2.1 warns of."""

Points = Counter[tuple[str, str, int, float]]


@functools.cache
def _blank() -> bytes:
    """A database after its migrations, which take seconds."""
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        Client(f"sqlite:///{file}", "space", {}).connect()
        return file.read_bytes()


def new_database(folder: Path) -> Path:
    """`mlflow.db` in `folder`, with the experiment `space` and nothing in it."""
    file = folder / "mlflow.db"
    file.write_bytes(_blank())
    return file


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def metrics(database: Path) -> Points:
    """How often each (run's name, key, step, value) is there."""
    sql = "select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid)"
    return Counter(query(database, sql))


def table(database: Path, name: str) -> dict[tuple[str, str], str]:
    rows = query(database, f"select r.name, t.key, t.value from {name} t join runs r using (run_uuid)")
    return {(run, key): value for run, key, value in rows}


def sender(folder: Path, database: Path, study: str = "a study", **own: Any) -> Sender:
    run = Run("study", title=study, state="finished", params=texts({"heads.epochs": 30}))
    return Sender(folder, f"sqlite:///{database}", "space", study=run)


def train(folder: Path, seed: int, epochs: Iterable[int], loss: float = 1.0, trial: int = 1) -> dict[str, Any]:
    """What a process of a trial leaves of a seed that reports `epochs`; the seed's result."""
    place = files.seed_folder(folder, "search", trial, seed)
    with EventLog(place / EVENTS) as log:
        for epoch in epochs:
            row = {"loss": seed + loss / epoch, "rate": 1e-9 * epoch / 3}
            log.append({"event": "epoch", "stage": "heads", "epoch": epoch, "epochs": 30, **row})
    return {
        "seed": seed,
        "state": "finished",
        "metrics": {"acc": 0.5 + seed},
        "stages": [],
        "error": None,
        "seconds": 1,
    }


def record(
    folder: Path, rows: Iterable[Mapping[str, Any]], state: str = "running", trial: int = 1, **own: Any
) -> dict[str, Any]:
    """Write a trial's record, and the results of its seeds."""
    found = {"trial": trial, "kind": "search", "state": state, "params": {"heads.weight_decay": 1e-3}, "metrics": {}}
    found |= {"per_seed": list(rows), "seeds": [0, 1], "started": "2026-01-01T00:00:00+00:00"} | own
    for row in found["per_seed"]:
        write_json(files.seed_folder(folder, "search", trial, row["seed"]) / "result.json", row)
    write_json(files.trial_folder(folder, "search", trial) / "record.json", found)
    return found


def write_study(folder: Path, epochs: int = 30) -> Points:
    """A study with a trial of two seeds, and what MLflow must have of it."""
    rows = [train(folder, seed, range(1, epochs + 1)) for seed in (0, 1)]
    record(folder, rows, "pruned")
    expected: Points = Counter()
    for seed in (0, 1):
        for epoch in range(1, epochs + 1):
            expected[run_name(1, seed), "heads.loss", epoch, seed + 1 / epoch] += 1
            expected[run_name(1, seed), "heads.rate", epoch, 1e-9 * epoch / 3] += 1
        expected[run_name(1, seed), "acc", 0, 0.5 + seed] += 1
        statistics = statistics_metrics(groups.statistics_of([SeedRun.of(row, folder) for row in rows[: seed + 1]]))
        numbers = {key: value for key, value in statistics.items() if isinstance(value, int | float)}
        expected.update(("trial-0001", key, seed + 1, value) for key, value in numbers.items())
    return expected
