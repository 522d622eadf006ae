"""`python -m raymc.tune SPACE [KEY=VALUE ...]`: search a space, and confirm the best on seeds it never saw."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from raymc.cli import Parser, make_parser, storage_root
from raymc.config import parse_overrides
from raymc.datasets import data_root


def parser() -> Parser:
    """The options of `tune`."""
    parser = make_parser("tune", "Search a space's hyperparameters and confirm the best on seeds it never saw.")
    parser.add_argument("space", help="a name in search_spaces/ or a path to a file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="fix a key: heads.weight_decay=1e-3")
    parser.add_argument("--trials", type=int, help="configurations (default: the space's; with --resume: more)")
    parser.add_argument("--seeds", type=int, help="seeds of a trial (default: the space's)")
    parser.add_argument("--seed", type=int, help="seed of the study (default: 0)")
    parser.add_argument("--concurrent", type=int, help="trainings at a time (default: what fits)")
    parser.add_argument("--address", help="a running Ray cluster, e.g. auto (default: Ray on this machine)")
    parser.add_argument("--name", help="name of the study (default: the space and the time)")
    parser.add_argument("--resume", action="store_true", help="go on with the study --name, or the space's newest")
    parser.add_argument("--tracking-uri", help="MLflow (default: MLFLOW_TRACKING_URI, else ./mlflow.db)")
    parser.add_argument("--register", metavar="NAME", help="register the winner's model in MLflow under this name")
    parser.add_argument("--database", help="server for the trials (default: RAYMC_DATABASE, else a file of the study)")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, print the outcome, and return what `--json` prints."""
    from raymc.execution.session import tune
    from raymc.reporting.search.outcome import finish
    from raymc.study.request import Request

    request = Request(
        space=args.space,
        overrides=parse_overrides(args.overrides),
        storage=storage_root(args),
        data=str(data_root(args.data)),
        name=args.name,
        trials=args.trials,
        seeds=args.seeds,
        seed=args.seed,
        concurrent=args.concurrent,
        address=args.address,
        tracking_uri=args.tracking_uri,
        database=args.database,
        resume=args.resume,
        smoke=args.smoke,
    )
    return tune(request, partial(finish, register=args.register))
