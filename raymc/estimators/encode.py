"""What a frozen encoder gives for images or texts, as an array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc import encoders
from raymc.config import OwnData
from raymc.datasets.own_arrays import as_images
from raymc.datasets.own_photos import Photos
from raymc.errors import InputError
from raymc.storage.stage_store import Store
from raymc.training.features.data import ALONE, read_raw
from raymc.training.features.inputs import Inputs
from raymc.training.features.stage import Features
from raymc.training.training import pick_device

EXPECTED = "a folder of images, a list of image files or of texts, or images uint8 [n, h, w] or [n, h, w, c]"


def encode(
    X: Any,
    encoder: str,
    *,
    weights: str | Path | None = None,
    side: int | None = None,
    download: bool = False,
    storage: str | None = None,
    device: str | torch.device | None = None,
) -> NDArray[np.float32]:
    """The features of images or texts by a frozen encoder: what `raymc embed` writes, as an array.

    Args:
        X: a folder of images, which are taken in the order of their paths; a list of n image files; images, uint8
            `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]` with one or three colours; or a list of n texts.
        encoder: its name: `efficientnet_lite2`, `timm:NAME`, `sentence_transformers:ID`, ….
        weights: a file of weights, of some libraries a folder, in place of those that are installed.
        side: pixels of the encoder's input in place of its own.
        download: fetch weights that are not there into the user's cache; else nothing is asked of the network.
        storage: a folder or URI in which the features are looked for and kept; None: nowhere.
        device: where it computes; None: the current GPU, else the CPU.

    Returns:
        Float32 `[n, m]`, neither centred nor scaled.

    Raises InputError for samples that the encoder does not take, and for an encoder or weights that are not there.
    """
    loaded = encoders.load(encoder, None if weights is None else str(weights), side, download)
    inputs = _inputs(X, loaded.takes)
    with TemporaryDirectory(prefix="raymc-") as nowhere:
        features = Features(loaded, inputs, Store(storage or nowhere), "float32", pick_device(device))
        features.obtain(ALONE, lambda row: None)
        return features.array()


def _inputs(given: Any, takes: str) -> Inputs:
    """The samples as the encoder is given them. Raises InputError."""
    if isinstance(given, str | Path):
        place = Path(given).expanduser().resolve()
        return read_raw(OwnData(name=place.name, path=str(place), encoder="any"), None).train
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OUS":
        if given.dtype != np.uint8 or given.ndim not in (3, 4) or not len(given):
            shape = "x".join(map(str, given.shape))
            raise InputError(f"X holds {shape} values ({given.dtype}); expected: {EXPECTED}")
        return torch.from_numpy(np.ascontiguousarray(as_images(given, "X")))
    return _listed(list(given), takes)


def _listed(given: Sequence[Any], takes: str) -> Inputs:
    wrong = next((one for one in given if not isinstance(one, str | Path)), None)
    if wrong is not None or not given:
        found = type(wrong).__name__ if given else "nothing"
        raise InputError(f"X holds {found}; expected: {EXPECTED}")
    return Photos([Path(one) for one in given]) if takes == "images" else [str(one) for one in given]
