"""A lease with a heartbeat: of several processes that need one stage, one computes and the others wait.

A lease is a folder in which each holder has a file of its own: its name says who it is, its content is the heartbeat.
So whoever takes over names the very holder that was seen dead, and no other can be meant. The lease saves work and is
not needed for correctness: a stage's key names what its result is of, and results are published whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from fsspec import AbstractFileSystem

from raymc.atomic import replaced
from raymc.storage.objects import T, is_local, listing, patiently

BEAT_SECONDS = 3.0
STALE_SECONDS = 15.0
POLL_SECONDS = 0.5
TRIES = 4
"""How often one that reaches for a lease in an object store waits for others to withdraw."""


class Lease:
    """The right to compute one stage, held while the `with` block runs; in a folder, see `lease_at`.

    `try_acquire` never blocks for long. A holder whose heartbeat stands still for `STALE_SECONDS` on the waiter's
    own clock, or whose process is gone from this machine, is taken over; then `taken_over` is called. There is one file
    at a time, and a take-over is one rename of the very file of the dead, which succeeds once.

    Attributes:
        lost: whether another has taken it over.
        waited: seconds that `acquire_unless` waited for another holder.
    """

    def __init__(self, fs: AbstractFileSystem, path: str, taken_over: Callable[[], None] = lambda: None) -> None:
        self.fs, self.path, self.taken_over = fs, path, taken_over
        self.name = f"{uuid.uuid4().hex}.{_machine()}.{os.getpid()}"
        self.lost, self.waited = False, 0.0
        self._file, self._beat = f"{path}/{self.name}", 0
        self._seen: dict[str, tuple[object, float]] = {}  # of each holder the last beat, and since when
        self._dead: set[str] = set()
        self._followed: set[str] = set()  # the dead whose place this one took
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def try_acquire(self) -> bool:
        """True if this process now holds the lease."""
        return patiently(self._try, self.fs, self.path)

    def acquire_unless(self, find: Callable[[], T | None], patience: float = math.inf) -> T | None:
        """What `find` finds, asked again and again while another holds the lease; None once the lease is ours.

        Raises TimeoutError after `patience` seconds.
        """
        begun = time.monotonic()
        while (found := find()) is None and not self.try_acquire():
            if self.waited > patience:
                raise TimeoutError(f"{self.path} is held by another process")
            time.sleep(POLL_SECONDS)
            self.waited = time.monotonic() - begun
        if found is None and (found := find()) is not None:  # published in between
            self.release()
        return found

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.release()

    def is_ours(self) -> bool:
        """Whether no other has taken it over, as far as is known; where one could have, it is asked anew."""
        return not self.lost

    def release(self) -> None:
        """Give the lease back if it is still ours."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def _try(self) -> bool:
        ours, rivals = self._survey()
        if rivals and not ours:
            return False
        won = self._claim()
        self._followed |= self._dead if won else set()
        if won and self._followed:
            self.taken_over()
        return won

    def _survey(self) -> tuple[bool, set[str]]:
        """Whether this one is among the holders, and the others that are not dead."""
        try:
            holders = self._holders()
        except OSError:
            self._seen = {}  # the store is away, for the holder as well: its silence says nothing
            raise
        others = holders.keys() - {self.name}
        self._dead = {name for name in others if self._is_dead(name, holders[name])}
        return self.name in holders, others - self._dead

    def _is_dead(self, name: str, beat: object) -> bool:
        owner, _, pid = name.rpartition(".")
        if owner.endswith(f".{_machine()}") and not _is_alive(int(pid)):
            return True
        now = time.monotonic()
        if name not in self._seen or self._seen[name][0] != beat:
            self._seen[name] = (beat, now)
        return now - self._seen[name][1] > STALE_SECONDS

    def _keep_beating(self) -> None:
        while not self.lost and not self._stop.wait(BEAT_SECONDS):
            self._beat += 1
            with contextlib.suppress(OSError):  # a store that is away for a moment costs one beat
                self._renew()

    def _holders(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in os.listdir(self.path) if not name.startswith(".")]  # NFS hides what is still open
            return {name: Path(self.path, name).read_bytes() for name in names}
        return {}

    def _claim(self) -> bool:
        try:
            if os.path.exists(self._file):
                return True
            for name in self._dead:
                os.rename(f"{self.path}/{name}", self._file)
                return True
            with contextlib.suppress(OSError):
                os.rmdir(self.path)  # empty, if one was killed while it gave the lease back
            with replaced(Path(self.path)) as folder:  # where no other is
                folder.mkdir()
                (folder / self.name).touch()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _renew(self) -> None:
        try:
            with open(self._file, "r+b") as file:
                file.write(b"%d" % self._beat)
        except FileNotFoundError:
            self.lost = True


class ObjectLease(Lease):
    """In an object store, where nothing is made exclusively.

    Who reaches for it shows itself by an empty file, then lists who else does. Of two the later one sees the other,
    however slow their requests are, if the store lists all that it has taken, as S3 and GCS do. The lesser name waits
    for the greater one to withdraw.
    """

    def release(self) -> None:
        self._remove({self.name})

    def _holders(self) -> dict[str, Any]:
        return {path.rpartition("/")[2]: beat for path, beat in listing(self.fs, self.path).items()}

    def _claim(self) -> bool:
        self.fs.pipe_file(self._file, b"")
        for _ in range(TRIES):
            ours, rivals = self._survey()
            if ours and not rivals:
                self.fs.pipe_file(self._file, b"0")
                self._remove(self._dead)
                return True
            if not ours or min(rivals) < self.name:
                break
            time.sleep(POLL_SECONDS)
        self.release()
        return False

    def _renew(self) -> None:
        holders = self._holders()
        others = {name for name, (size, _) in holders.items() if size} - {self.name}
        self.lost = self.name not in holders or not others <= self._followed
        if not self.lost:
            self.fs.pipe_file(self._file, b"%d" % self._beat)
            self._remove(others)  # a request of the dead came late

    def _remove(self, names: set[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                self.fs.rm_file(f"{self.path}/{name}")


def lease_at(fs: AbstractFileSystem, path: str, taken_over: Callable[[], None] = lambda: None) -> Lease:
    """The lease at `path`, see `Lease`."""
    return (Lease if is_local(fs) else ObjectLease)(fs, path, taken_over)


def _machine() -> str:
    """This machine and process-number space: a pid says nothing elsewhere."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        space, boot = 0, ""
    return hashlib.sha256(f"{socket.gethostname()}/{boot}/{space}".encode()).hexdigest()[:12]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
