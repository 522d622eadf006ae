"""What `raymc embed` does once its options are read: torch and all the rest are imported here."""

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
from raymc.cli import results, storage_root
from raymc.config import OwnData, nearest
from raymc.datasets import NAMES
from raymc.datasets.own_labels import numbered
from raymc.errors import InputError, Interrupted, unwritable
from raymc.program import same_command
from raymc.storage.stage_store import Store
from raymc.training.features.data import ALONE, Raw, read_raw
from raymc.training.features.stage import Features
from raymc.training.progress import progress
from raymc.training.training import pick_device

SMOKE_SAMPLES = 64


def embed(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Embed, write the file, and return what `--json` prints."""
    begun = time.monotonic()
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
