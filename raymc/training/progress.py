"""Progress of one training on standard error: a bar on a terminal, plain lines elsewhere; both with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from raymc.training.loop import Report, Row
from raymc.training.time_left import TimeLeft, duration

LINE_SECONDS = 10.0  # between plain lines

Clock = Callable[[], float]


@contextmanager
def progress(clock: Clock = time.monotonic) -> Iterator[Report]:
    """A `report` for `raymc.training.run.run` that shows stages, epochs and how long all of them will take yet."""
    console = Console(stderr=True)
    left = TimeLeft(clock)
    if not console.is_terminal:
        yield _plain(left, clock)
        return
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield _bars(bars, left)


def _bars(bars: Progress, left: TimeLeft) -> Report:
    tasks: dict[str, int] = {}

    def report(row: Row) -> None:
        left.note(row)
        if row["event"] == "epoch":
            if row["stage"] not in tasks:
                tasks[row["stage"]] = bars.add_task(row["stage"], total=row["epochs"], facts="", left="")
            shown = {"facts": _facts(row), "left": _left(left)}
            bars.update(tasks[row["stage"]], completed=row["epoch"], **shown)  # type: ignore[arg-type]
        elif row["event"] == "features":
            if "features" not in tasks:
                tasks["features"] = bars.add_task("features", total=row["n"], facts="", left="")
            shown = {"facts": row["encoder"], "left": "" if row["left"] is None else _about(row["left"])}
            bars.update(tasks["features"], total=row["n"], completed=row["done"], **shown)  # type: ignore[arg-type]
        elif row["event"] == "stage" and row["cached"]:
            bars.add_task(row["name"], total=row["epochs"], completed=row["epochs"], facts="from the store", left="")
        elif row["event"] == "stage" and row["name"] in tasks:
            bars.update(tasks[row["name"]], left="")  # type: ignore[arg-type]

    return report


def _plain(left: TimeLeft, clock: Clock) -> Report:
    said = {"at": clock() - LINE_SECONDS}

    def report(row: Row) -> None:
        left.note(row)
        if row["event"] == "stage" and row["epochs"]:
            how = "from the store" if row["cached"] else f"{row['seconds']:.1f} s"
            print(f"{row['name']}: {row['epochs']} epochs, {how}", file=sys.stderr, flush=True)
        elif row["event"] == "features" and clock() - said["at"] >= LINE_SECONDS:
            said["at"] = clock()
            words = "" if row["left"] is None else f", {_about(row['left'])}"
            print(f"features by {row['encoder']}: {row['done']}/{row['n']}{words}", file=sys.stderr, flush=True)
        elif row["event"] == "epoch" and clock() - said["at"] >= LINE_SECONDS:
            said["at"] = clock()
            words = " ".join(filter(None, (_facts(row), _left(left))))
            print(f"{row['stage']} {row['epoch']}/{row['epochs']} {words}", file=sys.stderr, flush=True)

    return report


def _left(left: TimeLeft) -> str:
    seconds = left.seconds()
    return _about(seconds) if seconds else ""


def _about(seconds: float) -> str:
    return f"about {duration(seconds)} left"


def _facts(row: Row) -> str:
    parts = [f"loss {row['loss']:.3f}"]
    return " ".join(parts + [f"{name} {row[name]:.3f}" for name in ("acc",) if name in row])
