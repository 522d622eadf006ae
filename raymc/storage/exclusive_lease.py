"""The lease of a study's driver in an object store: exclusive where the store makes a file only where there is none.

S3 does by `If-None-Match: *` (so do MinIO, SeaweedFS, R2 and others), Google by generation 0. pyarrow passes neither
on; obstore does.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import math
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from raymc.storage.lease import BEAT_SECONDS, Lease, lease_at
from raymc.storage.objects import is_local, listing, patiently

SCHEMES = {"s3": "s3", "gcs": "gs"}
"""What pyarrow and obstore call the stores that both reach."""

FREE = b""
"""What a lease that was given back says; `raymc.study.inventory` knows it by its size."""


def driver_lease(fs: AbstractFileSystem, path: str, leaves_number: bool = True) -> Lease:
    """The lease at `path` by which one driver keeps off others; says in a line where the store can't promise it.

    `leaves_number` False is for one whose study goes: nothing of the lease stays.
    """
    if is_local(fs):
        return lease_at(fs, path)
    if patiently(lambda: creates_exclusively(fs, path), fs, path):
        lease = ExclusiveLease(fs, path)
        lease.leaves_number = leaves_number
        return lease
    print(
        f"{path.partition('/')[0]} makes a file also where there is one (it lacks If-None-Match): "
        "start one driver of this study at a time",
        file=sys.stderr,
    )
    return lease_at(fs, path)


def creates_exclusively(fs: AbstractFileSystem, path: str) -> bool:
    """Whether of two requests to make the same file below `path` the second is refused."""
    probe = f"{path}/probe-{uuid.uuid4().hex}"
    try:
        return bool(create(fs, probe, b"")) and create(fs, probe, b"") is False
    finally:
        with contextlib.suppress(OSError):
            fs.rm_file(probe)


def create(fs: AbstractFileSystem, path: str, content: bytes) -> bool | None:
    """Write a file where there is none; whether there was none; None where the store has no such request.

    Raises OSError where it does not answer.
    """
    scheme = SCHEMES.get(getattr(getattr(fs, "fs", None), "type_name", ""))
    if scheme is None:
        if "memory" not in fs.protocol:  # others look first and write then
            return None
        try:
            fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True
    from obstore import exceptions  # of the whole package: for a thread its parts are there before it is

    bucket, _, key = path.partition("/")
    try:
        _store(f"{scheme}://{bucket}", getattr(fs.fs, "region", None)).put(key, content, mode="create")
    except exceptions.AlreadyExistsError:
        return False
    except exceptions.NotSupportedError:
        return None
    except exceptions.BaseError as error:
        if "501 Not Implemented" in str(error):
            return None
        raise OSError(str(error)) from error
    return True


@functools.lru_cache
def _store(bucket: str, region: str | None) -> Any:
    from obstore.store import from_url

    options: Any = {"allow_http": True}
    if region is None:
        return from_url(bucket, client_options=options)
    return from_url(bucket, region=region, client_options=options, **_profile())


def _profile() -> dict[str, Any]:
    """Keys of AWS's file of credentials, which obstore does not read, where the environment has none."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    place = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    file = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, OSError):
        file.read(place)
    name = os.environ.get("AWS_PROFILE", "default")
    found = dict(file[name]) if name in file else {}
    words = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {word.removeprefix("aws_"): found[word] for word in words if word in found}


class ExclusiveLease(Lease):
    """In an object store that makes a file only where there is none: each holder's file has the next number.

    `<path>/00000007` says who the seventh holder is, with the heartbeat, or that it gave the lease back. Whoever takes
    it makes file 8, which succeeds once; so numbers only rise, and a request that comes late meets a file or a greater
    number, by which its sender learns that it has lost.
    """

    leaves_number = True
    _number, _renewed, _holder = 0, -math.inf, ""

    def is_ours(self) -> bool:
        if not self.lost and time.monotonic() - self._renewed > 2 * BEAT_SECONDS:  # stopped, or a slow request
            self._renew()
        return not self.lost

    def release(self) -> None:
        if self._number and not self.lost:
            with contextlib.suppress(OSError):
                self.fs.pipe_file(self._file, FREE) if self.leaves_number else self.fs.rm_file(self._file)

    def _numbers(self) -> list[int]:
        names = [path.rpartition("/")[2] for path in listing(self.fs, self.path)]
        return sorted(int(name) for name in names if name.isdigit())

    def _holders(self) -> dict[str, Any]:
        self._last = max(self._numbers(), default=0)
        try:
            content: bytes = self.fs.cat_file(self._path(self._last)) if self._last else FREE
        except FileNotFoundError:  # a greater one has just swept it
            return self._holders()
        self._holder, _, beat = content.decode().partition(" ")
        return {} if content == FREE else {self._holder: (self._last, beat)}

    def _claim(self) -> bool:
        begun = time.monotonic()
        if self._holder != self.name:
            self._last += 1
            if not create(self.fs, self._path(self._last), self._content()):
                return False
        self._number, self._file, self.lost = self._last, self._path(self._last), False
        if time.monotonic() - begun > BEAT_SECONDS:  # so slow that others may have taken this one for dead
            self._renew()
        else:
            self._renewed = begun
            self._sweep()
        return not self.lost

    def _renew(self) -> None:
        begun = time.monotonic()
        self.lost = max(self._numbers(), default=0) != self._number
        if not self.lost:
            self.fs.pipe_file(self._file, self._content())
            self._renewed = begun
            self._sweep()  # a request of the one before came late

    def _sweep(self) -> None:
        for path in listing(self.fs, self.path):
            name = path.rpartition("/")[2]
            if "." in name or (name.isdigit() and int(name) < self._number):  # "." is in the names of former versions
                with contextlib.suppress(OSError):
                    self.fs.rm_file(path)

    def _content(self) -> bytes:
        return f"{self.name} {self._beat}".encode()

    def _path(self, number: int) -> str:
        return f"{self.path}/{number:08d}"
