"""The user's own photos: a folder of image files as pixels of one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from raymc.config import OwnData
from raymc.datasets.files import Bytes, read_images
from raymc.datasets.own_folders import listed, text_below
from raymc.datasets.own_found import Found

SIDE = 64  # pixels, where the images have several sizes or a larger one
FEW_LEVELS = 64  # of 256: what 14 bits in a file of 16 come to
GREY = ("1", "L", "LA", "La")
COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")
EXPECTED = "an image of 8 bits, grey or colour, or grey of 16"
PAGED = ("TIFF", "PNG", "WEBP")  # the second picture of a phone's JPEG is a smaller copy of the first


def read_folder(own: OwnData) -> Found:
    """Images uint8 `[n, c, s, s]` in the order of folders and names; their classes, see `own_folders.listed`.

    All are resized to `own.side` (bilinear with antialiasing, aspect not kept), or, without it, to the side that they
    have where all are square and equal and at most 64 pixels wide, else to 64. Grey where all are grey. An image is
    turned as its EXIF data say, what is transparent is white, and greys of 16 bits are divided by 257. Of several pages
    or moments the first is taken. A sample is called by its path below the folder. Raises InputError.
    """
    folder = Path(own.path)
    found = listed(folder, own.label)
    common = own.side or _common_side(found.images)
    side, paged, deep = common or SIDE, [], []

    def convert(image: Image.Image) -> Bytes | None:
        plain = in_bytes(image)
        if plain is None:
            return None
        if is_deep(image):
            deep.append(int(image.getextrema()[1]))  # type: ignore[arg-type]  # of one channel
        pixels = np.asarray(plain.resize((side, side), Image.Resampling.BILINEAR))
        if image.format in PAGED and getattr(image, "n_frames", 1) > 1:
            paged.append(image.format)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    images = read_images(found.images, EXPECTED, convert)
    channels = max(len(image) for image in images)
    x = np.stack([np.broadcast_to(image, (channels, side, side)) for image in images])
    pages = f"; of {len(paged)} files with several pages the first" if paged else ""
    return Found(
        x,
        None if found.labels is None else np.asarray(found.labels),
        left_out=pages + _of_deep(deep) + found.left_out,
        samples=[text_below(path, folder) for path in found.images],
        side=side,
    )


def in_bytes(image: Image.Image) -> Image.Image | None:
    """The image as a viewer shows it on white paper, of mode L or RGB; None where its kind is not known.

    Raises ValueError where its EXIF data do not say how it is turned.
    """
    deep = is_deep(image)
    if not deep and image.mode not in GREY + COLOUR:
        return None
    upright = _upright(image)
    if deep:
        values = np.asarray(upright).astype(np.uint32)
        if "transparency" in image.info:
            values[values == image.info["transparency"]] = 65_535
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    kind = "L" if image.mode in GREY else "RGB"
    return (_on_white(upright) if upright.has_transparency_data else upright).convert(kind)


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey of 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # the latter: an older Pillow


def _of_deep(largest: Sequence[int]) -> str:
    """Words for greys of 16 bits, by the largest value of each."""
    if not largest:
        return ""
    levels = max(largest) // 257 + 1
    left = f", of whose 256 levels {levels} are used: the largest is {max(largest):,}" if levels <= FEW_LEVELS else ""
    return f"; greys of 16 bits of {len(largest)} files divided by 257{left}"


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # torn EXIF data raise nearly anything
        raise ValueError(f"EXIF data: {error}") from error


def _common_side(paths: Sequence[Path]) -> int | None:
    """The side of images that are all square, equal and small enough."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except Exception:  # whoever reads its pixels says what is wrong with it
            return None
    width, height = next(iter(sizes))
    return width if len(sizes) == 1 and width == height and width <= SIDE else None
