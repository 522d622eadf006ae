"""`python -m raymc.tune SPACE [KEY=VALUE ...]`: search a space, and confirm the best on seeds it never saw."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from raymc.cli import Parser, add_running, make_parser, storage_root
from raymc.config import parse_overrides
from raymc.errors import InputError
from raymc.execution.address import check_address
from raymc.execution.needs import needs_of
from raymc.execution.room import check_room
from raymc.space.names import checked_space
from raymc.space.pruner import PRUNERS
from raymc.space.sampler import SAMPLERS
from raymc.study.counts import check_numbers
from raymc.study.names import find_study, newest_study, study_names

AUTO = "--resume=auto"


def parser() -> Parser:
    """The options of `tune`."""
    parser = make_parser("tune", "Search a space's hyperparameters and confirm the best on seeds it never saw.")
    parser.add_argument("space", help="a name in search_spaces/ or a path to a file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="fix a key: heads.weight_decay=1e-3")
    parser.add_argument("--trials", type=int, help="configurations (default: the space's; with --resume: more)")
    parser.add_argument("--seeds", type=int, help="seeds of a trial (default: the space's)")
    parser.add_argument("--seed", type=int, help="seed of the study (default: 0)")
    parser.add_argument("--from", dest="source", metavar="STUDY", help="let the sampler know an earlier study's trials")
    parser.add_argument("--retry", choices=["failed"], help="with --resume: run again what failed or lacked memory")
    parser.add_argument("--hours", type=float, help="hours after which no trial begins (with --resume: more)")
    parser.add_argument("--gpu-hours", type=float, help="GPU-hours of trials and shared stages after which none begins")
    parser.add_argument("--sampler", help=f"what draws trials: {', '.join(SAMPLERS)} (default: the space's, else tpe)")
    parser.add_argument("--pruner", help=f"what stops bad trials early: {', '.join(PRUNERS)} (default: the space's)")
    add_running(parser)
    parser.add_argument("--name", help="name of the study (default: the space and the time)")
    parser.add_argument("--resume", action="store_true", help="go on with the study --name, or the space's newest")
    # An option of its own, so that `--resume` takes no value and may stand before SPACE.
    parser.add_argument(
        AUTO, dest="resume", action="store_const", const="auto", help="begin the study --name, or go on with it"
    )
    parser.add_argument("--register", metavar="NAME", help="register the winner's model in MLflow under this name")
    parser.add_argument("--database", help="server for the trials (default: RAYMC_DATABASE, else a file of the study)")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, print the outcome, and return what `--json` prints."""
    overrides, storage = parse_overrides(args.overrides), storage_root(args)
    counts = {"trials": args.trials, "seeds": args.seeds, "concurrent": args.concurrent}
    check_numbers(overrides, **counts, seed=args.seed)
    if not args.resume:
        checked_space(args.space)
    resume = args.resume is True or (args.resume == "auto" and _begun(args.name, storage))
    if args.resume is True:  # what there is not is said as early
        find_study(storage, args.name) if args.name else newest_study(storage, Path(args.space).stem)
    from raymc.datasets import data_root
    from raymc.space.space import load_space

    if not resume:
        space = load_space(args.space).pinned(overrides)  # what is wrong is said before Optuna and MLflow are imported
        if args.address is None:
            check_room(needs_of(space))
    machines = check_address(args.address)
    if machines is not None and not resume:
        check_room(needs_of(space), machines)
    from raymc.execution.session import tune
    from raymc.reporting.search.outcome import finish
    from raymc.study.request import Request

    request = Request(
        space=args.space,
        overrides=overrides,
        storage=storage,
        data=str(data_root(args.data)),
        name=args.name,
        trials=args.trials,
        seeds=args.seeds,
        seed=args.seed,
        source=args.source,
        retry=None if args.resume == "auto" and not resume else args.retry,  # a study that begins has no failed trials
        hours=args.hours,
        gpu_hours=args.gpu_hours,
        sampler=args.sampler,
        pruner=args.pruner,
        register=args.register,
        concurrent=args.concurrent,
        address=args.address,
        tracking_uri=args.tracking_uri,
        database=args.database,
        resume=resume,
        smoke=args.smoke,
    )
    return tune(request, partial(finish, register=args.register))


def _begun(name: str | None, storage: str) -> bool:
    """Whether the study is there. Raises InputError without a name: each repetition would begin another study."""
    if name is None:
        raise InputError(f"{AUTO} needs --name: the study that is begun, or gone on with")
    return name in study_names(storage)
