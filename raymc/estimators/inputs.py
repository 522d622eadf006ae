"""New samples for a model: arrays, tensors, frames and texts, checked against what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymc.config import Config
from raymc.datasets.own_arrays import samples_in
from raymc.datasets.own_cells import first_wrong
from raymc.datasets.own_checks import check_numbers, difference_from, with_colours
from raymc.datasets.own_found import Array, Found
from raymc.errors import InputError
from raymc.training.features.inputs import Inputs, Photos
from raymc.training.model_files import TrainedModel

X = "X"
ROWS_AND_COLUMNS = "rows [n, d] of numbers: an array, a tensor or a DataFrame"


def for_encoder(trained: TrainedModel, given: Any) -> Inputs:
    """Images uint8 `[n, c, h, w]`, photos or texts, which the model's encoder is given. Raises InputError."""
    if isinstance(given, Photos):
        return given
    text = trained.config.own.text if trained.config.own else None
    if trained.record["encoder"]["takes"] == "texts":
        if _is_frame(given) and text not in list(given.columns):
            raise InputError(f"{X} has no column {text}; expected: the texts, which {_encoder(trained)} takes")
        texts = given[text] if _is_frame(given) else given
        found = [texts] if isinstance(texts, str) else list(texts)
        if not all(isinstance(one, str) for one in found):
            raise InputError(f"{X} holds more than texts; expected: a list of texts, which {_encoder(trained)} takes")
        return found
    array = _array(given)
    if array.ndim not in (3, 4):
        raise InputError(f"{X} holds {_words(array)}; expected: images, which {_encoder(trained)} takes")
    return torch.from_numpy(np.require(_samples(array), requirements=["C", "W"]))


def for_net(trained: TrainedModel, given: Any, name: str = X) -> Array:
    """Rows `[n, d]` as they are stored, or images uint8 `[n, c, h, w]`, of the kind that the model was trained on.

    Raises InputError that begins with `name` and names the first difference.
    """
    images = len(trained.input_shape) == 3
    found = given if isinstance(given, Found) else _found(trained.config, given, images)
    if found.side is not None:
        found = with_colours(found, trained.input_shape)
    columns = trained.record["input"]["columns"] or ()
    difference = difference_from(trained.input_shape, columns if found.columns else (), found)
    if difference:
        raise InputError(f"{name}, compared with what the model was trained on, {difference}")
    if found.x.ndim == 2:
        check_numbers(found, name)
    return found.x


def _found(config: Config, given: Any, images: bool) -> Found:
    if _is_frame(given):
        own = config.own
        left_out = (own.label, own.id) if own else ()
        names = [name for name in map(str, given.columns) if name not in left_out]
        return Found(_numbers(given, names), None, names)
    array = _array(given)
    if array.ndim < 2 or (images and array.ndim == 2):
        kind = "images [n, h, w], [n, h, w, c] or [n, c, h, w]" if images else ROWS_AND_COLUMNS
        raise InputError(f"{X} holds {_words(array)}; expected: {kind}")
    return Found(_samples(array), None)


def _samples(array: Array) -> Array:
    """Rows, or images uint8 `[n, c, h, w]`; also none at all, which is no error where samples come in batches."""
    some = array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    return samples_in(some, X)[0][: len(array)]


def _numbers(frame: Any, names: Sequence[str]) -> Array:
    """The columns `[n, d]` of a frame, float64. Raises InputError for one that holds other than numbers."""
    by_name = {str(name): name for name in frame.columns}
    out = np.empty((len(frame), len(names)), np.float64)
    for at, name in enumerate(names):
        column = frame[by_name[name]].to_numpy()
        if column.dtype.kind not in "biuf":
            cell = first_wrong(name, column)
            raise InputError(f"{X} has no numbers in column {name}{'' if cell is None else f': {cell}'}")
        out[:, at] = column
    return out


def _array(given: Any) -> Array:
    if isinstance(given, Tensor):
        plain = given.detach().cpu()
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{X} holds {_words(array)}; expected: numbers")
    return array


def _is_frame(given: Any) -> bool:
    return hasattr(given, "columns") and hasattr(given, "to_numpy")


def _words(array: Array) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'one'} values ({array.dtype})"


def _encoder(trained: TrainedModel) -> str:
    return f"the model's encoder {trained.record['encoder']['name']}"
