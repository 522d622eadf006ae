"""Datasets of vectors, float32: USPS in two versions, HAR, pendigits, and the deep-clustering papers' Reuters-10k.

The papers cluster all samples, so every row is in `train`, those of a published test part last.
"""

from __future__ import annotations

import bz2
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc.datasets.base import Dataset, Split
from raymc.datasets.files import as_labels, read, read_npz, read_pickled
from raymc.datasets.source import Source
from raymc.errors import InputError

Floats = NDArray[np.float64]
TOGETHER = "train and test together"


def read_usps(source: Source, root: Path) -> Dataset:
    """`usps.npz`: x `[9298, 256]` in 0..1 and y, the version of DEC, IDEC and n2d; train first, then test."""
    path = root / source.folder(root) / "usps.npz"
    arrays = read_npz(path, ("x", "y"))
    return _dataset(source, root, [arrays["x"]], [arrays["y"]], path, TOGETHER)


def read_libsvm(source: Source, root: Path) -> Dataset:
    """`usps.bz2` and `usps.t.bz2`, as torchvision downloads them: -1..1 becomes 0..1, labels 1..10 become 0..9.

    The pixels are not those of `usps`: mean difference 0.09 in the test part, of the same labels in the same order.
    """
    folder = root / source.folder(root)
    parts = [
        _libsvm(folder / name, n, source.shape[0])
        for name, n in zip(("usps.bz2", "usps.t.bz2"), source.samples, strict=True)
    ]
    x, y = [(values + 1) / 2 for values, _ in parts], [labels for _, labels in parts]
    return _dataset(source, root, x, y, folder, f"{TOGETHER}, libsvm's pixels")


def read_har(source: Source, root: Path) -> Dataset:
    """UCI's `train/X_train.txt`, `train/y_train.txt` and the same of `test`; labels 1..6 become 0..5."""
    folder = root / source.folder(root)
    x, y = [], []
    for part, n in zip(("train", "test"), source.samples, strict=True):
        x.append(_table(folder / part / f"X_{part}.txt", None, n, source.shape[0]))
        y.append(_table(folder / part / f"y_{part}.txt", None, n, 1)[:, 0])
    return _dataset(source, root, x, [_whole(labels, folder) - 1 for labels in y], folder, TOGETHER)


def read_pendigits(source: Source, root: Path) -> Dataset:
    """`pendigits.tra` and `pendigits.tes`, lines of 16 coordinates in 0..100 and the digit; divided by 100."""
    folder = root / source.folder(root)
    rows = [
        _table(folder / f"pendigits.{part}", ",", n, source.shape[0] + 1)
        for part, n in zip(("tra", "tes"), source.samples, strict=True)
    ]
    x, y = [part[:, :-1] / 100 for part in rows], [_whole(part[:, -1], folder) for part in rows]
    return _dataset(source, root, x, y, folder, TOGETHER)


def read_reuters(source: Source, root: Path) -> Dataset:
    """`reutersidf10k.npy`, a pickled dict of data `[10000, 2000]` and label, or `reuters10k.npz` with x and y."""
    folder = root / source.folder(root)
    path = folder / "reutersidf10k.npy"
    if path.is_file():
        expected = "the deep-clustering papers' array of a dict with data and label"
        found = read_pickled(path, expected)
        found = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
        if not isinstance(found, dict) or not {"data", "label"} <= found.keys():
            raise InputError(f"{path} lacks data or label; expected: {expected}")
        x, y = np.asarray(found["data"]), np.asarray(found["label"])
    else:
        path = folder / "reuters10k.npz"
        arrays = read_npz(path, ("x", "y"))
        x, y = arrays["x"], arrays["y"]
    # Some copies have the samples as [n, d, 1, 1] and the labels as a column.
    return _dataset(source, root, [x.reshape(len(x), -1) if x.ndim else x], [y.reshape(-1)], path, "all")


def _dataset(
    source: Source, root: Path, x: Sequence[NDArray[Any]], y: Sequence[NDArray[Any]], path: Path, words: str
) -> Dataset:
    """The parts `x` `[n, d]` and `y` `[n]` one after the other. Raises InputError naming `path` for what is wrong."""
    samples = _samples(np.concatenate(x), sum(source.samples), source.shape[0], path)
    labels = as_labels(_whole(np.concatenate(y), path), len(samples), source.classes, path)
    return source.dataset(root, Split(samples, labels), None, f"{words}, {len(samples)}")


def _samples(x: NDArray[Any], n: int, width: int, path: Path) -> Tensor:
    if x.shape != (n, width) or x.dtype.kind not in "iuf":
        raise InputError(f"{path} holds samples of shape {x.shape} ({x.dtype}); expected: {n}x{width} numbers")
    samples = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    if not bool(samples.isfinite().all()):
        raise InputError(f"{path} holds numbers that are not finite; expected: {n}x{width} finite ones")
    return samples


def _whole(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Labels that are stored as floating-point numbers, as whole ones."""
    if labels.dtype.kind != "f":
        return labels
    if not (np.isfinite(labels) & (labels == np.round(labels))).all():
        raise InputError(f"{path} holds labels that are no whole numbers")
    return labels.astype(np.int64)


def _table(path: Path, delimiter: str | None, n: int, width: int) -> Floats:
    """A text file of numbers, float64 `[n, width]`; None: white space between them."""
    expected = f"{n} lines of {width} numbers"
    text = read(path, expected).decode(errors="replace")
    if not text.strip():  # which numpy warns of
        raise InputError(f"{path} is empty; expected: {expected}")
    try:
        found: Floats = np.loadtxt(io.StringIO(text), np.float64, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} is torn ({error}); expected: {expected}") from error
    if found.shape != (n, width):
        lines, numbers = found.shape
        raise InputError(f"{path} holds {lines} lines of {numbers} numbers; expected: {expected}")
    return found


def _libsvm(path: Path, n: int, width: int) -> tuple[Floats, NDArray[Any]]:
    """`[n, width]` and labels from 0, of lines `label index:value …`, compressed."""
    from sklearn.datasets import load_svmlight_file  # half a second that few datasets need

    expected = f"{n} lines of libsvm's format with {width} values, compressed by bzip2"
    try:
        text = bz2.decompress(read(path, expected))
        values, labels = load_svmlight_file(io.BytesIO(text), n_features=width, zero_based=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is torn ({error}); expected: {expected}") from error
    if values.shape[0] != n:
        raise InputError(f"{path} holds {values.shape[0]} lines; expected: {expected}")
    return values.toarray(), _whole(labels, path) - 1
