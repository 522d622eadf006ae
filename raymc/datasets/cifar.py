"""CIFAR-10, CIFAR-100 and its 20 superclasses, and MLC's imbalanced parts of the first two, in two layouts.

torchvision's: pickles in `cifar-10-batches-py/` or `cifar-100-python/`. Compact: `cifar10/` or `cifar100/` with
`train/*.webp` and `test/*.webp` (lossless strips 32 pixels wide, images one below the other, files in name order)
and `labels.npz` (`train`, `test`; for CIFAR-100 `train_fine`, `train_coarse`, `test_fine`, `test_coarse`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raymc.datasets.base import Dataset, Split
from raymc.datasets.files import Bytes, as_labels, read_images, read_npz, read_pickled
from raymc.datasets.source import Source
from raymc.errors import InputError

PICKLES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar-10-batches-py": {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    "cifar-100-python": {"train": ("train",), "test": ("test",)},
}
LABELS = {
    "cifar10": "labels",
    "cifar20": "coarse_labels",
    "cifar100": "fine_labels",
    "imb_cifar10": "labels",
    "imb_cifar100": "fine_labels",
}
COMPACT_LABELS = {"labels": "{}", "coarse_labels": "{}_coarse", "fine_labels": "{}_fine"}


def read_cifar(source: Source, root: Path) -> Dataset:
    """Train (50000, in the order of the files) and test (10000) of one of the three."""
    train, test = _splits(source, root / source.folder(root), source.samples)
    return source.dataset(root, train, test, f"train, {len(train)}")


def read_imbalanced(source: Source, root: Path) -> Dataset:
    """Imb-CIFAR of MLC (section 3.2): train (37500) and test (7500), without half of each odd-numbered class.

    The paper does not say which half; the first in the order of the files stays.
    """
    folder = source.folder(root)
    train, test = (_thinned(part, source.classes) for part in _splits(source, root / folder, source.in_files))
    for name, part, n in zip(("train", "test"), (train, test), source.samples, strict=True):
        if len(part) != n:
            raise InputError(f"{root / folder}: {len(part)} images of {name} are left; expected: {n}")
    words = f"train, {len(train)} (half of the odd-numbered classes removed)"
    return source.dataset(root, train, test, words)


def _splits(source: Source, folder: Path, counts: tuple[int, ...]) -> tuple[Split, Split]:
    part = _pickled if folder.name in PICKLES else _compact
    train, test = counts
    return Split(*part(source, folder, "train", train)), Split(*part(source, folder, "test", test))


def _thinned(whole: Split, classes: int) -> Split:
    assert whole.y is not None
    keep = torch.ones(len(whole), dtype=torch.bool)
    for label in range(1, classes, 2):
        rows = (whole.y == label).nonzero()[:, 0]
        keep[rows[len(rows) - len(rows) // 2 :]] = False
    return Split(whole.x[keep], whole.y[keep])


def _pickled(source: Source, folder: Path, part: str, n: int) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for name in PICKLES[folder.name][part]:
        x, y = _read_pickle(folder / name, LABELS[source.name])
        images.append(x)
        labels.append(as_labels(y, len(x), source.classes, folder / name))
    pixels = np.concatenate(images).reshape(-1, *source.shape)
    if len(pixels) != n:
        raise InputError(f"{folder}: {len(pixels)} images for {part}; expected: {n}")
    return torch.from_numpy(pixels), torch.cat(labels)


def _read_pickle(path: Path, key: str) -> tuple[Bytes, Any]:
    expected = f"a CIFAR batch (pickle) with data and {key}"
    batch = read_pickled(path, expected)
    if not isinstance(batch, dict) or not {"data", key} <= batch.keys():
        raise InputError(f"{path} lacks data or {key}; expected: {expected}")
    data = np.asarray(batch["data"])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{path} holds data {data.shape} of {data.dtype}; expected: rows of 3072 bytes")
    return data, batch[key]


def _compact(source: Source, folder: Path, part: str, n: int) -> tuple[Tensor, Tensor]:
    paths = sorted((folder / part).glob("*.webp"))
    expected = f"{n} images in strips 32 pixels wide (*.webp)"
    if not paths:
        raise InputError(f"{folder / part} holds no *.webp; expected: {expected}")
    pixels = np.concatenate(read_images(paths, expected, _strip))
    if len(pixels) != n:
        raise InputError(f"{folder / part} holds {len(pixels)} images; expected: {expected}")
    key = COMPACT_LABELS[LABELS[source.name]].format(part)
    path = folder / "labels.npz"
    return torch.from_numpy(pixels), as_labels(read_npz(path, [key])[key], n, source.classes, path)


def _strip(image: Image.Image) -> Bytes | None:
    width, height = image.size
    if width != 32 or height % 32 or image.mode != "RGB":
        return None
    return np.ascontiguousarray(np.asarray(image).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
