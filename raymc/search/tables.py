"""A table of a paper, cell by cell: `raymc.stability --table`. Whatever has a result is not run again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from raymc import provenance
from raymc.config import Value, known_keys, nearest
from raymc.datasets import Dataset, data_facts
from raymc.datasets.catalogue import source_of
from raymc.errors import InputError, TrainingError
from raymc.execution.cluster import ray_session
from raymc.execution.driver import quiet_environment
from raymc.execution.session import needs_of
from raymc.methods import METHODS
from raymc.paper_table import PaperTable, TableRow, load_table
from raymc.reporting.cells import CellResult, read_cell, read_cells, tables_root
from raymc.reporting.tables.page import write_table
from raymc.search import records
from raymc.search.records import Row
from raymc.search.steadiness import running
from raymc.search.steady_request import Configuration, StabilityRequest, check_numbers, seeds_to_run
from raymc.space.seeds import seeds_from
from raymc.space.space import Space
from raymc.study.manifest import check_data, load_data
from raymc.study.request import report_folder
from raymc.tracking import uri
from raymc.training import clusters
from raymc.training.outputs import write_json
from raymc.training.stages import BANK_NUMERICS, LOOP_NUMERICS, uses_bank

RETRIED = ("failed", "out_of_memory")
"""States of a seed that say nothing of the configuration: it is run again."""


@dataclass(frozen=True)
class TableRequest:
    """What `stability --table` asks for; `seeds` None: as many as the table says, one in a smoke run."""

    table: str
    overrides: Mapping[str, Value]
    storage: str
    data: str
    only: tuple[str, ...] = ()
    seeds: int | None = None
    first_seed: int | None = None
    concurrent: int | None = None
    address: str | None = None
    tracking_uri: str | None = None
    smoke: bool = False


NO_NUMBERS = ("seed", "workers", "packed_seeds", "evaluate_every")
"""Bare keys on which no figure of a table hangs."""


@dataclass(frozen=True)
class Cell:
    """One algorithm on one dataset, as a command asks for it."""

    row: TableRow
    dataset: str
    space: Space
    overrides: dict[str, Value]
    smoke: bool

    @property
    def name(self) -> str:
        return f"{self.row.key}/{self.dataset}"

    @property
    def seeds_from(self) -> str:
        return seeds_from(self.space, self.space.config())

    def identity(self) -> Row:
        """All that its figures depend on, but for the seeds and the samples."""
        config = self.space.config()
        stages = METHODS[self.space.method].stages(config)
        settings = config.flat()
        return {
            "method": self.space.method,
            "dataset": self.dataset,
            "settings": {key: value for key, value in settings.items() if key not in NO_NUMBERS},
            "numerics": {"loop": LOOP_NUMERICS}
            | {stage.name: stage.numerics for stage in stages}
            | ({"bank": BANK_NUMERICS} if any(uses_bank(config.stages[stage.name]) for stage in stages) else {}),
            "smoke": self.smoke,
        }

    def place(self, table: Path) -> Path:
        """The folder of its configuration: the one that is there already, else a new one's, named by a hash."""
        folder, own = table / self.row.key / self.dataset, self.identity()
        for found in read_cells(folder):
            if self._same(found.facts, own):
                return found.folder
        return folder / hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]

    def _same(self, facts: Mapping[str, object], own: Row) -> bool:
        """Whether it is this configuration. A key that came later is in one of them alone: its default counts."""
        if any(facts.get(key) != own[key] for key in own if key != "settings"):
            return False
        before, now = facts["settings"], own["settings"]
        assert isinstance(before, dict)
        known = known_keys(self.space.stage_settings)
        absent = object()

        def value(settings: Mapping[str, object], key: str) -> object:
            return settings.get(key, known[key].default if key in known else absent)

        keys = (before.keys() | now.keys()).difference(NO_NUMBERS)
        return all(value(before, key) == value(now, key) for key in keys)


def fill_table(request: TableRequest) -> Row:
    """Run the cells that have no result yet; what `stability --table --json` prints.

    Raises InputError for what is wrong before anything is made; TrainingError, with the result, when all seeds of a
    cell went wrong. A cell without data, or that another process runs, is skipped and told.
    """
    table = load_table(request.table)
    asked = _asked(request, table)
    check_numbers(asked)
    cells = make_cells(table, request)
    tracking_uri = uri.resolve(request.tracking_uri)
    root, out = tables_root(request.storage) / table.name, report_folder(f"table-{table.name}")
    wanted = seeds_to_run(asked, ())
    skipped: list[Row] = []
    todo = [cell for cell in cells if to_run(read_cell(cell.place(root)), wanted)]
    with _session(request.address, todo):
        for number, cell in enumerate(todo, start=1):
            _tell(f"{table.name}: {cell.name}, cell {number} of {len(todo)}")
            try:
                _run(asked, table, cell, cell.place(root), wanted, tracking_uri)
            except _Skipped as why:
                skipped.append({"row": cell.row.key, "dataset": cell.dataset, "reason": str(why)})
                _tell(f"{cell.name} skipped: {why}")
                continue
            write_table(table, request.storage, out)
    result: Row = {
        "table": table.name,
        "cells": [_told(cell, found) for cell in cells if (found := read_cell(cell.place(root))) is not None],
        "skipped": skipped,
        "seeds": list(wanted),
        "smoke": request.smoke,
        "report": str(write_table(table, request.storage, out)),
    }
    _check_finished(result, wanted)
    return result


def make_cells(table: PaperTable, request: TableRequest) -> list[Cell]:
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
    known = {row.method: known_keys(METHODS[row.method].stage_settings) for row, _ in picked}
    every = sorted({key for keys in known.values() for key in keys})
    for key in request.overrides:
        if key not in every:
            raise InputError(f"unknown key {key} of {' and '.join(known)}{nearest(key, every)}")
    cells = []
    for row, dataset in sorted(picked, key=lambda pair: _size(pair[1])):
        overrides = {key: value for key, value in request.overrides.items() if key in known[row.method]}
        space = table.space(row, dataset, overrides)
        try:
            METHODS[row.method].stages(space.config())
        except InputError as error:
            raise InputError(f"{row.key}/{dataset}: {error}; --only picks the cells that take it") from error
        cells.append(Cell(row, dataset, space, overrides, request.smoke))
    return cells


def to_run(found: CellResult | None, wanted: Sequence[int]) -> list[int]:
    """The seeds of a cell that have no result, or one that says nothing of the configuration."""
    ended = {row["seed"] for row in found.seeds if row["state"] not in RETRIED} if found is not None else set()
    return [seed for seed in wanted if seed not in ended]


def _asked(request: TableRequest, table: PaperTable) -> StabilityRequest:
    """What every cell's run of `stability` shares."""
    shared = ("overrides", "storage", "data", "first_seed", "concurrent", "address", "tracking_uri", "smoke")
    seeds = request.seeds if request.seeds is not None else 1 if request.smoke else table.seeds
    return StabilityRequest(target=request.table, seeds=seeds, **{name: getattr(request, name) for name in shared})


class _Skipped(Exception):
    """Why a cell is not run now."""


def _run(
    request: StabilityRequest, table: PaperTable, cell: Cell, folder: Path, wanted: tuple[int, ...], tracking_uri: str
) -> None:
    try:
        dataset = load_data(cell.space, request.data, request.smoke)
        check_data(cell.space, cell.space.config(), dataset, objective=False)
    except InputError as error:
        raise _Skipped(str(error)) from error
    with _locked(folder):
        before = read_cell(folder)
        print_ = data_facts(dataset)["fingerprint"]
        if before is not None and before.facts["data"]["fingerprint"] != print_:
            raise _Skipped(f"the samples are not those that {folder} began with; move it away to begin anew")
        seeds = tuple(sorted({*wanted, *(row["seed"] for row in (before.seeds if before else ()))}))
        for row in before.seeds if before else ():
            if row["state"] in RETRIED and row["seed"] in wanted:
                records.seed_folder(folder, "stability", 0, row["seed"]).joinpath("result.json").unlink()
        write_json(folder / "cell.json", _facts(table, cell, dataset, seeds, before))
        chosen = Configuration(cell.space, {}, 0, cell.seeds_from, ())
        name = f"{table.name}-{cell.row.key}-{cell.dataset}-{folder.name}"
        asked = dataclasses.replace(request, overrides=cell.overrides, seeds=len(seeds))
        with running(asked, chosen, dataset, folder, name, seeds, tracking_uri):
            pass


def _facts(table: PaperTable, cell: Cell, dataset: Dataset, seeds: Sequence[int], before: CellResult | None) -> Row:
    """What a cell's cell.json says; each command that runs seeds of it is a sitting."""
    config = cell.space.config()
    sitting = {
        "started": records.now(),
        "command": provenance.command("stability"),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
        "git": provenance.revision(),
    }
    return {
        "table": table.name,
        "row": cell.row.key,
        **cell.identity(),
        "preset": cell.row.preset,
        "fixed": dict(cell.row.own[cell.dataset]),
        "overrides": cell.overrides,
        "seeds_from": cell.seeds_from,
        "seeds": list(seeds),
        "data": data_facts(dataset),
        "clusters_by": clusters.told(config, len(dataset.train)),
        "created": before.facts["created"] if before else sitting["started"],
        "updated": sitting["started"],
        "sittings": [*(before.facts["sittings"] if before else ()), sitting],
    }


def _told(cell: Cell, found: CellResult) -> Row:
    """A cell of the JSON."""
    return {
        "row": cell.row.key,
        "dataset": cell.dataset,
        "method": cell.space.method,
        "seeds": [row["seed"] for row in found.seeds],
        "states": found.states,
        "seeds_from": found.facts["seeds_from"],
        "overrides": found.facts["overrides"],
        "seconds": sum(row["seconds"] for row in found.seeds),
        **found.statistics(),
        "smoke": found.smoke,
        "folder": str(found.folder),
    }


def _check_finished(result: Row, wanted: Sequence[int]) -> None:
    """Raises TrainingError, with `result`, where all seeds of a cell went wrong."""
    lost = [f"{cell['row']}/{cell['dataset']}" for cell in result["cells"] if not cell["states"].get("finished")]
    if lost:
        error = TrainingError(f"no seed of {', '.join(lost)} finished; report: {result['report']}")
        error.result = result
        raise error


@contextlib.contextmanager
def _session(address: str | None, cells: Sequence[Cell]) -> Iterator[None]:
    """One Ray for all cells; none where there is nothing to run."""
    if not cells:
        yield
        return
    quiet_environment()
    with ray_session(address, dashboard=any(needs_of(cell.space).workers > 1 for cell in cells)):
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes off the cell."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "driver.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _Skipped("another process is running it") from error
    except OSError as error:
        raise InputError(f"--storage: {folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _size(dataset: str) -> int:
    return sum(source_of(dataset).samples)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
