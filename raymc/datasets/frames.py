"""Images at the size that an encoder takes: the shorter side resized with antialiasing, the centre cut out."""

from __future__ import annotations

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def framed(x: Tensor, resize: int, side: int, interpolation: str) -> Tensor:
    """Pixels float32 in 0..255 `[n, c, side, side]` of images uint8 `[n, c, h, w]`; they are not rounded.

    The shorter side becomes `resize` pixels; `interpolation` is `bicubic` or `bilinear`.
    """
    shape = _resized(x.shape[2], x.shape[3], resize)
    out = x.float()
    if shape != tuple(x.shape[2:]):
        out = F.interpolate(out, shape, mode=interpolation, antialias=True, align_corners=False)
        out = out.clamp(0, 255)  # bicubic goes beyond
    top, left = ((length - side) // 2 for length in shape)
    return out[:, :, top : top + side, left : left + side]


def framed_photo(image: Image.Image, resize: int, side: int, interpolation: str) -> Image.Image:
    """As `framed`, of one image file: by Pillow, which is faster for large ones and rounds to whole numbers."""
    height, width = _resized(image.height, image.width, resize)
    top, left = (height - side) // 2, (width - side) // 2
    return image.resize((width, height), RESAMPLING[interpolation]).crop((left, top, left + side, top + side))


def _resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width at which the shorter of them is `shorter` and their ratio stays."""
    low = min(height, width)
    return round(height * shorter / low), round(width * shorter / low)
