"""The user's own labels: numbered by the training rows' classes, also those of the part that is held out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raymc.datasets.own_found import EXACT, Array, Found
from raymc.errors import InputError


class Classes(NamedTuple):
    """The classes of the training rows.

    Attributes:
        values: `[k]`, sorted: class j has label j.
        names: as the user wrote them.
    """

    values: Array
    names: tuple[str, ...]


def numbered(found: Found, path: Path) -> tuple[Tensor, Classes]:
    """Labels int64 `[n]` from 0 on, in the order of the sorted values, and what they are.

    Raises InputError where they are neither whole numbers nor texts, not one for each row, or all equal.
    """
    values = _checked(found, path)
    kinds, numbers = np.unique(values, return_inverse=True)
    if len(kinds) < 2:
        raise InputError(f"{path}: all labels are {kinds[0]}; at least two classes are needed, or no labels")
    return torch.from_numpy(numbers.astype(np.int64)), Classes(kinds, tuple(_texts(kinds)))


def numbered_as(classes: Classes, found: Found, path: Path) -> Tensor:
    """Labels int64 `[n]` by the classes of the training rows. Raises InputError for a class that these lack."""
    values = _checked(found, path)
    if (values.dtype.kind in "US") != (classes.values.dtype.kind in "US"):  # `1, 2` here and `1, 2, b` there
        kinds, values = np.asarray(classes.names), np.asarray(_texts(values))
        order = np.argsort(kinds)
    else:
        kinds, order = classes.values, np.arange(len(classes.values))
    places = np.searchsorted(kinds, values, sorter=order).clip(max=len(kinds) - 1)
    numbers = order[places]
    unknown = np.flatnonzero(kinds[numbers] != values)
    if len(unknown):
        row = int(unknown[0])
        reason = f"the label of row {row} is {_texts(values[row : row + 1])[0]}, which no training row has"
        raise InputError(f"{path}: {reason}; {len(unknown)} rows have such labels")
    return torch.from_numpy(numbers.astype(np.int64))


def _checked(found: Found, path: Path) -> Array:
    values, n = found.y, len(found.x)
    assert values is not None
    if values.shape != (n,) or values.dtype.kind not in "biufUS":
        shape = "x".join(map(str, values.shape))
        expected = f"{n} whole numbers or texts"
        raise InputError(f"{path} holds {shape} labels ({values.dtype}) for {n} samples; expected: {expected}")
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(~(values == np.round(values)) | ~np.isfinite(values))
        if len(wrong):
            raise InputError(f"{path}: the label of row {wrong[0]} is {values[wrong[0]]}; expected: a whole number")
        wide = np.flatnonzero(np.abs(values) > EXACT)
        if len(wide):
            why = f"the label of row {wide[0]} is {values[wide[0]]:.17g}, a float beyond 2^53"
            raise InputError(f"{path}: {why}, which may be several numbers; expected: whole numbers or texts")
    return values


def _texts(values: Array) -> list[str]:
    return [str(int(value) if values.dtype.kind == "f" else value) for value in values]
