"""What an encoder is: a frozen net by name, and how samples become its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Asked:
    """Which encoder is asked for.

    Attributes:
        name: of the encoder, all that the user wrote.
        model: what its library calls it: `name` without the library.
        weights: a file or folder of the user's own in place of the library's cache.
        download: whether what is not there may be fetched into the library's cache.
    """

    name: str
    model: str
    weights: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """How images become the input of an encoder; all of it is in the key of the features.

    Attributes:
        side: height and width of the input, pixels.
        resize: the shorter side before the centre crop to `side`, pixels.
        interpolation: `bicubic` or `bilinear`, both with antialiasing.
        mean: of each colour, of pixels in 0..1.
        std: as `mean`.
    """

    side: int
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, x: Tensor) -> Tensor:
        """Pixels in 0..255 `[n, c, side, side]`, c of 1 or 3, to float32 `[n, 3, side, side]`; grey is repeated."""
        mean, std = (x.new_tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (x.float() / 255 - mean) / std

    def with_side(self, side: int) -> Preprocessing:
        """The same for inputs of `side` pixels, the crop in proportion."""
        resize = round(self.resize * side / self.side)
        return Preprocessing(side, resize, self.interpolation, self.mean, self.std)


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder.

    Attributes:
        name: as the user wrote it.
        module: the net, in eval mode; its weights are in the key of the features.
        encode: inputs float32 `[n, 3, side, side]`, or a list of n texts, to features `[n, m]`.
        preprocessing: of images; None: it takes texts.
        source: the file, or the model of a cache, that the weights come from.
    """

    name: str
    module: nn.Module
    encode: Callable[[Any], Tensor]
    preprocessing: Preprocessing | None
    source: str

    @property
    def takes(self) -> str:
        """`images` or `texts`."""
        return "images" if self.preprocessing else "texts"
