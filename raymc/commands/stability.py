"""`python -m raymc.stability SPACE|STUDY [--vs OTHER ...] [KEY=VALUE ...]`: configurations on many seeds.

With `--table NAME` instead, the cells of a paper's table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raymc.cli import Parser, add_running, make_parser, storage_root
from raymc.config import Value, parse_overrides
from raymc.errors import InputError, Interrupted, TrainingError
from raymc.execution.address import check_address
from raymc.program import same_command
from raymc.study.counts import check_numbers
from raymc.study.names import check_target, shadowed_space
from raymc.study.records import Row

if TYPE_CHECKING:
    from raymc.stability.request import StabilityRequest

PLAIN = ("kmeans", "gmm", "spectral", "agglomerative", "hdbscan", "turtle")
"""What `raymc.stability.configurations` knows by name, without importing it."""


def parser() -> Parser:
    """The options of `stability`."""
    parser = make_parser("stability", "Run one configuration on many seeds: a space's preset, or a study's winner.")
    parser.add_argument("target", metavar="SPACE|STUDY", nargs="?", help="a search space, or a study in the storage")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. heads.weight_decay=1e-3")
    parser.add_argument(
        "--vs",
        action="append",
        default=[],
        metavar="SPACE|STUDY|PLAIN",
        help="run this one on the same seeds too and compare; may be given again. KEY=VALUE goes to all that know KEY. "
        f"A plain method by name, on the same samples: {', '.join(PLAIN)}",
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
    parser.add_argument("--seeds", type=int, help="how many (default: 10; of a table, as many as it says)")
    parser.add_argument("--seed", type=int, help="the first one (default: 0; for a study, one that it has not used)")
    parser.add_argument("--resume", action="store_true", help="go on with a run of the same words; begin none")
    add_running(parser)
    return parser


def run(args: argparse.Namespace) -> Row:
    """Train the seeds, print the figures, and return what `--json` prints."""
    # KEY=VALUE may stand where the parser looks for a target, or after the patterns.
    words = [args.target] if args.target is not None else []
    words += [*args.overrides, *(word for word in args.only if "=" in word)] if args.table else args.overrides
    targets = [word for word in words if "=" not in word] if args.table else []
    if args.table and (targets or args.vs):
        raise InputError(f"give {targets[0] if targets else '--vs'} or --table {args.table}, not both")
    if not args.table and args.target is None:
        raise InputError("name a search space or a study, or a table by --table")
    if not args.table and args.only:
        raise InputError("--only picks cells of a table: name it by --table")
    overrides, storage = parse_overrides(words if args.table else args.overrides), storage_root(args)
    check_numbers(overrides, seeds=args.seeds, seed=args.seed, concurrent=args.concurrent)
    if not args.table:
        check_target(args.target, storage)  # what is wrong with it is said before torch is imported
        for other in args.vs:
            check_target(other, storage, PLAIN)
        for line in filter(None, (shadowed_space(one, storage) for one in (args.target, *args.vs))):
            print(line, file=sys.stderr)
    machines = check_address(args.address)
    only = tuple(word for word in args.only if "=" not in word)
    more = {"vs": tuple(args.vs), "only": only, "resume": args.resume, "machines": machines}
    request = request_of(args, args.table or args.target, overrides, **more)
    try:
        return table(request) if args.table else stability(request)
    except KeyboardInterrupt as error:  # the same command goes on with what is missing
        raise interrupted() from error


def request_of(
    args: argparse.Namespace, target: str, overrides: Mapping[str, Value] | None = None, **more: Any
) -> StabilityRequest:
    """What a command's options ask of `stability`; `more` are fields that other commands do not have."""
    from raymc.datasets import data_root
    from raymc.stability.request import StabilityRequest

    return StabilityRequest(
        target=target,
        overrides=overrides or {},
        storage=storage_root(args),
        data=str(data_root(getattr(args, "data", None))),
        seeds=args.seeds,
        first_seed=args.seed,
        concurrent=args.concurrent,
        address=args.address,
        tracking_uri=args.tracking_uri,
        smoke=getattr(args, "smoke", False),
        **more,
    )


def interrupted() -> Interrupted:
    """What tells the words to go on with."""
    return Interrupted(same_command("stability"))


def stability(request: StabilityRequest) -> Row:
    """Run configurations on seeds, write and print the report; what `stability --json` prints.

    Raises TrainingError, with that, where one has no finished seed.
    """
    from raymc.reporting.stability.beside import beside_kmeans
    from raymc.reporting.stability.page import write_stability
    from raymc.reporting.stability.text import terminal_text
    from raymc.stability.reader import read_stability
    from raymc.stability.runs import keep_report, run_stability

    done = run_stability(request)
    report = {"report": str(write_stability(done.folder, done.out))}
    keep_report(done)
    found = read_stability(done.folder)
    result = found.result | report
    if beside := beside_kmeans(found):
        result["baseline"] = beside
    if found.several:
        result["arms"] = [group.result | report for group in found.groups]
    print(terminal_text(found))
    print(f"report: {result['report']}")
    lost = [group for group in found.groups if not group.result["states"].get("finished")]
    if lost:
        whose = f" of {' and '.join(group.name for group in lost)}" if found.several else ""
        error = str(lost[0].record.error).splitlines()[-1]
        raise _failure(f"no seed{whose} finished; the first error: {error}", result)
    return result


def table(request: StabilityRequest) -> Row:
    """Run what is missing of a paper's table, write and print it; what `stability --table --json` prints.

    Raises TrainingError, with that, where all seeds of a cell went wrong.
    """
    from raymc.reporting.tables.page import table_facts, text, write_table
    from raymc.stability.paper_tables import load_table
    from raymc.stability.tables import fill_table
    from raymc.study.request import report_folder

    found = load_table(request.target)
    out = report_folder(f"table-{found.name}")
    result = fill_table(request, found, lambda: write_table(found, request.storage, out))
    result["report"] = str(write_table(found, request.storage, out))
    asked = {cell["dataset"] for cell in (*result["cells"], *result["skipped"])}
    lost = [f"{cell['row']}/{cell['dataset']}" for cell in result["cells"] if not cell["states"].get("finished")]
    if lost:
        raise _failure(f"no seed of {', '.join(lost)} finished", result)
    print(text(found, table_facts(found, request.storage), [name for name in found.columns if name in asked]))
    print(f"report: {result['report']}")
    return result


def _failure(why: str, result: Row) -> TrainingError:
    error = TrainingError(f"{why}; report: {result['report']}")
    error.result = result
    return error
