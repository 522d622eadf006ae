"""Progress bars of one training, on a terminal and in a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raymc.training.loop import Report, Row


@contextmanager
def bars(shown: bool) -> Iterator[Report]:
    """A `report` for `raymc.training.run.run`: a bar for each stage, where they are to be shown."""
    if not shown:
        yield lambda row: None
        return
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets has the terminal's bars
        from tqdm.auto import tqdm  # a notebook's own widgets, where there is a notebook

    stages: dict[str, Any] = {}

    def report(row: Row) -> None:
        if row["event"] in ("epoch", "resumed"):
            name = row["stage"]
            if name not in stages:
                stages[name] = tqdm(desc=name, total=row.get("epochs"), unit="epoch")
            bar = stages[name]
            bar.total = row.get("epochs", bar.total)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False) if "loss" in row else None
            bar.update(row["epoch"] - bar.n)
        elif row["event"] == "stage" and row["name"] in stages:
            stages[row["name"]].close()

    try:
        yield report
    finally:
        for bar in stages.values():
            bar.close()
