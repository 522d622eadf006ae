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

from raymc.study.records import FINISHED, RUNNING, Record, Task
from raymc.study.words import configured, duration

SHOWN = 12
COLOURS = {RUNNING: "cyan", FINISHED: "green", "pruned": "yellow"}


@dataclass
class Line:
    """One task in the table."""

    task: Task
    begun: float
    state: str = RUNNING
    score: float | None = None
    done: int = 0
    place: str = ""
    reported: float | None = None
    trained: float = 0.0
    ended: float | None = None

    def seconds(self, now: float) -> float:
        """Of training, as the task last told: the start of its process is none."""
        return self.trained if self.reported is None or self.ended else self.trained + now - self.reported


@dataclass
class Board:
    """Keeps what is known of the tasks of this session and shows it.

    Args:
        total: tasks that the session has to run, at most; known better with every task that ends.
        tick: called when a task has ended.
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

    def started(self, task: Task) -> None:
        self.lines[task.name] = Line(task, time.monotonic())
        self._say(f"{task.name} started: {configured(task.params)}")

    def on_report(self, task: Task, row: Mapping[str, Any]) -> None:
        """A report of `raymc.execution.trial`."""
        line = self.lines.get(task.name)
        if line is None or row.get("state") != RUNNING:
            return
        if line.done < row.get("seeds_done", 0) < len(task.seeds):
            score = self._shown(row.get("running"))
            self._say(f"{task.name}: {row['seeds_done']} of {len(task.seeds)} seeds {score}".rstrip())
        line.reported, line.trained = time.monotonic(), row.get("seconds", line.trained)
        line.done = row.get("seeds_done", line.done)
        line.score = row.get("running", line.score)
        line.place = f"{row['stage']} {row['epoch']}/{row['epochs']}" if "stage" in row else ""

    def ended(self, task: Task, record: Record, left: int) -> None:
        """The task's group stands as `record` says; `left` tasks are still to be started, at most."""
        line = self.lines[task.name]
        self.total = sum(not line.task.stage for line in self.lines.values()) + left
        line.ended, line.place = time.monotonic(), ""
        own = None if task.kind == "search" else next(run for run in record.seeds if run.seed in task.seeds)
        line.score = record.score if own is None else own.metrics.get(self.metric)
        line.state, line.trained = (own or record).state, (own or record).seconds
        line.done = sum(run.seed in task.seeds for run in record.seeds)
        why = f" ({record.error.splitlines()[-1]})" if record.error else ""
        took = f"after {line.trained:.1f} s of training"
        ended = " ".join(filter(None, (f"{task.name} {line.state}{why}", self._shown(line.score), took)))
        self._say(f"{ended}, {self.remaining()}")
        self.tick()

    def remaining(self) -> str:
        """Tasks that are done, and the time that the others will take, in words."""
        ended = [line for line in self.lines.values() if line.ended is not None and not line.task.stage]
        count = f"{len(ended)} of {self.total}"
        if not ended or len(ended) >= self.total:
            return count
        pace = (time.monotonic() - self._begun) / len(ended)
        return f"{count}, about {duration(pace * (self.total - len(ended)))} left"

    def table(self) -> Group:
        """The running tasks and the last ones that ended."""
        table = Table(box=None, pad_edge=False)
        for name in ("task", "state", "parameters", self.metric, "seeds", "at", "training"):
            table.add_column(name, no_wrap=name != "parameters")
        now = time.monotonic()
        for line in sorted(self.lines.values(), key=lambda line: (line.ended or math.inf, line.begun))[-SHOWN:]:
            table.add_row(
                line.task.name,
                Text(line.state, style=COLOURS.get(line.state, "red")),
                configured(line.task.params),
                "" if line.score is None else f"{line.score:.4f}",
                f"{line.done}/{len(line.task.seeds)}",
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
