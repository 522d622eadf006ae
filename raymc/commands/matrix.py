"""Which method takes which dataset: one step of every method on every dataset that is present."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from raymc import datasets
from raymc.datasets.base import data_root
from raymc.datasets.catalogue import SOURCES
from raymc.errors import InputError, TrainingError
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.reporting.aligned import aligned
from raymc.space.space import make_space
from raymc.training.smoke import one_step

Cell = dict[str, Any]


def matrix(data: str | None, out: TextIO = sys.stdout) -> list[Cell]:
    """A cell `{dataset, method, ok, why}` for each pair, told in a table; `why` is one line where `ok` is false.

    Each method has the preset that it would have without one being named.
    """
    cells = [cell for name in present(data) for cell in (_step(method, name, data) for method in METHODS)]
    print(table(cells), file=out, flush=True)
    return cells


def present(data: str | None) -> list[str]:
    """The datasets that need no files or have theirs below the data folder."""
    root = data_root(data)
    return [name for name, source in SOURCES.items() if not source.folders or source.found(root) is not None]


def table(cells: list[Cell]) -> str:
    """The cells as a table of datasets by methods; what could not be says why below it."""
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    found = {(cell["dataset"], cell["method"]): "yes" if cell["ok"] else "no" for cell in cells}
    names = dict.fromkeys(cell["dataset"] for cell in cells)
    rows = [("dataset", *methods), *((name, *(found[name, method] for method in methods)) for name in names)]
    failed = [f"{cell['method']} on {cell['dataset']}: {cell['why']}" for cell in cells if not cell["ok"]]
    return "\n".join([aligned(rows), *failed])


def _step(method: str, dataset: str, data: str | None) -> Cell:
    """One step of each stage with the default preset."""
    cell: Cell = {"dataset": dataset, "method": method, "ok": False, "why": None}
    try:
        space = make_space(Path("matrix"), {"method": method, "dataset": dataset})
        read = datasets.load_once(space.config(), data)
        one_step(space.sized(Facts.of(read)).config(), read)
    except (InputError, TrainingError) as error:
        return cell | {"why": str(error)}
    return cell | {"ok": True}
