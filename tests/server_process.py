"""What the real servers of the tests have in common: a free port, and a process group that is killed without notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """A port of the loopback on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A command in a process group of its own, which writes to the file `log`; it may be started again."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self, words: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        """Run the words in the folder `cwd`; `environment` is added to that of this process."""
        settings = {**os.environ, **(environment or {})}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                words, cwd=cwd, env=settings, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it and what it started, which is all there is in its group, without notice."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
