"""A table of a paper, cell by cell: `raymc.stability --table`. Whatever has a result is not run again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from raymc import clusterers
from raymc.atomic import write_json
from raymc.config import NO_NUMBERS, nearest
from raymc.datasets import Dataset, data_facts
from raymc.datasets.catalogue import source_of
from raymc.errors import InputError
from raymc.execution.requirements import Requirements
from raymc.methods import METHODS
from raymc.stability.cells import CellResult, read_cell, read_cells, tables_root
from raymc.stability.configurations import Configuration, overrides_by_method, run_by
from raymc.stability.paper_tables import PaperTable, TableRow
from raymc.stability.queue import run_groups
from raymc.stability.request import StabilityRequest, seeds_to_run
from raymc.stability.seed_group import SeedGroup, Skipped, make_folder
from raymc.study import files
from raymc.study.counts import check_numbers
from raymc.study.manifest import check_data, load_data
from raymc.study.records import Row
from raymc.tracking import uri


@dataclass(frozen=True)
class Cell:
    """One algorithm on one dataset, as a command asks for it."""

    row: TableRow
    dataset: str
    configuration: Configuration

    @property
    def name(self) -> str:
        return f"{self.row.key}/{self.dataset}"

    @property
    def names(self) -> Row:
        return {"row": self.row.key, "dataset": self.dataset}

    def identity(self) -> Row:
        """All that its figures depend on, but for the seeds and the samples."""
        own = self.configuration
        return {
            "method": self.row.method,
            "dataset": self.dataset,
            "settings": {key: value for key, value in own.settings.items() if key not in NO_NUMBERS},
            "numerics": own.numerics,
            "smoke": own.smoke,
        }

    def place(self, table: Path) -> Path:
        """The folder of its configuration: the one that is there already, else a new one's, named by a hash."""
        folder, own = table / self.row.key / self.dataset, self.identity()
        for found in read_cells(folder):
            same = all(found.facts.get(key) == own[key] for key in own if key != "settings")
            if same and self.configuration.has(found.facts["settings"]):
                return found.folder
        return folder / hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


def fill_table(request: StabilityRequest, table: PaperTable, on_end: Callable[[], object] = lambda: None) -> Row:
    """Run the cells that have no result yet; what `stability --table --json` prints, but for the report.

    `on_end` is called whenever a cell has ended. A cell without data, or that another process runs, is skipped and
    told. Raises InputError for what is wrong before anything is made.
    """
    check_numbers(request.overrides, seeds=request.seeds, seed=request.first_seed, concurrent=request.concurrent)
    cells = make_cells(table, request)
    tracking_uri, root = uri.resolve(request.tracking_uri), tables_root(request.storage) / table.name
    wanted = seeds_to_run(request, count=1 if request.smoke else table.seeds)
    groups = [_group(request, table, cell, cell.place(root), wanted) for cell in cells]
    if request.resume and not any(read_cell(group.folder) for group in groups):
        raise InputError(f"--resume: nothing has been run of what is asked for of {table.name}")
    todo = [group for group in groups if group.missing]
    make_folder(root)

    def ended(group: SeedGroup) -> None:
        place = f"cell {todo.index(group) + 1} of {len(todo)}"
        print(f"{table.name}: {group.name}, {place}, has ended", file=sys.stderr, flush=True)
        on_end()

    skipped = run_groups(request, tracking_uri, todo, f"table {table.name}", in_turn=False, on_end=ended)
    found = [(cell, read_cell(group.folder)) for cell, group in zip(cells, groups, strict=True)]
    return {
        "table": table.name,
        "cells": [_shown(cell, result) for cell, result in found if result is not None],
        "skipped": [cell.names | {"reason": skipped[cell.name]} for cell in cells if cell.name in skipped],
        "seeds": list(wanted),
        "smoke": request.smoke,
    }


def make_cells(table: PaperTable, request: StabilityRequest) -> list[Cell]:
    """The cells that are asked for: small datasets first, each with its rows in the table's order.

    Raises InputError for a pattern that picks nothing, a key that no picked cell knows, and overrides that one of the
    cells does not take.
    """
    names = [f"{row.key}/{dataset}" for row, dataset in table.cells()]
    for pattern in request.only:
        if not any(fnmatchcase(name, pattern) for name in names):
            quoted = any(fnmatchcase(f"{row.key}/{c}", pattern) for row in table.rows.values() for c in table.columns)
            hint = " but what is quoted" if quoted else nearest(pattern, names)
            rows, columns = ", ".join(dict.fromkeys(name.split("/")[0] for name in names)), ", ".join(table.columns)
            raise InputError(f"--only {pattern}: no cell{hint} (rows: {rows}; datasets: {columns})")
    picked = [
        (row, dataset)
        for row, dataset in table.cells()
        if not request.only or any(fnmatchcase(f"{row.key}/{dataset}", pattern) for pattern in request.only)
    ]
    known, cells = overrides_by_method(request.overrides, [row.method for row, _ in picked]), []
    for row, dataset in sorted(picked, key=lambda pair: sum(source_of(pair[1]).samples)):
        overrides = known[row.method]
        space = table.space(row, dataset, overrides)
        try:
            configuration = Configuration.of(space, overrides, f"{row.key}/{dataset}", request.smoke)
            METHODS[row.method].stages(space.config())
        except InputError as error:
            raise InputError(f"{row.key}/{dataset}: {error}; --only picks the cells that take it") from error
        cells.append(Cell(row, dataset, configuration))
    return cells


def _group(
    request: StabilityRequest, table: PaperTable, cell: Cell, folder: Path, wanted: tuple[int, ...]
) -> SeedGroup:
    def begin() -> tuple[int, ...]:
        own = cell.configuration
        try:
            dataset = load_data(own.space, request.data, request.storage, request.smoke)
            check_data(own.space, own.config, dataset, objective=False)
        except InputError as error:
            raise Skipped(str(error)) from error
        before = read_cell(folder)
        if before is not None and before.facts["data"]["fingerprint"] != dataset.fingerprint:
            raise Skipped(f"the samples are not those that {folder} began with; move it away to begin anew")
        seeds = tuple(sorted({*wanted, *(run.seed for run in (before.seeds if before else ()))}))
        write_json(folder / "cell.json", _facts(table, cell, dataset, seeds, before))
        return seeds

    title = f"{table.name}-{cell.row.key}-{cell.dataset}-{folder.name}"
    own = cell.configuration
    requirements = Requirements(own.config, request.storage, request.data, None, own.smoke)
    return SeedGroup(cell.name, title, own, folder, wanted, labelled=True, requirements=requirements, begin=begin)


def _facts(table: PaperTable, cell: Cell, dataset: Dataset, seeds: Sequence[int], before: CellResult | None) -> Row:
    """What a cell's cell.json says; each command that runs seeds of it is one of its `sittings`."""
    own, session = cell.configuration, {"started": files.now(), **run_by()}
    return {
        "table": table.name,
        "row": cell.row.key,
        **cell.identity(),
        "preset": cell.row.preset,
        "fixed": dict(cell.row.own[cell.dataset]),
        "overrides": dict(own.overrides),
        "seeds_from": own.seeds_from,
        "seeds": list(seeds),
        "data": data_facts(dataset),
        "clusters_by": clusterers.described(own.config, len(dataset.train), METHODS[own.config.method].unit_rows),
        "created": before.facts["created"] if before else session["started"],
        "updated": session["started"],
        "sittings": [*(before.facts["sittings"] if before else ()), session],
    }


def _shown(cell: Cell, found: CellResult) -> Row:
    """A cell of the JSON."""
    return {
        **cell.names,
        "method": cell.row.method,
        "seeds": [run.seed for run in found.seeds],
        "states": found.states,
        "seeds_from": found.facts["seeds_from"],
        "overrides": found.facts["overrides"],
        "seconds": sum(run.seconds for run in found.seeds),
        **found.statistics(),
        "smoke": found.smoke,
        "folder": str(found.folder),
    }
