"""Augmentation on the device, one set of parameters per sample.

A policy draws its parameters for the whole global batch from an explicit generator on the CPU; `apply` works on
any rows of them, so that a worker that takes its rows of samples and parameters gets the images that one process
would have made. The colour operations of a jitter come in the fixed order brightness, contrast, saturation, hue
(torchvision draws the order anew for each image): a drawn order would have to be read back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from raymc.datasets import draws, image_ops
from raymc.errors import InputError

# Numbers that a CPU works on at a time: the temporaries of 256 colour images of 32x32 stay in its cache.
CHUNK = 256 * 3 * 32 * 32


class Policy(Hashable, Protocol):
    """How views of samples are made."""

    def draw(self, generator: torch.Generator, n: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Parameters of `n` samples of `shape`; every tensor has n rows and lies on the CPU.

        Raises InputError where the policy is not for samples of this shape.
        """

    def apply(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """One view of each row, float32 `[b, ...]`, from as many rows of parameters on the device of `x`."""

    def plain(self, x: Tensor) -> Tensor:
        """The samples as evaluation sees them, float32 `[b, ...]`."""


@dataclass(frozen=True)
class ImagePolicy:
    """Views of images; what is None or 0 is left out. In the order of the fields.

    Attributes:
        crop: smallest and largest share of the area in a random resized crop; square images.
        aspect: largest ratio of the crop's sides; 1: squares.
        side: height and width of the crop's and of the plain output, in pixels; None: the image's. Not with a warp.
        flip: probability of a mirror image.
        perspective: distortion and probability of a random perspective, zero outside.
        affine: largest rotation (degrees), shift (share of the side), smallest and largest scale, largest
            shear (degrees).
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_share: probability of the jitter.
        grey: probability of a grey image.
        blur: smallest and largest standard deviation (pixels) of a Gaussian blur of 9 taps.
        blur_share: probability of the blur.
        solarise: probability that values from 128/255 on are turned round, x to 1 - x.
        noise: standard deviation of Gaussian noise per pixel, in units of the value range.
        mean, std: normalisation per channel, after everything else; empty: none.
    """

    crop: tuple[float, float] | None = None
    aspect: float = 4 / 3
    side: int | None = None
    flip: float = 0.0
    perspective: tuple[float, float] | None = None
    affine: tuple[float, float, float, float, float] | None = None
    jitter: tuple[float, float, float, float] | None = None
    jitter_share: float = 1.0
    grey: float = 0.0
    blur: tuple[float, float] | None = None
    blur_share: float = 1.0
    solarise: float = 0.0
    noise: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def draw(self, generator: torch.Generator, n: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """See `Policy.draw`."""
        if len(shape) != 3:
            raise InputError(f"this augmentation is for images, not for samples of shape {tuple(shape)}")
        channels, height, width = shape
        params: dict[str, Tensor] = {}
        if self.crop is not None:
            params["box"] = draws.boxes(generator, n, height, width, self.crop, self.aspect)
            params["flip"] = torch.rand(n, generator=generator) < self.flip
        elif self.perspective or self.affine or self.flip:
            params["matrix"] = self._matrix(generator, n, height, width)
        if self.jitter is not None:
            params |= draws.jitter(generator, n, self.jitter, self.jitter_share)
        if self.grey and channels == 3:
            params["grey"] = torch.rand(n, generator=generator) < self.grey
        if self.blur is not None:
            params["sigma"] = draws.blurs(generator, n, self.blur, self.blur_share)
        if self.solarise:
            params["solarise"] = torch.rand(n, generator=generator) < self.solarise
        if self.noise:
            params["noise"] = self.noise * torch.randn(n, *self._viewed(shape), generator=generator)
        return params

    def _viewed(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a view of a sample of `shape`."""
        return shape if self.side is None else (shape[0], self.side, self.side)

    def _matrix(self, generator: torch.Generator, n: int, height: int, width: int) -> Tensor:
        """`[n, 3, 3]` from output to input: affine map, then perspective, then mirror image."""
        matrix = draws.mirrors(generator, n, width, self.flip)
        if self.perspective is not None:
            matrix = matrix @ draws.perspectives(generator, n, height, width, *self.perspective)
        if self.affine is not None:
            matrix = matrix @ draws.affines(generator, n, height, width, *self.affine)
        return matrix.float()

    @torch.no_grad()
    def apply(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """See `Policy.apply`."""
        rows = CHUNK // x[0].numel() + 1
        if x.device.type != "cpu" or len(x) <= rows:
            return self._view(x, params)
        out = torch.empty(len(x), *self._viewed(tuple(x.shape[1:])))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            out[part] = self._view(x[part], {name: values[part] for name, values in params.items()})
        return out

    def _view(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        x = _to_float(x)
        if "box" in params:
            x = image_ops.crop_resize(x, params["box"], params["flip"], self.side)
        elif "matrix" in params:
            x = image_ops.warp(x, params["matrix"])
        elif self.side is not None:
            x = image_ops.resize(x, self.side)
        if "brightness" in params:
            x = image_ops.adjust_brightness(x, params["brightness"])
            x = image_ops.adjust_contrast(x, params["contrast"])
            x = image_ops.adjust_saturation(x, params["saturation"])
            x = image_ops.adjust_hue(x, params["hue"])
        if "grey" in params:
            x = image_ops.to_grey(x, params["grey"])
        if "sigma" in params:
            x = image_ops.gaussian_blur(x, params["sigma"], 9)
        if "solarise" in params:
            x = image_ops.solarise(x, params["solarise"])
        if "noise" in params:
            x = x.add_(params["noise"])
        return self._normalise(x)

    def plain(self, x: Tensor) -> Tensor:
        """See `Policy.plain`."""
        x = _to_float(x)
        return self._normalise(x if self.side is None else image_ops.resize(x, self.side))

    def _normalise(self, x: Tensor) -> Tensor:
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            x[:, channel].sub_(mean).div_(std)
        return x


@dataclass(frozen=True)
class NoisePolicy:
    """Gaussian noise of standard deviation `noise` on vectors; 0: samples as they are."""

    noise: float

    def draw(self, generator: torch.Generator, n: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """See `Policy.draw`."""
        if not self.noise:
            return {}
        if len(shape) != 1:
            raise InputError(f"this augmentation is for vectors, not for samples of shape {tuple(shape)}")
        return {"noise": self.noise * torch.randn(n, *shape, generator=generator)}

    @torch.no_grad()
    def apply(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """See `Policy.apply`."""
        return _to_float(x) + params["noise"] if "noise" in params else _to_float(x)

    def plain(self, x: Tensor) -> Tensor:
        """See `Policy.plain`."""
        return _to_float(x)


def _to_float(x: Tensor) -> Tensor:
    """A fresh float32 tensor; images from 0..255 to 0..1."""
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32, copy=True)


_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_STL = ImagePolicy(crop=(0.08, 1.0), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_share=0.8, grey=0.2, blur=(0.1, 2.0))

POLICIES: dict[str, Policy] = {
    "none": NoisePolicy(0.0),
    # SimCLR without blur, as the published code trains CIFAR.
    "cifar": ImagePolicy(
        crop=(0.08, 1.0),
        flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_share=0.8,
        grey=0.2,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
    ),
    # MLC, appendix D.2, which crops the 64 pixels of Tiny-ImageNet to 32 as well. It says nothing of the blur's size:
    # that is VICReg's, whose augmentation it takes. It lists grey before the jitter; VICReg's code and we have it
    # after. Either way a grey view has its own brightness and contrast, which commute with the grey but for clipping.
    "mlc": ImagePolicy(
        crop=(0.04, 1.0),
        side=32,
        flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_share=0.8,
        grey=0.2,
        blur=(0.1, 2.0),
        blur_share=0.1,
    ),
    # EMP-SSL: small crops of one size. It scales channels by ImageNet's figures; these are CIFAR's, as above.
    "emp_ssl": ImagePolicy(
        crop=(0.25, 0.25),
        aspect=1.0,
        side=32,
        flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.2),
        jitter_share=0.8,
        grey=0.2,
        blur=(0.1, 2.0),
        blur_share=0.1,
        solarise=0.1,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
    ),
    "stl": _STL,
    "imagenet": _STL,
    "coil": ImagePolicy(flip=0.5, perspective=(0.3, 0.6), jitter=(0.8, 0.8, 0.8, 0.2)),
    # Ours: what leaves a digit the same digit; a mirror image does not.
    "digits": ImagePolicy(affine=(15.0, 0.12, 0.8, 1.2, 15.0), jitter=(0.3, 0.3, 0.0, 0.0), noise=0.1),
    "mnist": ImagePolicy(affine=(15.0, 0.1, 0.8, 1.2, 15.0), jitter=(0.2, 0.2, 0.0, 0.0)),
    # The published code has 0.2, the paper 0.05 (B.1).
    "noise_spiral": NoisePolicy(0.2),
    "noise_spiral_paper": NoisePolicy(0.05),
    "noise_synthetic": NoisePolicy(0.1),
    # Ours: MLC does not say how it augments its toy.
    "noise_sphere": NoisePolicy(0.1),
}


@cache
def compiled_apply(policy: Policy) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """`apply` of a policy by torch.compile: many passes over memory become few, the same up to rounding.

    Each shape is compiled at its first call, which takes seconds.
    """
    return torch.compile(policy.apply, dynamic=False)
