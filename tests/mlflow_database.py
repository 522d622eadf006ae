"""MLflow databases for tests, read back with SQL and not by the client that wrote them; and a study to write."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from raymc.tracking import runs
from raymc.tracking.sender import Sender
from raymc.tracking.spool import Spool
from raymc.tracking.store import Store, prepare

DEPRECATED = "ignore:The ``noload`` loader strategy is deprecated"
"""What MLflow 3.17 uses and SQLAlchemy 2.1 warns of."""


@functools.cache
def _blank() -> bytes:
    """A database after its migrations, which take seconds."""
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        Store(f"sqlite:///{file}", "space", {}).connect()
        return file.read_bytes()


def new_database(folder: Path) -> Path:
    """`mlflow.db` in `folder`, with the experiment `space` and nothing in it."""
    file = folder / "mlflow.db"
    file.write_bytes(_blank())
    return file


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def metrics(database: Path) -> Counter[tuple[str, str, int, float]]:
    """How often each (run's name, key, step, value) is there."""
    sql = "select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid)"
    return Counter(query(database, sql))


def table(database: Path, name: str) -> dict[tuple[str, str], str]:
    rows = query(database, f"select r.name, t.key, t.value from {name} t join runs r using (run_uuid)")
    return {(run, key): value for run, key, value in rows}


def sender(folder: Path, database: Path, study: str = "a study") -> Sender:
    return Sender(folder / "spool", f"sqlite:///{database}", "space", study=study)


def write_study(folder: Path, epochs: int = 30) -> Counter[tuple[str, str, int, float]]:
    """A study with a trial of two seeds, and what MLflow must have of it."""
    expected: Counter[tuple[str, str, int, float]] = Counter()
    with Spool(folder / "spool" / "study.jsonl") as study:
        study.start(name="a study", params={"heads.epochs": epochs})
        with runs.open_trial(folder, 1, params={"heads.weight_decay": 1e-3}) as trial:
            for seed in (0, 1):
                with runs.open_seed(folder, seed, trial=1) as log:
                    for epoch in range(1, epochs + 1):
                        row = {"loss": seed + 1 / epoch, "rate": 1e-9 * epoch / 3}
                        runs.log_event(log, {"event": "epoch", "stage": "heads", "epoch": epoch, **row})
                        name = runs.run_name(1, seed)
                        expected.update((name, f"heads.{key}", epoch, value) for key, value in row.items())
            runs.log_statistics(trial, {"acc": {"mean": 0.5}}, step=2)
            expected["trial-0001", "acc_mean", 2, 0.5] += 1
            runs.close_run(trial, "pruned")
    return expected
