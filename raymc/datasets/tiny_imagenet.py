"""Tiny-ImageNet: `train/<wnid>/images/*.JPEG`, `val/images/*.JPEG` and `val/val_annotations.txt`, as published.

A wnid is a class's WordNet id. `wnids.txt`, which lists them as the folders of `train` do, is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raymc.datasets.base import Dataset, Split
from raymc.datasets.files import Bytes, read, read_images
from raymc.datasets.folders import class_folders
from raymc.datasets.source import Source
from raymc.errors import InputError

CHUNK = 2000  # images that are held twice while they are put together


def read_tiny_imagenet(source: Source, root: Path) -> Dataset:
    """Train (100000) and, as test, the validation part (10000): the published test part has no labels.

    A label is the position of the wnid in sorted order, as in torchvision's ImageFolder. Training images are in the
    order of class and name, the others in that of `val_annotations.txt`. Grey images become RGB.
    """
    folder = root / source.folder(root)
    n_train, n_test = source.samples
    wnids = [path.name for path in class_folders(folder / "train", source.classes)]
    each = n_train // source.classes
    paths = [path for wnid in wnids for path in _images(folder / "train" / wnid / "images", each)]
    train = Split(_pixels(paths, source.shape), torch.arange(source.classes).repeat_interleave(each))
    labels = _annotations(folder / "val" / "val_annotations.txt", wnids, n_test)
    paths = [folder / "val" / "images" / name for name in labels]
    test = Split(_pixels(paths, source.shape), torch.tensor(list(labels.values())))
    words = f"train, {len(train)} (the {len(test)} of the validation part are held out)"
    return source.dataset(root, train, test, words)


def _images(folder: Path, n: int) -> list[Path]:
    paths = sorted(folder.glob("*.JPEG"))
    if len(paths) != n:
        raise InputError(f"{folder} holds {len(paths)} images; expected: {n} (*.JPEG)")
    return paths


def _annotations(path: Path, wnids: Sequence[str], n: int) -> dict[str, int]:
    """Name of each of the `n` images -> label, in the order of the lines."""
    expected = "lines of an image's name and its class's wnid, with a tab between"
    position = {wnid: label for label, wnid in enumerate(wnids)}
    lines = read(path, expected).decode(errors="replace").splitlines()
    labels = {}
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not wnid:
            raise InputError(f"{path}, line {number}, is {line[:80]!r}; expected: {expected}")
        if wnid not in position:
            raise InputError(f"{path}, line {number}, names the class {wnid!r}; expected: a subfolder of train")
        labels[name] = position[wnid]
    if not len(lines) == len(labels) == n:
        raise InputError(f"{path} names {len(labels)} images in {len(lines)} lines; expected: {n}, one in each")
    return labels


def _pixels(paths: Sequence[Path], shape: tuple[int, ...]) -> Tensor:
    """`[n, *shape]` uint8."""
    _, height, width = shape
    x = torch.empty(len(paths), *shape, dtype=torch.uint8)

    def convert(image: Image.Image) -> Bytes | None:
        if image.size != (width, height):
            return None
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    for start in range(0, len(paths), CHUNK):
        images = read_images(paths[start : start + CHUNK], f"a JPEG of {width}x{height}", convert)
        x[start : start + CHUNK] = torch.from_numpy(np.stack(images))
    return x
