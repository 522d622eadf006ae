"""A PostgreSQL server for a test: Debian's binaries, a data folder of its own, a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server_process import free_port

PASSWORD = "a-password-of-the-test"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    for folder in (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *_path()):
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return None


class Postgres:
    """A server on a free port of the loopback; `url` is what `--database` takes."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self.bin, self.folder, self.port = bin, folder, free_port()
        self._run("initdb", "-U", "raymc", "--auth=scram-sha-256", "--pwfile", str(folder / "pw"), "-D", self._data)
        self.start()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg2://raymc:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def rows(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement gives back, if it does."""
        import psycopg2

        link = psycopg2.connect(self.url_of(database).replace("+psycopg2", ""))
        try:
            link.autocommit = True  # for `create database`
            with link.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            link.close()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-D", self._data, "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-w", "-D", self._data, "-m", mode, "stop")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, word: str, *words: str) -> None:
        done = subprocess.run(
            [*_as_another(), str(self.bin / word), *words], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{word}: {done.stdout}{done.stderr}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server. AssertionError where PostgreSQL is missing: ask `binaries` before."""
    found = binaries()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="raymc-pg-", dir="/tmp"))  # short, and open to the other user
    try:
        (folder / "pw").write_text(PASSWORD)
        for path in (folder, folder / "pw"):
            os.chown(path, *_ids())
        server = Postgres(found, folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _path() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]


def _ids() -> tuple[int, int]:
    """PostgreSQL refuses root."""
    if os.geteuid():
        return os.geteuid(), os.getegid()
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _as_another() -> list[str]:
    if os.geteuid():
        return []
    user, group = _ids()
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
