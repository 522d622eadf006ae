"""The user's own images: a folder of files, with a subfolder for each label or without, or an array of pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from raymc.config import OwnData
from raymc.datasets.files import Bytes, read_images
from raymc.datasets.folders import SUFFIXES
from raymc.datasets.own_found import Found
from raymc.errors import InputError

SIDE = 64  # pixels, where the images have several sizes or a larger one
GREY = ("1", "L", "LA")
EXPECTED = ", ".join(sorted(SUFFIXES))
UNREAD = set(".avif .gif .heic .heif .jfif .jp2 .jpe .jxl .pbm .pgm .pnm .ppm .tga .tif .tiff".split())
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
    have where all are square and equal and at most 64 pixels wide, else to 64. Grey where all are grey. An image is
    turned as its EXIF data say; of transparent pixels the colour counts that is stored with them.
    """
    folder = Path(own.path)
    paths, labels, others = _files(folder)
    side = own.side or _common_side(paths)

    def convert(image: Image.Image) -> Bytes | None:
        if image.mode not in GREY + COLOUR:
            return None
        plain = _upright(image).convert("L" if image.mode in GREY else "RGB")
        pixels = np.asarray(plain.resize((side, side), Image.Resampling.BILINEAR))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    images = read_images(paths, "an image of 8 bits, grey or colour", convert)
    channels = max(len(image) for image in images)
    x = np.stack([np.broadcast_to(image, (channels, side, side)) for image in images])
    left_out = f"; {others} other files left out" if others else ""
    return Found(x, None if labels is None else np.asarray(labels), left_out=left_out)


def _upright(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it. Raises ValueError where its EXIF data do not say how."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # torn EXIF data raise nearly anything
        raise ValueError(f"EXIF data: {error}") from error


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files in the folder and below, ordered by folders and names; hidden files and folders are left out.

    A link to a folder that holds this one, or one of those `above` it on the way here, is not followed: it would never
    end. Raises OSError for a folder that cannot be read.
    """
    chain = (*above, folder.resolve())
    with os.scandir(folder) as found:
        shown = sorted(Path(entry.path) for entry in found if not entry.name.startswith("."))
    yield from (path for path in shown if not path.is_dir())
    for path in shown:
        target = path.resolve()
        if path.is_dir() and not any(place.is_relative_to(target) for place in chain):
            yield from files_below(path, chain)


def _files(folder: Path) -> tuple[list[Path], list[str] | None, int]:
    """The images, their labels, the names of the subfolders, and how many other files there are.

    The labels are None where the images lie in the folder itself. Raises InputError for images that would be left out.
    """
    try:
        files = list(files_below(folder))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}); expected: a folder of images") from error
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    _check_places(folder, files, images)
    others = len(files) - len(images)
    if images and images[0].parent == folder:
        return images, None, others
    here = folder.resolve()
    shown = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes = [path for path in shown if not here.is_relative_to(path.resolve())]
    full = {path.parent for path in images}
    empty = [place for place in classes if place not in full]
    if empty or not images:
        raise InputError(f"{empty[0] if empty else folder} holds no images; expected: {EXPECTED}")
    return images, [path.parent.name for path in images], others


def _check_places(folder: Path, files: Sequence[Path], images: Sequence[Path]) -> None:
    """Raises InputError where images are of a kind that is not read, too deep, or both in the folder and below."""
    unread = [path for path in files if path.suffix.lower() in UNREAD]
    if unread:
        kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
        why = f"holds {len(unread)} images of a kind that is not read ({kinds}); the first is {unread[0]}"
        raise InputError(f"{folder} {why}; expected: {EXPECTED}; convert them, or move them away")
    deep = [path for path in images if len(path.relative_to(folder).parts) > 2]
    if deep:
        why = f"holds {len(deep)} images below its subfolders; the first is {deep[0]}"
        raise InputError(f"{folder} {why}; expected: all in the folder itself, or in its subfolders")
    if len({path.parent == folder for path in images}) > 1:
        raise InputError(f"{folder} holds images beside subfolders of images; expected: all in subfolders, or none")


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
