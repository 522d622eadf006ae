"""The user's own photos for an encoder: files that are read at the encoder's size when it is their turn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raymc.config import OwnData
from raymc.datasets.files import Bytes, read, read_images
from raymc.datasets.frames import framed_photo
from raymc.datasets.own_folders import listed, text_below
from raymc.datasets.own_found import Found
from raymc.datasets.own_images import EXPECTED, in_bytes


@dataclass(frozen=True)
class Photos:
    """Image files in order: a sequence that numpy's and Python's rows are taken of by `take`."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> Photos:
        """Some of them, in this order."""
        return Photos([self.paths[row] for row in rows])

    def fingerprint(self) -> str:
        """A hash of the files' content in their order, whatever they are called. Raises InputError."""
        digest = hashlib.sha256(b"photos")
        for path in self.paths:
            digest.update(hashlib.sha256(read(path, EXPECTED)).digest())
        return digest.hexdigest()

    def read(self, rows: slice, resize: int, side: int, interpolation: str) -> Tensor:
        """Pixels uint8 `[n, 3, side, side]`, see `frames.framed_photo`; as `own_images` reads them otherwise.

        Raises InputError for a file that is torn or of another kind.
        """

        def convert(image: Image.Image) -> Bytes | None:
            plain = in_bytes(image)
            if plain is None:
                return None
            return np.asarray(framed_photo(plain.convert("RGB"), resize, side, interpolation)).transpose(2, 0, 1)

        return torch.from_numpy(np.stack(read_images(self.paths[rows], EXPECTED, convert)))


def list_photos(own: OwnData) -> Found:
    """The images of a folder as `own_images.read_folder` orders and names them; `x` are `Photos`. Raises InputError."""
    folder = Path(own.path)
    found = listed(folder, own.label)
    x: Any = Photos(found.images)
    labels = None if found.labels is None else np.asarray(found.labels)
    return Found(x, labels, left_out=found.left_out, samples=[text_below(path, folder) for path in found.images])
