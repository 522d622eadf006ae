"""MNIST and Fashion-MNIST: four idx files, in torchvision's layout `MNIST/raw/`."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raymc.datasets.base import Dataset, Split
from raymc.datasets.files import Bytes, as_labels, read
from raymc.datasets.source import Source
from raymc.errors import InputError

PARTS = ("train", "t10k")


def read_full(source: Source, root: Path) -> Dataset:
    """Train and test together, in this order: the papers cluster all 70000 (MNIST-full)."""
    x, y = zip(*(_part(source, root, part) for part in PARTS), strict=True)
    train = Split(torch.cat(x), torch.cat(y))
    return source.dataset(root, train, None, f"train and test together, {len(train)}")


def read_test(source: Source, root: Path) -> Dataset:
    """The test part alone (MNIST-test)."""
    x, y = _part(source, root, "t10k")
    return source.dataset(root, Split(x, y), None, f"test, {len(x)}")


def read_split(source: Source, root: Path) -> Dataset:
    """The first 50000 of all 70000 to train on, the rest held out, as GCML's table of new points has it."""
    whole = read_full(source, root).train
    n_train, n_test = source.samples
    if len(whole) != n_train + n_test:
        raise InputError(f"{root / source.folder(root)}: {len(whole)} images; expected: {n_train + n_test}")
    order = torch.arange(len(whole))
    train, test = whole.rows(order[:n_train]), whole.rows(order[n_train:])
    words = f"the first {n_train} of train and test together, {n_test} held out"
    return source.dataset(root, train, test, words)


def _part(source: Source, root: Path, part: str) -> tuple[Tensor, Tensor]:
    folder = root / source.folder(root)
    in_files = source.in_files or source.samples
    n = in_files[-1] if part == "t10k" else in_files[0]
    images = read_idx(folder / f"{part}-images-idx3-ubyte", (n, *source.shape[1:]))
    path = folder / f"{part}-labels-idx1-ubyte"
    return torch.from_numpy(images)[:, None], as_labels(read_idx(path, (n,)), n, source.classes, path)


def read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """An idx file of unsigned bytes: 0, 0, type 8, number of axes, then each axis as a big-endian 32-bit number.

    Raises InputError where the file is missing or its magic number, shape or size differ from `shape`.
    """
    expected = f"an idx file of {'x'.join(map(str, shape))} bytes"
    data = read(path, expected)
    start = 4 + 4 * len(shape)
    if data[:4] != bytes((0, 0, 8, len(shape))):
        raise InputError(f"{path} starts with {data[:4].hex(' ') or 'nothing'}; expected: {expected}")
    if len(data) < start:
        raise InputError(f"{path} ends within its head; expected: {expected}")
    found = struct.unpack(f">{len(shape)}I", data[4:start])
    if found != shape:
        raise InputError(f"{path} holds {'x'.join(map(str, found))}; expected: {expected}")
    if len(data) - start != int(np.prod(shape)):
        raise InputError(f"{path} has {len(data) - start} bytes after its head; expected: {expected}")
    return np.frombuffer(bytearray(data), np.uint8, offset=start).reshape(shape)
