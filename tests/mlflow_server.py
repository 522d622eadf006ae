"""A real `mlflow server` for tests: killed without notice, started again, its database read with SQL."""

from __future__ import annotations

import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.server_process import ServerProcess, free_port


class Server:
    """`mlflow server` on a free port of this machine, in a process group of its own, its files in `folder`.

    Its runs are in a SQLite file there, or in the database at `backend`.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, backend: str | None = None) -> None:
        self.port = free_port()
        self.database = folder / "server.db"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.backend = backend or f"sqlite:///{self.database}"
        self._environment = environment or {}
        self._process = ServerProcess(folder / "server.log")

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.backend]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process.start(command, self.database.parent, settings | {**self._environment})

    def answers(self) -> bool:
        """Whether something listens at its port: its workers take a request then, or let it wait."""
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End the server and the workers it started, without notice."""
        self._process.kill()

    def points(self) -> Counter[tuple[str, str, int, float]]:
        """How often each (name of the run, key, step, value) is in the server's database."""
        sql = "select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid)"
        return Counter(self.rows(sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds; nothing while the server is still making its tables."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            try:
                return connection.execute(sql).fetchall()
            except sqlite3.OperationalError:
                return []


def wait_for(condition: Callable[[], bool], seconds: float, what: str = "it") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} takes too long"
        time.sleep(0.2)
