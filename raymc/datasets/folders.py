"""Datasets that are folders of image files: COIL-20, COIL-100, ImageNet-10, ImageNet-Dogs; and STL-10's binaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from raymc.datasets.base import Dataset, Split
from raymc.datasets.files import Bytes, as_labels, read, read_image, read_images
from raymc.datasets.source import Source
from raymc.errors import InputError

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}
VIEWS = 72
STL_PARTS = ("train", "test")


def read_coil(source: Source, root: Path) -> Dataset:
    """COIL, grey 64x64, ordered by object and view: `objN__V.png` of 128x128 or, already halved, 64x64.

    V is 0..71 for COIL-20 and the angle 0, 5, … 355 for COIL-100. Colour becomes the mean of the channels, 128x128
    the mean of 2x2 pixels, rounded once. Object n has label n - 1.
    """
    folder = source.folder(root)
    step = 360 // VIEWS if source.name == "coil100" else 1
    paths = [
        root / folder / f"obj{n}__{view * step}.png" for n in range(1, source.classes + 1) for view in range(VIEWS)
    ]
    kinds: set[str] = set()
    expected = "a PNG of 128x128 or 64x64, grey or RGB"

    def convert(image: Image.Image) -> Bytes | None:
        kinds.add(f"{image.width}x{image.height} {'grey' if image.mode == 'L' else 'colour'}")
        return grey_64(image)

    # One after the other: such small files are decoded faster than threads change over.
    x = torch.from_numpy(np.stack([read_image(path, expected, convert) for path in paths]))[:, None]
    if len(kinds) > 1:
        raise InputError(f"{root / folder} mixes images of {' and '.join(sorted(kinds))}; expected: one kind")
    y = torch.arange(source.classes).repeat_interleave(VIEWS)
    return source.dataset(root, Split(x, y), None, f"all, {len(x)}", f" ({kinds.pop()})")


def grey_64(image: Image.Image) -> Bytes | None:
    """`[64, 64]` uint8: mean over channels and, of 128x128, over 2x2 blocks, rounded; None for another kind."""
    if image.mode not in ("L", "RGB") or image.size not in ((128, 128), (64, 64)):
        return None
    block = image.size[0] // 64
    pixels = np.asarray(image).reshape(64, block, 64, block, -1)
    mean: NDArray[np.float64] = pixels.mean((1, 3, 4), dtype=np.float64)
    return np.rint(mean).astype(np.uint8)


def read_image_folder(source: Source, root: Path) -> Dataset:
    """One subfolder per class (labels in the order of their names), images of any size, resized to 96x96.

    Bilinear with antialiasing, aspect not kept, as the published baseline transform has it. Training crops are
    taken from the resized image: an original of 500 pixels held in memory for every sample would not fit.
    """
    folder = root / source.folder(root)
    classes = class_folders(folder, source.classes)
    paths = [sorted(p for p in c.iterdir() if p.suffix.lower() in SUFFIXES) for c in classes]
    for place, images in zip(classes, paths, strict=True):
        if not images:
            raise InputError(f"{place} holds no images; expected: {', '.join(sorted(SUFFIXES))}")
    side = source.shape[1]
    flat = [p for images in paths for p in images]
    if len(flat) != sum(source.samples):
        raise InputError(f"{folder} holds {len(flat)} images; expected: {sum(source.samples)}")

    def convert(image: Image.Image) -> Bytes | None:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(small).transpose(2, 0, 1)

    x = torch.from_numpy(np.stack(read_images(flat, "an image file", convert)))
    y = torch.arange(source.classes).repeat_interleave(torch.tensor([len(images) for images in paths]))
    return source.dataset(root, Split(x, y), None, f"all, {len(x)}", f" ({side}x{side})")


def class_folders(folder: Path, classes: int) -> list[Path]:
    """The subfolders, one per class, by name. Raises InputError where there are others than `classes` of them."""
    expected = f"{classes} subfolders, one per class"
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; expected: {expected}")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(found) != classes:
        raise InputError(f"{folder} has {len(found)} subfolders; expected: {expected}")
    return found


def read_stl10(source: Source, root: Path) -> Dataset:
    """STL-10's labelled images, train (5000) then test (8000): the paper trains and scores on all 13000."""
    folder = root / source.folder(root)
    images, labels = [], []
    for part, n in zip(STL_PARTS, source.samples, strict=True):
        path = folder / f"{part}_X.bin"
        pixels = _exact_bytes(path, n * int(np.prod(source.shape)), f"{n} images of {source.shape[1]} pixels")
        # The files are stored column by column.
        images.append(torch.from_numpy(pixels.reshape(n, *source.shape)).transpose(2, 3))
        path = folder / f"{part}_y.bin"
        numbers = _exact_bytes(path, n, f"{n} labels").astype(np.int64) - 1
        labels.append(as_labels(numbers, n, source.classes, path))
    train = Split(torch.cat(images).contiguous(), torch.cat(labels))
    return source.dataset(root, train, None, f"train and test together, {len(train)}")


def _exact_bytes(path: Path, size: int, expected: str) -> Bytes:
    data = read(path, expected)
    if len(data) != size:
        raise InputError(f"{path} has {len(data)} bytes; expected: {size} ({expected})")
    return np.frombuffer(bytearray(data), np.uint8)
