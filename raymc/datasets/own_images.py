"""The user's own images: a folder of files, with a subfolder for each label or without, or an array of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raymc.config import OwnData
from raymc.datasets.files import Bytes, read_images
from raymc.datasets.folders import SUFFIXES
from raymc.datasets.own_found import Found
from raymc.errors import InputError

SIDE = 64  # pixels, where the images have several sizes or a larger one
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")


def as_images(x: NDArray[Any], path: Path) -> Tensor:
    """uint8 `[n, c, h, w]` of `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, c of 1 or 3; the last axis goes first.

    Raises InputError where no axis can be that of the colours.
    """
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.shape[1] not in (1, 3):
        shape = "x".join(map(str, x.shape))
        raise InputError(f"{path} holds images of {shape}; expected: 1 or 3 colours in the second or the last axis")
    return torch.from_numpy(np.ascontiguousarray(x))


def read_folder(own: OwnData) -> Found:
    """Images uint8 `[n, c, s, s]` in the order of folders and names, and the subfolders' names where there are any.

    All are resized to `own.side` (bilinear with antialiasing, aspect not kept), or, without it, to the side that they
    have where all are square and equal and at most 64 pixels wide, else to 64. Grey where all are grey.
    """
    folder = Path(own.path)
    paths, labels = _files(folder)
    side = own.side or _common_side(paths)

    def convert(image: Image.Image) -> Bytes | None:
        if image.mode not in GREY + COLOUR:
            return None
        plain = image.convert("L" if image.mode in GREY else "RGB")
        pixels = np.asarray(plain.resize((side, side), Image.Resampling.BILINEAR))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    images = read_images(paths, "an image of 8 bits, grey or colour", convert)
    channels = max(len(image) for image in images)
    x = np.stack([np.broadcast_to(image, (channels, side, side)) for image in images])
    return Found(x, None if labels is None else np.asarray(labels))


def _files(folder: Path) -> tuple[list[Path], list[str] | None]:
    """The images and their labels, the names of the subfolders; None where the images lie in the folder itself."""
    plain = _images(folder)
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if plain and not any(_images(place) for place in classes):
        return plain, None
    if plain:
        raise InputError(f"{folder} holds images beside subfolders of images; expected: all in subfolders, or none")
    found = {place: _images(place) for place in classes}
    empty = [place for place, images in found.items() if not images]
    if empty or not found:
        raise InputError(f"{empty[0] if empty else folder} holds no images; expected: {', '.join(sorted(SUFFIXES))}")
    pairs = [(path, place.name) for place, images in found.items() for path in images]
    return [path for path, _ in pairs], [label for _, label in pairs]


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _common_side(paths: Sequence[Path]) -> int:
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except Exception:  # whoever reads its pixels says what is wrong with it
            return SIDE
    width, height = next(iter(sizes))
    return width if len(sizes) == 1 and width == height and width <= SIDE else SIDE
