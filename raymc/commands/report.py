"""`python -m raymc.report STUDY`: write the report of a study, finished or not, from what it left in the storage.

So of a run of `stability`, by the name that it was given.
With `--table NAME` instead, what has been run of a paper's table, beside the paper's figures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import sleep
from typing import Any

from raymc.cli import Parser, make_parser, results, storage_root
from raymc.errors import InputError, unwritable
from raymc.study.names import find_run

SECONDS = 5
"""Between two pages."""


def parser() -> Parser:
    """The options of `report`."""
    parser = make_parser(
        "report", "Write a study's report: one HTML page with trials.csv and summary.json beside it.", ("storage",)
    )
    parser.add_argument("study", nargs="?", help="name of a study in the storage, or of a run of stability")
    parser.add_argument("--table", metavar="NAME", help="a paper's table instead, e.g. gcml1: table.md and table.json")
    parser.add_argument("--watch", action="store_true", help="write it again and again while the study is running")
    parser.add_argument("--out", type=Path, help="output folder (default: reports/<study>, reports/table-<name>)")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the report, print where it is, and return what `--json` prints."""
    if args.table and args.study:
        raise InputError(f"give {args.study} or --table {args.table}, not both")
    if args.table:
        return _table(args)
    if args.study is None:
        raise InputError("name a study, or a table by --table")
    storage = storage_root(args)
    out = (args.out or Path("reports") / args.study).expanduser().resolve()
    part = find_run(storage, args.study)
    if args.watch:
        return _watch(args, storage, part, out)
    from raymc.reporting.search.page import write_report
    from raymc.reporting.stability.page import write_stability
    from raymc.storage.mirror import fetched

    with fetched(storage, part) as folder:
        try:
            page = write_stability(folder, out) if part.startswith("stability/") else write_report(folder, out)
        except OSError as error:
            raise unwritable(out, error, args.out is not None) from error
    print(f"report: {page}", file=results(args))
    return {"study": args.study, "report": str(page)}


def _watch(args: argparse.Namespace, storage: str, part: str, out: Path) -> dict[str, Any]:
    """Write the page until the study is not running any more; at last as one that stays as it is. Raises InputError."""
    name = args.study
    if not part.startswith("studies/"):
        raise InputError(f"--watch follows a study, and {name} is a run of stability: leave it out")
    from raymc.reporting.search.page import write_report
    from raymc.storage.mirror import followed
    from raymc.study.inventory import RUNNING, find_entry

    with followed(storage, part) as (folder, update):
        shown = False
        try:
            while find_entry(storage, name).state == RUNNING:
                update()
                page = write_report(folder, out, refresh=SECONDS)
                if not shown:
                    print(f"watching {name} (Ctrl-C ends that): {page}", file=sys.stderr)
                shown = True
                sleep(SECONDS)
        except KeyboardInterrupt:
            print("no longer watched; the study goes on", file=sys.stderr)
        except OSError as error:
            raise unwritable(out, error, args.out is not None) from error
        update()
        page, state = write_report(folder, out), find_entry(storage, name).state
    print(f"study {name} is {state}; report: {page}", file=results(args))
    return {"study": name, "state": state, "report": str(page)}


def _table(args: argparse.Namespace) -> dict[str, Any]:
    from raymc.reporting.tables.page import table_facts, text, write_table
    from raymc.stability.paper_tables import load_table

    table, storage = load_table(args.table), storage_root(args)
    out = (args.out or Path("reports") / f"table-{table.name}").expanduser().resolve()
    facts = table_facts(table, storage)
    try:
        page = write_table(table, storage, out)
    except OSError as error:
        raise unwritable(out, error, args.out is not None) from error
    print(text(table, facts), file=results(args))
    print(f"report: {page}", file=results(args))
    return {"table": table.name, "cells": facts["cells"], "report": str(page)}
