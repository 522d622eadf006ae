"""`python -m raymc.embed DATA --encoder NAME`: what a frozen encoder gives for data, as a file of vectors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from raymc.cli import Parser, make_parser
from raymc.errors import InputError

KINDS = (".npz", ".npy")
PRECISIONS = ("float32", "bfloat16", "float16")


def parser() -> Parser:
    """The options of `embed`."""
    parser = make_parser("embed", "Write the features that a frozen encoder gives for images or texts.")
    parser.add_argument("path", metavar="DATA", help="a folder of images, a file, or the name of a known dataset")
    parser.add_argument("--encoder", required=True, help="e.g. efficientnet_lite2; an unknown one lists all")
    parser.add_argument("--weights", help="a file of weights, of some libraries a folder (default: what is installed)")
    parser.add_argument(
        "--download", action="store_true", help="fetch weights that are not there into the user's cache"
    )
    parser.add_argument("--out", type=Path, help=".npz of x, sample, y; .npy of x alone (default: features.npz)")
    parser.add_argument("--label", help="the column of the labels; folder: the first level of folders")
    parser.add_argument("--id", help="the column of the samples' names")
    parser.add_argument("--text", metavar="COLUMN", help="the column of texts, for an encoder of texts")
    parser.add_argument("--side", type=int, help="pixels of the encoder's input (default: its own)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of operations and numbers")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, write the file, and return what `--json` prints."""
    out = (args.out or Path("features.npz")).expanduser().resolve()
    if out.suffix not in KINDS:
        raise InputError(f"--out {out}: expected: a name that ends in {' or '.join(KINDS)}")
    if args.side is not None and args.side < 1:
        raise InputError(f"--side {args.side}: at least 1 is needed")
    if not args.path.strip():
        raise InputError("DATA is empty; expected: a folder, a file, or the name of a known dataset")
    if (path := Path(args.path).expanduser()).suffix and not path.exists():
        raise InputError(f"{path} is missing; expected: a folder, a file, or the name of a known dataset")
    from raymc.encoders import check_name

    check_name(args.encoder)
    from raymc.commands.embedding import embed  # a second more

    return embed(args, out)
