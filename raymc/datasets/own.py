"""The user's own data: rows of an .npz, .npy, .csv or .parquet, or a folder of images; and what a training loads.

Whatever is wrong with a file is one line that names it. Rows are counted from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymc.config import Config, OwnData
from raymc.datasets.base import Dataset, Split, fingerprint, row_blocks
from raymc.datasets.catalogue import load
from raymc.datasets.own_found import Array, Found, some, text_labels
from raymc.datasets.own_images import as_images, files_below, read_folder
from raymc.datasets.own_tables import read_csv, read_parquet
from raymc.datasets.scaling import WORDS, check_vectors, fit, scaled
from raymc.errors import InputError

EXPECTED = ".npz, .npy, .csv, .parquet or a folder of images"
LIKE_LABELS = ("y", "label", "labels", "target", "targets", "class", "classes", "y_train")
LARGEST = float(np.finfo(np.float32).max)


def load_for(config: Config, root: str | None = None) -> Dataset:
    """What `config` is trained on: a known dataset from the folder `root`, or the user's own data; scaled.

    Raises InputError for files that are missing, torn or not what they should be.
    """
    return _load(config.dataset, config.own, config.scaling, root)


def load_once(config: Config, root: str | None = None) -> Dataset:
    """As `load_for`, but the last two are kept while the user's own file is the same."""
    return _kept(config.dataset, config.own, config.scaling, root, _stamp(config.own))


def _load(name: str, own: OwnData | None, scaling: str | None, root: str | None) -> Dataset:
    return scaled(load(name, root), scaling) if own is None else read_own(own, scaling)


@lru_cache(maxsize=2)
def _kept(name: str, own: OwnData | None, scaling: str | None, root: str | None, stamp: object) -> Dataset:
    return _load(name, own, scaling, root)


def _stamp(own: OwnData | None) -> object:
    """Of each file its path, time and size: a folder does not change when a file in it is written anew."""
    if own is None:
        return None
    place = Path(own.path)
    try:
        return tuple(_stamp_of(path) for path in (files_below(place) if place.is_dir() else [place]))
    except OSError:
        return None


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:  # gone, or a link to nowhere
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size


def read_own(own: OwnData, scaling: str | None = None) -> Dataset:
    """The user's own data; vectors are standardised unless `scaling` says otherwise. Raises InputError."""
    path = Path(own.path)
    found = _reader(own, path)(own)
    x = found.x
    if len(x) < 2:
        raise InputError(f"{path} holds {len(x)} samples; at least 2 are needed")
    labels = None if found.y is None else _numbered(found.y, len(x), path)
    if x.ndim > 2:
        return _images(own, as_images(x, path), labels, scaling, found.left_out)
    _check_numbers(x, found.columns, path)
    how = scaling or "standardise"
    scale = fit(x, how)
    split = Split(scale(x), labels)
    words = f"{WORDS[how]}{found.left_out}"
    return _dataset(own, split, f"all, {len(x)}; {words}", f"{path} ({x.shape[1]} columns, {words})", scale)


def _images(own: OwnData, x: Tensor, y: Tensor | None, scaling: str | None, left_out: str) -> Dataset:
    if scaling not in (None, "none"):
        check_vectors(own.name, x, str(scaling))
    _, channels, height, width = x.shape
    words = f"images of {width}x{height} {'colour' if channels == 3 else 'grey'}{left_out}"
    return _dataset(own, Split(x, y), f"all, {len(x)}; {words}", f"{own.path} ({words})", None)


def _dataset(own: OwnData, train: Split, words: str, source: str, scale: Any) -> Dataset:
    classes = None if train.y is None else int(train.y.max()) + 1
    return Dataset(own.name, train, None, classes, words, fingerprint(train.x), None, len(train), source, scale)


def _reader(own: OwnData, path: Path) -> Callable[[OwnData], Found]:
    """What reads the file; raises InputError where nothing does, or a key of `dataset` is for another kind."""
    if not path.exists():
        raise InputError(f"{path} is missing; expected: {EXPECTED}")
    kind = "a folder" if path.is_dir() else path.suffix.lower()
    readers = {".npz": _npz, ".npy": _npy, ".csv": read_csv, ".parquet": read_parquet, "a folder": read_folder}
    if kind not in readers:
        raise InputError(f"{path}: unknown extension {kind or '(none)'}; expected: {EXPECTED}")
    if own.label is not None and readers[kind] not in (read_csv, read_parquet):
        raise InputError(f"{path}: label names a column of a .csv or .parquet; here the labels are {_LABELS[kind]}")
    if own.side is not None and kind != "a folder":
        raise InputError(f"{path}: side is for a folder of images, not for {kind}")
    return readers[kind]


_LABELS = {".npz": "its array y", ".npy": "none (an .npz has x and y)", "a folder": "its subfolders"}


def _npz(own: OwnData) -> Found:
    expected = "an .npz with samples x and, where there are labels, y"
    arrays = _loaded(own.path, expected)
    if not isinstance(arrays, dict) or "x" not in arrays:
        names = f" (it has {', '.join(arrays) or 'nothing'})" if isinstance(arrays, dict) else ""
        raise InputError(f"{own.path} lacks an array x{names}; expected: {expected}")
    x, y = _samples(arrays["x"], own.path), arrays.get("y")
    others = [name for name in arrays if name not in ("x", "y")]
    likely = [name for name in others if name.lower() in LIKE_LABELS]
    if y is None and likely:
        raise InputError(f"{own.path} has no y but {likely[0]}: call labels y; to go without them leave them out")
    if y is not None and y.dtype.kind in "US" and y.ndim == 1:
        y = text_labels(y.tolist(), "label", own.path)
    return Found(x, y, left_out=f"; without its arrays {some(others)}" if others else "")


def _npy(own: OwnData) -> Found:
    x = _loaded(own.path, "an .npy of samples x")
    if not isinstance(x, np.ndarray):
        raise InputError(f"{own.path} holds several arrays; expected: an .npy of samples x")
    return Found(_samples(x, own.path), None)


def _loaded(path: str, expected: str) -> Any:
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected: {expected}") from error
    except Exception as error:  # zipfile, zlib and numpy each have their own errors for a torn file
        reason = "objects, which could be code" if "allow_pickle" in str(error) else str(error)
        raise InputError(f"{path} is torn or holds no plain arrays ({reason}); expected: {expected}") from error


def _samples(x: Array, path: str) -> Array:
    """`x` where it can be samples: numbers `[n, d]`, or uint8 of three or four axes."""
    images = x.dtype == np.uint8 and x.ndim in (3, 4)
    if 0 in x.shape or not (images or (x.ndim == 2 and x.dtype.kind in "biuf")):
        shape = "x".join(map(str, x.shape)) or "no"
        expected = "rows [n, d] of numbers, or uint8 images [n, h, w], [n, h, w, c] or [n, c, h, w]"
        raise InputError(f"{path} holds x of {shape} values ({x.dtype}); expected: {expected}")
    return x


def _check_numbers(x: Array, columns: Sequence[str], path: Path) -> None:
    count, first, done = 0, None, 0
    for block in row_blocks(x):
        wrong = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST))
        if len(wrong) and first is None:
            first = done + wrong[0][0], wrong[0][1]
        count, done = count + len(wrong), done + len(block)
    if first is not None:
        row, column = first
        where = f"row {row}, column {columns[column] if columns else column}"
        raise InputError(
            f"{path} holds {count} values that are missing, NaN, infinite or beyond float32; the first is in "
            f"{where} (counted from 0)"
        )


def _numbered(values: Array, n: int, path: Path) -> Tensor:
    """Labels int64 `[n]` from 0 on, in the order of the sorted values: whole numbers or texts. Raises InputError."""
    if values.shape != (n,) or values.dtype.kind not in "biufUS":
        shape = "x".join(map(str, values.shape))
        expected = f"{n} whole numbers or texts"
        raise InputError(f"{path} holds {shape} labels ({values.dtype}) for {n} samples; expected: {expected}")
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~(values == np.round(values)) | ~np.isfinite(values))
        if len(wrong):
            raise InputError(f"{path}: the label of row {wrong[0]} is {values[wrong[0]]}; expected: a whole number")
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{path}: all labels are {classes[0]}; at least two classes are needed, or no labels")
    return torch.from_numpy(numbers.astype(np.int64))
