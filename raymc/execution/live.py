"""What a search shows on standard error while it runs: a live table on a terminal, a line per event elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raymc.study.records import FINISHED, RUNNING, Record, Unit
from raymc.study.words import configured, duration

SHOWN = 12
COLOURS = {RUNNING: "cyan", FINISHED: "green", "pruned": "yellow"}


@dataclass
class Line:
    """One unit in the table."""

    unit: Unit
    begun: float
    state: str = RUNNING
    score: float | None = None
    done: int = 0
    place: str = ""
    heard: float | None = None
    trained: float = 0.0
    ended: float | None = None

    def seconds(self, now: float) -> float:
        """Of training, as the unit last told: the start of its process is none."""
        return self.trained if self.heard is None or self.ended else self.trained + now - self.heard


@dataclass
class Board:
    """Keeps what is known of the units of this sitting and shows it.

    Args:
        total: units that the sitting has to run, at most.
        tick: called when a unit has ended.
    """

    title: str
    metric: str
    total: int
    tick: Callable[[], None] = lambda: None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    lines: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.console = Console(file=self.stream, highlight=False)
        self._begun = time.monotonic()
        self._live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        if self.console.is_terminal:
            self._live.start()
        else:
            self.say(self.title)
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.stop()
            self.console.print(self.table())

    def started(self, unit: Unit) -> None:
        self.lines[unit.name] = Line(unit, time.monotonic())
        self._say(f"{unit.name} started: {configured(unit.params)}")

    def heard(self, unit: Unit, row: Mapping[str, Any]) -> None:
        """A report of `raymc.execution.trial`."""
        line = self.lines.get(unit.name)
        if line is None or row.get("state") != RUNNING:
            return
        if line.done < row.get("seeds_done", 0) < len(unit.seeds):
            self._say(f"{unit.name}: {row['seeds_done']} of {len(unit.seeds)} seeds {self._shown(row.get('running'))}")
        line.heard, line.trained = time.monotonic(), row.get("seconds", line.trained)
        line.done = row.get("seeds_done", line.done)
        line.score = row.get("running", line.score)
        line.place = f"{row['stage']} {row['epoch']}/{row['epochs']}" if "stage" in row else ""

    def ended(self, unit: Unit, record: Record) -> None:
        """The unit's group stands as `record` says."""
        line = self.lines[unit.name]
        line.ended, line.place = time.monotonic(), ""
        own = None if unit.kind == "search" else next(run for run in record.seeds if run.seed in unit.seeds)
        line.score = record.score if own is None else own.metrics.get(self.metric)
        line.state, line.trained = (own or record).state, (own or record).seconds
        line.done = sum(run.seed in unit.seeds for run in record.seeds)
        why = f" ({record.error.splitlines()[-1]})" if record.error else ""
        took = f"after {line.trained:.1f} s of training"
        self._say(f"{unit.name} {line.state}{why} {self._shown(line.score)} {took}, {self.remaining()}")
        self.tick()

    def remaining(self) -> str:
        """Units that are done, and the time that the others will take, in words."""
        ended = [line for line in self.lines.values() if line.ended is not None]
        count = f"{len(ended)} of {self.total}"
        if not ended or len(ended) >= self.total:
            return count
        pace = (time.monotonic() - self._begun) / len(ended)
        return f"{count}, about {duration(pace * (self.total - len(ended)))} left"

    def table(self) -> Group:
        """The running units and the last ones that ended."""
        table = Table(box=None, pad_edge=False)
        for name in ("unit", "state", "parameters", self.metric, "seeds", "at", "training"):
            table.add_column(name, no_wrap=name != "parameters")
        now = time.monotonic()
        for line in sorted(self.lines.values(), key=lambda line: (line.ended or math.inf, line.begun))[-SHOWN:]:
            table.add_row(
                line.unit.name,
                Text(line.state, style=COLOURS.get(line.state, "red")),
                configured(line.unit.params),
                "" if line.score is None else f"{line.score:.4f}",
                f"{line.done}/{len(line.unit.seeds)}",
                line.place,
                duration(line.seconds(now)),
            )
        head = f"{self.title}: {self.remaining()}, {duration(now - self._begun)} so far"
        return Group(Text(head, style="bold"), table)

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.say(text)

    def _shown(self, score: float | None) -> str:
        return "" if score is None else f"{self.metric} {score:.4f}"
