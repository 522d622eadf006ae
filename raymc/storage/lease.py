"""A lease with a heartbeat: of several processes that need one stage, one computes and the others wait.

It saves work and is not needed for correctness: stage results are named by their content and written atomically.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fsspec import AbstractFileSystem

from raymc.storage.objects import is_local, patiently

BEAT_SECONDS = 3.0
STALE_SECONDS = 15.0


class Lease:
    """The right to compute one stage, held while the `with` block runs.

    `try_acquire` never blocks for long. A holder whose heartbeat stands still for `STALE_SECONDS` on the waiter's
    own clock, or whose process is gone from this machine, is taken over; then `taken_over` is called.
    """

    def __init__(self, fs: AbstractFileSystem, path: str, taken_over: Callable[[], None] = lambda: None) -> None:
        self.fs, self.path, self.taken_over = fs, path, taken_over
        self.owner = uuid.uuid4().hex
        self.lost = False  # whether another has taken it over
        self._seen: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._beat = 0
        self._thread: threading.Thread | None = None

    def try_acquire(self) -> bool:
        """True if this process now holds the lease."""
        return self._try() if is_local(self.fs) else patiently(self._try, self.path)

    def _try(self) -> bool:
        try:
            held = self._read()
        except OSError:
            self._seen = None  # the store is away, for the holder as well: its silence says nothing
            raise
        if held is not None and json.loads(held)["owner"] == self.owner:
            return True  # made by a request whose answer was lost
        if held is not None and not self._is_stale(held):
            return False
        if held is not None and not self._remove(held):
            return False
        won = self._create()
        if won and held is not None:
            self.taken_over()
        return won

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.release()

    def release(self) -> None:
        """Give the lease back if it is still ours."""
        with contextlib.suppress(FileNotFoundError) if is_local(self.fs) else contextlib.suppress(OSError):
            held = self._read()
            if held is not None and json.loads(held)["owner"] == self.owner:
                self.fs.rm_file(self.path)

    def _text(self) -> str:
        return json.dumps({"owner": self.owner, "beat": self._beat, "place": _place(), "pid": os.getpid()})

    def _read(self) -> str | None:
        try:
            text: str = self.fs.cat_file(self.path).decode()
            json.loads(text)["owner"]
            return text
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return json.dumps({"owner": "torn", "beat": -1, "place": "", "pid": 0})

    def _is_stale(self, held: str) -> bool:
        holder = json.loads(held)
        if holder["place"] == _place() and not _is_alive(int(holder["pid"])):
            return True
        now = time.monotonic()
        if self._seen is None or self._seen[0] != held:
            self._seen = (held, now)
        return now - self._seen[1] > STALE_SECONDS

    def _remove(self, held: str) -> bool:
        """Move the stale lease aside; of several waiters one succeeds."""
        if self._read() != held:
            return False
        try:
            aside = f"{self.path}.{self.owner}"
            self.fs.mv(self.path, aside)
            self.fs.rm_file(aside)
        except FileNotFoundError:
            return False
        return True

    def _create(self) -> bool:
        if is_local(self.fs):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return False
            with os.fdopen(handle, "w") as file:
                file.write(self._text())
            return True
        # An object store has no exclusive creation everywhere: the last writer wins, so look again.
        self.fs.pipe_file(self.path, self._text().encode())
        time.sleep(0.5)
        held = self._read()
        return held is not None and json.loads(held)["owner"] == self.owner

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a store that is away for a moment costs one beat
                held = self._read()
                if held is None or json.loads(held)["owner"] != self.owner:
                    self.lost = True
                    return
                self._beat += 1
                self.fs.pipe_file(self.path, self._text().encode())


def _place() -> str:
    """This machine and process-number space: a pid says nothing elsewhere."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        space, boot = 0, ""
    return f"{socket.gethostname()}/{boot}/{space}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
