"""Image operations with one parameter per sample, as few passes over memory as they take.

Shapes: x `[b, c, h, w]` float32 in 0..1, c = 1 (grey) or 3 (RGB); parameters `[b]` unless said otherwise.
The colour operations change x in place and return it; each equals torchvision's functional of the same name,
sample by sample. A row of the result depends on that row alone. Nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

LUMA = (0.2989, 0.587, 0.114)


def crop_resize(x: Tensor, box: Tensor, flip: Tensor, side: int | None = None) -> Tensor:
    """Bilinear resize of a box of each image, then a mirror image where `flip` is true.

    Args:
        box: `[b, 4]` left, top, width and height in pixels, inside the image.
        flip: bool `[b]`.
        side: height and width of the result; None: the image's.

    Equals torchvision's resized_crop, which never reads beyond the box and has antialiasing where the box is larger
    than the result.
    """
    height, width = x.shape[-2:]
    if side is not None and (height, width) != (side, side):
        return _crop_to(x, box, flip, side)
    # A box is no larger than the image: nothing is made smaller, and four neighbours are all that counts.
    across = _box_pixels(box[:, 0], box[:, 2], width)
    across = torch.where(flip[:, None], across.flip(1), across)
    down = _box_pixels(box[:, 1], box[:, 3], height)
    grid = x.new_empty(len(x), height, width, 2)
    grid[..., 0] = across.add(0.5).mul(2 / width).sub(1)[:, None, :]
    grid[..., 1] = down.add(0.5).mul(2 / height).sub(1)[:, :, None]
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _box_pixels(start: Tensor, length: Tensor, size: int) -> Tensor:
    """`[b, size]` source coordinates (pixel index) along one axis, kept inside the box."""
    step = (length / size)[:, None]
    inside = (torch.arange(size, device=start.device) + 0.5) * step - 0.5
    return inside.clamp_min(0).minimum(length[:, None] - 1) + start[:, None]


def _crop_to(x: Tensor, box: Tensor, flip: Tensor, side: int) -> Tensor:
    across = _pixel_shares(box[:, 0], box[:, 2], x.shape[3], side)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    down = _pixel_shares(box[:, 1], box[:, 3], x.shape[2], side)
    narrow = x.flatten(1, 2) @ across.mT
    return down[:, None] @ narrow.view(*x.shape[:3], side)


def _pixel_shares(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """`[b, side, size]`: what each of `size` pixels of an axis counts in each of `side` of the result; sums are 1.

    They fall linearly to 0 within a step of the result's pixels or, where steps are smaller, within a pixel.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / side
    centre = start + (torch.arange(side, device=start.device)[:, None] + 0.5) * step
    pixel = torch.arange(size, device=start.device) + 0.5
    shares = (1 - (pixel - centre).abs() / step.clamp_min(1)).clamp_min(0)
    shares = shares * ((pixel > start) & (pixel < start + length))
    return shares / shares.sum(2, keepdim=True)


def resize(x: Tensor, side: int) -> Tensor:
    """The whole image in `side` x `side` pixels: bilinear with antialiasing; one of that size stays as it is."""
    if x.shape[-2:] == (side, side):
        return x
    return interpolate(x, (side, side), mode="bilinear", antialias=True)


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear projective warp, zero outside the image.

    Args:
        matrix: `[b, 3, 3]` takes (column, row, 1) of an output pixel's centre to homogeneous input coordinates;
            centres lie at index + 1/2, in pixels.
    """
    height, width = x.shape[-2:]
    column = torch.arange(width, device=x.device) + 0.5
    row = (torch.arange(height, device=x.device) + 0.5)[:, None]
    m = matrix[:, :, :, None, None]
    scale = m[:, 2, 0] * column + m[:, 2, 1] * row + m[:, 2, 2]
    grid = x.new_empty(len(x), height, width, 2)
    for axis, size in ((0, width), (1, height)):
        moved = m[:, axis, 0] * column + m[:, axis, 1] * row + m[:, axis, 2]
        grid[..., axis] = moved.div_(scale).mul_(2 / size).sub_(1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x · factor, clipped to 0..1; in place."""
    return x.mul_(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean grey by `factor`, clipped to 0..1; in place."""
    mean = luma(x).mean((1, 2, 3), keepdim=True)
    scale = _per_image(factor)
    return x.mul_(scale).add_(mean * (1 - scale)).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from each pixel's own grey by `factor`, clipped to 0..1; in place. Grey images stay as they are."""
    if x.shape[1] == 1:
        return x
    grey = luma(x)
    scale = _per_image(factor)
    return x.mul_(scale).add_(grey.mul_(1 - scale)).clamp_(0, 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Hue turned by `shift` of a full circle, value and saturation unchanged; in place. Grey images stay."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    top = red.maximum(green).maximum(blue)
    low = red.minimum(green).minimum(blue)
    chroma = top - low
    # Hue times chroma, in sixths of a circle: which channel is the largest decides the third. The signs are 0
    # or 1 and choose by interpolation, exactly; torch.where takes four times as long on a CPU.
    hue = (blue - red).add_(chroma, alpha=2).lerp((red - green).add_(chroma, alpha=4), (top - green).sign_())
    hue = (green - blue).lerp(hue, (top - red).sign_())
    hue.div_(chroma.clamp_min(1e-12)).mul_(1 / 6).add_(shift[:, None, None])
    hue.sub_(hue.floor()).mul_(6)
    red.copy_(low).addcmul_(chroma, (hue - 3).abs_().sub_(1).clamp_(0, 1))
    green.copy_(low).addcmul_(chroma, (hue - 2).abs_().neg_().add_(2).clamp_(0, 1))
    blue.copy_(low).addcmul_(chroma, hue.sub_(4).abs_().neg_().add_(2).clamp_(0, 1))
    return x


def to_grey(x: Tensor, chosen: Tensor) -> Tensor:
    """The images that the bool `chosen` names, in grey on all channels; in place."""
    if x.shape[1] == 1:
        return x
    return x.lerp_(luma(x), _per_image(chosen.to(x.dtype)))


def solarise(x: Tensor, chosen: Tensor) -> Tensor:
    """1 - x for values of at least 128/255, in the images that the bool `chosen` names; in place."""
    turned = _per_image(chosen) & (x >= 128 / 255)
    return x.sub_(x.mul(2).sub_(1).mul_(turned))


def luma(x: Tensor) -> Tensor:
    """`[b, 1, h, w]`: 0.2989 R + 0.587 G + 0.114 B; a grey image is its own."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    grey = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return grey[:, None]


def gaussian_blur(x: Tensor, sigma: Tensor, size: int) -> Tensor:
    """Separable Gaussian of `size` (odd) taps and one standard deviation (pixels) per image, edges reflected.

    A standard deviation of 0 leaves an image exactly as it is.
    """
    half = size // 2
    taps = torch.arange(half + 1, device=x.device, dtype=x.dtype)
    # Below 0.07 pixels all taps but the middle one are exactly 0 in float32; 0 itself would make that one nan.
    weights = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weights = weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])
    x = pad(x, (half, half, half, half), mode="reflect")
    for axis in (2, 3):
        n = x.shape[axis] - 2 * half
        out = x.narrow(axis, half, n) * _per_image(weights[:, 0])
        for i in range(1, half + 1):
            pair = x.narrow(axis, half - i, n) + x.narrow(axis, half + i, n)
            out.addcmul_(pair, _per_image(weights[:, i]))
        x = out
    return x


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
