"""Where a storage is: a folder, or an object store by its URI (`s3://bucket/prefix`, `gs://bucket/prefix`).

Object stores are reached through pyarrow, which comes with both, takes credentials from where the vendors' own tools do
(environment, configuration file, the machine's role) and an S3-compatible server from AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import platformdirs
from fsspec import AbstractFileSystem

from raymc.atomic import write_bytes
from raymc.errors import InputError, StorageError, StorageLostError

BY_ARROW = ("s3", "gs")
PATIENCE_SECONDS = 120.0
START_SECONDS = 10.0  # before anything has begun

T = TypeVar("T")

Listing = dict[str, tuple[int, object]]
"""By path: bytes, and a mark that changes whenever the file is written again."""


def is_uri(storage: str) -> bool:
    """Whether a storage is in an object store rather than a folder."""
    return "://" in storage


def filesystem(storage: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a storage, and the storage's path in it. Raises InputError for a URI that it does not know."""
    scheme = storage.partition("://")[0]
    try:
        if is_uri(storage) and scheme in BY_ARROW:
            return _arrow(storage)
        fs, path = fsspec.core.url_to_fs(storage)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"storage {storage}: {' '.join(str(error).split())}") from error
    return fs, path.rstrip("/")


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether it is this machine's own, where a file can be renamed and made exclusively."""
    return "file" in fs.protocol


def patiently(do: Callable[[], T], fs: AbstractFileSystem, storage: str, seconds: float | None = None) -> T:
    """`do()`, called again while the object store at `storage` does not answer; a folder is not waited for.

    Raises StorageError, naming it, after `seconds` (None: PATIENCE_SECONDS); at once StorageLostError where its bucket
    is not there, and FileNotFoundError.
    """
    patience = PATIENCE_SECONDS if seconds is None else seconds
    began, pause = time.monotonic(), 0.5
    while True:
        try:
            return do()
        except OSError as error:
            if is_local(fs) or isinstance(error, FileNotFoundError):
                raise
            if _lacks_bucket(fs, storage):
                raise bucket_lost(storage) from error
            if time.monotonic() - began > patience:
                raise StorageError(f"storage {storage} does not answer: {reason(error)}") from error
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def bucket_lost(storage: str) -> StorageLostError:
    """What is said of a storage without its bucket."""
    return StorageLostError(f"{storage}: its bucket is not there; if it was deleted, what was stored in it is lost")


def _lacks_bucket(fs: AbstractFileSystem, storage: str) -> bool:
    """Whether the object store answers, and says that it has no such bucket; what fails in it may say anything."""
    from pyarrow.fs import FileType

    bucket = storage.rpartition("://")[2].partition("/")[0]
    with contextlib.suppress(OSError):
        return hasattr(fs, "fs") and bool(fs.fs.get_file_info(bucket).type == FileType.NotFound)
    return False


def reason(error: OSError) -> str:
    """What the system says of it, in one line."""
    return " ".join(str(error.strerror or error).split())


def write(fs: AbstractFileSystem, path: str, content: bytes) -> None:
    """Write a file whole or not at all: in a folder by a name of its own before, in an object store by one request."""
    if is_local(fs):
        write_bytes(Path(path), content)
    else:
        fs.pipe_file(path, content)


def remove(fs: AbstractFileSystem, path: str) -> None:
    """Remove a file or a folder, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True) if is_local(fs) else fs.rm_file(path)


def home(storage: str) -> Path:
    """The folder itself; of a URI, the folder of this machine's cache that stands for it (`raymc.storage.mirror`)."""
    if not is_uri(storage):
        return Path(storage)
    place = hashlib.sha256(storage.rstrip("/").encode()).hexdigest()[:12]
    return platformdirs.user_cache_path("raymc") / "mirrors" / place


def listing(fs: AbstractFileSystem, path: str) -> Listing:
    """All files below a path; empty where there are none."""
    if hasattr(fs, "fs"):  # pyarrow lists a whole tree by one request, fsspec makes one for each folder
        from pyarrow.fs import FileSelector, FileType

        found = fs.fs.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        return {one.path: (one.size, one.mtime.timestamp()) for one in found if one.type == FileType.File}
    fs.invalidate_cache()
    infos = fs.find(path, detail=True)
    return {name: _entry(info) for name, info in infos.items()}


def folders(fs: AbstractFileSystem, path: str) -> list[str]:
    """The names of the folders directly below a path, without hidden ones."""
    try:
        found = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # A link may be to a folder.
    names = [str(info["name"]).rstrip("/").rpartition("/")[2] for info in found if info["type"] != "file"]
    return sorted(name for name in names if not name.startswith("."))


def listing_of_runs(fs: AbstractFileSystem, path: str) -> Listing:
    """`listing`, with what is in folders that are links, such as a study that was moved to another disk."""
    found = listing(fs, path)
    if is_local(fs):
        for link in [one for one in found if os.path.islink(one) and os.path.isdir(one)]:
            del found[link]
            found |= listing(fs, link)
    return found


def mark(fs: AbstractFileSystem, path: str) -> tuple[int, object]:
    """The entry of one file in `listing`. Raises FileNotFoundError."""
    return _entry(fs.info(path))


def _entry(info: dict[str, Any]) -> tuple[int, object]:
    written = info.get("mtime") or info.get("created")
    return info["size"], written.timestamp() if isinstance(written, datetime) else written


def _arrow(storage: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    if not storage.partition("://")[2].strip("/"):
        raise ValueError("a bucket is missing (write s3://bucket/prefix)")
    inner, path = fs.FileSystem.from_uri(storage.rstrip("/"))
    return ArrowFSWrapper(inner, skip_instance_cache=True), path.rstrip("/")
