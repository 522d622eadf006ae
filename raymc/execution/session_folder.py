"""Where Ray keeps its session on this machine: logs, and sockets whose paths must be short."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raymc.errors import StorageError

SYSTEM = Path("/tmp")
SOCKET_BYTES = 103
"""The longest path of a socket, on macOS; Linux takes four bytes more."""
LONGEST_NAME = "/session_2026-11-29_08-32-01_209930_4194304/sockets/plasma_store.1"
SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def session_folder() -> Iterator[str]:
    """The folder for `ray.init(_temp_dir=…)`: `ray` in RAY_TMPDIR, else TMPDIR, else /tmp, as where Ray is not told.

    A path that is too long for sockets is reached by a link, whose own folder lasts as long as the block.
    Raises StorageError, which names the variable, where no file can be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    place = Path(os.environ[name]).absolute() if name else SYSTEM
    _check(place, f"{name}: " if name else "")
    folder = str(place / "ray")
    if len(os.fsencode(folder + LONGEST_NAME)) <= SOCKET_BYTES:
        yield folder
        return
    _check(SYSTEM, f"{name}: {place} is too long for Ray's sockets; set RAY_TMPDIR to a short folder: ")
    with tempfile.TemporaryDirectory(prefix="raymc-", dir=SYSTEM, ignore_cleanup_errors=True) as short:
        link = Path(short, "t")
        link.symlink_to(place)
        yield str(link / "ray")


def plasma_folder(session: str) -> str | None:
    """Where Ray's shared memory is: None for its own choice, else `session`, where /dev/shm takes no files."""
    closed = SHARED_MEMORY.is_dir() and not os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    return session if closed else None


def _check(place: Path, named: str) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise StorageError(f"{named}{place} takes no temporary files ({error.strerror})") from error
