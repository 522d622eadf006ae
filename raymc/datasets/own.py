"""The user's own data: rows or images of a file or folder, a part that is held out; and what a training loads.

Whatever is wrong with a file is one line that names it. Rows are counted from 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raymc.config import Config, OwnData
from raymc.datasets.base import Dataset, Scaling, Split, fingerprint
from raymc.datasets.catalogue import load
from raymc.datasets.own_arrays import read_npy, read_npz, samples_in
from raymc.datasets.own_checks import check_alike, check_numbers, check_whole, images_in_words
from raymc.datasets.own_csv import read_csv
from raymc.datasets.own_folders import BY_FOLDER, files_below
from raymc.datasets.own_found import Array, Found
from raymc.datasets.own_images import read_folder
from raymc.datasets.own_labels import Classes, numbered, numbered_as
from raymc.datasets.own_parquet import read_parquet
from raymc.datasets.own_photos import list_photos
from raymc.datasets.own_tensors import read_pt, read_safetensors
from raymc.datasets.remarks import remarks_on
from raymc.datasets.scaling import WORDS, check_vectors, fit, scaled
from raymc.errors import InputError

FOLDER = "a folder"
READERS: dict[str, Callable[[OwnData], Found]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".safetensors": read_safetensors,
    ".pt": read_pt,
    FOLDER: read_folder,
}
TABLES = (".csv", ".parquet")
EXPECTED = ", ".join(kind for kind in READERS if kind != FOLDER) + " or a folder of images"


def load_for(config: Config, root: str | None = None) -> Dataset:
    """What `config` is trained on: a known dataset from the folder `root`, or the user's own data; scaled.

    Raises InputError for files that are missing, torn or not what they should be.
    """
    return _load(config.dataset, config.own, config.scaling, root)


def load_once(config: Config, root: str | None = None) -> Dataset:
    """As `load_for`, but the last two are kept while the user's own files are the same."""
    return _load_cached(config.dataset, config.own, config.scaling, root, stamp(config.own))


def _load(name: str, own: OwnData | None, scaling: str | None, root: str | None, stamped: object = None) -> Dataset:
    return scaled(load(name, root), scaling) if own is None else read_own(own, scaling)


_load_cached = lru_cache(maxsize=2)(_load)


def stamp(own: OwnData | None) -> object:
    """Of each file its path, time and size: a folder does not change when a file in it is written anew."""
    if own is None:
        return None
    named = (own.weights,) if own.known else (own.path, own.test, own.weights)
    places = [Path(place) for place in named if place is not None]
    try:
        return tuple(
            _stamp_of(path) for place in places for path in (files_below(place) if place.is_dir() else [place])
        )
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
    found = read_found(own)
    return as_dataset(own, found, read_held_out(own, found), scaling)


def of_array(own: OwnData, x: Array, columns: Sequence[str] = (), scaling: str | None = None) -> Dataset:
    """The dataset that an .npz of the array would give; `columns` are the names of those of rows `[n, d]`.

    Raises InputError for an array that is neither rows of numbers nor images.
    """
    samples, how = samples_in(x, own.path)
    return as_dataset(own, Found(samples, None, columns, left_out=how), None, scaling)


def read_found(own: OwnData, least: int = 2) -> Found:
    """What stands at `own.path`, as it is stored. Raises InputError, also for fewer samples than `least`."""
    path = Path(own.path)
    found = _reader(own, path)(own)
    if len(found.x) < least:
        raise InputError(f"{path} holds {len(found.x)} samples; at least {least} are needed")
    return found


def read_held_out(own: OwnData, found: Found) -> Found | None:
    """What stands at `own.test`, None where nothing is held out; images of a folder get the size of the training's.

    Raises InputError where its kind, columns or sizes are not those of the training rows `found`.
    """
    if own.test is None:
        return None
    kinds = [_kind(Path(place)) for place in (own.path, own.test)]
    if Path(own.test).exists() and kinds[0] != kinds[1]:
        raise InputError(f"{own.test} is {kinds[1]}, and {own.path} is {kinds[0]}; expected: the same kind as test")
    test = read_found(dataclasses.replace(own, path=own.test, test=None, side=found.side), least=1)
    return test if own.encoder else check_alike(found, test, own)


def as_dataset(own: OwnData, found: Found, test: Found | None, scaling: str | None = None) -> Dataset:
    """The dataset of what was read: labels numbered, and rows scaled, both by the training's. Raises InputError."""
    labels, classes = (None, None) if found.y is None else numbered(found, Path(own.path))
    scale = _scaling(own, found, scaling)
    train = _split(own, found, labels, scale)
    words = (images_in_words(found.x.shape[1:]) if scale is None else WORDS[scale.how]) + found.left_out
    columns = "" if scale is None else f"{found.x.shape[1]} columns, "
    return Dataset(
        name=own.name,
        train=train,
        test=None if test is None else _held_out(own, test, classes, scale),
        n_classes=None if classes is None else len(classes.names),
        split=f"all, {len(train)}; {words}",
        fingerprint=fingerprint(train.x),
        stream=None,
        epoch_size=len(train),
        source=f"{own.path} ({columns}{words})"
        + ("" if test is None else f"; held out: {len(test.x)} of {own.test}{test.left_out}"),
        scaling=scale,
        samples=_names(found),
        test_samples=None if test is None else _names(test),
        classes=None if classes is None else classes.names,
        columns=tuple(found.columns) or None,
        remarks=remarks_on(found, scale, labels, classes and classes.names, not (own.encoder or own.features)),
    )


def _names(found: Found) -> tuple[str, ...] | None:
    return None if found.samples is None else tuple(found.samples)


def _scaling(own: OwnData, found: Found, how: str | None) -> Scaling | None:
    """How the rows are scaled, None for images. Raises InputError for numbers that are none, and to scale images."""
    if found.x.ndim == 2:
        check_numbers(found, Path(own.path))
        check_whole(found, Path(own.path))
        return fit(found.x, how or ("unit" if own.encoder or own.features else "standardise"))
    if own.features:
        raise InputError(f"{own.path}: features: true is for rows of numbers, and these are images; name an encoder")
    if how not in (None, "none"):
        check_vectors(own.name, _pixels(found.x[:1]), str(how))
    return None


def _held_out(own: OwnData, test: Found, classes: Classes | None, scale: Scaling | None) -> Split:
    path = Path(str(own.test))
    if scale is not None:
        check_numbers(test, path)
    labels = None if test.y is None or classes is None else numbered_as(classes, test, path)
    return _split(own, test, labels, scale)


def _split(own: OwnData, found: Found, labels: Tensor | None, scale: Scaling | None) -> Split:
    if scale is None:
        return Split(_pixels(found.x), labels)
    return Split(scale(found.x, found.x if own.encoder else None), labels)  # features are of the caller's making


def _pixels(x: Array) -> Tensor:
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))  # of what is read-only, a copy


def _kind(path: Path) -> str:
    return FOLDER if path.is_dir() else path.suffix.lower()


def _reader(own: OwnData, path: Path) -> Callable[[OwnData], Found]:
    """What reads the file; raises InputError where nothing does, or a key of `dataset` is for another kind."""
    if not path.exists():
        raise InputError(f"{path} is missing; expected: {EXPECTED}")
    kind = _kind(path)
    if kind not in READERS:
        raise InputError(f"{path}: unknown extension {kind or '(none)'}; expected: {EXPECTED}")
    if own.label not in (None, BY_FOLDER) and kind == FOLDER:
        raise InputError(f"{path}: label names a column of a table; of a folder it is folder, or left out")
    if own.label is not None and kind not in (*TABLES, FOLDER):
        raise InputError(f"{path}: label names a column of a .csv or .parquet; here the labels are {_LABELS[kind]}")
    if own.id is not None and kind not in TABLES:
        raise InputError(f"{path}: id names a column of a .csv or .parquet; here samples are called by {_NAMES[kind]}")
    if own.text is not None and kind not in TABLES:
        raise InputError(f"{path}: text names a column of a .csv or .parquet, not of {kind}")
    if own.encoder and kind == FOLDER:
        return list_photos
    if own.side is not None and kind != FOLDER and not own.encoder:
        raise InputError(f"{path}: side is for a folder of images, not for {kind}")
    return READERS[kind]


_LABELS = {
    ".npz": "its array y",
    ".npy": "none (an .npz has x and y)",
    ".safetensors": "its tensor y",
    ".pt": "its tensor y",
}
_NAMES = {
    ".npz": "its array sample",
    ".npy": "the number of their row",
    ".safetensors": "the number of their row",
    ".pt": "the number of their row",
    FOLDER: "their files",
}
