"""Content-addressed stage results: a folder, an NFS path or an object-store URI.

`stages/<key>/result.json` names a payload by the hash of its content. The payload is written whole before the name is
published: in a folder under a temporary name that is then renamed, in an object store by one request. So a torn or
foreign file is never loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from raymc.errors import StorageError
from raymc.storage.lease import Lease
from raymc.storage.objects import T, filesystem, is_local, patiently

State = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A stored result or checkpoint: tensors in `state`, plain facts in `meta`."""

    state: State
    meta: dict[str, Any]


class Store:
    """Stage results and epoch checkpoints under `<root>/stages`."""

    def __init__(self, root: str, wait: bool = False) -> None:
        """Raises InputError for a place that cannot be; `wait` says whether one that does not answer is waited for."""
        self.fs, path = filesystem(root)
        self.root = f"{path}/stages"
        probe = f"{self.root}/.{uuid.uuid4().hex}"
        try:
            self._surely(lambda: self._probe(probe)) if wait else self._probe(probe)
        except OSError as error:
            why = " ".join(str(error.strerror or error).split())
            raise StorageError(f"storage {root} cannot be written: {why}") from error

    def _probe(self, path: str) -> None:
        self.fs.makedirs(self.root, exist_ok=True)
        self.fs.pipe_file(path, b"")
        self._remove(path)

    def load(self, key: str, name: str = "result", mapped: bool = False) -> Entry | None:
        """The entry `name` of `key`, or None when it is absent, torn or not ours.

        With `mapped`, the tensors of a store in a folder stay in their file, and processes share its pages.
        """
        return self._surely(lambda: self._load(key, name, mapped))

    def _load(self, key: str, name: str, mapped: bool) -> Entry | None:
        mapped = mapped and is_local(self.fs)
        try:
            facts = json.loads(self.fs.cat_file(self._path(key, f"{name}.json")))
            path = self._path(key, facts["file"])
            payload = None if mapped else self.fs.cat_file(path)
            digest, meta = facts["sha256"], facts["meta"]
            if (_digest(path) if payload is None else hashlib.sha256(payload).hexdigest()) != digest:
                return None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        try:
            file = path if payload is None else io.BytesIO(payload)
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError):  # it holds more than tensors and plain values
            return None
        return Entry(state, meta)

    def save(self, key: str, state: State, meta: dict[str, Any], name: str = "result") -> None:
        """Publish an entry; the one of the same name before it goes."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        digest = hashlib.sha256(payload).hexdigest()
        facts = {"file": f"{name}-{digest[:16]}.pt", "sha256": digest, "bytes": len(payload), "meta": meta}
        self._surely(lambda: self._publish(key, name, payload, facts))

    def _publish(self, key: str, name: str, payload: bytes, facts: dict[str, Any]) -> None:
        file = facts["file"]
        self.fs.makedirs(self._path(key), exist_ok=True)
        former = self._former(key, name)
        self._write(self._path(key, file), payload)
        self._write(self._path(key, f"{name}.json"), json.dumps(facts).encode())
        if former is not None and former != file:
            self._remove(self._path(key, former))

    def discard(self, key: str, name: str) -> None:
        """Remove an entry, the published name first."""
        self._surely(lambda: self._discard(key, name))

    def _discard(self, key: str, name: str) -> None:
        former = self._former(key, name)
        if former is not None:
            self._remove(self._path(key, f"{name}.json"))
            self._remove(self._path(key, former))

    def lease(self, key: str) -> Lease:
        """The lease on computing `key`; who takes it over from a killed process clears away what that one left."""
        return Lease(self.fs, self._path(key, "lease"), lambda: self._sweep(key))

    def _surely(self, do: Callable[[], T]) -> T:
        """`do()`, which may be done again; an object store that is away for a moment is waited for."""
        return do() if is_local(self.fs) else patiently(do, self.root)

    def _former(self, key: str, name: str) -> str | None:
        try:
            file = str(json.loads(self.fs.cat_file(self._path(key, f"{name}.json")))["file"])
            return file if self._path(key, file) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _sweep(self, key: str) -> None:
        """Remove files half written, and payloads that were never published or should have gone."""
        self.fs.invalidate_cache()
        files = {path.rsplit("/", 1)[-1] for path in self.fs.ls(self._path(key), detail=False)}
        named = {self._former(key, file.removesuffix(".json")) for file in files if file.endswith(".json")}
        for file in files - named:
            if file.endswith((".tmp", ".pt")) or file.startswith("lease."):
                self._remove(self._path(key, file))

    def _path(self, key: str, *names: str) -> str:
        """The path of a file of `key`. Raises ValueError for a name, read from a file, that leads elsewhere."""
        if any("/" in name or "\\" in name or name in ("", ".", "..") for name in names):
            raise ValueError(f"{names} is no file of {key}")
        return "/".join((self.root, key, *names))

    def _write(self, path: str, payload: bytes) -> None:
        if not is_local(self.fs):
            self.fs.pipe_file(path, payload)
            return
        for again in (True, False):
            temporary = f"{path}.{uuid.uuid4().hex}.tmp"
            try:
                with self.fs.open(temporary, "wb") as file:
                    file.write(payload)
                self.fs.mv(temporary, path)
                return
            except OSError as error:
                with contextlib.suppress(OSError):  # a full disk is not to be filled with halves
                    self._remove(temporary)
                # One that stood still so long that it was taken for dead finds its file swept away.
                if not (again and isinstance(error, FileNotFoundError)):
                    error.filename = error.filename or path
                    raise

    def _remove(self, path: str) -> None:
        try:
            self.fs.rm_file(path)
        except FileNotFoundError:
            pass


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
