"""`python -m raymc.checkpoint SPACE [KEY=VALUE ...] --out DIR`: a stage's weights, for others to go on from.

The stage must have been trained: `python -m raymc.train` with the same words, or a search, leaves it in the store.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from raymc.cli import Parser, make_parser, results, storage_root
from raymc.config import parse_overrides
from raymc.errors import InputError
from raymc.space.names import checked_space, word_of


def parser() -> Parser:
    """The options of `checkpoint`."""
    parser = make_parser("checkpoint", "Write a stage's result as float16 weights in small files, with a model card.")
    parser.add_argument("space", help="a name in search_spaces/ or a path to a file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as they were trained with")
    parser.add_argument("--stage", help="which stage's result (default: the first that trains)")
    parser.add_argument("--seed", type=int, help="seed of every stage (default: the key seed, 0)")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, e.g. checkpoints/my-stage-1")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the checkpoint, print where it is, and return what `--json` prints."""
    if args.smoke:
        raise InputError("--smoke: weights of a shortened training are no start for anyone; leave it out")
    overrides = parse_overrides(args.overrides)
    checked_space(args.space)  # what is wrong with it is said before torch is imported
    from raymc.datasets import data_root
    from raymc.methods import METHODS
    from raymc.space.sized import sized
    from raymc.space.space import load_space
    from raymc.training.checkpoints.export import export
    from raymc.training.checkpoints.model_card import lacking
    from raymc.training.features.data import Setting
    from raymc.training.stages import seeds_of

    space = load_space(args.space).pinned(overrides)
    space = sized(space, str(data_root(args.data)), Setting(storage_root(args)))
    config = space.config({} if args.seed is None else {"seed": args.seed})
    trained = [s.name for s in METHODS[space.method].stages(config) if config.stages[s.name].epochs]
    stage = args.stage or next(iter(trained), "")
    if stage not in trained:
        raise InputError(f"--stage: {stage} is not one of the stages that train: {', '.join(trained)}")
    words = [word_of(space.path), *args.overrides, *([] if args.seed is None else ["--seed", str(args.seed)])]
    out = args.out.expanduser().resolve()
    card = export(
        config,
        stage,
        seeds_of(tuple(space.stage_settings), config.seed, 0, config.seeds_from, config.varies),
        out,
        storage=storage_root(args),
        data=str(data_root(args.data)),
        origin={"space": space.name, "command": shlex.join(["python", "-m", "raymc.train", *words])},
    )
    size = sum(file["bytes"] for file in card["files"])
    print(f"stage {stage}, {card['epochs']} epochs: {len(card['files'])} files, {size:,} bytes", file=results(args))
    print(f"checkpoint: {out}", file=results(args))
    if card["needs"]:
        print(lacking(card), file=sys.stderr)
    facts = {name: card[name] for name in ("stage", "key", "needs")}
    return {"checkpoint": str(out), **facts, "files": len(card["files"]), "bytes": size}
