"""Download by torchvision, with its checksums, into a temporary folder that is then renamed into place."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

from raymc.atomic import put
from raymc.datasets.source import Source
from raymc.errors import InputError

TIMEOUT = 30.0  # seconds without an answer


def fetch(source: Source, root: Path) -> Path | None:
    """Download the files of `source` below `root`; the folder they are in, None where the data need no files.

    What is there already is left as it is. Raises InputError where there is nothing to download from, the download
    fails, or `root` cannot be written; nothing half-written stays.
    """
    if not source.folders:
        return None
    found = source.found(root)
    if found is not None:
        return root / found
    if not source.fetched_by:
        raise InputError(f"{source.name} cannot be downloaded: {source.how(root)} ({root / source.folders[0]})")
    target = root / source.folders[0]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".get-", dir=root) as place:
            _download(source, place)
            for archive in Path(place, source.folders[0]).glob("*.gz"):
                archive.unlink()
            put(Path(place) / source.folders[0], target)
    except OSError as error:  # urllib's errors and a full disk among them
        raise InputError(f"{source.name}: no download to {root}: {_reason(error)}") from error
    return target


def _download(source: Source, place: str) -> None:
    from torchvision import datasets  # seconds that only a download needs

    maker = getattr(datasets, source.fetched_by)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if source.fetched_by == "USPS":  # which takes one part at a time, straight into its folder
                for train in (True, False):
                    maker(os.path.join(place, source.folders[0]), train=train, download=True)
            else:
                maker(place, download=True)
    except RuntimeError as error:  # torchvision's word for a wrong checksum and for no mirror that answers
        raise InputError(f"{source.name}: the download failed: {_reason(error)}") from error
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split())
