"""`python -m raymc.train SPACE|STUDY [KEY=VALUE ...]`: train one configuration on one machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from raymc.cli import Parser, make_parser, storage_root
from raymc.config import parse_overrides
from raymc.execution.address import check_address
from raymc.study.names import check_target, shadowed_space


def parser() -> Parser:
    """The options of `train`."""
    parser = make_parser("train", "Train one configuration: a space's preset, or a study's winner, and KEY=VALUE.")
    parser.add_argument("space", metavar="SPACE|STUDY", help="a search space, its file, or a study: its winner")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. heads.weight_decay=1e-3")
    parser.add_argument("--seed", type=int, help="seed of every stage (default: the key seed, 0)")
    parser.add_argument("--workers", type=int, help="data-parallel workers, under Ray Train when above 1")
    parser.add_argument("--address", help="a running Ray cluster, e.g. auto (default: this machine)")
    parser.add_argument("--from", dest="start_from", metavar="STAGE", help="compute this stage and later ones anew")
    parser.add_argument("--out", type=Path, help="output folder (default: runs/<space>-<time>)")
    parser.add_argument("--tracking-uri", help="also record the run and its model in this MLflow")
    parser.add_argument("--register", metavar="NAME", help="register the model in MLflow under this name")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, print where the results are, and return what `--json` prints."""
    storage = storage_root(args)
    is_study = check_target(args.space, storage)  # what is wrong with it is said before torch is imported
    overrides = parse_overrides(args.overrides)
    if line := shadowed_space(args.space, storage):
        print(line, file=sys.stderr)
    if not is_study:
        from raymc.space.space import load_space

        load_space(args.space).pinned(overrides)  # and what is wrong here before all that training takes
    check_address(args.address)
    from raymc.commands.training import train_one

    return train_one(args)
