"""The local spool: what a run has to tell MLflow, one line per record, appended before anything is sent.

A training only ever writes here. It imports no MLflow, waits for no server and survives a full disk; the driver's
`raymc.tracking.shipper` reads the lines and sends them. Records, all with `time` in milliseconds since 1970:

    {"kind": "start", "name", "parent", "tags", "params"}      a run begins or goes on
    {"kind": "metrics", "step", "values"}                      finite numbers only
    {"kind": "tags" | "params", "values"}                      texts
    {"kind": "artifact", "path", "folder"}                     a file to keep with the run
    {"kind": "end", "status"}                                  FINISHED, FAILED or KILLED
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Literal, Self

from raymc.errors import InputError, Interrupted, StorageError

Status = Literal["FINISHED", "FAILED", "KILLED"]

TIME = re.compile(rb'"kind":"[a-z]+","time":(\d+)')
TAIL_BYTES = 1 << 14
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
"""Names of spools, which become names of files."""

FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "start": {"name": str, "parent": (str, NoneType), "tags": dict, "params": dict},
    "metrics": {"step": int, "values": dict},
    "tags": {"values": dict},
    "params": {"values": dict},
    "artifact": {"path": str, "folder": (str, NoneType)},
    "end": {"status": str},
}
"""What a record of each kind holds."""

log = logging.getLogger("raymc.tracking")


class Spool:
    """Appends the records of one run to `<spool folder>/<run>.jsonl`.

    Opening a spool that exists goes on with it: a last line that a killed process left torn stays behind as a line of
    its own, which readers skip. A write that fails (a full disk) is told once, kept in memory and written together with
    the next one. Times never go back, whatever the clock does. Leaving a `with` block ends the run, see `ending`.

    Raises InputError where the file cannot be opened, and StorageError where it is closed with lines in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file: int | None = os.open(path, flags, 0o644)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        self._torn = _is_torn(self._file)
        self._waiting = b""
        self._refusal = ""
        self._latest = _latest(self._file)
        self._lock = threading.Lock()

    def start(
        self,
        *,
        name: str | None = None,
        parent: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Begin the run, or go on with it. `parent` is the spool name of the run above; `name` is shown in MLflow."""
        self._append(
            "start",
            name=name or self.path.stem,
            parent=parent,
            tags=texts(tags or {}),
            params=texts(params or {}),
        )

    def metrics(self, values: Mapping[str, float], step: int, timestamp_ms: int | None = None) -> None:
        """Append the finite ones of `values` at `step`; NaN and infinity are left out."""
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        if finite:
            self._append("metrics", timestamp_ms, step=int(step), values=finite)

    def tags(self, values: Mapping[str, object]) -> None:
        """Append tags; the last value of a tag stands."""
        self._append("tags", values=texts(values))

    def params(self, values: Mapping[str, object]) -> None:
        """Append parameters; the first value of a parameter stands."""
        self._append("params", values=texts(values))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Have a file copied into the run's artifacts, as it is when it is sent."""
        self._append("artifact", path=str(path.resolve()), folder=folder)

    def end(self, status: Status = "FINISHED") -> None:
        """End the run and close the file; nothing happens where it is closed already."""
        if self._file is not None:
            self._append("end", status=status)
            self.close()

    def close(self) -> None:
        """Close the file and leave the run as it is; nothing happens where it is closed already."""
        if self._file is None:
            return
        if self._waiting:
            self._write(self._file, (b"\n" if self._torn else b"") + self._waiting)
        os.close(self._file)
        self._file = None
        if self._waiting:
            raise StorageError(f"{self.path}: {self._refusal}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(ending(kind))

    def _append(self, kind: str, timestamp_ms: int | None = None, **record: Any) -> None:
        if self._file is None:
            raise ValueError(f"{self.path.name}: the run has ended")
        moment = max(self._latest, int(time.time() * 1000)) if timestamp_ms is None else timestamp_ms
        self._latest = max(self._latest, moment)
        text = json.dumps({"kind": kind, "time": moment, **record}, separators=(",", ":"), allow_nan=False)
        with self._lock:
            self._waiting += text.encode() + b"\n"
            self._write(self._file, (b"\n" if self._torn else b"") + self._waiting)

    def _write(self, file: int, lines: bytes) -> None:
        # One write per record: with O_APPEND, lines of several writers never mix.
        try:
            written = os.write(file, lines)
        except OSError as error:
            written = 0
            self._tell(error.strerror or str(error))
        if written == len(lines):
            self._waiting, self._torn = b"", False
        elif written:
            self._torn = True
            self._tell("no space left")

    def _tell(self, reason: str) -> None:
        if not self._refusal:
            log.warning("cannot write %s (%s); the training goes on and tries again", self.path, reason)
        self._refusal = reason


def ending(kind: type[BaseException] | None) -> Status:
    """How a run ends that is left with an exception of type `kind`.

    KILLED: interrupted, or stopped from outside (a scheduler's SystemExit). FAILED: any other error.
    """
    if kind is None:
        return "FINISHED"
    stopped = not issubclass(kind, Exception) or issubclass(kind, Interrupted)
    return "KILLED" if stopped else "FAILED"


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Values as MLflow keeps them; what is no text is written as on the command line (`true`, `null`, `1e-05`)."""
    return {key: v if isinstance(v, str) else json.dumps(v, default=str) for key, v in values.items()}


def is_record(found: object) -> bool:
    """Whether a line's content is a record as above; one bad line must not hold up those behind it."""
    if not isinstance(found, dict) or not isinstance(found.get("time"), int):
        return False
    fields = FIELDS.get(str(found.get("kind")))
    if fields is None or any(not isinstance(found.get(field), kind) for field, kind in fields.items()):
        return False
    parent, wanted = found.get("parent"), (int, float) if found["kind"] == "metrics" else str
    values = [*found.get("values", {}).values(), *found.get("tags", {}).values(), *found.get("params", {}).values()]
    return (parent is None or bool(NAME.fullmatch(parent))) and all(isinstance(value, wanted) for value in values)


def _latest(file: int) -> int:
    """The latest time in the last lines of a spool, 0 in a new one."""
    size = os.fstat(file).st_size
    tail = os.pread(file, TAIL_BYTES, max(0, size - TAIL_BYTES))
    return max([0, *map(int, TIME.findall(tail))])


def _is_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
