"""What a training reports while it runs: `events.jsonl` in its seed's folder, a line per event with its time.

A training only ever appends here: it waits for no server and survives a full disk. Who follows it reads the file from
its beginning. The lines are what `raymc.training` reports (`epoch`, `stage`, `resumed`, `done`), each with `time` in
milliseconds since 1970, and `begin` where a process takes the seed up.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raymc.atomic import json_rows
from raymc.errors import InputError, StorageError

EVENTS = "events.jsonl"

FIELDS: dict[str, dict[str, type]] = {
    "epoch": {"stage": str, "epoch": int},
    "stage": {"name": str, "key": str},
    "resumed": {"stage": str, "epoch": int},
    "begin": {},
    "done": {},
}
"""What an event of each kind has at least."""

Event = dict[str, Any]

log = logging.getLogger("raymc.study")


class EventLog:
    """Appends events to a file, as a context manager.

    A line that a killed process left torn stays behind as a line of its own, which readers skip. A write that fails (a
    full disk) is warned of once, kept in memory and written together with the next one.

    Raises InputError where the file cannot be opened, and StorageError where it is closed with lines in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        self._waiting = b"\n" if os.fstat(self._file).st_size else b""  # apart from a line that is torn
        self._refusal = ""
        self.append({"event": "begin"})

    def append(self, event: Mapping[str, Any]) -> None:
        """Append the texts and finite numbers of an event; at a resumed stage first the epochs that it goes on from."""
        for row in event.get("curve", ()):
            self.append({"event": "epoch", **row})  # they may have been lost with the machine that wrote them
        plain = {key: value for key, value in event.items() if _is_plain(value)}
        line = json.dumps({"time": int(time.time() * 1000), **plain}, separators=(",", ":"))
        self._waiting += line.encode() + b"\n"
        self._write()

    def close(self) -> None:
        """Close the file; nothing happens where it is closed already."""
        if self._file is None:
            return
        if self._waiting:
            self._write()
        os.close(self._file)
        self._file = None
        if self._waiting:
            raise StorageError(f"{self.path}: {self._refusal}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self) -> None:
        if self._file is None:
            raise ValueError(f"{self.path}: closed")
        reason = "no space left"
        try:
            if os.write(self._file, self._waiting) == len(self._waiting):
                self._waiting = b""
                return
        except OSError as error:
            reason = error.strerror or str(error)
        if not self._refusal:
            log.warning("cannot write %s (%s); the training goes on and tries again", self.path, reason)
        self._refusal = reason
        self._waiting = b"\n" + self._waiting.lstrip(b"\n")  # a part of it may be there


def read_events(path: Path) -> list[Event]:
    """The events of a file in their order; times never go back, whatever the clock did. Empty where there is none."""
    found, latest = [], 0
    for event in read_lines(path):
        if is_event(event):
            latest = max(latest, event["time"])
            found.append(event | {"time": latest})
    return found


def read_lines(path: Path) -> list[Event]:
    """The JSON objects of a file's lines; what is torn, or no object, is passed over."""
    try:
        return list(json_rows(path.read_bytes().split(b"\n")))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_event(row: Event) -> bool:
    """Whether a line is an event as above: one that is not must not hold up those behind it."""
    fields = FIELDS.get(str(row.get("event")))
    if fields is None or not isinstance(row.get("time"), int):
        return False
    return all(isinstance(row.get(field), kind) for field, kind in fields.items())


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
