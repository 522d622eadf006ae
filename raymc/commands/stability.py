"""`python -m raymc.stability SPACE|STUDY [--vs OTHER ...] [KEY=VALUE ...]`: configurations on many seeds.

With `--table NAME` instead, the cells of a paper's table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymc.cli import Parser, make_parser, storage_root
from raymc.config import parse_overrides
from raymc.datasets import data_root
from raymc.errors import InputError, Interrupted
from raymc.masking import masked_words

if TYPE_CHECKING:
    from raymc.search.steady_request import StabilityRequest

SEEDS = 10


def parser() -> Parser:
    """The options of `stability`."""
    parser = make_parser("stability", "Run one configuration on many seeds: a space's preset, or a study's winner.")
    parser.add_argument("target", metavar="SPACE|STUDY", nargs="?", help="a search space, or a study in the storage")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. heads.weight_decay=1e-3")
    parser.add_argument(
        "--vs",
        action="append",
        default=[],
        metavar="SPACE|STUDY",
        help="run this one on the same seeds too and compare; may be given again. KEY=VALUE goes to all that know KEY",
    )
    parser.add_argument("--table", metavar="NAME", help="run what is not yet run of a paper's table, e.g. gcml1")
    parser.add_argument(
        "--only",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="of the table these cells alone, e.g. 'gcml/*' or '*/usps' (ROW/DATASET)",
    )
    parser.add_argument("--seeds", type=int, help=f"how many (default: {SEEDS}; of a table, as many as it says)")
    parser.add_argument("--seed", type=int, help="the first one (default: 0; for a study, one that it has not used)")
    parser.add_argument("--concurrent", type=int, help="trainings at a time (default: what fits)")
    parser.add_argument("--address", help="a running Ray cluster, e.g. auto (default: Ray on this machine)")
    parser.add_argument("--tracking-uri", help="MLflow (default: MLFLOW_TRACKING_URI, else ./mlflow.db)")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train the seeds, print the figures, and return what `--json` prints."""
    if args.table:
        return _table(args)
    if args.target is None:
        raise InputError("name a search space or a study, or a table by --table")
    if args.only:
        raise InputError("--only picks cells of a table: name it by --table")
    from raymc.search.steady_request import StabilityRequest

    request = StabilityRequest(
        target=args.target,
        overrides=parse_overrides(args.overrides),
        storage=storage_root(args),
        data=str(data_root(args.data)),
        seeds=SEEDS if args.seeds is None else args.seeds,
        first_seed=args.seed,
        concurrent=args.concurrent,
        address=args.address,
        tracking_uri=args.tracking_uri,
        smoke=args.smoke,
        vs=tuple(args.vs),
    )
    try:
        return _several(request) if request.vs else _one(request)
    except KeyboardInterrupt as error:  # finished stages are in the store: the same command takes them from there
        raise _interrupted() from error


def _table(args: argparse.Namespace) -> dict[str, Any]:
    # KEY=VALUE may stand where the parser looks for a target, or after the patterns.
    given = ([args.target] if args.target is not None else []) + args.overrides
    target = next((word for word in given if "=" not in word), None)
    if target is not None or args.vs:
        raise InputError(f"give {target or '--vs'} or --table {args.table}, not both")
    from raymc.paper_table import load_table
    from raymc.reporting.tables.page import table_facts, text
    from raymc.search.tables import TableRequest, fill_table

    request = TableRequest(
        table=args.table,
        overrides=parse_overrides([*given, *(word for word in args.only if "=" in word)]),
        storage=storage_root(args),
        data=str(data_root(args.data)),
        only=tuple(word for word in args.only if "=" not in word),
        seeds=args.seeds,
        first_seed=args.seed,
        concurrent=args.concurrent,
        address=args.address,
        tracking_uri=args.tracking_uri,
        smoke=args.smoke,
    )
    try:
        result = fill_table(request)
    except KeyboardInterrupt as error:
        raise _interrupted() from error
    table = load_table(args.table)
    asked = {cell["dataset"] for cell in (*result["cells"], *result["skipped"])}
    shown = [dataset for dataset in table.columns if dataset in asked]
    print(text(table, table_facts(table, request.storage), shown))
    print(f"report: {result['report']}")
    return result


def _interrupted() -> Interrupted:
    return Interrupted(shlex.join(["python", "-m", "raymc.stability", *masked_words(sys.argv[1:])]))


def _one(request: StabilityRequest) -> dict[str, Any]:
    from raymc.reporting.stability.text import terminal_text
    from raymc.reporting.steady import read_stability
    from raymc.search.steadiness import stability

    result, _ = stability(request)
    print(terminal_text(read_stability(Path(result["folder"]))))
    print(f"report: {result['report']}")
    return result


def _several(request: StabilityRequest) -> dict[str, Any]:
    from raymc.reporting.stability.text import terminal_text
    from raymc.reporting.steady import read_stability
    from raymc.search.arms import check_finished, compare

    result, found = compare(request)
    print(terminal_text(read_stability(Path(result["folder"]))))
    print(f"report: {result['report']}")
    check_finished(result, found)
    return result
