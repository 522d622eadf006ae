"""Random parameters of image operations, one row per sample, from an explicit CPU generator.

Matrices are float64 `[n, 3, 3]` and take (column, row, 1) of an output point to an input point, in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def between(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Uniform in low..high, float32."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def boxes(
    generator: torch.Generator, n: int, height: int, width: int, scale: tuple[float, float], aspect_limit: float = 4 / 3
) -> Tensor:
    """`[n, 4]` float32 left, top, width, height: torchvision's RandomResizedCrop on square images.

    Of ten tries (area share uniform in `scale`, log aspect uniform in ±log `aspect_limit`) the first that fits, else
    the whole image.
    """
    area = height * width * between(generator, (n, 10), *scale)
    aspect = between(generator, (n, 10), -math.log(aspect_limit), math.log(aspect_limit)).exp()
    wide, high = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (wide <= width) & (high <= height) & (wide > 0) & (high > 0)
    failures = (fits.cumsum(1) == 0).sum(1)
    first = failures.clamp_max(9)[:, None]
    none = failures == 10
    wide = torch.where(none, float(width), wide.gather(1, first)[:, 0])
    high = torch.where(none, float(height), high.gather(1, first)[:, 0])
    u = torch.rand(2, n, generator=generator)
    left, top = (u[0] * (width - wide + 1)).floor(), (u[1] * (height - high + 1)).floor()
    return torch.stack([left, top, wide, high], 1)


def jitter(
    generator: torch.Generator, n: int, strengths: tuple[float, float, float, float], share: float
) -> dict[str, Tensor]:
    """Factors of brightness, contrast, saturation (1 ± strength, not below 0) and shift of hue, `[n]` each.

    A sample that is not chosen (probability 1 - share) gets the neutral values.
    """
    chosen = torch.rand(n, generator=generator) < share
    names = ("brightness", "contrast", "saturation")
    params = {}
    for name, strength in zip(names, strengths[:3], strict=True):
        factor = between(generator, (n,), max(0.0, 1 - strength), 1 + strength)
        params[name] = torch.where(chosen, factor, 1.0)
    params["hue"] = torch.where(chosen, between(generator, (n,), -strengths[3], strengths[3]), 0.0)
    return params


def blurs(generator: torch.Generator, n: int, sigmas: tuple[float, float], share: float) -> Tensor:
    """Standard deviation of a blur, uniform in `sigmas`, `[n]`; 0, no blur, with probability 1 - share."""
    sigma = between(generator, (n,), *sigmas)
    if share == 1:  # no coin, so that what is drawn afterwards is what it was before there were shares
        return sigma
    return torch.where(torch.rand(n, generator=generator) < share, sigma, 0.0)


def mirrors(generator: torch.Generator, n: int, width: int, share: float) -> Tensor:
    """Mirror image with probability `share`, else the identity."""
    matrix = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    flip = torch.rand(n, generator=generator) < share
    matrix[flip, 0, 0], matrix[flip, 0, 2] = -1.0, float(width)
    return matrix


def perspectives(
    generator: torch.Generator, n: int, height: int, width: int, distortion: float, share: float
) -> Tensor:
    """torchvision's RandomPerspective: corners move inwards, whole pixels, up to distortion/2 of the side."""
    chosen = torch.rand(n, generator=generator) < share
    limits = (int(distortion * (width // 2)), int(distortion * (height // 2)))
    inwards = torch.stack([torch.randint(0, m + 1, (n, 4), generator=generator) for m in limits], 2)
    corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    signs = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    matrix = homography((corners + signs * inwards).double(), corners.double().expand(n, 4, 2))
    return torch.where(chosen[:, None, None], matrix, torch.eye(3, dtype=torch.float64))


def homography(source: Tensor, target: Tensor) -> Tensor:
    """`[n, 3, 3]` with last entry 1 that takes four points `source` to `target`, `[n, 4, 2]` float64 each."""
    n = len(source)
    ones, zeros = torch.ones(n, 4, 1, dtype=source.dtype), torch.zeros(n, 4, 3, dtype=source.dtype)
    point = torch.cat([source, ones], 2)
    upper = torch.cat([point, zeros, -target[:, :, :1] * source], 2)
    lower = torch.cat([zeros, point, -target[:, :, 1:] * source], 2)
    right = torch.cat([target[:, :, 0], target[:, :, 1]], 1)
    solved = torch.linalg.solve(torch.cat([upper, lower], 1), right[:, :, None])[:, :, 0]
    return torch.cat([solved, ones[:, 0]], 1).view(n, 3, 3)


def affines(
    generator: torch.Generator,
    n: int,
    height: int,
    width: int,
    degrees: float,
    shift: float,
    smallest: float,
    largest: float,
    shear: float,
) -> Tensor:
    """Rotation, shear and scale about the image's centre, then a shift by up to that share of each side."""
    turn = math.radians(degrees) * _signed(generator, n)
    slope = torch.tan(math.radians(shear) * _signed(generator, n))
    scale = between(generator, (n,), smallest, largest).double()
    move = shift * torch.stack([width * _signed(generator, n), height * _signed(generator, n)], 1)
    one, zero = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(n, 2, 2)
    sheared = torch.stack([one, slope, zero, one], 1).view(n, 2, 2)
    linear = rotation @ sheared / scale[:, None, None]
    centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    matrix[:, :2, :2] = linear
    matrix[:, :2, 2] = centre - (linear @ (centre + move)[:, :, None])[:, :, 0]
    return matrix


def _signed(generator: torch.Generator, n: int) -> Tensor:
    return between(generator, (n,), -1.0, 1.0).double()
