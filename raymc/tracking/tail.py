"""Reads one spool from where the last sending ended, and remembers how far it came."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from raymc.atomic import write_text
from raymc.tracking.spool import is_record

Record = dict[str, Any]

CHUNK = 1 << 17
"""Bytes read at a time: about a thousand records."""

log = logging.getLogger("raymc.tracking")


class Tail:
    """A spool, the MLflow run that it belongs to and the offset up to which MLflow has it.

    Run and offset are kept in the file `state`, which is replaced in one step. They are a cache: everything can be sent
    again.

    Attributes:
        name: the spool's name, which is the run's tag `raymc.run`.
        run_id: MLflow's run, None before it exists.
        offset: bytes that MLflow has.
    """

    def __init__(self, path: Path, state: Path) -> None:
        self.name = path.stem
        self._path = path
        self._state = state
        self._seen: dict[str, set[int]] | None = None
        self._told = False
        kept = _load(state)
        self.run_id: str | None = kept.get("run_id")
        self.offset: int = kept.get("offset", 0)

    def head(self) -> Record:
        """The record that starts the run; empty where nothing is written yet."""
        records, _ = self._records(0, CHUNK)
        return next((record for record in records if record["kind"] == "start"), {})

    def pending(self) -> bool:
        """Whether the spool has grown beyond what MLflow has; all of one that lost its end (a power cut) counts."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return False
        if size < self.offset:
            self.commit(0)
            self.rewind()
        return size > self.offset

    def read(self) -> tuple[list[Record], int]:
        """The next records and the offset behind them, which is `offset` where no line is complete.

        Of several values of a metric at one step the first stands, the others are taken out.
        """
        if self._seen is None:
            self._seen = self._recall()
        records, end = self._records(self.offset, self.offset + CHUNK)
        for record in records:
            if record["kind"] == "metrics":
                record["values"] = _news(record, self._seen)
        return records, end

    def attach(self, run_id: str) -> None:
        """Remember the run."""
        self.run_id = run_id
        self._save()

    def commit(self, offset: int) -> None:
        """Remember that MLflow has everything up to `offset`."""
        self.offset = offset
        self._save()

    def rewind(self) -> None:
        """Drop the memory of the points read: what was not sent is read again, and an ended run needs none."""
        self._seen = None

    def forget(self) -> None:
        """Start over: no run, nothing sent."""
        self.run_id, self.offset, self._seen = None, 0, None
        self._state.unlink(missing_ok=True)

    def _recall(self) -> dict[str, set[int]]:
        seen: dict[str, set[int]] = {}
        start = 0
        while start < self.offset:
            records, end = self._records(start, min(start + CHUNK, self.offset))
            for record in records:
                if record["kind"] == "metrics":
                    _news(record, seen)
            if end == start:
                break
            start = end
        return seen

    def _records(self, start: int, stop: int) -> tuple[list[Record], int]:
        """The records whose lines begin in `[start, stop)`, and the offset behind the last complete line."""
        records: list[Record] = []
        if not self._path.exists():
            return records, start
        with self._path.open("rb") as file:
            file.seek(start)
            while start < stop and (line := file.readline()).endswith(b"\n"):
                start += len(line)
                records += self._parsed(line)
        return records, start

    def _parsed(self, line: bytes) -> list[Record]:
        if not line.strip():
            return []
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if is_record(record):
            return [record]
        if not self._told:
            log.info("%s: a line that a killed process left torn, or that is no record, is skipped", self._path)
        self._told = True
        return []

    def _save(self) -> None:
        write_text(self._state, json.dumps({"run_id": self.run_id, "offset": self.offset}))


def _news(record: Record, seen: dict[str, set[int]]) -> dict[str, float]:
    """The values of a metrics record that are the first of their step; they are added to `seen`."""
    step = record["step"]
    news = {key: value for key, value in record["values"].items() if step not in seen.get(key, ())}
    for key in news:
        seen.setdefault(key, set()).add(step)
    return news


def _load(state: Path) -> Record:
    """What was kept; nothing where it is missing or torn, and then everything is sent again."""
    try:
        kept = json.loads(state.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and isinstance(kept.get("offset"), int) else {}
