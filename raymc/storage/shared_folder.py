"""A folder that all machines of a cluster must see."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raymc.errors import MachineError

PATIENCE_SECONDS = 5.0
"""A network file system may show a new file late."""

NETWORK = re.compile(r"nfs|cifs|smb|lustre|gpfs|beegfs|ceph|gluster|orangefs|pvfs|panfs|afs|9p|virtiofs|wekafs|fuse\.")
"""How the types of file systems begin that other machines may have mounted as well."""


def is_network(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a folder, which need not exist yet, is on a file system of the network, as far as Linux says."""
    try:
        lines = [line.split(" ") for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return False
    types = {Path(words[1].replace("\\040", " ")): words[2] for words in lines if len(words) > 2}
    place = folder.resolve()
    return next((bool(NETWORK.match(types[one])) for one in (place, *place.parents) if one in types), False)


@contextmanager
def probe(folder: Path) -> Iterator[Path]:
    """A new empty file in the folder, for the other machines to find."""
    path = folder / f".probe-{uuid.uuid4().hex}"
    path.write_bytes(b"")
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


def turns_up(path: str) -> bool:
    """Whether this machine sees the file, at once or a little later."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not Path(path).exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def require_folder(folder: Path) -> None:
    """Raises MachineError where the folder that the driver made is not on this machine."""
    if not folder.is_dir():
        raise MachineError(f"{folder} is not there: the storage must be a folder that all machines share")
