"""`python -m raymc.cluster DATA`: cluster photos, rows or embeddings without a space file and without labels."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from raymc.bare_keys import BareKeys
from raymc.cli import Parser, add_running, make_parser, results
from raymc.commands.stability import request_of
from raymc.config import parse_overrides
from raymc.errors import InputError, Interrupted, RaymcError
from raymc.execution.address import check_address
from raymc.program import same_command
from raymc.study.counts import check_numbers
from raymc.validation import Key

SEEDS = 3


def parser() -> Parser:
    """The options of `cluster`."""
    parser = make_parser("cluster", "Cluster photos, rows or embeddings: no space file and no labels are needed.")
    parser.add_argument("source", metavar="DATA", help="a folder of photos, a file of rows, or a known dataset's name")
    parser.add_argument("--encoder", help="a frozen encoder that sees the data first, e.g. efficientnet_lite2")
    parser.add_argument("--weights", help="the encoder's file of weights")
    parser.add_argument("--features", action="store_true", help="the rows are an encoder's: scale them to unit length")
    parser.add_argument("--clusters", default="auto", metavar="K|auto", help="how many (default: auto; also LOW..HIGH)")
    parser.add_argument("--methods", metavar="NAMES", help="with commas, e.g. kmeans,mlc (default: all that fit)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"of each method (default: {SEEDS})")
    parser.add_argument("--seed", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--label", metavar="COLUMN|folder", help="the labels, which only measure")
    parser.add_argument("--text", metavar="COLUMN", help="the column of texts that the encoder is given")
    parser.add_argument("--id", metavar="COLUMN", help="the column that names the samples")
    parser.add_argument("--out", type=Path, help="output folder (default: runs/cluster-<name>)")
    add_running(parser)
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the methods, write the files, print the choice, and return what `--json` prints."""
    clusters = number_of_clusters(args.clusters)
    if (path := Path(args.source).expanduser()).suffix and not path.exists():
        raise InputError(f"{path} is missing; expected: a file of rows, a folder of photos or a known dataset's name")
    check_numbers({}, seeds=args.seeds, seed=args.seed, concurrent=args.concurrent)
    machines = check_address(args.address)
    from raymc.stability.side_by_side import DEFAULT_METHODS, Source, check_names

    keys = {name: getattr(args, name) for name in ("encoder", "weights", "features", "label", "id", "text")}
    source = Source.of(args.source, **keys)
    methods = tuple(name.strip() for name in args.methods.split(",")) if args.methods is not None else DEFAULT_METHODS
    check_names(methods)
    out = (args.out or Path("runs") / f"cluster-{source.name}").expanduser().resolve()
    from raymc.reporting.cluster.folder import make_folder
    from raymc.stability.cluster import cluster

    make_folder(out, source, default=args.out is None)
    try:
        found = cluster(request_of(args, "", machines=machines), source, methods, clusters)
    except KeyboardInterrupt as error:  # the same command goes on with what is missing
        raise Interrupted(same_command("cluster")) from error
    except RaymcError:
        with contextlib.suppress(OSError):  # an empty folder says nothing; one with files stays
            out.rmdir()
        raise
    from raymc.reporting.cluster.page import write_clustering
    from raymc.reporting.cluster.text import terminal_text

    page = write_clustering(found, out)
    print(terminal_text(found), file=results(args))
    print(f"report: {page}", file=results(args))
    return {
        "chosen": found.chosen.name,
        "seed": found.chosen.seed,
        "clusters": found.count.n,
        "n": len(found.dataset.train),
        "arms": found.rows(),
        "left_out": dict(found.left_out),
        "remarks": list(found.dataset.remarks),
        "smoke": args.smoke,
        "out": str(out),
        "report": str(page),
    }


def number_of_clusters(text: str) -> int | str:
    """`--clusters` as the key `n_clusters` takes it. Raises InputError."""
    value = parse_overrides([f"n_clusters={text}"])["n_clusters"]
    checked = Key(BareKeys, "n_clusters").check("--clusters", value)
    if not isinstance(checked, int | str):
        raise InputError(f"--clusters {text}: a number of clusters, auto or LOW..HIGH is needed")
    return checked
