"""Pictures of single samples by their names: of images, or of what a frozen encoder saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymc import datasets
from raymc.datasets.own import read_found
from raymc.datasets.own_photos import Photos
from raymc.errors import InputError
from raymc.reporting.cluster.samples import SIDE, Thumbnails
from raymc.stability.cluster import Clustering

Picture = NDArray[np.uint8]


def thumbnails(found: Clustering) -> Thumbnails:
    """Pictures of samples by name, where these are images or an encoder saw images.

    Names and not rows, since a shortened run has drawn its samples. Of a folder behind an encoder only the files that
    are asked for are read.
    """
    own, dataset = found.space.own, found.dataset
    if own is None or own.encoder is None:
        return _of_array(dataset.train.x, dataset.samples)
    if own.known:
        known = datasets.load(own.path, found.data)
        return _of_array(known.train.x, known.samples)
    if own.text is not None:
        return no_picture
    if Path(own.path).is_dir():
        return lambda name: photo(Path(own.path) / name)
    seen = read_found(replace(own, encoder=None, weights=None))
    return _of_array(seen.x, seen.samples)


def photo(path: Path) -> Picture | None:
    """The middle of an image file, `[SIDE, SIDE, 3]`; None where there is none: a name may have been spelt out."""
    try:
        pixels = Photos([path]).read(slice(0, 1), SIDE, SIDE, "bicubic")[0]
    except InputError:
        return None
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _of_array(x: Any, names: Sequence[str] | None) -> Thumbnails:
    """Of images uint8 `[n, c, h, w]` with their names, without which a name is the number of a row."""
    if x.ndim != 4:
        return no_picture
    rows = {name: row for row, name in enumerate(map(str, range(len(x))) if names is None else names)}

    def image(name: str) -> Picture | None:
        row = rows.get(name)
        if row is None:
            return None
        pixels = np.asarray(x[row]).transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    return image


def no_picture(name: str) -> None:
    """Of samples that are no images."""
