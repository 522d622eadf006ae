"""Content-addressed stage results: a folder, an NFS path or an object-store URI.

`stages/<key>/result.json` names a payload, with the hash of its content. The payload is written whole, under a name of
its own, before it is published by that file. So a torn or foreign file is never loaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from raymc.errors import StorageError
from raymc.storage.lease import Lease, lease_at
from raymc.storage.objects import filesystem, is_local, patiently, reason, remove, write

State = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A stored result or checkpoint: tensors in `state`, plain facts in `meta`."""

    state: State
    meta: dict[str, Any]


class Store:
    """Stage results and epoch checkpoints under `<root>/stages`; an object store that is away is waited for."""

    def __init__(self, root: str, wait: bool = False) -> None:
        """Raises InputError for a place that cannot be; `wait` says whether one that does not answer is waited for."""
        self.fs, path = filesystem(root)
        self.root = f"{path}/stages"
        try:
            patiently(self._probe, self.fs, root) if wait else self._probe()
        except OSError as error:
            raise StorageError(f"storage {root} cannot be written: {reason(error)}") from error

    def _probe(self) -> None:
        probe = f"{self.root}/.{uuid.uuid4().hex}"
        if is_local(self.fs):  # an object store has no folders; to make one takes rights that a role may lack
            self.fs.makedirs(self.root, exist_ok=True)
        self.fs.pipe_file(probe, b"")
        remove(self.fs, probe)

    def load(self, key: str, name: str = "result", mapped: bool = False) -> Entry | None:
        """The entry `name` of `key`, or None when it is absent, torn or not ours.

        With `mapped`, the tensors of a store in a folder stay in their file, and processes share its pages.
        """
        return patiently(partial(self._load, key, name, mapped and is_local(self.fs)), self.fs, self.root)

    def _load(self, key: str, name: str, mapped: bool) -> Entry | None:
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
        # Named by no other save: once it is replaced it is named never again, and can go.
        file = f"{name}-{uuid.uuid4().hex[:16]}.pt"
        facts = {"file": file, "sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload), "meta": meta}
        patiently(partial(self._publish, key, name, payload, facts), self.fs, self.root)

    def _publish(self, key: str, name: str, payload: bytes, facts: dict[str, Any]) -> None:
        former, path = self._published(key, name), self._path(key, facts["file"])
        for again in (True, True, False):
            try:
                write(self.fs, path, payload)
                write(self.fs, self._path(key, f"{name}.json"), json.dumps(facts).encode())
                if self.fs.exists(path):
                    break
            # Who takes the lease over from one that stood still for long sweeps away what it was about to publish.
            except FileNotFoundError:
                if not again:
                    raise
        if former is not None and former != facts["file"]:
            remove(self.fs, self._path(key, former))

    def discard(self, key: str, name: str) -> None:
        """Remove an entry, the published name first."""
        patiently(partial(self._discard, key, name), self.fs, self.root)

    def _discard(self, key: str, name: str) -> None:
        former = self._published(key, name)
        if former is not None:
            remove(self.fs, self._path(key, f"{name}.json"))
            remove(self.fs, self._path(key, former))

    def lease(self, key: str) -> Lease:
        """The lease on computing `key`; who takes it over from a killed process clears away what that one left."""
        return lease_at(self.fs, self._path(key, "held"), partial(self._sweep, key))

    def _published(self, key: str, name: str) -> str | None:
        try:
            file = str(json.loads(self.fs.cat_file(self._path(key, f"{name}.json")))["file"])
            return file if self._path(key, file) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _sweep(self, key: str) -> None:
        """Remove files half written, and payloads that were never published or should have gone.

        Others may be writing: one that was taken for dead, and one that imports a checkpoint and needs no lease.
        """
        self.fs.invalidate_cache()
        for path in self.fs.ls(self._path(key), detail=False):
            file = str(path).rpartition("/")[2]
            if file.endswith(".tmp") or file.startswith("lease"):
                remove(self.fs, self._path(key, file))
            elif file.endswith(".pt"):
                self._sweep_payload(key, file)

    def _sweep_payload(self, key: str, file: str) -> None:
        """Move it aside, and back if it was published meanwhile; who publishes it later finds it gone."""
        path, name = self._path(key, file), file.rpartition("-")[0]
        if self._published(key, name) == file:
            return
        aside = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            self.fs.mv(path, aside)
        except FileNotFoundError:
            return
        if self._published(key, name) == file:
            self.fs.mv(aside, path)
        else:
            remove(self.fs, aside)

    def _path(self, key: str, *names: str) -> str:
        """The path of a file of `key`. Raises ValueError for a name, read from a file, that leads elsewhere."""
        if any("/" in name or "\\" in name or name in ("", ".", "..") for name in names):
            raise ValueError(f"{names} is no file of {key}")
        return "/".join((self.root, key, *names))


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
