"""Progress of one training on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raymc.training.loop import Report, Row

LINE_SECONDS = 10.0  # between plain lines


@contextmanager
def progress() -> Iterator[Report]:
    """A `report` for `raymc.training.run.run` that shows stages and epochs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain()
        return
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, int] = {}

        def report(row: Row) -> None:
            if row["event"] == "epoch":
                if row["stage"] not in tasks:
                    tasks[row["stage"]] = bars.add_task(row["stage"], total=row["epochs"], facts="")
                bars.update(tasks[row["stage"]], completed=row["epoch"], facts=_facts(row))  # type: ignore[arg-type]
            elif row["event"] == "features":
                if "features" not in tasks:
                    tasks["features"] = bars.add_task("features", total=row["n"], facts="")
                bars.update(tasks["features"], total=row["n"], completed=row["done"], facts=row["encoder"])  # type: ignore[arg-type]
            elif row["event"] == "stage" and row["cached"]:
                bars.add_task(row["name"], total=row["epochs"], completed=row["epochs"], facts="from the store")

        yield report


def _plain() -> Report:
    said = {"at": 0.0}

    def report(row: Row) -> None:
        if row["event"] == "stage" and row["epochs"]:
            how = "from the store" if row["cached"] else f"{row['seconds']:.1f} s"
            print(f"{row['name']}: {row['epochs']} epochs, {how}", file=sys.stderr, flush=True)
        elif row["event"] == "features" and time.monotonic() - said["at"] >= LINE_SECONDS:
            said["at"] = time.monotonic()
            left = "" if row["left"] is None else f", {minutes(row['left'])} left"
            print(f"features by {row['encoder']}: {row['done']}/{row['n']}{left}", file=sys.stderr, flush=True)
        elif row["event"] == "epoch" and time.monotonic() - said["at"] >= LINE_SECONDS:
            said["at"] = time.monotonic()
            print(f"{row['stage']} {row['epoch']}/{row['epochs']} {_facts(row)}", file=sys.stderr, flush=True)

    return report


def minutes(seconds: float) -> str:
    """A time that is left, in words."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _facts(row: Row) -> str:
    parts = [f"loss {row['loss']:.3f}"]
    return " ".join(parts + [f"{name} {row[name]:.3f}" for name in ("acc",) if name in row])
