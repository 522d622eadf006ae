"""What an encoder is given: images in memory, photos that are read when it is their turn, or texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from raymc.datasets import fingerprint
from raymc.datasets.frames import framed
from raymc.encoders import Encoder


@runtime_checkable
class Photos(Protocol):
    """Image files, see `raymc.datasets.own_photos`."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """A hash of the files' content in their order."""

    def read(self, rows: slice, resize: int, side: int, interpolation: str) -> Tensor:
        """Pixels uint8 `[n, 3, side, side]`."""


Inputs = Tensor | Photos | Sequence[str]
"""Images uint8 `[n, c, h, w]`, image files, or texts."""


def print_of(x: Inputs) -> str:
    """A hash of the samples as they are read, whatever they are called."""
    if isinstance(x, Tensor):
        return fingerprint(x)
    if isinstance(x, Photos):
        return x.fingerprint()
    digest = hashlib.sha256(b"texts")
    for text in x:
        raw = text.encode(errors="surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def kind_of(x: Inputs) -> str:
    """`images`, `vectors` or `texts`."""
    if isinstance(x, Tensor):
        return "images" if x.dtype == torch.uint8 else "vectors"
    return "images" if isinstance(x, Photos) else "texts"


def batch(x: Inputs, rows: slice, encoder: Encoder, device: torch.device) -> Any:
    """The input of the encoder for these rows: float32 `[n, 3, side, side]`, or texts."""
    how = encoder.preprocessing
    if how is None:
        assert not isinstance(x, Tensor | Photos)
        return list(x[rows])
    if isinstance(x, Photos):
        pixels = x.read(rows, how.resize, how.side, how.interpolation).to(device)
    else:
        assert isinstance(x, Tensor)
        pixels = framed(x[rows].to(device), how.resize, how.side, how.interpolation)
    return how.normalised(pixels).contiguous(memory_format=torch.channels_last)
