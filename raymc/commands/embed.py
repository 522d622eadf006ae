"""`python -m raymc.embed DATA --encoder NAME`: what a frozen encoder gives for data, as a file of vectors."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from errno import EISDIR
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymc import encoders
from raymc.atomic import replaced
from raymc.cli import Parser, make_parser, results, storage_root
from raymc.config import OwnData, nearest
from raymc.datasets import NAMES
from raymc.datasets.own_labels import numbered
from raymc.errors import InputError, Interrupted, unwritable
from raymc.program import same_command
from raymc.storage.stage_store import Store
from raymc.training.features.data import ALONE, Raw, read_raw
from raymc.training.features.stage import TYPES, Features
from raymc.training.progress import progress
from raymc.training.training import pick_device

KINDS = (".npz", ".npy")
SMOKE_SAMPLES = 64


def parser() -> Parser:
    """The options of `embed`."""
    parser = make_parser("embed", "Write the features that a frozen encoder gives for images or texts.")
    parser.add_argument("path", metavar="DATA", help="a folder of images, a file, or the name of a known dataset")
    parser.add_argument("--encoder", required=True, help=f"one of {', '.join(encoders.KNOWN)}")
    parser.add_argument("--weights", help="a file of weights, of some libraries a folder (default: what is installed)")
    parser.add_argument(
        "--download", action="store_true", help="fetch weights that are not there into the user's cache"
    )
    parser.add_argument("--out", type=Path, help=".npz of x, sample, y; .npy of x alone (default: features.npz)")
    parser.add_argument("--label", help="the column of the labels; folder: the first level of folders")
    parser.add_argument("--id", help="the column of the samples' names")
    parser.add_argument("--text", metavar="COLUMN", help="the column of texts, for an encoder of texts")
    parser.add_argument("--side", type=int, help="pixels of the encoder's input (default: its own)")
    parser.add_argument("--precision", choices=tuple(TYPES), default="float32", help="of operations and numbers")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, write the file, and return what `--json` prints."""
    begun = time.monotonic()
    out = (args.out or Path("features.npz")).expanduser().resolve()
    if out.suffix not in KINDS:
        raise InputError(f"--out {out}: expected: a name that ends in {' or '.join(KINDS)}")
    own = _own(args)
    _check_written(out, args.out is not None)
    encoder = encoders.load(args.encoder, args.weights, args.side, args.download)
    raw = read_raw(own, args.data, SMOKE_SAMPLES if args.smoke else None)
    features = Features(encoder, raw.train, Store(storage_root(args)), args.precision, pick_device(None))
    try:
        with progress() as report:
            features.obtain(ALONE, report)
    except KeyboardInterrupt as error:  # what is done is in the store: the same command goes on from there
        raise Interrupted(same_command("embed")) from error
    names, labels = _names(raw), _labels(own, raw)
    try:
        _write(out, features, args.precision, names, labels)
    except OSError as error:
        raise unwritable(out, error, args.out is not None) from error
    how = " (from the store)" if features.cached else ""
    mark = "  (smoke: shortened)" if args.smoke else ""
    print(f"{len(features)} x {features.width} features of {encoder.name}{how}: {out}{mark}", file=results(args))
    return {
        "out": str(out),
        "encoder": encoder.name,
        "n": len(features),
        "m": features.width,
        "seconds": time.monotonic() - begun,
        "cached": features.cached,
    }


def _own(args: argparse.Namespace) -> OwnData:
    if args.side is not None and args.side < 1:
        raise InputError(f"--side {args.side}: at least 1 is needed")
    if not args.path.strip():
        raise InputError("DATA is empty; expected: a folder, a file, or the name of a known dataset")
    place = Path(args.path).expanduser()
    known = args.path in NAMES and not place.exists()
    if not known and not place.exists():
        raise InputError(f"{place} is missing, and no known dataset is called so{nearest(args.path, NAMES)}")
    return OwnData(
        name=place.stem or "data",
        path=args.path if known else str(place.resolve()),
        label=args.label,
        side=args.side,
        id=args.id,
        text=args.text,
        encoder=args.encoder,
    )


def _check_written(out: Path, given: bool) -> None:
    """Make the folder of `out`, before anything is embedded. Raises InputError where the file cannot be written."""
    if out.is_dir():
        raise unwritable(out, IsADirectoryError(EISDIR, "it is a folder"), given)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise unwritable(out, error, given) from error


def _names(raw: Raw) -> Sequence[str]:
    """What the samples are called: files, ids, or the numbers of their rows."""
    given = None if raw.found is None else raw.found.samples
    return [str(row) for row in range(len(raw.train))] if given is None else list(given)


def _labels(own: OwnData, raw: Raw) -> NDArray[Any] | None:
    """The labels as the user wrote them, of a known dataset as it numbers them; None without. Raises InputError."""
    if raw.known is not None:
        y = raw.known.train.y
        return None if y is None else y.numpy()
    assert raw.found is not None
    if raw.found.y is None:
        return None
    numbers, classes = numbered(raw.found, Path(own.path))
    return np.asarray(classes.names)[numbers.numpy()] if raw.found.y.dtype.kind in "US" else raw.found.y


def _write(out: Path, features: Features, precision: str, names: Sequence[str], labels: NDArray[Any] | None) -> None:
    """An .npz of all, or an .npy that is never in memory as a whole, with the rest beside it in `NAME.samples.npz`."""
    dtype = np.float16 if precision == "float16" else np.float32
    rest = {"sample": np.asarray(names, str)} | ({} if labels is None else {"y": labels})
    if out.suffix == ".npy":
        with replaced(out) as temporary, temporary.open("wb") as file:
            features.write_npy(file, dtype)
        out = out.with_suffix(".samples.npz")
    else:
        rest["x"] = features.array(dtype)
    with replaced(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **rest)  # type: ignore[arg-type]
